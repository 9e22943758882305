//! Makes the next version of a catalogue: a stretch of the log becomes a run, merged with the newest ones.

use super::retain::retain;
use super::{BuildError, Maintainer, Times};
use crate::chain::{LogMark, LogTail};
use crate::error::{ReadError, StoreFailure, VaultError};
use crate::index::{Catalogue, Item, Merged, Object, Run, RunBuilder, TableBytes, TableId, TableInfo, Tail};
use crate::key_ring::DataKey;
use crate::load::STRETCH_SLOTS;
use crate::log;
use crate::names;
use crate::reader::{PointId, PointInfo};
use crate::store::Created;
use bytes::Bytes;
use redoubt_core::maintenance::{PinListing, RunShape, Work, next_work};
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreError;
use std::collections::{BTreeMap, BTreeSet};

/// A round ends with so many slots or entries even if the log goes on.
const ROUND_SLOTS: u64 = 256;
const ROUND_ENTRIES: usize = 1 << 20;
/// Items merged before other tasks get their turn: about a millisecond.
pub(super) const YIELD_ITEMS: u32 = 2048;

/// What one round read of the log.
struct Stretch {
    tail: Tail,
    points: Vec<PointInfo>,
    end: LogTail,
}

/// A version that is not published yet.
pub(super) struct Built {
    pub(super) next: Catalogue,
    /// What it needs no more of the log, and of what folds named.
    pub(super) dropped: BTreeSet<Object>,
    /// Segments made for its folds, which name them.
    pub(super) packed: BTreeSet<Object>,
}

/// Tables put so far.
pub(super) type Tables = BTreeMap<u128, TableInfo>;

impl Maintainer {
    /// Makes a version that covers more of the log, up to slot `durable` at most, and returns what it needs no more
    /// of the log and of what folds named; its number and what became garbage of the rest is for who publishes it.
    pub(super) async fn extend(
        &mut self,
        base: &Catalogue,
        durable: u64,
        pins: &PinListing<PointId>,
        times: Times,
    ) -> Result<Built, BuildError> {
        let mut stretch = self.read(base, durable).await.map_err(BuildError::Log)?;
        self.density = stretch.tail.entries() as u64 / stretch.end.slot.saturating_sub(base.slot).max(1);
        self.note_end(stretch.end.slot).await.map_err(|failure| BuildError::Log(failure.into()))?;
        // The key of a record was fit for use, whatever became of the writer.
        let id = if stretch.end.dek == 0 { base.dek } else { stretch.end.dek };
        let key = DataKey { id, key: self.log.keys.get(id).await.map_err(BuildError::Log)? };
        let LogTail { slot, digest, epoch, head, .. } = stretch.end.clone();
        let (mark, dek) = (base.mark.clone(), key.id);
        let mut next = Catalogue { slot, digest, epoch, head, mark, dek, ..Catalogue::default() };
        let points = std::mem::take(&mut stretch.points);
        self.cut = retain(base, &mut next, points, pins, times, &self.settings.keep);
        let (dropped, packed) = self.store_runs(base, &mut next, &mut stretch.tail, &key).await?;
        Ok(Built { next, dropped, packed })
    }

    async fn read(&self, base: &Catalogue, durable: u64) -> Result<Stretch, VaultError> {
        let Catalogue { slot, digest, epoch, ref head, .. } = *base;
        let end = LogMark { slot, digest, epoch }.tail(head.clone());
        let mut read = Stretch { tail: Tail::default(), points: Vec::new(), end };
        let last = durable.min(slot.saturating_add(ROUND_SLOTS));
        while read.end.slot < last && read.tail.entries() < ROUND_ENTRIES {
            let limit = (last - read.end.slot).min(STRETCH_SLOTS as u64) as usize;
            let stretch = self.log.stretch(read.end.clone(), limit).await;
            let is_all = stretch.outcome.clone()?;
            read.end = stretch.append(&mut read.tail, &mut read.points);
            if is_all && planted::active(Bug::TrustShortLog) {
                break;
            }
            // MT-1
            if is_all && read.end.slot < last {
                let what = "the slot was durable and is not there: the vault is another now";
                let slot = names::slot(self.log.machine, read.end.slot + 1);
                return Err(VaultError::damaged(slot, what));
            }
        }
        Ok(read)
    }

    /// Notes the slot that the version ends with, before anything is put for it: a version may have nothing to put.
    async fn note_end(&mut self, slot: u64) -> Result<(), StoreFailure> {
        let (store, name) = (&self.log.vault.store, names::slot(self.log.machine, slot));
        let header = store.get(&name, Some(0..log::HEADER_BYTES as u64)).await?;
        self.end = header.map(|header| store.seen(name, &header));
        Ok(())
    }

    /// Stores the new stretch as a run, merged with the newest ones as they have grown, or folds old ones; returns
    /// what the folds need no more, and the segments made for them.
    async fn store_runs(
        &mut self,
        base: &Catalogue,
        next: &mut Catalogue,
        new: &mut Tail,
        key: &DataKey,
    ) -> Result<(BTreeSet<Object>, BTreeSet<Object>), BuildError> {
        let shape = |last, entries, is_folded| RunShape { last, entries, is_folded };
        let of = |run: &Run| shape(run.to, run.entries, !run.folds.is_empty());
        let mut runs: Vec<RunShape> = base.runs.iter().map(of).collect();
        runs.push(shape(next.slot, new.entries() as u64, false));
        let folds = self.settings.folds && !self.is_unfoldable;
        let decided = if folds { self.decided(next) } else { 0 };
        let (mut tables, mut dropped, mut packed) = (Tables::new(), BTreeSet::new(), BTreeSet::new());
        let mut kept = base.runs.len();
        next.runs.clone_from(&base.runs);
        // Two records stay in the log: one alone does not tell whether it is void.
        match next_work(&runs, decided, next.slot - 1) {
            Some(Work::Merge(range)) => kept = range.start,
            Some(Work::Fold(range)) => {
                let folded = self.fold(base, next, range.clone(), key, &mut tables).await?;
                next.runs.splice(range, [folded.run]);
                (next.mark, dropped, packed) = (folded.mark, folded.dropped, folded.packed);
                kept = next.runs.len();
            }
            None => {}
        }
        let old = next.runs.split_off(kept);
        let slots = (old.first().map_or(base.slot + 1, |run| run.from), next.slot);
        let run = self.merge(&old, new.items(), slots, key, &mut tables).await.map_err(BuildError::Base)?;
        next.runs.push(run);
        let named: BTreeSet<u128> = next.runs.iter().flat_map(Run::tables).collect();
        tables.extend(base.tables.iter().map(|(uuid, info)| (*uuid, *info)));
        tables.retain(|uuid, _| named.contains(uuid));
        next.tables = tables;
        Ok((dropped, packed))
    }

    /// Makes one run of stored runs and of items that are newer.
    pub(super) async fn merge(
        &mut self,
        old: &[Run],
        new: impl Iterator<Item = Item> + Send,
        slots: (u64, u64),
        key: &DataKey,
        tables: &mut Tables,
    ) -> Result<Run, ReadError> {
        let entropy = self.entropy.clone();
        let uuid = || entropy.id();
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let id = TableId { vault, machine, uuid: 0, dek: key.id };
        let mut builder = RunBuilder::new(id, self.claim.epoch, &key.key, uuid(), slots);
        let mut stored = Merged::open(&self.index, old).await?;
        let mut fresh = new.peekable();
        let mut turn = 0;
        loop {
            let item = match (stored.peek(), fresh.peek()) {
                (Some(item), new) if new.is_none_or(|new| item.key() < new.key()) => {
                    stored.next(&self.index).await?
                }
                _ => fresh.next(),
            };
            let Some(item) = item else { break };
            self.put(builder.add(item, uuid), tables).await?;
            turn += 1;
            if turn % YIELD_ITEMS == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(fresh);
        let (run, last) = builder.finish();
        self.put(last, tables).await?;
        Ok(run)
    }

    pub(super) async fn put(
        &mut self,
        table: Option<TableBytes>,
        tables: &mut Tables,
    ) -> Result<(), StoreFailure> {
        let Some(TableBytes { uuid, dek, bytes }) = table else { return Ok(()) };
        let epoch = self.claim.epoch;
        self.upload(Object::Table { epoch, uuid }, &bytes).await?;
        let (length, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        tables.insert(uuid, TableInfo { epoch, length, digest, dek });
        Ok(())
    }

    /// Puts an object that the version to come will name.
    pub(super) async fn upload(&mut self, object: Object, bytes: &Bytes) -> Result<(), StoreFailure> {
        let store = self.log.vault.store.clone();
        // Noted first: a put of which nothing is known may land.
        self.uploads.insert(object, Vec::new());
        for name in object.names(self.log.machine) {
            if store.create(&name, bytes).await? != Created::Mine {
                // 128 random bits met twice: the next round takes others.
                self.uploads.remove(&object);
                let (object, last) = (name.to_string(), StoreError::AlreadyExists);
                return Err(StoreFailure { operation: "create", object, attempts: 1, last });
            }
            self.uploads.entry(object).or_default().push(store.seen_by_name(name, bytes));
        }
        Ok(())
    }
}
