//! An old copy takes the place of a vault in front of one of a maintainer's deletions.

use super::model::{MACHINE, Shape, history, position, settings};
use super::{Seeded, run};
use async_trait::async_trait;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultError,
    VaultKeys,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Commits before the copy is made, and after it.
const BEFORE: usize = 40;
const AFTER: usize = 140;
/// Slots of one version: it gives up more than is deleted after one look.
const EVERY: u64 = 12;
/// What one look is good for.
const AT_ONCE: usize = 8;

/// A store whose content is another from one deletion on.
pub(crate) struct Swapping {
    new: Arc<MemStore>,
    old: Arc<MemStore>,
    pub(crate) is_old: AtomicBool,
    /// Deletions until then.
    left: AtomicU64,
}

impl Swapping {
    fn at(new: &Arc<MemStore>, old: &Arc<MemStore>, at: u64) -> Arc<Swapping> {
        let (is_old, left) = (AtomicBool::new(false), AtomicU64::new(at));
        Arc::new(Swapping { new: new.clone(), old: old.clone(), is_old, left })
    }

    /// Whatever is deleted: the test says when.
    pub(crate) fn never(new: &Arc<MemStore>, old: &Arc<MemStore>) -> Arc<Swapping> {
        Swapping::at(new, old, u64::MAX)
    }
}

#[async_trait]
impl StoreAround for Swapping {
    fn inner(&self) -> &dyn RawStore {
        if self.is_old.load(Ordering::Relaxed) { &*self.old } else { &*self.new }
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        // On its way, beside others.
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.is_old.store(true, Ordering::Relaxed);
        }
        self.inner().delete(key).await
    }
}

pub(crate) async fn copy(of: &MemStore) -> Arc<MemStore> {
    let copy = Arc::new(MemStore::new());
    for name in of.names() {
        copy.put_if_absent(&name, of.peek(&name).unwrap()).await.unwrap();
    }
    copy
}

/// Lets the copy take its place in front of deletion number `at`, and the maintainer go on. What the copy lost is
/// within what is on its way at once, and put back it is as it was. Tells whether there were so many deletions.
pub(crate) fn an_old_copy_loses_no_more_than_is_on_its_way(at: u64) -> bool {
    let dice = Seeded::new(3);
    let records = history(&dice, Shape { percent: 0, writers: 1, length: 200, wide: false });
    let new = Arc::new(MemStore::new());
    run(async {
        let vault = Vault::init(new.clone(), VaultKeys::new([5; 32]), &*dice).await.unwrap();
        let keep = Ladder::new(vec![Rule::Newest { count: 2, which: Which::Any }]);
        let of = MaintainerSettings { every: EVERY, keep, ..MaintainerSettings::default() };
        let mut writer =
            MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await.unwrap();
        let mut old = None;
        let mut swapping = None;
        for done in 1..=records.len().min(BEFORE + AFTER) {
            writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
            if done == BEFORE {
                let made = copy(&new).await;
                let store = Swapping::at(&new, &made, at);
                let vault = Vault::open(store.clone(), VaultKeys::new([5; 32])).await.unwrap();
                let maintainer = Maintainer::claim(&vault, MACHINE, dice.clone(), of.clone()).await.unwrap();
                // The copy is of before the claim.
                old = Some((made, copy(&new).await));
                swapping = Some((store, maintainer));
            }
            let Some((store, maintainer)) = &mut swapping else { continue };
            match rounds(maintainer, writer.slot()).await {
                Ok(()) => {}
                Err(VaultError::Damaged { .. }) if store.is_old.load(Ordering::Relaxed) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let (old, before) = old.expect("a copy was made");
        let (store, _) = swapping.expect("a maintainer runs");
        let is_met = store.is_old.load(Ordering::Relaxed);
        let lost: Vec<StoreKey> = old_names(&before).filter(|name| old.peek(name).is_none()).collect();
        assert!(lost.len() <= AT_ONCE, "GD-1: the old copy lost {} objects: {lost:?}", lost.len());
        for name in &lost {
            old.put_if_absent(name, before.peek(name).unwrap()).await.unwrap();
        }
        let vault = Vault::open(old.clone(), VaultKeys::new([5; 32])).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        assert!(reader.slot() >= BEFORE as u64, "all that the copy had is there");
        is_met
    })
}

/// What the copy had: all but the claim that was made after it.
fn old_names(before: &MemStore) -> impl Iterator<Item = StoreKey> {
    before.names().into_iter().filter(|name| !name.as_str().contains("/claim/m/"))
}

pub(crate) async fn rounds(maintainer: &mut Maintainer, durable: u64) -> Result<(), VaultError> {
    while maintainer.round(durable, Times::default()).await?.is_some() {}
    Ok(())
}
