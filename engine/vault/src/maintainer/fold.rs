//! Folds runs whose points are all decided, and moves the beginning of the log behind them.

use super::build::{Tables, YIELD_ITEMS};
use super::live::{Live, to_pack};
use super::pack::{Packed, Packer};
use super::sift::{Sifted, Zeros};
use super::{BuildError, Maintainer, proof};
use crate::chain::LogTail;
use crate::error::{ReadError, VaultError};
use crate::fold::{self, Fold, FoldEnd, FoldInfo, FoldRow, FoldZeros, Mark};
use crate::index::{
    Catalogue, Item, Object, PointOf, Run, RunBuilder, SegmentPlace, TableId, UnitPlace, Version,
};
use crate::key_ring::DataKey;
use crate::names;
use crate::near::{Near, Purpose};
use crate::segment::SegmentId;
use crate::units::Shelves;
use bytes::Bytes;
use redoubt_core::SECTOR_BYTES;
use redoubt_core::maintenance::KeptPoint;
use redoubt_core::planted::{self, Bug};
use std::collections::BTreeSet;
use std::ops::Range;

/// About the plain bytes at which a fold is closed: half of what one may have, since a row may be long.
const FOLD_BYTES: usize = fold::PLAIN_MAX / 2;
/// Zeros take this at most.
const ZEROS_BYTES: usize = 32;

const SECTOR: usize = SECTOR_BYTES as usize;

/// What became of a stretch.
pub(super) struct Folded {
    pub(super) run: Run,
    pub(super) mark: Mark,
    /// What the log and the folds before named and the new folds do not.
    pub(super) dropped: BTreeSet<Object>,
    /// Segments made for it, which the new folds name.
    pub(super) packed: BTreeSet<Object>,
}

impl Maintainer {
    /// Returns the slot before which all points of the next version are decided.
    pub(super) fn decided(&self, next: &Catalogue) -> u64 {
        let kept = |point: &PointOf| {
            let (id, kind, wall) = (point.info.id, point.info.marker.kind, point.info.marker.wall);
            KeptPoint { id, kind, wall, at: point.at }
        };
        let live: Vec<_> = next.live.iter().map(kept).collect();
        next.live.get(self.settings.keep.decided(&live)).map_or(0, |point| point.info.id.slot)
    }

    /// Makes one run, with its folds, of the runs of a range: what live and retired points of the next version show,
    /// and the end of the stretch. Proves it before anybody names it.
    pub(super) async fn fold(
        &mut self,
        base: &Catalogue,
        next: &Catalogue,
        range: Range<usize>,
        key: &DataKey,
        tables: &mut Tables,
    ) -> Result<Folded, BuildError> {
        let old = next.runs[range].to_vec();
        let (from, to) = (old[0].from, old[old.len() - 1].to);
        let points = kept_points(next, from, to);
        let index = self.index.clone();
        let zeros = Zeros::collect(&index, &old, &points).await?;
        let mut sifted = Sifted::open(&index, &old, &zeros, &points).await?;
        let live = live_units(&mut sifted).await?;
        let (mut rows, end, mut dropped) = self.rows(base, &old, &live, to).await?;
        let moved = to_pack(&rows, &live);
        let open = Fold { from, to, run: self.entropy.id(), ..Fold::default() };
        let mut folds = Folds { open, bytes: 0, done: Vec::new() };
        let mut sifted = Sifted::open(&index, &old, &zeros, &points).await?;
        let (mut run, live, packed) = self.store_sifted(&mut sifted, &moved, key, tables, &mut folds).await?;
        let uuids: BTreeSet<u128> = packed.iter().map(|row| row.place.uuid).collect();
        let is_moved = |item: &Item| {
            item.unit.is_some_and(|unit| moved.contains(&unit.segment) || uuids.contains(&unit.segment.uuid))
        };
        let cell = proof::differs(&self.index, &old, &run, &points, &is_moved).await?;
        if let Some((space, index)) = cell {
            let what = format!("a folded run does not show what it replaces, at {space:?} cell {index}");
            return Err(BuildError::Fold(VaultError::damaged(names::tables(self.log.machine), what)));
        }
        let made = packed.iter().filter_map(|row| row.place.upload()).collect();
        rows.extend(packed);
        let mut containers = BTreeSet::new();
        for row in rows {
            if !live.has(&row.place) {
                drop_row(&row, &mut dropped);
                continue;
            }
            containers.extend(row.place.inline().map(|(slot, _)| slot));
            folds.open.live += live.bytes(&row.place);
            folds.bytes += row.bytes();
            folds.open.rows.push(row);
            self.close_full(&mut folds, key).await?;
        }
        // FO-3
        folds.open.end = Some(fold_end(next, Mark::at(&end), from));
        self.close_fold(&mut folds, key).await?;
        dropped.extend(slots_between(base.mark.slot + 1, to, &containers));
        run.folds = folds.done;
        Ok(Folded { run, mark: Mark::at(&end), dropped, packed: made })
    }

    /// Returns what folds and log name of the segments in which something shows, the log's end at slot `to`, and
    /// what they name besides.
    async fn rows(
        &self,
        base: &Catalogue,
        old: &[Run],
        live: &Live,
        to: u64,
    ) -> Result<(Vec<FoldRow>, LogTail, BTreeSet<Object>), BuildError> {
        let (mut rows, mut dropped) = (Vec::new(), BTreeSet::new());
        let mut take = |row: FoldRow| match live.has(&row.place) {
            true => rows.push(row),
            false => drop_row(&row, &mut dropped),
        };
        for info in old.iter().flat_map(|run| &run.folds) {
            self.read_fold(info).await?.rows.into_iter().for_each(&mut take);
        }
        let end = fold::gather(&self.log, base.mark.tail(), to, &mut take).await.map_err(unfoldable)?;
        if end.slot != to {
            let what = "the slot is missing, an index was made of it";
            let slot = names::slot(self.log.machine, end.slot + 1);
            return Err(BuildError::Fold(VaultError::damaged(slot, what)));
        }
        Ok((rows, end, dropped))
    }

    /// Stores what the sieve leaves of some runs as one, with its zeros in folds, and the content of some segments
    /// packed anew; returns the units that are left, and the new segments.
    async fn store_sifted(
        &mut self,
        sifted: &mut Sifted<'_>,
        moved: &BTreeSet<SegmentPlace>,
        key: &DataKey,
        tables: &mut Tables,
        folds: &mut Folds,
    ) -> Result<(Run, Live, Vec<FoldRow>), BuildError> {
        let entropy = self.entropy.clone();
        let uuid = || entropy.id();
        let (vault, machine, epoch) = (self.log.vault.uuid, self.log.machine, self.claim.epoch);
        let id = TableId { vault, machine, uuid: 0, dek: key.id };
        let slots = (folds.open.from, folds.open.to);
        let mut builder = RunBuilder::new(id, epoch, &key.key, uuid(), slots);
        let mut packer = Packer::new(SegmentId { vault, machine, epoch, uuid: 0, dek: key.id }, key);
        let (mut live, mut rows, mut turn) = (Live::default(), Vec::new(), 0);
        loop {
            let item = sifted.next().await?;
            let full = match item {
                None => packer.finish(),
                Some(item) => match self.content(&item, moved).await? {
                    Some(content) => packer.put(item, &content, uuid),
                    None => {
                        packer.pass(item);
                        None
                    }
                },
            };
            if let Some(packed) = full {
                rows.push(self.put_packed(packed, key).await?);
            }
            while let Some(item) = packer.pop() {
                match item.unit {
                    Some(unit) => live.add(&unit, item.sectors),
                    None => self.add_zeros(folds, &item, key).await?,
                }
                self.put(builder.add(item, uuid), tables).await.map_err(ReadError::Store)?;
            }
            if item.is_none() {
                break;
            }
            turn += 1;
            if turn % YIELD_ITEMS == 0 {
                tokio::task::yield_now().await;
            }
        }
        let (run, last) = builder.finish();
        self.put(last, tables).await.map_err(ReadError::Store)?;
        Ok((run, live, rows))
    }

    /// Returns an item's content if it is to be packed; what cannot be read stays where it is.
    async fn content(
        &self,
        item: &Item,
        moved: &BTreeSet<SegmentPlace>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(unit) = item.unit.filter(|unit| moved.contains(&unit.segment)) else { return Ok(None) };
        let (from, sectors) = (usize::from(item.offset), usize::from(item.sectors));
        let (units, near, mut content) = (self.units.clone(), Near::default(), Vec::new());
        let shelves = Shelves { log: &self.log, units: &units, near: &near };
        let take = |_: &UnitPlace, plain: &Bytes| {
            let bytes = plain.get(from * SECTOR..(from + sectors) * SECTOR).unwrap_or_default();
            content.extend_from_slice(bytes);
        };
        match shelves.load(Purpose::Asked, std::iter::once(&unit), take).await {
            Err(ReadError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok((content.len() == sectors * SECTOR).then_some(content)),
        }
    }

    /// Puts a packed segment and reads it back.
    async fn put_packed(&mut self, packed: Packed, key: &DataKey) -> Result<FoldRow, BuildError> {
        let (vault, machine, epoch) = (self.log.vault.uuid, self.log.machine, self.claim.epoch);
        let uuid = packed.row.place.uuid;
        self.upload(Object::Packed { epoch, uuid }, &packed.bytes).await.map_err(ReadError::Store)?;
        let name = names::packed_segment(machine, epoch, uuid);
        let found = self.log.vault.store.get(&name, None).await.map_err(ReadError::Store)?;
        let id = SegmentId { vault, machine, epoch, uuid, dek: key.id };
        if found.is_some_and(|found| packed.is_as_packed(&id, key, &found)) {
            return Ok(packed.row);
        }
        let what = "the packed segment does not read back as it was written";
        Err(BuildError::Fold(VaultError::damaged(name, what)))
    }

    async fn add_zeros(&mut self, folds: &mut Folds, item: &Item, key: &DataKey) -> Result<(), BuildError> {
        let (first, all) = item.space.sectors(item.index);
        let (first, sectors) = match item.space.level {
            0 => (first + u64::from(item.first), u64::from(item.sectors)),
            _ => (first, all),
        };
        folds.open.zeros.push(FoldZeros { volume: item.space.volume, first, sectors, version: item.version });
        folds.bytes += ZEROS_BYTES;
        self.close_full(folds, key).await
    }

    async fn close_full(&mut self, folds: &mut Folds, key: &DataKey) -> Result<(), BuildError> {
        if folds.bytes >= FOLD_BYTES { self.close_fold(folds, key).await } else { Ok(()) }
    }

    async fn close_fold(&mut self, folds: &mut Folds, key: &DataKey) -> Result<(), BuildError> {
        let Fold { from, to, run, part, .. } = folds.open;
        let next = Fold { from, to, run, part: part + 1, ..Fold::default() };
        let fold = std::mem::replace(&mut folds.open, next);
        folds.bytes = 0;
        folds.done.push(self.put_fold(&fold, key).await?);
        Ok(())
    }

    /// Puts a fold and reads it back.
    async fn put_fold(&mut self, fold: &Fold, key: &DataKey) -> Result<FoldInfo, BuildError> {
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let (uuid, epoch, dek) = (self.entropy.id(), self.claim.epoch, key.id);
        let name = names::fold(machine, epoch, uuid);
        let bytes =
            fold::encode(&TableId { vault, machine, uuid, dek }, epoch, fold, &key.key).map(Bytes::from);
        let bytes = bytes
            .ok_or_else(|| BuildError::Fold(VaultError::damaged(&name, "the fold has outgrown its limit")))?;
        self.upload(Object::Fold { epoch, uuid }, &bytes).await.map_err(ReadError::Store)?;
        let (length, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        let stored = fold.rows.iter().map(|row: &FoldRow| row.length).sum();
        let info = FoldInfo { uuid, epoch, length, digest, dek, stored, live: fold.live };
        if self.read_fold(&info).await? == *fold {
            return Ok(info);
        }
        Err(BuildError::Fold(VaultError::damaged(name, "the fold does not read back as it was written")))
    }

    pub(super) async fn read_fold(&self, info: &FoldInfo) -> Result<Fold, BuildError> {
        let read = self.log.fold(info).await.map_err(|failure| BuildError::Log(failure.into()))?;
        let name = names::fold(self.log.machine, info.epoch, info.uuid);
        read.map_err(|what| BuildError::Fold(VaultError::damaged(name, what)))
    }
}

/// A store that gives no answer is asked again; damage is not.
fn unfoldable(error: VaultError) -> BuildError {
    match error {
        VaultError::Store(_) => BuildError::Log(error),
        damage => BuildError::Fold(damage),
    }
}

/// A first pass over what is left: which units of which segments show.
async fn live_units(sifted: &mut Sifted<'_>) -> Result<Live, ReadError> {
    let (mut live, mut turn) = (Live::default(), 0);
    while let Some(item) = sifted.next().await? {
        if let Some(unit) = item.unit {
            live.add(&unit, item.sectors);
        }
        turn += 1;
        if turn % YIELD_ITEMS == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(live)
}

/// Nothing shows of a segment.
fn drop_row(row: &FoldRow, dropped: &mut BTreeSet<Object>) {
    dropped.extend(row.place.upload());
    dropped.extend(row.place.inline().map(|(slot, _)| Object::Slots { first: slot, last: slot }));
}

/// The folds of one run, as they are made.
struct Folds {
    open: Fold,
    /// About the bytes of the open one.
    bytes: usize,
    done: Vec<FoldInfo>,
}

/// Returns what the last fold of a run from slot `from` up to a mark says.
fn fold_end(next: &Catalogue, mark: Mark, from: u64) -> FoldEnd {
    let within = |point: &&PointOf| (from..=mark.slot).contains(&point.info.id.slot);
    let of = |points: &[PointOf]| points.iter().filter(within).cloned().collect();
    FoldEnd { clock: next.clock, live: of(&next.live), retired: of(&next.retired), mark }
}

/// Returns the versions up to which points of a stretch see that the catalogue keeps, live or retired.
fn kept_points(next: &Catalogue, from: u64, to: u64) -> Vec<u64> {
    let ids = next.live.iter().chain(&next.retired).map(|point| point.info.id);
    let is_forgotten = planted::active(Bug::FoldForgetsPoints);
    let within = ids.filter(|_| !is_forgotten).filter(|id| (from..=to).contains(&id.slot));
    let mut points: Vec<u64> = within.map(|id| Version::new(id.slot, id.ordinal).0).collect();
    points.sort_unstable();
    points
}

/// Returns the stretches of slots between two, both included, that hold no segment that is kept.
fn slots_between(first: u64, last: u64, containers: &BTreeSet<u64>) -> impl Iterator<Item = Object> {
    let ends = containers.range(first..=last).copied().chain([last + 1]);
    let begin = std::iter::once(first).chain(containers.range(first..=last).map(|slot| slot + 1));
    begin.zip(ends).filter(|(from, to)| from < to).map(|(first, to)| Object::Slots { first, last: to - 1 })
}
