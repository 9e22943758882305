//! The index: per volume and 64 KiB granule, every version of every sector.
//!
//! It is stored in *runs*, each of a stretch of the log: sorted by place and version, cut into blocks of a few
//! thousand entries that table objects hold. A *catalogue* names the runs up to a slot and holds their
//! directories. What the log holds behind it is indexed in memory, the *tail*. A lookup asks the tail, then at
//! most one block per run and level, newest run first; blocks are loaded on demand and kept by use.
//!
//! Invariants
//! - IX-4 Nothing here is ever needed: the log, and folds for what was folded, say all that an index says. What is
//!   damaged or lost is an error that names it, never empty.
//!
//! Not here: who writes an index (`crate::maintainer`), and falling back to the log (`crate::reader`).

mod block;
mod catalogue;
mod entry;
#[cfg(test)]
mod hostile_tests;
mod key;
mod merge;
mod object;
mod place;
mod run;
mod seal;
mod tail;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use hostile_tests::example;

use block::Block;
pub(crate) use block::{put_held, take_held};
pub(crate) use catalogue::{Catalogue, HEADER_BYTES, PointOf, TableInfo, decode, encode, peek};
pub(crate) use catalogue::{put_clock, put_mark, put_points, take_clock, take_mark, take_points};
pub(crate) use entry::Wanted;
pub(crate) use entry::mask;
pub(crate) use key::{LEVELS, Space, Version};
pub(crate) use merge::Merged;
pub(crate) use object::Object;
pub(crate) use place::{Found, Held, SegmentPlace, UnitPlace};
pub(crate) use run::{Item, Run, RunBuilder, TableBytes};
use seal::Blob;
pub(crate) use seal::TableId;
pub(crate) use tail::Tail;

use crate::error::{ReadError, StoreFailure, VaultError};
use crate::flights::Flights;
use crate::load::Log;
use crate::lru::Lru;
use crate::names;
use crate::near::{Near, PartId, Purpose, Reach};
use crate::store::Store;
use futures::StreamExt;
use key::Cell;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{MachineId, VolumeIndex};
use redoubt_ports::Rare;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Blocks kept: with the units' cache, a tail and what is in flight a reader stays below 256 MiB.
const CACHE_BYTES: usize = 96 << 20;
/// Parts read at once.
const PARTS_AT_ONCE: usize = 16;

type BlockId = (u128, u32);
type Blocks = BTreeMap<BlockId, Arc<Block>>;

/// Reads stored runs.
pub(crate) struct StoredIndex {
    log: Log,
    cache: Lru<BlockId, Arc<Block>>,
    flights: Flights<BlockId>,
}

impl StoredIndex {
    pub(crate) fn new(log: Log) -> StoredIndex {
        StoredIndex { log, cache: Lru::new(CACHE_BYTES), flights: Flights::default() }
    }

    /// Explains what the tail left of some granules of a volume, at a version.
    pub(crate) async fn find(
        &self,
        catalogue: &Catalogue,
        version: Version,
        volume: VolumeIndex,
        wanted: &mut [Wanted],
        found: &mut Vec<Found>,
        reach: Reach<'_>,
    ) -> Result<(), ReadError> {
        let runs: Vec<&Run> = catalogue.runs.iter().rev().filter(|run| run.from <= version.slot()).collect();
        let mut parts: BTreeMap<BlockId, Blob> = BTreeMap::new();
        for granule in wanted.iter().filter(|granule| granule.mask != 0).map(|granule| granule.granule) {
            for run in &runs {
                for level in run.levels() {
                    if let Some(row) = run.row(Cell::over(volume, level, granule), version) {
                        parts.insert((row.blob.table, row.blob.number), row.blob);
                    }
                }
            }
        }
        let blocks = self.blocks(parts, reach).await?;
        for granule in wanted {
            for run in &runs {
                if granule.mask == 0 {
                    break;
                }
                explain(run, &blocks, version, volume, granule, found);
            }
        }
        Ok(())
    }

    /// Returns blocks from memory, from near by or from the store; each is on its way once.
    async fn blocks(
        &self,
        mut parts: BTreeMap<BlockId, Blob>,
        reach: Reach<'_>,
    ) -> Result<Blocks, ReadError> {
        let mut blocks = Blocks::new();
        loop {
            let landing = self.flights.landing();
            let chance = &self.log.vault.store.chance;
            let in_memory =
                |id: &BlockId| self.cache.get(id).filter(|_| !chance.forces(Rare::ForgottenBlock));
            parts.retain(|id, blob| match in_memory(id) {
                Some(block) if !reach.lacks(self.part_id(blob)) => blocks.insert(*id, block).is_some(),
                _ => true,
            });
            if parts.is_empty() {
                return Ok(blocks);
            }
            let mut claim = self.flights.claim();
            let (mine, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(id, _)| claim.add(*id));
            self.load(mine, reach, &mut blocks).await?;
            drop(claim);
            parts = others.into_iter().collect();
            if !parts.is_empty() {
                landing.await;
            }
        }
    }

    async fn load(
        &self,
        parts: Vec<(BlockId, Blob)>,
        reach: Reach<'_>,
        blocks: &mut Blocks,
    ) -> Result<(), ReadError> {
        let mut reads = Vec::with_capacity(parts.len());
        for (id, blob) in parts {
            reads.push(async move { (id, self.block_within(&blob, reach).await) });
        }
        let mut reads = futures::stream::iter(reads).buffer_unordered(PARTS_AT_ONCE);
        while let Some((id, read)) = reads.next().await {
            let block = match read {
                Err(ReadError::Damaged { .. }) if planted::active(Bug::LostIndexIsEmpty) => continue,
                read => Arc::new(read?),
            };
            self.cache.put(id, block.clone(), block.bytes());
            blocks.insert(id, block);
        }
        Ok(())
    }

    /// Reads one block, around all caches.
    pub(crate) async fn block(&self, blob: &Blob) -> Result<Block, ReadError> {
        let (near, is_kept) = (Near::default(), AtomicBool::new(true));
        self.block_within(blob, Reach::new(&near, Purpose::Asked, &is_kept)).await
    }

    /// Reads one block from near by, if it opens there, or from the store.
    async fn block_within(&self, blob: &Blob, reach: Reach<'_>) -> Result<Block, ReadError> {
        let id = self.part_id(blob);
        if reach.purpose != Purpose::Hydrate
            && let Some(sealed) = reach.near.get(id).await
        {
            match self.open(blob, &sealed).await {
                Ok(block) => return Ok(block),
                Err(_) => reach.near.forget(id),
            }
        }
        let (from, to) = (u64::from(blob.offset), u64::from(blob.offset) + u64::from(blob.sealed));
        let table = names::table(self.log.machine, blob.epoch, blob.table);
        let sealed = self.log.vault.store.get(&table, Some(from..to)).await?;
        let sealed = sealed.ok_or_else(|| self.damaged(blob, "the object is missing"))?;
        let block = self.open(blob, &sealed).await?;
        reach.keep(id, sealed).await;
        Ok(block)
    }

    async fn open(&self, blob: &Blob, sealed: &[u8]) -> Result<Block, ReadError> {
        let Log { vault, machine, keys } = &self.log;
        let id = TableId { vault: vault.uuid, machine: *machine, uuid: blob.table, dek: blob.dek };
        let key = keys.for_read(blob.dek).await?;
        let plain = seal::open_part(&id, &key, blob, block::PLAIN_MAX, sealed);
        let block = plain.and_then(|plain| block::decode(&plain));
        block.map_err(|what| self.damaged(blob, what.0))
    }

    fn part_id(&self, blob: &Blob) -> PartId {
        let table = names::table(self.log.machine, blob.epoch, blob.table);
        PartId::new(self.log.vault.uuid, &table, u64::from(blob.offset), u64::from(blob.sealed))
    }

    fn damaged(&self, blob: &Blob, what: &str) -> ReadError {
        let (from, to) = (u64::from(blob.offset), u64::from(blob.offset) + u64::from(blob.sealed));
        let object = names::table(self.log.machine, blob.epoch, blob.table).to_string();
        ReadError::Damaged { object, from, to, what: what.to_owned() }
    }

    /// Reads a version of the catalogue and the digest of its bytes, or tells what is wrong with it.
    pub(crate) async fn decoded(
        &self,
        version: u64,
    ) -> Result<Result<(Catalogue, [u8; 32]), String>, StoreFailure> {
        let Log { vault, machine, keys } = &self.log;
        let Some(bytes) = vault.store.get(&names::catalogue(*machine, version), None).await? else {
            return Ok(Err("listed, but not there".to_owned()));
        };
        let key = match peek(&bytes, vault.uuid, *machine, version) {
            Ok(header) => keys.get(header.dek()).await,
            Err(why) => return Ok(Err(why.to_string())),
        };
        let key = match key {
            Ok(key) => key,
            Err(VaultError::Store(failure)) => return Err(failure),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let digest = *blake3::hash(&bytes).as_bytes();
        let decoded = decode(&bytes, vault.uuid, *machine, version, &key);
        Ok(decoded.map(|catalogue| (catalogue, digest)).map_err(|why| why.to_string()))
    }

    /// Tells whether a catalogue was made of this log (CA-1).
    pub(crate) async fn fits(&self, catalogue: &Catalogue) -> Result<bool, StoreFailure> {
        fits(&self.log.vault.store, self.log.machine, catalogue).await
    }

    /// As the function of that name.
    pub(crate) async fn is_stray(&self, catalogue: &Catalogue) -> Result<bool, StoreFailure> {
        is_stray(&self.log.vault.store, self.log.machine, catalogue).await
    }
}

async fn fits(store: &Store, machine: MachineId, catalogue: &Catalogue) -> Result<bool, StoreFailure> {
    let last = store.get(&names::slot(machine, catalogue.slot), None).await?;
    Ok(last.and_then(|bytes| crate::log::peek_digest(&bytes)) == Some(catalogue.digest))
}

/// Tells whether a catalogue is of another life of the vault: its creation was on its way when an old copy took the
/// vault's place. Neither the log has the slot that it ends with, nor the catalogues the version that it was built on.
pub(crate) async fn is_stray(
    store: &Store,
    machine: MachineId,
    catalogue: &Catalogue,
) -> Result<bool, StoreFailure> {
    if planted::active(Bug::TrustStray) {
        return Ok(false);
    }
    // Zeros: the version before could not be read when it was built.
    if catalogue.version <= 1 || catalogue.before == [0; 32] || fits(store, machine, catalogue).await? {
        return Ok(false);
    }
    let before = store.get(&names::catalogue(machine, catalogue.version - 1), None).await?;
    Ok(before.is_none_or(|bytes| *blake3::hash(&bytes).as_bytes() != catalogue.before))
}

/// Explains what one run knows of a granule.
fn explain(
    run: &Run,
    blocks: &Blocks,
    version: Version,
    volume: VolumeIndex,
    wanted: &mut Wanted,
    found: &mut Vec<Found>,
) {
    let block = |cell: Cell| {
        let row = run.row(cell, version)?;
        blocks.get(&(row.blob.table, row.blob.number))
    };
    let zeros = run.levels().filter(|level| *level > 0).filter_map(|level| {
        let cell = Cell::over(volume, level, wanted.granule);
        let block = block(cell)?;
        let newest = block.newest_first(cell.index, version).next()?;
        Some(block.tables.versions[newest.version as usize])
    });
    let floor = zeros.max();
    let cell = Cell::new(volume, 0, wanted.granule);
    match block(cell) {
        Some(block) => wanted.resolve(block.newest_first(cell.index, version), floor, &block.tables, found),
        None => wanted.close(floor),
    }
}

/// All levels, for runs that say which they have as bits.
fn levels(bits: u16) -> impl Iterator<Item = u8> {
    (0..LEVELS).filter(move |level| bits & 1 << level != 0)
}
