//! A store of a process that dies after so many effects, or stands still in front of its deletes.
//!
//! Used by tests of this crate from within and from without: it names nothing of it.

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// Refuses every effect after so many, and everything from then on: the process is dead. Deletes wait for a
/// permit of the gate.
pub(crate) struct Mortal {
    inner: Arc<dyn RawStore>,
    effects: AtomicU64,
    gate: Option<Arc<Semaphore>>,
}

impl Mortal {
    pub(crate) fn new<S: RawStore + 'static>(inner: &Arc<S>, effects: u64) -> Arc<Mortal> {
        Arc::new(Mortal { inner: inner.clone(), effects: AtomicU64::new(effects), gate: None })
    }

    /// One that never dies.
    pub(crate) fn gated<S: RawStore + 'static>(inner: &Arc<S>, gate: &Arc<Semaphore>) -> Arc<Mortal> {
        let effects = AtomicU64::new(u64::MAX);
        Arc::new(Mortal { inner: inner.clone(), effects, gate: Some(gate.clone()) })
    }

    fn effect(&self) -> Result<(), StoreError> {
        let one_less = |left: u64| left.checked_sub(1);
        let left = self.effects.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        left.map(drop).map_err(|_| StoreError::Denied("dead".to_owned()))
    }
}

#[async_trait]
impl StoreAround for Mortal {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.effect()?;
        self.inner.put_if_absent(key, body).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.effect()?;
        self.inner.delete(key).await
    }
}
