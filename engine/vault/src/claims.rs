//! Claims: dense numbers, each created once; the newest writer owns the log, the newest maintainer the rest.
//!
//! Invariants
//! - CL-1 Existence decides, never content: a damaged claim still fences older writers.
//! - CL-2 What a claim or the opening of a log costs does not grow with the claims ever made: only those
//!   from the log's, or the catalogue's, own epoch on are looked at.
//! - CL-3 A claim found lost is made again before the next one, so that whoever it fenced stays fenced.

use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::error::{StoreFailure, VaultError};
use crate::names::{self, Role};
use crate::store::{Created, Seen};
use crate::vault::Vault;
use bytes::Bytes;
use redoubt_core::MachineId;
use redoubt_core::planted::{self, Bug};
use std::collections::BTreeSet;
use tokio::sync::watch;

/// Claim numbers tried before giving up in a race.
const CLAIM_TRIES: u32 = 32;
const MAGIC: &[u8; 8] = b"DRCLAIM1";

/// A claim, to be looked at while its holder is busy.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) vault: Vault,
    pub(crate) machine: MachineId,
    pub(crate) role: Role,
    pub(crate) epoch: u64,
    /// The claim itself.
    pub(crate) seen: Seen,
}

impl Claim {
    /// Returns the number of a newer claim, if there is one. One request. After an error nothing is known.
    pub(crate) async fn newer(&self) -> Result<Option<u64>, StoreFailure> {
        if self.role == Role::Writer && planted::active(Bug::SkipClaimCheck) {
            return Ok(None);
        }
        let next = self.epoch + 1;
        // CL-1: claims are dense, so the next one says it all.
        let found = self.vault.store.get(&names::claim(self.machine, self.role, next), None).await?;
        Ok(found.map(|_| next))
    }
}

/// A writer's claim, with what the writer knows to be durable.
#[derive(Clone)]
pub struct ClaimWatch {
    pub(crate) claim: Claim,
    pub(crate) durable: watch::Receiver<u64>,
}

impl ClaimWatch {
    /// Returns the newest slot that the writer knows to be durable, once it is newer than `seen`. Waits for
    /// ever when the writer is gone.
    pub async fn durable_after(&mut self, seen: u64) -> u64 {
        let newer = self.durable.wait_for(|slot| *slot > seen).await.map(|slot| *slot);
        match newer {
            Ok(slot) => slot,
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns the number of a newer claim, if there is one: then the writer can commit nothing more.
    /// One request. After an error nothing is known.
    pub async fn newer(&self) -> Result<Option<u64>, StoreFailure> {
        self.claim.newer().await
    }
}

impl std::fmt::Debug for ClaimWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClaimWatch({}, epoch {})", self.claim.machine, self.claim.epoch)
    }
}

/// Creates the next claim; numbers stay dense because one is left only when it is proven taken. Epoch
/// `used` is in log or catalogue (0: none), so all claims up to it were made.
pub(crate) async fn take_claim(
    vault: &Vault,
    machine: MachineId,
    role: Role,
    holder: u128,
    used: u64,
) -> Result<Claim, VaultError> {
    let mut present = BTreeSet::new();
    if used > 0 && vault.store.get(&names::claim(machine, role, used), None).await?.is_some() {
        present.insert(used);
    }
    let prefix = names::claims(machine, role);
    let after = (used > 0).then(|| names::claim(machine, role, used));
    for key in vault.store.list(&prefix, after.as_ref()).await? {
        let number = names::number(&key, &prefix, 8);
        present.insert(number.ok_or_else(|| VaultError::damaged(key, "no claim has this name"))?);
    }
    let body = |epoch| Bytes::from(encode(vault.uuid, machine, epoch, holder));
    let claim = async |epoch| vault.store.create(&names::claim(machine, role, epoch), &body(epoch)).await;
    let newest = present.last().copied().unwrap_or(0).max(used);
    for lost in (used.max(1)..newest + 1).filter(|epoch| !present.contains(epoch)) {
        // CL-3: whoever wins the name, it exists.
        claim(lost).await?;
    }
    for epoch in (newest + 1..).take(CLAIM_TRIES as usize) {
        if claim(epoch).await? == Created::Mine {
            let seen = vault.store.seen(names::claim(machine, role, epoch), &body(epoch));
            return Ok(Claim { vault: vault.clone(), machine, role, epoch, seen });
        }
    }
    Err(VaultError::ClaimRace)
}

pub(crate) fn encode(vault: u128, machine: MachineId, epoch: u64, holder: u128) -> Vec<u8> {
    let mut object = Vec::new();
    object.put(MAGIC);
    object.put_u16(crate::vault::MAJOR);
    object.put_u16(crate::vault::MINOR);
    object.put_u32(0);
    object.put_u128(vault);
    object.put_u128(machine.0);
    object.put_u64(epoch);
    object.put_u128(holder);
    put_crc(&mut object);
    object
}

/// Checks a claim object against its name.
pub(crate) fn decode(bytes: &[u8], vault: u128, machine: MachineId, epoch: u64) -> Result<(), Malformed> {
    let mut take = Take::new(checked_crc(bytes)?);
    if take.array()? != *MAGIC || take.u16()? != crate::vault::MAJOR {
        return Err(Malformed("not a claim of this format"));
    }
    take.u16()?;
    take.u32()?;
    if take.u128()? != vault || take.u128()? != machine.0 || take.u64()? != epoch {
        return Err(Malformed("the claim belongs elsewhere"));
    }
    take.u128()?;
    take.finish()
}

/// Looks at the claim of the log's own epoch: what is wrong with it costs no content, so it is told and
/// stops no recovery.
pub(crate) async fn check_newest(
    vault: &Vault,
    machine: MachineId,
    epoch: u64,
) -> Result<Option<VaultError>, VaultError> {
    if epoch == 0 {
        return Ok(None);
    }
    let name = names::claim(machine, Role::Writer, epoch);
    let checked = match vault.store.get(&name, None).await? {
        Some(bytes) => decode(&bytes, vault.uuid, machine, epoch),
        None => Err(Malformed("the claim is missing, its epoch was used")),
    };
    Ok(checked.err().map(|what| VaultError::damaged(name, what)))
}
