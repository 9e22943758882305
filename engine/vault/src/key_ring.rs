//! The data keys of one machine, by number: each object names the one it was sealed with.
//!
//! Invariants
//! - KR-1 A key is loaded when the first object that names it is met, so that a damaged key costs only what
//!   was sealed with it.
//! - KR-2 A number that is not there is damage that names the key's object, never an empty content.
//!
//! What is *not* here: which key a writer seals with (`sealing`), how keys are wrapped (`keys`).

use crate::error::{ReadError, VaultError};
use crate::vault::Vault;
use redoubt_core::MachineId;
use redoubt_wire::aead::Key;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A data key with its number.
#[derive(Clone, Debug)]
pub(crate) struct DataKey {
    pub(crate) id: u32,
    pub(crate) key: Key,
}

/// Cheap to clone; clones share what was loaded. One entry for each rotation that is still read.
#[derive(Clone)]
pub(crate) struct KeyRing {
    vault: Vault,
    machine: MachineId,
    known: Arc<Mutex<BTreeMap<u32, Key>>>,
}

impl KeyRing {
    /// Makes an empty ring.
    pub(crate) fn new(vault: &Vault, machine: MachineId) -> KeyRing {
        KeyRing { vault: vault.clone(), machine, known: Arc::default() }
    }

    /// Opens the ring of a machine; `UnknownMachine` if it has no keys at all.
    pub(crate) async fn open(vault: &Vault, machine: MachineId) -> Result<KeyRing, VaultError> {
        if vault.list_data_keys(machine).await?.is_empty() {
            return Err(VaultError::UnknownMachine(machine));
        }
        Ok(KeyRing::new(vault, machine))
    }

    /// Adds a key that was loaded or made elsewhere.
    pub(crate) fn learn(&self, key: &DataKey) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key.id, key.key.clone());
    }

    /// Forgets all: under the same numbers another life of the vault has other keys.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the key of that number.
    pub(crate) async fn get(&self, id: u32) -> Result<Key, VaultError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let key = self.vault.data_key(self.machine, id).await?;
        self.learn(&DataKey { id, key: key.clone() });
        Ok(key)
    }

    /// As [`KeyRing::get`], for reads of content.
    pub(crate) async fn for_read(&self, id: u32) -> Result<Key, ReadError> {
        self.get(id).await.map_err(|error| match error {
            VaultError::Store(failure) => ReadError::Store(failure),
            VaultError::Damaged { object, what } => ReadError::Damaged { object, from: 0, to: 0, what },
            other => {
                let (object, what) = (format!("data key {id}"), other.to_string());
                ReadError::Damaged { object, from: 0, to: 0, what }
            }
        })
    }
}
