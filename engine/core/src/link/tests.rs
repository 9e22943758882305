//! Single rules of the link.

use super::*;
use crate::ids::{NUMBER_MAX, WriteSeq};
use crate::message::Welcome;

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

fn position(seq: u64) -> BatchPosition {
    BatchPosition { seq: WriteSeq(seq), ..BatchPosition::default() }
}

fn refused() -> Message {
    Message::Refused { reason: RefusedReason::StageFailed, detail: String::new() }
}

/// Takes a connecting link to its session.
fn welcome(link: &mut Link, now: Instant) {
    let id = link.connection;
    step(link, now, LinkEvent::Connected(id));
    let position = BatchPosition::default();
    let welcome = Welcome { staged: position, vaulted: position, permits_total: 0, exact: false };
    step(link, now, LinkEvent::Received(id, Message::Welcome(welcome)));
    step(link, now, LinkEvent::Resumed);
    assert_eq!(link.state(), LinkState::Streaming);
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

#[test]
fn a_session_that_ends_before_it_was_of_use_counts_as_a_failed_attempt() {
    let mut link = streaming();
    let mut now = Instant(0);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let id = link.connection;
        step(&mut link, now, LinkEvent::Received(id, refused()));
        let LinkState::BackingOff(until) = link.state() else { panic!("it pauses") };
        pauses.push(until.since(now).as_millis());
        now = until;
        step(&mut link, now, LinkEvent::Tick);
        welcome(&mut link, now);
    }
    assert!(pauses[2] > 2 * pauses[0], "{pauses:?} ms");
    let ack = Message::Ack { staged: position(0), vaulted: position(0), permits_total: 0 };
    let id = link.connection;
    step(&mut link, now, LinkEvent::Received(id, ack));
    step(&mut link, now, LinkEvent::Received(id, refused()));
    let LinkState::BackingOff(until) = link.state() else { panic!("it pauses") };
    assert!(until.since(now) <= Duration::from_secs(1), "an acknowledgement makes failures old news");
}

#[test]
fn positions_that_cannot_be_true_end_the_session_before_anything_relies_on_them() {
    for (staged, vaulted) in [(u64::MAX, 0), (NUMBER_MAX + 1, 0), (3, 4)] {
        let mut link = streaming();
        let ack = Message::Ack { staged: position(staged), vaulted: position(vaulted), permits_total: 9 };
        let end = step(&mut link, Instant(1), LinkEvent::Received(ConnectionId(1), ack));
        assert_eq!(end, [LinkEffect::Close(ConnectionId(1)), LinkEffect::SessionDown]);
    }
}
