//! The agent's side of a session with a process server.
//!
//! ```text
//! Disconnected -> Connecting -> Handshaking -> Deciding -> Streaming
//!      ^              |              |            |            |
//!      |              +--------------+--- BackingOff <---------+
//!      +---- Stopped (a refusal that trying again cannot change; a person or the caller restarts)
//! ```
//!
//! Invariants
//! - LK-1 Batches and hash requests leave only while Streaming; the spool's session exists exactly then.
//! - LK-2 A session without a sign of life for `SILENCE` ends, decided or not; each attempt ends within
//!   `HANDSHAKE`.
//! - LK-3 Attempts after failures are 1, 2, 4, 8, 16, 30 s apart, each shortened by up to a quarter. They are
//!   counted anew after a session that was of use: it brought an acknowledgement, or stood for `BACKOFF_MAX`.
//! - LK-4 A refusal that trying again cannot change stops the link (R-68).
//! - LK-5 Messages of an earlier connection are ignored: every connection has its own number.
//! - LK-6 The newest acknowledgement that came while Deciding is passed on when Streaming begins: a process
//!   server with a full stage grants permits once, when its commit ends, and must not be missed.
//! - LK-7 A position that no stream can reach, or a vault that is ahead of the stage, ends the session before
//!   anything relies on it.
//!
//! Why not the delays of R-68 (1, 2, 4, 8, 10, then every 30 min): those belong to the classic profile,
//! whose unit of work is a backup job. Here every second without a session grows the spool and ages the
//! newest recovery point, and an attempt costs one connection, so the pauses stay within half a minute.
//! R-68's other half holds as it stands: no loop without a pause, nothing hopeless is tried again.
//!
//! Parts: what goes in and out (`events`), the pauses (`pause`).
//!
//! What is *not* here: sockets, frames, the proof, what to do about a gap or a fork (the caller).

mod events;
mod pause;

pub use events::{ConnectionId, LinkEffect, LinkEvent, LinkState};
pub use pause::BACKOFF_MAX;

use crate::ids::BatchPosition;
use crate::message::{Message, PROTOCOL_VERSIONS, RefusedReason};
use crate::planted::{self, Bug};
use crate::time::Instant;
use pause::Pause;
use std::time::Duration;

/// Longest time from the start of an attempt to `Welcome`; covers a slow promise over a bad line.
pub const HANDSHAKE: Duration = Duration::from_secs(15);
/// A ping is sent when nothing was sent for this long.
pub const PING_EVERY: Duration = Duration::from_secs(5);
/// A session that heard nothing for this long is dead: three pings were not answered.
pub const SILENCE: Duration = Duration::from_secs(16);

/// The machine. See the module.
#[derive(Debug)]
pub struct Link {
    state: LinkState,
    connection: ConnectionId,
    endpoints: usize,
    endpoint: usize,
    attempt_until: Instant,
    heard: Instant,
    spoke: Instant,
    pings: u64,
    pause: Pause,
    acked_early: Option<LinkEffect>,
}

impl Link {
    /// Makes a disconnected link over `endpoints` (at least one) addresses. `jitter_seed` comes from
    /// the host's entropy, so that agents do not return in step.
    pub fn new(endpoints: usize, jitter_seed: u64) -> Link {
        assert!(endpoints > 0, "a link needs an endpoint");
        Link {
            state: LinkState::Disconnected,
            connection: ConnectionId(0),
            endpoints,
            endpoint: 0,
            attempt_until: Instant(0),
            heard: Instant(0),
            spoke: Instant(0),
            pings: 0,
            pause: Pause::new(jitter_seed),
            acked_early: None,
        }
    }

    /// Returns where the link stands.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Returns when to send `Tick` next.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            LinkState::Disconnected | LinkState::Stopped(_) => None,
            LinkState::BackingOff(until) => Some(until),
            LinkState::Connecting | LinkState::Handshaking => Some(self.attempt_until),
            LinkState::Deciding | LinkState::Streaming => {
                Some(self.spoke.after(PING_EVERY).min(self.heard.after(SILENCE)))
            }
        }
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: LinkEvent, effects: &mut Vec<LinkEffect>) {
        match event {
            LinkEvent::Start => {
                if matches!(self.state, LinkState::Disconnected | LinkState::Stopped(_)) {
                    self.pause.reset();
                    self.connect(now, effects);
                }
            }
            LinkEvent::Stop => self.on_stop(now, effects),
            LinkEvent::Tick => self.on_tick(now, effects),
            LinkEvent::Connected(connection) => {
                if connection == self.connection && self.state == LinkState::Connecting {
                    self.state = LinkState::Handshaking;
                }
            }
            LinkEvent::Broken(connection) => {
                if connection == self.connection {
                    self.fail(now, effects);
                }
            }
            LinkEvent::Received(connection, message) => {
                if connection == self.connection && self.is_connected() {
                    self.heard = now;
                    self.on_message(now, message, effects);
                }
            }
            LinkEvent::HelloReady(hello) => {
                if self.state == LinkState::Handshaking {
                    assert!(hello.versions == PROTOCOL_VERSIONS, "the agent says what this build speaks");
                    self.transmit(now, Message::Hello(hello), effects);
                }
            }
            LinkEvent::Resumed => {
                if self.state == LinkState::Deciding {
                    self.state = LinkState::Streaming;
                    self.pause.on_streaming(now);
                    effects.extend(self.acked_early.take());
                }
            }
            // LK-1: what comes late from a spool or resync that has not heard of the end is dropped; it is
            // sent again in the next session.
            LinkEvent::Send(batch) => self.stream(now, Message::Batch(batch), effects),
            LinkEvent::Ask(request) => self.stream(now, Message::HashRequest(request), effects),
            LinkEvent::AskMarks(request) => self.stream(now, Message::MarksRequest(request), effects),
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Handshaking | LinkState::Deciding | LinkState::Streaming)
    }

    fn stream(&mut self, now: Instant, message: Message, effects: &mut Vec<LinkEffect>) {
        if self.state == LinkState::Streaming {
            self.transmit(now, message, effects);
        }
    }

    fn transmit(&mut self, now: Instant, message: Message, effects: &mut Vec<LinkEffect>) {
        self.spoke = now;
        effects.push(LinkEffect::Transmit(self.connection, message));
    }

    fn connect(&mut self, now: Instant, effects: &mut Vec<LinkEffect>) {
        self.connection.0 += 1;
        self.state = LinkState::Connecting;
        self.attempt_until = now.after(HANDSHAKE);
        self.heard = now;
        self.spoke = now;
        self.acked_early = None;
        effects.push(LinkEffect::Connect { connection: self.connection, endpoint: self.endpoint });
    }

    fn leave(&mut self, effects: &mut Vec<LinkEffect>) {
        if self.is_connected() || self.state == LinkState::Connecting {
            effects.push(LinkEffect::Close(self.connection));
        }
        if matches!(self.state, LinkState::Deciding | LinkState::Streaming) {
            effects.push(LinkEffect::SessionDown);
        }
    }

    fn on_stop(&mut self, now: Instant, effects: &mut Vec<LinkEffect>) {
        if self.is_connected() {
            self.transmit(now, Message::Bye, effects);
        }
        self.leave(effects);
        self.state = LinkState::Disconnected;
    }

    fn on_tick(&mut self, now: Instant, effects: &mut Vec<LinkEffect>) {
        match self.state {
            LinkState::BackingOff(_) if planted::active(Bug::NeverReconnect) => {}
            LinkState::BackingOff(until) if now >= until => self.connect(now, effects),
            LinkState::Connecting | LinkState::Handshaking if now >= self.attempt_until => {
                self.fail(now, effects)
            }
            LinkState::Deciding | LinkState::Streaming if now >= self.heard.after(SILENCE) => {
                self.fail(now, effects);
            }
            LinkState::Deciding | LinkState::Streaming if now >= self.spoke.after(PING_EVERY) => {
                self.pings += 1;
                self.transmit(now, Message::Ping(self.pings), effects);
            }
            _ => {}
        }
    }

    /// Ends the attempt or session and pauses; the next attempt tries the next endpoint.
    fn fail(&mut self, now: Instant, effects: &mut Vec<LinkEffect>) {
        if !self.is_connected() && self.state != LinkState::Connecting {
            return;
        }
        self.leave(effects);
        self.endpoint = (self.endpoint + 1) % self.endpoints;
        self.state = LinkState::BackingOff(now.after(self.pause.after_failure(now)));
    }

    fn on_message(&mut self, now: Instant, message: Message, effects: &mut Vec<LinkEffect>) {
        if !is_possible(&message) {
            // LK-7: relied upon, it would end in sequences that overflow or in marks that are forgotten.
            return self.fail(now, effects);
        }
        match (self.state, message) {
            (LinkState::Handshaking, Message::Challenge(challenge)) => {
                effects.push(LinkEffect::SayHello { challenge });
            }
            (LinkState::Handshaking, Message::Welcome(welcome)) => {
                self.state = LinkState::Deciding;
                effects.push(LinkEffect::Decide(welcome));
            }
            (_, Message::Refused { reason, detail }) => self.on_refused(now, reason, detail, effects),
            (
                state @ (LinkState::Deciding | LinkState::Streaming),
                Message::Ack { staged, vaulted, permits_total },
            ) => {
                let acked = LinkEffect::Acked { staged, vaulted, permits_total };
                if state == LinkState::Streaming {
                    self.pause.reset();
                    effects.push(acked);
                } else {
                    self.acked_early = Some(acked);
                }
            }
            (LinkState::Streaming, Message::HashReply(reply)) => effects.push(LinkEffect::Hashes(reply)),
            (LinkState::Streaming, Message::MarksReply(reply)) => effects.push(LinkEffect::Marks(reply)),
            (_, Message::Ping(number)) => self.transmit(now, Message::Pong(number), effects),
            (_, Message::Pong(_)) | (LinkState::Deciding, Message::HashReply(_) | Message::MarksReply(_)) => {
            }
            // `Bye`, or a message out of place: this peer is of no use now.
            _ => self.fail(now, effects),
        }
    }

    fn on_refused(
        &mut self,
        now: Instant,
        reason: RefusedReason,
        detail: String,
        effects: &mut Vec<LinkEffect>,
    ) {
        if reason.is_retryable() {
            self.fail(now, effects);
            return;
        }
        self.leave(effects);
        self.state = LinkState::Stopped(reason);
        effects.push(LinkEffect::Stopped { reason, detail });
    }
}

/// Tells whether the positions in a message can be true.
fn is_possible(message: &Message) -> bool {
    let in_order = |staged: &BatchPosition, vaulted: &BatchPosition| {
        staged.is_possible() && vaulted.is_possible() && vaulted.seq <= staged.seq
    };
    match message {
        Message::Welcome(welcome) => in_order(&welcome.staged, &welcome.vaulted),
        Message::Ack { staged, vaulted, .. } => in_order(staged, vaulted),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
