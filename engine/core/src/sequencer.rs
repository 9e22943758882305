//! Decides which write sequence comes next, without a durable write per sequence.
//!
//! Sequences are reserved in blocks: the agent's record says durably "everything up to R may have
//! been used" before the first of the block is issued. A crash burns the rest of the block.
//!
//! Invariants
//! - SQ-1 A sequence is issued at most once in the life of a machine, across any crash (ID-1): it
//!   is issued only if it lies in a durably reserved block, and a resume starts after the block.
//! - SQ-2 Issued sequences are contiguous between two resumes.
//! - SQ-3 At most one reservation is under way, and it is asked for while half a block remains, so
//!   that the guest never waits for it. If it comes too late the caller loses order, not writes.
//!
//! What is *not* here: the record that makes a reservation durable ([`crate::agent_state`]).
//! Source: ours; field lesson 5 (reserve ids ahead, burn them on a crash).

use crate::ids::WriteSeq;
use crate::planted::{self, Bug};

/// Sequences in one reserved block: at a million writes per second one durable record per second;
/// 2^44 crashes are needed to exhaust 64 bits by burning.
pub const RESERVE_BLOCK: u64 = 1 << 20;

/// A contiguous run of sequences, taken in one step for one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// First sequence.
    pub first: WriteSeq,
    /// Last sequence, not before `first`.
    pub last: WriteSeq,
}

/// Issues sequences from durably reserved blocks.
#[derive(Clone, Debug)]
pub struct Sequencer {
    next: u64,
    reserved_until: u64,
    pending: Option<u64>,
}

impl Sequencer {
    /// Continues after a stop. `issued` is the last sequence the durable record names as used,
    /// `reserved_until` the end of its reserved block, `clean` whether the record was written by a
    /// clean stop, after which nothing was issued. Issues nothing before the first
    /// [`Sequencer::on_reserved`], whose record must say that the stop is no longer clean.
    pub fn resume(issued: WriteSeq, reserved_until: WriteSeq, clean: bool) -> Sequencer {
        assert!(issued <= reserved_until, "SQ-1: issued {issued} beyond the reservation {reserved_until}");
        let reuse = clean || planted::active(Bug::ReuseSequence);
        let last = if reuse { issued } else { reserved_until };
        Sequencer { next: last.0 + 1, reserved_until: last.0, pending: None }
    }

    /// Takes the next `records` sequences, or `None` if the reserved block cannot hold them: the
    /// caller then loses order (bitmap mode) instead of making the guest wait.
    pub fn stamp(&mut self, records: u64) -> Option<SeqRange> {
        assert!(records > 0, "a stamp covers at least one record");
        let last = self.next.checked_add(records - 1)?;
        if last > self.reserved_until {
            return None;
        }
        let range = SeqRange { first: WriteSeq(self.next), last: WriteSeq(last) };
        self.next = last + 1;
        Some(range)
    }

    /// Returns the end of the next block to reserve durably, once per reservation, as soon as at
    /// most half a block remains. Answer with [`Sequencer::on_reserved`] or
    /// [`Sequencer::on_reserve_failed`].
    pub fn take_reservation(&mut self) -> Option<WriteSeq> {
        if self.pending.is_some() || self.remaining() > RESERVE_BLOCK / 2 {
            return None;
        }
        let through = self.reserved_until.max(self.next - 1).saturating_add(RESERVE_BLOCK);
        self.pending = Some(through);
        Some(WriteSeq(through))
    }

    /// The reservation is durable.
    pub fn on_reserved(&mut self, through: WriteSeq) {
        assert_eq!(self.pending.take(), Some(through.0), "SQ-3: a reservation nobody asked for");
        assert!(through.0 >= self.reserved_until, "SQ-1: a reservation shrank");
        self.reserved_until = through.0;
    }

    /// The reservation failed; the next [`Sequencer::take_reservation`] asks again. Call after a delay.
    pub fn on_reserve_failed(&mut self) {
        self.pending = None;
    }

    /// Returns the last sequence issued, or the last one burnt.
    pub fn issued(&self) -> WriteSeq {
        WriteSeq(self.next - 1)
    }

    /// Returns the end of the durably reserved block.
    pub fn reserved_until(&self) -> WriteSeq {
        WriteSeq(self.reserved_until)
    }

    /// Returns how many sequences can be issued without another reservation.
    pub fn remaining(&self) -> u64 {
        (self.reserved_until + 1).saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_issued_before_a_reservation_is_durable() {
        let mut s = Sequencer::resume(WriteSeq(0), WriteSeq(0), true);
        assert_eq!(s.stamp(1), None);
        let through = s.take_reservation().unwrap();
        assert_eq!(s.take_reservation(), None, "one reservation at a time");
        assert_eq!(s.stamp(1), None);
        s.on_reserved(through);
        assert_eq!(s.stamp(3), Some(SeqRange { first: WriteSeq(1), last: WriteSeq(3) }));
        assert_eq!(s.take_reservation(), None);
    }

    #[test]
    fn a_failed_reservation_is_asked_for_again() {
        let mut s = Sequencer::resume(WriteSeq(0), WriteSeq(0), true);
        let first = s.take_reservation();
        s.on_reserve_failed();
        assert_eq!(s.take_reservation(), first);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_sequence_is_issued_twice_across_any_crash(
            steps in prop::collection::vec((0u8..6, 1u64..200_000), 1..200),
        ) {
            // The durable record, as the agent would write it: (issued, reserved_until, clean).
            let mut record = (WriteSeq(0), WriteSeq(0), true);
            let mut s = Sequencer::resume(record.0, record.1, record.2);
            let mut asked = None;
            let mut highest = 0;
            for (kind, count) in steps {
                match kind {
                    0 => asked = asked.or(s.take_reservation()),
                    1 => if let Some(through) = asked.take() {
                        record = (s.issued(), through, false);
                        s.on_reserved(through);
                    },
                    2 => {
                        // Crash: a reservation under way may or may not have become durable.
                        if let (Some(through), true) = (asked.take(), count % 2 == 0) {
                            record = (s.issued(), through, false);
                        }
                        s = Sequencer::resume(record.0, record.1, record.2);
                    }
                    3 => {
                        asked = None;
                        record = (s.issued(), s.reserved_until(), true);
                        s = Sequencer::resume(record.0, record.1, record.2);
                    }
                    _ => if let Some(range) = s.stamp(count) {
                        prop_assert!(range.first.0 > highest);
                        prop_assert!(range.last.0 == range.first.0 + count - 1);
                        highest = range.last.0;
                    },
                }
            }
        }
    }
}
