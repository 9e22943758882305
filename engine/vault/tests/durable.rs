//! What can be read need not be durable: its maker may have died, or failed, before its own sync.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, MachineId, Record, Sectors, VolumeId, VolumeIndex, WriteSeq,
};
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultError, VaultKeys};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(4);
/// More puts than initialising a vault, claiming and committing take.
const PUTS_MAX: u32 = 200;

/// What happens to the put whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It lands, its sync fails, the caller is told so.
    SyncFails,
    /// It lands, and the process dies before the sync.
    Dies,
}

/// A directory on a disk with a volatile cache: an object is durable once a put of it returned, or a
/// later one found it there.
struct Cached {
    inner: Arc<MemStore>,
    unsynced: Arc<Mutex<BTreeSet<StoreKey>>>,
    countdown: Mutex<Option<(u32, Fate)>>,
}

impl Cached {
    fn new(fate: Option<(u32, Fate)>) -> Arc<Cached> {
        let (inner, unsynced) = (Arc::new(MemStore::new()), Arc::default());
        Arc::new(Cached { inner, unsynced, countdown: Mutex::new(fate) })
    }

    /// The same disk as the next process sees it.
    fn next_process(&self) -> Arc<Cached> {
        let (inner, unsynced) = (self.inner.clone(), self.unsynced.clone());
        Arc::new(Cached { inner, unsynced, countdown: Mutex::new(None) })
    }

    fn fate(&self) -> Option<Fate> {
        let mut countdown = self.countdown.lock().unwrap();
        let (left, fate) = (*countdown)?;
        *countdown = (left > 0).then(|| (left - 1, fate));
        (left == 0).then_some(fate)
    }

    fn cut_power(&self) -> Arc<MemStore> {
        self.unsynced.lock().unwrap().iter().for_each(|key| self.inner.tamper(key, None));
        self.inner.clone()
    }
}

#[async_trait]
impl StoreAround for Cached {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let fate = self.fate();
        let put = self.inner.put_if_absent(key, body).await;
        match fate {
            None => {
                self.unsynced.lock().unwrap().remove(key);
                put
            }
            Some(fate) => {
                if put.is_ok() {
                    self.unsynced.lock().unwrap().insert(key.clone());
                }
                if fate == Fate::Dies {
                    std::future::pending::<()>().await;
                }
                Err(StoreError::Ambiguous("the sync failed".to_owned()))
            }
        }
    }
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

fn end() -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(3), chain: Chain([1; 32]) }
}

/// A process server's way from nothing to an acknowledged commit.
async fn serve(store: Arc<Cached>, dice: Arc<Seeded>) {
    let keys = VaultKeys::new([1; 32]);
    let vault = match Vault::open(store.clone(), keys.clone()).await {
        Err(VaultError::NoVault) => Vault::init(store, keys, &*dice).await.unwrap(),
        other => other.unwrap(),
    };
    let mut writer = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
    writer.commit(records(), end()).await.unwrap();
}

async fn acknowledged_survives(store: &Cached, what: &str) {
    let durable = store.cut_power();
    let vault = Vault::open(durable, VaultKeys::new([1; 32])).await.expect(what);
    let reader = MachineReader::open(&vault, MACHINE).await.expect(what);
    assert_eq!(reader.head().position, end(), "{what}");
}

#[test]
fn an_object_whose_sync_failed_is_put_again_before_it_counts() {
    run(async {
        for put in 0..PUTS_MAX {
            let store = Cached::new(Some((put, Fate::SyncFails)));
            serve(store.clone(), Seeded::new(1)).await;
            acknowledged_survives(&store, &format!("the sync of put {put} failed")).await;
        }
    });
}

#[test]
fn what_a_dead_process_left_in_the_cache_is_made_durable_before_anything_is_built_on_it() {
    run(async {
        for put in 0..PUTS_MAX {
            let store = Cached::new(Some((put, Fate::Dies)));
            let killed = serve(store.clone(), Seeded::new(1));
            let _ = tokio::time::timeout(Duration::from_secs(5), killed).await;
            let next = store.next_process();
            serve(next.clone(), Seeded::new(2)).await;
            acknowledged_survives(&next, &format!("the process died in put {put}")).await;
        }
    });
}
