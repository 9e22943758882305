//! The process server's side: takes one machine's stream, stages it, has it committed.
//!
//! | batch against staged position `p` | decision |
//! |---|---|
//! | ends before `p`, but not where a recent batch with the same chain ended | Fork |
//! | ends before `p`, otherwise | Duplicate |
//! | ends at `p`, same chain | Duplicate |
//! | ends at `p`, other chain | Fork |
//! | begins at or before `p`, ends after it | Fork |
//! | after `p`, opens a resync | Accept |
//! | right after `p`, same chain before it | Accept |
//! | right after `p`, other chain before it | Fork |
//! | leaves out sequences | Gap |
//!
//! *Recent* are the ends of the newest [`RECENT_MAX`] accepted batches (after a restart those still staged and
//! the vaulted position): what ends below the oldest of them cannot be judged and counts as a duplicate, which
//! is harmless, because a duplicate changes nothing.
//!
//! A batch that opens a resync is accepted whatever its `prev` is; if `prev` is not the chain at `p`, the
//! sender does not continue this history, and `HistoryReplaced` says so for the log.
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
//!
//! Why RC-7 ends every quarrel: an agent talks to one process server at a time, so its `Hello` says which of
//! them is to write. A server that claimed by itself, after a pause or at the sight of a newer claim, would
//! take the log from the one the agent talks to, which would take it back, for ever. An old generation's
//! `Hello` moves nothing.
//!
//! What is *not* here: opening batches, the vault, sockets, the proof (the shell verifies it).

use crate::ids::{BatchPosition, Generation, MachineId, WriteSeq};
use crate::message::{HashReply, HashRequest, Hello, Message, PROTOCOL_VERSIONS, RefusedReason, Welcome};
use crate::planted::{self, Bug};
use crate::sealed::{SealedBatch, SealedMeta};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Hash requests that may wait at once; the agent's resync keeps fewer open.
pub const HASH_REQUESTS_MAX: usize = 64;

/// Ends of accepted batches that are remembered to tell a duplicate from an older fork: 48 KiB per machine,
/// far more batches than a session has in flight.
pub const RECENT_MAX: usize = 1024;

/// A session that heard nothing for this long is dead; above the agent's own limit.
pub const SESSION_SILENCE: Duration = Duration::from_secs(20);

/// Bounds of one machine's stage and when it is committed.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverLimits {
    /// Bytes of batches that are accepted and not in the vault; the permits' bound.
    pub stage_bytes: u64,
    /// A commit starts when this much waits for one.
    pub commit_bytes: u64,
    /// A commit starts when something waited this long.
    pub commit_after: Duration,
}

impl Default for ReceiverLimits {
    fn default() -> ReceiverLimits {
        ReceiverLimits { stage_bytes: 1 << 30, commit_bytes: 32 << 20, commit_after: Duration::from_secs(5) }
    }
}

/// Number of a session; the shell gives each accepted connection a new, larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a restart found.
#[derive(Clone, Debug, Default)]
pub struct ReceiverState {
    /// Highest generation ever seen; durable.
    pub generation: Generation,
    /// Durable in the vault.
    pub vaulted: BatchPosition,
    /// In the stage above `vaulted`, in order, as scanned. The shell syncs the files it scanned first: what a
    /// crashed process wrote may be in the page cache only, and all of this counts as durable.
    pub staged: Vec<SealedMeta>,
    /// Whether the stream is exact at the end of what is staged.
    pub exact: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum ReceiverEvent {
    /// A connection said `Hello`; the shell verified the proof.
    Hello {
        /// The new session.
        session: SessionId,
        /// What it said.
        hello: Hello,
        /// Whether the proof is right.
        proven: bool,
    },
    /// A message of a session after its `Hello`.
    Received(SessionId, Message),
    /// The connection ended.
    Gone(SessionId),
    /// The generation of `PersistGeneration` is durable.
    GenerationPersisted(Generation),
    /// All appends before this `StageSync` are durable.
    StageSynced {
        /// The number in the effect.
        ticket: u64,
    },
    /// An append, a sync or the generation's write failed: what is durable is unknown.
    StageFailed,
    /// Everything up to the position is in the vault.
    CommitDone {
        /// Last batch committed.
        vaulted: BatchPosition,
    },
    /// The commit failed and may be tried again.
    CommitFailed,
    /// The vault was claimed by a newer writer. This receiver never serves again (RC-7).
    Fenced,
    /// The packer opened everything up to here; tells whether the stream is exact at the end.
    Exact(bool),
    /// Digests were computed.
    Hashed(HashReply),
    /// Time passed; comes at or after [`Receiver::deadline`].
    Tick,
}

/// What the shell does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverEffect {
    /// Send a message.
    Transmit(SessionId, Message),
    /// Close the connection after what was transmitted.
    Close(SessionId),
    /// Make the generation durable; answer `GenerationPersisted`.
    PersistGeneration(Generation),
    /// Append the batch to the stage.
    StageAppend(SealedBatch),
    /// Sync the stage; answer `StageSynced` or `StageFailed`.
    StageSync {
        /// To be returned.
        ticket: u64,
    },
    /// Batches up to here are in the vault: remove stage files that hold nothing newer.
    StageTrim {
        /// Last sequence not needed any more.
        through: WriteSeq,
    },
    /// Commit staged batches up to here to the vault; answer `CommitDone`, `CommitFailed` or `Fenced`.
    Commit {
        /// Last batch to commit.
        through: BatchPosition,
    },
    /// A batch that opens a resync does not continue the accepted history: report it. Nothing before it
    /// is taken back.
    HistoryReplaced {
        /// The newest accepted position until then.
        at: BatchPosition,
        /// The batch that replaces what would have followed.
        by: SealedMeta,
    },
    /// Compute digests of the vault's content, which includes `after` now; answer `Hashed`.
    Hash(HashRequest),
    /// The stage failed: stop, scan it again and make a new receiver of what is found.
    Restart,
    /// The agent came to a fenced receiver (RC-7): stop, claim the log again, and hand this session's `Hello`
    /// to the receiver made of what is found.
    ClaimAgain(SessionId),
}

/// What to do with a batch. See the table of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It continues the stream.
    Accept,
    /// It is there already.
    Duplicate,
    /// It leaves out sequences.
    Gap,
    /// It belongs to another history.
    Fork,
}

/// Judges a batch against the newest accepted position. The first row of the table needs the recent ends
/// and is the receiver's: here every batch that ends before `p` is a duplicate.
pub fn judge(batch: &SealedMeta, at: BatchPosition) -> Verdict {
    if batch.last < at.seq {
        return Verdict::Duplicate;
    }
    if batch.last == at.seq {
        return if batch.chain == at.chain { Verdict::Duplicate } else { Verdict::Fork };
    }
    if batch.first <= at.seq {
        return Verdict::Fork;
    }
    match (batch.flags.starts_resync(), batch.first == at.seq.next(), batch.prev == at.chain) {
        (true, _, _) | (false, true, true) => Verdict::Accept,
        (false, true, false) => Verdict::Fork,
        (false, false, _) => Verdict::Gap,
    }
}

/// Tells whether a batch that ends before the accepted position belongs to another history, as far as
/// `recent`, the ends of accepted batches in order, reaches back.
fn is_older_fork(batch: &SealedMeta, recent: &VecDeque<BatchPosition>) -> bool {
    match recent.binary_search_by_key(&batch.last, |position| position.seq) {
        Ok(index) => recent[index].chain != batch.chain,
        // Batches are immutable: one that ends between two known ends was never accepted.
        Err(index) => index > 0,
    }
}

#[derive(Debug)]
struct Waiting {
    meta: SealedMeta,
    since: Instant,
    ticket: u64,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    generation: Generation,
    welcomed: bool,
    heard: Instant,
    received_bytes: u64,
    permits_total: u64,
}

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
    committing: Option<BatchPosition>,
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
            committing: None,
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
        let commit = self.waiting.front().filter(|_| self.committing.is_none() && !self.fenced);
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
                self.committing = None;
                self.commit_not_before = now.after(self.limits.commit_after);
            }
            ReceiverEvent::Fenced => {
                self.fenced = true;
                self.committing = None;
                self.refuse_current(RefusedReason::Fenced, effects);
            }
            ReceiverEvent::Exact(exact) => self.exact = exact,
            ReceiverEvent::Hashed(reply) => self.on_hashed(reply, effects),
            ReceiverEvent::Tick => self.on_tick(now, effects),
        }
        self.sync(effects);
        self.commit(now, effects);
        self.answer_hashes(effects);
        self.check();
    }

    fn on_hello(
        &mut self,
        now: Instant,
        id: SessionId,
        hello: &Hello,
        proven: bool,
        effects: &mut Vec<ReceiverEffect>,
    ) {
        let refusal = if !proven {
            Some(RefusedReason::WrongKey)
        } else if hello.machine != self.machine {
            Some(RefusedReason::UnknownMachine)
        } else if PROTOCOL_VERSIONS.common(hello.versions).is_none() {
            Some(RefusedReason::Version)
        } else {
            let is_old = hello.generation < self.generation && !planted::active(Bug::AcceptOldGeneration);
            is_old.then_some(RefusedReason::OldGeneration)
        };
        if let Some(reason) = refusal {
            let detail = format!("machine {} generation {}", hello.machine, hello.generation);
            refuse(id, reason, detail, effects);
            return;
        }
        if self.fenced {
            effects.push(ReceiverEffect::ClaimAgain(id));
            return;
        }
        self.refuse_current(RefusedReason::Replaced, effects);
        self.session = Some(Session {
            id,
            generation: hello.generation,
            welcomed: false,
            heard: now,
            received_bytes: 0,
            permits_total: 0,
        });
        if hello.generation > self.generation {
            self.generation = hello.generation;
            effects.push(ReceiverEffect::PersistGeneration(hello.generation));
        }
        self.welcome(effects);
    }

    /// Welcomes once the generation is durable and nothing of an earlier session is in flight to the
    /// stage: the agent resumes at `staged`, which must then be all there is.
    fn welcome(&mut self, effects: &mut Vec<ReceiverEffect>) {
        let settled = self.durable_generation >= self.generation && self.durable == self.accepted;
        let free = self.free_bytes();
        let Some(session) = self.session.as_mut().filter(|session| !session.welcomed && settled) else {
            return;
        };
        session.welcomed = true;
        session.permits_total = free;
        let welcome = Welcome {
            staged: self.durable,
            vaulted: self.vaulted,
            permits_total: session.permits_total,
            exact: self.exact,
        };
        effects.push(ReceiverEffect::Transmit(session.id, Message::Welcome(welcome)));
    }

    fn free_bytes(&self) -> u64 {
        self.limits.stage_bytes.saturating_sub(self.waiting_bytes)
    }

    fn refuse_current(&mut self, reason: RefusedReason, effects: &mut Vec<ReceiverEffect>) {
        if let Some(session) = self.session.take() {
            refuse(session.id, reason, reason.to_string(), effects);
        }
    }

    fn on_message(
        &mut self,
        now: Instant,
        id: SessionId,
        message: Message,
        effects: &mut Vec<ReceiverEffect>,
    ) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == id) else { return };
        session.heard = now;
        let welcomed = session.welcomed;
        match message {
            Message::Ping(number) => effects.push(ReceiverEffect::Transmit(id, Message::Pong(number))),
            Message::Pong(_) => {}
            Message::Bye => {
                self.session = None;
                effects.push(ReceiverEffect::Close(id));
            }
            Message::Batch(batch) if welcomed => self.on_batch(now, batch, effects),
            Message::HashRequest(request) if welcomed && self.asked.len() < HASH_REQUESTS_MAX => {
                self.asked.push_back((id, request));
            }
            _ => self.refuse_current(RefusedReason::Protocol, effects),
        }
    }

    fn on_batch(&mut self, now: Instant, batch: SealedBatch, effects: &mut Vec<ReceiverEffect>) {
        let Some(session) = &mut self.session else { return };
        let meta = batch.meta;
        session.received_bytes = session.received_bytes.saturating_add(u64::from(meta.bytes));
        let over = session.received_bytes > session.permits_total;
        // An older generation's batches come from the spill of a machine that crashed: legal, but never
        // after newer ones.
        let foreign = meta.machine != self.machine || meta.generation > session.generation;
        if over || foreign {
            return self.refuse_current(RefusedReason::Protocol, effects);
        }
        match judge(&meta, self.accepted) {
            Verdict::Duplicate if is_older_fork(&meta, &self.recent) => {
                self.refuse_current(RefusedReason::Fork, effects);
            }
            Verdict::Duplicate => self.acknowledge(effects),
            Verdict::Gap => self.refuse_current(RefusedReason::Gap, effects),
            Verdict::Fork => self.refuse_current(RefusedReason::Fork, effects),
            Verdict::Accept if meta.generation < self.accepted.generation => {
                self.refuse_current(RefusedReason::Fork, effects);
            }
            Verdict::Accept => {
                if meta.prev != self.accepted.chain {
                    effects.push(ReceiverEffect::HistoryReplaced { at: self.accepted, by: meta });
                }
                self.accepted = meta.position();
                if self.recent.len() == RECENT_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back(self.accepted);
                self.waiting_bytes += u64::from(meta.bytes);
                self.waiting.push_back(Waiting { meta, since: now, ticket: self.next_ticket });
                effects.push(ReceiverEffect::StageAppend(batch));
                if planted::active(Bug::AckBeforeStageSync) {
                    self.durable = self.accepted;
                    self.acknowledge(effects);
                }
            }
        }
    }

    /// Group commit: one sync in flight; what arrives meanwhile shares the next one.
    fn sync(&mut self, effects: &mut Vec<ReceiverEffect>) {
        let newest = self.waiting.back().map_or(0, |waiting| waiting.ticket);
        if self.sync_in_flight.is_none() && newest == self.next_ticket {
            self.sync_in_flight = Some(self.next_ticket);
            effects.push(ReceiverEffect::StageSync { ticket: self.next_ticket });
            self.next_ticket += 1;
        }
    }

    fn on_synced(&mut self, ticket: u64, effects: &mut Vec<ReceiverEffect>) {
        if self.sync_in_flight != Some(ticket) {
            return;
        }
        self.sync_in_flight = None;
        if let Some(last) = self.waiting.iter().rev().find(|waiting| waiting.ticket <= ticket) {
            self.durable =
                if last.meta.last > self.durable.seq { last.meta.position() } else { self.durable };
        }
        self.acknowledge(effects);
        self.welcome(effects);
    }

    fn acknowledge(&mut self, effects: &mut Vec<ReceiverEffect>) {
        let free = self.free_bytes();
        let Some(session) = self.session.as_mut().filter(|session| session.welcomed) else { return };
        session.permits_total = session.permits_total.max(session.received_bytes.saturating_add(free));
        let vaulted = if planted::active(Bug::VaultedBeforeCommit) {
            self.committing.unwrap_or(self.vaulted)
        } else {
            self.vaulted
        };
        let ack = Message::Ack { staged: self.durable, vaulted, permits_total: session.permits_total };
        effects.push(ReceiverEffect::Transmit(session.id, ack));
    }

    fn commit(&mut self, now: Instant, effects: &mut Vec<ReceiverEffect>) {
        let behind = self.durable.seq > self.vaulted.seq;
        if self.committing.is_some() || self.fenced || !behind || now < self.commit_not_before {
            return;
        }
        let durable = self.waiting.iter().take_while(|waiting| waiting.meta.last <= self.durable.seq);
        let (mut bytes, mut marker, mut old) = (0, false, false);
        for waiting in durable {
            bytes += u64::from(waiting.meta.bytes);
            marker |= waiting.meta.flags.has_marker();
            old |= now >= waiting.since.after(self.limits.commit_after);
        }
        let asked = self.asked.iter().any(|(_, request)| request.after > self.vaulted.seq);
        // Half of the stage at the latest, so that a small stage is not full before its first commit.
        let enough = bytes >= self.limits.commit_bytes.min(self.limits.stage_bytes / 2);
        if marker || old || asked || enough {
            self.committing = Some(self.durable);
            effects.push(ReceiverEffect::Commit { through: self.durable });
        }
    }

    fn on_committed(&mut self, vaulted: BatchPosition, effects: &mut Vec<ReceiverEffect>) {
        self.committing = None;
        if vaulted.seq <= self.vaulted.seq {
            return;
        }
        assert!(vaulted.seq <= self.durable.seq, "RC-5: only staged batches are committed");
        self.vaulted = vaulted;
        while self.waiting.front().is_some_and(|waiting| waiting.meta.last <= vaulted.seq) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.waiting_bytes -= u64::from(waiting.meta.bytes);
            }
        }
        effects.push(ReceiverEffect::StageTrim { through: vaulted.seq });
        self.acknowledge(effects);
    }

    fn answer_hashes(&mut self, effects: &mut Vec<ReceiverEffect>) {
        let current = self.session.as_ref().map(|session| session.id);
        self.asked.retain(|(id, _)| Some(*id) == current);
        self.hashing.retain(|(id, _)| Some(*id) == current);
        while let Some((id, request)) = self.asked.front().copied() {
            if request.after > self.vaulted.seq || self.hashing.len() == HASH_REQUESTS_MAX {
                break;
            }
            self.asked.pop_front();
            self.hashing.push((id, request.id));
            effects.push(ReceiverEffect::Hash(request));
        }
    }

    fn on_hashed(&mut self, reply: HashReply, effects: &mut Vec<ReceiverEffect>) {
        if let Some(index) = self.hashing.iter().position(|(_, request)| *request == reply.id) {
            let (id, _) = self.hashing.remove(index);
            effects.push(ReceiverEffect::Transmit(id, Message::HashReply(reply)));
        }
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

fn refuse(session: SessionId, reason: RefusedReason, detail: String, effects: &mut Vec<ReceiverEffect>) {
    effects.push(ReceiverEffect::Transmit(session, Message::Refused { reason, detail }));
    effects.push(ReceiverEffect::Close(session));
}
