//! Stores that break one rule each: none gets a vault, and each is told which rule it broke. A store whose content another
//! takes the place of breaks none.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{MachineWriter, MemStore, StoreRule, Vault, VaultError, VaultKeys};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use support::model::MACHINE;
use support::replaced_store::{Replaced, Story};
use support::{Seeded, run};
use tokio::time::{Instant, sleep};

/// How long a stale store lags behind.
const LAG: Duration = Duration::from_millis(30);

#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// Looks whether the name is free, and creates a moment later.
    Racy,
    StaleRead,
    StaleRange,
    StaleList,
}

struct Liar {
    inner: MemStore,
    lie: Lie,
    last_put: std::sync::Mutex<Option<Instant>>,
}

impl Liar {
    fn is_fresh(&self) -> bool {
        self.last_put.lock().unwrap().is_some_and(|at| at.elapsed() < LAG)
    }
}

#[async_trait]
impl StoreAround for Liar {
    fn inner(&self) -> &dyn RawStore {
        &self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        if self.lie == Lie::Racy && self.inner.peek(key).is_none() {
            sleep(LAG).await;
            self.inner.tamper(key, Some(body));
            return Ok(());
        }
        *self.last_put.lock().unwrap() = Some(Instant::now());
        self.inner.put_if_absent(key, body).await
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        match self.lie {
            Lie::StaleRead if self.is_fresh() => Ok(None),
            Lie::StaleRange if range.is_some() => self.inner.get(key, None).await,
            _ => self.inner.get(key, range).await,
        }
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        if self.lie == Lie::StaleList && self.is_fresh() {
            return Ok(Vec::new());
        }
        self.inner.list_after(prefix, after, limit).await
    }
}

#[test]
fn a_store_that_breaks_a_rule_is_refused_by_its_name_and_left_empty() {
    for (lie, rule, words) in [
        (Lie::Racy, StoreRule::Exclusive, "put-if-absent is exclusive: 16 of 16 racing creations"),
        (Lie::StaleRead, StoreRule::ReadAfterWrite, "a read sees every write before it: a new object is not"),
        (Lie::StaleRange, StoreRule::ReadAfterWrite, "a range of a new object does not read back"),
        (Lie::StaleList, StoreRule::ListAfterWrite, "a listing sees every write before it: 0 of 1"),
    ] {
        run(async {
            let store = Arc::new(Liar { inner: MemStore::new(), lie, last_put: None.into() });
            let keys = VaultKeys::new([7; 32]);
            let refused = Vault::init(store.clone(), keys, &*Seeded::new(1)).await.unwrap_err();
            assert!(matches!(&refused, VaultError::NotAdmitted { rule: found, .. } if *found == rule));
            assert!(refused.to_string().contains(words), "{refused}");
            assert_eq!(store.inner.names(), [], "a refused store keeps nothing of us");
        });
    }
}

#[test]
fn a_store_that_keeps_the_rules_is_admitted() {
    run(async {
        let store = Arc::new(Liar { inner: MemStore::new(), lie: Lie::None, last_put: None.into() });
        Vault::init(store.clone(), VaultKeys::new([7; 32]), &*Seeded::new(1)).await.unwrap();
        let names: Vec<String> = store.inner.names().iter().map(StoreKey::to_string).collect();
        assert_eq!(names, ["vault", "vault.twin"], "the probe's objects are removed");
    });
}

/// A copy of before the claim takes the vault's place in front of one of its requests.
#[test]
fn a_vault_that_is_another_while_its_store_is_tried_is_told_as_that() {
    let keys = || VaultKeys::new([7; 32]);
    let mut told = 0;
    for back in 2..60 {
        let outcome = run(async {
            let (new, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
            Vault::init(new.clone(), keys(), &*dice).await.unwrap();
            let story = Story { copied: 1, back, refused: 0, is_doubtful: false };
            let store = Replaced::new(&new, story, "none");
            let vault = Vault::open(store.clone(), keys()).await.unwrap();
            store.begin();
            MachineWriter::claim(&vault, MACHINE, dice).await.map(drop)
        });
        match outcome {
            Err(VaultError::NotAdmitted { .. }) => panic!("in front of request {back}: {outcome:?}"),
            Err(VaultError::WentAway { object }) => {
                assert!(object.starts_with("probe/"), "{object}");
                told += 1;
            }
            // In front of the probe's first object, or behind the probe.
            _ => {}
        }
    }
    assert!(told > 10, "only {told} were told");
}
