//! How many round trips follow each other from nothing to the first bytes of a point, and whose objects are read.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, PointId, Times, Vault, VaultKeys,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Seeded, run};
use tokio::time::{Instant, sleep};

const MACHINE: MachineId = MachineId(7);
const OTHER: MachineId = MachineId(8);
const VOLUME: VolumeIndex = VolumeIndex(0);
const POINTS: u64 = 45;
/// Slots that a catalogue may lag behind: the last catalogue of [`POINTS`] commits leaves some to the log.
const BEHIND: u64 = 8;
/// On paused time this counts requests that wait for one another; those side by side count once.
const ROUND_TRIP: Duration = Duration::from_secs(1);

fn keys() -> VaultKeys {
    VaultKeys::new([1; 32])
}

/// A store that is far away and remembers what it was asked.
struct Far {
    inner: Arc<MemStore>,
    asked: Mutex<Vec<String>>,
}

impl Far {
    async fn travel(&self, what: &str) {
        self.asked.lock().unwrap().push(what.to_owned());
        sleep(ROUND_TRIP).await;
    }
}

#[async_trait]
impl RawStore for Far {
    async fn put_if_absent(&self, _: &StoreKey, _: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Denied("a recovery writes nothing".to_owned()))
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.travel(key.as_str()).await;
        self.inner.get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.travel(prefix).await;
        self.inner.list_after(prefix, after, limit).await
    }

    async fn delete(&self, _: &StoreKey) -> Result<(), StoreError> {
        Err(StoreError::Denied("a recovery deletes nothing".to_owned()))
    }
}

/// Writes [`POINTS`] points; point n holds n in block n of a disk of as many blocks.
async fn fill(store: &Arc<MemStore>, vault: &Vault, machine: MachineId) {
    let dice = Seeded::new(machine.0 as u64);
    let mut writer = MachineWriter::claim(vault, machine, dice.clone()).await.unwrap();
    let mut maintainer = Maintainer::claim(
        vault,
        machine,
        dice,
        MaintainerSettings { every: BEHIND, ..MaintainerSettings::default() },
    )
    .await
    .unwrap();
    let mut seq = 0;
    for point in 1..=POINTS {
        let mut changes = Vec::new();
        if point == 1 {
            let sectors = Sectors((POINTS + 1) * 8);
            changes.push(Change::Attach { volume: VOLUME, id: VolumeId(1), sectors });
            changes.push(Change::ResyncBegin { reason: ResyncReason::Initial });
            changes.push(Change::ResyncEnd);
        }
        let payload = vec![point as u8; 4096].into();
        changes.push(Change::Write { volume: VOLUME, lba: Lba(point * 8), payload });
        let (id, wall) = (MarkerId(u128::from(point)), WallTime(point));
        changes.push(Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }));
        let record = |change| {
            seq += 1;
            Record { seq: WriteSeq(seq), change }
        };
        let records: Vec<Record> = changes.into_iter().map(record).collect();
        let position = BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([0; 32]) };
        writer.commit(records, position).await.unwrap();
        while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
    }
    assert!(store.names().iter().any(|name| name.as_str().contains("/cat/")), "there is a catalogue");
}

struct Bench(Arc<MemStore>);

impl Bench {
    async fn new() -> Bench {
        let store = Arc::new(MemStore::new());
        let vault = Vault::init(store.clone(), keys(), &*Seeded::new(1)).await.unwrap();
        for machine in [MACHINE, OTHER] {
            fill(&store, &vault, machine).await;
        }
        Bench(store)
    }

    fn far(&self) -> Arc<Far> {
        Arc::new(Far { inner: self.0.clone(), asked: Mutex::default() })
    }

    /// Opens everything anew and reads the block that the point wrote; returns the round trips in a row.
    async fn first_read(&self, at: Option<PointId>) -> (u64, Vec<String>) {
        let (store, start) = (self.far(), Instant::now());
        let vault = Vault::open_for(store.clone(), keys(), MACHINE).await.unwrap();
        let (reader, damage) = match at {
            Some(id) => MachineReader::open_at(&vault, MACHINE, id).await.unwrap(),
            None => MachineReader::open_damaged(&vault, MACHINE).await.unwrap(),
        };
        assert_eq!(damage, None);
        let points = reader.points();
        let at = at.map_or(points.len() - 1, |id| points.iter().position(|point| point.id == id).unwrap());
        let view = reader.view(points[at].id).unwrap();
        let number = at as u64 + 1;
        let bytes = view.read(VOLUME, Extent::new(number * 8, 8)).await.unwrap();
        assert_eq!(bytes, vec![number as u8; 4096]);
        let trips = start.elapsed().as_secs() / ROUND_TRIP.as_secs();
        if number < POINTS {
            let later = view.read(VOLUME, Extent::new((number + 1) * 8, 8)).await.unwrap();
            assert_eq!(later, vec![0; 4096], "written after the point");
        }
        let asked = std::mem::take(&mut *store.asked.lock().unwrap());
        (trips, asked)
    }
}

#[test]
fn a_point_of_the_catalogue_is_four_round_trips_away_and_the_newest_five() {
    run(async {
        let bench = Bench::new().await;
        let vault = Vault::open(bench.0.clone(), keys()).await.unwrap();
        let points = MachineReader::open(&vault, MACHINE).await.unwrap().points();
        assert_eq!(points.len() as u64, POINTS);
        for at in [0, points.len() / 2] {
            let (trips, asked) = bench.first_read(Some(points[at].id)).await;
            assert!(trips <= 4, "{trips} in a row: {asked:#?}");
        }
        // Of the log behind the catalogue: the newest point, by its name and by being the newest.
        for at in [Some(points[points.len() - 1].id), None] {
            let (trips, asked) = bench.first_read(at).await;
            assert!(trips <= 5, "{trips} in a row: {asked:#?}");
        }
    });
}

#[test]
fn a_recovery_asks_for_no_object_of_another_machine() {
    run(async {
        let bench = Bench::new().await;
        let store = bench.far();
        let vault = Vault::open_for(store.clone(), keys(), MACHINE).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        assert_eq!(reader.points().len() as u64, POINTS);
        let foreign = format!("g/{OTHER}");
        let asked = store.asked.lock().unwrap();
        assert!(!asked.is_empty() && asked.iter().all(|name| !name.starts_with(&foreign)), "{asked:?}");
    });
}

/// A store into which the newest slot comes while the log is listed.
struct Growing {
    inner: Arc<MemStore>,
    coming: StoreKey,
    is_there: AtomicBool,
}

#[async_trait]
impl StoreAround for Growing {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        match *key == self.coming && !self.is_there.load(Ordering::Relaxed) {
            true => Ok(None),
            false => self.inner.get(key, range).await,
        }
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        sleep(ROUND_TRIP).await;
        if self.coming.as_str().starts_with(prefix) {
            self.is_there.store(true, Ordering::Relaxed);
        }
        self.inner.list_after(prefix, after, limit).await
    }
}

#[test]
fn a_slot_that_comes_while_the_log_is_listed_is_no_damage() {
    run(async {
        let bench = Bench::new().await;
        let is_slot = |name: &StoreKey| name.as_str().starts_with(&format!("g/{MACHINE}/log/"));
        let coming = bench.0.names().into_iter().filter(is_slot).max().unwrap();
        let store = Arc::new(Growing { inner: bench.0, coming, is_there: AtomicBool::new(false) });
        let vault = Vault::open_for(store, keys(), MACHINE).await.unwrap();
        let (reader, damage) = MachineReader::open_damaged(&vault, MACHINE).await.unwrap();
        assert_eq!((damage, reader.points().len() as u64), (None, POINTS));
    });
}

#[test]
fn what_was_asked_ahead_is_not_believed_later() {
    run(async {
        let bench = Bench::new().await;
        // The opening asks for slots that do not exist yet.
        let vault = Vault::open_for(bench.0.clone(), keys(), MACHINE).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        let dice = Seeded::new(99);
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
        let head = reader.head().position;
        let marker = Marker { id: MarkerId(1000), kind: MarkerKind::Crash, wall: WallTime(9) };
        let record = Record { seq: WriteSeq(head.seq.0 + 1), change: Change::Marker(marker) };
        let position = BatchPosition { seq: record.seq, ..head };
        writer.commit(vec![record], position).await.unwrap();
        reader.refresh().await.unwrap();
        assert_eq!(reader.points().len() as u64, POINTS + 1);
    });
}
