//! Plays a scrub at rest, and tries out what it should have told: every sector of every point is read.
//!
//! What is *not* here: the comparison (`oracles::scrubbed`), the damage (`ports::store`).

use super::estate::{Estate, Machine};
use super::images::Image;
use super::restore::{self, Images};
use crate::oracles::Finding;
use crate::oracles::scrubbed::{Loss, Losses, Point, Told, Truth, judge};
use crate::plan::{Damage, Part};
use redoubt_core::{Extent, VolumeIndex};
use redoubt_ports::{InPlace, StoreKey};
use redoubt_vault::scrub::{Report, Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{MachineReader, PointId, PointView, VaultError};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Sectors read at once while nothing fails.
const PIECE: u64 = 2048;

/// A machine's vault at rest, whole.
pub(super) struct Whole {
    /// What every point held while nothing was damaged.
    images: Images,
    /// What nothing named.
    orphans: BTreeSet<String>,
    /// What was to be deleted.
    garbage: BTreeSet<String>,
}

impl Whole {
    /// What every point holds.
    pub(super) fn images(&self) -> &Images {
        &self.images
    }

    /// Objects that nothing names.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &String> {
        self.orphans.iter()
    }
}

fn point(id: PointId) -> Point {
    (id.slot, id.ordinal)
}

async fn scrub(estate: &Estate, machine: &Machine) -> Result<Report, String> {
    let (store, keys) = (estate.world.store.direct(), estate.newest_keys());
    let settings = ScrubSettings::default();
    let scrub = Scrub::with_keys(store, keys, Arc::new(InPlace), settings).await;
    let scrub = scrub.map_err(|error| error.to_string())?;
    scrub.machine(machine.id, &ScrubWatch::default()).await.map_err(|error| error.to_string())
}

/// Scrubs what should be whole; `images` are what its points hold.
pub(super) async fn whole(
    estate: &Estate,
    machine: &Machine,
    images: Images,
    found: &mut Vec<Finding>,
) -> Option<Whole> {
    let mut find =
        |what: String| found.push(Finding::new("scrub-exact", format!("{}: {what}", machine.spec.name)));
    let report = match scrub(estate, machine).await {
        Ok(report) => report,
        Err(error) => {
            find(format!("a whole vault cannot be scrubbed: {error}"));
            return None;
        }
    };
    let (object, bytes, losses) = (None, None, Losses::new());
    let truth = Truth { object, bytes, shows: false, losses };
    found.extend(judge(&truth, &told(&report, &BTreeSet::new())));
    let orphans = report.orphans.iter().map(|orphan| orphan.object.clone()).collect();
    Some(Whole { images, orphans, garbage: report.garbage })
}

/// Scrubs what is damaged, and compares with what truly is lost. Returns whether content was.
pub(super) async fn damaged(
    estate: &Estate,
    machine: &Machine,
    whole: &Whole,
    (part, damage): (Part, Damage),
    key: &StoreKey,
    found: &mut Vec<Finding>,
) -> bool {
    let report = match scrub(estate, machine).await {
        Ok(report) => report,
        Err(error) => {
            let what = format!("{}: {key}: a damaged vault cannot be scrubbed: {error}", machine.spec.name);
            found.push(Finding::new("scrub-exact", what));
            return false;
        }
    };
    let (losses, wrong) = losses(estate, machine, whole).await;
    found.extend(
        wrong.map(|what| Finding::new("no-silent-damage", format!("{}: {key}: {what}", machine.spec.name))),
    );
    let is_named = !whole.orphans.contains(key.as_str()) && !whole.garbage.contains(key.as_str());
    // The loss of what nothing names, or of the newest of its kind, is as if it had never been.
    let shows = is_named && (damage != Damage::Lost || matches!(part, Part::Data | Part::Log | Part::Key));
    let is_costly = !losses.is_empty();
    // Where an object ends too soon the scrub may name all of it.
    let bytes = estate.world.store.spoilt().filter(|_| damage == Damage::Rot);
    let place = format!("{key} ({damage:?} at {bytes:?})");
    let points = whole.images.keys().copied().map(point).collect();
    if let Some(what) = misses_nothing(&report, &points, &losses) {
        found.push(Finding::new("scrub-exact", format!("{place}: {what}")));
    }
    let truth = Truth { object: Some(key.to_string()), bytes, shows, losses };
    found.extend(
        judge(&truth, &told(&report, &points))
            .into_iter()
            .map(|finding| Finding::new(finding.oracle, format!("{place}: {}", finding.what))),
    );
    is_costly
}

/// Compares the points that are said to miss nothing with those that do; none may be named unless each is known. Of a
/// point that was given up and came back (decision 0027) nothing is known here.
fn misses_nothing(report: &Report, points: &BTreeSet<Point>, losses: &Losses) -> Option<String> {
    let told = report.whole.iter().copied().map(point).filter(|at| points.contains(at));
    let told: BTreeSet<Point> = told.collect();
    let is_unknown = |damage: &redoubt_vault::scrub::Damage| damage.takes == Takes::Unknown;
    let is_known = !report.damage.iter().any(is_unknown) && report.unread.is_empty();
    let true_ones = || points.iter().copied().filter(|at| !losses.contains_key(at)).collect::<BTreeSet<_>>();
    let expected = if is_known { true_ones() } else { BTreeSet::new() };
    (told != expected).then(|| format!("it says that {told:?} miss nothing, and {expected:?} do"))
}

/// Reads what the scrub said as a set; `points` are those there were.
fn told(report: &Report, points: &BTreeSet<Point>) -> Told {
    let damaged = report
        .damage
        .iter()
        .map(|damage| (damage.object.clone(), damage.from..damage.to, damage.what.clone()));
    let unread = report.unread.iter().map(|unread| (unread.object.clone(), 0..0, unread.why.clone()));
    let objects = damaged.chain(unread).collect();
    let mut losses = Some(Losses::new());
    for damage in &report.damage {
        let Takes::Points(hits) = &damage.takes else {
            losses = losses.filter(|_| damage.takes != Takes::Unknown);
            continue;
        };
        let Some(losses) = &mut losses else { break };
        for hit in hits {
            for at in points.range(point(hit.first)..=point(hit.last)) {
                match (&hit.lost, losses.entry(*at).or_insert(Loss::Sectors(BTreeSet::new()))) {
                    (None, loss) => *loss = Loss::All,
                    (Some((volume, ranges)), Loss::Sectors(sectors)) => {
                        let lost = ranges.iter().cloned().flatten();
                        sectors.extend(lost.map(|sector| (volume.0, sector)));
                    }
                    (Some(_), Loss::All) => {}
                }
            }
        }
    }
    if let Some(losses) = &mut losses {
        losses.extend(report.lost.iter().map(|id| (point(*id), Loss::All)));
    }
    Told { objects, losses }
}

/// Reads every sector of every point: what cannot be had, and the first that is other than it was.
async fn losses(estate: &Estate, machine: &Machine, whole: &Whole) -> (Losses, Option<String>) {
    let all = || whole.images.keys().map(|id| (point(*id), Loss::All)).collect();
    let Ok(vault) = restore::open(estate).await else { return (all(), None) };
    let reader = match MachineReader::open_damaged(&vault, machine.id).await {
        Ok((reader, _)) => reader,
        Err(VaultError::Store(_)) => return (Losses::new(), Some("the store failed".to_owned())),
        Err(_) => return (all(), None),
    };
    let listed: BTreeSet<PointId> = reader.points().iter().map(|info| info.id).collect();
    let (mut losses, mut wrong) = (Losses::new(), None);
    for (id, images) in &whole.images {
        let view = match reader.view(*id) {
            Ok(view) if listed.contains(id) => view,
            _ => {
                losses.insert(point(*id), Loss::All);
                continue;
            }
        };
        let mut lost = BTreeSet::new();
        for ((volume, info), image) in view.volumes().clone().into_iter().zip(images) {
            let (sectors, differs) = read(&view, volume, Extent::new(0, info.sectors.0), image).await;
            if let Some(sector) = differs {
                let what = format!("point {}.{} reads other bytes in sector {sector}", id.slot, id.ordinal);
                wrong.get_or_insert(what);
            }
            lost.extend(sectors.into_iter().map(|sector| (volume.0, sector)));
        }
        if !lost.is_empty() {
            losses.insert(point(*id), Loss::Sectors(lost));
        }
    }
    (losses, wrong)
}

/// Reads an extent. Returns the sectors that cannot be read, and the first of the others that is not as the image
/// has it.
async fn read(
    view: &PointView,
    volume: VolumeIndex,
    all: Extent,
    image: &Image,
) -> (BTreeSet<u64>, Option<u64>) {
    let (mut lost, mut differs) = (BTreeSet::new(), None);
    // The next extents to read, the first one last.
    let mut open = vec![all];
    while let Some(extent) = open.pop() {
        if extent.sectors.0 > PIECE {
            open.push(Extent::new(extent.lba.0 + PIECE, extent.sectors.0 - PIECE));
            open.push(Extent::new(extent.lba.0, PIECE));
            continue;
        }
        match view.read(volume, extent).await {
            Ok(bytes) => differs = differs.or_else(|| image.differs(extent.lba.0, &bytes)),
            Err(_) if extent.sectors.0 > 1 => {
                let half = extent.sectors.0 / 2;
                open.push(Extent::new(extent.lba.0 + half, extent.sectors.0 - half));
                open.push(Extent::new(extent.lba.0, half));
            }
            Err(_) => {
                lost.insert(extent.lba.0);
            }
        }
    }
    (lost, differs)
}
