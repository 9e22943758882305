//! The few small objects that everything else hangs on are stored twice: the vault object and the wrapped data keys.
//!
//! Without one of them terabytes that are whole cannot be opened, and nobody can make it again.
//!
//! Invariants
//! - TX-1 An object and its twin hold the same bytes, or one of them is damaged or missing: the twin is put by who has
//!   the object's own bytes, never made anew.
//! - TX-2 Who is about to build on the object puts both again first; a damaged one is replaced by the bytes of the whole one.
//!   The other one is whole and durable all the while.
//! - TX-3 Damage that a twin made up for is told (`Vault::mended`): the next one may take everything.
//!
//! What is *not* here: what the objects hold (`vault`, `keys`).

use crate::codec::Malformed;
use crate::error::{StoreFailure, VaultError};
use crate::names;
use crate::store::{Created, Store};
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreKey;
use std::sync::{Arc, Mutex, PoisonError};

/// Damage that is remembered: of the vault object, and of keys that are used.
const MENDED_MAX: usize = 64;

/// What was damaged and could be read from its twin. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Mended(Arc<Mutex<Vec<VaultError>>>);

impl Mended {
    pub(crate) fn add(&self, damage: VaultError) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MENDED_MAX && !all.contains(&damage) {
            all.push(damage);
        }
    }

    pub(crate) fn all(&self) -> Vec<VaultError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Store {
    /// Creates an object and its twin, or finds out who created it. If it is ours, both are durable.
    pub(crate) async fn create_twice(&self, name: &StoreKey, body: &Bytes) -> Result<Created, StoreFailure> {
        let created = self.create(name, body).await?;
        if created == Created::Mine && !planted::active(Bug::KeysStoredOnce) {
            // If something else is there it is damaged: who uses the object next replaces it (TX-2).
            self.create(&names::twin(name), body).await?;
        }
        Ok(created)
    }

    /// Reads an object by `decode`, from its twin if it is damaged or missing, which goes to `mended`. `None`: there
    /// is neither. Costs a second request only then.
    pub(crate) async fn read_twice<T>(
        &self,
        name: &StoreKey,
        mended: &Mended,
        decode: impl Fn(&Bytes) -> Result<T, VaultError>,
    ) -> Result<Option<(T, Bytes)>, VaultError> {
        let damage = match self.get(name, None).await? {
            Some(object) => match decode(&object) {
                Ok(value) => return Ok(Some((value, object))),
                // Whole, and of a format that we must not guess at.
                Err(error) if !matches!(error, VaultError::Damaged { .. }) => return Err(error),
                Err(error) => Some(error),
            },
            None => None,
        };
        let twin = self.get(&names::twin(name), None).await?;
        if let Some((value, object)) = twin.and_then(|object| Some((decode(&object).ok()?, object))) {
            mended.add(damage.unwrap_or_else(|| missing(name)));
            return Ok(Some((value, object)));
        }
        damage.map_or(Ok(None), Err)
    }

    /// Makes an object and its twin durable that were read as `body` from one of them (TX-2). Another whole
    /// object under one of the names is `Damaged`: somebody tampered with the vault.
    pub(crate) async fn vouch_twice(
        &self,
        name: &StoreKey,
        body: &Bytes,
        check: impl Fn(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), VaultError> {
        if planted::active(Bug::KeysStoredOnce) {
            return Ok(());
        }
        let mut damaged = Vec::new();
        for name in [name.clone(), names::twin(name)] {
            let Created::Other(found) = self.create(&name, body).await? else { continue };
            if check(&found).is_ok() {
                return Err(VaultError::damaged(name, "it changed since it was read"));
            }
            damaged.push(name);
        }
        // Only now: the whole one was put again, so it is durable while the other one is away.
        for name in damaged {
            self.delete(&name).await?;
            if let Created::Other(_) = self.create(&name, body).await? {
                return Err(VaultError::damaged(name, "it is damaged and cannot be replaced"));
            }
        }
        Ok(())
    }
}

/// What is told of an object whose twin is there.
pub(crate) fn missing(name: &StoreKey) -> VaultError {
    VaultError::damaged(name, "it is missing; its twin is whole")
}
