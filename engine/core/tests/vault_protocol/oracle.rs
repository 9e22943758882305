//! What must hold after every step, from the specification (`vault.md` sections 8 and 14), told by the store's changes
//! alone: it shares nothing with the actors but the form of objects.
//!
//! Checked: acknowledged commits stay; accepted records never change or vanish; what a listed or held point shows is
//! complete; pinned points stay; the last three versions of the catalogue stay readable; the last record of the log
//! stays; versions are never published over those of a later maintainer; nothing names what was deleted.

use crate::store::{Catalogue, Change, Name, Object, Record, Store};
use crate::writer::KEYS;
use redoubt_core::Instant;
use redoubt_core::maintenance::{KeptPoint, PIN_DEAD_AFTER};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Versions that stay readable.
const READABLE: usize = 3;

struct Version {
    catalogue: Rc<Catalogue>,
    /// Everything that it and its points need, sorted.
    needs: Vec<Name>,
}

/// What a reader was promised: its point stays until its pin is a day old.
struct Promise {
    point: u32,
    since: Instant,
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// The log as it became: slot 1 first. Void records have no key and are no points.
    accepted: Vec<Record>,
    position: u32,
    epoch: u32,
    acknowledged: u32,
    versions: Vec<Version>,
    promises: BTreeMap<u32, Promise>,
    pub(crate) violation: Option<String>,
}

fn has(points: &[KeptPoint<u32>], point: u32) -> bool {
    points.binary_search_by_key(&point, |kept| kept.id).is_ok()
}

impl Oracle {
    fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what);
        }
    }

    fn newest(&self) -> Option<&Catalogue> {
        self.versions.last().map(|version| &*version.catalogue)
    }

    fn readable(&self) -> &[Version] {
        &self.versions[self.versions.len().saturating_sub(READABLE)..]
    }

    /// A writer tells its sources that this commit is safe.
    pub(crate) fn acknowledge(&mut self, record: &Record) {
        let accepted = self.accepted.get(record.slot as usize - 1).copied();
        let is_safe = accepted.is_some_and(|found| found.id == record.id && found.key == record.key);
        self.expect(is_safe, || format!("slot {} was acknowledged and is not in the log", record.slot));
        self.acknowledged = self.acknowledged.max(record.slot);
    }

    pub(crate) fn promise(&mut self, promise: u32, point: u32, since: Instant) {
        self.promises.insert(promise, Promise { point, since });
        let is_there = self.holds(point);
        self.expect(is_there, || format!("point {point} was promised and is not there"));
    }

    pub(crate) fn release(&mut self, promise: u32) {
        self.promises.remove(&promise);
    }

    /// Tells whether a fresh reader finds the point's content.
    fn holds(&self, point: u32) -> bool {
        self.newest().is_none_or(|newest| {
            point > newest.slot || has(&newest.points.live, point) || has(&newest.points.retired, point)
        })
    }

    pub(crate) fn observe(&mut self, store: &mut Store, now: Instant) {
        for change in std::mem::take(&mut store.changes) {
            match change {
                Change::Put(name) => {
                    let object = store.objects.get(&name).cloned();
                    match object {
                        Some(Object { id, body: crate::store::Body::Record(record) }) => {
                            debug_assert_eq!(id, record.id);
                            self.on_record(&record, store);
                        }
                        Some(object) => {
                            if let Some(catalogue) = object.catalogue() {
                                self.on_catalogue(catalogue, store, now);
                            }
                        }
                        None => {}
                    }
                }
                Change::Deleted(name) => self.on_deleted(name),
            }
        }
    }

    fn on_record(&mut self, record: &Record, store: &Store) {
        let (slot, next) = (record.slot, self.accepted.len() as u32 + 1);
        if slot < next {
            let is_same = self.accepted[slot as usize - 1].id == record.id;
            let is_below = self.newest().is_some_and(|newest| slot < newest.log_from);
            return self.expect(is_same || is_below, || format!("slot {slot} changed"));
        }
        let prev = self.accepted.last().map_or(0, |last| last.id);
        self.expect(slot == next && record.prev == prev, || format!("slot {slot} continues nothing"));
        let is_void = record.epoch < self.epoch;
        if is_void {
            return self.accepted.push(Record { key: None, is_point: false, ..*record });
        }
        self.expect(record.from == self.position, || format!("slot {slot} leaves a gap in the stream"));
        let is_whole = record.segment.is_none_or(|name| store.objects.contains_key(&name));
        self.expect(is_whole, || format!("slot {slot} was committed without its segment"));
        self.position = record.from + u32::from(record.key.is_some());
        self.epoch = record.epoch;
        self.accepted.push(*record);
    }

    fn on_catalogue(&mut self, catalogue: Rc<Catalogue>, store: &Store, now: Instant) {
        let (version, next) = (catalogue.version as usize, self.versions.len() + 1);
        if version < next {
            // Put again, or by somebody who slept: below what anybody reads.
            let is_same = self.versions[version - 1].catalogue.id == catalogue.id;
            return self
                .expect(is_same || version + READABLE < next, || format!("version {version} changed"));
        }
        self.expect(version == next, || format!("version {version} follows nothing"));
        let older = self.newest().map_or(0, |newest| newest.epoch);
        let epoch = catalogue.epoch;
        self.expect(epoch >= older, || format!("version {version} of epoch {epoch} is on top of {older}"));
        self.on_points(&catalogue);
        let needs = self.needs(&catalogue);
        if let Some(lost) = needs.iter().find(|name| !store.objects.contains_key(name)) {
            self.fail(|| format!("version {version} needs {lost:?}, which is not there"));
        }
        self.versions.push(Version { catalogue, needs });
        self.promises.retain(|_, promise| now.since(promise.since) < PIN_DEAD_AFTER);
        let broken = self.promises.values().map(|promise| promise.point).find(|point| !self.holds(*point));
        if let Some(point) = broken {
            self.fail(|| format!("point {point} is pinned and version {version} has it no more"));
        }
    }

    /// Points are those of the log, the newest among them.
    fn on_points(&mut self, next: &Catalogue) {
        let (live, retired) = (&next.points.live, &next.points.retired);
        let is_true = |point: &KeptPoint<u32>| {
            self.accepted.get(point.id as usize - 1).is_some_and(|record| record.is_point)
        };
        let is_all = live.iter().chain(retired).all(is_true);
        self.expect(is_all, || "a point that nobody made is listed".to_owned());
        let newest = self.accepted[..next.slot as usize].iter().rfind(|record| record.is_point);
        let is_last_live = newest.is_none_or(|record| has(live, record.slot));
        self.expect(is_last_live, || "the newest point is not live".to_owned());
    }

    /// Returns what a version needs so that each of its points shows what was committed up to it.
    fn needs(&mut self, catalogue: &Catalogue) -> Vec<Name> {
        let mut needs: Vec<Name> = catalogue.runs.iter().map(|run| run.object).collect();
        needs.push(Name::Catalogue(catalogue.version));
        for slot in catalogue.log_from..=self.accepted.len() as u32 {
            let record = &self.accepted[slot as usize - 1];
            needs.push(Name::Log(slot));
            needs.extend(record.segment.filter(|_| record.key.is_some()));
        }
        let points = &catalogue.points;
        let seen = points.live.iter().chain(&points.retired).map(|point| point.id);
        // What the newest state shows is needed too.
        for point in seen.chain([catalogue.slot]) {
            for key in 0..KEYS {
                let shown = &self.accepted[..point as usize];
                let version = shown.iter().rfind(|record| record.key == Some(key)).copied();
                let Some(version) = version else { continue };
                if version.slot >= catalogue.log_from {
                    continue;
                }
                let mut rows =
                    catalogue.runs.iter().filter_map(|run| run.fold.as_ref()).flat_map(|fold| fold.iter());
                match rows.find(|row| row.slot == version.slot && row.key == key) {
                    Some(row) => needs.push(row.object),
                    None => self.fail(|| format!("point {point} lost block {key} of slot {}", version.slot)),
                }
            }
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    fn on_deleted(&mut self, name: Name) {
        let broken = self.readable().iter().find(|version| version.needs.binary_search(&name).is_ok());
        let broken = broken.map(|version| version.catalogue.version);
        if let Some(version) = broken {
            self.fail(|| format!("{name:?} was deleted, version {version} needs it"));
        }
        let log_from = self.readable().first().map_or(1, |version| version.catalogue.log_from);
        if let Name::Log(slot) = name {
            self.expect(slot < log_from, || format!("slot {slot} was deleted, the log begins at {log_from}"));
        }
        if let Name::Segment(..) = name {
            let tail = self.accepted.get(log_from as usize - 1..).unwrap_or_default();
            let is_used = tail.iter().any(|r| r.segment == Some(name) && r.key.is_some());
            self.expect(!is_used, || format!("{name:?} was deleted, the log needs it"));
        }
    }

    /// With nothing going on any more: what is in the store that nobody needs, and points that should be gone.
    pub(crate) fn left(&self, store: &Store) -> Vec<Name> {
        let rows = |version: &Version| {
            let folds = version.catalogue.runs.iter().filter_map(|run| run.fold.clone());
            folds.flat_map(|fold| fold.iter().map(|row| row.object).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        // What points that are gone left in a fold stays until that is folded again.
        let folded: Vec<Name> = self.readable().iter().flat_map(rows).collect();
        let is_needed = |name: &Name| match name {
            Name::WriterClaim(_) | Name::MaintainerClaim(_) => true,
            name => {
                let is_in = |version: &Version| version.needs.binary_search(name).is_ok();
                folded.contains(name) || self.readable().iter().any(is_in)
            }
        };
        let mut left: Vec<Name> = store.objects.keys().filter(|name| !is_needed(name)).copied().collect();
        let tail = self.newest().map_or(0, |newest| newest.slot);
        left.retain(|name| !matches!(name, Name::Log(slot) if *slot > tail));
        left
    }

    pub(crate) fn retired(&self) -> usize {
        self.newest().map_or(0, |newest| newest.points.retired.len())
    }

    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }
}
