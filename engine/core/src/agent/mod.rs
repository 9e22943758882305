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
//!   in the spill; nothing is stamped behind it, and no flush of this run failed or is under way.
//! - AG-9 A record of a clean stop tells of each volume what its disk held when nobody could write to it any more: who
//!   writes before the next start is found by it (R-8).
//!
//! What is *not* here: IO, frames, cryptography (a [`Sealer`] is handed in), names of files.

mod capture;
mod events;
mod marks;
mod recovery;
mod rest;
mod stream;
mod upkeep;
mod view;

pub use events::{AgentEffect, AgentEvent, Note};
pub use marks::{ASK_MARKS_AGAIN, LOG_GIVE_UP_AFTER, LOG_SLOW_AFTER};
pub use rest::Rest;

use crate::agent_state::AgentRecord;
use crate::change::{Batch, Record, ResyncReason};
use crate::extent_map::{ExtentMap, StartMarks};
use crate::ids::{BatchPosition, Chain, Generation, MachineId, VolumeId, VolumeIndex, WriteSeq};
use crate::markers::MarkerCutter;
use crate::resync::{Progress, ResyncPlanner};
use crate::sealed::{SealedBatch, SealedMeta};
use crate::sequencer::Sequencer;
use crate::splitter::{Effect as SplitEffect, IoId, Splitter};
use crate::spool::{SpillPlace, Spool, SpoolLimits};
use crate::time::Instant;
use crate::units::{Extent, Sectors};
use crate::watermarks::Watermarks;
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
    /// Since when marks are on their way to the log; attempts that failed count on.
    pub(crate) persist_since: Option<Instant>,
    /// A flush failed that no guest was told of.
    pub(crate) owes_flush_error: bool,
    /// Flushes of the guest under way: each may bring the error that another one should have brought.
    pub(crate) guest_flushes: u32,
    /// Digest of the content that a clean stop leaves behind.
    pub(crate) fingerprint: Option<[u8; 32]>,
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
    Resync { run: Extent, epoch: u64 },
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
    /// How far the newest resync came.
    progress: Progress,
    /// The first copy of some volume is not complete in the vault.
    is_initial: bool,
    /// Last sequence of the newest resync, until it is in the vault: before that nothing is promised.
    settling: Option<WriteSeq>,
    /// The next resync is this run's first one again, behind what the process server holds.
    is_begun_again: bool,
    /// Resizes that wait for their log and record.
    resizes: Vec<upkeep::HeldResize>,
    marks_state: marks::MarksState,
    epoch: u64,
    internal: BTreeMap<IoId, Internal>,
    /// Changes that are on the disk, with the sectors told to the extent map.
    started: BTreeMap<IoId, Extent>,
    /// Taken by each step of a splitter and given back empty: a write allocates none.
    split_effects: Vec<SplitEffect>,
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
            progress: Progress::default(),
            is_initial: record.is_initial,
            settling: (record.is_initial && start.resync.is_none()).then_some(issued),
            is_begun_again: false,
            resizes: Vec::new(),
            marks_state: marks::MarksState::new(record.marks_number, &start.volumes),
            epoch: 0,
            internal: BTreeMap::new(),
            started: BTreeMap::new(),
            split_effects: Vec::new(),
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
        let is_needless = matches!(event, AgentEvent::Tick) && self.rest(now) != Rest::None;
        let before = effects.len();
        match event {
            AgentEvent::Submit { volume, io, op } => self.on_submit(now, volume, io, op, effects),
            AgentEvent::Done { volume, io, result, payload } => {
                self.on_done(now, volume, io, result, payload, effects);
            }
            AgentEvent::ResyncRead { volume, io, result } => {
                self.on_resync_read(now, volume, io, result, effects);
            }
            AgentEvent::Persisted { volume, ok } => self.on_persisted(now, volume, ok, effects),
            AgentEvent::Flushed { volume, token } => self.on_flushed(volume, token),
            AgentEvent::FlushFailed { volume, is_told } => self.on_flush_failed(volume, is_told),
            AgentEvent::Cool { volume } => self.on_cool(now, volume),
            AgentEvent::StateWritten { ok } => self.on_state_written(now, ok, effects),
            AgentEvent::SpillSynced { ticket } => self.on_spill_synced(now, ticket, effects),
            AgentEvent::SpillFailed { ticket } => self.on_spill_failed(now, ticket, effects),
            AgentEvent::SpillRead { first, bytes } => self.on_spill_read(now, first, bytes, effects),
            AgentEvent::Welcome(welcome) => self.on_welcome(now, welcome, effects),
            AgentEvent::Ack { staged, vaulted, permits_total } => {
                self.on_ack(now, staged, vaulted, permits_total, effects);
            }
            AgentEvent::Hashes(reply) => self.on_hashes(now, reply, effects),
            AgentEvent::Marks(reply) => self.on_marks(now, reply, effects),
            AgentEvent::SessionDown => self.on_session_down(now, effects),
            AgentEvent::CutMarker(marker) => self.on_cut_marker(now, marker, effects),
            AgentEvent::Tick => self.on_tick(now, effects),
            AgentEvent::Stop => self.on_stop(now, effects),
            AgentEvent::Fingerprint { volume, digest } => self.on_fingerprint(volume, digest),
        }
        self.settle(now, effects);
        assert!(!is_needless || effects.len() == before, "AG-8: a tick at rest had effects");
        assert!(!self.is_bitmap || self.open.records.is_empty(), "AG-2: a record entered without order");
    }

    /// Returns a name for the next operation.
    pub fn next_io(&mut self) -> IoId {
        self.next_io += 1;
        IoId(self.next_io)
    }

    /// Adds a volume; its content is copied from scratch unless its marks say otherwise. The record of
    /// names that gives it its index must be durable before.
    pub fn add_volume(&mut self, volume: VolumeStart, reason: ResyncReason) {
        self.insert_volume(volume);
        self.state_wanted = true;
        self.want_resync(reason);
    }

    /// Somebody found that the vault cannot be read in these sectors, or doubts them: they are compared, and
    /// sent where the vault does not have them. What is not of a volume's size is left out. A resync that is
    /// under way is begun again, so that nothing it learnt before counts. Returns how many sectors it takes.
    pub fn resync(&mut self, ranges: &[(VolumeIndex, Extent)]) -> u64 {
        let mut taken = 0;
        for (index, extent) in ranges {
            let Some(volume) = self.volumes.get_mut(index) else { continue };
            let end = extent.end().min(volume.map.sectors().0);
            if extent.lba.0 < end {
                taken += end - extent.lba.0;
                volume.map.dirty_sectors(Extent::new(extent.lba.0, end - extent.lba.0));
            }
        }
        if taken > 0 && self.pending_resync.is_none() {
            self.want_resync(ResyncReason::Requested);
        }
        taken
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
            persist_since: None,
            owes_flush_error: false,
            guest_flushes: 0,
            fingerprint: None,
        };
        let previous = self.volumes.insert(start.index, volume);
        assert!(previous.is_none(), "a volume index is used once");
    }
}

#[cfg(test)]
mod tests;
