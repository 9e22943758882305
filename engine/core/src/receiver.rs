//! The process server's side: takes one machine's stream, stages it, has it committed.
//!
//! Invariants
//! - RC-1 What is appended is one gapless run of the stream, except before a batch that opens a resync.
//! - RC-2 `Ack.staged` never passes what a finished stage sync covers.
//! - RC-3 A session of a generation below the highest ever seen is refused; that highest is durable before
//!   its `Welcome`.
//! - RC-4 One session per machine: a new one with a right proof ends the old one.
//! - RC-5 Batches are committed in order; `accepted >= durable >= vaulted`.
//! - RC-6 Permits never promise more than the free stage: a full stage slows this agent and nobody else.
//! - RC-7 A receiver that was fenced commits and welcomes nothing any more. Only a `Hello` that it would
//!   otherwise accept makes it want the log back.
//! - RC-8 Commits are cut here, one behind the other, at most [`COMMITS_AT_ONCE`] in flight: the next one is packed
//!   while the slot of the one before it is put. It begins only when it is as large as a commit may be: had it
//!   waited it would hold nothing more, and a slow vault gets large commits and not many.
//!
//! Why RC-7 ends every quarrel: an agent talks to one process server at a time, so its `Hello` says which of
//! them is to write. A server that claimed by itself, after a pause or at the sight of a newer claim, would
//! take the log from the one the agent talks to, which would take it back, for ever. An old generation's
//! `Hello` moves nothing.
//!
//! Parts: what goes in and out (`events`), which batch continues the stream (`judge`), the agent's session
//! (`session`), the way of a batch (`staging`).
//!
//! What is *not* here: opening batches, the vault, sockets, the proof (the shell verifies it).

mod events;
mod judge;
mod session;
mod staging;

pub use events::{ReceiverEffect, ReceiverEvent, ReceiverLimits, ReceiverState, SessionId};
pub use judge::{RECENT_MAX, Verdict, judge, judge_found};
pub use session::{HASH_REQUESTS_MAX, SESSION_SILENCE};
pub use staging::COMMITS_AT_ONCE;

use crate::ids::{BatchPosition, Generation, MachineId};
use crate::message::{HashRequest, Message, RefusedReason};
use crate::sealed::SealedMeta;
use crate::time::Instant;
use session::Session;
use staging::Waiting;
use std::collections::VecDeque;

/// The machine. See the module.
#[derive(Debug)]
pub struct Receiver {
    machine: MachineId,
    limits: ReceiverLimits,
    generation: Generation,
    durable_generation: Generation,
    accepted: BatchPosition,
    durable: BatchPosition,
    vaulted: BatchPosition,
    exact: bool,
    recent: VecDeque<BatchPosition>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    next_ticket: u64,
    sync_in_flight: Option<u64>,
    /// Ends of the commits in flight, oldest first.
    committing: VecDeque<BatchPosition>,
    commit_not_before: Instant,
    session: Option<Session>,
    asked: VecDeque<(SessionId, HashRequest)>,
    hashing: Vec<(SessionId, u64)>,
    fenced: bool,
    failed: bool,
}

impl Receiver {
    /// Makes the receiver of one machine from what a restart found.
    pub fn new(now: Instant, machine: MachineId, limits: ReceiverLimits, found: ReceiverState) -> Receiver {
        let end = found.staged.last().map_or(found.vaulted, SealedMeta::position);
        let ends = std::iter::once(found.vaulted).chain(found.staged.iter().map(SealedMeta::position));
        let recent: VecDeque<BatchPosition> = ends.collect();
        let surplus = recent.len().saturating_sub(RECENT_MAX);
        let waiting_bytes = found.staged.iter().map(|meta| u64::from(meta.bytes)).sum();
        let waiting = found.staged.into_iter().map(|meta| Waiting { meta, since: now, ticket: 0 }).collect();
        Receiver {
            machine,
            limits,
            generation: found.generation,
            durable_generation: found.generation,
            accepted: end,
            durable: end,
            vaulted: found.vaulted,
            exact: found.exact,
            recent: recent.into_iter().skip(surplus).collect(),
            waiting,
            waiting_bytes,
            next_ticket: 1,
            sync_in_flight: None,
            committing: VecDeque::new(),
            commit_not_before: now,
            session: None,
            asked: VecDeque::new(),
            hashing: Vec::new(),
            fenced: false,
            failed: false,
        }
    }

    /// Returns what is durable in the stage or the vault.
    pub fn staged(&self) -> BatchPosition {
        self.durable
    }

    /// Returns what is durable in the vault.
    pub fn vaulted(&self) -> BatchPosition {
        self.vaulted
    }

    /// Returns when to send `Tick` next.
    pub fn deadline(&self) -> Option<Instant> {
        let commit = self.waiting.front().filter(|_| self.committing.is_empty() && !self.fenced);
        let commit =
            commit.map(|front| front.since.after(self.limits.commit_after).max(self.commit_not_before));
        let silence = self.session.as_ref().map(|session| session.heard.after(SESSION_SILENCE));
        commit.into_iter().chain(silence).min()
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: ReceiverEvent, effects: &mut Vec<ReceiverEffect>) {
        if self.failed {
            return;
        }
        match event {
            ReceiverEvent::Hello { session, hello, proven } => {
                self.on_hello(now, session, &hello, proven, effects);
            }
            ReceiverEvent::Received(session, message) => self.on_message(now, session, message, effects),
            ReceiverEvent::Gone(session) => {
                self.session = self.session.take().filter(|old| old.id != session)
            }
            ReceiverEvent::GenerationPersisted(generation) => {
                self.durable_generation = self.durable_generation.max(generation);
                self.welcome(effects);
            }
            ReceiverEvent::StageSynced { ticket } => self.on_synced(ticket, effects),
            ReceiverEvent::StageFailed => {
                self.failed = true;
                self.refuse_current(RefusedReason::StageFailed, effects);
                effects.push(ReceiverEffect::Restart);
                return;
            }
            ReceiverEvent::CommitDone { vaulted } => self.on_committed(vaulted, effects),
            ReceiverEvent::CommitFailed => {
                self.committing.clear();
                self.commit_not_before = now.after(self.limits.commit_after);
            }
            ReceiverEvent::Fenced => {
                self.fenced = true;
                self.committing.clear();
                self.refuse_current(RefusedReason::Fenced, effects);
            }
            ReceiverEvent::Exact(exact) => self.exact = exact,
            ReceiverEvent::Hashed(reply) => self.on_hashed(reply, effects),
            ReceiverEvent::MarksTold(asker, reply) => {
                if self.session.as_ref().is_some_and(|session| session.id == asker) {
                    effects.push(ReceiverEffect::Transmit(asker, Message::MarksReply(reply)));
                }
            }
            ReceiverEvent::Tick => self.on_tick(now, effects),
        }
        self.sync(effects);
        while self.commit(now, effects) {}
        self.answer_hashes(effects);
        self.check();
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Vec<ReceiverEffect>) {
        if let Some(session) = self.session.take_if(|session| now >= session.heard.after(SESSION_SILENCE)) {
            effects.push(ReceiverEffect::Close(session.id));
        }
    }

    fn check(&self) {
        assert!(
            self.accepted.seq >= self.durable.seq && self.durable.seq >= self.vaulted.seq,
            "RC-5: accepted {:?} durable {:?} vaulted {:?}",
            self.accepted,
            self.durable,
            self.vaulted
        );
        if let Some(session) = &self.session {
            let promised = session.permits_total.saturating_sub(session.received_bytes);
            assert!(
                promised == 0 || promised + self.waiting_bytes <= self.limits.stage_bytes,
                "RC-6: promised beyond the stage"
            );
        }
    }
}
