//! The owner of one machine that is served: performs what its receiver decides.
//!
//! What is *not* here: commits, digests and marks (`vaulting`), failures of the stage (`failure`).

use super::stage::Staged;
use super::{Caller, PAUSE_FIRST, ServerHost, State};
use crate::core_tier::common::Common;
use crate::core_tier::content::number_of;
use crate::core_tier::dice::MILLI;
use crate::core_tier::event::ActorWork;
use crate::core_tier::files::sync_time;
use crate::core_tier::request::Effect;
use redoubt_core::message::{HashRequest, MarksRequest, Message, RefusedReason};
use redoubt_core::receiver::{Receiver, ReceiverEffect, ReceiverEvent, SessionId};
use redoubt_core::{BatchPosition, Generation, MachineId, WriteSeq};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Largest commit, as in the full lab.
pub(super) const COMMIT_BYTES: u64 = 2 << 20;
/// Oldest staged change waits at most this long for a commit, as the process server's default.
pub(super) const COMMIT_DELAY: Duration = Duration::from_millis(500);
/// Least time between two ticks.
const TICK_LEAST: u64 = 10 * MILLI;

/// The identity of a machine by its number.
pub(super) fn id(machine: u16) -> MachineId {
    MachineId(u128::from(machine) + 1)
}

/// A commit under way.
pub(super) struct Job {
    pub(super) batches: Rc<[u32]>,
    pub(super) through: BatchPosition,
    pub(super) bytes: u64,
}

/// A machine that is served.
pub(super) struct Open {
    pub(super) receiver: Receiver,
    pub(super) epoch: u64,
    /// The vault that was opened.
    pub(super) era: u64,
    effects: Vec<ReceiverEffect>,
    /// Ends of commits that wait for their turn.
    pub(super) wanted: VecDeque<BatchPosition>,
    pub(super) jobs: VecDeque<Job>,
    pub(super) commit_pause: u64,
    /// A slot is on its way.
    pub(super) is_publishing: bool,
    /// The ticket of the sync under way.
    pub(super) syncing: Option<u64>,
    pub(super) saving: Option<Generation>,
    pub(super) sessions: Vec<(SessionId, Generation)>,
    pub(super) connected: Option<SessionId>,
    pub(super) is_fenced: bool,
    claim_for: Option<SessionId>,
    /// An agent at the door while the store is asked whether the log is still ours.
    pub(super) at_door: Option<Caller>,
    pub(super) questions: VecDeque<(SessionId, HashRequest)>,
    pub(super) is_hashing: bool,
    pub(super) marks: Option<(SessionId, MarksRequest)>,
    pub(super) refused_until: u64,
    pub(super) stage_pause: u64,
    /// After a failure: what is kept of the stage.
    pub(super) cut_after: Option<WriteSeq>,
    /// The earliest tick that was asked for.
    timer: u64,
}

impl Open {
    pub(super) fn new(receiver: Receiver, epoch: u64, era: u64) -> Open {
        Open {
            receiver,
            epoch,
            era,
            effects: Vec::new(),
            wanted: VecDeque::new(),
            jobs: VecDeque::new(),
            commit_pause: PAUSE_FIRST,
            is_publishing: false,
            syncing: None,
            saving: None,
            sessions: Vec::new(),
            connected: None,
            is_fenced: false,
            claim_for: None,
            at_door: None,
            questions: VecDeque::new(),
            is_hashing: false,
            marks: None,
            refused_until: 0,
            stage_pause: PAUSE_FIRST,
            cut_after: None,
            timer: u64::MAX,
        }
    }

    pub(super) fn line(&self) -> String {
        let fenced = if self.is_fenced { ", fenced" } else { "" };
        let (staged, vaulted) = (self.receiver.staged().seq, self.receiver.vaulted().seq);
        format!(
            "epoch {}{fenced}, staged {staged} vaulted {vaulted}, {} commits",
            self.epoch,
            self.jobs.len()
        )
    }
}

impl ServerHost {
    pub(super) fn opened_machine(&mut self, machine: u16) -> Option<&mut Open> {
        match &mut self.machines[usize::from(machine)].state {
            State::Open(open) => Some(open),
            _ => None,
        }
    }

    /// Before an agent is welcomed the store is asked whether the log is still ours.
    pub(super) fn prove(&mut self, c: &mut Common, machine: u16, caller: Caller) {
        let Some(open) = self.opened_machine(machine) else { return };
        let older = open.at_door.replace(caller);
        if let Some(older) = &older {
            self.refuse(c, older, RefusedReason::Replaced);
        } else {
            self.ask(c, machine, 0, false, Effect::Look);
        }
    }

    /// The store answered, or did not in time: then the agent is let in all the same.
    pub(super) fn proved(&mut self, c: &mut Common, machine: u16, is_answered: bool) {
        let newest = c.truths[usize::from(machine)].vault.claims;
        let Some(open) = self.opened_machine(machine) else { return };
        let Some(caller) = open.at_door.take() else { return };
        if is_answered && newest > open.epoch {
            self.fenced(c, machine);
        }
        self.admit(c, machine, caller);
    }

    pub(super) fn admit(&mut self, c: &mut Common, machine: u16, caller: Caller) {
        let is_exact = c.truths[usize::from(machine)].vault.is_exact;
        let now = c.now;
        let Some(open) = self.opened_machine(machine) else { return };
        if open.cut_after.is_some() || now < open.refused_until {
            return self.refuse(c, &caller, RefusedReason::StageFailed);
        }
        let Caller { session, hello, connection } = caller;
        open.sessions.push((session, hello.generation));
        self.step_receiver(c, machine, ReceiverEvent::Exact(is_exact));
        let event = ReceiverEvent::Hello { session, hello: hello.clone(), proven: true };
        self.step_receiver(c, machine, event);
        let Some(open) = self.opened_machine(machine) else { return };
        if open.claim_for == Some(session) {
            // The agent came to a fenced server: it claims the log again (RC-7).
            self.open(c, machine, Some(Caller { connection, session, hello }));
        }
    }

    pub(super) fn received(&mut self, c: &mut Common, machine: u16, session: SessionId, message: Message) {
        let is_known = self
            .opened_machine(machine)
            .is_some_and(|open| open.sessions.iter().any(|(known, _)| *known == session));
        if is_known {
            self.step_receiver(c, machine, ReceiverEvent::Received(session, message));
        }
    }

    pub(super) fn gone(&mut self, c: &mut Common, machine: u16, session: SessionId) {
        match &mut self.machines[usize::from(machine)].state {
            State::Opening { caller, .. } => drop(caller.take_if(|caller| caller.session == session)),
            State::Open(open) => {
                drop(open.at_door.take_if(|caller| caller.session == session));
                open.sessions.retain(|(known, _)| *known != session);
                open.connected = open.connected.filter(|connected| *connected != session);
                self.step_receiver(c, machine, ReceiverEvent::Gone(session));
            }
            _ => {}
        }
    }

    /// Gives the receiver a chance to commit what it found.
    pub(super) fn step_nothing(&mut self, c: &mut Common, machine: u16) {
        self.step_receiver(c, machine, ReceiverEvent::Tick);
    }

    /// Takes one step of the receiver and performs its effects. Inlined, so that a message is not copied on its way.
    #[inline]
    pub(super) fn step_receiver(&mut self, c: &mut Common, machine: u16, event: ReceiverEvent) {
        let now = c.instant();
        let Some(open) = self.opened_machine(machine).filter(|open| open.cut_after.is_none()) else { return };
        let mut effects = std::mem::take(&mut open.effects);
        open.receiver.step(now, event, &mut effects);
        self.follow_up(c, machine, effects);
    }

    fn follow_up(&mut self, c: &mut Common, machine: u16, mut effects: Vec<ReceiverEffect>) {
        c.steps.receiver += 1;
        for effect in effects.drain(..) {
            if !self.perform(c, machine, effect) {
                let keep = self.opened_machine(machine).map(|open| open.receiver.staged().seq);
                self.stage_failed(c, machine, keep.unwrap_or_default());
                break;
            }
        }
        if let Some(open) = self.opened_machine(machine) {
            effects.clear();
            open.effects = effects;
        }
        self.arm(c, machine);
    }

    /// Asks for a tick at the receiver's deadline, if none comes before it.
    fn arm(&mut self, c: &mut Common, machine: u16) {
        let now = c.now;
        let Some(open) = self.opened_machine(machine) else { return };
        let Some(deadline) = open.receiver.deadline() else { return };
        let at = deadline.0.max(now + TICK_LEAST);
        if at < open.timer || open.timer <= now {
            open.timer = at;
            let event = self.work(machine, ActorWork::Tick);
            c.heap.push(at, event);
        }
    }

    pub(super) fn tick(&mut self, c: &mut Common, machine: u16) {
        let now = c.now;
        let Some(open) = self.opened_machine(machine) else { return };
        if open.cut_after.is_some() {
            if now >= open.refused_until {
                self.rebuild(c, machine);
            }
            return;
        }
        if open.timer > now {
            // An earlier one came in between: this is of no use.
            return;
        }
        open.timer = u64::MAX;
        if open.receiver.deadline().is_some_and(|deadline| deadline.0 <= now) {
            self.step_receiver(c, machine, ReceiverEvent::Tick);
        } else {
            self.arm(c, machine);
        }
    }

    /// Performs an effect; false if the stage failed.
    fn perform(&mut self, c: &mut Common, machine: u16, effect: ReceiverEffect) -> bool {
        match effect {
            ReceiverEffect::Transmit(session, message) => self.transmit(c, machine, session, message),
            ReceiverEffect::Close(session) => {
                if let Some(open) = self.opened_machine(machine) {
                    open.sessions.retain(|(known, _)| *known != session);
                    open.connected = open.connected.filter(|connected| *connected != session);
                }
                self.close(c, session);
            }
            ReceiverEffect::PersistGeneration(generation) => {
                if let Some(open) = self.opened_machine(machine) {
                    open.saving = Some(generation);
                }
                self.file_work(c, machine, ActorWork::Saved(generation.0));
            }
            ReceiverEffect::StageAppend(batch) => {
                if !self.directory.write() {
                    c.marks.insert("stage-met-full-disk");
                    return false;
                }
                let staged = Staged { batch: number_of(&batch.bytes), meta: batch.meta };
                self.machines[usize::from(machine)].stage.append(staged);
            }
            ReceiverEffect::StageSync { ticket } => {
                let covers = self.machines[usize::from(machine)].stage.sync_begun();
                if let Some(open) = self.opened_machine(machine) {
                    open.syncing = Some(ticket);
                }
                self.file_work(c, machine, ActorWork::Synced(covers));
            }
            ReceiverEffect::StageTrim { through } => self.machines[usize::from(machine)].stage.trim(through),
            ReceiverEffect::Commit { through } => {
                if let Some(open) = self.opened_machine(machine) {
                    open.wanted.push_back(through);
                }
                self.feed(c, machine);
            }
            ReceiverEffect::Hash(request) => self.question(c, machine, request),
            ReceiverEffect::LookAtMarks(session, request) => self.look_at_marks(c, machine, session, request),
            ReceiverEffect::HistoryReplaced { at, by } => {
                let host = usize::from(self.host);
                c.say(host, || format!("a resync at {} replaces what would follow {}", by.first, at.seq));
            }
            ReceiverEffect::Restart => {}
            ReceiverEffect::ClaimAgain(session) => {
                if let Some(open) = self.opened_machine(machine) {
                    open.claim_for = Some(session);
                }
            }
        }
        true
    }

    fn transmit(&mut self, c: &mut Common, machine: u16, session: SessionId, message: Message) {
        self.judge(c, machine, session, &message);
        if matches!(message, Message::Welcome(_))
            && let Some(open) = self.opened_machine(machine)
        {
            open.connected = Some(session);
        }
        let number = session.0 as u32 - 1;
        if c.net.connections[number as usize].is_server_open {
            c.tell(number, false, message);
        }
    }

    /// Oracles `order-kept` and `single-writer`: what is acknowledged as staged is durable, and no older generation
    /// is welcomed behind a newer one.
    fn judge(&mut self, c: &mut Common, machine: u16, session: SessionId, message: &Message) {
        let staged = match message {
            Message::Ack { staged, .. } => staged.seq,
            Message::Welcome(welcome) => welcome.staged.seq,
            _ => return,
        };
        let truth = &mut c.truths[usize::from(machine)];
        let durable = self.machines[usize::from(machine)].stage.durable().max(truth.vault.newest_told());
        let mut older = None;
        if matches!(message, Message::Welcome(_)) {
            let open = self.opened_machine(machine);
            let known =
                open.and_then(|open| open.sessions.iter().find(|(known, _)| *known == session).copied());
            let generation = known.map_or(Generation(0), |(_, generation)| generation);
            older = (generation < truth.welcomed).then_some((generation, truth.welcomed));
            truth.welcomed = truth.welcomed.max(generation);
        }
        if older.is_none() && staged <= durable {
            return;
        }
        let name = c.name(usize::from(machine)).to_owned();
        if let Some((generation, newest)) = older {
            let what = format!("{name}: generation {generation} got a session after generation {newest}");
            c.find("single-writer", what);
        }
        if staged > durable {
            let what = format!("{name}: {staged} was acknowledged as staged; durable is {durable}");
            c.find("order-kept", what);
        }
    }

    /// Asks for the end of work on the state directory.
    pub(super) fn file_work(&mut self, c: &mut Common, machine: u16, work: ActorWork) {
        let at = c.now + sync_time(&c.flush, &mut c.dice);
        let at = self.directory.done_at(at);
        let event = self.work(machine, work);
        c.heap.push(at, event);
    }

    pub(super) fn synced(&mut self, c: &mut Common, machine: u16, covers: u64) {
        if self.directory.hang_until > c.now {
            return self.file_work(c, machine, ActorWork::Synced(covers));
        }
        let Some(ticket) = self.opened_machine(machine).and_then(|open| open.syncing.take()) else { return };
        if !self.directory.sync(&mut c.dice) {
            c.marks.insert("sync-failed");
            let keep = self.opened_machine(machine).map(|open| open.receiver.staged().seq);
            return self.stage_failed(c, machine, keep.unwrap_or_default());
        }
        self.machines[usize::from(machine)].stage.synced(covers);
        if let Some(open) = self.opened_machine(machine) {
            open.stage_pause = PAUSE_FIRST;
        }
        self.step_receiver(c, machine, ReceiverEvent::StageSynced { ticket });
    }

    pub(super) fn saved(&mut self, c: &mut Common, machine: u16, generation: u64) {
        if self.directory.hang_until > c.now {
            return self.file_work(c, machine, ActorWork::Saved(generation));
        }
        let is_ok = self.directory.write() && self.directory.sync(&mut c.dice);
        let Some(open) = self.opened_machine(machine) else { return };
        if open.saving == Some(Generation(generation)) {
            open.saving = None;
        }
        if !is_ok {
            let keep = open.receiver.staged().seq;
            return self.stage_failed(c, machine, keep);
        }
        let stage = &mut self.machines[usize::from(machine)].stage;
        stage.generation = stage.generation.max(generation);
        self.step_receiver(c, machine, ReceiverEvent::GenerationPersisted(Generation(generation)));
    }
}
