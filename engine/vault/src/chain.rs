//! Walks a machine's log: digests, epochs, and which records count.
//!
//! Invariants
//! - VC-1 Each record names the digest of the one before it; a gap or a change is damage.
//! - VC-2 Epochs never decrease along accepted records; a record of an older epoch behind a newer
//!   one is void: it holds its slot and nothing else.

use crate::error::VaultError;
use crate::index::{HEADER_BYTES, peek};
use crate::key_ring::KeyRing;
use crate::load::Log;
use crate::log::{self, HeadState, LogRecord};
use crate::names;
use crate::vault::Vault;
use bytes::Bytes;
use futures::StreamExt;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;
use redoubt_wire::aead::Key;

/// Log slots read at once.
const SLOTS_AT_ONCE: usize = 16;

/// The state after the newest slot walked.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogTail {
    pub(crate) slot: u64,
    pub(crate) digest: [u8; 32],
    pub(crate) epoch: u64,
    pub(crate) head: HeadState,
    /// Data key of the newest record read, and units sealed with it up to there; 0 if none was read.
    pub(crate) dek: u32,
    pub(crate) sealed: u64,
    /// The slot before the next one was not read, so its digest is not known.
    enters: bool,
}

/// The end of a log without its head state: small enough to keep one for each record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogMark {
    pub(crate) slot: u64,
    pub(crate) digest: [u8; 32],
    pub(crate) epoch: u64,
}

impl LogMark {
    /// Makes the tail again from the head state there.
    pub(crate) fn tail(self, head: HeadState) -> LogTail {
        LogTail { slot: self.slot, digest: self.digest, epoch: self.epoch, head, ..LogTail::default() }
    }
}

/// Whether a listing came to the end of the log.
type IsAll = bool;

impl LogTail {
    /// Takes the next slot's bytes; `None` if the record is void.
    pub(crate) fn accept(
        &mut self,
        vault: &Vault,
        machine: MachineId,
        dek: &Key,
        bytes: &Bytes,
    ) -> Result<Option<LogRecord>, VaultError> {
        let slot = self.slot + 1;
        let damaged = |what: &str| VaultError::damaged(names::slot(machine, slot), what);
        let record = log::decode(bytes, dek).map_err(|what| damaged(&what.to_string()))?;
        let header = &record.header;
        if header.vault != vault.uuid || header.machine != machine || header.slot != slot {
            return Err(damaged("the record belongs elsewhere"));
        }
        let void = header.epoch < self.epoch;
        if !void && !self.enters && header.prev != self.digest {
            return Err(damaged("the record does not follow the slot before it"));
        }
        self.slot = slot;
        self.enters = false;
        self.digest = log::digest(bytes, &record);
        if void {
            return Ok(None);
        }
        self.epoch = header.epoch;
        self.head = record.body.head.clone();
        (self.dek, self.sealed) = (header.dek, record.body.sealed);
        Ok(Some(record))
    }

    /// Returns the data key that the next slot's record names.
    pub(crate) async fn key(
        &self,
        machine: MachineId,
        keys: &KeyRing,
        bytes: &Bytes,
    ) -> Result<Key, VaultError> {
        let slot = names::slot(machine, self.slot + 1);
        let (header, _) = log::peek(bytes).map_err(|what| VaultError::damaged(slot, what))?;
        keys.get(header.dek).await
    }

    /// Enters the log at its end, at a cost that does not grow with what was ever written: lists it from
    /// the newest catalogue on, reads the newest record and the one before it, which must agree. That is
    /// all a writer needs (LG-3); who reads content walks the whole chain. Returns the newest record's
    /// bytes as well.
    pub(crate) async fn at_end(
        vault: &Vault,
        machine: MachineId,
        keys: &KeyRing,
    ) -> Result<(LogTail, Option<Bytes>), VaultError> {
        let (listed, from) = list_end(vault, machine).await?;
        for (key, slot) in listed.iter().zip(from..) {
            check_number(machine, key, slot)?;
        }
        let first = (from + listed.len() as u64).saturating_sub(2).max(1);
        let mut tail = LogTail { slot: first - 1, enters: first > 1, ..LogTail::default() };
        let mut newest = None;
        for key in &listed[listed.len().saturating_sub(2)..] {
            let bytes = vault.store.get(key, None).await?;
            let bytes = bytes.ok_or_else(|| VaultError::damaged(key, "listed, but not there"))?;
            let key = tail.key(machine, keys, &bytes).await?;
            tail.accept(vault, machine, &key, &bytes)?;
            newest = Some(bytes);
        }
        Ok((tail, newest))
    }

    /// Reads the slots after the tail, at most `limit`, and hands the accepted records to `each`, with the
    /// slot's bytes and the log's end before it. Tells whether that was all there is. After an error the
    /// tail is at the last good slot.
    pub(crate) async fn load(
        &mut self,
        log: &Log,
        limit: usize,
        mut each: impl FnMut(LogRecord, &Key, &Bytes, LogMark) + Send,
    ) -> Result<IsAll, VaultError> {
        let Log { vault, machine, keys } = log;
        let machine = *machine;
        let prefix = names::log(machine);
        let after = (self.slot > 0).then(|| names::slot(machine, self.slot));
        let listed = vault.store.page(&prefix, after.as_ref(), limit).await?;
        let listed: Vec<StoreKey> = listed.into_iter().map(|(key, _)| key).collect();
        // A plain loop: a closure over references would cost the future its `Send`.
        let mut reads = Vec::with_capacity(listed.len());
        for key in &listed {
            reads.push(vault.store.get(key, None));
        }
        let mut reads = futures::stream::iter(reads).buffered(SLOTS_AT_ONCE);
        let mut names = listed.iter();
        while let Some(read) = reads.next().await {
            let Some(key) = names.next() else { break };
            check_number(machine, key, self.slot + 1)?;
            let bytes = read?.ok_or_else(|| VaultError::damaged(key, "listed, but not there"))?;
            let before = LogMark { slot: self.slot, digest: self.digest, epoch: self.epoch };
            let key = self.key(machine, keys, &bytes).await?;
            if let Some(record) = self.accept(vault, machine, &key, &bytes)? {
                each(record, &key, &bytes, before);
            }
        }
        Ok(listed.len() < limit)
    }
}

/// Lists the log's end and returns the first number. A catalogue's clear header only says where to begin:
/// whatever it says, a listing that begins at that slot holds all later ones, and any other is taken in full.
async fn list_end(vault: &Vault, machine: MachineId) -> Result<(Vec<StoreKey>, u64), VaultError> {
    let prefix = names::log(machine);
    let covered = covered(vault, machine).await?;
    if let Some(from) = covered.and_then(|slot| slot.checked_sub(1)).filter(|from| *from > 1) {
        let listed = vault.store.list(&prefix, Some(&names::slot(machine, from - 1))).await?;
        if listed.len() > 1 && listed.first() == Some(&names::slot(machine, from)) {
            return Ok((listed, from));
        }
    }
    Ok((vault.store.list(&prefix, None).await?, 1))
}

/// Returns the slot that the newest catalogue says it ends with.
async fn covered(vault: &Vault, machine: MachineId) -> Result<Option<u64>, VaultError> {
    let newest = vault.store.page(&names::catalogues(machine), None, 1).await?;
    let Some((name, _)) = newest.first() else { return Ok(None) };
    let Some(version) = names::catalogue_version(name, machine) else { return Ok(None) };
    let header = vault.store.get(name, Some(0..HEADER_BYTES as u64)).await?.unwrap_or_default();
    Ok(peek(&header, vault.uuid, machine, version).ok().map(|header| header.slot))
}

/// VC-1: slots are dense.
fn check_number(machine: MachineId, key: &StoreKey, slot: u64) -> Result<(), VaultError> {
    if names::number(key, &names::log(machine), 16) == Some(slot) {
        return Ok(());
    }
    Err(VaultError::damaged(names::slot(machine, slot), "the slot is missing, later ones exist"))
}
