//! Pins: an object that says that somebody uses a point, so that no maintainer gives it up.
//!
//! Invariants
//! - PI-1 A pin holds only if its point was in a catalogue read after the pin was created (or behind the
//!   newest catalogue): a maintainer that retired the point before may not have seen the pin, one that retires it
//!   later lists pins once more before the point is gone.
//! - PI-2 Every name is used once: a delete that comes late removes no newer pin.
//!
//! What is *not* here: when a pin counts as left behind, and what retired means (`redoubt_core::maintenance`).

use crate::codec::{Put, put_crc};
use crate::error::VaultError;
use crate::index::{PointOf, StoredIndex};
use crate::key_ring::KeyRing;
use crate::load::Log;
use crate::maintainer::CATALOGUES_TRIED;
use crate::names;
use crate::reader::PointId;
use crate::vault::{MAJOR, MINOR, Vault};
use bytes::Bytes;
use redoubt_core::MachineId;
use redoubt_ports::{Entropy, StoreKey};

const MAGIC: &[u8; 8] = b"DRPIN1\0\0";

/// A pin that this process made. Dropping it leaves the pin in the vault, until somebody removes it or a
/// maintainer has watched it for a day.
#[derive(Debug)]
pub struct Pin {
    vault: Vault,
    machine: MachineId,
    point: PointId,
    name: StoreKey,
    /// Replaced, to be deleted with the next renewal.
    before: Option<StoreKey>,
}

impl Vault {
    /// Pins a point of a machine. `NoPoint` if a maintainer has given it up: choose another one.
    pub async fn pin(
        &self,
        machine: MachineId,
        point: PointId,
        entropy: &dyn Entropy,
    ) -> Result<Pin, VaultError> {
        let name = create(self, machine, point, entropy).await?;
        let pin = Pin { vault: self.clone(), machine, point, name, before: None };
        if place(self, machine, point).await? == Place::Live {
            return Ok(pin);
        }
        pin.remove().await?;
        Err(VaultError::NoPoint { slot: point.slot, ordinal: point.ordinal })
    }

    /// Returns the pinned points, one entry for each pin, in order.
    pub async fn pins(&self, machine: MachineId) -> Result<Vec<PointId>, VaultError> {
        let listed = self.store.list(&names::pins(machine), None).await?;
        Ok(listed.iter().filter_map(|name| names::pin_of(name, machine)).map(|(point, _)| point).collect())
    }
}

impl Pin {
    /// Returns the point.
    pub fn point(&self) -> PointId {
        self.point
    }

    /// Makes a new pin, to be watched from the beginning, and deletes the one before this one. Repeat it
    /// after an error. `NoPoint` if the point was given up meanwhile: this process slept for too long.
    pub async fn renew(&mut self, entropy: &dyn Entropy) -> Result<(), VaultError> {
        let next = create(&self.vault, self.machine, self.point, entropy).await?;
        let before = self.before.replace(std::mem::replace(&mut self.name, next));
        if let Some(before) = before {
            self.vault.store.delete(&before).await?;
        }
        let PointId { slot, ordinal } = self.point;
        match place(&self.vault, self.machine, self.point).await? {
            Place::Gone => Err(VaultError::NoPoint { slot, ordinal }),
            Place::Live | Place::Retired => Ok(()),
        }
    }

    /// Gives the point up.
    pub async fn remove(self) -> Result<(), VaultError> {
        for name in self.before.iter().chain([&self.name]) {
            self.vault.store.delete(name).await?;
        }
        Ok(())
    }
}

async fn create(
    vault: &Vault,
    machine: MachineId,
    point: PointId,
    entropy: &dyn Entropy,
) -> Result<StoreKey, VaultError> {
    let uuid = entropy.id();
    let name = names::pin(machine, point, uuid);
    vault.store.create(&name, &Bytes::from(encode(vault.uuid, machine, point, uuid))).await?;
    Ok(name)
}

/// What the newest catalogue says of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It can be pinned; so can one behind the catalogue's slot.
    Live,
    Retired,
    Gone,
}

/// Looks for a point in the newest catalogue that can be read (PI-1).
async fn place(vault: &Vault, machine: MachineId, point: PointId) -> Result<Place, VaultError> {
    let log = Log { vault: vault.clone(), machine, keys: KeyRing::open(vault, machine).await? };
    let index = StoredIndex::new(log);
    let newest = vault.store.page(&names::catalogues(machine), None, CATALOGUES_TRIED).await?;
    for version in newest.iter().filter_map(|(name, _)| names::catalogue_version(name, machine)) {
        let Ok((catalogue, _)) = index.decoded(version).await? else { continue };
        let has = |points: &[PointOf]| points.binary_search_by_key(&point, |known| known.info.id).is_ok();
        return Ok(match () {
            () if point.slot > catalogue.slot || has(&catalogue.live) => Place::Live,
            () if has(&catalogue.retired) => Place::Retired,
            () => Place::Gone,
        });
    }
    Ok(Place::Live)
}

pub(crate) fn encode(vault: u128, machine: MachineId, point: PointId, uuid: u128) -> Vec<u8> {
    let mut object = Vec::new();
    object.put(MAGIC);
    object.put_u16(MAJOR);
    object.put_u16(MINOR);
    object.put_u32(u32::from(point.ordinal));
    object.put_u128(vault);
    object.put_u128(machine.0);
    object.put_u64(point.slot);
    object.put_u128(uuid);
    put_crc(&mut object);
    object
}
