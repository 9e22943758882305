//! How far a machine's stream has come, hop by hop.
//!
//! Invariants
//! - WM-1 `issued >= sent >= staged >= vaulted`.
//! - WM-2 `issued`, `staged` and `vaulted` only grow. `sent` falls back to `staged` when a session
//!   ends, because what was in flight must be sent again.
//!
//! What is *not* here: who may forget what (the spool), what a position's chain is.

use crate::ids::WriteSeq;

/// The four watermarks of one machine's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    issued: WriteSeq,
    sent: WriteSeq,
    staged: WriteSeq,
    vaulted: WriteSeq,
}

impl Watermarks {
    /// Makes the watermarks of a stream whose newest sequence is `issued`, nothing of which is known
    /// to be in flight. Values above a higher mark are lowered to it.
    pub fn resume(issued: WriteSeq, staged: WriteSeq, vaulted: WriteSeq) -> Watermarks {
        let staged = staged.min(issued);
        Watermarks { issued, sent: staged, staged, vaulted: vaulted.min(staged) }
    }

    /// Last sequence stamped.
    pub fn issued(&self) -> WriteSeq {
        self.issued
    }

    /// Last sequence handed to the current session.
    pub fn sent(&self) -> WriteSeq {
        self.sent
    }

    /// Last sequence durable at the process server.
    pub fn staged(&self) -> WriteSeq {
        self.staged
    }

    /// Last sequence durable in the vault.
    pub fn vaulted(&self) -> WriteSeq {
        self.vaulted
    }

    /// Records that `seq` was stamped.
    pub fn on_issued(&mut self, seq: WriteSeq) {
        self.issued = self.issued.max(seq);
        self.check();
    }

    /// Records that everything up to `seq` was handed to the session.
    pub fn on_sent(&mut self, seq: WriteSeq) {
        self.sent = self.sent.max(seq);
        self.check();
    }

    /// Records an acknowledgement. What is staged was sent, perhaps by an earlier session, and what
    /// is vaulted was staged. A claim beyond `issued` is not taken; returns `false` for it.
    #[must_use]
    pub fn on_ack(&mut self, staged: WriteSeq, vaulted: WriteSeq) -> bool {
        if staged > self.issued || vaulted > staged {
            return false;
        }
        self.vaulted = self.vaulted.max(vaulted);
        self.staged = self.staged.max(staged);
        self.sent = self.sent.max(self.staged);
        self.check();
        true
    }

    /// Records that the session ended: what was in flight is sent again.
    pub fn on_session_end(&mut self) {
        self.sent = self.staged;
        self.check();
    }

    fn check(&self) {
        assert!(
            self.issued >= self.sent && self.sent >= self.staged && self.staged >= self.vaulted,
            "WM-1: {self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_claim_beyond_what_was_issued_is_not_taken() {
        let mut marks = Watermarks::resume(WriteSeq(9), WriteSeq(4), WriteSeq(4));
        assert!(!marks.on_ack(WriteSeq(10), WriteSeq(0)));
        assert!(!marks.on_ack(WriteSeq(5), WriteSeq(6)));
        assert_eq!(marks.staged(), WriteSeq(4));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn the_order_holds_whatever_arrives(steps in prop::collection::vec((0u8..4, 0u64..50, 0u64..50), 0..60)) {
            let mut marks = Watermarks::default();
            for (kind, a, b) in steps {
                let before = marks;
                match kind {
                    0 => marks.on_issued(WriteSeq(a)),
                    1 => marks.on_sent(WriteSeq(a.min(marks.issued().0))),
                    2 => { let _ = marks.on_ack(WriteSeq(a), WriteSeq(b)); }
                    _ => marks.on_session_end(),
                }
                prop_assert!(marks.staged() >= before.staged() && marks.vaulted() >= before.vaulted());
            }
        }
    }
}
