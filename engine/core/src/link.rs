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
//! - LK-3 Attempts after failures are 1, 2, 4, 8, 16, 30 s apart, each shortened by up to a quarter.
//! - LK-4 A refusal that trying again cannot change stops the link (R-68).
//! - LK-5 Messages of an earlier connection are ignored: every connection has its own number.
//! - LK-6 The newest acknowledgement that came while Deciding is passed on when Streaming begins: a process
//!   server with a full stage grants permits once, when its commit ends, and must not be missed.
//!
//! Why not the delays of R-68 (1, 2, 4, 8, 10, then every 30 min): those belong to the classic profile,
//! whose unit of work is a backup job. Here every second without a session grows the spool and ages the
//! newest recovery point, and an attempt costs one connection, so the pauses stay within half a minute.
//! R-68's other half holds as it stands: no loop without a pause, nothing hopeless is tried again.
//!
//! What is *not* here: sockets, frames, the proof, what to do about a gap or a fork (the caller).

use crate::ids::BatchPosition;
use crate::message::{HashReply, HashRequest, Hello, Message, PROTOCOL_VERSIONS, RefusedReason, Welcome};
use crate::planted::{self, Bug};
use crate::sealed::SealedBatch;
use crate::time::Instant;
use std::time::Duration;

/// Longest time from the start of an attempt to `Welcome`; covers a slow promise over a bad line.
pub const HANDSHAKE: Duration = Duration::from_secs(15);
/// A ping is sent when nothing was sent for this long.
pub const PING_EVERY: Duration = Duration::from_secs(5);
/// A session that heard nothing for this long is dead: three pings were not answered.
pub const SILENCE: Duration = Duration::from_secs(16);
/// Longest pause between attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Number of one connection; grows with every attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// Begin, or begin again after a stop.
    Start,
    /// End the session and stay disconnected.
    Stop,
    /// Time passed; comes at or after [`Link::deadline`].
    Tick,
    /// The connection stands.
    Connected(ConnectionId),
    /// The attempt failed, or the connection broke, or its bytes were no frames.
    Broken(ConnectionId),
    /// A message arrived.
    Received(ConnectionId, Message),
    /// The caller filled in `Hello` (asked for by `SayHello`).
    HelloReady(Hello),
    /// The caller settled the resume decision (asked for by `Decide`). Then the spool gets `SessionUp`, and
    /// only after that are the effects of this step performed: one may be an `Acked` that raises permits.
    Resumed,
    /// The spool sends a batch.
    Send(SealedBatch),
    /// The resync asks for digests.
    Ask(HashRequest),
}

/// What the shell does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEffect {
    /// Connect to the endpoint of this ordinal in the configured list.
    Connect {
        /// Number for all events of this connection.
        connection: ConnectionId,
        /// Ordinal of the endpoint.
        endpoint: usize,
    },
    /// Close the connection; its later events are ignored.
    Close(ConnectionId),
    /// Answer with `HelloReady`: fields from the agent's state, proof by the key for this challenge.
    SayHello {
        /// The process server's nonce.
        challenge: [u8; 32],
    },
    /// Send a message.
    Transmit(ConnectionId, Message),
    /// Compare the staged position with what is held, act, then answer `Resumed`.
    Decide(Welcome),
    /// Durable watermarks and permits arrived.
    Acked {
        /// Durable at the process server.
        staged: BatchPosition,
        /// Durable in the vault.
        vaulted: BatchPosition,
        /// Cumulative permits.
        permits_total: u64,
    },
    /// Digests arrived.
    Hashes(HashReply),
    /// The streaming session ended; the spool gets `SessionDown`, open hash requests are asked again.
    SessionDown,
    /// The link stopped; nothing but a change helps.
    Stopped {
        /// Why.
        reason: RefusedReason,
        /// The process server's words.
        detail: String,
    },
}

/// Where the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not wanted.
    Disconnected,
    /// Waiting for a connection.
    Connecting,
    /// Waiting for the challenge or the welcome.
    Handshaking,
    /// Waiting for the caller's resume decision.
    Deciding,
    /// Batches flow.
    Streaming,
    /// Pausing until the instant.
    BackingOff(Instant),
    /// Refused for good.
    Stopped(RefusedReason),
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Link {
    state: LinkState,
    connection: ConnectionId,
    endpoints: usize,
    endpoint: usize,
    failures: u32,
    attempt_until: Instant,
    heard: Instant,
    spoke: Instant,
    pings: u64,
    jitter: u64,
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
            failures: 0,
            attempt_until: Instant(0),
            heard: Instant(0),
            spoke: Instant(0),
            pings: 0,
            jitter: jitter_seed,
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
                    self.failures = 0;
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
                    self.failures = 0;
                    effects.extend(self.acked_early.take());
                }
            }
            // LK-1: what comes late from a spool or resync that has not heard of the end is dropped; it is
            // sent again in the next session.
            LinkEvent::Send(batch) => self.stream(now, Message::Batch(batch), effects),
            LinkEvent::Ask(request) => self.stream(now, Message::HashRequest(request), effects),
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
        let whole = Duration::from_secs(1 << self.failures.min(5)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        // A linear congruential step is enough to spread agents; nothing depends on its quality.
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let shorter = whole / 4 * ((self.jitter >> 48) as u32) / 65_536;
        self.state = LinkState::BackingOff(now.after(whole - shorter));
    }

    fn on_message(&mut self, now: Instant, message: Message, effects: &mut Vec<LinkEffect>) {
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
                    effects.push(acked);
                } else {
                    self.acked_early = Some(acked);
                }
            }
            (LinkState::Streaming, Message::HashReply(reply)) => effects.push(LinkEffect::Hashes(reply)),
            (_, Message::Ping(number)) => self.transmit(now, Message::Pong(number), effects),
            (_, Message::Pong(_)) | (LinkState::Deciding, Message::HashReply(_)) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn step(link: &mut Link, now: Instant, event: LinkEvent) -> Vec<LinkEffect> {
        let mut effects = Vec::new();
        link.step(now, event, &mut effects);
        effects
    }

    fn deciding() -> Link {
        let mut link = Link::new(2, 7);
        let now = Instant(0);
        step(&mut link, now, LinkEvent::Start);
        let id = ConnectionId(1);
        step(&mut link, now, LinkEvent::Connected(id));
        let position = BatchPosition::default();
        let welcome = Welcome { staged: position, vaulted: position, permits_total: 0, exact: false };
        step(&mut link, now, LinkEvent::Received(id, Message::Welcome(welcome)));
        assert_eq!(link.state(), LinkState::Deciding);
        link
    }

    fn streaming() -> Link {
        let mut link = deciding();
        step(&mut link, Instant(0), LinkEvent::Resumed);
        assert_eq!(link.state(), LinkState::Streaming);
        link
    }

    #[test]
    fn a_session_that_falls_silent_while_the_caller_decides_is_ended() {
        let mut link = deciding();
        step(&mut link, Instant(0).after(PING_EVERY), LinkEvent::Tick);
        let end = step(&mut link, Instant(0).after(SILENCE), LinkEvent::Tick);
        assert_eq!(end, [LinkEffect::Close(ConnectionId(1)), LinkEffect::SessionDown]);
    }

    #[test]
    fn permits_that_arrive_while_the_caller_decides_are_passed_on_when_it_has() {
        let mut link = deciding();
        let staged = BatchPosition::default();
        let ack = |permits_total| Message::Ack { staged, vaulted: staged, permits_total };
        for permits in [5, 9] {
            let early = LinkEvent::Received(ConnectionId(1), ack(permits));
            assert_eq!(step(&mut link, Instant(1), early), []);
        }
        let acked = LinkEffect::Acked { staged, vaulted: staged, permits_total: 9 };
        assert_eq!(step(&mut link, Instant(2), LinkEvent::Resumed), [acked]);
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_endpoints_rotate() {
        let mut link = Link::new(2, 1);
        let mut now = Instant(0);
        let mut effects = step(&mut link, now, LinkEvent::Start);
        for (attempt, seconds) in [1u64, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            let id = ConnectionId(attempt as u64 + 1);
            assert_eq!(effects, [LinkEffect::Connect { connection: id, endpoint: attempt % 2 }]);
            step(&mut link, now, LinkEvent::Broken(id));
            let LinkState::BackingOff(until) = link.state() else { panic!("it pauses") };
            let pause = until.since(now);
            assert!(pause <= Duration::from_secs(seconds) && pause >= Duration::from_secs(seconds) * 3 / 4);
            now = until;
            effects = step(&mut link, now, LinkEvent::Tick);
        }
    }

    #[test]
    fn a_silent_session_is_pinged_and_then_ended() {
        let mut link = streaming();
        let ping = step(&mut link, Instant(0).after(PING_EVERY), LinkEvent::Tick);
        assert_eq!(ping, [LinkEffect::Transmit(ConnectionId(1), Message::Ping(1))]);
        let end = step(&mut link, Instant(0).after(SILENCE), LinkEvent::Tick);
        assert_eq!(end, [LinkEffect::Close(ConnectionId(1)), LinkEffect::SessionDown]);
    }

    #[test]
    fn only_a_refusal_that_trying_again_cannot_change_stops_the_link() {
        for reason in RefusedReason::ALL {
            let mut link = streaming();
            let refused = Message::Refused { reason, detail: String::new() };
            step(&mut link, Instant(1), LinkEvent::Received(ConnectionId(1), refused));
            assert_eq!(link.state() == LinkState::Stopped(reason), !reason.is_retryable(), "{reason:?}");
        }
    }

    #[test]
    fn messages_of_an_earlier_connection_are_ignored() {
        let mut link = streaming();
        assert_eq!(step(&mut link, Instant(1), LinkEvent::Broken(ConnectionId(0))), []);
        let late = LinkEvent::Received(ConnectionId(0), Message::Bye);
        assert_eq!(step(&mut link, Instant(1), late), []);
        assert_eq!(link.state(), LinkState::Streaming);
    }
}
