//! The store of a vault that a service used before and that is not there now: a share that is not mounted, a server
//! that does not answer. It becomes the store itself as soon as it can be opened and holds a vault; before that every
//! request fails as in an outage, and nothing is ever made in it: an empty mount point must not become a vault.
//!
//! What is *not* here: who tries again and when (the process server and `redoubt-vault`).

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_host::{StoreOpenError, StoreSettings};
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

/// The object that every vault has.
pub(super) const VAULT: &str = "vault";

type Opened = Result<Arc<dyn RawStore>, StoreOpenError>;

/// See the module.
pub(crate) struct LateStore {
    settings: StoreSettings,
    store: OnceCell<Arc<dyn RawStore>>,
    /// One attempt at a time: a directory that hangs holds up one thread and none of its callers.
    opening: Mutex<Option<JoinHandle<Opened>>>,
}

impl LateStore {
    pub(crate) fn new(settings: StoreSettings) -> LateStore {
        LateStore { settings, store: OnceCell::new(), opening: Mutex::new(None) }
    }

    async fn store(&self) -> Result<&Arc<dyn RawStore>, StoreError> {
        self.store.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Arc<dyn RawStore>, StoreError> {
        let away = |why: String| StoreError::Unavailable(format!("vault {}: {why}", self.settings.url));
        let mut opening = self.opening.lock().await;
        let attempt = opening.get_or_insert_with(|| {
            let settings = self.settings.clone();
            tokio::task::spawn_blocking(move || redoubt_host::store::open(&settings))
        });
        let opened = attempt.await;
        *opening = None;
        let store =
            opened.map_err(|error| away(error.to_string()))?.map_err(|error| away(error.to_string()))?;
        match store.get(&StoreKey::new(VAULT), Some(0..1)).await? {
            Some(_) => Ok(store),
            None => Err(away("it is empty; is it mounted?".to_owned())),
        }
    }
}

#[async_trait]
impl RawStore for LateStore {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.store().await?.put_if_absent(key, body).await
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.store().await?.get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.store().await?.list_after(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.store().await?.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_host::StoreUrl;

    #[tokio::test]
    async fn it_is_away_until_there_is_a_vault_and_makes_none() {
        let place = tempfile::tempdir().unwrap();
        let (directory, key) = (place.path().join("vault"), StoreKey::new("a"));
        let late = LateStore::new(StoreSettings::new(StoreUrl::Directory(directory.clone())));
        let is_away = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Unavailable(_)));
        assert!(is_away(late.put_if_absent(&key, Bytes::new()).await), "there is no directory");
        std::fs::create_dir(&directory).unwrap();
        let empty = late.put_if_absent(&key, Bytes::new()).await.unwrap_err().to_string();
        assert!(empty.contains("is it mounted?"), "{empty}");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::write(directory.join(VAULT), "x").unwrap();
        late.put_if_absent(&key, Bytes::from_static(b"y")).await.unwrap();
        assert_eq!(late.get(&key, None).await.unwrap(), Some(Bytes::from_static(b"y")));
    }
}
