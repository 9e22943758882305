//! What a writer answers, case by case.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, Lba, MachineId, Record, Sectors, VolumeId, VolumeIndex,
    WriteSeq,
};
use redoubt_ports::{RawStore, StoreError, StoreKey};
use redoubt_vault::{
    CommitError, MachineReader, MachineWriter, MemStore, StoreRule, Vault, VaultError, VaultKeys,
    WriterSettings,
};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(4);

/// What a store does with a creation.
#[derive(Clone, Debug)]
enum Mood {
    Good,
    Fail(StoreError),
    /// Takes so many segments, then is full.
    RoomFor(u32),
    Overwrite,
    /// Loses these objects, then creates.
    Lose(Vec<StoreKey>),
}

/// A store whose creations can be made to go wrong.
struct Moody {
    inner: Arc<MemStore>,
    mood: Mutex<Mood>,
    /// Requests of any kind.
    requests: AtomicU32,
}

impl Moody {
    /// Returns the requests since the last call.
    fn count(&self) -> u32 {
        self.requests.swap(0, Ordering::Relaxed)
    }

    fn segments(&self) -> usize {
        self.inner.names().iter().filter(|name| name.as_str().contains("/seg/")).count()
    }

    /// Takes the room for one segment.
    fn has_room(&self, key: &StoreKey) -> bool {
        match &mut *self.mood.lock().unwrap() {
            Mood::RoomFor(0) => false,
            Mood::RoomFor(left) => {
                *left -= u32::from(key.as_str().contains("/seg/"));
                true
            }
            _ => true,
        }
    }

    fn turn(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

#[async_trait]
impl RawStore for Moody {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !self.has_room(key) {
            return Err(StoreError::NoSpace);
        }
        let mood = self.mood.lock().unwrap().clone();
        match mood {
            Mood::Good | Mood::RoomFor(_) => self.inner.put_if_absent(key, body).await,
            Mood::Fail(error) => Err(error),
            Mood::Overwrite => {
                self.inner.tamper(key, Some(body));
                Ok(())
            }
            Mood::Lose(lost) => {
                lost.iter().for_each(|key| self.inner.tamper(key, None));
                self.inner.put_if_absent(key, body).await
            }
        }
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.list_after(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.delete(key).await
    }
}

async fn moody() -> (Arc<Moody>, Arc<Seeded>, Vault) {
    let (inner, dice) = (Arc::new(MemStore::new()), Seeded::new(2));
    let store = Arc::new(Moody { inner, mood: Mutex::new(Mood::Good), requests: AtomicU32::new(0) });
    let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*dice).await.unwrap();
    (store, dice, vault)
}

fn records() -> Vec<Record> {
    let changes = [
        Change::Attach { volume: VolumeIndex(0), id: VolumeId(1), sectors: Sectors(64) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
        Change::ResyncEnd,
    ];
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    changes.into_iter().enumerate().map(record).collect()
}

fn position(seq: u64, chain: u8) -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([chain; 32]) }
}

#[test]
fn the_same_sequence_with_another_chain_is_a_fork() {
    run(async {
        let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*dice).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
        writer.commit(records(), position(3, 7)).await.unwrap();
        let before = store.names();
        let fork = writer.commit(records(), position(3, 8)).await;
        assert_eq!(fork.unwrap_err(), CommitError::Fork(WriteSeq(3)));
        let older = BatchPosition { generation: Generation(0), ..position(4, 7) };
        assert_eq!(writer.commit(Vec::new(), older).await.unwrap_err(), CommitError::Fork(WriteSeq(4)));
        assert_eq!(store.names(), before, "a fork changes nothing");
        let again = writer.commit(records(), position(3, 7)).await.unwrap();
        assert_eq!(again.position, position(3, 7), "the true history is taken as before");
        // A later writer knows the chain from the log alone.
        let mut later = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
        let fork = later.commit(Vec::new(), position(3, 8)).await;
        assert_eq!(fork.unwrap_err(), CommitError::Fork(WriteSeq(3)));
    });
}

#[test]
fn a_full_or_denied_store_is_named_and_the_same_writer_goes_on_later() {
    run(async {
        for (error, inline_bytes) in [
            (StoreError::NoSpace, 0),
            (StoreError::NoSpace, 1 << 20),
            (StoreError::Denied("no".to_owned()), 0),
            (StoreError::Denied("no".to_owned()), 1 << 20),
        ] {
            let (store, dice, vault) = moody().await;
            let settings = WriterSettings { inline_bytes, ..WriterSettings::default() };
            let mut writer =
                MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
            let mut records = records();
            let zeroes =
                Change::WriteZeroes { volume: VolumeIndex(0), extent: redoubt_core::Extent::new(0, 8) };
            records.push(Record { seq: WriteSeq(4), change: zeroes });
            let to = position(4, 1);
            store.turn(Mood::Fail(error.clone()));
            for _ in 0..2 {
                match (&error, writer.commit(records.clone(), to).await.unwrap_err()) {
                    (StoreError::NoSpace, CommitError::StoreFull(failure)) => {
                        assert_eq!(failure.last, error);
                        assert!(failure.to_string().contains(MACHINE.to_string().as_str()));
                    }
                    (StoreError::Denied(_), CommitError::Denied(failure)) => assert_eq!(failure.last, error),
                    (_, other) => panic!("{error}: {other}"),
                }
            }
            let claim = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap_err();
            assert!(matches!(claim, VaultError::Store(failure) if failure.last == error));
            store.turn(Mood::Good);
            assert_eq!(writer.commit(records, to).await.unwrap().position, to);
            let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
            assert_eq!(reader.head().position, to);
        }
    });
}

#[test]
fn a_store_that_lost_its_promises_is_refused_before_the_machine_is_touched() {
    run(async {
        let (store, dice, vault) = moody().await;
        let before = store.inner.names();
        store.turn(Mood::Overwrite);
        let refused = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap_err();
        assert!(matches!(refused, VaultError::NotAdmitted { rule: StoreRule::Exclusive, .. }), "{refused}");
        assert_eq!(store.inner.names(), before, "the probe leaves nothing behind");
        store.turn(Mood::Good);
        MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
    });
}

#[test]
fn a_commit_tried_again_goes_on_with_the_segments_it_stored() {
    run(async {
        let (store, dice, vault) = moody().await;
        let settings =
            WriterSettings { inline_bytes: 0, segment_bytes: 1 << 12, ..WriterSettings::default() };
        let mut writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        let mut records = records();
        let change = Change::Resize { volume: VolumeIndex(0), sectors: Sectors(1024) };
        records.push(Record { seq: WriteSeq(4), change });
        for at in 0..4u64 {
            let mut payload = vec![0; 8 << 10];
            redoubt_ports::Entropy::fill(&*dice, &mut payload);
            let change =
                Change::Write { volume: VolumeIndex(0), lba: Lba(at * 128), payload: payload.into() };
            records.push(Record { seq: WriteSeq(5 + at), change });
        }
        for room in [0, 1, 2] {
            store.turn(Mood::RoomFor(room));
            let full = writer.commit(records.clone(), position(8, 1)).await.unwrap_err();
            assert!(matches!(full, CommitError::StoreFull(_)), "{full}");
        }
        store.turn(Mood::Good);
        writer.commit(records, position(8, 1)).await.unwrap();
        assert_eq!(store.segments(), 4, "no attempt left a segment that no record names");
    });
}

#[test]
fn what_a_claim_or_an_opening_costs_does_not_grow_with_the_claims_ever_made() {
    run(async {
        let (store, dice, vault) = moody().await;
        let mut costs = Vec::new();
        for _ in 0..40 {
            store.count();
            MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
            let claim = store.count();
            MachineReader::open(&vault, MACHINE).await.unwrap();
            // An opening reads each slot; this log has one seal for each claim.
            costs.push((claim, store.count() - costs.len() as u32));
        }
        assert_eq!(costs[39], costs[2], "{costs:?}");
    });
}

#[test]
fn a_lost_claim_is_made_again_by_the_next_writer_and_fences_as_before() {
    run(async {
        let (store, dice, vault) = moody().await;
        let claim = || MachineWriter::claim(&vault, MACHINE, dice.clone());
        let (mut first, mut second) = (claim().await.unwrap(), claim().await.unwrap());
        let name = StoreKey::new(format!("g/{MACHINE}/claim/w/00000002"));
        store.inner.tamper(&name, None);
        let mut third = claim().await.unwrap();
        assert_eq!((first.epoch(), second.epoch(), third.epoch()), (1, 2, 3));
        assert!(store.inner.peek(&name).is_some(), "CL-3");
        let none = || BatchPosition::default();
        for (old, by) in [(&mut first, 2), (&mut second, 3)] {
            assert_eq!(old.commit(Vec::new(), none()).await.unwrap_err(), CommitError::Fenced { by });
        }
        third.commit(records(), position(3, 1)).await.unwrap();
    });
}

#[test]
fn small_commits_cost_a_put_and_three_looks_each_and_one_request_to_open() {
    run(async {
        let (store, dice, vault) = moody().await;
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
        writer.commit(records(), position(3, 1)).await.unwrap();
        store.count();
        for seq in 4..24 {
            let payload = vec![seq as u8; 4096].into();
            let change = Change::Write { volume: VolumeIndex(0), lba: Lba(0), payload };
            writer.commit(vec![Record { seq: WriteSeq(seq), change }], position(seq, 1)).await.unwrap();
            // The slot with the segment in it, the look for the next claim, and two for the slot before (WR-7).
            assert_eq!(store.count(), 4);
        }
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        // The key, the lists of catalogues, keys and slots, the newest claim, and each slot: its segment's tables
        // came along.
        assert_eq!(u64::from(store.count()), 5 + reader.slot());
    });
}

/// A vault with five commits, and its store as it was after three of them.
async fn with_an_old_copy() -> (Arc<Moody>, Arc<Seeded>, Vault, MachineWriter, Vec<StoreKey>) {
    let (store, dice, vault) = moody().await;
    let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
    writer.commit(records(), position(3, 1)).await.unwrap();
    for seq in 4..8 {
        writer.commit(vec![write(seq)], position(seq, 1)).await.unwrap();
    }
    // The seal and commits up to sequence 5 were copied.
    let lost =
        (5..=writer.slot()).map(|slot| StoreKey::new(format!("g/{MACHINE}/log/{slot:016x}"))).collect();
    (store, dice, vault, writer, lost)
}

fn write(seq: u64) -> Record {
    let change =
        Change::Write { volume: VolumeIndex(0), lba: Lba(seq), payload: vec![seq as u8; 512].into() };
    Record { seq: WriteSeq(seq), change }
}

#[test]
fn a_writer_under_which_an_old_copy_was_put_ends_and_leaves_a_log_that_the_next_one_takes() {
    run(async {
        let (store, dice, vault, mut writer, lost) = with_an_old_copy().await;
        lost.iter().for_each(|slot| store.inner.tamper(slot, None));
        for _ in 0..2 {
            let ended = writer.commit(vec![write(8)], position(8, 1)).await.unwrap_err();
            assert!(matches!(&ended, CommitError::WentBack { behind: None, .. }), "{ended}");
        }
        let next = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
        assert_eq!(next.head().position, position(5, 1));
    });
}

#[test]
fn a_slot_that_was_on_its_way_when_an_old_copy_was_put_there_is_not_acknowledged_and_told() {
    run(async {
        let (store, dice, vault, mut writer, lost) = with_an_old_copy().await;
        store.turn(Mood::Lose(lost));
        let ended = writer.commit(vec![write(8)], position(8, 1)).await.unwrap_err();
        let CommitError::WentBack { behind: Some(stray), .. } = &ended else { panic!("{ended}") };
        store.turn(Mood::Good);
        let refused = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("later ones exist"), "{refused}");
        store.inner.tamper(&StoreKey::new(stray.clone()), None);
        assert_eq!(
            MachineWriter::claim(&vault, MACHINE, dice).await.unwrap().head().position,
            position(5, 1)
        );
    });
}

#[test]
fn a_slot_of_somebody_who_went_on_with_the_old_copy_is_not_taken_for_ones_own() {
    run(async {
        let (store, dice, vault, mut writer, lost) = with_an_old_copy().await;
        lost.iter().for_each(|slot| store.inner.tamper(slot, None));
        let claim = StoreKey::new(format!("g/{MACHINE}/claim/w/00000001"));
        store.inner.tamper(&claim, None);
        let mut other = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
        for seq in 6..9 {
            other.commit(vec![write(seq)], position(seq, 1)).await.unwrap();
        }
        assert!(other.slot() >= writer.slot());
        store.inner.tamper(&StoreKey::new(format!("g/{MACHINE}/claim/w/00000002")), None);
        let ended = writer.commit(vec![write(8)], position(8, 1)).await.unwrap_err();
        assert!(matches!(ended, CommitError::WentBack { .. }), "{ended}");
    });
}
