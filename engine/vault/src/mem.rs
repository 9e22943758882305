//! A correct store in memory, for tests and for trying things out.

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects in a map; every call is atomic and "durable" at once.
#[derive(Debug, Default)]
pub struct MemStore {
    objects: Mutex<BTreeMap<StoreKey, Bytes>>,
}

impl MemStore {
    /// Makes an empty store.
    pub fn new() -> MemStore {
        MemStore::default()
    }

    /// Returns all names, sorted.
    pub fn names(&self) -> Vec<StoreKey> {
        self.lock().keys().cloned().collect()
    }

    /// Returns an object's bytes.
    pub fn peek(&self, key: &StoreKey) -> Option<Bytes> {
        self.lock().get(key).cloned()
    }

    /// Replaces an object behind the vault's back, or removes it: damage for tests.
    pub fn tamper(&self, key: &StoreKey, body: Option<Bytes>) {
        match body {
            Some(body) => self.lock().insert(key.clone(), body),
            None => self.lock().remove(key),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StoreKey, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RawStore for MemStore {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Err(StoreError::AlreadyExists);
        }
        objects.insert(key.clone(), body);
        Ok(())
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        let objects = self.lock();
        let Some(body) = objects.get(key) else { return Ok(None) };
        let Some(range) = range else { return Ok(Some(body.clone())) };
        // Like HTTP: a range is cut at the end of the object; the caller checks the length.
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(body.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        Ok(Some(body.slice(start..end)))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let objects = self.lock();
        Ok(objects
            .range((from, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit)
            .map(|(key, body)| (key.clone(), body.len() as u64))
            .collect())
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }
}
