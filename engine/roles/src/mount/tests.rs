//! A mounted point over a store with a round trip that can be out of reach, on paused time.

use super::*;
use crate::testing::{CountingEntropy, MemFiles, TokioClock};
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record, VolumeId,
    WallTime, WriteSeq,
};
use redoubt_ports::{Entropy, Files, RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultKeys, WriterSettings};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tokio::time::Instant;

const VOLUME: VolumeIndex = VolumeIndex(0);
const MACHINE: MachineId = MachineId(9);
const UNIT: u64 = 64 << 10;
const BYTES: u64 = 32 * UNIT;
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// How a store fails.
const UP: u8 = 0;
const REFUSES: u8 = 1;
const SILENT: u8 = 2;

#[derive(Default)]
struct FarStore {
    inner: MemStore,
    how: AtomicU8,
    reads: AtomicU64,
}

#[async_trait]
impl StoreAround for FarStore {
    fn inner(&self) -> &dyn RawStore {
        &self.inner
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match self.how.load(Ordering::Relaxed) {
            UP => tokio::time::sleep(ROUND_TRIP).await,
            REFUSES => return Err(StoreError::Unavailable("out of reach".to_owned())),
            _ => std::future::pending().await,
        }
        self.inner.get(key, range).await
    }
}

/// A vault with one disk at one point.
struct Bench {
    store: Arc<FarStore>,
    vault: Vault,
    image: Vec<u8>,
}

impl Bench {
    async fn new() -> Bench {
        let (store, entropy) = (Arc::new(FarStore::default()), Arc::new(CountingEntropy::default()));
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*entropy).await.unwrap();
        let settings = WriterSettings { inline_bytes: 0, ..WriterSettings::default() };
        let writer = MachineWriter::claim_with(&vault, MACHINE, entropy.clone(), settings).await;
        let mut image = vec![0; BYTES as usize];
        entropy.fill(&mut image);
        let mut changes = vec![
            Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(BYTES / SECTOR_BYTES) },
            Change::ResyncBegin { reason: ResyncReason::Initial },
            Change::ResyncEnd,
        ];
        changes.extend(image.chunks(UNIT as usize).enumerate().map(|(at, block)| Change::Write {
            volume: VOLUME,
            lba: Lba(at as u64 * UNIT / SECTOR_BYTES),
            payload: Bytes::copy_from_slice(block),
        }));
        changes.push(Change::Marker(Marker { id: MarkerId(1), kind: MarkerKind::Crash, wall: WallTime(1) }));
        let records: Vec<Record> =
            (1..).map(WriteSeq).zip(changes).map(|(seq, change)| Record { seq, change }).collect();
        let seq = WriteSeq(records.len() as u64);
        let position = BatchPosition { generation: Generation(1), seq, chain: Chain([1; 32]) };
        writer.unwrap().commit(records, position).await.unwrap();
        Bench { store, vault, image }
    }

    async fn disk(&self) -> PointDisk {
        let reader = MachineReader::open(&self.vault, MACHINE).await.unwrap();
        let view = reader.view(reader.points()[0].id).unwrap();
        self.store.reads.store(0, Ordering::Relaxed);
        PointDisk::new(view, VOLUME, None, Arc::new(TokioClock::new())).unwrap()
    }

    async fn cached(&self, files: &Arc<MemFiles>, bytes: u64) -> (PointDisk, Arc<LocalCache>) {
        let cache = LocalCache::open(files.clone(), bytes).await.unwrap();
        (self.disk().await.with_cache(cache.clone()), cache)
    }

    fn set(&self, how: u8) {
        self.store.how.store(how, Ordering::Relaxed);
    }

    /// Reads a unit: what was written, or an error in time.
    async fn check(&self, disk: &PointDisk, unit: u64) -> Result<Duration, IoError> {
        let start = Instant::now();
        let read = disk.read(Extent::new(unit * UNIT / SECTOR_BYTES, UNIT / SECTOR_BYTES)).await;
        let took = start.elapsed();
        assert!(took <= READ_DEADLINE, "{took:?}");
        let bytes = read?;
        assert!(bytes == self.image[(unit * UNIT) as usize..((unit + 1) * UNIT) as usize], "unit {unit}");
        Ok(took)
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_in_order_waits_for_few_round_trips() {
    let bench = Bench::new().await;
    let disk = bench.disk().await;
    let start = Instant::now();
    for unit in 0..BYTES / UNIT {
        bench.check(&disk, unit).await.unwrap();
        // What a client does with it.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waited = start.elapsed() - Duration::from_millis(10) * (BYTES / UNIT) as u32;
    assert!(waited <= ROUND_TRIP * 6, "{waited:?}, alone each of 32 reads waits for {ROUND_TRIP:?}");
    let reads = bench.store.reads.load(Ordering::Relaxed);
    assert!(reads <= 8, "{reads} requests");
}

#[tokio::test(start_paused = true)]
async fn an_outage_stops_what_is_not_in_the_cache_and_nothing_else() {
    let (bench, files) = (Bench::new().await, Arc::new(MemFiles::default()));
    for how in [REFUSES, SILENT] {
        bench.set(UP);
        let (disk, cache) = bench.cached(&files, CACHE_BYTES_MIN).await;
        for unit in [3, 17, 29] {
            bench.check(&disk, unit).await.unwrap();
        }
        // Another mount has nothing in memory.
        let disk = bench.disk().await.with_cache(cache.clone());
        bench.set(how);
        for unit in [3, 17, 29] {
            bench.check(&disk, unit).await.unwrap();
        }
        let lost = futures::future::join_all([0, 10, 31].map(|unit| bench.check(&disk, unit))).await;
        for error in lost {
            assert_eq!(error.unwrap_err().kind, IoKind::Device);
        }
        bench.set(UP);
        for unit in 0..32 {
            bench.check(&disk, unit).await.unwrap();
        }
        cache.remove().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn hydration_waits_an_outage_out_and_then_nothing_is_asked_of_the_vault() {
    let (bench, files) = (Bench::new().await, Arc::new(MemFiles::default()));
    let (disk, cache) = bench.cached(&files, CACHE_BYTES_MIN).await;
    bench.set(REFUSES);
    let mut told = disk.hydrate();
    let is_waiting = |status: &HydrationStatus| matches!(status.state, HydrationState::Waiting(_));
    told.wait_for(is_waiting).await.unwrap();
    bench.set(UP);
    let done = told.wait_for(|status| status.state == HydrationState::Complete).await.unwrap().clone();
    assert_eq!((done.done_bytes, done.data_bytes, done.damaged_bytes), (BYTES, BYTES, 0));
    assert!(cache.status().bytes > BYTES, "what does not compress");
    bench.store.reads.store(0, Ordering::Relaxed);
    bench.set(SILENT);
    for unit in 0..BYTES / UNIT {
        assert_eq!(bench.check(&disk, unit).await.unwrap(), Duration::ZERO);
    }
    assert_eq!(bench.store.reads.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn hydration_passes_damage_over_and_counts_it() {
    let (bench, files) = (Bench::new().await, Arc::new(MemFiles::default()));
    let (disk, _cache) = bench.cached(&files, CACHE_BYTES_MIN).await;
    let names = bench.store.inner.names();
    let segment = names.iter().find(|name| name.as_str().contains("/seg/")).unwrap();
    let mut bytes = bench.store.inner.peek(segment).unwrap().to_vec();
    // In the fifth unit or so: units of what does not compress are a little longer than their content.
    bytes[(4 * UNIT + UNIT / 2) as usize] ^= 1;
    bench.store.inner.tamper(segment, Some(bytes.into()));
    let mut told = disk.hydrate();
    let done = told.wait_for(|status| status.state == HydrationState::Complete).await.unwrap().clone();
    assert_eq!((done.damaged_bytes, done.data_bytes), (UNIT, BYTES - UNIT));
    assert!(done.damage.unwrap().contains(segment.as_str()));
    bench.set(REFUSES);
    for unit in 0..BYTES / UNIT {
        assert_eq!(bench.check(&disk, unit).await.is_err(), unit == 4, "{unit}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_mounts_at_once_end_one_by_one() {
    let bench = Bench::new().await;
    let mut mounts = Vec::new();
    for _ in 0..6 {
        let files = Arc::new(MemFiles::default());
        let (disk, cache) = bench.cached(&files, CACHE_BYTES_MIN).await;
        let told = disk.hydrate();
        mounts.push((disk, cache, told, files));
    }
    for (disk, ..) in &mounts {
        bench.check(disk, 11).await.unwrap();
    }
    while let Some((disk, cache, told, files)) = mounts.pop() {
        drop(disk);
        cache.remove().await.unwrap();
        drop(cache);
        assert_eq!(files.list().await.unwrap(), Vec::<String>::new());
        tokio::time::sleep(ROUND_TRIP).await;
        assert!(told.has_changed().is_err(), "its hydration ended with it");
        for (disk, ..) in &mounts {
            bench.check(disk, mounts.len() as u64).await.unwrap();
        }
    }
}
