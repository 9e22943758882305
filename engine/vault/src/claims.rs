//! Writer claims: dense numbers, each created once; the newest owns the machine.
//!
//! Invariants
//! - CL-1 Existence decides, never content: a damaged claim still fences older writers.
//! - CL-2 A missing or damaged claim is found by whoever loads the log. It costs no content, so it is
//!   reported and does not stop a recovery.

use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::error::VaultError;
use crate::names;
use crate::store::Created;
use crate::vault::Vault;
use bytes::Bytes;
use futures::StreamExt;
use redoubt_core::MachineId;

/// Claim numbers tried before giving up in a race.
const CLAIM_TRIES: u32 = 32;
/// Claims read at once.
const CLAIMS_AT_ONCE: usize = 16;
/// Findings kept of one machine: enough to see that something is wrong, and bounded.
const FINDINGS_MAX: usize = 64;
const MAGIC: &[u8; 8] = b"DRCLAIM1";

/// Creates the next claim; numbers stay dense because one is left only when it is proven taken.
pub(crate) async fn take_claim(vault: &Vault, machine: MachineId, writer: u128) -> Result<u64, VaultError> {
    let prefix = names::claims(machine);
    let listed = vault.store.list(&prefix, None).await?;
    let mut epoch = match listed.last() {
        None => 1,
        Some(key) => {
            let last = names::number(key, &prefix, 8);
            last.ok_or_else(|| VaultError::damaged(key, "no claim has this name"))? + 1
        }
    };
    for _ in 0..CLAIM_TRIES {
        let body = Bytes::from(encode(vault.uuid, machine, epoch, writer));
        match vault.store.create(&names::claim(machine, epoch), &body).await? {
            Created::Mine => return Ok(epoch),
            Created::Other(_) => epoch += 1,
        }
    }
    Err(VaultError::ClaimRace)
}

pub(crate) fn encode(vault: u128, machine: MachineId, epoch: u64, writer: u128) -> Vec<u8> {
    let mut object = Vec::new();
    object.put(MAGIC);
    object.put_u16(crate::vault::MAJOR);
    object.put_u16(crate::vault::MINOR);
    object.put_u32(0);
    object.put_u128(vault);
    object.put_u128(machine.0);
    object.put_u64(epoch);
    object.put_u128(writer);
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

/// Reads every claim up to the newest, at least up to `epoch`, and says what is wrong with them.
pub(crate) async fn check(
    vault: &Vault,
    machine: MachineId,
    epoch: u64,
) -> Result<Vec<VaultError>, VaultError> {
    let prefix = names::claims(machine);
    let mut findings = Vec::new();
    let mut present = Vec::new();
    let mut next = 1;
    for key in vault.store.list(&prefix, None).await? {
        match names::number(&key, &prefix, 8) {
            Some(number) => {
                let gap = (next..number).map(|missing| lost(machine, missing));
                findings.extend(gap.take(FINDINGS_MAX));
                next = number + 1;
                present.push((number, key));
            }
            None => findings.push(VaultError::damaged(key, "no claim has this name")),
        }
        findings.truncate(FINDINGS_MAX);
    }
    findings.extend((next..=epoch).map(|missing| lost(machine, missing)).take(FINDINGS_MAX));
    let mut reads = Vec::with_capacity(present.len());
    for (_, key) in &present {
        reads.push(vault.store.get(key, None));
    }
    let mut reads = futures::stream::iter(reads).buffered(CLAIMS_AT_ONCE);
    for (number, key) in &present {
        let Some(read) = reads.next().await else { break };
        let checked = match read? {
            Some(bytes) => decode(&bytes, vault.uuid, machine, *number),
            None => Err(Malformed("listed, but not there")),
        };
        findings.extend(checked.err().map(|what| VaultError::damaged(key, what)));
    }
    findings.truncate(FINDINGS_MAX);
    Ok(findings)
}

fn lost(machine: MachineId, epoch: u64) -> VaultError {
    VaultError::damaged(names::claim(machine, epoch), "the claim is missing, its epoch was used")
}
