//! One vault holds hundreds of machines: who reads, writes or maintains one of them asks nothing of the others, and what
//! that costs does not grow with their number.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::MachineId;
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultKeys,
};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use support::model::{Shape, history, position};
use support::{Seeded, run};

const MACHINES: u128 = 200;

/// Remembers what it was asked for.
struct Asked {
    inner: Arc<MemStore>,
    asked: Mutex<Vec<String>>,
}

impl Asked {
    fn note(&self, what: &str) {
        self.asked.lock().unwrap().push(what.to_owned());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl StoreAround for Asked {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.note(key.as_str());
        self.inner.put_if_absent(key, body).await
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.note(key.as_str());
        self.inner.get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.note(prefix);
        self.inner.list_after(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.note(key.as_str());
        self.inner.delete(key).await
    }
}

fn keys() -> VaultKeys {
    VaultKeys::new([3; 32])
}

/// Gives a machine some commits and a catalogue.
async fn protect(store: Arc<dyn RawStore>, machine: MachineId, dice: &Arc<Seeded>) {
    let vault = Vault::open(store, keys()).await.unwrap();
    let mut writer = MachineWriter::claim(&vault, machine, dice.clone()).await.unwrap();
    let records = history(dice, Shape { percent: 0, writers: 1, length: 20, wide: false });
    for done in [records.len() / 2, records.len()] {
        writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
    }
    let settings = MaintainerSettings { every: 1, ..MaintainerSettings::default() };
    let mut maintainer = Maintainer::claim(&vault, machine, dice.clone(), settings).await.unwrap();
    while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
}

/// Protects a machine and lists its points; returns what was asked of the store for each.
async fn one_machine(store: &Arc<MemStore>, machine: MachineId) -> [Vec<String>; 2] {
    let asked = Arc::new(Asked { inner: store.clone(), asked: Mutex::default() });
    protect(asked.clone(), machine, &Seeded::new(77)).await;
    let writing = asked.take();
    let vault = Vault::open_for(asked.clone(), keys(), machine).await.unwrap();
    assert!(!MachineReader::open(&vault, machine).await.unwrap().points().is_empty());
    [writing, asked.take()]
}

#[test]
fn reading_and_writing_one_machine_asks_nothing_of_the_others_however_many_there_are() {
    run(async {
        let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
        Vault::init(store.clone(), keys(), &*dice).await.unwrap();
        let alone = one_machine(&store, MachineId(1000)).await;
        for machine in 1..=MACHINES {
            protect(store.clone(), MachineId(machine), &dice).await;
        }
        let machine = MachineId(1001);
        let among = one_machine(&store, machine).await;
        let ours = format!("g/{machine}/");
        for (alone, among) in alone.iter().zip(&among) {
            for name in among {
                let is_shared = ["vault", "key/", "probe/"].iter().any(|prefix| name.starts_with(prefix));
                assert!(is_shared || name.starts_with(&ours), "{name} is none of its business");
            }
            assert_eq!(alone.len(), among.len(), "requests: alone, among {MACHINES} others");
        }
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        assert_eq!(vault.list_machines().await.unwrap().len() as u128, MACHINES + 2);
    });
}
