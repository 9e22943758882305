//! The decision tables of `resume` and `judge`: in every case exactly one row matches, and it decides.
//!
//! The rows are written down again here, each on its own, so that an order of checks in the code cannot
//! hide an overlap or a hole of the table.

use redoubt_core::message::{Hello, Message, PROTOCOL_VERSIONS, RefusedReason};
use redoubt_core::receiver::{
    RECENT_MAX, Receiver, ReceiverEffect, ReceiverEvent, ReceiverLimits, ReceiverState, SessionId, Verdict,
    judge, judge_found,
};
use redoubt_core::spool::{Resume, resume};
use redoubt_core::{
    BatchPosition, Chain, Generation, Instant, MachineId, SealedBatch, SealedFlags, SealedMeta, WriteSeq,
};

const OURS: Chain = Chain([1; 32]);
const OTHER: Chain = Chain([2; 32]);

fn at(seq: u64, chain: Chain) -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain }
}

fn meta(first: u64, last: u64, prev: Chain, chain: Chain, opens: bool) -> SealedMeta {
    SealedMeta {
        machine: MachineId(1),
        generation: Generation(1),
        first: WriteSeq(first),
        last: WriteSeq(last),
        flags: SealedFlags(if opens { SealedFlags::STARTS_RESYNC } else { 0 }),
        prev,
        chain,
        bytes: 100,
    }
}

/// Checks that exactly one row holds, and returns what it decides.
fn only<T: Copy + std::fmt::Debug>(rows: &[(bool, T)], case: &str) -> T {
    let matching: Vec<T> = rows.iter().filter(|(holds, _)| *holds).map(|(_, decision)| *decision).collect();
    assert_eq!(matching.len(), 1, "{case}: rows {matching:?}");
    matching[0]
}

#[test]
fn every_resume_decision_comes_from_exactly_one_row() {
    for (seq, newest, first) in cube(0..9, 1..9, 1..9) {
        for bits in 0..16u8 {
            let [same, opens, continues, empty] = [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1);
            let staged = at(seq, OURS);
            let newest = at(newest, if same { OURS } else { OTHER });
            let prev = if continues { OURS } else { OTHER };
            let batch = meta(first, first + 1, prev, newest.chain, opens);
            let held = if empty { vec![] } else { vec![batch] };
            let next = held.iter().find(|meta| meta.last.0 > seq);
            let below = seq < newest.seq.0;
            let right = next.is_some_and(|next| next.first.0 == seq + 1);
            let later = next.is_some_and(|next| next.first.0 > seq + 1);
            let gap = Resume::Gap { from: WriteSeq(seq + 1) };
            let from = Resume::From { after: WriteSeq(seq) };
            let rows = [
                (seq > newest.seq.0, Resume::AlreadyAhead { staged: WriteSeq(seq) }),
                (seq == newest.seq.0 && same, from),
                (seq == newest.seq.0 && !same, Resume::Fork),
                (below && next.is_some() && !right && !later, Resume::Fork),
                (below && right && continues, from),
                (below && right && !continues, Resume::Fork),
                (below && later && opens && continues, from),
                (below && later && opens && !continues, gap),
                (below && later && !opens, gap),
                (below && next.is_none(), gap),
            ];
            let case = format!("staged {seq}, newest {newest:?}, held {held:?}");
            assert_eq!(resume(staged, newest, held.iter().copied()), only(&rows, &case), "{case}");
        }
    }
}

#[test]
fn every_verdict_comes_from_exactly_one_row() {
    for (seq, first, length) in cube(0..8, 1..8, 0..4) {
        for bits in 0..8u8 {
            let [same_chain, same_prev, opens] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            let chain = if same_chain { OURS } else { OTHER };
            let prev = if same_prev { OURS } else { OTHER };
            let last = first + length;
            let batch = meta(first, last, prev, chain, opens);
            let rows = [
                (last < seq, Verdict::Duplicate),
                (last == seq && same_chain, Verdict::Duplicate),
                (last == seq && !same_chain, Verdict::Fork),
                (first <= seq && last > seq, Verdict::Fork),
                (first > seq && opens, Verdict::Accept),
                (first == seq + 1 && !opens && same_prev, Verdict::Accept),
                (first == seq + 1 && !opens && !same_prev, Verdict::Fork),
                (first > seq + 1 && !opens, Verdict::Gap),
            ];
            let case = format!("position {seq}, batch {batch:?}");
            let verdict = only(&rows, &case);
            assert_eq!(judge(&batch, at(seq, OURS)), verdict, "{case}");
            let is_strange = verdict == Verdict::Accept && !same_prev;
            let found = if is_strange { Verdict::Fork } else { verdict };
            assert_eq!(judge_found(&batch, at(seq, OURS)), found, "staged, {case}");
        }
    }
}

fn cube(
    a: std::ops::Range<u64>,
    b: std::ops::Range<u64>,
    c: std::ops::Range<u64>,
) -> impl Iterator<Item = (u64, u64, u64)> {
    a.flat_map(move |a| {
        let c = c.clone();
        b.clone().flat_map(move |b| c.clone().map(move |c| (a, b, c)))
    })
}

fn step(receiver: &mut Receiver, event: ReceiverEvent) -> Vec<ReceiverEffect> {
    let mut effects = Vec::new();
    receiver.step(Instant(1), event, &mut effects);
    effects
}

fn hello(generation: u64, newest: BatchPosition) -> Hello {
    Hello {
        versions: PROTOCOL_VERSIONS,
        machine: MachineId(1),
        generation: Generation(generation),
        volumes: vec![],
        names: redoubt_core::Names::default(),
        held: None,
        newest,
        proof: [0; 32],
    }
}

/// A receiver in a session, with batches `1..=staged` of one sequence each; the chain of batch `n` is `[n; 32]`.
fn receiver(staged: u64) -> Receiver {
    let link = |seq: u64| chain(seq);
    let batches = (1..=staged).map(|seq| meta(seq, seq, link(seq - 1), link(seq), seq == 1)).collect();
    let found = ReceiverState { generation: Generation(1), staged: batches, ..ReceiverState::default() };
    let mut receiver = Receiver::new(Instant(0), MachineId(1), ReceiverLimits::default(), found);
    let hello = hello(1, at(staged, link(staged)));
    let welcome = step(&mut receiver, ReceiverEvent::Hello { session: SessionId(1), hello, proven: true });
    assert!(matches!(welcome[0], ReceiverEffect::Transmit(_, Message::Welcome(_))));
    receiver
}

fn chain(seq: u64) -> Chain {
    let mut chain = [0; 32];
    chain[..8].copy_from_slice(&seq.to_le_bytes());
    Chain(chain)
}

fn send(receiver: &mut Receiver, meta: SealedMeta) -> Vec<ReceiverEffect> {
    let batch = SealedBatch { meta, bytes: vec![0; meta.bytes as usize].into() };
    step(receiver, ReceiverEvent::Received(SessionId(1), Message::Batch(batch)))
}

fn is_refused_as_fork(effects: &[ReceiverEffect]) -> bool {
    effects.iter().any(|effect| {
        matches!(effect, ReceiverEffect::Transmit(_, Message::Refused { reason: RefusedReason::Fork, .. }))
    })
}

#[test]
fn an_older_batch_is_a_duplicate_only_with_the_chain_that_was_accepted() {
    let same = meta(3, 3, chain(2), chain(3), false);
    assert!(!is_refused_as_fork(&send(&mut receiver(6), same)));
    let forked = meta(3, 3, chain(2), OTHER, false);
    assert!(is_refused_as_fork(&send(&mut receiver(6), forked)));
}

#[test]
fn an_older_batch_that_ends_inside_an_accepted_one_is_a_fork() {
    let mut receiver = receiver(2);
    assert!(!is_refused_as_fork(&send(&mut receiver, meta(3, 8, chain(2), chain(8), false))));
    assert!(is_refused_as_fork(&send(&mut receiver, meta(3, 5, chain(2), chain(5), false))));
}

#[test]
fn a_batch_older_than_what_is_remembered_changes_nothing() {
    let long = RECENT_MAX as u64 + 10;
    let effects = send(&mut receiver(long), meta(3, 3, chain(2), OTHER, false));
    assert!(matches!(effects[..], [ReceiverEffect::Transmit(_, Message::Ack { .. })]));
    let forked = meta(long - 5, long - 5, chain(long - 6), OTHER, false);
    assert!(is_refused_as_fork(&send(&mut receiver(long), forked)));
}

#[test]
fn a_resync_of_another_history_is_accepted_and_reported() {
    let mut receiver = receiver(2);
    let continues = meta(5, 6, chain(2), chain(6), true);
    let replaced = |effects: &[ReceiverEffect]| {
        effects.iter().find_map(|effect| match effect {
            ReceiverEffect::HistoryReplaced { at, by } => Some((at.seq, by.first)),
            _ => None,
        })
    };
    assert_eq!(replaced(&send(&mut receiver, continues)), None);
    let foreign = meta(9, 9, OTHER, chain(9), true);
    assert_eq!(replaced(&send(&mut receiver, foreign)), Some((WriteSeq(6), WriteSeq(9))));
}

#[test]
fn a_fenced_receiver_wants_the_log_back_only_for_an_agent_it_would_welcome() {
    let refusal = |effects: &[ReceiverEffect]| match effects {
        [
            ReceiverEffect::Transmit(session, Message::Refused { reason, .. }),
            ReceiverEffect::Close(closed),
        ] => {
            assert_eq!(session, closed);
            Some((*session, *reason))
        }
        _ => None,
    };
    let mut receiver = receiver(2);
    let fenced = step(&mut receiver, ReceiverEvent::Fenced);
    assert_eq!(refusal(&fenced), Some((SessionId(1), RefusedReason::Fenced)));
    assert_eq!(receiver.deadline(), None, "RC-7: no time brings the log back");
    let session = SessionId(2);
    let said = |generation, proven| {
        let hello = hello(generation, at(2, chain(2)));
        ReceiverEvent::Hello { session, hello, proven }
    };
    let unproven = step(&mut receiver, said(1, false));
    assert_eq!(refusal(&unproven), Some((session, RefusedReason::WrongKey)));
    let old = step(&mut receiver, said(0, true));
    assert_eq!(refusal(&old), Some((session, RefusedReason::OldGeneration)));
    assert_eq!(step(&mut receiver, said(1, true)), [ReceiverEffect::ClaimAgain(session)]);
}
