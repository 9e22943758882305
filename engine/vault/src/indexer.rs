//! Writes the index: follows the log behind its newest manifest and stores what it finds as runs.
//!
//! One round reads a bounded stretch of the log, makes it a run, merged with the newest runs if they have
//! grown alike, and publishes a manifest. Nothing depends on it: a round that dies leaves table objects that
//! no manifest names, and the next one begins again.
//!
//! Invariants
//! - IN-1 Tables first, then the manifest (MF-2). Only slots known to be durable are covered.
//! - IN-2 Memory is bounded: one stretch of the log, one block per run that is merged, one table.

use crate::chain::{LogMark, LogTail};
use crate::error::{ReadError, StoreFailure, VaultError};
use crate::index::{
    Input, Manifest, Part, Run, RunBuilder, StoredIndex, TableBytes, TableId, TableInfo, Tail, encode,
    to_merge,
};
use crate::key_ring::{DataKey, KeyRing};
use crate::load::{Log, STRETCH_SLOTS};
use crate::names;
use crate::reader::PointInfo;
use crate::store::{Created, Store};
use crate::vault::Vault;
use redoubt_core::MachineId;
use redoubt_ports::{Entropy, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Slots behind the newest manifest that make a round worth its puts: what a reader has to follow.
pub const INDEX_SLOTS: u64 = 64;
/// A round ends with so many slots or entries even if the log goes on.
const ROUND_SLOTS: u64 = 256;
const ROUND_ENTRIES: usize = 1 << 20;
/// Manifests looked at for one to build on.
const MANIFESTS_TRIED: usize = 3;
/// Items merged before other tasks get their turn: about a millisecond.
const YIELD_ITEMS: u32 = 2048;

/// The index writer of one machine. Any number of them may run: each writes only what the log says.
pub struct Indexer {
    log: Log,
    index: StoredIndex,
    entropy: Arc<dyn Entropy>,
    every: u64,
    base: Option<Manifest>,
    /// Manifests found damaged.
    avoid: BTreeSet<u64>,
    /// The newest manifest in the store: an older one would serve nobody.
    newest: u64,
}

impl std::fmt::Debug for Indexer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Indexer({})", self.log.machine)
    }
}

/// What one round read of the log.
struct Round {
    tail: Tail,
    points: Vec<PointInfo>,
    end: LogTail,
}

/// Tables put so far.
type Tables = BTreeMap<u128, TableInfo>;

impl Indexer {
    /// Makes the index writer of a machine that has a log. It writes once `every` slots are not indexed.
    pub async fn open(
        vault: &Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
        every: u64,
    ) -> Result<Indexer, VaultError> {
        let keys = KeyRing::open(vault, machine).await?;
        let log = Log { vault: vault.clone(), machine, keys };
        let (index, every) = (StoredIndex::new(log.clone()), every.max(1));
        Ok(Indexer { log, index, entropy, every, base: None, avoid: BTreeSet::new(), newest: 0 })
    }

    /// Indexes a stretch of the log, up to slot `durable` at most; returns the slot it came to, or none if
    /// there is not enough to do. Repeat it until then. After an error it may be called again; dropping
    /// the future is like a crash and as harmless.
    pub async fn follow(&mut self, durable: u64) -> Result<Option<u64>, VaultError> {
        let base = match self.base.take() {
            Some(base) => base,
            None => self.newest_manifest().await?,
        };
        if durable < base.slot.saturating_add(self.every) {
            self.base = Some(base);
            return Ok(None);
        }
        let round = self.read(&base, durable).await?;
        let slot = round.end.slot;
        // The key of a record was fit for use, whatever became of the writer.
        let id = if round.end.dek == 0 { base.dek } else { round.end.dek };
        let key = DataKey { id, key: self.log.keys.get(id).await? };
        let next = match self.extend(&base, round, &key).await {
            Ok(next) => next,
            Err(ReadError::Store(failure)) => return Err(failure.into()),
            Err(damage) => {
                self.avoid.insert(base.slot);
                return Err(VaultError::damaged(names::manifest(self.log.machine, base.slot), damage));
            }
        };
        if slot <= self.newest || self.publish(&next, &key).await? {
            self.base = Some(next);
        }
        Ok(Some(slot))
    }

    /// Returns the newest manifest that can be used, else the empty one.
    async fn newest_manifest(&mut self) -> Result<Manifest, VaultError> {
        let prefix = names::manifests(self.log.machine);
        let listed = self.log.vault.store.page(&prefix, None, MANIFESTS_TRIED).await?;
        let slots = listed.iter().filter_map(|(name, _)| names::manifest_slot(name, self.log.machine));
        self.newest = slots.clone().next().unwrap_or(0);
        for slot in slots.filter(|slot| !self.avoid.contains(slot)).collect::<Vec<_>>() {
            if let Ok(manifest) = self.index.manifest(slot).await? {
                return Ok(manifest);
            }
        }
        Ok(Manifest::default())
    }

    async fn read(&self, base: &Manifest, durable: u64) -> Result<Round, VaultError> {
        let Manifest { slot, digest, epoch, ref head, .. } = *base;
        let end = LogMark { slot, digest, epoch }.tail(head.clone());
        let mut round = Round { tail: Tail::default(), points: Vec::new(), end };
        let last = durable.min(slot.saturating_add(ROUND_SLOTS));
        while round.end.slot < last && round.tail.entries() < ROUND_ENTRIES {
            let limit = (last - round.end.slot).min(STRETCH_SLOTS as u64) as usize;
            let stretch = self.log.stretch(round.end.clone(), limit).await;
            let is_all = stretch.outcome.clone()?;
            round.end = stretch.append(&mut round.tail, &mut round.points);
            if is_all {
                break;
            }
        }
        Ok(round)
    }

    /// Stores the round as a run, merged with the newest ones as they have grown.
    async fn extend(&self, base: &Manifest, mut round: Round, key: &DataKey) -> Result<Manifest, ReadError> {
        let mut entries: Vec<u64> = base.runs.iter().map(|run| run.entries).collect();
        entries.push(round.tail.entries() as u64);
        let kept = entries.len() - to_merge(&entries);
        let (mut runs, old) = (base.runs[..kept].to_vec(), &base.runs[kept..]);
        let mut tables = Tables::new();
        let run = self.merge(old, &mut round, base.slot, key, &mut tables).await?;
        runs.push(run);
        let named: BTreeSet<u128> = runs.iter().flat_map(Run::tables).collect();
        tables.extend(base.tables.iter().map(|(uuid, info)| (*uuid, *info)));
        tables.retain(|uuid, _| named.contains(uuid));
        let LogTail { slot, digest, epoch, head, .. } = round.end;
        Ok(Manifest { slot, digest, epoch, head, dek: key.id, tables, runs })
    }

    async fn merge(
        &self,
        old: &[Run],
        round: &mut Round,
        before: u64,
        key: &DataKey,
        tables: &mut Tables,
    ) -> Result<Run, ReadError> {
        let uuid = || self.entropy.id();
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let id = TableId { vault, machine, uuid: 0, dek: key.id };
        let slots = (old.first().map_or(before + 1, |run| run.from), round.end.slot);
        let mut builder = RunBuilder::new(id, &key.key, uuid(), slots);
        self.points(old, &round.points, &mut builder, tables).await?;
        let mut inputs = Vec::with_capacity(old.len());
        for run in old {
            inputs.push(Input::open(&self.index, run).await?);
        }
        let mut fresh = round.tail.items().peekable();
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

    async fn points(
        &self,
        old: &[Run],
        new: &[PointInfo],
        builder: &mut RunBuilder<'_>,
        tables: &mut Tables,
    ) -> Result<(), ReadError> {
        let uuid = || self.entropy.id();
        let mut part = Part::default();
        for run in old {
            for blob in &run.points {
                for point in self.index.points_of(run, blob).await? {
                    if let Some(full) = part.add(&point) {
                        self.put(builder.add_points(&full, uuid), tables).await?;
                    }
                }
            }
        }
        for point in new {
            if let Some(full) = part.add(point) {
                self.put(builder.add_points(&full, uuid), tables).await?;
            }
        }
        if let Some(rest) = part.finish() {
            self.put(builder.add_points(&rest, uuid), tables).await?;
        }
        Ok(())
    }

    async fn put(&self, table: Option<TableBytes>, tables: &mut Tables) -> Result<(), StoreFailure> {
        let Some(TableBytes { uuid, dek, bytes }) = table else { return Ok(()) };
        let name = names::table(self.log.machine, uuid);
        if self.store().create(&name, &bytes).await? != Created::Mine {
            // 128 random bits met twice: the next round takes others.
            let (object, last) = (name.to_string(), StoreError::AlreadyExists);
            return Err(StoreFailure { operation: "create", object, attempts: 1, last });
        }
        let (length, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        tables.insert(uuid, TableInfo { length, digest, dek });
        Ok(())
    }

    /// Publishes a manifest; false if another index writer was there first, whose work is as good.
    async fn publish(&mut self, manifest: &Manifest, key: &DataKey) -> Result<bool, VaultError> {
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let id = TableId { vault, machine, uuid: self.entropy.id(), dek: key.id };
        let Some(bytes) = encode(&id, manifest, &key.key) else {
            return Err(VaultError::damaged(
                names::manifest(machine, manifest.slot),
                "the index has outgrown its manifest; the log goes on without",
            ));
        };
        let name = names::manifest(machine, manifest.slot);
        let is_ours = self.store().create(&name, &bytes.into()).await? == Created::Mine;
        self.newest = self.newest.max(manifest.slot);
        Ok(is_ours)
    }

    fn store(&self) -> &Store {
        &self.log.vault.store
    }
}
