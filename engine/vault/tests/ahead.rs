//! A commit prepared while the slot of the one before it is not certain: what each bad end leaves behind.

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
    CommitError, MachineReader, MachineWriter, MemStore, Preparer, Vault, VaultKeys, WriterSettings,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(4);
const VOLUME: VolumeIndex = VolumeIndex(0);

/// A store whose answers to one kind of creation can go wrong.
#[derive(Default)]
struct Store {
    inner: Arc<MemStore>,
    /// Slots are taken, and their answers are lost.
    loses_slots: AtomicBool,
    /// There is no room for segments.
    is_full: AtomicBool,
}

impl Store {
    fn segments(&self) -> usize {
        self.inner.names().iter().filter(|name| name.as_str().contains("/seg/")).count()
    }
}

#[async_trait]
impl StoreAround for Store {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        if key.as_str().contains("/seg/") && self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::NoSpace);
        }
        let answer = self.inner.put_if_absent(key, body).await;
        match key.as_str().contains("/log/") && self.loses_slots.load(Ordering::Relaxed) {
            true => Err(StoreError::Ambiguous("reply lost".to_owned())),
            false => answer,
        }
    }
}

/// Everything of one test: an opened machine, its writer and what prepares for it.
struct Bench {
    store: Arc<Store>,
    dice: Arc<Seeded>,
    vault: Vault,
    writer: MachineWriter,
    ahead: Preparer,
}

impl Bench {
    async fn new() -> Bench {
        let (store, dice) = (Arc::new(Store::default()), Seeded::new(2));
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*dice).await.unwrap();
        let writer = claim(&vault, &dice).await;
        let ahead = writer.preparer();
        let mut bench = Bench { store, dice, vault, writer, ahead };
        let opening = bench.ahead.prepare(opening(), position(3)).await.unwrap();
        bench.writer.publish(&opening).await.unwrap();
        bench
    }

    /// Checks that a fresh reader sees these writes, one per point, and nothing else.
    async fn shows(&self, fills: &[u8]) {
        let reader = MachineReader::open(&self.vault, MACHINE).await.unwrap();
        assert_eq!(reader.points().len(), fills.len());
        for (point, fill) in reader.points().iter().zip(fills) {
            let view = reader.view(point.id).unwrap();
            assert_eq!(view.read(VOLUME, Extent::new(0, 8)).await.unwrap(), vec![*fill; 4096]);
        }
    }
}

async fn claim(vault: &Vault, dice: &Arc<Seeded>) -> MachineWriter {
    let settings = WriterSettings { inline_bytes: 0, ..WriterSettings::default() };
    MachineWriter::claim_with(vault, MACHINE, dice.clone(), settings).await.unwrap()
}

fn position(seq: u64) -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([seq as u8; 32]) }
}

fn opening() -> Vec<Record> {
    let changes = [
        Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(64) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
        Change::ResyncEnd,
    ];
    (1..).map(WriteSeq).zip(changes).map(|(seq, change)| Record { seq, change }).collect()
}

/// A write and a marker behind `after`, and the position of the marker.
fn batch(after: u64, fill: u8) -> (Vec<Record>, BatchPosition) {
    let write = Change::Write { volume: VOLUME, lba: Lba(0), payload: vec![fill; 4096].into() };
    let marker = Marker { id: MarkerId(u128::from(fill)), kind: MarkerKind::Crash, wall: WallTime(1) };
    let record = |seq, change| Record { seq: WriteSeq(seq), change };
    (vec![record(after + 1, write), record(after + 2, Change::Marker(marker))], position(after + 2))
}

#[test]
fn commits_are_prepared_ahead_and_published_in_order() {
    run(async {
        let mut bench = Bench::new().await;
        let (one, to) = batch(3, 11);
        let first = bench.ahead.prepare(one, to).await.unwrap();
        let (two, to) = batch(5, 12);
        let second = bench.ahead.prepare(two, to).await.unwrap();
        let early = bench.writer.publish(&second).await.unwrap_err();
        assert_eq!(early, CommitError::Gap { after: WriteSeq(3), found: WriteSeq(6) }, "WR-6");
        bench.shows(&[]).await;
        for commit in [&first, &first, &second, &second] {
            let done = bench.writer.publish(commit).await.unwrap();
            assert_eq!(done.position, commit.position(), "a publication may be repeated");
        }
        bench.shows(&[11, 12]).await;
    });
}

#[test]
fn a_crash_with_a_prepared_commit_in_hand_leaves_an_orphan_and_nothing_else() {
    run(async {
        let mut bench = Bench::new().await;
        let (one, to) = batch(3, 11);
        let first = bench.ahead.prepare(one, to).await.unwrap();
        let (two, to) = batch(5, 12);
        bench.ahead.prepare(two.clone(), to).await.unwrap();
        bench.writer.publish(&first).await.unwrap();
        assert_eq!(bench.store.segments(), 2);
        bench.writer = claim(&bench.vault, &bench.dice).await;
        assert_eq!(bench.writer.head().position, first.position());
        bench.shows(&[11]).await;
        bench.writer.commit(two, to).await.unwrap();
        bench.shows(&[11, 12]).await;
        assert_eq!(bench.store.segments(), 3, "one of them is the dead writer's");
    });
}

#[test]
fn a_fenced_writer_publishes_nothing_of_what_it_prepared() {
    run(async {
        let mut bench = Bench::new().await;
        let (one, to) = batch(3, 11);
        let stale = bench.ahead.prepare(one, to).await.unwrap();
        let mut newer = claim(&bench.vault, &bench.dice).await;
        let (two, to) = batch(3, 12);
        newer.commit(two, to).await.unwrap();
        for _ in 0..2 {
            let refused = bench.writer.publish(&stale).await.unwrap_err();
            assert!(matches!(refused, CommitError::Fenced { .. }), "{refused}");
        }
        bench.shows(&[12]).await;
    });
}

#[test]
fn the_lost_reply_of_a_slot_does_not_touch_the_commit_prepared_behind_it() {
    run(async {
        let mut bench = Bench::new().await;
        let (one, to) = batch(3, 11);
        let first = bench.ahead.prepare(one, to).await.unwrap();
        let (two, to) = batch(5, 12);
        bench.store.loses_slots.store(true, Ordering::Relaxed);
        let (lost, second) = futures::join!(bench.writer.publish(&first), bench.ahead.prepare(two, to));
        assert!(matches!(lost.unwrap_err(), CommitError::Retry(_)));
        let second = second.unwrap();
        let lost = bench.writer.publish(&second).await.unwrap_err();
        assert!(matches!(lost, CommitError::Retry(_)), "the first slot comes first: {lost}");
        bench.store.loses_slots.store(false, Ordering::Relaxed);
        let done = bench.writer.publish(&first).await.unwrap();
        assert_eq!((done.position, done.points.len()), (position(5), 1));
        let done = bench.writer.publish(&second).await.unwrap();
        assert_eq!((done.position, done.points.len()), (position(7), 1));
        bench.shows(&[11, 12]).await;
    });
}

#[test]
fn a_store_that_fills_up_under_the_next_commit_does_not_hold_up_this_one() {
    run(async {
        let mut bench = Bench::new().await;
        let (one, to) = batch(3, 11);
        let first = bench.ahead.prepare(one, to).await.unwrap();
        let (two, to) = batch(5, 12);
        bench.store.is_full.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let next = bench.ahead.prepare(two.clone(), to);
            let (done, full) = futures::join!(bench.writer.publish(&first), next);
            assert_eq!(done.unwrap().position, position(5));
            assert!(matches!(full.unwrap_err(), CommitError::StoreFull(_)));
        }
        bench.store.is_full.store(false, Ordering::Relaxed);
        let second = bench.ahead.prepare(two, to).await.unwrap();
        bench.writer.publish(&second).await.unwrap();
        bench.shows(&[11, 12]).await;
        assert_eq!(bench.store.segments(), 2, "PR-2: no attempt left a segment that no record names");
    });
}
