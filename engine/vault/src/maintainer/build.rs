//! Makes the next version of a catalogue: a stretch of the log becomes a run, merged with the newest ones.

use super::{BuildError, Maintainer};
use crate::chain::{LogMark, LogTail};
use crate::error::{ReadError, StoreFailure, VaultError};
use crate::index::{Catalogue, Input, Object, Run, RunBuilder, TableBytes, TableId, TableInfo, Tail};
use crate::key_ring::DataKey;
use crate::load::STRETCH_SLOTS;
use crate::names;
use crate::reader::PointInfo;
use crate::store::Created;
use redoubt_core::maintenance::{RunShape, Work, next_work};
use redoubt_ports::StoreError;
use std::collections::{BTreeMap, BTreeSet};

/// A round ends with so many slots or entries even if the log goes on.
const ROUND_SLOTS: u64 = 256;
const ROUND_ENTRIES: usize = 1 << 20;
/// Items merged before other tasks get their turn: about a millisecond.
const YIELD_ITEMS: u32 = 2048;

/// What one round read of the log.
struct Stretch {
    tail: Tail,
    points: Vec<PointInfo>,
    end: LogTail,
}

/// Tables put so far.
type Tables = BTreeMap<u128, TableInfo>;

impl Maintainer {
    /// Makes a version that covers more of the log, up to slot `durable` at most, and returns the points that
    /// came; which of all points it has is for the ladder, its number and what became garbage for who publishes it.
    pub(super) async fn extend(
        &mut self,
        base: &Catalogue,
        durable: u64,
    ) -> Result<(Catalogue, Vec<PointInfo>), BuildError> {
        let stretch = self.read(base, durable).await.map_err(BuildError::Log)?;
        // The key of a record was fit for use, whatever became of the writer.
        let id = if stretch.end.dek == 0 { base.dek } else { stretch.end.dek };
        let key = DataKey { id, key: self.log.keys.get(id).await.map_err(BuildError::Log)? };
        self.store_run(base, stretch, &key).await.map_err(BuildError::Base)
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
            if is_all {
                break;
            }
        }
        Ok(read)
    }

    /// Stores the stretch as a run, merged with the newest ones as they have grown.
    async fn store_run(
        &mut self,
        base: &Catalogue,
        mut new: Stretch,
        key: &DataKey,
    ) -> Result<(Catalogue, Vec<PointInfo>), ReadError> {
        let shape = |last, entries| RunShape { last, entries, is_folded: false };
        let mut runs: Vec<RunShape> = base.runs.iter().map(|run| shape(run.to, run.entries)).collect();
        runs.push(shape(new.end.slot, new.tail.entries() as u64));
        // The log keeps everything: no stretch is decided.
        let kept = match next_work(&runs, 0, new.end.slot) {
            Some(Work::Merge(range)) => range.start,
            _ => base.runs.len(),
        };
        let (mut runs, old) = (base.runs[..kept].to_vec(), &base.runs[kept..]);
        let mut tables = Tables::new();
        let slots = (old.first().map_or(base.slot + 1, |run| run.from), new.end.slot);
        runs.push(self.merge(old, &mut new.tail, slots, key, &mut tables).await?);
        let named: BTreeSet<u128> = runs.iter().flat_map(Run::tables).collect();
        tables.extend(base.tables.iter().map(|(uuid, info)| (*uuid, *info)));
        tables.retain(|uuid, _| named.contains(uuid));
        let LogTail { slot, digest, epoch, head, .. } = new.end;
        let dek = key.id;
        let next = Catalogue { slot, digest, epoch, head, dek, tables, runs, ..Catalogue::default() };
        Ok((next, new.points))
    }

    async fn merge(
        &mut self,
        old: &[Run],
        tail: &mut Tail,
        slots: (u64, u64),
        key: &DataKey,
        tables: &mut Tables,
    ) -> Result<Run, ReadError> {
        let entropy = self.entropy.clone();
        let uuid = || entropy.id();
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let id = TableId { vault, machine, uuid: 0, dek: key.id };
        let mut builder = RunBuilder::new(id, self.claim.epoch, &key.key, uuid(), slots);
        let mut inputs = Vec::with_capacity(old.len());
        for run in old {
            inputs.push(Input::open(&self.index, run).await?);
        }
        let mut fresh = tail.items().peekable();
        let mut turn = 0;
        loop {
            // The first of equals: older runs come first.
            let heads = inputs.iter().enumerate().filter_map(|(at, input)| Some((at, *input.peek()?)));
            let oldest = heads.min_by_key(|(_, item)| item.key());
            let item = match (oldest, fresh.peek()) {
                (Some((at, item)), new) if new.is_none_or(|new| item.key() < new.key()) => {
                    inputs[at].advance(&self.index).await?;
                    item
                }
                _ => match fresh.next() {
                    Some(item) => item,
                    None => break,
                },
            };
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

    async fn put(&mut self, table: Option<TableBytes>, tables: &mut Tables) -> Result<(), StoreFailure> {
        let Some(TableBytes { uuid, dek, bytes }) = table else { return Ok(()) };
        let epoch = self.claim.epoch;
        let name = names::table(self.log.machine, epoch, uuid);
        // Noted first: a put of which nothing is known may land.
        self.uploads.insert(Object::Table { epoch, uuid });
        if self.log.vault.store.create(&name, &bytes).await? != Created::Mine {
            // 128 random bits met twice: the next round takes others.
            self.uploads.remove(&Object::Table { epoch, uuid });
            let (object, last) = (name.to_string(), StoreError::AlreadyExists);
            return Err(StoreFailure { operation: "create", object, attempts: 1, last });
        }
        let (length, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        tables.insert(uuid, TableInfo { epoch, length, digest, dek });
        Ok(())
    }
}
