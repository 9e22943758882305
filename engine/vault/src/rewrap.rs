//! Another vault key for the whole vault, without touching data: copies of the data keys under new names.
//!
//! Each step is a creation that may be repeated, so that whoever was interrupted, or races with another who has the
//! same new key, goes on. Order, with the new key's number n + 1:
//! 1. announce n + 1: from now on no data key that its maker wrapped by n alone comes into use (SK-2),
//! 2. list all data keys and put a copy of each, wrapped by n + 1,
//! 3. put n + 1 in force: from now on it opens the vault, and everything in it,
//! 4. some day, with n + 1: delete what is wrapped by older keys (`retire`).
//!
//! Until 3 the old key opens everything, from 3 on the new one does (VK-2).

use crate::error::VaultError;
use crate::keys::{VaultKeys, WrapId, wrapped_by};
use crate::names;
use crate::store::Created;
use crate::vault::Vault;
use crate::vault_keys::{ANNOUNCED, IN_FORCE, encode};
use bytes::Bytes;
use redoubt_core::MachineId;
use redoubt_ports::Entropy;

/// What a re-wrap did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// The new vault key's number.
    pub number: u32,
    /// Data keys that it opens now.
    pub copies: u64,
    /// Data keys that do not open with the old vault key either: what they sealed was lost before.
    pub damaged: Vec<VaultError>,
}

/// What was taken from older vault keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Wraps of data keys deleted, each with its twin.
    pub deleted: u64,
    /// Data keys that were left to older vault keys, because they do not open with the newest.
    pub kept: Vec<VaultError>,
}

impl Vault {
    /// Wraps every data key by a new vault key as well and puts that in force. The vault must be open with its
    /// newest key. May be repeated after an error, a crash, or success.
    pub async fn rewrap(&self, new: &VaultKeys, entropy: &dyn Entropy) -> Result<Rewrapped, VaultError> {
        let number = self.number + 1;
        if let Some(known) = self.number_of(new).await?.filter(|known| *known != number) {
            return Err(VaultError::KeyUsedBefore(known));
        }
        let check = new.check(self.uuid);
        let announcement = encode(ANNOUNCED, number, self.uuid, check);
        if let Created::Other(_) = self.store.create(&names::vault_key(number), &announcement).await? {
            return Err(match self.is_in_force(number).await? {
                true => {
                    let what = "a re-wrap needs the newest".to_owned();
                    VaultError::KeyReplaced { number: self.number, newest: number, what }
                }
                false => VaultError::RewrapUnderWay(number),
            });
        }
        let mut done = Rewrapped { number, copies: 0, damaged: Vec::new() };
        for machine in self.list_machines().await? {
            for id in self.list_data_keys(machine).await?.into_keys() {
                self.copy(machine, id, new, entropy, &mut done).await?;
            }
        }
        let in_force = encode(IN_FORCE, number, self.uuid, check);
        let name = names::vault_key_in_force(number);
        match self.store.create(&name, &in_force).await? {
            Created::Mine => Ok(done),
            Created::Other(_) => Err(VaultError::damaged(name, "it is of another key")),
        }
    }

    async fn copy(
        &self,
        machine: MachineId,
        id: u32,
        new: &VaultKeys,
        entropy: &dyn Entropy,
        done: &mut Rewrapped,
    ) -> Result<(), VaultError> {
        let key = match self.open_data_key(machine, id).await {
            Ok(opened) => opened.key.key,
            // Made since by a holder of a newer key, or never used.
            Err(VaultError::KeyReplaced { .. } | VaultError::KeyOutdated { .. }) => return Ok(()),
            Err(damage @ VaultError::Damaged { .. }) => {
                done.damaged.push(damage);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let wrap = WrapId { vault: self.uuid, machine, dek: id, by: done.number };
        let name = names::data_key_copy(machine, id, done.number);
        let object = Bytes::from(new.wrap(&wrap, entropy.id(), &key));
        if let Created::Other(found) = self.store.create_twice(&name, &object).await? {
            // Put by another attempt: as good, if it is the same key.
            let same = new.unwrap(&wrap, &found).is_ok_and(|found| found.expose() == key.expose());
            if !same {
                return Err(VaultError::damaged(name, "the copy does not hold the data key"));
            }
            // Whoever put it may have died before its twin.
            self.store.vouch_twice(&name, &found, |found| wrapped_by(found).map(drop)).await?;
        }
        done.copies += 1;
        Ok(())
    }

    /// Deletes what is wrapped by older vault keys, wherever the newest opens a copy: from then on only the newest
    /// opens the machines' data. The vault must be open with its newest key.
    pub async fn retire(&self) -> Result<Retired, VaultError> {
        self.must_be_newest("retiring older vault keys").await?;
        let mut done = Retired { deleted: 0, kept: Vec::new() };
        for machine in self.list_machines().await? {
            for (id, wraps) in self.list_data_keys(machine).await? {
                match self.open_data_key(machine, id).await {
                    Ok(_) => {}
                    Err(VaultError::Store(failure)) => return Err(failure.into()),
                    Err(error) => {
                        done.kept.push(error);
                        continue;
                    }
                }
                let copies = wraps.copies.range(..self.number);
                let mut names: Vec<_> = copies.map(|by| names::data_key_copy(machine, id, *by)).collect();
                let original = names::data_key(machine, id);
                // Of a damaged pair nobody knows by which key it was wrapped: it opens nothing, and stays.
                let by =
                    |object: &Bytes| wrapped_by(object).map_err(|what| VaultError::damaged(&original, what));
                match self.store.read_twice(&original, &self.mended, by).await {
                    Ok(Some((by, _))) if by < self.number => names.push(original),
                    Err(VaultError::Store(failure)) => return Err(failure.into()),
                    _ => {}
                }
                for name in names {
                    self.store.delete(&names::twin(&name)).await?;
                    self.store.delete(&name).await?;
                    done.deleted += 1;
                }
            }
        }
        Ok(done)
    }
}
