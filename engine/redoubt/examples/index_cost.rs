//! What a reader's index costs: time from opening a vault to the first bytes, memory, time of a lookup.
//!
//! `cargo run --release -p redoubt --example index_cost -- fill DIRECTORY` makes a vault with a disk of 1 TiB,
//! 20 million extents and 1 000 points, indexed as a process server does it; four of five writes fall on a
//! twentieth of the disk. `-- measure DIRECTORY` is to be a process of its own, whose memory says something:
//! it opens the oldest and the newest point in turn and prints one JSON line per run.
#![allow(clippy::disallowed_methods, reason = "a measurement needs the true clock and /proc")]

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_host::{HostWorkers, LocalStore};
use redoubt_ports::Entropy;
use redoubt_vault::{
    INDEX_ENTRIES, MachineReader, MachineWriter, Maintainer, MaintainerSettings, PointId, PointView, Times,
    Vault, VaultKeys,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const MACHINE: MachineId = MachineId(1);
const VOLUME: VolumeIndex = VolumeIndex(0);
/// 1 TiB.
const SECTORS: u64 = 1 << 31;
const EXTENTS: u64 = 20_000_000;
const POINTS: u64 = 1_000;
/// Points at the end that no catalogue covers: the next round is due, and a mount has the most to load.
const BEHIND: u64 = INDEX_ENTRIES / (EXTENTS / POINTS);
/// An extent is one sector: what it holds costs the index nothing, and the vault fits on a small disk.
const SECTOR: usize = 512;
/// Sectors of a lookup and of the first read: 4 KiB.
const BLOCK: u64 = 8;
/// A part of the disk whose blocks of the index fit into a reader's cache.
const WARM: u64 = SECTORS / 64;
const LOOKUPS: u64 = 100_000;
/// Lookups anywhere, most of which load blocks.
const COLD: u64 = 2_000;

/// Repeatable numbers; good enough for places on a disk, never for keys.
struct Mix(AtomicU64);

impl Mix {
    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A place to write: four times in five in the first of each twenty pieces of 1 GiB.
    fn place(&self) -> u64 {
        let piece = SECTORS >> 10;
        let (kind, at) = (self.next() % 5, self.next() % SECTORS);
        if kind == 0 { at } else { at / piece / 20 * 20 * piece + at % piece }
    }
}

impl Entropy for Mix {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}

fn keys() -> VaultKeys {
    VaultKeys::new([1; 32])
}

/// Fills a new vault, a commit with its point at a time.
async fn fill(directory: &Path) {
    let mix = Arc::new(Mix(AtomicU64::new(1)));
    std::fs::create_dir_all(directory).expect("a directory");
    let store = Arc::new(LocalStore::open(directory).expect("an empty directory"));
    let vault = Vault::init(store, keys(), &*mix).await.expect("a vault");
    let mut writer = MachineWriter::claim(&vault, MACHINE, mix.clone()).await.expect("a claim");
    let mut maintainer = Maintainer::claim(&vault, MACHINE, mix.clone(), MaintainerSettings::default())
        .await
        .expect("a maintainer");
    let payload = Bytes::from(vec![7; SECTOR]);
    let mut seq = 0;
    for point in 1..=POINTS {
        let mut changes = Vec::new();
        if point == 1 {
            changes.push(Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(SECTORS) });
            changes.push(Change::ResyncBegin { reason: ResyncReason::Initial });
            changes.push(Change::ResyncEnd);
        }
        changes.extend((0..EXTENTS / POINTS).map(|_| {
            let lba = Lba(mix.place());
            Change::Write { volume: VOLUME, lba, payload: payload.clone() }
        }));
        let (id, wall) = (MarkerId(u128::from(point)), WallTime(point));
        changes.push(Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }));
        let record = |change| {
            seq += 1;
            Record { seq: WriteSeq(seq), change }
        };
        let records: Vec<Record> = changes.into_iter().map(record).collect();
        let position = BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([0; 32]) };
        writer.commit(records, position).await.expect("a commit");
        if point <= POINTS - BEHIND {
            while maintainer.round(writer.slot(), Times::default()).await.expect("an index").is_some() {}
        }
    }
}

/// Opens the vault and reads 4 KiB of the newest point, or of one that is named, as a mount does first.
async fn first_read(directory: &Path, named: Option<PointId>, lba: u64) -> (f64, MachineReader, PointView) {
    let start = Instant::now();
    let store = Arc::new(LocalStore::open(directory).expect("the vault's directory"));
    let vault = Vault::open_for(store, keys(), MACHINE).await.expect("the vault");
    // As a mount does.
    let vault = vault.with_workers(Arc::new(HostWorkers::new()));
    let reader = match named {
        Some(id) => MachineReader::open_at(&vault, MACHINE, id).await.expect("a reader").0,
        None => MachineReader::open(&vault, MACHINE).await.expect("a reader"),
    };
    let newest = reader.points().last().map(|point| point.id);
    let view = reader.view(named.or(newest).expect("a point")).expect("a view");
    view.read(VOLUME, Extent::new(lba, BLOCK)).await.expect("content");
    (start.elapsed().as_secs_f64() * 1000.0, reader, view)
}

/// Looks so many blocks up; returns microseconds for each.
async fn lookups(view: &PointView, count: u64, place: impl Fn() -> u64) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        let extent = Extent::new(place().min(SECTORS - BLOCK), BLOCK);
        view.data_extents(VOLUME, extent).await.expect("a lookup");
    }
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

async fn measure(directory: &Path) {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mix = Mix(AtomicU64::new(seed.map_or(0, |since| since.as_nanos() as u64)));
    let before = resident();
    let (newest, reader, view) = first_read(directory, None, mix.place()).await;
    let points = reader.points();
    assert_eq!(points.len() as u64, POINTS);
    // Once to load what is asked for, once to measure.
    let warm = || mix.next() % WARM;
    lookups(&view, LOOKUPS, warm).await;
    let lookup = lookups(&view, LOOKUPS, warm).await;
    let cold = lookups(&view, COLD, || mix.next() % SECTORS).await;
    lookups(&view, 10 * COLD, || mix.place()).await;
    let memory = resident().saturating_sub(before) >> 10;
    drop((reader, view));
    let (oldest, ..) = first_read(directory, points.first().map(|point| point.id), mix.place()).await;
    println!(
        "{{\"newest_ms\":{newest},\"oldest_ms\":{oldest},\"lookup_us\":{lookup},\"cold_us\":{cold},\"resident_mib\":{memory}}}"
    );
}

/// Resident KiB of this process; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (what, directory) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match what.as_str() {
            "fill" => fill(Path::new(&directory)).await,
            "measure" => measure(Path::new(&directory)).await,
            _ => eprintln!("usage: index_cost fill|measure DIRECTORY"),
        }
    });
}
