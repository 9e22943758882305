//! The machine of an agent: one protected machine with all its volumes, from a guest's write to the
//! vault's watermark. It combines the splitters, extent maps, the sequencer, the spool, the resync
//! planner and the marker cutter; each decision is theirs, the order between them is taken here.
//!
//! ```text
//! Exact --spool overflow, no sequence--> Bitmap --drained--> Resync --nothing dirty--> Exact
//!   '------stage lost, fork, new volume, unclean stop-----------^
//! ```
//!
//! Invariants
//! - AG-1 A record enters the open batch in the step that stamped it; sequences in a batch are dense.
//! - AG-2 Once order is lost, every change is stamped [`crate::splitter::Stamp::Bitmap`] until `ResyncBegin` is sealed.
//! - AG-3 A record that the spool refuses leaves its blocks dirty in the same step.
//! - AG-4 A marker is stamped only while the stream is exact and nothing waits to be read back.
//! - AG-5 A generation is used only after the record that names it is durable.
//! - AG-6 No extent is cooled while changes stamped before this start may be outside the vault.
//! - AG-7 The record of a clean stop is asked for only when every change is flushed on its disk and durable
//!   in the spill; nothing is stamped behind it.
//!
//! What is *not* here: IO, frames, cryptography (a [`Sealer`] is handed in), names of files.

mod capture;
mod recovery;
mod stream;

use crate::agent_state::{AgentRecord, VolumeRecord};
use crate::change::{Batch, Marker, MarkerKind, Record, ResyncReason};
use crate::extent_map::{ExtentMap, FlushToken, Persist, StartMarks};
use crate::ids::{BatchPosition, Chain, Generation, MachineId, VolumeId, VolumeIndex, WriteSeq};
use crate::markers::MarkerCutter;
use crate::message::{HashReply, HashRequest, VolumeInfo, Welcome};
use crate::planted::{self, Bug};
use crate::resync::{Progress, ResyncPlanner};
use crate::sealed::{SealedBatch, SealedMeta};
use crate::sequencer::Sequencer;
use crate::splitter::{IoFailure, IoId, Op, Splitter};
use crate::spool::{SpillPlace, SpillWork, Spool, SpoolLimits};
use crate::time::Instant;
use crate::units::{Extent, Sectors};
use crate::watermarks::Watermarks;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A batch is sealed at this size at the latest: large enough that headers and seals cost little.
pub const SEAL_BYTES: usize = 256 << 10;

/// Batches sealed but not staged up to which the link counts as idle, so that the next tick seals the
/// open batch without waiting for it to grow: one on the way, one being staged.
pub const IDLE_BATCHES: usize = 2;

/// An open batch is sealed by the first tick at this age, even behind a busy link, so that a crash
/// finds it in the spool.
pub const SEAL_AGE: Duration = Duration::from_millis(50);

/// Seals a batch behind a chain. Called once per batch.
pub type Sealer = Box<dyn Fn(&Batch, Chain) -> SealedBatch + Send>;

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
    /// The session ended.
    SessionDown,
    /// A person or the policy wants a marker; see [`AgentMachine::can_mark`].
    CutMarker(Marker),
    /// Time passed; comes every few tens of milliseconds.
    Tick,
    /// A clean stop: no guest operation follows. Everything in memory goes to the spill.
    Stop,
}

/// What the shell does, in order.
#[derive(Debug)]
pub enum AgentEffect {
    /// Perform the operation on the disk, then step [`AgentEvent::Done`].
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
    /// Order is lost; writes only set dirty blocks.
    BitmapMode,
    /// A resync began.
    ResyncBegan(ResyncReason),
    /// The stream is exact again.
    ResyncEnded,
    /// Histories differ: another writer, or our state is older than the vault.
    Fork,
    /// The process server lost staged data.
    StageLost,
    /// The activity log cannot be written; writes into cold extents wait.
    LogFailing(u32),
}

/// A volume at the start.
#[derive(Debug)]
pub struct VolumeStart {
    /// Ordinal in the stream.
    pub index: VolumeIndex,
    /// Lasting identity.
    pub id: VolumeId,
    /// Size of the disk now.
    pub sectors: Sectors,
    /// What the activity log says.
    pub marks: StartMarks,
}

/// Everything a start needs.
pub struct AgentStart {
    /// Machine.
    pub machine: MachineId,
    /// The record of the last run; its generation is that of this run.
    pub record: AgentRecord,
    /// Why the stream begins inexact, or `None` after a clean stop.
    pub resync: Option<ResyncReason>,
    /// Volumes.
    pub volumes: Vec<VolumeStart>,
    /// Spill files found, with their usable length.
    pub spill_files: Vec<(u64, u64)>,
    /// Batches in them.
    pub spilled: Vec<(SealedMeta, SpillPlace)>,
    /// Bounds of the spool.
    pub limits: SpoolLimits,
    /// Bytes sent and not staged.
    pub in_flight_bytes_max: u64,
    /// Interval of markers; `None`: only on demand.
    pub marker_interval: Option<Duration>,
    /// Seals batches.
    pub sealer: Sealer,
}

pub(crate) struct Volume {
    pub(crate) id: VolumeId,
    pub(crate) splitter: Splitter,
    pub(crate) map: ExtentMap,
    /// Marks taken over from a clean stop: they may belong to changes outside the vault (AG-6).
    pub(crate) carried: Vec<Extent>,
    pub(crate) persist_after: Option<Instant>,
}

struct OpenBatch {
    records: Vec<Record>,
    bytes: usize,
    since: Instant,
}

struct Session {
    granted: u64,
    staged_bytes: u64,
    sent: VecDeque<(WriteSeq, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Internal {
    Resync { block: u64, epoch: u64 },
    Recapture,
}

/// The machine. See the module.
pub struct AgentMachine {
    machine: MachineId,
    generation: Generation,
    volumes: BTreeMap<VolumeIndex, Volume>,
    sequencer: Sequencer,
    state_in_flight: Option<Option<WriteSeq>>,
    state_wanted: bool,
    /// Volumes whose activity log is disowned by the record being written (XM-5).
    disowning: Vec<VolumeIndex>,
    open: OpenBatch,
    newest: BatchPosition,
    staged: BatchPosition,
    vaulted: BatchPosition,
    watermarks: Watermarks,
    unstaged: VecDeque<(WriteSeq, Instant)>,
    spool: Spool,
    session: Option<Session>,
    in_flight_bytes_max: u64,
    memory_bytes_max: u64,
    sealer: Sealer,
    is_bitmap: bool,
    is_exact: bool,
    pending_resync: Option<ResyncReason>,
    /// A new generation must be durable before the next resync begins (AG-5).
    new_generation: bool,
    /// A fork was found at this staged position; a new generation must be made.
    fork: Option<BatchPosition>,
    /// The batch that opens this run's first resync is not sealed yet: `newest` says nothing.
    is_recovering: bool,
    /// Why this run began inexact, until its first session.
    first_reason: Option<ResyncReason>,
    planner: Option<ResyncPlanner>,
    epoch: u64,
    internal: BTreeMap<IoId, Internal>,
    /// Changes that are on the disk, with the sectors told to the extent map.
    started: BTreeMap<IoId, Extent>,
    recaptures_due: Vec<(Instant, VolumeIndex, Extent)>,
    next_io: u64,
    carried_until: WriteSeq,
    cutter: Option<MarkerCutter>,
    is_stopping: bool,
    is_clean: bool,
}

impl AgentMachine {
    /// Starts the machine. The record with the first reservation must be written next
    /// ([`AgentEffect::WriteState`] comes with the first step).
    pub fn start(now: Instant, start: AgentStart) -> AgentMachine {
        let record = start.record;
        let mut spool = Spool::recover(start.limits, start.spill_files.clone(), start.spilled);
        let mut spilled = spool.held().last().map(SealedMeta::position);
        if record.is_clean && spilled.is_some_and(|end| end != record.sealed) {
            // The spill lost its end after a clean stop. Without it the first session finds a gap and
            // resyncs what was not vaulted; sending the rest would leave the lost end out unseen.
            spool = Spool::recover(start.limits, start.spill_files, Vec::new());
            spilled = None;
        }
        let newest = spilled.unwrap_or(record.sealed);
        let sequencer = Sequencer::resume(record.issued, record.reserved_until, record.is_clean);
        let issued = sequencer.issued();
        let mut agent = AgentMachine {
            machine: start.machine,
            generation: record.generation,
            volumes: BTreeMap::new(),
            sequencer,
            state_in_flight: None,
            state_wanted: true,
            disowning: Vec::new(),
            open: OpenBatch { records: Vec::new(), bytes: 0, since: now },
            newest,
            staged: record.staged,
            vaulted: record.vaulted,
            watermarks: Watermarks::resume(issued, record.staged.seq, record.vaulted.seq),
            unstaged: spool.held().iter().map(|meta| (meta.last, now)).collect(),
            spool,
            session: None,
            in_flight_bytes_max: start.in_flight_bytes_max,
            sealer: start.sealer,
            is_bitmap: start.resync.is_some(),
            is_exact: start.resync.is_none(),
            pending_resync: start.resync,
            new_generation: false,
            fork: None,
            is_recovering: start.resync.is_some(),
            first_reason: start.resync,
            memory_bytes_max: start.limits.memory_bytes,
            planner: None,
            epoch: 0,
            internal: BTreeMap::new(),
            started: BTreeMap::new(),
            recaptures_due: Vec::new(),
            next_io: 1,
            carried_until: issued,
            cutter: start.marker_interval.map(|interval| MarkerCutter::new(now, interval)),
            is_stopping: false,
            is_clean: false,
        };
        for volume in start.volumes {
            agent.insert_volume(volume);
        }
        agent
    }

    /// Takes one event; appends what to do.
    pub fn step(&mut self, now: Instant, event: AgentEvent, effects: &mut Vec<AgentEffect>) {
        match event {
            AgentEvent::Submit { volume, io, op } => self.on_submit(now, volume, io, op, effects),
            AgentEvent::Done { volume, io, result, payload } => {
                self.on_done(now, volume, io, result, payload, effects);
            }
            AgentEvent::Persisted { volume, ok } => self.on_persisted(now, volume, ok, effects),
            AgentEvent::Flushed { volume, token } => self.on_flushed(now, volume, token, effects),
            AgentEvent::StateWritten { ok } => self.on_state_written(now, ok, effects),
            AgentEvent::SpillSynced { ticket } => self.on_spill_synced(now, ticket, effects),
            AgentEvent::SpillFailed { ticket } => self.on_spill_failed(now, ticket, effects),
            AgentEvent::SpillRead { first, bytes } => self.on_spill_read(now, first, bytes, effects),
            AgentEvent::Welcome(welcome) => self.on_welcome(now, welcome, effects),
            AgentEvent::Ack { staged, vaulted, permits_total } => {
                self.on_ack(now, staged, vaulted, permits_total, effects);
            }
            AgentEvent::Hashes(reply) => self.on_hashes(now, reply, effects),
            AgentEvent::SessionDown => self.on_session_down(now, effects),
            AgentEvent::CutMarker(marker) => self.on_cut_marker(now, marker, effects),
            AgentEvent::Tick => self.on_tick(now, effects),
            AgentEvent::Stop => self.on_stop(now, effects),
        }
        self.settle(now, effects);
        assert!(!self.is_bitmap || self.open.records.is_empty(), "AG-2: a record entered without order");
    }

    /// Returns a name for the next operation.
    pub fn next_io(&mut self) -> IoId {
        self.next_io += 1;
        IoId(self.next_io)
    }

    /// Tells whether a session streams.
    pub fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Tells whether a clean stop is possible: the stream is exact.
    pub fn can_stop_clean(&self) -> bool {
        self.is_exact && !self.is_bitmap
    }

    /// Tells whether guests may be served: sequences are reserved and the activity logs are written.
    pub fn is_ready(&self) -> bool {
        self.sequencer.remaining() > 0
    }

    /// Adds a volume; its content is copied from scratch unless its marks say otherwise. The record of
    /// names that gives it its index must be durable before.
    pub fn add_volume(&mut self, volume: VolumeStart, reason: ResyncReason) {
        self.insert_volume(volume);
        self.state_wanted = true;
        self.want_resync(reason);
    }

    fn insert_volume(&mut self, start: VolumeStart) {
        let carried = match &start.marks {
            StartMarks::Clean { image, .. } => recovery::marked_extents(image, start.sectors),
            _ => Vec::new(),
        };
        let map = ExtentMap::new(start.id, start.sectors, start.marks);
        let volume = Volume {
            id: start.id,
            splitter: Splitter::new(start.sectors),
            map,
            carried,
            persist_after: None,
        };
        let previous = self.volumes.insert(start.index, volume);
        assert!(previous.is_none(), "a volume index is used once");
    }

    /// Returns what must be durable to start again.
    pub fn record(&self) -> AgentRecord {
        let asked = self.state_in_flight.flatten();
        let volume = |(index, volume): (&VolumeIndex, &Volume)| VolumeRecord {
            index: *index,
            id: volume.id,
            sectors: volume.splitter.sectors(),
            fingerprint: None,
        };
        AgentRecord {
            machine: self.machine,
            generation: self.generation,
            issued: self.sequencer.issued(),
            reserved_until: asked.unwrap_or(self.sequencer.reserved_until()),
            is_clean: self.is_clean,
            is_resync_open: !self.is_exact,
            must_compare_all: self.volumes.values().any(|volume| volume.map.must_compare_all()),
            sealed: self.newest,
            staged: self.staged,
            vaulted: self.vaulted,
            volumes: self.volumes.iter().map(volume).collect(),
        }
    }

    /// Returns whether the opening statement may be sent: everything recovered is in place.
    pub fn may_connect(&self) -> bool {
        let is_settled = !self.is_recovering && !self.new_generation && self.fork.is_none();
        is_settled && !self.volumes.is_empty() && self.newest.seq.0 > 0
    }

    /// Tells whether a marker can be cut now (AG-4).
    pub fn can_mark(&self) -> bool {
        let is_exact = self.is_exact || planted::active(Bug::PointInsideResync);
        is_exact && !self.is_bitmap && !self.is_stopping && !self.is_recapture_pending()
    }

    fn is_recapture_pending(&self) -> bool {
        self.volumes.values().any(|volume| volume.splitter.is_recapture_pending())
    }

    /// Returns the machine.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    /// Returns the generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the volumes for the opening statement.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let info = |(index, volume): (&VolumeIndex, &Volume)| VolumeInfo {
            index: *index,
            id: volume.id,
            sectors: volume.splitter.sectors(),
        };
        self.volumes.iter().map(info).collect()
    }

    /// Returns the first and last sequence held by the spool.
    pub fn held(&self) -> Option<(WriteSeq, WriteSeq)> {
        self.spool.range()
    }

    /// Returns the end of the newest sealed batch.
    pub fn newest(&self) -> BatchPosition {
        self.newest
    }

    /// Returns the newest staged and vaulted positions told by a process server.
    pub fn acknowledged(&self) -> (BatchPosition, BatchPosition) {
        (self.staged, self.vaulted)
    }

    /// Returns the watermarks.
    pub fn watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// Tells whether order is lost.
    pub fn is_bitmap(&self) -> bool {
        self.is_bitmap
    }

    /// Tells whether the stream is exact.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Returns the progress of the open resync.
    pub fn resync_progress(&self) -> Option<Progress> {
        self.planner.as_ref().map(ResyncPlanner::progress)
    }

    /// Returns the bytes held in memory and in spill files.
    pub fn spool_bytes(&self) -> (u64, u64) {
        (self.spool.memory_bytes(), self.spool.spill_bytes())
    }

    /// Returns the extents marked and the blocks dirty, over all volumes.
    pub fn marks(&self) -> (u64, u64) {
        let maps = || self.volumes.values().map(|volume| &volume.map);
        (maps().map(ExtentMap::marked_extents).sum(), maps().map(ExtentMap::dirty_blocks).sum())
    }

    /// Returns since when the oldest change is not staged.
    pub fn unstaged_since(&self) -> Option<Instant> {
        let open = (!self.open.records.is_empty()).then_some(self.open.since);
        self.unstaged.front().map(|(_, since)| *since).or(open)
    }

    /// Tells whether the volume takes another guest operation.
    pub fn has_room(&self, volume: VolumeIndex) -> bool {
        self.volumes.get(&volume).is_some_and(|volume| volume.splitter.has_room())
    }

    /// Returns the size of a volume.
    pub fn sectors(&self, volume: VolumeIndex) -> Option<Sectors> {
        self.volumes.get(&volume).map(|volume| volume.splitter.sectors())
    }

    /// Returns the token for a flush of the volume's disk that is about to be issued, if one would
    /// let extents cool.
    pub fn flush_wanted(&self, volume: VolumeIndex) -> Option<FlushToken> {
        let map = &self.volumes.get(&volume)?.map;
        (map.wants_flush() && map.marked_extents() > 0).then(|| map.flush_issued())
    }

    /// Tells whether a clean stop is complete: nothing in flight, nothing only in memory.
    pub fn is_stopped(&self) -> bool {
        self.is_clean && self.spool.is_all_on_disk() && self.state_in_flight.is_none() && !self.state_wanted
    }
}
