//! The session with the agent: who is welcomed, what is answered, how much may be sent (RC-3, RC-4, RC-6, RC-7).
//!
//! What is *not* here: batches (`staging`), the proof (the shell verifies it).

use super::{Receiver, ReceiverEffect, SessionId};
use crate::ids::Generation;
use crate::message::{HashReply, Hello, Message, PROTOCOL_VERSIONS, RefusedReason, Welcome};
use crate::planted::{self, Bug};
use crate::time::Instant;
use std::time::Duration;

/// Hash requests that may wait at once; the agent's resync keeps fewer open.
pub const HASH_REQUESTS_MAX: usize = 64;

/// A session that heard nothing for this long is dead; above the agent's own limit.
pub const SESSION_SILENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) generation: Generation,
    pub(super) welcomed: bool,
    pub(super) heard: Instant,
    pub(super) received_bytes: u64,
    pub(super) permits_total: u64,
}

impl Receiver {
    pub(super) fn on_hello(
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
    pub(super) fn welcome(&mut self, effects: &mut Vec<ReceiverEffect>) {
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

    pub(super) fn refuse_current(&mut self, reason: RefusedReason, effects: &mut Vec<ReceiverEffect>) {
        if let Some(session) = self.session.take() {
            refuse(session.id, reason, reason.to_string(), effects);
        }
    }

    pub(super) fn on_message(
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
            Message::MarksRequest(request) if welcomed => {
                effects.push(ReceiverEffect::LookAtMarks(id, request));
            }
            _ => self.refuse_current(RefusedReason::Protocol, effects),
        }
    }

    pub(super) fn acknowledge(&mut self, effects: &mut Vec<ReceiverEffect>) {
        let free = self.free_bytes();
        let Some(session) = self.session.as_mut().filter(|session| session.welcomed) else { return };
        session.permits_total = session.permits_total.max(session.received_bytes.saturating_add(free));
        let vaulted = if planted::active(Bug::VaultedBeforeCommit) {
            self.committing.back().copied().unwrap_or(self.vaulted)
        } else {
            self.vaulted
        };
        let ack = Message::Ack { staged: self.durable, vaulted, permits_total: session.permits_total };
        effects.push(ReceiverEffect::Transmit(session.id, ack));
    }

    pub(super) fn answer_hashes(&mut self, effects: &mut Vec<ReceiverEffect>) {
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

    pub(super) fn on_hashed(&mut self, reply: HashReply, effects: &mut Vec<ReceiverEffect>) {
        if let Some(index) = self.hashing.iter().position(|(_, request)| *request == reply.id) {
            let (id, _) = self.hashing.remove(index);
            effects.push(ReceiverEffect::Transmit(id, Message::HashReply(reply)));
        }
    }
}

fn refuse(session: SessionId, reason: RefusedReason, detail: String, effects: &mut Vec<ReceiverEffect>) {
    effects.push(ReceiverEffect::Transmit(session, Message::Refused { reason, detail }));
    effects.push(ReceiverEffect::Close(session));
}
