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
//! - SP-4 The guest never waits for the spool: a push is accepted or refused at once, and a step costs
//!   the same however much is held.
//! - SP-5 What is sent in a session exceeds neither the session's permits nor [`IN_FLIGHT_BATCHES_MAX`].
//! - SP-6 Held batches on disk precede those being written, and these precede those in memory.
//! - SP-7 At most [`HELD_BATCHES_MAX`] batches are held; memory holds at most twice its bound and one batch.
//! - SP-8 While a sync has no answer nothing more is written, however often the spool is drained meanwhile: a
//!   spill that hangs keeps what it was given once, and no more.
//!
//! Parts: what goes in and out (`events`), the queue (`held`), the files (`files`), what leaves (`sending`),
//! how a session begins (`resume`), what a restart takes over (`recover`).
//!
//! What is *not* here: sealing, frames, which ranges are dirty, when to cut a batch.
//! Source: ours; R-1, R-4, R-5 and R-14 of the domain rules.

mod events;
mod files;
mod held;
mod recover;
mod resume;
mod sending;

pub use events::{SpillPlace, SpillWork, SpoolEffect, SpoolEvent, SpoolLimits};
pub use files::{FILES_PER_SPILL, SPILL_FILE_BYTES};
pub use resume::{Resume, resume};
pub use sending::{IN_FLIGHT_BATCHES_MAX, READS_MAX};

use crate::ids::{BatchPosition, WriteSeq};
use crate::sealed::{SealedBatch, SealedMeta};
use files::SpillFiles;
use held::{Body, Queue};
use sending::Session;

/// Batches held at once: some 200 MB of headers in memory, and 256 GiB of full batches. Beyond it order is
/// given up, as at the cap of the spill.
pub const HELD_BATCHES_MAX: usize = 1 << 20;

/// Held batches whose check one step pays for: up to here the whole queue is checked in every step.
const CHECKED_PER_STEP: usize = 16;

/// The machine. See the module.
#[derive(Debug)]
pub struct Spool {
    limits: SpoolLimits,
    held: Queue,
    files: SpillFiles,
    next_ticket: u64,
    sync_in_flight: Option<u64>,
    /// A sync that `drain` gave up and that has not ended: nothing is written behind it (SP-8).
    sync_given_up: Option<u64>,
    spill_failed: bool,
    overflow: bool,
    session: Option<Session>,
    lost: bool,
    unchecked_steps: usize,
}

impl Spool {
    /// Makes an empty spool. `next_file` is above the number of every file in the directory.
    pub fn new(limits: SpoolLimits, next_file: u64) -> Spool {
        Spool {
            limits,
            held: Queue::default(),
            files: SpillFiles::new(limits.spill_bytes, next_file),
            next_ticket: 1,
            sync_in_flight: None,
            sync_given_up: None,
            spill_failed: false,
            overflow: false,
            session: None,
            lost: false,
            unchecked_steps: 0,
        }
    }

    /// Returns the clear headers held, oldest first. Copies them all: for the start and for tests.
    pub fn held(&self) -> Vec<SealedMeta> {
        self.held.metas().collect()
    }

    /// Returns the first and last sequence held.
    pub fn range(&self) -> Option<(WriteSeq, WriteSeq)> {
        Some((self.held.front()?.meta.first, self.held.back()?.meta.last))
    }

    /// Tells whether the spool refuses batches (bitmap mode).
    pub fn is_overflowing(&self) -> bool {
        self.overflow
    }

    /// Returns the bytes of batches held only in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.held.memory_bytes()
    }

    /// Returns the bytes of all spill files.
    pub fn spill_bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// Tells whether every batch held is durable on disk; true after `SpillAll` and its sync.
    pub fn is_all_on_disk(&self) -> bool {
        self.held.back().is_none_or(|newest| newest.body.is_on_disk())
    }

    /// Decides how to go on after a `Welcome`.
    pub fn resume(&self, staged: BatchPosition, newest: BatchPosition) -> Resume {
        resume(staged, newest, self.held.metas())
    }

    /// Gives up everything held, after the caller marked its ranges dirty and durably so: a fork, a gap
    /// or a lost read-back made it useless. Removes all files.
    pub fn abandon(&mut self, effects: &mut Vec<SpoolEffect>) {
        self.held.clear();
        self.lost = false;
        self.drain(effects);
        self.check();
    }

    /// Takes one event.
    pub fn step(&mut self, event: SpoolEvent, effects: &mut Vec<SpoolEffect>) {
        effects.extend(self.files.take_stale().map(|file| SpoolEffect::Spill(SpillWork::Remove { file })));
        match event {
            SpoolEvent::Push(batch) => self.on_push(batch, effects),
            SpoolEvent::SpillSynced { ticket } => self.on_synced(ticket, effects),
            SpoolEvent::SpillFailed { ticket } => self.on_spill_failed(ticket, effects),
            SpoolEvent::ReadDone { first, bytes } => self.held.take_read(first, bytes),
            SpoolEvent::ReadFailed { first } => self.on_read_failed(first, effects),
            SpoolEvent::Staged(seq) => self.on_staged(seq, effects),
            SpoolEvent::Permits(total) => {
                if let Some(session) = &mut self.session {
                    session.permits_total = session.permits_total.max(total);
                }
            }
            SpoolEvent::SessionUp { after, permits_total } => {
                self.held.end_session();
                self.session = Some(Session { sent_bytes: 0, permits_total });
                self.on_staged(after, effects);
            }
            SpoolEvent::SessionDown => {
                self.session = None;
                self.held.end_session();
            }
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
        self.held.push(batch);
        effects.push(SpoolEffect::Accepted);
        self.spill_memory(self.memory_bound(), effects);
        // Bytes being written count until their sync; twice the bound means that the disk cannot follow.
        let is_memory_full = self.held.memory_bytes() > self.limits.memory_bytes.saturating_mul(2);
        if is_memory_full || self.held.len() >= HELD_BATCHES_MAX {
            self.overflow_now(effects);
        }
    }

    /// Returns the bytes that may stay in memory: none while older batches are on disk.
    fn memory_bound(&self) -> u64 {
        let is_spilling = self.held.front().is_some_and(|oldest| !matches!(oldest.body, Body::Memory(_)));
        if is_spilling && !self.spill_failed { 0 } else { self.limits.memory_bytes }
    }

    /// Writes everything in memory to disk once memory holds more than `bound`.
    fn spill_memory(&mut self, bound: u64, effects: &mut Vec<SpoolEffect>) {
        if self.held.memory_bytes() <= bound || self.sync_in_flight.or(self.sync_given_up).is_some() {
            return;
        }
        let ticket = self.next_ticket;
        let (mut is_written, mut is_full) = (false, false);
        for held in self.held.only_in_memory() {
            let Body::Memory(bytes) = &held.body else { continue };
            let bytes = bytes.clone();
            let place = if self.spill_failed { None } else { self.files.place(bytes.len(), effects) };
            let Some(place) = place else {
                is_full = true;
                break;
            };
            effects.push(SpoolEffect::Spill(SpillWork::Append { place, bytes: bytes.clone() }));
            held.body = Body::Writing(bytes, place, ticket);
            is_written = true;
        }
        if is_full {
            self.overflow_now(effects);
        }
        if is_written {
            self.next_ticket += 1;
            self.sync_in_flight = Some(ticket);
            effects.push(SpoolEffect::Spill(SpillWork::Sync { ticket }));
        }
    }

    fn overflow_now(&mut self, effects: &mut Vec<SpoolEffect>) {
        if !self.overflow {
            self.overflow = true;
            effects.push(SpoolEffect::Overflow);
        }
    }

    /// A sync that was given up ended, one way or the other; its files are gone.
    fn is_late_end(&mut self, ticket: u64, effects: &mut Vec<SpoolEffect>) -> bool {
        let is_late = self.sync_given_up.take_if(|given_up| *given_up == ticket).is_some();
        if is_late {
            self.spill_memory(self.memory_bound(), effects);
        }
        is_late
    }

    fn on_synced(&mut self, ticket: u64, effects: &mut Vec<SpoolEffect>) {
        if self.is_late_end(ticket, effects) || self.sync_in_flight != Some(ticket) {
            return;
        }
        self.sync_in_flight = None;
        self.held.settle_written(ticket);
        self.remove_files(effects);
        self.spill_memory(self.memory_bound(), effects);
    }

    /// After a failed sync nothing unsynced is known to be durable; memory still has it.
    fn on_spill_failed(&mut self, ticket: u64, effects: &mut Vec<SpoolEffect>) {
        if self.is_late_end(ticket, effects) || self.sync_in_flight != Some(ticket) {
            return;
        }
        self.sync_in_flight = None;
        self.spill_failed = true;
        self.held.take_back_written();
        self.overflow_now(effects);
        self.files.close();
    }

    fn on_read_failed(&mut self, first: WriteSeq, effects: &mut Vec<SpoolEffect>) {
        if let (Some(oldest), true, false) = (self.held.front(), self.held.contains(first), self.lost) {
            self.lost = true;
            effects.push(SpoolEffect::Lost { first: oldest.meta.first });
        }
    }

    fn on_staged(&mut self, seq: WriteSeq, effects: &mut Vec<SpoolEffect>) {
        while self.held.front().is_some_and(|held| held.meta.last <= seq) {
            self.held.forget_oldest();
        }
        self.remove_files(effects);
    }

    /// Removes files that hold nothing needed. While a sync is under way its files stay.
    fn remove_files(&mut self, effects: &mut Vec<SpoolEffect>) {
        if self.sync_in_flight.is_none() {
            let needed = self.held.front().and_then(|oldest| oldest.body.place()).map(|place| place.file);
            let removed = self.files.take_below(needed);
            effects.extend(removed.map(|file| SpoolEffect::Spill(SpillWork::Remove { file })));
        }
    }

    fn drain(&mut self, effects: &mut Vec<SpoolEffect>) {
        self.sync_given_up = self.sync_in_flight.take().or(self.sync_given_up);
        self.remove_files(effects);
        self.spill_failed = false;
        if std::mem::take(&mut self.overflow) {
            effects.push(SpoolEffect::Drained);
        }
    }

    fn check(&mut self) {
        // A long queue is walked so rarely that the walk costs each step the same (SP-4).
        self.unchecked_steps += 1;
        if self.unchecked_steps >= self.held.len() / CHECKED_PER_STEP {
            self.unchecked_steps = 0;
            self.held.check();
        }
        if let Some(session) = &self.session {
            assert!(session.sent_bytes <= session.permits_total, "SP-5: sent beyond the permits");
            assert!(self.held.sent() <= IN_FLIGHT_BATCHES_MAX, "SP-5: too many batches in flight");
        }
    }
}
