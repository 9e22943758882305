//! Single rules of the spool that a random run reaches too seldom.

use bytes::Bytes;
use redoubt_core::spool::{
    HELD_BATCHES_MAX, IN_FLIGHT_BATCHES_MAX, READS_MAX, SpillPlace, SpillWork, Spool, SpoolEffect,
    SpoolEvent, SpoolLimits,
};
use redoubt_core::{Chain, Generation, MachineId, SealedBatch, SealedFlags, SealedMeta, WriteSeq};

const BYTES: u32 = 200;

fn batch(seq: u64) -> SealedBatch {
    let meta = SealedMeta {
        machine: MachineId(1),
        generation: Generation(1),
        first: WriteSeq(seq),
        last: WriteSeq(seq),
        flags: SealedFlags(0),
        prev: Chain([(seq - 1) as u8; 32]),
        chain: Chain([seq as u8; 32]),
        bytes: BYTES,
    };
    SealedBatch { meta, bytes: vec![seq as u8; BYTES as usize].into() }
}

fn step(spool: &mut Spool, event: SpoolEvent) -> Vec<SpoolEffect> {
    let mut effects = Vec::new();
    spool.step(event, &mut effects);
    effects
}

/// A spool whose batches `1..=count` are all on disk.
fn on_disk(count: u64) -> Spool {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 10_000, spill_bytes: 1 << 20 }, 1);
    for seq in 1..=count {
        step(&mut spool, SpoolEvent::Push(batch(seq)));
    }
    step(&mut spool, SpoolEvent::SpillAll);
    step(&mut spool, SpoolEvent::SpillSynced { ticket: 1 });
    assert!(spool.is_all_on_disk());
    spool
}

fn session(permits_total: u64) -> SpoolEvent {
    SpoolEvent::SessionUp { after: WriteSeq(0), permits_total }
}

fn reads(effects: &[SpoolEffect]) -> Vec<u64> {
    let read = |effect: &SpoolEffect| match effect {
        SpoolEffect::Spill(SpillWork::Read { first, .. }) => Some(first.0),
        _ => None,
    };
    effects.iter().filter_map(read).collect()
}

fn done(seq: u64) -> SpoolEvent {
    SpoolEvent::ReadDone { first: WriteSeq(seq), bytes: batch(seq).bytes }
}

#[test]
fn entries_of_one_spill_share_a_file() {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 500, spill_bytes: 1 << 20 }, 1);
    let mut effects = Vec::new();
    (1..=3).for_each(|seq| effects.extend(step(&mut spool, SpoolEvent::Push(batch(seq)))));
    let created =
        effects.iter().filter(|effect| matches!(effect, SpoolEffect::Spill(SpillWork::Create { .. })));
    let appended =
        effects.iter().filter(|effect| matches!(effect, SpoolEffect::Spill(SpillWork::Append { .. })));
    assert_eq!((created.count(), appended.count()), (1, 3));
}

#[test]
fn read_backs_that_wait_for_an_earlier_one_count_against_the_bound() {
    let mut spool = on_disk(12);
    let first = reads(&step(&mut spool, session(1 << 20)));
    assert_eq!(first.len(), READS_MAX);
    // All but the oldest come in: they wait in memory, and nothing more is read.
    for seq in &first[1..] {
        assert_eq!(reads(&step(&mut spool, done(*seq))), [] as [u64; 0]);
    }
    let sent = step(&mut spool, done(first[0]));
    let sends = sent.iter().filter(|effect| matches!(effect, SpoolEffect::Send(_))).count();
    assert_eq!((sends, reads(&sent).len()), (READS_MAX, READS_MAX), "the flow goes on");
}

#[test]
fn read_backs_of_an_earlier_session_do_not_block_the_next_one() {
    let mut spool = on_disk(12);
    step(&mut spool, session(1 << 20));
    (1..=4).for_each(|seq| drop(step(&mut spool, done(seq))));
    step(&mut spool, SpoolEvent::SessionDown);
    // 5..=8 are still being read; nothing was staged, so the next session begins at 1.
    let mut waiting = reads(&step(&mut spool, session(1 << 20)));
    waiting.extend(5..=8);
    let mut sent = Vec::new();
    while let Some(seq) = waiting.pop() {
        let effects = step(&mut spool, done(seq));
        waiting.splice(0..0, reads(&effects));
        sent.extend(effects.iter().filter_map(|effect| match effect {
            SpoolEffect::Send(batch) => Some(batch.meta.first.0),
            _ => None,
        }));
    }
    assert_eq!(sent, (1..=12).collect::<Vec<u64>>());
}

#[test]
fn a_lost_read_back_gives_up_everything_that_is_held() {
    let mut spool = on_disk(4);
    step(&mut spool, session(1 << 20));
    // The batch before was neither sent nor staged: its ranges must be marked as well.
    let effects = step(&mut spool, SpoolEvent::ReadFailed { first: WriteSeq(2) });
    assert_eq!(effects, [SpoolEffect::Lost { first: WriteSeq(1) }]);
}

#[test]
fn a_spill_that_fails_when_nothing_is_held_any_more_ends_its_overflow_at_once() {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 100, spill_bytes: 1 << 20 }, 1);
    step(&mut spool, session(1 << 20));
    step(&mut spool, SpoolEvent::Push(batch(1)));
    step(&mut spool, SpoolEvent::Staged(WriteSeq(1)));
    let effects = step(&mut spool, SpoolEvent::SpillFailed { ticket: 1 });
    assert!(effects.contains(&SpoolEffect::Drained), "{effects:?}");
    assert!(!spool.is_overflowing());
}

#[test]
fn a_failure_of_a_spill_that_was_given_up_changes_nothing() {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 100, spill_bytes: 1 << 20 }, 1);
    step(&mut spool, SpoolEvent::Push(batch(1)));
    spool.abandon(&mut Vec::new());
    assert_eq!(step(&mut spool, SpoolEvent::SpillFailed { ticket: 1 }), []);
    assert!(!spool.is_overflowing());
    // Nor does it end a later one.
    step(&mut spool, SpoolEvent::Push(batch(2)));
    assert_eq!(step(&mut spool, SpoolEvent::SpillFailed { ticket: 1 }), []);
    assert!(!spool.is_overflowing());
    step(&mut spool, SpoolEvent::SpillSynced { ticket: 2 });
    assert!(spool.is_all_on_disk());
}

#[test]
fn what_piled_up_behind_a_cut_leaves_in_portions() {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 1 << 30, spill_bytes: 0 }, 1);
    let many = IN_FLIGHT_BATCHES_MAX as u64 * 3;
    (1..=many).for_each(|seq| drop(step(&mut spool, SpoolEvent::Push(batch(seq)))));
    let sends = |effects: Vec<SpoolEffect>| {
        effects.iter().filter(|effect| matches!(effect, SpoolEffect::Send(_))).count()
    };
    assert_eq!(sends(step(&mut spool, session(1 << 40))), IN_FLIGHT_BATCHES_MAX);
    assert_eq!(sends(step(&mut spool, SpoolEvent::Permits(1 << 41))), 0);
    assert_eq!(
        sends(step(&mut spool, SpoolEvent::Staged(WriteSeq(100)))),
        100,
        "each one staged lets one go"
    );
}

#[test]
fn a_small_spill_that_is_drained_as_fast_as_it_fills_never_reaches_its_cap() {
    let spill_bytes = 40 * (u64::from(BYTES) + 48);
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 100, spill_bytes }, 1);
    let mut pushed = 0;
    for ticket in 1..400 {
        pushed += 1;
        let effects = step(&mut spool, SpoolEvent::Push(batch(pushed)));
        assert!(!effects.contains(&SpoolEffect::Overflow), "after {pushed} batches");
        step(&mut spool, SpoolEvent::SpillSynced { ticket });
        step(&mut spool, SpoolEvent::Staged(WriteSeq(pushed.saturating_sub(4))));
        assert!(spool.spill_bytes() <= spill_bytes);
    }
}

#[test]
fn a_spill_that_hangs_is_given_nothing_more_until_it_answers() {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: 1_000, spill_bytes: 1 << 20 }, 1);
    let is_write = |effect: &SpoolEffect| {
        matches!(effect, SpoolEffect::Spill(SpillWork::Append { .. } | SpillWork::Sync { .. }))
    };
    let (mut seq, mut writes) = (0, 0);
    for _ in 0..50 {
        // Fills up until order is lost, is then staged over the link, and is empty again.
        let mut is_overflowing = false;
        while !is_overflowing {
            seq += 1;
            let effects = step(&mut spool, SpoolEvent::Push(batch(seq)));
            writes += effects.iter().filter(|effect| is_write(effect)).count();
            is_overflowing = spool.is_overflowing();
            assert!(spool.memory_bytes() <= 2 * 1_000 + u64::from(BYTES));
        }
        let effects = step(&mut spool, SpoolEvent::Staged(WriteSeq(seq)));
        assert!(effects.contains(&SpoolEffect::Drained) && !spool.is_overflowing());
    }
    assert!(writes <= 7, "{writes} writes wait for a disk that does not answer");
    let mut effects = step(&mut spool, SpoolEvent::SpillSynced { ticket: 1 });
    (1..=6).for_each(|more| effects.extend(step(&mut spool, SpoolEvent::Push(batch(seq + more)))));
    assert!(effects.iter().any(is_write), "it answered, and is used again");
}

#[test]
fn a_full_queue_of_headers_ends_order_and_not_the_process() {
    let mut spool = Spool::new(SpoolLimits { memory_bytes: u64::MAX, spill_bytes: 0 }, 1);
    let bytes = Bytes::from_static(&[0; BYTES as usize]);
    let mut push = |seq: u64| {
        let meta = SealedMeta { prev: Chain([0; 32]), chain: Chain([0; 32]), ..batch(1).meta };
        let meta = SealedMeta { first: WriteSeq(seq), last: WriteSeq(seq), ..meta };
        step(&mut spool, SpoolEvent::Push(SealedBatch { meta, bytes: bytes.clone() }))
    };
    for seq in 1..HELD_BATCHES_MAX as u64 {
        assert_eq!(push(seq).len(), 1, "accepted");
    }
    let last = push(HELD_BATCHES_MAX as u64);
    assert_eq!(last, [SpoolEffect::Accepted, SpoolEffect::Overflow]);
    assert_eq!(push(HELD_BATCHES_MAX as u64 + 1), [SpoolEffect::Refused]);
}

#[test]
fn a_restart_uses_only_batches_that_continue_each_other() {
    let place = |file| SpillPlace { file, offset: 40, bytes: BYTES };
    let (first, third) = (batch(1).meta, batch(3).meta);
    let limits = SpoolLimits { memory_bytes: 100, spill_bytes: 1 << 20 };
    let found = vec![(first, place(4)), (third, place(5))];
    let mut spool = Spool::recover(limits, vec![(4, 248), (5, 248)], found);
    assert_eq!(spool.held(), [first]);
    assert_eq!(
        step(&mut spool, SpoolEvent::SessionDown),
        [SpoolEffect::Spill(SpillWork::Remove { file: 5 })]
    );
    let bytes: Bytes = batch(2).bytes;
    let next = SealedBatch { meta: batch(2).meta, bytes };
    let effects = step(&mut spool, SpoolEvent::Push(next));
    assert!(
        effects.contains(&SpoolEffect::Spill(SpillWork::Create { file: 6 })),
        "numbers are never reused: {effects:?}"
    );
}
