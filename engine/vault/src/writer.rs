//! The writer of one machine's log: claim, seal, commit.
//!
//! Invariants
//! - WR-1 Claims are dense and never deleted: epoch e+1 absent after my slot is durable proves that
//!   nobody took over before.
//! - WR-2 A commit succeeds only after (segments durable) -> (slot mine) -> (claim e+1 absent).
//! - WR-3 One slot is in flight; its bytes are kept and put again until the answer is certain.
//! - WR-4 Records at or below the head's position are dropped: delivery may repeat.
//! - WR-5 A record that does not read back is never put.
//! - WR-6 A commit delivered again after an error goes on with the segments it has: nothing is compressed
//!   twice, and a store that fills up is not filled with attempts.

use crate::chain::LogTail;
use crate::claims::{ClaimWatch, take_claim};
use crate::error::{CommitError, StoreFailure, VaultError};
use crate::log::{self, Body, HeadState, Header, Kind, PointRow, SegmentRow};
use crate::names;
use crate::pack::{Packed, check_order};
use crate::reader::PointId;
use crate::segment::{Encoded, SegmentId, TARGET_BYTES};
use crate::store::Created;
use crate::vault::{DEK, Vault};
use bytes::Bytes;
use futures::StreamExt;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{BatchPosition, MachineId, Record};
use redoubt_ports::{Entropy, StoreError, StoreKey};
use redoubt_wire::aead::Key;
use std::sync::Arc;

/// Segments put at once; bounds memory in flight to 8 x 32 MiB at worst.
const SEGMENTS_AT_ONCE: usize = 8;
/// A commit whose only segment is at most this goes into its log slot: one put in total.
const INLINE_BYTES_MAX: usize = 4 << 20;
/// How a writer cuts commits into objects. Readers need to know none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// A commit whose only segment has at most so many bytes goes into its log slot.
    pub inline_bytes: usize,
    /// A segment is closed when its units reach this many bytes; larger values than the default
    /// are cut to it, since readers bound what they accept.
    pub segment_bytes: usize,
}

impl Default for WriterSettings {
    fn default() -> WriterSettings {
        WriterSettings { inline_bytes: INLINE_BYTES_MAX, segment_bytes: TARGET_BYTES }
    }
}

/// Slots of older epochs adopted while sealing; an older writer has one slot in flight.
const ADOPT_MAX: u32 = 1024;

/// What a successful commit made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitDone {
    /// Recovery points that exist now and did not before this call, in order.
    pub points: Vec<PointId>,
    /// Newest slot of the log.
    pub slot: u64,
    /// Everything up to here is in the vault: this may be acknowledged as vaulted.
    pub position: BatchPosition,
}

/// A slot whose outcome is not known yet.
struct Pending {
    bytes: Bytes,
    points: Vec<PointId>,
    /// The tail once the slot is ours.
    after: LogTail,
}

/// A commit whose segments are encoded, and some of them stored.
struct Prepared {
    from: BatchPosition,
    head: HeadState,
    points: Vec<PointRow>,
    segments: Vec<(Encoded, IsStored)>,
}

type IsStored = bool;

/// The right to write one machine's log, until a newer claim exists.
pub struct MachineWriter {
    vault: Vault,
    machine: MachineId,
    settings: WriterSettings,
    entropy: Arc<dyn Entropy>,
    dek: Key,
    uuid: u128,
    epoch: u64,
    tail: LogTail,
    prepared: Option<Prepared>,
    pending: Option<Pending>,
    /// Points whose slot is durable but whose claim check has not succeeded yet.
    unreported: Vec<PointId>,
    fenced: Option<u64>,
}

impl std::fmt::Debug for MachineWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MachineWriter({}, epoch {})", self.machine, self.epoch)
    }
}

impl MachineWriter {
    /// Claims the machine with the default settings: see [`MachineWriter::claim_with`].
    pub async fn claim(
        vault: &Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
    ) -> Result<MachineWriter, VaultError> {
        MachineWriter::claim_with(vault, machine, entropy, WriterSettings::default()).await
    }

    /// Claims the machine, reads its log and seals it against older writers. On return no older
    /// writer can succeed with a commit. `Fenced` and `Store` errors leave the vault usable;
    /// `NotAdmitted` comes before anything of the machine is touched.
    pub async fn claim_with(
        vault: &Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
        settings: WriterSettings,
    ) -> Result<MachineWriter, VaultError> {
        vault.probe_again(&*entropy).await?;
        vault.vouch().await?;
        let uuid = entropy.id();
        let dek = vault.make_key(machine, &*entropy).await?;
        let (tail, newest) = LogTail::at_end(vault, machine, &dek).await?;
        if let Some(bytes) = newest {
            // Found is not durable: its writer may have died before its sync.
            vault.store.create(&names::slot(machine, tail.slot), &bytes).await?;
        }
        let epoch = take_claim(vault, machine, uuid, tail.epoch).await?;
        let vault = vault.clone();
        let (prepared, pending, unreported, fenced) = (None, None, Vec::new(), None);
        let mut writer = MachineWriter {
            vault,
            machine,
            settings,
            entropy,
            dek,
            uuid,
            epoch,
            tail,
            prepared,
            pending,
            unreported,
            fenced,
        };
        writer.seal().await?;
        Ok(writer)
    }

    /// Returns the head after the newest slot that this writer knows to be durable.
    pub fn head(&self) -> &HeadState {
        &self.tail.head
    }

    /// Returns this writer's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns this writer's claim, to be looked at while the writer is busy.
    pub fn watch(&self) -> ClaimWatch {
        ClaimWatch { vault: self.vault.clone(), machine: self.machine, epoch: self.epoch }
    }

    /// Returns the newest slot known.
    pub fn slot(&self) -> u64 {
        self.tail.slot
    }

    /// Makes records durable, up to and including `to`, which must be the position of the last one.
    ///
    /// `Ok`: everything up to `to` survives the loss of this host. `Retry`: deliver the same again.
    /// Records may repeat what was committed before. Dropping the future is like a lost reply: call
    /// again on the same writer, or claim anew.
    pub async fn commit(
        &mut self,
        records: Vec<Record>,
        to: BatchPosition,
    ) -> Result<CommitDone, CommitError> {
        if let Some(by) = self.fenced {
            return Err(CommitError::Fenced { by });
        }
        self.settle().await?;
        let at = self.tail.head.position;
        if to.seq == at.seq && to.chain != at.chain || to.generation < at.generation {
            return Err(CommitError::Fork(to.seq));
        }
        let fresh: Vec<Record> = records.into_iter().filter(|record| record.seq > at.seq).collect();
        check_order(at.seq, &fresh)?;
        let last = fresh.last().map_or(at.seq, |record| record.seq);
        if last != to.seq && to.seq > at.seq {
            return Err(CommitError::Gap { after: last, found: to.seq });
        }
        if !fresh.is_empty() {
            self.write(&fresh, to).await?;
        }
        self.claim_check().await?;
        let (slot, position) = (self.tail.slot, self.tail.head.position);
        Ok(CommitDone { points: std::mem::take(&mut self.unreported), slot, position })
    }

    async fn write(&mut self, records: &[Record], to: BatchPosition) -> Result<(), CommitError> {
        let again = |old: &Prepared| old.from == self.tail.head.position && old.head.position == to;
        if !self.prepared.as_ref().is_some_and(again) {
            self.prepared = None;
            self.prepared = Some(self.prepare(records, to).await?);
        }
        let early = planted::active(Bug::PublishBeforeLastSegment);
        self.put_segments(usize::from(early)).await?;
        let late = if early {
            self.prepared.as_ref().and_then(|commit| commit.segments.last().cloned())
        } else {
            None
        };
        self.publish();
        self.settle().await?;
        if let Some((segment, _)) = late {
            put_segment(&self.vault, names::segment(self.machine, self.epoch, segment.uuid), segment.bytes)
                .await?;
        }
        Ok(())
    }

    /// Encodes a commit. Nothing is stored yet.
    async fn prepare(&self, records: &[Record], to: BatchPosition) -> Result<Prepared, CommitError> {
        let from = self.tail.head.position;
        let mut packed = Packed::new(&self.tail.head, records)?;
        packed.head.position = to;
        let (vault, machine) = (self.vault.uuid, self.machine);
        let id = SegmentId { vault, machine, epoch: self.epoch, uuid: 0, dek: DEK };
        let target = self.settings.segment_bytes.min(TARGET_BYTES);
        let encoded = packed.encode(id, &self.dek, target, || self.entropy.id()).await?;
        let segments = encoded.into_iter().map(|segment| (segment, false)).collect();
        Ok(Prepared { from, head: packed.head, points: packed.points, segments })
    }

    /// Tells whether the commit's only segment goes into its log slot.
    fn is_inline(&self, segments: &[(Encoded, IsStored)]) -> bool {
        let early = planted::active(Bug::PublishBeforeLastSegment);
        matches!(segments, [(only, _)] if only.bytes.len() <= self.settings.inline_bytes) && !early
    }

    /// Stores the segments of the prepared commit that are not stored yet, all but the last `but`.
    async fn put_segments(&mut self, but: usize) -> Result<(), CommitError> {
        let Some(commit) = &self.prepared else { return Ok(()) };
        if self.is_inline(&commit.segments) {
            return Ok(());
        }
        let mut puts = Vec::with_capacity(commit.segments.len());
        let now = commit.segments.len().saturating_sub(but);
        for (at, (segment, _)) in
            commit.segments[..now].iter().enumerate().filter(|(_, (_, is_stored))| !is_stored)
        {
            let name = names::segment(self.machine, self.epoch, segment.uuid);
            let (vault, bytes) = (self.vault.clone(), segment.bytes.clone());
            puts.push(async move { (at, put_segment(&vault, name, bytes).await) });
        }
        let mut puts = futures::stream::iter(puts).buffer_unordered(SEGMENTS_AT_ONCE);
        while let Some((at, put)) = puts.next().await {
            match (put, &mut self.prepared) {
                (Ok(()), Some(commit)) => commit.segments[at].1 = true,
                (Ok(()), None) => {}
                (Err(failure), _) => {
                    if failure.last == StoreError::AlreadyExists {
                        // 128 random bits met twice: the next attempt takes others.
                        self.prepared = None;
                    }
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }

    /// Encodes the prepared commit's record for the next slot and puts it in flight.
    fn publish(&mut self) {
        let Some(commit) = self.prepared.take() else { return };
        let slot = self.tail.slot + 1;
        let is_inline = self.is_inline(&commit.segments);
        let rows = commit.segments.iter().map(|(segment, _)| row(segment, is_inline)).collect();
        let points = (0..commit.points.len()).map(|at| PointId { slot, ordinal: at as u16 }).collect();
        let body = Body { from: commit.from.seq, head: commit.head, points: commit.points, segments: rows };
        let inline = commit.segments.first().filter(|_| is_inline).map(|(only, _)| &only.bytes[..]);
        let bytes = Bytes::from(log::encode(&self.header(Kind::Commit), &body, &self.dek, inline));
        let mut after = self.tail.clone();
        let read = after.accept(&self.vault, self.machine, &self.dek, &bytes);
        assert!(read.is_ok(), "WR-5: a writer reads what it is about to put: {read:?}");
        self.pending = Some(Pending { bytes, points, after });
    }

    /// Finds out what became of the slot in flight, if there is one (WR-3).
    async fn settle(&mut self) -> Result<(), CommitError> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let name = names::slot(self.machine, self.tail.slot + 1);
        match self.vault.store.create(&name, &pending.bytes).await? {
            Created::Mine => {
                let Some(pending) = self.pending.take() else { return Ok(()) };
                self.tail = pending.after;
                self.unreported.extend(pending.points);
                Ok(())
            }
            Created::Other(found) => {
                let by = log::peek(&found).map_or(self.epoch + 1, |(header, _)| header.epoch);
                self.fenced = Some(by);
                Err(CommitError::Fenced { by })
            }
        }
    }

    /// WR-1: looks for a newer claim. Must start after everything to be acknowledged is durable.
    async fn claim_check(&mut self) -> Result<(), CommitError> {
        match self.watch().newer().await? {
            None => Ok(()),
            Some(by) => {
                self.fenced = Some(by);
                Err(CommitError::Fenced { by })
            }
        }
    }

    /// Puts this epoch's seal behind the log, adopting slots that older writers still win.
    async fn seal(&mut self) -> Result<(), VaultError> {
        for _ in 0..ADOPT_MAX {
            if self.tail.epoch >= self.epoch {
                return Err(VaultError::Fenced { by: self.tail.epoch });
            }
            let head = self.tail.head.clone();
            let body = Body { from: head.position.seq, head, points: Vec::new(), segments: Vec::new() };
            let bytes = Bytes::from(log::encode(&self.header(Kind::Seal), &body, &self.dek, None));
            let name = names::slot(self.machine, self.tail.slot + 1);
            let created = self.vault.store.create(&name, &bytes).await?;
            let taken = if let Created::Other(found) = &created { found } else { &bytes };
            self.tail.accept(&self.vault, self.machine, &self.dek, taken)?;
            if created == Created::Mine {
                return match self.watch().newer().await? {
                    None => Ok(()),
                    Some(by) => Err(VaultError::Fenced { by }),
                };
            }
        }
        Err(VaultError::ClaimRace)
    }

    fn header(&self, kind: Kind) -> Header {
        Header {
            vault: self.vault.uuid,
            machine: self.machine,
            slot: self.tail.slot + 1,
            epoch: self.epoch,
            writer: self.uuid,
            kind,
            prev: self.tail.digest,
            dek: DEK,
        }
    }
}

async fn put_segment(vault: &Vault, name: StoreKey, bytes: Bytes) -> Result<(), StoreFailure> {
    match vault.store.create(&name, &bytes).await? {
        Created::Mine => Ok(()),
        Created::Other(_) => {
            let (object, last) = (name.to_string(), StoreError::AlreadyExists);
            Err(StoreFailure { operation: "create", object, attempts: 1, last })
        }
    }
}

fn row(segment: &Encoded, inline: bool) -> SegmentRow {
    SegmentRow {
        uuid: segment.uuid,
        length: segment.bytes.len() as u64,
        tail: segment.tail,
        units: segment.units,
        root: segment.root,
        digest: *blake3::hash(&segment.bytes).as_bytes(),
        inline,
    }
}
