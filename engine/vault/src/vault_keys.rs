//! The vault's keys by number: the first is checked by the vault object, each later one by two objects.
//!
//! Invariants
//! - VK-1 Numbers are dense and names are used once, so a number says for ever which key it is.
//! - VK-2 A later key opens the vault only once it is in force: then it opens every data key in use. Until then the
//!   key before does. So at any moment one of the two opens everything.
//! - VK-3 Whoever made a data key looks for a newer announced vault key before using it (`sealing`), and whoever
//!   re-wraps announces before it lists: a data key in use is in that listing or is not used.
//!
//! What is *not* here: re-wrapping itself (`rewrap`), where keys are kept.

use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::error::{StoreFailure, VaultError};
use crate::keys::VaultKeys;
use crate::names;
use crate::store::Store;
use crate::vault::Vault;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Number of the key that a vault is made with.
pub(crate) const FIRST: u32 = 1;
pub(crate) const ANNOUNCED: &[u8; 8] = b"DRVKEY1\0";
pub(crate) const IN_FORCE: &[u8; 8] = b"DRVKOK1\0";

/// A key of the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultKeyInfo {
    /// Its number; a larger one is newer.
    pub number: u32,
    /// Whether it opens the vault, or is only announced.
    pub is_in_force: bool,
    /// Whether the vault was opened with it.
    pub is_ours: bool,
}

/// A function of the key alone, so that whoever repeats it puts the same bytes.
pub(crate) fn encode(magic: &[u8; 8], number: u32, vault: u128, check: [u8; 16]) -> Bytes {
    let mut object = Vec::with_capacity(52);
    object.put(magic);
    object.put_u16(crate::vault::MAJOR);
    object.put_u16(crate::vault::MINOR);
    object.put_u32(number);
    object.put_u128(vault);
    object.put(&check);
    put_crc(&mut object);
    object.into()
}

/// Returns the key check in an object of either kind.
fn decode(object: &[u8], number: u32, vault: u128) -> Result<[u8; 16], Malformed> {
    let mut take = Take::new(checked_crc(object)?);
    let magic: [u8; 8] = take.array()?;
    if magic != *ANNOUNCED && magic != *IN_FORCE || take.u16()? != crate::vault::MAJOR {
        return Err(Malformed("not a vault key of this format"));
    }
    take.u16()?;
    if take.u32()? != number || take.u128()? != vault {
        return Err(Malformed("the vault key belongs elsewhere"));
    }
    let check = take.array()?;
    take.finish()?;
    Ok(check)
}

/// Returns the later keys with what is there of each: announced, in force.
async fn list(store: &Store, newer_than: u32) -> Result<BTreeMap<u32, (bool, bool)>, VaultError> {
    let mut found: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for key in store.list(names::VAULT_KEYS, None).await? {
        let (number, is_in_force) = names::vault_key_of(&key)
            .ok_or_else(|| VaultError::damaged(key, "no vault key has this name"))?;
        let entry = found.entry(number).or_default();
        if is_in_force { entry.1 = true } else { entry.0 = true }
    }
    found.retain(|number, _| *number > newer_than);
    Ok(found)
}

/// Finds the number that a key check has, in force or not.
async fn find(store: &Store, vault: u128, check: [u8; 16]) -> Result<Option<(u32, bool)>, VaultError> {
    let mut damage = None;
    for (number, (_, is_in_force)) in list(store, FIRST).await? {
        // Either object tells: one of them may be damaged.
        for name in [names::vault_key(number), names::vault_key_in_force(number)] {
            let Some(object) = store.get(&name, None).await? else { continue };
            match decode(&object, number, vault) {
                Ok(found) if found == check => return Ok(Some((number, is_in_force))),
                Ok(_) => break,
                Err(what) => damage = Some(VaultError::damaged(name, what)),
            }
        }
    }
    damage.map_or(Ok(None), Err)
}

/// Finds out which key of the vault this is.
pub(crate) async fn number_of(
    store: &Store,
    vault: u128,
    first: [u8; 16],
    keys: &VaultKeys,
) -> Result<u32, VaultError> {
    let check = keys.check(vault);
    if check == first {
        return Ok(FIRST);
    }
    match find(store, vault, check).await? {
        Some((number, true)) => Ok(number),
        Some((number, false)) => Err(VaultError::KeyNotInForce(number)),
        None => Err(VaultError::WrongKey),
    }
}

impl Vault {
    /// Returns the vault's keys, oldest first, as far as they were announced.
    pub async fn vault_keys(&self) -> Result<Vec<VaultKeyInfo>, VaultError> {
        let later = list(&self.store, FIRST).await?;
        let first = VaultKeyInfo { number: FIRST, is_in_force: true, is_ours: self.number == FIRST };
        let later = later.into_iter().map(|(number, (_, is_in_force))| VaultKeyInfo {
            number,
            is_in_force,
            is_ours: number == self.number,
        });
        Ok(std::iter::once(first).chain(later).collect())
    }

    /// Returns the newest vault key that is announced, if it is newer than ours.
    pub(crate) async fn newer_vault_key(&self) -> Result<Option<u32>, VaultError> {
        Ok(list(&self.store, self.number).await?.into_keys().next_back())
    }

    /// Finds the number under which the vault knows another key.
    pub(crate) async fn number_of(&self, other: &VaultKeys) -> Result<Option<u32>, VaultError> {
        let check = other.check(self.uuid);
        if check == self.keys.check(self.uuid) {
            return Ok(Some(self.number));
        }
        if let Some(((_, first), _)) = crate::vault::read(&self.store, &self.mended).await?
            && first == check
        {
            return Ok(Some(FIRST));
        }
        Ok(find(&self.store, self.uuid, check).await?.map(|(number, _)| number))
    }

    /// Tells whether a vault key is in force.
    pub(crate) async fn is_in_force(&self, number: u32) -> Result<bool, StoreFailure> {
        Ok(number == FIRST || self.store.get(&names::vault_key_in_force(number), None).await?.is_some())
    }
}
