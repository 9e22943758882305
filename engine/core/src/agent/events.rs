//! What an agent's machine is told and what it asks for, as values.
//!
//! What is *not* here: what follows from them ([`super::AgentMachine`]).

use crate::change::{Marker, MarkerKind, ResyncReason};
use crate::extent_map::{FlushToken, Persist};
use crate::ids::{BatchPosition, VolumeIndex, WriteSeq};
use crate::message::{HashReply, HashRequest, MarksReply, MarksRequest, Welcome};
use crate::resync::{Progress, RunRead};
use crate::sealed::SealedBatch;
use crate::splitter::{IoFailure, IoId, Op};
use crate::spool::SpillWork;
use bytes::Bytes;

/// What happened.
#[derive(Debug)]
pub enum AgentEvent {
    /// An operation of the guest is wanted; `io` comes from [`AgentMachine::next_io`].
    Submit {
        /// Volume.
        volume: VolumeIndex,
        /// Name of the operation.
        io: IoId,
        /// What to do.
        op: Op,
    },
    /// A started operation ended on the disk. The payload is what was written or read, a whole
    /// number of sectors; `None` for an operation without content.
    Done {
        /// Volume.
        volume: VolumeIndex,
        /// Name of the operation.
        io: IoId,
        /// How it ended.
        result: Result<(), IoFailure>,
        /// Content written or read.
        payload: Option<Bytes>,
    },
    /// A resync read ended.
    ResyncRead {
        /// Volume.
        volume: VolumeIndex,
        /// Name of the operation.
        io: IoId,
        /// What was read; with digests if [`super::AgentMachine::wants_digests`].
        result: Result<RunRead, IoFailure>,
    },
    /// A write of an activity log ended.
    Persisted {
        /// Volume.
        volume: VolumeIndex,
        /// Whether it is durable.
        ok: bool,
    },
    /// A flush of a local disk succeeded.
    Flushed {
        /// Volume.
        volume: VolumeIndex,
        /// Names the moment it was issued.
        token: FlushToken,
    },
    /// A flush of a local disk failed, or an operation that had to be durable.
    FlushFailed {
        /// Volume.
        volume: VolumeIndex,
        /// Whether a guest asked for it and is told. If not, its next flush is: the system reports such
        /// an error only once, and the guest must not believe that its data is durable.
        is_told: bool,
    },
    /// Time to cool extents of a volume, a batch at a time: see [`super::AgentMachine::is_cooling`].
    Cool {
        /// Volume.
        volume: VolumeIndex,
    },
    /// A write of the agent's record ended.
    StateWritten {
        /// Whether it is durable.
        ok: bool,
    },
    /// A spill sync ended well.
    SpillSynced {
        /// Number in the effect.
        ticket: u64,
    },
    /// A spill sync failed, or work on the spill before it; comes instead of `SpillSynced`.
    SpillFailed {
        /// Number in the effect.
        ticket: u64,
    },
    /// A spilled batch was read back.
    SpillRead {
        /// First sequence.
        first: WriteSeq,
        /// The batch, or `None` if it cannot be read.
        bytes: Option<Bytes>,
    },
    /// A process server accepted a session.
    Welcome(Welcome),
    /// Durable watermarks of the session.
    Ack {
        /// Durable in the stage.
        staged: BatchPosition,
        /// Durable in the vault.
        vaulted: BatchPosition,
        /// Cumulative permits.
        permits_total: u64,
    },
    /// Digests of the vault.
    Hashes(HashReply),
    /// What the vault says about marks.
    Marks(MarksReply),
    /// The session ended.
    SessionDown,
    /// A person or the policy wants a marker; see [`AgentMachine::can_mark`].
    CutMarker(Marker),
    /// Time passed; comes every few tens of milliseconds.
    Tick,
    /// A clean stop: no guest operation follows. Everything in memory goes to the spill. To be repeated until
    /// [`AgentMachine::is_stopped`]; meanwhile it may want fingerprints.
    Stop,
    /// The digest of a volume's content, taken while [`AgentMachine::fingerprints_wanted`] named it.
    Fingerprint {
        /// Volume.
        volume: VolumeIndex,
        /// As the next start will take it again.
        digest: [u8; 32],
    },
}

/// What the shell does, in order.
#[derive(Debug)]
pub enum AgentEffect {
    /// Perform the operation on the disk, then step [`AgentEvent::Done`], or [`AgentEvent::ResyncRead`].
    Start {
        /// Volume.
        volume: VolumeIndex,
        /// Name of the operation.
        io: IoId,
        /// What to do.
        op: Op,
    },
    /// Tell who submitted it.
    Complete {
        /// Name of the operation.
        io: IoId,
        /// How it ended.
        result: Result<(), IoFailure>,
    },
    /// Write the activity log and sync it, then step [`AgentEvent::Persisted`].
    Persist {
        /// Volume.
        volume: VolumeIndex,
        /// Pages.
        persist: Persist,
    },
    /// Write [`AgentMachine::record`] durably, then step [`AgentEvent::StateWritten`].
    WriteState,
    /// Work on the spill files.
    Spill(SpillWork),
    /// Send the batch in the current session.
    Send(SealedBatch),
    /// Ask the process server in the current session.
    AskHashes(HashRequest),
    /// Ask about marks in the current session, or disown them.
    AskMarks(MarksRequest),
    /// End the session; the link begins another one when [`AgentMachine::may_connect`].
    CloseSession(&'static str),
    /// The policy's beat: step [`AgentEvent::CutMarker`] with a new marker of this kind.
    MarkerDue(MarkerKind),
    /// The marker has its place.
    MarkerCut {
        /// The marker.
        marker: Marker,
        /// Its sequence.
        seq: WriteSeq,
    },
    /// An event for the log.
    Note(Note),
}

/// What a person may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The spool overflowed or no sequence was reserved: order is lost, writes only set dirty blocks.
    OrderLost,
    /// A resync began.
    ResyncBegan {
        /// Why.
        reason: ResyncReason,
        /// Blocks that may differ.
        blocks: u64,
    },
    /// The stream is exact again.
    ResyncEnded(Progress),
    /// Histories differ: another writer, or our state is older than the vault.
    Fork,
    /// The vault holds a seed of this machine: the first copy sends only what differs from it.
    Seeded,
    /// The process server lost staged data.
    StageLost,
    /// The vault ends before what it had confirmed: it is an older one, or lost objects. Everything is compared.
    VaultWentBack {
        /// What it had confirmed.
        from: WriteSeq,
        /// Where it ends.
        to: WriteSeq,
    },
    /// A spilled batch cannot be read back; what was not staged is copied again.
    SpillLost,
    /// The activity log cannot be written; writes into cold extents wait for the record, once.
    LogFailing(u32),
    /// A write of the activity log does not end: guests wait for it no longer.
    LogGivenUp {
        /// Whether the vault knows, so that no later start trusts the log.
        is_told: bool,
    },
    /// The vault holds that the marks are disowned.
    MarksDisowned,
    /// An earlier run disowned the marks that this one began with: everything is compared.
    MarksVoid,
    /// The activity log holds every mark again.
    LogWhole,
}
