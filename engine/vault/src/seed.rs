//! A seed: images of a machine's disks put into the vault before the machine is protected, so that its first copy
//! need not carry them over a thin line (decision 0026).
//!
//! To the log it is the beginning of a first copy that nobody ends: each disk attached, `ResyncBegin`, content, never a
//! `ResyncEnd`. The agent that comes later compares its disks with that, as any resync does, and sends what differs. A
//! seed is a hint: whatever is in it, points are made only of what was compared.
//!
//! Invariants
//! - SX-1 Only a log that holds nothing, or nothing but a seed, is written: looked at before the claim, so that no
//!   protected machine loses its writer to an import, and after it.
//! - SX-2 A seed has no recovery point, and its positions are of no agent's generation.
//! - SX-3 Put is what differs from what the log holds: an import that was interrupted goes on, a newer image replaces
//!   an older one.
//!
//! What is *not* here: reading images, who compares (`core::resync`), how an agent goes on behind a seed (`core::agent`).

use crate::error::{CommitError, ReadError, VaultError};
use crate::log::{HeadState, VOLUMES_MAX};
use crate::reader::MachineReader;
use crate::vault::Vault;
use crate::view::{BLOCK_BYTES, PointView};
use crate::writer::MachineWriter;
use bytes::Bytes;
use redoubt_core::change::{RECORD_BYTES_MAX, ResyncReason};
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Names, Record, SECTOR_BYTES, Sectors,
    VolumeId, VolumeIndex, WriteSeq,
};
use redoubt_ports::{Entropy, Workers};
use std::sync::Arc;
use thiserror::Error;

/// Content of one commit: a segment for each of some workers, little beside any server's memory.
const COMMIT_BYTES: u64 = 32 << 20;
const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// A disk of which there is an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedDisk {
    /// The volume's lasting identity.
    pub id: VolumeId,
    /// What people call it.
    pub name: String,
    /// Size of the image.
    pub sectors: Sectors,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Bytes of blocks that hold data.
    pub data_bytes: u64,
    /// Bytes of blocks that were put, since the vault did not have them.
    pub put_bytes: u64,
}

/// Why a seed is not written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SeedError {
    /// The log holds what an agent sent (SX-1).
    #[error("the machine is protected already: its agent has sent its disks up to change {seq}")]
    Protected {
        /// Last change of the agent.
        seq: WriteSeq,
    },
    /// A machine has no place for so many.
    #[error("a machine has at most {VOLUMES_MAX} disks")]
    TooManyDisks,
    /// The vault cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What the vault holds already cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A commit failed. What was committed before stays.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A seed being written.
#[derive(Debug)]
pub struct Seed {
    writer: MachineWriter,
    /// What the log held at the start.
    before: PointView,
    identity: u128,
    /// Where each disk is, in the order in which they were given.
    volumes: Vec<VolumeIndex>,
    records: Vec<Record>,
    /// Content in the records.
    bytes: u64,
    done: Seeded,
}

impl Seed {
    /// Claims the machine's log for a seed of these disks. One that the seed has already keeps its place, another
    /// one comes behind them: the agent must protect them in this order.
    pub async fn begin(
        vault: &Vault,
        machine: MachineId,
        disks: &[SeedDisk],
        entropy: Arc<dyn Entropy>,
        workers: Arc<dyn Workers>,
    ) -> Result<Seed, SeedError> {
        match MachineReader::open(vault, machine).await {
            Ok(reader) => check(&reader.head())?,
            Err(VaultError::UnknownMachine(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let identity = entropy.id();
        let writer = MachineWriter::claim(vault, machine, entropy).await?.with_workers(workers);
        check(writer.head())?;
        let mut names = Names::default();
        disks.iter().for_each(|disk| names.call_volume(disk.id, &disk.name));
        writer.naming().tell(names);
        let before = MachineReader::open(vault, machine).await?.head_view();
        let volumes = places(writer.head(), disks)?;
        let (records, bytes, done) = (Vec::new(), 0, Seeded::default());
        let mut seed = Seed { writer, before, identity, volumes, records, bytes, done };
        for (at, disk) in disks.iter().enumerate() {
            seed.push(Change::Attach { volume: seed.volumes[at], id: disk.id, sectors: disk.sectors });
        }
        seed.push(Change::ResyncBegin { reason: ResyncReason::Initial });
        Ok(seed)
    }

    /// Returns what was done so far.
    pub fn so_far(&self) -> Seeded {
        self.done
    }

    /// Takes part of the disk that was given at this place: its bytes, or `None` for zeros. It begins on a block of [`BLOCK_BYTES`] and ends on one,
    /// or with the disk.
    pub async fn put(&mut self, disk: usize, extent: Extent, bytes: Option<Bytes>) -> Result<(), SeedError> {
        let volume = self.volumes[disk];
        assert!(extent.lba.0.is_multiple_of(BLOCK_SECTORS), "a part of a disk begins on a block");
        match bytes {
            Some(bytes) => self.put_blocks(volume, extent.lba, bytes).await?,
            None => self.put_zeros(volume, extent).await?,
        }
        if self.bytes >= COMMIT_BYTES { self.commit().await } else { Ok(()) }
    }

    async fn put_blocks(&mut self, volume: VolumeIndex, lba: Lba, bytes: Bytes) -> Result<(), SeedError> {
        let count = (bytes.len() as u64).div_ceil(BLOCK_BYTES);
        let held = match self.before.volumes().contains_key(&volume) {
            true => self.before.hash_blocks(volume, lba.0 / BLOCK_SECTORS, count).await?,
            false => Vec::new(),
        };
        // Neighbours that differ become one record.
        let mut run: Option<std::ops::Range<usize>> = None;
        for (number, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            let held = held.get(number).copied().flatten();
            let from = number * BLOCK_BYTES as usize;
            let is_zero = block.iter().all(|byte| *byte == 0);
            let differs = match held {
                Some(digest) => is_zero || *blake3::hash(block).as_bytes() != digest,
                None => !is_zero,
            };
            self.done.data_bytes += if is_zero { 0 } else { block.len() as u64 };
            let extends = differs && !is_zero;
            if let Some(open) = run.take_if(|open| !extends || open.len() >= RECORD_BYTES_MAX) {
                self.push_write(volume, lba, &bytes, open);
            }
            if extends {
                run = Some(run.map_or(from, |open| open.start)..from + block.len());
            } else if differs {
                let lba = lba.0 + from as u64 / SECTOR_BYTES;
                let extent = Extent::new(lba, block.len() as u64 / SECTOR_BYTES);
                self.push(Change::ResyncZeroes { volume, extent });
            }
        }
        if let Some(open) = run {
            self.push_write(volume, lba, &bytes, open);
        }
        Ok(())
    }

    /// What the vault holds there becomes zeros.
    async fn put_zeros(&mut self, volume: VolumeIndex, extent: Extent) -> Result<(), SeedError> {
        let size = self.before.volumes().get(&volume).map_or(0, |known| known.sectors.0);
        let end = extent.end().min(size);
        if extent.lba.0 < end {
            let extent = Extent::new(extent.lba.0, end - extent.lba.0);
            for extent in self.before.data_extents(volume, extent).await? {
                self.push(Change::ResyncZeroes { volume, extent });
            }
        }
        Ok(())
    }

    fn push_write(&mut self, volume: VolumeIndex, lba: Lba, bytes: &Bytes, part: std::ops::Range<usize>) {
        let lba = Lba(lba.0 + part.start as u64 / SECTOR_BYTES);
        let payload = bytes.slice(part);
        self.bytes += payload.len() as u64;
        self.done.put_bytes += payload.len() as u64;
        self.push(Change::ResyncWrite { volume, lba, payload });
    }

    fn push(&mut self, change: Change) {
        let last = self.records.last().map_or(self.writer.head().position.seq, |record| record.seq);
        self.records.push(Record { seq: last.next(), change });
    }

    async fn commit(&mut self) -> Result<(), SeedError> {
        let Some(seq) = self.records.last().map(|record| record.seq) else { return Ok(()) };
        // Of no agent: no history continues it by accident.
        let mut chain = blake3::Hasher::new_derive_key("redoubt seed");
        chain.update(&self.identity.to_le_bytes()).update(&seq.0.to_le_bytes());
        let chain = Chain(*chain.finalize().as_bytes());
        let to = BatchPosition { generation: Generation::SEED, seq, chain };
        self.bytes = 0;
        self.writer.commit(std::mem::take(&mut self.records), to).await?;
        Ok(())
    }

    /// Makes the rest durable.
    pub async fn finish(mut self) -> Result<Seeded, SeedError> {
        self.commit().await?;
        Ok(self.done)
    }
}

/// Returns the places of disks: the one that a disk has, else the next free one.
fn places(head: &HeadState, disks: &[SeedDisk]) -> Result<Vec<VolumeIndex>, SeedError> {
    let mut next = head.volumes.keys().next_back().map_or(0, |last| last.0 + 1);
    let place = |disk: &SeedDisk| {
        let known = head.volumes.iter().find(|(_, known)| known.id == disk.id);
        known.map_or_else(
            || {
                next += 1;
                VolumeIndex(next - 1)
            },
            |(volume, _)| *volume,
        )
    };
    let places: Vec<VolumeIndex> = disks.iter().map(place).collect();
    if usize::from(next) > VOLUMES_MAX { Err(SeedError::TooManyDisks) } else { Ok(places) }
}

/// SX-1.
fn check(head: &HeadState) -> Result<(), SeedError> {
    match head.position {
        BatchPosition { generation: Generation::SEED, .. } => Ok(()),
        BatchPosition { seq, .. } => Err(SeedError::Protected { seq }),
    }
}
