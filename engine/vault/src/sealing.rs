//! Which data key new objects are sealed with, and how a machine gets a new one.
//!
//! Invariants
//! - SK-1 A commit is sealed with one data key, segments and record, whatever happens meanwhile.
//! - SK-2 A data key is used only after it is durable and, behind that, no newer vault key was announced, or the
//!   newest has its copy: so a re-wrap never misses a key in use (VK-3).
//! - SK-3 A new data key takes a number that no object of the machine has: a number says for ever which key it is.
//!
//! What is *not* here: opening (`key_ring`), wrapping under another vault key (`rewrap`).

use crate::error::VaultError;
use crate::key_ring::DataKey;
use crate::keys::{WrapId, wrapped_by};
use crate::names;
use crate::store::Created;
use crate::twice;
use crate::vault::Vault;
use bytes::Bytes;
use redoubt_core::MachineId;
use redoubt_ports::{Entropy, StoreKey};
use redoubt_wire::aead::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of a machine's first data key.
pub(crate) const FIRST_DATA_KEY: u32 = 1;
/// Numbers tried before giving up in a race of holders of different vault keys.
const NUMBER_TRIES: u32 = 32;

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

    /// Takes another key for what begins from now on.
    pub(crate) fn set(&self, key: DataKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

/// The objects that hold one data key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wraps {
    /// The one its maker put.
    pub(crate) original: bool,
    /// Copies, by the number of the vault key.
    pub(crate) copies: BTreeSet<u32>,
}

/// A data key of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyInfo {
    /// Its number; new objects are sealed with the largest.
    pub id: u32,
    /// Vault keys that it is wrapped by, sorted.
    pub wrapped_by: Vec<u32>,
    /// What is wrong with it, if it does not open with the vault key in use.
    pub trouble: Option<String>,
}

/// A data key as it was found.
pub(crate) struct Opened {
    pub(crate) key: DataKey,
    name: StoreKey,
    object: Bytes,
}

impl Vault {
    /// Lists a machine's data keys.
    pub(crate) async fn list_data_keys(
        &self,
        machine: MachineId,
    ) -> Result<BTreeMap<u32, Wraps>, VaultError> {
        let mut found: BTreeMap<u32, Wraps> = BTreeMap::new();
        for name in self.store.list(&names::data_keys(machine), None).await? {
            let (id, by) = names::data_key_of(&name, machine)
                .ok_or_else(|| VaultError::damaged(name, "no data key has this name"))?;
            let wraps = found.entry(id).or_default();
            match by {
                Some(by) => _ = wraps.copies.insert(by),
                None => wraps.original = true,
            }
        }
        Ok(found)
    }

    /// Shows a machine's data keys, each with whether it opens.
    pub async fn data_keys(&self, machine: MachineId) -> Result<Vec<DataKeyInfo>, VaultError> {
        let mut keys = Vec::new();
        for (id, wraps) in self.list_data_keys(machine).await? {
            let mut by = wraps.copies;
            if wraps.original {
                let object = self.store.get(&names::data_key(machine, id), None).await?;
                by.extend(object.and_then(|object| wrapped_by(&object).ok()));
            }
            let trouble = match self.open_data_key(machine, id).await {
                Ok(_) => None,
                Err(VaultError::Store(failure)) => return Err(failure.into()),
                Err(error) => Some(error.to_string()),
            };
            keys.push(DataKeyInfo { id, wrapped_by: by.into_iter().collect(), trouble });
        }
        Ok(keys)
    }

    /// Loads a data key of the machine.
    pub(crate) async fn data_key(&self, machine: MachineId, id: u32) -> Result<Key, VaultError> {
        Ok(self.open_data_key(machine, id).await?.key.key)
    }

    /// Loads a data key from its original or from our copy, whichever opens, or from the twin of either. Twins come last:
    /// once older vault keys are retired there is no original, and an opening must not ask for its twin before the copy.
    pub(crate) async fn open_data_key(&self, machine: MachineId, id: u32) -> Result<Opened, VaultError> {
        let mut damage = None;
        let mut others = BTreeSet::new();
        for name in names::wraps(machine, id, self.number) {
            let Some(object) = self.store.get(&name, None).await? else { continue };
            let wrap = WrapId { vault: self.uuid, machine, dek: id, by: self.number };
            match wrapped_by(&object) {
                Ok(by) if by != self.number => _ = others.insert(by),
                _ => match self.keys.unwrap(&wrap, &object) {
                    Ok(key) => {
                        let missing = || twice::missing(&names::other_twin(&name));
                        let damage = damage.or_else(|| names::is_twin(&name).then(missing));
                        damage.into_iter().for_each(|damage| self.mended.add(damage));
                        return Ok(Opened { key: DataKey { id, key }, name, object });
                    }
                    Err(what) => damage = damage.or(Some(VaultError::damaged(name, what))),
                },
            }
        }
        if let Some(damage) = damage {
            return Err(damage);
        }
        let listed = self.list_data_keys(machine).await?.remove(&id).unwrap_or_default();
        others.extend(listed.copies);
        match others.into_iter().next_back() {
            Some(by) if by < self.number => Err(VaultError::KeyOutdated { machine, id, by }),
            Some(newest) => {
                let what = format!("data key {id} of machine {machine} is not wrapped by it");
                Err(VaultError::KeyReplaced { number: self.number, newest, what })
            }
            None => {
                let what = format!("data key {id} is missing, so what is sealed with it cannot be opened");
                Err(VaultError::damaged(names::data_key(machine, id), what))
            }
        }
    }

    /// Returns the data key for new objects, making the machine's first if it has none; of racing makers one
    /// wins and all use its key. It is durable on return.
    pub(crate) async fn key_to_seal_with(
        &self,
        machine: MachineId,
        entropy: &dyn Entropy,
    ) -> Result<DataKey, VaultError> {
        let mut listed = self.list_data_keys(machine).await?;
        if listed.is_empty() {
            let id = self.create_data_key(machine, FIRST_DATA_KEY, entropy).await?;
            listed.insert(id, Wraps { original: true, ..Wraps::default() });
        }
        let last = listed.keys().next_back().copied().unwrap_or(FIRST_DATA_KEY);
        if let Some(key) = self.fit(machine, listed.into_keys().rev()).await? {
            return Ok(key);
        }
        // All there are were made by holders of older vault keys while those were replaced.
        let id = self.create_data_key(machine, last + 1, entropy).await?;
        self.fit(machine, std::iter::once(id)).await?.ok_or(VaultError::ClaimRace)
    }

    /// Makes a new data key for what is sealed from now on, or finds that another rotator just did.
    pub(crate) async fn next_data_key(
        &self,
        machine: MachineId,
        entropy: &dyn Entropy,
    ) -> Result<DataKey, VaultError> {
        self.must_be_newest("a new data key").await?;
        let newest = self.list_data_keys(machine).await?.into_keys().next_back();
        let newest = newest.ok_or(VaultError::UnknownMachine(machine))?;
        let id = self.create_data_key(machine, newest + 1, entropy).await?;
        self.fit(machine, std::iter::once(id)).await?.ok_or(VaultError::ClaimRace)
    }

    /// Gives the machine a new data key for what is sealed from now on; returns its number. A running writer goes
    /// over to it within some commits. What was sealed before stays as it is.
    pub async fn rotate(&self, machine: MachineId, entropy: &dyn Entropy) -> Result<u32, VaultError> {
        Ok(self.next_data_key(machine, entropy).await?.id)
    }

    /// Returns a data key newer than `id` that is fit for use, if there is one.
    pub(crate) async fn newer_key_to_seal_with(
        &self,
        machine: MachineId,
        id: u32,
    ) -> Result<Option<DataKey>, VaultError> {
        let (prefix, after) = (names::data_keys(machine), names::after_data_key(machine, id));
        let names = self.store.list(&prefix, Some(&after)).await?;
        let newer: BTreeSet<u32> =
            names.iter().filter_map(|name| Some(names::data_key_of(name, machine)?.0)).collect();
        if newer.is_empty() {
            return Ok(None);
        }
        self.fit(machine, newer.into_iter().rev()).await
    }

    /// Puts a fresh key under the first free number from `id` on; returns it.
    async fn create_data_key(
        &self,
        machine: MachineId,
        id: u32,
        entropy: &dyn Entropy,
    ) -> Result<u32, VaultError> {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let key = Key::new(bytes);
        for id in (id..).take(NUMBER_TRIES as usize) {
            let wrap = WrapId { vault: self.uuid, machine, dek: id, by: self.number };
            let object = Bytes::from(self.keys.wrap(&wrap, entropy.id(), &key));
            match self.store.create_twice(&names::data_key(machine, id), &object).await? {
                Created::Mine => return Ok(id),
                // Another holder of our vault key was first: one new key is enough.
                Created::Other(found) if wrapped_by(&found).is_ok_and(|by| by == self.number) => {
                    return Ok(id);
                }
                // Left by a holder of another vault key.
                Created::Other(_) => {}
            }
        }
        Err(VaultError::ClaimRace)
    }

    /// Returns the first of these data keys that may be used (SK-2). `None`: only older vault keys open them, so
    /// none was ever used.
    async fn fit(
        &self,
        machine: MachineId,
        ids: impl Iterator<Item = u32>,
    ) -> Result<Option<DataKey>, VaultError> {
        let mut newest = None;
        for id in ids {
            let opened = match self.open_data_key(machine, id).await {
                // Ours is in force, so that one was never used.
                Err(VaultError::KeyOutdated { .. }) => continue,
                opened => opened?,
            };
            // Put even if found: VT-3.
            let name = StoreKey::new(names::without_twin(opened.name.as_str()));
            self.store.vouch_twice(&name, &opened.object, |found| wrapped_by(found).map(drop)).await?;
            newest = self.newer_vault_key().await?;
            let Some(by) = newest else { return Ok(Some(opened.key)) };
            if self.store.get(&names::data_key_copy(machine, id, by), None).await?.is_some() {
                return Ok(Some(opened.key));
            }
        }
        let Some(newest) = newest else { return Ok(None) };
        let what = format!("no data key of machine {machine} is wrapped by both");
        Err(VaultError::KeyReplaced { number: self.number, newest, what })
    }

    /// Refuses what only the newest vault key may do.
    pub(crate) async fn must_be_newest(&self, what: &str) -> Result<(), VaultError> {
        match self.newer_vault_key().await? {
            None => Ok(()),
            Some(newest) => {
                let what = format!("{what} needs the newest");
                Err(VaultError::KeyReplaced { number: self.number, newest, what })
            }
        }
    }
}
