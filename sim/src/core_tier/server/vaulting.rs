//! What a machine's owner asks of the vault: commits, digests for a resync, marks of activity logs.

use super::actor::Job;
use super::{PAUSE_FIRST, PAUSE_MAX, ServerHost, State};
use crate::core_tier::common::Common;
use crate::core_tier::content::digest;
use crate::core_tier::dice::SECOND;
use crate::core_tier::event::ActorWork;
use crate::core_tier::request::{Effect, Outcome, Request};
use redoubt_core::extent_map::BLOCK_SECTORS;
use redoubt_core::message::{HashReply, HashRequest, MarksReply, MarksRequest};
use redoubt_core::receiver::{COMMITS_AT_ONCE, ReceiverEvent, SessionId};
use std::rc::Rc;

impl ServerHost {
    /// Sends a request to the store.
    pub(super) fn ask(&mut self, c: &mut Common, machine: u16, bytes: u64, creates: bool, effect: Effect) {
        let course = c.request(usize::from(self.host), bytes, creates);
        let request =
            Request { server: self.number, machine, effect, is_answered: course.is_answered, outcome: None };
        let number = c.requests.put(request, course.lands.is_some());
        if let Some(lands) = course.lands {
            c.heap.push(lands, crate::core_tier::event::Event::Land(number));
        }
        let event = self.work(machine, ActorWork::Answer(number));
        c.heap.push(course.ends, event);
    }

    /// A request ended, one way or the other.
    pub(super) fn answered(&mut self, c: &mut Common, machine: u16, number: u32) {
        let Some((effect, outcome)) = c.requests.end(number) else { return };
        match (&effect, &mut self.machines[usize::from(machine)].state) {
            (Effect::Look | Effect::Claim | Effect::Seal(_), State::Opening { .. }) => {
                self.opening_answered(c, machine, effect, outcome);
            }
            (Effect::Commit { .. }, State::Open(_)) => self.published(c, machine, outcome),
            (Effect::Look, State::Open(_)) => self.proved(c, machine, outcome != Outcome::Unknown),
            (Effect::Hash, State::Open(_)) => self.hashed(c, machine, outcome),
            (Effect::Marks(_), State::Open(_)) => self.marks_answered(c, machine, outcome),
            _ => {}
        }
    }

    /// Takes up what the receiver wants committed.
    pub(super) fn feed(&mut self, c: &mut Common, machine: u16) {
        loop {
            let State::Open(open) = &mut self.machines[usize::from(machine)].state else { return };
            if open.jobs.len() == COMMITS_AT_ONCE || open.is_fenced {
                return;
            }
            let Some(through) = open.wanted.pop_front() else { return };
            let after = open.jobs.back().map_or(open.receiver.vaulted().seq, |job| job.through.seq);
            let stage = &self.machines[usize::from(machine)].stage;
            let later = stage.entries.iter().skip_while(|staged| staged.meta.last <= after);
            let mut bytes = 0;
            let taken = later.take_while(|staged| staged.meta.last <= through.seq);
            let batches: Rc<[u32]> = taken
                .map(|staged| {
                    bytes += u64::from(staged.meta.bytes);
                    staged.batch
                })
                .collect();
            if batches.is_empty() {
                // An earlier receiver's commit, still under way, has them.
                continue;
            }
            let State::Open(open) = &mut self.machines[usize::from(machine)].state else { return };
            open.jobs.push_back(Job { batches, through, bytes });
            self.publish(c, machine);
        }
    }

    /// Puts the slot of the oldest commit, if none is under way.
    pub(super) fn publish(&mut self, c: &mut Common, machine: u16) {
        let Some(open) = self.opened_machine(machine).filter(|open| !open.is_fenced && !open.is_publishing)
        else {
            return;
        };
        let (epoch, era) = (open.epoch, open.era);
        let Some(job) = open.jobs.front() else { return };
        let (batches, bytes) = (Rc::clone(&job.batches), job.bytes);
        open.is_publishing = true;
        self.ask(c, machine, bytes, true, Effect::Commit { epoch, era, batches });
    }

    fn published(&mut self, c: &mut Common, machine: u16, outcome: Outcome) {
        let newest = c.truths[usize::from(machine)].vault.claims;
        let Some(open) = self.opened_machine(machine) else { return };
        let pause = open.commit_pause;
        open.is_publishing = false;
        match outcome {
            Outcome::Done if newest == open.epoch => {}
            Outcome::Done | Outcome::Fenced => return self.fenced(c, machine),
            _ => {
                open.commit_pause = (pause * 2).min(PAUSE_MAX);
                return self.after(c, pause / 4, machine, ActorWork::Again);
            }
        }
        open.commit_pause = PAUSE_FIRST;
        let Some(job) = open.jobs.pop_front() else { return };
        let is_staged = job.through.seq <= open.receiver.staged().seq;
        let host = usize::from(self.host);
        c.say(host, || format!("committed up to {}", job.through.seq));
        let event = if is_staged {
            ReceiverEvent::CommitDone { vaulted: job.through }
        } else {
            ReceiverEvent::CommitFailed
        };
        self.step_receiver(c, machine, event);
        self.publish(c, machine);
        self.feed(c, machine);
    }

    /// Another writer has the log. Nothing is lost: the agent's next hello claims it again (RC-7).
    pub(super) fn fenced(&mut self, c: &mut Common, machine: u16) {
        let host = usize::from(self.host);
        c.say(host, || "lost the machine to another process server".to_owned());
        if let Some(open) = self.opened_machine(machine) {
            open.is_fenced = true;
            c.marks.insert("writer-fenced");
            open.jobs.clear();
            open.wanted.clear();
        }
        self.step_receiver(c, machine, ReceiverEvent::Fenced);
    }

    pub(super) fn question(&mut self, c: &mut Common, machine: u16, request: HashRequest) {
        let Some(open) = self.opened_machine(machine) else { return };
        let Some(session) = open.connected else { return };
        open.questions.retain(|(asker, _)| *asker == session);
        open.questions.push_back((session, request));
        if !open.is_hashing {
            self.ask_hashes(c, machine);
        }
    }

    /// Asks the vault the oldest question.
    pub(super) fn ask_hashes(&mut self, c: &mut Common, machine: u16) {
        let Some(open) = self.opened_machine(machine) else { return };
        open.is_hashing = !open.questions.is_empty();
        if open.is_hashing {
            self.ask(c, machine, 0, false, Effect::Hash);
        }
    }

    fn hashed(&mut self, c: &mut Common, machine: u16, outcome: Outcome) {
        let vault = &c.truths[usize::from(machine)].vault;
        let head = vault.head.seq;
        let Some(open) = self.opened_machine(machine) else { return };
        let Some((session, request)) = open.questions.front().copied() else {
            open.is_hashing = false;
            return;
        };
        if outcome == Outcome::Unknown || head < request.after {
            return self.after(c, SECOND, machine, ActorWork::Hash);
        }
        open.questions.pop_front();
        let is_current = open.connected == Some(session);
        let pages = (BLOCK_SECTORS / crate::core_tier::content::PAGE_SECTORS) as usize;
        let first = (request.extent.lba.0 / BLOCK_SECTORS) as usize;
        let image = vault.image.get(usize::from(request.volume.0)).map_or(&[][..], |image| image);
        let block = |block: usize| {
            let end = ((block + 1) * pages).min(image.len());
            let cells = image.get(block * pages..end).unwrap_or_default();
            cells.iter().any(|cell| *cell != 0).then(|| digest(cells))
        };
        let blocks = (first..first + request.blocks() as usize).map(block).collect();
        let reply = HashReply { id: request.id, as_of: head, blocks };
        if is_current {
            self.step_receiver(c, machine, ReceiverEvent::Hashed(reply));
        }
        self.ask_hashes(c, machine);
    }

    /// One question at a time; another one takes its place.
    pub(super) fn look_at_marks(
        &mut self,
        c: &mut Common,
        machine: u16,
        session: SessionId,
        request: MarksRequest,
    ) {
        let Some(open) = self.opened_machine(machine) else { return };
        if open.marks != Some((session, request)) {
            open.marks = Some((session, request));
            self.ask(c, machine, 100, request.disown, Effect::Marks(request));
        }
    }

    fn marks_answered(&mut self, c: &mut Common, machine: u16, outcome: Outcome) {
        let Some(open) = self.opened_machine(machine) else { return };
        let Some((session, request)) = open.marks.take() else { return };
        if let Outcome::Marks(asked, is_disowned) = outcome
            && asked == request
        {
            let reply = MarksReply { number: request.number, is_disowned };
            self.step_receiver(c, machine, ReceiverEvent::MarksTold(session, reply));
        }
    }
}
