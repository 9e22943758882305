//! What a vault writes for each byte that a machine wrote, with everything that its maintainer does: the log, the
//! index, catalogues, and what folds pack anew.
//!
//! `cargo run --release -p redoubt --example ladder_cost -- SEED` plays 50 hours of a machine by a clock of its own, for
//! each kind of load: a point every 15 s, kept by the usual ladder with folds on. The first 26 hours fill the ladder, the
//! 24 behind them count. All content is random, so that compression hides nothing. The store is in memory: bytes
//! are counted, no time is measured, and a seed gives the same figures for ever. One line of JSON per load.
//!
//! *Written* is every byte of every object that was put, by writer and maintainer, whether it stayed or not. *Ingested* is
//! every byte that the machine wrote, overwritten before the next point or not. *Held* is what the vault has in it, and
//! *shown* what its points show at the end: nothing that has them holds less. Points of all ages are read then and
//! compared with what the disk held.
//!
//! Beside it the same changes are counted as an undo log writes them (Hyper-V Replica): each change goes to the log of
//! the stream and to the replica, and before that what it overwrites, once for each block and point, to the undo log.
#![allow(clippy::disallowed_methods, reason = "a measurement takes its arguments from the command line")]

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Instant, Lba, MachineId, Marker, MarkerId, MarkerKind,
    Record, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{Entropy, RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultKeys,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MACHINE: MachineId = MachineId(1);
const VOLUME: VolumeIndex = VolumeIndex(0);
const SECTOR: u64 = 512;
/// 256 MiB, all of it copied first: a day changes a busy machine's disk some four times.
const SECTORS: u64 = 1 << 19;
/// Sectors of one record of the first copy, and of one read.
const PIECE: u64 = 2048;
/// A block of the undo log, and the grain of writes.
const BLOCK: u64 = 8;
const STEP: Duration = Duration::from_secs(15);
const STEPS_PER_HOUR: u64 = 240;
/// Until hours thin out: days would take as long again for a dozen points more.
const WARM_STEPS: u64 = 26 * STEPS_PER_HOUR;
const COUNTED_STEPS: u64 = 24 * STEPS_PER_HOUR;
/// Begins with an hour and a day of the clock.
const WALL: u64 = 1_800_057_600_000;

/// Where a machine writes.
#[derive(Clone, Copy)]
enum Load {
    /// Four of five writes, 4 to 64 KiB, on a twentieth of the disk: a file server.
    Hot,
    /// 4 KiB anywhere: everything grows old at one rate, the worst for packing.
    Even,
    /// A log of 64 KiB writes around a quarter of the disk, and 4 KiB of hot pages for each: a database.
    Log,
    /// One to three writes of 4 KiB between two points, on a twentieth of the disk: a machine at rest.
    Quiet,
}

impl Load {
    const ALL: [(&str, Load); 4] =
        [("hot", Load::Hot), ("even", Load::Even), ("log", Load::Log), ("quiet", Load::Quiet)];

    /// Bytes that are written between two points, at least.
    fn step_bytes(self, mix: &Mix) -> u64 {
        match self {
            Load::Quiet => (1 + mix.below(3)) * BLOCK * SECTOR,
            _ => 192 << 10,
        }
    }

    /// Returns the places that are written next, first sector and sectors each.
    fn places(self, mix: &Mix, head: &mut u64) -> Vec<(u64, u64)> {
        // The first of each twenty pieces of 256 KiB.
        let hot = |at: u64| at / 512 / 20 * 20 * 512 + at % 512;
        let at = |sectors: u64| mix.below((SECTORS - sectors) / BLOCK) * BLOCK;
        match self {
            Load::Hot => {
                let sectors = [8, 8, 8, 16, 16, 32, 32, 128][mix.below(8) as usize];
                let place = at(sectors);
                let place = if mix.below(5) == 0 { place } else { hot(place) };
                vec![(place.min(SECTORS - sectors), sectors)]
            }
            Load::Even => vec![(at(BLOCK), BLOCK)],
            Load::Quiet => vec![(hot(at(BLOCK)), BLOCK)],
            Load::Log => {
                *head = (*head + 128) % (SECTORS / 4);
                vec![(*head, 128), (hot(at(BLOCK)), BLOCK)]
            }
        }
    }
}

/// Repeatable numbers, never for keys.
struct Mix(AtomicU64);

impl Mix {
    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn payload(&self, sectors: u64) -> Bytes {
        let mut bytes = vec![0; (sectors * SECTOR) as usize];
        self.fill(&mut bytes);
        bytes.into()
    }
}

impl Entropy for Mix {
    fn fill(&self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}

/// What is put, by what it is.
const KINDS: [&str; 6] = ["log", "seg", "cseg", "fold", "idx", "cat"];

/// Counts what is put, by kind and all of it.
#[derive(Default)]
struct Counting {
    store: MemStore,
    kinds: [AtomicU64; KINDS.len()],
    all: AtomicU64,
}

impl Counting {
    fn written(&self) -> (u64, [u64; KINDS.len()]) {
        let kinds = std::array::from_fn(|at| self.kinds[at].load(Ordering::Relaxed));
        (self.all.load(Ordering::Relaxed), kinds)
    }

    fn held(&self) -> u64 {
        let bodies = self.store.names().into_iter().filter_map(|name| self.store.peek(&name));
        bodies.map(|body| body.len() as u64).sum()
    }
}

#[async_trait::async_trait]
impl StoreAround for Counting {
    fn inner(&self) -> &dyn RawStore {
        &self.store
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let kind = key.as_str().split('/').nth(2);
        if let Some(at) = KINDS.iter().position(|name| Some(*name) == kind) {
            self.kinds[at].fetch_add(body.len() as u64, Ordering::Relaxed);
        }
        self.all.fetch_add(body.len() as u64, Ordering::Relaxed);
        self.store.put_if_absent(key, body).await
    }
}

/// A machine, its vault and what its disk holds.
struct Machine {
    load: Load,
    mix: Arc<Mix>,
    store: Arc<Counting>,
    vault: Vault,
    writer: MachineWriter,
    maintainer: Maintainer,
    disk: Vec<u8>,
    /// In which steps each block was written.
    writes: Vec<Vec<u64>>,
    /// BLAKE3 of the disk at the last point of each hour.
    hours: BTreeMap<MarkerId, blake3::Hash>,
    seq: u64,
    step: u64,
    /// Where its log goes on.
    head: u64,
}

impl Machine {
    async fn new(load: Load, seed: u64) -> Machine {
        let (mix, store) = (Arc::new(Mix(AtomicU64::new(seed << 40))), Arc::new(Counting::default()));
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*mix).await.expect("a vault");
        let writer = MachineWriter::claim(&vault, MACHINE, mix.clone()).await.expect("a claim");
        let settings = MaintainerSettings { folds: true, ..MaintainerSettings::default() };
        let maintainer = Maintainer::claim(&vault, MACHINE, mix.clone(), settings).await.expect("another");
        let disk = vec![0; (SECTORS * SECTOR) as usize];
        let writes = vec![Vec::new(); (SECTORS / BLOCK) as usize];
        let (hours, seq, step, head) = (BTreeMap::new(), 0, 0, 0);
        Machine { load, mix, store, vault, writer, maintainer, disk, writes, hours, seq, step, head }
    }

    /// Commits changes with a point behind them, and has the maintainer do what is due.
    async fn commit(&mut self, mut changes: Vec<Change>) {
        let wall = WallTime(WALL + self.step * STEP.as_millis() as u64);
        let id = MarkerId(u128::from(self.step));
        changes.push(Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }));
        let record = |change| {
            self.seq += 1;
            Record { seq: WriteSeq(self.seq), change }
        };
        let records: Vec<Record> = changes.into_iter().map(record).collect();
        let (generation, seq) = (Generation(1), WriteSeq(self.seq));
        let position = BatchPosition { generation, seq, chain: Chain([0; 32]) };
        self.writer.commit(records, position).await.expect("a commit");
        self.step += 1;
        if self.step.is_multiple_of(STEPS_PER_HOUR) {
            self.hours.insert(id, blake3::hash(&self.disk));
        }
        let times = Times { now: Instant::default().after(STEP * self.step as u32), wall };
        while self.maintainer.round(self.writer.slot(), times).await.expect("a round").is_some() {}
    }

    fn write(&mut self, first: u64, sectors: u64) -> Bytes {
        let payload = self.mix.payload(sectors);
        self.disk[(first * SECTOR) as usize..][..payload.len()].copy_from_slice(&payload);
        for block in first / BLOCK..(first + sectors) / BLOCK {
            self.writes[block as usize].push(self.step);
        }
        payload
    }

    /// Returns the bytes that points made in these steps show: no vault that has them holds less.
    fn shown(&self, steps: &[u64]) -> u64 {
        let of_block = |writes: &Vec<u64>| {
            let ends = writes.iter().skip(1).copied().chain([u64::MAX]);
            let shows = |(write, end): &(u64, u64)| {
                let at = steps.partition_point(|step| step < write);
                steps.get(at).is_some_and(|step| step < end)
            };
            writes.iter().copied().zip(ends).filter(shows).count() as u64
        };
        self.writes.iter().map(of_block).sum::<u64>() * BLOCK * SECTOR
    }

    async fn first_copy(&mut self) {
        let mut changes = vec![
            Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(SECTORS) },
            Change::ResyncBegin { reason: ResyncReason::Initial },
        ];
        for first in (0..SECTORS).step_by(PIECE as usize) {
            let payload = self.write(first, PIECE);
            changes.push(Change::ResyncWrite { volume: VOLUME, lba: Lba(first), payload });
        }
        changes.push(Change::ResyncEnd);
        self.commit(changes).await;
    }

    /// Up to the next point; returns the bytes that were written, and those that an undo log would keep.
    async fn play(&mut self) -> (u64, u64) {
        let (mut changes, mut bytes, mut undone) = (Vec::new(), 0, BTreeSet::new());
        let wanted = self.load.step_bytes(&self.mix);
        while bytes < wanted {
            for (first, sectors) in self.load.places(&self.mix, &mut self.head) {
                bytes += sectors * SECTOR;
                undone.extend(first / BLOCK..(first + sectors) / BLOCK);
                let payload = self.write(first, sectors);
                changes.push(Change::Write { volume: VOLUME, lba: Lba(first), payload });
            }
        }
        self.commit(changes).await;
        (bytes, undone.len() as u64 * BLOCK * SECTOR)
    }

    /// Reads the oldest point, one in the middle and the newest of those that close an hour; returns how many points
    /// there are, and what they show.
    async fn check(&self) -> (usize, u64) {
        let reader = MachineReader::open(&self.vault, MACHINE).await.expect("a reader");
        let points = reader.points();
        let known: Vec<_> = points.iter().filter(|point| self.hours.contains_key(&point.marker.id)).collect();
        for point in [known[0], known[known.len() / 2], known[known.len() - 1]] {
            let view = reader.view(point.id).expect("a view");
            let mut hash = blake3::Hasher::new();
            for first in (0..SECTORS).step_by(PIECE as usize) {
                hash.update(&view.read(VOLUME, Extent::new(first, PIECE)).await.expect("content"));
            }
            assert_eq!(hash.finalize(), self.hours[&point.marker.id], "the point of {:?}", point.marker.wall);
        }
        let steps: Vec<u64> = points.iter().map(|point| point.marker.id.0 as u64).collect();
        (points.len(), self.shown(&steps))
    }
}

async fn play(name: &str, load: Load, seed: u64) {
    let mut machine = Machine::new(load, seed).await;
    machine.first_copy().await;
    for _ in 1..WARM_STEPS {
        machine.play().await;
    }
    let (before, held_before) = (machine.store.written(), machine.store.held());
    let (mut ingested, mut undo) = (0, 0);
    for _ in 0..COUNTED_STEPS {
        let (bytes, undone) = machine.play().await;
        (ingested, undo) = (ingested + bytes, undo + 2 * bytes + undone);
    }
    let (after, held_after) = (machine.store.written(), machine.store.held());
    let (points, shown) = machine.check().await;
    let per_byte = |bytes: u64| bytes as f64 / ingested as f64;
    let kinds =
        (0..KINDS.len()).map(|at| format!("\"{}\":{}", KINDS[at], per_byte(after.1[at] - before.1[at])));
    println!(
        "{{\"load\":\"{name}\",\"written\":{},{},\"undo_log\":{},\"ingested\":{ingested},\"disk\":{},\
         \"held_before\":{held_before},\"held_after\":{held_after},\"points\":{points},\"shown\":{shown}}}",
        per_byte(after.0 - before.0),
        kinds.collect::<Vec<_>>().join(","),
        per_byte(undo),
        SECTORS * SECTOR,
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().and_then(|text| text.parse().ok()).expect("usage: ladder_cost SEED [LOAD]");
    let only = arguments.next();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (name, load) in Load::ALL {
            if only.as_deref().is_none_or(|only| only == name) {
                play(name, load, seed).await;
            }
        }
    });
}
