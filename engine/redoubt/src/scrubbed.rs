//! What `redoubt scrub` found, in words and as JSON.
//!
//! What is *not* here: the scrub itself (`redoubt_vault::scrub`).

use crate::failure::{Exit, Failure, Outcome};
use crate::names::machine;
use crate::places::{self, Place};
use crate::units::show_size;
use redoubt_core::{SECTOR_BYTES, VolumeIndex};
use redoubt_vault::PointId;
use redoubt_vault::scrub::{Damage, Ended, Report, Takes};
use serde::Serialize;
use std::ops::Range;

/// Ranges of one row that people are shown.
const RANGES_MAX: usize = 3;

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// Everything was checked and is as it must be.
    Whole,
    /// Damaged, and no content is lost for it.
    Harmless,
    /// Content is lost, or nobody knows.
    Damaged,
    /// Something could not be read; what could is whole.
    Unread,
    /// It was stopped; what it saw is whole.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RangeJson {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl From<&Range<u64>> for RangeJson {
    fn from(sectors: &Range<u64>) -> RangeJson {
        let (offset, bytes) = (sectors.start * SECTOR_BYTES, (sectors.end - sectors.start) * SECTOR_BYTES);
        RangeJson { offset, bytes }
    }
}

/// Points that miss the same; without a volume all of each is lost.
#[derive(Debug, Serialize)]
pub(crate) struct HitJson {
    from: String,
    /// `None`: whatever points there were from there on.
    to: Option<String>,
    volume: Option<String>,
    ranges: Vec<RangeJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DamageJson {
    object: String,
    from: u64,
    to: u64,
    what: String,
    /// `points`, `nothing`, or `unknown`.
    takes: &'static str,
    why: Option<&'static str>,
    points: Vec<HitJson>,
    /// What of the newest state needs it: the source can send that again.
    newest: Vec<(String, RangeJson)>,
}

#[derive(Debug, Serialize)]
pub(crate) struct UnreadJson {
    object: String,
    why: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct OrphanJson {
    object: String,
    bytes: u64,
}

/// How the source healed the newest state.
#[derive(Debug, Serialize)]
pub(crate) struct RepairJson {
    pub(crate) ranges: u64,
    pub(crate) bytes: u64,
    /// The first point that has all of them again.
    pub(crate) whole_since: Option<String>,
}

/// A machine's scrub.
#[derive(Debug, Serialize)]
pub(crate) struct Scrubbed {
    pub(crate) verdict: Word,
    machine: String,
    /// What it is called; empty if nobody said.
    pub(crate) name: String,
    with_key: bool,
    objects: u64,
    checked: u64,
    /// Of these, segments that a scrub that was interrupted found whole.
    resumed: u64,
    bytes: u64,
    units: u64,
    points: u64,
    damage: Vec<DamageJson>,
    more_damage: u64,
    lost_points: Vec<String>,
    /// Points that miss nothing; none if it is not known of each.
    whole_points: Vec<String>,
    unread: Vec<UnreadJson>,
    orphans: Vec<OrphanJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repair: Option<RepairJson>,
    /// Everything was read.
    #[serde(skip)]
    pub(crate) is_all: bool,
}

fn name(point: &PointId) -> String {
    format!("{}.{}", point.slot, point.ordinal)
}

impl Scrubbed {
    pub(crate) fn new(report: &Report, named: impl Fn(VolumeIndex) -> String) -> Scrubbed {
        let verdict = match report {
            _ if report.costs_content() => Word::Damaged,
            _ if !report.unread.is_empty() => Word::Unread,
            _ if report.ended == Ended::Stopped => Word::Stopped,
            _ if !report.damage.is_empty() => Word::Harmless,
            _ => Word::Whole,
        };
        let damage = report.damage.iter().map(|damage| damage_of(damage, &named)).collect();
        let unread = report.unread.iter();
        let orphans = report.orphans.iter();
        Scrubbed {
            verdict,
            machine: report.machine.to_string(),
            name: String::new(),
            with_key: report.with_keys,
            objects: report.objects,
            checked: report.checked,
            resumed: report.resumed,
            bytes: report.bytes,
            units: report.units,
            points: report.points,
            damage,
            more_damage: report.more,
            lost_points: report.lost.iter().map(name).collect(),
            whole_points: report.whole.iter().map(name).collect(),
            unread: unread.map(|u| UnreadJson { object: u.object.clone(), why: u.why.clone() }).collect(),
            orphans: orphans.map(|o| OrphanJson { object: o.object.clone(), bytes: o.bytes }).collect(),
            repair: None,
            is_all: report.ended == Ended::Done && report.unread.is_empty(),
        }
    }

    /// What the process ends with.
    pub(crate) fn outcome(&self) -> Outcome<()> {
        let fail = |exit, what: String, hint: &str| Err(Failure::new(exit, what).hint(hint));
        match self.verdict {
            Word::Whole => Ok(()),
            Word::Harmless => fail(
                Exit::Warned,
                "the vault is damaged; no recovery point needs what is lost".to_owned(),
                "restore the damaged objects from a copy if there is one",
            ),
            Word::Damaged if self.with_key => fail(
                Exit::Failed,
                "the vault is damaged, and recovery points have lost content".to_owned(),
                "restore the damaged objects from a copy; `redoubt scrub --repair`, where the service runs, \
                 heals the newest state from the disks",
            ),
            Word::Damaged => fail(
                Exit::Failed,
                "the vault is damaged".to_owned(),
                "scrub it with its key to learn which recovery points need what is lost",
            ),
            Word::Unread => fail(
                Exit::Unreachable,
                format!("could not read: {}", objects(self.unread.len() as u64)),
                "nothing is known of these; check that the vault can be reached, then scrub again",
            ),
            Word::Stopped => fail(
                Exit::Failed,
                format!("interrupted after {} of {}", self.checked, objects(self.objects)),
                "what was checked is whole; scrub again for the rest, with --resume FILE from the start if it takes long",
            ),
        }
    }
}

fn objects(count: u64) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{count} objects") }
}

fn damage_of(damage: &Damage, named: &impl Fn(VolumeIndex) -> String) -> DamageJson {
    let (takes, why) = match &damage.takes {
        Takes::Nothing(why) => ("nothing", Some(*why)),
        Takes::Points(_) => ("points", None),
        Takes::Unknown => ("unknown", None),
    };
    let hits = if let Takes::Points(hits) = &damage.takes { &hits[..] } else { &[] };
    let points = hits.iter().map(|hit| HitJson {
        from: name(&hit.first),
        to: (hit.last.ordinal != u16::MAX).then(|| name(&hit.last)),
        volume: hit.lost.as_ref().map(|(volume, _)| named(*volume)),
        ranges: hit.lost.iter().flat_map(|(_, ranges)| ranges).map(RangeJson::from).collect(),
    });
    DamageJson {
        object: damage.object.clone(),
        from: damage.from,
        to: damage.to,
        what: damage.what.clone(),
        takes,
        why,
        points: points.collect(),
        newest: damage.newest.iter().map(|(volume, range)| (named(*volume), range.into())).collect(),
    }
}

/// Shows it to people.
pub(crate) fn show(all: &[Scrubbed]) -> String {
    all.iter().map(show_one).collect::<Vec<_>>().join("\n\n")
}

fn show_one(scrubbed: &Scrubbed) -> String {
    let depth = if scrubbed.with_key { "opened with their key" } else { "by their checksums, without a key" };
    let mut text = format!(
        " machine {}\n {} of {} checked, {}, {} units {depth}\n\n",
        machine(&scrubbed.machine, &scrubbed.name),
        scrubbed.checked,
        objects(scrubbed.objects),
        show_size(scrubbed.bytes),
        scrubbed.units
    );
    if scrubbed.resumed > 0 {
        text += &format!(
            " {} of them by the scrub that was interrupted: found whole, not read again\n\n",
            objects(scrubbed.resumed)
        );
    }
    if !scrubbed.damage.is_empty() {
        let damaged: Vec<Place<'_>> = scrubbed.damage.iter().map(place_of).collect();
        text += &places::show("damaged", &scrubbed.machine, &damaged);
    }
    if scrubbed.more_damage > 0 {
        text += &format!(" and {} damaged places more\n\n", scrubbed.more_damage);
    }
    if !scrubbed.unread.is_empty() {
        let unread: Vec<Place<'_>> = scrubbed.unread.iter().map(unread_of).collect();
        text += &places::show("not read", &scrubbed.machine, &unread);
    }
    if !scrubbed.orphans.is_empty() {
        let bytes = scrubbed.orphans.iter().map(|orphan| orphan.bytes).sum();
        text += &format!(
            " {} ({}) that nothing names: uploads under way, or left behind; no damage\n\n",
            objects(scrubbed.orphans.len() as u64),
            show_size(bytes)
        );
    }
    text + &last_line(scrubbed)
}

fn unread_of(unread: &UnreadJson) -> Place<'_> {
    Place { object: &unread.object, bytes: None, what: &unread.why, takes: Vec::new() }
}

fn place_of(damage: &DamageJson) -> Place<'_> {
    let takes = match damage.takes {
        "nothing" => vec![format!("nothing is lost: {}", damage.why.unwrap_or("nothing needs it"))],
        "unknown" => vec!["not known which points need it".to_owned()],
        _ if damage.points.is_empty() && damage.newest.is_empty() => vec!["no point needs it".to_owned()],
        _ if damage.points.is_empty() => vec!["no point needs it, the newest state does".to_owned()],
        _ => damage.points.iter().map(hit).collect(),
    };
    let bytes = (damage.to > damage.from).then_some((damage.from, damage.to));
    Place { object: &damage.object, bytes, what: &damage.what, takes }
}

/// Says which points miss what.
fn hit(hit: &HitJson) -> String {
    let points = match &hit.to {
        Some(to) if *to == hit.from => format!("point {}", hit.from),
        Some(to) => format!("points {} to {to}", hit.from),
        None => format!("points from {} on", hit.from),
    };
    match &hit.volume {
        Some(volume) => format!("{points}, {volume}: {}", ranges(&hit.ranges)),
        None => format!("{points}: all of each"),
    }
}

fn ranges(ranges: &[RangeJson]) -> String {
    let shown = ranges.iter().take(RANGES_MAX);
    let mut text: Vec<String> =
        shown.map(|range| format!("{} at {}", show_size(range.bytes), range.offset)).collect();
    if ranges.len() > RANGES_MAX {
        let rest = ranges[RANGES_MAX..].iter().map(|range| range.bytes).sum();
        text.push(format!("{} in {} more", show_size(rest), ranges.len() - RANGES_MAX));
    }
    text.join(", ")
}

/// What can be recovered all the same, if that is known.
fn left(scrubbed: &Scrubbed) -> String {
    let all = scrubbed.points + scrubbed.lost_points.len() as u64;
    match scrubbed.whole_points.last() {
        Some(newest) => {
            let whole = scrubbed.whole_points.len();
            format!("; {whole} of {all} recovery points miss nothing, the newest of them is {newest}")
        }
        None => String::new(),
    }
}

fn last_line(scrubbed: &Scrubbed) -> String {
    let mut text = match scrubbed.verdict {
        Word::Whole if scrubbed.with_key => match scrubbed.points {
            1 => " WHOLE: every unit opens, the one recovery point has all it needs".to_owned(),
            points => format!(" WHOLE: every unit opens, {points} recovery points have all they need"),
        },
        Word::Whole => " WHOLE: every checksum holds".to_owned(),
        Word::Harmless => " DAMAGED, and no recovery point needs what is lost".to_owned(),
        Word::Damaged => match scrubbed.damage.len() as u64 + scrubbed.more_damage {
            1 => format!(" DAMAGED: 1 place{}", left(scrubbed)),
            places => format!(" DAMAGED: {places} places{}", left(scrubbed)),
        },
        Word::Unread => format!(" NOT KNOWN: could not read {}", objects(scrubbed.unread.len() as u64)),
        Word::Stopped => " STOPPED: what was checked is whole".to_owned(),
    };
    match &scrubbed.repair {
        Some(RepairJson { ranges: 0, .. }) => text += "; nothing of the newest state needs repair",
        Some(RepairJson { bytes, whole_since: Some(point), .. }) => {
            text += &format!("\n REPAIRED: {} sent again, point {point} has all of it", show_size(*bytes));
        }
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_core::MachineId;
    use redoubt_vault::scrub::{Hit, Orphan, Unread};

    fn report() -> Report {
        let mut report = Report::new(MachineId(0x5e7f), true);
        (report.objects, report.checked, report.bytes, report.units, report.points) =
            (42, 42, 9 << 20, 300, 12);
        report
    }

    fn point(slot: u64, ordinal: u16) -> PointId {
        PointId { slot, ordinal }
    }

    fn damage(takes: Takes) -> Damage {
        let (object, what) = ("g/5e7f/seg/00000001/0f".to_owned(), "the seal is broken".to_owned());
        Damage { object, from: 128, to: 28456, what, takes, newest: Vec::new() }
    }

    fn named(_: VolumeIndex) -> String {
        "erp".to_owned()
    }

    fn rubble() -> Report {
        let mut report = report();
        let ranges = (0..5).map(|at| at * 256..at * 256 + 128).collect();
        let hit = |first, last, lost| Hit { first, last, lost };
        let lost = Some((VolumeIndex(0), ranges));
        let mut ranged = damage(Takes::Points(vec![
            hit(point(3, 0), point(9, 2), lost),
            hit(point(9, 3), point(9, 3), Some((VolumeIndex(0), std::iter::once(0..128).collect()))),
        ]));
        ranged.newest = vec![(VolumeIndex(0), 0..128)];
        let record = Damage {
            object: "g/5e7f/log/000000000000000c".to_owned(),
            from: 0,
            to: 0,
            what: "the slot is missing, later ones exist".to_owned(),
            ..damage(Takes::Points(vec![hit(point(12, 0), point(12, u16::MAX), None)]))
        };
        let claim = Damage {
            object: "g/5e7f/claim/w/00000001".to_owned(),
            ..damage(Takes::Nothing("the next claim makes it again"))
        };
        report.damage = vec![ranged, record, claim];
        report.orphans = vec![Orphan { object: "g/5e7f/seg/00000001/aa".to_owned(), bytes: 5 << 20 }];
        report.whole = vec![point(1, 0), point(2, 0), point(11, 0)];
        report
    }

    #[test]
    fn damage_is_shown_with_the_points_and_ranges_it_takes() {
        let scrubbed = Scrubbed::new(&rubble(), named);
        insta::assert_snapshot!(show(&[scrubbed]));
    }

    #[test]
    fn the_exit_code_says_what_a_script_must_do() {
        let exit = |report: &Report| Scrubbed::new(report, named).outcome().err().map(|failure| failure.exit);
        assert_eq!(exit(&report()), None);
        assert_eq!(exit(&rubble()), Some(Exit::Failed));
        let mut harmless = report();
        harmless.damage = vec![damage(Takes::Points(Vec::new())), damage(Takes::Nothing("so"))];
        assert_eq!(exit(&harmless), Some(Exit::Warned));
        let mut unread = report();
        unread.unread = vec![Unread { object: "x".to_owned(), why: "no answer".to_owned() }];
        assert_eq!(exit(&unread), Some(Exit::Unreachable));
        let mut stopped = report();
        stopped.ended = Ended::Stopped;
        assert_eq!(exit(&stopped), Some(Exit::Failed));
        let mut orphaned = report();
        orphaned.orphans = vec![Orphan { object: "x".to_owned(), bytes: 1 }];
        assert_eq!(exit(&orphaned), None);
        let mut open = report();
        open.damage = vec![damage(Takes::Unknown)];
        assert_eq!(exit(&open), Some(Exit::Failed));
    }
}
