//! Walks a machine's log: digests, epochs, and which records count.
//!
//! Invariants
//! - VC-1 Each record names the digest of the one before it; a gap or a change is damage.
//! - VC-2 Epochs never decrease along accepted records; a record of an older epoch behind a newer
//!   one is void: it holds its slot and nothing else.

use crate::error::VaultError;
use crate::fold::newest_listed;
use crate::index::{HEADER_BYTES, StoredIndex, peek};
use crate::key_ring::KeyRing;
use crate::load::Log;
use crate::log::{self, HeadState, LogRecord};
use crate::maintainer::CATALOGUES_TRIED;
use crate::names;
use crate::vault::Vault;
use bytes::Bytes;
use futures::StreamExt;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;
use redoubt_wire::aead::Key;

/// Times that catalogues are listed, if all that were listed are gone when they are read: each time three newer ones
/// were published meanwhile.
pub(crate) const CATALOGUE_TRIES: u32 = 4;
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
        let (listed, from) = list_end(vault, machine, keys).await?;
        for (key, slot) in listed.iter().zip(from..) {
            check_number(machine, key, slot)?;
        }
        let first = (from + listed.len() as u64).saturating_sub(2).max(from);
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
async fn list_end(
    vault: &Vault,
    machine: MachineId,
    keys: &KeyRing,
) -> Result<(Vec<StoreKey>, u64), VaultError> {
    let mut tries = 1;
    loop {
        match try_list_end(vault, machine, keys).await {
            // What was listed may have made room for newer ones.
            Err(VaultError::Damaged { .. }) if tries < CATALOGUE_TRIES => tries += 1,
            listed => return listed,
        }
    }
}

async fn try_list_end(
    vault: &Vault,
    machine: MachineId,
    keys: &KeyRing,
) -> Result<(Vec<StoreKey>, u64), VaultError> {
    let prefix = names::log(machine);
    let catalogues = newest_catalogues(vault, machine).await?;
    for (name, version) in &catalogues {
        let Some(begin) = begin(vault, machine, name, *version).await? else { continue };
        // The record before the last one covered, unless that was folded.
        let from = begin.covered.saturating_sub(1).max(begin.log_from);
        let after =
            from.checked_sub(1).filter(|before| *before > 0).map(|before| names::slot(machine, before));
        let listed = vault.store.list(&prefix, after.as_ref()).await?;
        if listed.first() == Some(&names::slot(machine, from)) {
            return Ok((listed, from));
        }
    }
    let mut listed = vault.store.list(&prefix, None).await?;
    if listed.first().is_none_or(|first| *first == names::slot(machine, 1)) {
        return Ok((listed, 1));
    }
    let log = Log { vault: vault.clone(), machine, keys: keys.clone() };
    match newest_listed(&log).await? {
        Some(folded) => {
            let from = folded.mark.log_from();
            listed.retain(|name| *name >= names::slot(machine, from));
            Ok((listed, from))
        }
        None if catalogues.is_empty() => Ok((listed, 1)),
        None => Err(no_begin(machine, catalogues.len())),
    }
}

/// The log does not begin with its first slot, and no catalogue says where it does.
pub(crate) fn no_begin(machine: MachineId, catalogues: usize) -> VaultError {
    let what = format!(
        "the log does not begin with its first slot, and neither its {catalogues} newest catalogues nor its folds \
         tell what is left of the beginning: restore one of them"
    );
    VaultError::damaged(names::catalogues(machine), what)
}

/// What the clear header of a catalogue says of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// The last slot that the catalogue covers.
    covered: u64,
    /// The first slot that was not folded.
    log_from: u64,
}

/// Lists the newest catalogues, newest first, with their versions.
async fn newest_catalogues(vault: &Vault, machine: MachineId) -> Result<Vec<(StoreKey, u64)>, VaultError> {
    let listed = vault.store.page(&names::catalogues(machine), None, CATALOGUES_TRIED).await?;
    let of = |(name, _)| names::catalogue_version(&name, machine).map(|version| (name, version));
    Ok(listed.into_iter().filter_map(of).collect())
}

/// Reads a catalogue's clear header; none if that cannot be read.
async fn begin(
    vault: &Vault,
    machine: MachineId,
    name: &StoreKey,
    version: u64,
) -> Result<Option<Begin>, VaultError> {
    let header = vault.store.get(name, Some(0..HEADER_BYTES as u64)).await?.unwrap_or_default();
    let header = peek(&header, vault.uuid, machine, version).ok();
    Ok(header.map(|header| Begin { covered: header.slot, log_from: header.log_from }))
}

/// Returns the first slot that is needed of the log by what the newest catalogues say in the clear, whatever else is
/// wrong with them.
pub(crate) async fn newest_begin(vault: &Vault, machine: MachineId) -> Result<u64, VaultError> {
    for (name, version) in newest_catalogues(vault, machine).await? {
        if let Some(begin) = begin(vault, machine, &name, version).await? {
            return Ok(begin.log_from);
        }
    }
    Ok(1)
}

/// Tells whether the log has its first slot, or none at all: then it serves from there if folds do not, as far as it goes.
/// A catalogue that cannot be read may be of another life of the vault, whatever it says in the clear.
pub(crate) async fn may_begin(log: &Log) -> Result<bool, VaultError> {
    let first = log.vault.store.page(&names::log(log.machine), None, 1).await?;
    Ok(first.first().is_none_or(|(name, _)| *name == names::slot(log.machine, 1)))
}

/// Tells whether the log's first slots were folded, as far as anybody can tell. Catalogues of another life of the
/// vault say nothing of this log.
pub(crate) async fn is_cut(log: &Log, index: &StoredIndex) -> Result<bool, VaultError> {
    let Log { vault, machine, .. } = log;
    if !may_begin(log).await? {
        return Ok(true);
    }
    for (name, version) in newest_catalogues(vault, *machine).await? {
        let begin = begin(vault, *machine, &name, version).await?;
        if begin.is_none_or(|begin| begin.log_from == 1) {
            continue;
        }
        match index.decoded(version).await? {
            Ok((catalogue, _)) if index.is_stray(&catalogue).await? => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// VC-1: slots are dense.
fn check_number(machine: MachineId, key: &StoreKey, slot: u64) -> Result<(), VaultError> {
    if names::number(key, &names::log(machine), 16) == Some(slot) {
        return Ok(());
    }
    Err(VaultError::damaged(names::slot(machine, slot), "the slot is missing, later ones exist"))
}
