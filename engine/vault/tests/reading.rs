//! What a read asks of the store, and what a cache near the reader may and may not do.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{Entropy, RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, PartId, PointView, ReadError,
    SealedCache, Times, Vault, VaultKeys, WriterSettings,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(7);
const VOLUME: VolumeIndex = VolumeIndex(0);
const UNIT: u64 = 64 << 10;
/// A disk full of what does not compress.
const BYTES: u64 = 2 << 20;
/// A larger one of repeated bytes, which are sealed faster.
const PLAIN_BYTES: u64 = 40 << 20;

/// Takes 10 ms for a read, counts reads of data and those on the way at once, and can be out of reach.
#[derive(Default)]
struct Watched {
    inner: MemStore,
    reads: AtomicU64,
    is_out: AtomicBool,
    /// Reads on the way now, and at most.
    busy: Mutex<(u64, u64)>,
}

#[async_trait]
impl StoreAround for Watched {
    fn inner(&self) -> &dyn RawStore {
        &self.inner
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        if self.is_out.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("out of reach".to_owned()));
        }
        self.reads.fetch_add(u64::from(key.as_str().contains("/seg/")), Ordering::Relaxed);
        {
            let mut busy = self.busy.lock().unwrap();
            busy.0 += 1;
            busy.1 = busy.1.max(busy.0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.busy.lock().unwrap().0 -= 1;
        self.inner.get(key, range).await
    }
}

/// A cache in memory with room for so many parts.
struct Kept {
    parts: Mutex<BTreeMap<PartId, Bytes>>,
    room: usize,
}

impl Kept {
    fn new(room: usize) -> Arc<Kept> {
        Arc::new(Kept { parts: Mutex::default(), room })
    }
}

#[async_trait]
impl SealedCache for Kept {
    fn has(&self, id: PartId) -> bool {
        self.parts.lock().unwrap().contains_key(&id)
    }

    async fn get(&self, id: PartId) -> Option<Bytes> {
        self.parts.lock().unwrap().get(&id).cloned()
    }

    fn forget(&self, id: PartId) {
        self.parts.lock().unwrap().remove(&id);
    }

    fn offer(&self, parts: Vec<(PartId, Bytes)>) {
        self.parts.lock().unwrap().extend(parts);
    }

    async fn keep(&self, parts: Vec<(PartId, Bytes)>) -> bool {
        let mut kept = self.parts.lock().unwrap();
        let has_room = kept.len() + parts.len() <= self.room;
        if has_room {
            kept.extend(parts);
        }
        has_room
    }
}

/// A vault with one full disk at one point, opened anew with nothing in memory.
struct Bench {
    store: Arc<Watched>,
    image: Vec<u8>,
    vault: Vault,
}

impl Bench {
    async fn new() -> Bench {
        let mut image = vec![0; BYTES as usize];
        Seeded::new(6).fill(&mut image);
        Bench::with(image).await
    }

    async fn with(image: Vec<u8>) -> Bench {
        let (store, dice) = (Arc::new(Watched::default()), Seeded::new(5));
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*dice).await.unwrap();
        let settings = WriterSettings { inline_bytes: 0, ..WriterSettings::default() };
        let mut writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        let sectors = Sectors(image.len() as u64 / 512);
        let mut changes = vec![
            Change::Attach { volume: VOLUME, id: VolumeId(1), sectors },
            Change::ResyncBegin { reason: ResyncReason::Initial },
            Change::ResyncEnd,
        ];
        changes.extend(image.chunks(UNIT as usize).enumerate().map(|(at, block)| Change::Write {
            volume: VOLUME,
            lba: Lba(at as u64 * UNIT / 512),
            payload: Bytes::copy_from_slice(block),
        }));
        changes.push(Change::Marker(Marker { id: MarkerId(1), kind: MarkerKind::Crash, wall: WallTime(1) }));
        let records: Vec<Record> =
            (1..).map(WriteSeq).zip(changes).map(|(seq, change)| Record { seq, change }).collect();
        let seq = WriteSeq(records.len() as u64);
        let position = BatchPosition { generation: Generation(1), seq, chain: Chain([1; 32]) };
        writer.commit(records, position).await.unwrap();
        // What lies where is then in blocks of the index, not in the readers' memory.
        let mut maintainer = Maintainer::claim(
            &vault,
            MACHINE,
            dice,
            MaintainerSettings { every: 1, ..MaintainerSettings::default() },
        )
        .await
        .unwrap();
        while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
        Bench { store, image, vault }
    }

    async fn view(&self) -> PointView {
        let reader = MachineReader::open(&self.vault, MACHINE).await.unwrap();
        let view = reader.view(reader.points()[0].id).unwrap();
        self.store.reads.store(0, Ordering::Relaxed);
        *self.store.busy.lock().unwrap() = (0, 0);
        view
    }

    fn reads(&self) -> u64 {
        self.store.reads.swap(0, Ordering::Relaxed)
    }

    /// Reads a range and compares it with what was written.
    async fn check(&self, view: &PointView, from: u64, bytes: u64) -> Result<(), ReadError> {
        let read = view.read(VOLUME, Extent::new(from / 512, bytes / 512)).await?;
        assert!(read == self.image[from as usize..(from + bytes) as usize], "{from}: other bytes");
        Ok(())
    }
}

#[test]
fn a_cold_read_of_a_block_is_one_request_and_of_neighbours_few() {
    run(async {
        let bench = Bench::new().await;
        let view = bench.view().await;
        for unit in [3, 29, 17, 11] {
            bench.check(&view, unit * UNIT + 4096, 4096).await.unwrap();
            assert_eq!(bench.reads(), 1, "a cold read of 4 KiB");
            bench.check(&view, unit * UNIT + 8192, 4096).await.unwrap();
            assert_eq!(bench.reads(), 0, "its neighbour came along");
        }
        bench.check(&bench.view().await, 0, BYTES).await.unwrap();
        assert_eq!(bench.reads(), 1, "32 units that follow one another");
        let every_other = bench.view().await;
        for unit in (0..16).step_by(2) {
            bench.check(&every_other, unit * UNIT, 4096).await.unwrap();
        }
        bench.reads();
        bench.check(&every_other, 0, 1 << 20).await.unwrap();
        assert_eq!(bench.reads(), 1, "gaps of a unit are read over");
    });
}

#[test]
fn what_is_on_its_way_is_not_asked_for_again() {
    run(async {
        let bench = Bench::new().await;
        let view = bench.view().await;
        let reads = (0..16).map(|block| bench.check(&view, 5 * UNIT + block * 4096, 4096));
        futures::future::join_all(reads).await.into_iter().for_each(|read| read.unwrap());
        assert_eq!(bench.reads(), 1, "sixteen reads of one unit at once");
        let ahead = Extent::new(10 * UNIT / 512, 16 * UNIT / 512);
        let (ahead, read) = tokio::join!(view.read_ahead(VOLUME, ahead), bench.check(&view, 12 * UNIT, UNIT));
        ahead.unwrap();
        read.unwrap();
        assert_eq!(bench.reads(), 1, "a read of what is being read ahead");
        // A read that is given up in the middle leaves nothing claimed.
        let lost = tokio::time::timeout(Duration::from_millis(3), bench.check(&view, 30 * UNIT, UNIT));
        assert!(lost.await.is_err());
        bench.check(&view, 30 * UNIT, UNIT).await.unwrap();
    });
}

#[test]
fn what_nobody_waits_for_has_its_own_small_bound() {
    run(async {
        let bench =
            Bench::with((0..PLAIN_BYTES / UNIT).flat_map(|at| vec![at as u8; UNIT as usize]).collect()).await;
        let view = bench.view().await;
        // The index is looked up before: this is about data.
        view.data_extents(VOLUME, Extent::new(0, PLAIN_BYTES / 512)).await.unwrap();
        *bench.store.busy.lock().unwrap() = (0, 0);
        // 32 MiB in requests of 8 MiB, of which two have room.
        let ahead = (0..4).map(|part| view.read_ahead(VOLUME, Extent::new(part << 14, 1 << 14)));
        let ahead = futures::future::join_all(ahead);
        let asked = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let start = tokio::time::Instant::now();
            bench.check(&view, PLAIN_BYTES - UNIT, 4096).await.unwrap();
            start.elapsed()
        };
        let (done, took) = tokio::join!(ahead, asked);
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(took, Duration::from_millis(10), "a read that is asked waits for nothing but its own");
        let most = bench.store.busy.lock().unwrap().1;
        assert!((2..=4).contains(&most), "{most} at once, one of them asked");
    });
}

#[test]
fn with_the_vault_out_of_reach_the_cache_serves_what_it_holds_and_nothing_else() {
    run(async {
        let (bench, cache) = (Bench::new().await, Kept::new(usize::MAX));
        let view = bench.view().await.with_cache(cache.clone());
        assert!(view.hydrate(VOLUME, Extent::new(0, BYTES / 2 / 512)).await.unwrap());
        assert!(bench.reads() > 0);
        assert!(view.hydrate(VOLUME, Extent::new(0, BYTES / 2 / 512)).await.unwrap());
        assert_eq!(bench.reads(), 0, "what is there is not brought again");
        let view = bench.view().await.with_cache(cache.clone());
        bench.store.is_out.store(true, Ordering::Relaxed);
        bench.check(&view, 0, BYTES / 2).await.unwrap();
        let beyond = bench.check(&view, BYTES / 2, 4096).await.unwrap_err();
        assert!(matches!(beyond, ReadError::Store(_)), "{beyond}");
        let across = bench.check(&view, BYTES / 2 - 4096, 8192).await.unwrap_err();
        assert!(matches!(across, ReadError::Store(_)), "{across}");
        bench.store.is_out.store(false, Ordering::Relaxed);
        bench.check(&view, BYTES / 2 - 4096, 8192).await.unwrap();
    });
}

#[test]
fn a_cache_that_was_changed_costs_a_request_and_never_other_bytes() {
    run(async {
        let (bench, cache) = (Bench::new().await, Kept::new(usize::MAX));
        bench.check(&bench.view().await.with_cache(cache.clone()), 0, UNIT).await.unwrap();
        for (_, part) in cache.parts.lock().unwrap().iter_mut() {
            let mut bytes = part.to_vec();
            bytes[100] ^= 1;
            *part = bytes.into();
        }
        let view = bench.view().await.with_cache(cache.clone());
        bench.check(&view, 0, UNIT).await.unwrap();
        assert_eq!(bench.reads(), 1);
        // What was read from the store instead is kept again.
        bench.store.is_out.store(true, Ordering::Relaxed);
        bench.check(&view.with_cache(cache), 0, UNIT).await.unwrap();
    });
}

#[test]
fn hydration_without_room_says_so_and_what_is_in_the_cache_is_sealed() {
    run(async {
        let (bench, small) = (Bench::new().await, Kept::new(1));
        let view = bench.view().await;
        assert!(!view.clone().with_cache(small).hydrate(VOLUME, Extent::new(0, 1024)).await.unwrap());
        assert!(!view.hydrate(VOLUME, Extent::new(0, 1024)).await.unwrap(), "there is no cache at all");
        let cache = Kept::new(usize::MAX);
        bench.view().await.with_cache(cache.clone()).hydrate(VOLUME, Extent::new(0, 1024)).await.unwrap();
        let parts = cache.parts.lock().unwrap();
        assert!(!parts.is_empty());
        let plain = &bench.image[..32];
        assert!(parts.values().all(|part| !part.windows(plain.len()).any(|window| window == plain)));
    });
}
