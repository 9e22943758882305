//! Keeps sealed batches, in order, from sealing until they are staged durably.
//!
//! ```text
//! Memory --bound--> Spill (.hrl files, still ordered) --cap or IO error--> Overflow (bitmap mode)
//!   ^------------------drained-------------------'                              |
//!   ^----------------------drained, caller begins a resync---------------------'
//! ```
//!
//! Once a batch is on disk, every later one goes to disk until the spill is drained, so that files hold
//! one run of the stream. A failed spill write keeps its batches in memory, where they still are until
//! their sync, and opens Overflow: order is lost from there, nothing held is dropped, nobody waits.
//!
//! Invariants
//! - SP-1 Batches are held in the order they were pushed and sent in that order in each session.
//! - SP-2 A batch is forgotten only when it is staged durably.
//! - SP-3 The bytes of a batch leave memory only when its spill entry is synced.
//! - SP-4 The guest never waits for the spool: a push is accepted or refused at once.
//! - SP-5 Bytes sent in a session never exceed the session's permits.
//!
//! What is *not* here: sealing, frames, which ranges are dirty, when to cut a batch.

use crate::batch_file::{ENTRY_HEADER_BYTES, FILE_HEADER_BYTES};
use crate::ids::{BatchPosition, Chain, WriteSeq};
use crate::planted::{self, Bug};
use crate::sealed::{SEALED_BYTES_MAX, SealedBatch, SealedMeta};
use bytes::Bytes;
use std::collections::VecDeque;

/// A spill file is closed beyond this size: small enough that removing whole files frees space soon.
pub const SPILL_FILE_BYTES: u64 = 64 << 20;

/// Read-backs in flight or waiting in memory for their turn: enough to keep a disk busy, few enough to bound the memory they need.
pub const READS_MAX: usize = 4;

/// Bounds of one spool.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Bytes of batches held in memory before they spill, read-backs not counted.
    pub memory_bytes: u64,
    /// Bytes of all spill files together; 0 turns spilling off.
    pub spill_bytes: u64,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpillPlace {
    /// File number; numbers are never reused.
    pub file: u64,
    /// Offset of the entry header.
    pub offset: u64,
    /// Bytes of the sealed batch behind the entry header.
    pub bytes: u32,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum SpoolEvent {
    /// A batch was sealed. Answered by `Accepted` or `Refused`.
    Push(SealedBatch),
    /// Everything appended before this [`SpillWork::Sync`] is durable.
    SpillSynced {
        /// The number in the effect.
        ticket: u64,
    },
    /// An append or a sync failed (no space, device error).
    ///
    /// Comes instead of `SpillSynced`, once for each [`SpillWork::Sync`].
    SpillFailed,
    /// A read-back came in and its checksum is right.
    ReadDone {
        /// First sequence of the batch.
        first: WriteSeq,
        /// The sealed batch.
        bytes: Bytes,
    },
    /// A read-back failed or its checksum is wrong: the stream cannot go on past it.
    ReadFailed {
        /// First sequence of the batch.
        first: WriteSeq,
    },
    /// Durable at the process server up to here.
    Staged(WriteSeq),
    /// Cumulative permits of this session, in bytes.
    Permits(u64),
    /// A session started; the caller settled the resume decision and sends what follows `after`.
    SessionUp {
        /// Staged position of the process server.
        after: WriteSeq,
        /// First permits.
        permits_total: u64,
    },
    /// The session ended.
    SessionDown,
    /// A clean stop: everything in memory goes to disk.
    SpillAll,
}

/// Work on the spill files. The shell does it in order, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpillWork {
    /// Create the file and write its header.
    Create {
        /// File number.
        file: u64,
    },
    /// Write an entry.
    Append {
        /// Where.
        place: SpillPlace,
        /// The sealed batch.
        bytes: Bytes,
    },
    /// Sync all files appended to; answer with `SpillSynced` or `SpillFailed`.
    Sync {
        /// To be returned.
        ticket: u64,
    },
    /// Read an entry and check it; answer with `ReadDone` or `ReadFailed`.
    Read {
        /// Where.
        place: SpillPlace,
        /// First sequence of the batch.
        first: WriteSeq,
    },
    /// Remove a file whose batches are all staged.
    Remove {
        /// File number.
        file: u64,
    },
}

/// What the caller does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolEffect {
    /// The pushed batch is held.
    Accepted,
    /// The pushed batch is not held: mark its ranges dirty and stop pushing until `Drained`.
    Refused,
    /// Work on the spill files.
    Spill(SpillWork),
    /// Send the batch.
    Send(SealedBatch),
    /// The spool stops accepting: bitmap mode begins.
    Overflow,
    /// The spool is empty after an overflow: it accepts again, and the caller begins the resync.
    Drained,
    /// A held batch cannot be read back. The caller marks the ranges of everything from `first` on, calls
    /// [`Spool::abandon`] and begins a resync.
    Lost {
        /// First sequence held: batches before the unreadable one may not be staged yet either.
        first: WriteSeq,
    },
}

/// What an agent does after the process server said what is staged. See [`Spool::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Send what follows `after`.
    From {
        /// The staged position.
        after: WriteSeq,
    },
    /// The process server has sequences this agent never sealed (it lost its own newest ones): jump
    /// over them, begin a resync.
    AlreadyAhead {
        /// The staged sequence; new sequences start above it.
        staged: WriteSeq,
    },
    /// What follows the staged position was forgotten or never held: mark the ranges, begin a resync.
    Gap {
        /// First sequence that is missing.
        from: WriteSeq,
    },
    /// The histories differ at the staged position: begin a resync above both.
    Fork,
}

/// Decides how to go on. Rows are tried by tests for "exactly one matches".
///
/// | staged against held and newest | chain | decision |
/// |---|---|---|
/// | above newest | | AlreadyAhead |
/// | equals newest | equal | From |
/// | equals newest | differs | Fork |
/// | below newest, inside a held batch | | Fork |
/// | below newest, the next held batch begins right after it | equal to its `prev` | From |
/// | below newest, the next held batch begins right after it | differs from its `prev` | Fork |
/// | below newest, the next held batch begins later and opens a resync | equal to its `prev` | From |
/// | below newest, the next held batch begins later and opens a resync | differs from its `prev` | Gap |
/// | below newest, the next held batch begins later and opens no resync | | Gap |
/// | below newest, nothing held is above it | | Gap |
///
/// A batch that opens a resync gets no more trust than another: what lies between the staged position and
/// its `prev` may be data that the process server lost after this agent forgot it, and the resync, begun
/// before that loss, does not copy it. The resync that answers a gap, a fork or `AlreadyAhead` is sealed
/// onto the staged chain, so that the next session finds it equal.
pub fn resume(staged: BatchPosition, newest: BatchPosition, held: &[SealedMeta]) -> Resume {
    let after = staged.seq;
    if after >= newest.seq {
        return match (after == newest.seq, staged.chain == newest.chain) {
            (false, _) => Resume::AlreadyAhead { staged: after },
            (true, true) => Resume::From { after },
            (true, false) => Resume::Fork,
        };
    }
    let Some(next) = held.iter().find(|meta| meta.last > after) else {
        return Resume::Gap { from: after.next() };
    };
    if next.first <= after {
        return Resume::Fork;
    }
    let continues = next.first == after.next();
    match (continues, next.prev == staged.chain) {
        (true, true) => Resume::From { after },
        (true, false) => Resume::Fork,
        // Burnt sequences lie only in front of a batch that opens a resync.
        (false, true) if next.flags.starts_resync() => Resume::From { after },
        (false, _) => Resume::Gap { from: after.next() },
    }
}

/// Tells whether a batch is the next one sealed after `before` (CH-2).
fn follows(batch: &SealedMeta, before: &SealedMeta) -> bool {
    let jumps = batch.flags.starts_resync() && batch.first > before.last;
    batch.prev == before.chain && (jumps || batch.first == before.last.next())
}

#[derive(Debug)]
enum Body {
    Memory(Bytes),
    /// Written, not synced: the bytes stay (SP-3).
    Writing(Bytes, SpillPlace, u64),
    Disk(SpillPlace),
    Reading(SpillPlace),
    Read(Bytes, SpillPlace),
}

#[derive(Debug)]
struct Held {
    meta: SealedMeta,
    body: Body,
    sent: bool,
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Spool {
    limits: SpoolLimits,
    held: VecDeque<Held>,
    memory_bytes: u64,
    /// Files that exist, each with its length.
    files: VecDeque<(u64, u64)>,
    stale_files: Vec<u64>,
    unused_batches: usize,
    /// The file that later entries may be appended to.
    open_file: Option<u64>,
    next_file: u64,
    next_ticket: u64,
    sync_in_flight: Option<u64>,
    spill_failed: bool,
    overflow: bool,
    session: Option<Session>,
    lost: bool,
}

#[derive(Debug)]
struct Session {
    after: WriteSeq,
    sent_bytes: u64,
    permits_total: u64,
}

impl Spool {
    /// Makes an empty spool. `next_file` is above every file number ever used.
    pub fn new(limits: SpoolLimits, next_file: u64) -> Spool {
        Spool {
            limits,
            held: VecDeque::new(),
            memory_bytes: 0,
            files: VecDeque::new(),
            stale_files: Vec::new(),
            unused_batches: 0,
            open_file: None,
            next_file,
            next_ticket: 1,
            sync_in_flight: None,
            spill_failed: false,
            overflow: false,
            session: None,
            lost: false,
        }
    }

    /// Takes over what a scan found after a restart: files with their usable length, oldest first, and the
    /// batches in them. Later batches go to new files. The shell syncs the files it scanned first: what a
    /// crashed process wrote may be in the page cache only, and all of this counts as durable (SP-3).
    ///
    /// Only the first run of batches that continue each other is used; a power loss may keep a newer file
    /// and not the end of the one before. Files behind the run are removed in the next step. If
    /// [`Spool::unused_batches`] is not zero, the stop was unclean, whatever a record says.
    pub fn recover(
        limits: SpoolLimits,
        mut files: Vec<(u64, u64)>,
        mut batches: Vec<(SealedMeta, SpillPlace)>,
    ) -> Spool {
        let breaks = batches.windows(2).position(|pair| !follows(&pair[1].0, &pair[0].0));
        let unused = batches.split_off(breaks.map_or(batches.len(), |index| index + 1));
        let next_file = files.iter().map(|(file, _)| file + 1).max().unwrap_or(0);
        let mut spool = Spool::new(limits, next_file);
        spool.unused_batches = unused.len();
        if let (false, Some((_, last))) = (unused.is_empty(), batches.last()) {
            let stale = files.extract_if(.., |(file, _)| *file > last.file);
            spool.stale_files = stale.map(|(file, _)| file).collect();
        }
        spool.files = files.into();
        spool.held = batches
            .into_iter()
            .map(|(meta, place)| Held { meta, body: Body::Disk(place), sent: false })
            .collect();
        spool.check();
        spool
    }

    /// Returns the number of batches that [`Spool::recover`] found behind a break of the order.
    pub fn unused_batches(&self) -> usize {
        self.unused_batches
    }

    /// Returns the clear headers held, oldest first; the argument of [`resume`].
    pub fn held(&self) -> Vec<SealedMeta> {
        self.held.iter().map(|held| held.meta).collect()
    }

    /// Returns the first and last sequence held.
    pub fn range(&self) -> Option<(WriteSeq, WriteSeq)> {
        Some((self.held.front()?.meta.first, self.held.back()?.meta.last))
    }

    /// Returns the chain of the newest batch held.
    pub fn newest(&self) -> Option<(WriteSeq, Chain)> {
        self.held.back().map(|held| (held.meta.last, held.meta.chain))
    }

    /// Tells whether the spool refuses batches (bitmap mode).
    pub fn is_overflowing(&self) -> bool {
        self.overflow
    }

    /// Returns the bytes of batches held only in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Returns the bytes of all spill files.
    pub fn spill_bytes(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }

    /// Tells whether every batch held is durable on disk; true after `SpillAll` and its sync.
    pub fn is_all_on_disk(&self) -> bool {
        self.held.iter().all(|held| !matches!(held.body, Body::Memory(_) | Body::Writing(..)))
    }

    /// Decides how to go on after a `Welcome`.
    pub fn resume(&self, staged: BatchPosition, newest: BatchPosition) -> Resume {
        resume(staged, newest, &self.held())
    }

    /// Gives up everything held, after the caller marked its ranges dirty and durably so: a fork, a gap
    /// or a lost read-back made it useless. Removes all files.
    pub fn abandon(&mut self, effects: &mut Vec<SpoolEffect>) {
        self.held.clear();
        self.memory_bytes = 0;
        self.lost = false;
        self.drain(effects);
        self.check();
    }

    /// Takes one event.
    pub fn step(&mut self, event: SpoolEvent, effects: &mut Vec<SpoolEffect>) {
        effects.extend(self.stale_files.drain(..).map(|file| SpoolEffect::Spill(SpillWork::Remove { file })));
        match event {
            SpoolEvent::Push(batch) => self.on_push(batch, effects),
            SpoolEvent::SpillSynced { ticket } => self.on_synced(ticket, effects),
            SpoolEvent::SpillFailed => self.on_spill_failed(effects),
            SpoolEvent::ReadDone { first, bytes } => self.on_read(first, bytes),
            SpoolEvent::ReadFailed { first } => self.on_read_failed(first, effects),
            SpoolEvent::Staged(seq) => self.on_staged(seq, effects),
            SpoolEvent::Permits(total) => {
                if let Some(session) = &mut self.session {
                    session.permits_total = session.permits_total.max(total);
                }
            }
            SpoolEvent::SessionUp { after, permits_total } => {
                self.held.iter_mut().for_each(|held| held.sent = false);
                self.session = Some(Session { after, sent_bytes: 0, permits_total });
                self.on_staged(after, effects);
            }
            SpoolEvent::SessionDown => self.on_session_down(),
            SpoolEvent::SpillAll => self.spill_memory(0, effects),
        }
        if self.held.is_empty() && self.overflow {
            self.drain(effects);
        }
        self.send(effects);
        self.check();
    }

    fn on_push(&mut self, batch: SealedBatch, effects: &mut Vec<SpoolEffect>) {
        if self.overflow {
            effects.push(SpoolEffect::Refused);
            return;
        }
        if let Some(newest) = self.held.back() {
            let in_order = batch.meta.first == newest.meta.last.next()
                || (batch.meta.first > newest.meta.last && batch.meta.flags.starts_resync());
            assert!(in_order, "SP-1: {:?} pushed after {:?}", batch.meta, newest.meta);
        }
        self.memory_bytes += u64::from(batch.meta.bytes);
        self.held.push_back(Held { meta: batch.meta, body: Body::Memory(batch.bytes), sent: false });
        effects.push(SpoolEffect::Accepted);
        let spilling = self.held.iter().any(|held| !matches!(held.body, Body::Memory(_)));
        if spilling && !self.spill_failed {
            self.spill_memory(0, effects);
        } else {
            self.spill_memory(self.limits.memory_bytes, effects);
        }
        // Bytes being written count until their sync; twice the bound means that the disk cannot follow.
        if self.memory_bytes > self.limits.memory_bytes.saturating_mul(2) {
            self.overflow_now(effects);
        }
    }

    /// Writes everything in memory to disk once memory holds more than `bound`.
    fn spill_memory(&mut self, bound: u64, effects: &mut Vec<SpoolEffect>) {
        if self.memory_bytes <= bound || self.sync_in_flight.is_some() {
            return;
        }
        let ticket = self.next_ticket;
        let mut written = false;
        for index in 0..self.held.len() {
            let Body::Memory(bytes) = &self.held[index].body else { continue };
            let bytes = bytes.clone();
            let Some(place) = (if self.spill_failed { None } else { self.place(bytes.len(), effects) })
            else {
                self.overflow_now(effects);
                break;
            };
            effects.push(SpoolEffect::Spill(SpillWork::Append { place, bytes: bytes.clone() }));
            self.held[index].body = Body::Writing(bytes, place, ticket);
            written = true;
        }
        if written {
            self.next_ticket += 1;
            self.sync_in_flight = Some(ticket);
            effects.push(SpoolEffect::Spill(SpillWork::Sync { ticket }));
        }
    }

    fn place(&mut self, bytes: usize, effects: &mut Vec<SpoolEffect>) -> Option<SpillPlace> {
        let entry = (ENTRY_HEADER_BYTES + bytes) as u64;
        let fits = |length: u64| length + entry <= SPILL_FILE_BYTES.max(SEALED_BYTES_MAX as u64 * 2);
        let unbounded = planted::active(Bug::UnboundedSpill);
        let bound = if unbounded { u64::MAX } else { self.limits.spill_bytes };
        let room = bound.saturating_sub(self.spill_bytes());
        // A file found after a restart is never appended to: its tail may be torn.
        let open = self.files.back().copied();
        let open = open.filter(|(file, length)| self.open_file == Some(*file) && fits(*length));
        let (file, offset) = match open {
            Some(_) if entry > room => return None,
            Some((file, length)) => (file, length),
            None if entry + FILE_HEADER_BYTES as u64 > room => return None,
            None => {
                let file = self.next_file;
                self.next_file += 1;
                self.open_file = Some(file);
                effects.push(SpoolEffect::Spill(SpillWork::Create { file }));
                self.files.push_back((file, FILE_HEADER_BYTES as u64));
                (file, FILE_HEADER_BYTES as u64)
            }
        };
        if let Some(back) = self.files.back_mut() {
            back.1 = offset + entry;
        }
        Some(SpillPlace { file, offset, bytes: bytes as u32 })
    }

    fn overflow_now(&mut self, effects: &mut Vec<SpoolEffect>) {
        if !self.overflow {
            self.overflow = true;
            effects.push(SpoolEffect::Overflow);
        }
    }

    fn on_synced(&mut self, ticket: u64, effects: &mut Vec<SpoolEffect>) {
        if self.sync_in_flight != Some(ticket) {
            return;
        }
        self.sync_in_flight = None;
        for held in &mut self.held {
            if let Body::Writing(_, place, with) = &held.body
                && *with == ticket
            {
                let place = *place;
                held.body = Body::Disk(place);
                self.memory_bytes -= u64::from(held.meta.bytes);
            }
        }
        self.remove_files(effects);
        let on_disk = self.held.iter().any(|held| !matches!(held.body, Body::Memory(_)));
        self.spill_memory(if on_disk { 0 } else { self.limits.memory_bytes }, effects);
    }

    /// After a failed sync nothing unsynced is known to be durable; memory still has it.
    fn on_spill_failed(&mut self, effects: &mut Vec<SpoolEffect>) {
        if self.sync_in_flight.take().is_none() {
            // The end of a sync that `drain` gave up, with all of its files.
            return;
        }
        self.spill_failed = true;
        for held in &mut self.held {
            if let Body::Writing(bytes, ..) = &held.body {
                held.body = Body::Memory(bytes.clone());
            }
        }
        self.overflow_now(effects);
        // The files may end in garbage: never append to the newest one again.
        self.open_file = None;
    }

    fn on_read(&mut self, first: WriteSeq, bytes: Bytes) {
        if let Some(held) = self.held.iter_mut().find(|held| held.meta.first == first)
            && let Body::Reading(place) = held.body
        {
            held.body = Body::Read(bytes, place);
        }
    }

    fn on_read_failed(&mut self, first: WriteSeq, effects: &mut Vec<SpoolEffect>) {
        let is_known = self.held.iter().any(|held| held.meta.first == first);
        if let (Some(oldest), true, false) = (self.held.front(), is_known, self.lost) {
            self.lost = true;
            effects.push(SpoolEffect::Lost { first: oldest.meta.first });
        }
    }

    fn on_session_down(&mut self) {
        self.session = None;
        for held in &mut self.held {
            held.sent = false;
            if let Body::Read(_, place) = held.body {
                held.body = Body::Disk(place);
            }
        }
    }

    fn on_staged(&mut self, seq: WriteSeq, effects: &mut Vec<SpoolEffect>) {
        while self.held.front().is_some_and(|held| held.meta.last <= seq) {
            self.forget_oldest();
        }
        self.remove_files(effects);
    }

    /// SP-2: called for staged batches only (and by the planted bug).
    fn forget_oldest(&mut self) {
        if let Some(held) = self.held.pop_front()
            && matches!(held.body, Body::Memory(_) | Body::Writing(..))
        {
            self.memory_bytes -= u64::from(held.meta.bytes);
        }
    }

    fn remove_files(&mut self, effects: &mut Vec<SpoolEffect>) {
        if self.sync_in_flight.is_some() {
            return;
        }
        let place = |held: &Held| match &held.body {
            Body::Memory(_) => None,
            Body::Writing(_, place, _) | Body::Disk(place) | Body::Reading(place) | Body::Read(_, place) => {
                Some(place.file)
            }
        };
        let needed = self.held.iter().find_map(place);
        while self.files.front().is_some_and(|(file, _)| needed.is_none_or(|needed| *file < needed)) {
            if let Some((file, _)) = self.files.pop_front() {
                effects.push(SpoolEffect::Spill(SpillWork::Remove { file }));
            }
        }
    }

    fn drain(&mut self, effects: &mut Vec<SpoolEffect>) {
        self.sync_in_flight = None;
        self.remove_files(effects);
        self.spill_failed = false;
        if std::mem::take(&mut self.overflow) {
            effects.push(SpoolEffect::Drained);
        }
    }

    fn send(&mut self, effects: &mut Vec<SpoolEffect>) {
        let Some(session) = &mut self.session else { return };
        let is_read = |held: &&Held| matches!(held.body, Body::Reading(_) | Body::Read(..));
        let mut reads = self.held.iter().filter(is_read).count();
        let mut in_order = true;
        let mut ahead = 0;
        let mut forget = 0;
        for held in self.held.iter_mut().filter(|held| !held.sent && held.meta.last > session.after) {
            let size = u64::from(held.meta.bytes);
            if self.lost || session.sent_bytes + ahead + size > session.permits_total {
                break;
            }
            if let Body::Disk(place) = held.body {
                // The next one to send is always read: those of an earlier session may fill the bound.
                if reads >= READS_MAX && !in_order {
                    break;
                }
                effects.push(SpoolEffect::Spill(SpillWork::Read { place, first: held.meta.first }));
                held.body = Body::Reading(place);
                reads += 1;
            }
            let bytes = match &held.body {
                Body::Memory(bytes) | Body::Writing(bytes, ..) | Body::Read(bytes, _) if in_order => {
                    bytes.clone()
                }
                _ => {
                    // SP-1: read ahead, but send nothing that would overtake.
                    in_order = false;
                    ahead += size;
                    continue;
                }
            };
            if let Body::Read(_, place) = held.body {
                held.body = Body::Disk(place);
                reads -= 1;
            }
            held.sent = true;
            session.sent_bytes += size;
            forget += 1;
            effects.push(SpoolEffect::Send(SealedBatch { meta: held.meta, bytes }));
        }
        if planted::active(Bug::ForgetAfterSend) {
            (0..forget).for_each(|_| self.forget_oldest());
        }
    }

    fn check(&self) {
        let memory: u64 = self
            .held
            .iter()
            .filter(|held| matches!(held.body, Body::Memory(_) | Body::Writing(..)))
            .map(|held| u64::from(held.meta.bytes))
            .sum();
        assert_eq!(memory, self.memory_bytes, "SP-3: memory is counted exactly");
        if let Some(session) = &self.session {
            assert!(session.sent_bytes <= session.permits_total, "SP-5: sent beyond the permits");
        }
        let mut pairs = self.held.iter().zip(self.held.iter().skip(1));
        assert!(pairs.all(|(a, b)| a.meta.last < b.meta.first), "SP-1: batches are held in order");
    }
}
