//! Which data key new objects are sealed with.
//!
//! Invariants
//! - SK-1 A commit is sealed with one data key, segments and record, whatever happens meanwhile.
//!
//! What is *not* here: opening (`key_ring`).

use crate::key_ring::DataKey;
use std::sync::{Arc, Mutex, PoisonError};

/// The data key of a writer and of all that prepares for it; clones share it.
#[derive(Clone)]
pub(crate) struct SealingKey(Arc<Mutex<DataKey>>);

impl SealingKey {
    pub(crate) fn new(key: DataKey) -> SealingKey {
        SealingKey(Arc::new(Mutex::new(key)))
    }

    /// Returns the key for what begins now.
    pub(crate) fn now(&self) -> DataKey {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
