//! What a writer answers, case by case.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, MachineId, Record, Sectors, VolumeId, VolumeIndex, WriteSeq,
};
use redoubt_ports::{RawStore, StoreError, StoreKey};
use redoubt_vault::{
    CommitError, MachineReader, MachineWriter, MemStore, Vault, VaultError, VaultKeys, WriterSettings,
};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(4);

/// What a store does with a creation.
#[derive(Clone, Debug)]
enum Mood {
    Good,
    Fail(StoreError),
    Overwrite,
}

/// A store whose creations can be made to go wrong.
struct Moody {
    inner: Arc<MemStore>,
    mood: Mutex<Mood>,
}

impl Moody {
    fn turn(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

#[async_trait]
impl RawStore for Moody {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let mood = self.mood.lock().unwrap().clone();
        match mood {
            Mood::Good => self.inner.put_if_absent(key, body).await,
            Mood::Fail(error) => Err(error),
            Mood::Overwrite => {
                self.inner.tamper(key, Some(body));
                Ok(())
            }
        }
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.inner.list_after(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
}

async fn moody() -> (Arc<Moody>, Arc<Seeded>, Vault) {
    let (inner, dice) = (Arc::new(MemStore::new()), Seeded::new(2));
    let store = Arc::new(Moody { inner, mood: Mutex::new(Mood::Good) });
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
        assert!(matches!(refused, VaultError::NotAdmitted(_)), "{refused}");
        assert_eq!(store.inner.names(), before, "the probe leaves nothing behind");
        store.turn(Mood::Good);
        MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
    });
}
