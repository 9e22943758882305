//! What `redoubt verify` found: values, the verdict, and how it looks.

use crate::failure::{Exit, Failure, Outcome};
use crate::names::machine;
use crate::output::{self, Cell, Tone};
use crate::places::{self, Place};
use crate::units::{show_size, show_wall};
use redoubt_core::SECTOR_BYTES;
use redoubt_vault::PointInfo;
use redoubt_verifier::{Damage, Hit, Point, Proof};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// What is known of the log's beginning from folds alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FoldedJson {
    /// The last slot of it.
    slot: u64,
    /// The last change in it.
    seq: u64,
    catalogue: u64,
    /// Whether all of it is there.
    is_whole: bool,
}

/// How both readers agree on one volume.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Compared {
    #[serde(skip)]
    pub(crate) volume: u16,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) data_bytes: u64,
    /// Damaged for both.
    pub(crate) lost_bytes: u64,
    /// Served otherwise by one than by the other.
    pub(crate) differing_bytes: u64,
    /// Whether both name the same point, volumes and sizes.
    pub(crate) same_point: bool,
}

impl Compared {
    pub(crate) fn new(volume: u16, bytes: u64, same_point: bool) -> Compared {
        Compared { volume, bytes, same_point, ..Compared::default() }
    }

    /// Takes note of one range.
    pub(crate) fn see(&mut self, sectors: Range<u64>, matches: bool) {
        if !matches {
            self.differing_bytes += (sectors.end - sectors.start) * SECTOR_BYTES;
        }
    }

    fn agrees(&self) -> bool {
        self.same_point && self.differing_bytes == 0
    }
}

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// Everything asked for holds, and nothing else is damaged.
    Proven,
    /// What was asked for holds; other points are damaged.
    ProvenWithDamage,
    NotProven,
}

#[derive(Debug, Serialize)]
struct DamageJson {
    object: String,
    from: u64,
    to: u64,
    what: String,
}

impl From<&Damage> for DamageJson {
    fn from(damage: &Damage) -> DamageJson {
        let (object, what) = (damage.object.clone(), damage.what.clone());
        DamageJson { object, from: damage.bytes.start, to: damage.bytes.end, what }
    }
}

#[derive(Debug, Serialize)]
struct PointJson {
    point: String,
    wall_ms: u64,
    seq: u64,
}

impl From<&Point> for PointJson {
    fn from(point: &Point) -> PointJson {
        let name = format!("{}.{}", point.slot, point.ordinal);
        PointJson { point: name, wall_ms: point.wall_ms, seq: point.seq }
    }
}

#[derive(Debug, Serialize)]
struct HitJson {
    /// Its place among all points.
    #[serde(skip)]
    at: usize,
    point: String,
    wall_ms: u64,
    volume: String,
    offset: u64,
    bytes: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) verdict: Word,
    machine: String,
    /// What it is called; empty if nobody said.
    pub(crate) name: String,
    /// The point that was asked for; all points if none.
    asked: Option<String>,
    /// The point whose bytes were compared.
    compared_point: Option<PointJson>,
    /// Set if the log's beginning was folded: what was there is proven as a maintainer left it.
    folded: Option<FoldedJson>,
    slots: u64,
    generation: u64,
    seq: u64,
    stream_chain: String,
    points: u64,
    segments: u64,
    segment_bytes: u64,
    units: u64,
    unit_bytes: u64,
    volumes: Vec<Compared>,
    /// Where the log stops being proven.
    broken: Option<DamageJson>,
    /// Points behind that place.
    lost: Vec<PointJson>,
    damage: Vec<DamageJson>,
    hits: Vec<HitJson>,
}

impl Verdict {
    pub(crate) fn new(
        machine: String,
        asked: Option<String>,
        point: Option<&PointInfo>,
        proof: &Proof,
        mut volumes: Vec<Compared>,
        named: impl Fn(u16) -> String,
    ) -> Verdict {
        volumes.iter_mut().for_each(|volume| volume.name = named(volume.volume));
        let place = |(slot, ordinal): (u64, u16)| {
            proof.points.iter().position(|point| (point.slot, point.ordinal) == (slot, ordinal))
        };
        let at = |id| place(id).map(|at| &proof.points[at]);
        let compared = point.and_then(|point| at((point.id.slot, point.id.ordinal)));
        let hit = |hit: &Hit| HitJson {
            at: place(hit.point).unwrap_or(usize::MAX),
            point: format!("{}.{}", hit.point.0, hit.point.1),
            wall_ms: at(hit.point).map_or(0, |point| point.wall_ms),
            volume: named(hit.volume),
            offset: hit.sectors.start * SECTOR_BYTES,
            bytes: (hit.sectors.end - hit.sectors.start) * SECTOR_BYTES,
        };
        let hits: Vec<HitJson> = proof.hits.iter().map(hit).collect();
        let agree = volumes.iter().all(Compared::agrees);
        let is_hit = |name: &String| hits.iter().any(|hit| hit.point == *name);
        let verdict = match (&asked, &proof.broken) {
            (_, Some(_)) => Word::NotProven,
            _ if !agree => Word::NotProven,
            (Some(name), None) if compared.is_none() || is_hit(name) => Word::NotProven,
            (None, None) if !hits.is_empty() => Word::NotProven,
            _ if proof.damage.is_empty() => Word::Proven,
            _ => Word::ProvenWithDamage,
        };
        let (generation, seq, chain) = proof.head;
        Verdict {
            verdict,
            machine,
            name: String::new(),
            asked,
            compared_point: compared.map(PointJson::from),
            folded: proof.folded.as_ref().map(|folded| FoldedJson {
                slot: folded.slot,
                seq: folded.seq,
                catalogue: folded.catalogue,
                is_whole: folded.is_whole,
            }),
            slots: proof.slots,
            generation,
            seq,
            stream_chain: chain.iter().map(|byte| format!("{byte:02x}")).collect(),
            points: proof.points.len() as u64,
            segments: proof.segments.0,
            segment_bytes: proof.segments.1,
            units: proof.units.0,
            unit_bytes: proof.units.1,
            volumes,
            broken: proof.broken.as_ref().map(DamageJson::from),
            lost: proof.lost.iter().map(PointJson::from).collect(),
            damage: proof.damage.iter().map(DamageJson::from).collect(),
            hits,
        }
    }

    /// What the process ends with.
    pub(crate) fn outcome(&self) -> Outcome<()> {
        let whole =
            "`redoubt verify POINT` proves one that is whole; restore the damaged objects from a copy";
        match self.verdict {
            Word::Proven => Ok(()),
            Word::ProvenWithDamage => {
                Err(Failure::new(Exit::Warned, "the vault is damaged where this point does not need it")
                    .hint("restore the damaged objects from a copy; older points need them"))
            }
            Word::NotProven => {
                let what = match &self.asked {
                    Some(point) => format!("point {point} is not proven"),
                    None => "not all of the machine's log is proven".to_owned(),
                };
                Err(Failure::new(Exit::Failed, what).hint(whole))
            }
        }
    }
}

fn check(name: &str, is_good: bool, bad: &str, what: String) -> Vec<Cell> {
    let result = if is_good { Cell::toned("ok", Tone::Good) } else { Cell::toned(bad, Tone::Bad) };
    vec![name.into(), result, what.into()]
}

fn checks(verdict: &Verdict) -> Vec<Vec<Cell>> {
    let is_whole = verdict.broken.is_none();
    let (first, from) = verdict.folded.as_ref().map_or((1, 1), |folded| (folded.slot + 1, folded.seq + 1));
    let mut rows = Vec::new();
    if let Some(FoldedJson { slot, seq, catalogue, is_whole }) = &verdict.folded {
        let what = format!(
            "slots 1 to {slot}, changes 1 to {seq}, as catalogue {catalogue} has them: their log is gone"
        );
        rows.push(check("folds", *is_whole, "BROKEN", what));
    }
    // Of a point that was folded no record is needed.
    let is_behind =
        verdict.folded.as_ref().is_some_and(|folded| !folded.is_whole || verdict.slots < first && is_whole);
    if !is_behind {
        let what = format!("records {first} to {}, each names the digest of the one before", verdict.slots);
        rows.push(check("log", is_whole, "BROKEN", what));
        let what =
            format!("changes {from} to {} without a gap, generation {}", verdict.seq, verdict.generation);
        rows.push(check("stream", true, "", what));
    }
    rows.extend([check(
        "units",
        verdict.damage.is_empty(),
        "DAMAGED",
        format!(
            "{} in {} segments ({}), {} opened with their seals",
            verdict.units + verdict.damage.len() as u64,
            verdict.segments,
            show_size(verdict.segment_bytes),
            verdict.units
        ),
    )]);
    let of = match (&verdict.asked, &verdict.compared_point) {
        (None, Some(point)) => format!(" at point {}", point.point),
        _ => String::new(),
    };
    for volume in &verdict.volumes {
        let (size, data) = (show_size(volume.bytes), show_size(volume.data_bytes));
        let mut what = format!("{}{of}: {size}, {data} of it data, two readers agree", volume.name);
        if !volume.agrees() {
            what =
                format!("{}{of}: two readers differ in {}", volume.name, show_size(volume.differing_bytes));
        }
        if volume.lost_bytes > 0 {
            what += &format!(", {} lost", show_size(volume.lost_bytes));
        }
        let bad = if volume.agrees() { "DAMAGED" } else { "DIFFER" };
        rows.push(check("bytes", volume.agrees() && volume.lost_bytes == 0, bad, what));
    }
    rows
}

fn place_of(damage: &DamageJson) -> Place<'_> {
    let bytes = (damage.to > damage.from).then_some((damage.from, damage.to));
    Place { object: &damage.object, bytes, what: &damage.what, takes: Vec::new() }
}

/// One row for all points in a row that miss the same.
fn hit_rows(hits: &[HitJson]) -> Vec<Vec<Cell>> {
    let mut runs: Vec<(&HitJson, &HitJson)> = Vec::new();
    let mut open: BTreeMap<(&str, u64, u64), usize> = BTreeMap::new();
    for hit in hits {
        let range = (hit.volume.as_str(), hit.offset, hit.bytes);
        match open.get(&range).map(|run| &mut runs[*run].1) {
            Some(last) if last.at + 1 == hit.at => *last = hit,
            _ => {
                open.insert(range, runs.len());
                runs.push((hit, hit));
            }
        }
    }
    let row = |(first, last): (&HitJson, &HitJson)| {
        let points = if first.at == last.at {
            first.point.clone()
        } else {
            format!("{} to {}", first.point, last.point)
        };
        let (taken, length) = (show_wall(first.wall_ms), show_size(first.bytes));
        let cells = [points, taken, first.volume.clone(), first.offset.to_string(), length];
        cells.into_iter().map(Cell::from).collect()
    };
    runs.into_iter().map(row).collect()
}

/// Shows it to people.
pub(crate) fn show(verdict: &Verdict) -> String {
    let mut text = match (&verdict.asked, &verdict.compared_point) {
        (Some(_), Some(point)) => format!(
            " point {} of {} UTC, sequence {}, machine {}\n\n",
            point.point,
            show_wall(point.wall_ms),
            point.seq,
            machine(&verdict.machine, &verdict.name)
        ),
        (Some(asked), None) => {
            format!(" point {asked}, machine {}\n\n", machine(&verdict.machine, &verdict.name))
        }
        (None, _) => {
            let machine = machine(&verdict.machine, &verdict.name);
            format!(" all {} points of machine {machine}\n\n", verdict.points)
        }
    };
    text += &output::table(&["CHECK", "RESULT", "WHAT"], checks(verdict));
    text += "\n\n";
    let damage: Vec<&DamageJson> = verdict.damage.iter().chain(&verdict.broken).collect();
    if !damage.is_empty() {
        let damaged: Vec<Place<'_>> = damage.into_iter().map(place_of).collect();
        text += &places::show("damaged", &verdict.machine, &damaged);
    }
    if !verdict.hits.is_empty() {
        let header = ["POINTS HIT", "FIRST TAKEN (UTC)", "VOLUME", ">FROM BYTE", ">LENGTH"];
        text += &output::beginning(&header, hit_rows(&verdict.hits));
    }
    if !verdict.lost.is_empty() {
        let row = |point: &PointJson| {
            let cells = [point.point.clone(), show_wall(point.wall_ms), point.seq.to_string()];
            cells.into_iter().map(Cell::from).collect()
        };
        text += &output::beginning(
            &["POINT LOST", "TAKEN (UTC)", ">SEQUENCE"],
            verdict.lost.iter().map(row).collect(),
        );
    }
    text + &last_line(verdict)
}

fn last_line(verdict: &Verdict) -> String {
    let subject = match (&verdict.asked, &verdict.compared_point) {
        (Some(_), Some(point)) => match &verdict.folded {
            None => {
                format!(
                    "the point is changes 1 to {} of the machine, all of them and nothing else",
                    point.seq
                )
            }
            Some(folded) if point.seq > folded.seq => format!(
                "the point is changes {} to {} of the machine, all of them and nothing else, on what its \
                 maintainer kept of changes 1 to {}",
                folded.seq + 1,
                point.seq,
                folded.seq
            ),
            Some(_) => format!(
                "the point is what the machine's maintainer kept of changes 1 to {}: whole, and sealed with the \
                 machine's key",
                point.seq
            ),
        },
        _ if verdict.folded.is_some() => format!(
            "every point is what the machine wrote up to its marker, {} in all, those of the folds as their \
             maintainer kept them",
            verdict.points
        ),
        _ => format!("every point is what the machine wrote up to its marker, {} in all", verdict.points),
    };
    match verdict.verdict {
        Word::Proven => format!(" PROVEN: {subject}"),
        Word::ProvenWithDamage => format!(" PROVEN, in a damaged vault: {subject}"),
        Word::NotProven => {
            if let (Some(_), Some(_), None) = (&verdict.asked, &verdict.compared_point, &verdict.broken) {
                let sum = |of: fn(&Compared) -> u64| show_size(verdict.volumes.iter().map(of).sum());
                let (lost, differing) =
                    (sum(|volume| volume.lost_bytes), sum(|volume| volume.differing_bytes));
                let differ = match verdict.volumes.iter().all(Compared::agrees) {
                    true => String::new(),
                    false => format!(", in {differing} two readers differ"),
                };
                return format!(" NOT PROVEN: {lost} of the point are lost{differ}");
            }
            let mut hit: Vec<&str> = verdict.hits.iter().map(|hit| hit.point.as_str()).collect();
            hit.dedup();
            let (hit, lost) = (hit.len(), verdict.lost.len());
            let all = verdict.points as usize + lost;
            format!(" NOT PROVEN: damage takes ranges of {hit} points and all of {lost}, of {all} in the log")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str) -> PointJson {
        PointJson { point: name.into(), wall_ms: 1_772_373_731_000, seq: 42 }
    }

    fn proven() -> Verdict {
        Verdict {
            verdict: Word::Proven,
            machine: "0123456789abcdef0123456789abcdef".into(),
            name: "erp-host".into(),
            asked: Some("17.1".into()),
            compared_point: Some(point("17.1")),
            folded: None,
            slots: 17,
            generation: 2,
            seq: 44,
            stream_chain: "ab".repeat(32),
            points: 9,
            segments: 5,
            segment_bytes: 9 << 20,
            units: 200,
            unit_bytes: 12 << 20,
            volumes: vec![Compared {
                name: "erp".into(),
                bytes: 2 << 30,
                data_bytes: 12 << 20,
                same_point: true,
                ..Compared::default()
            }],
            broken: None,
            lost: Vec::new(),
            damage: Vec::new(),
            hits: Vec::new(),
        }
    }

    #[test]
    fn a_proof_says_what_of_it_is_a_maintainers_word() {
        let folded = |slot, seq| Some(FoldedJson { slot, seq, catalogue: 6, is_whole: true });
        insta::assert_snapshot!("on_folds", show(&Verdict { folded: folded(9, 20), ..proven() }));
        insta::assert_snapshot!("folded", show(&Verdict { folded: folded(17, 44), ..proven() }));
    }

    fn damage(slot: bool) -> DamageJson {
        let object = if slot { "g/01/log/0000000000000012" } else { "g/01/seg/00000001/0f" };
        let what = if slot { "the object is missing" } else { "the checksum of a unit differs" };
        let to = if slot { 0 } else { 28456 };
        DamageJson { object: object.into(), from: to.min(128), to, what: what.into() }
    }

    fn damaged() -> Verdict {
        let mut verdict = proven();
        (verdict.verdict, verdict.asked) = (Word::NotProven, None);
        (verdict.units, verdict.damage) = (199, vec![damage(false)]);
        (verdict.broken, verdict.lost) = (Some(damage(true)), vec![point("18.0")]);
        let hit = |number: u64| HitJson {
            at: number as usize,
            point: format!("{number}.0"),
            wall_ms: 1_772_373_731_000,
            volume: "erp".into(),
            offset: 1 << 20,
            bytes: 64 << 10,
        };
        let elsewhere = |number| HitJson { offset: 0, ..hit(number) };
        let rows =
            (1..=22).flat_map(|number| [(number % 7 > 2).then(|| hit(number)), Some(elsewhere(number))]);
        verdict.hits = rows.flatten().collect();
        verdict.volumes[0].lost_bytes = 64 << 10;
        verdict
    }

    #[test]
    fn a_proven_point_is_shown_in_one_glance() {
        insta::assert_snapshot!(show(&proven()));
        assert!(proven().outcome().is_ok());
    }

    #[test]
    fn damage_is_shown_with_the_points_and_ranges_it_takes() {
        insta::assert_snapshot!(show(&damaged()));
        assert_eq!(damaged().outcome().unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn a_point_that_stands_in_a_damaged_vault_is_proven_with_a_warning() {
        let mut verdict = proven();
        (verdict.verdict, verdict.damage) = (Word::ProvenWithDamage, vec![damage(false)]);
        assert!(show(&verdict).contains("PROVEN, in a damaged vault"));
        assert_eq!(verdict.outcome().unwrap_err().exit, Exit::Warned);
    }

    #[test]
    fn readers_that_differ_are_never_called_equal() {
        let mut verdict = proven();
        (verdict.verdict, verdict.volumes[0].differing_bytes) = (Word::NotProven, 512);
        let shown = show(&verdict);
        assert!(shown.contains("DIFFER") && shown.contains("two readers differ in 512 B"), "{shown}");
        assert!(shown.contains("NOT PROVEN"), "{shown}");
    }
}
