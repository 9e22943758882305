//! How a session begins: the process server's staged position against what the agent holds.
//!
//! The decision is a table of pure values, so that a test can go through every row. A wrong row here is the
//! most expensive mistake of the stream: it would leave a hole, or mix two histories, without a word.
//!
//! What is *not* here: what is done about a gap or a fork (the agent), the receiver's side
//! ([`crate::receiver::judge`]).

use crate::ids::{BatchPosition, WriteSeq};
use crate::sealed::SealedMeta;

/// What an agent does after the process server said what is staged. See [`super::Spool::resume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Send what follows `after`.
    From {
        /// The staged position.
        after: WriteSeq,
    },
    /// The process server has sequences this agent never sealed (it lost its own newest ones): jump
    /// over them, begin a resync.
    AlreadyAhead {
        /// The staged sequence; new sequences start above it.
        staged: WriteSeq,
    },
    /// What follows the staged position was forgotten or never held: mark the ranges, begin a resync.
    Gap {
        /// First sequence that is missing.
        from: WriteSeq,
    },
    /// The histories differ at the staged position: begin a resync above both.
    Fork,
}

/// Decides how to go on. Rows are tried by tests for "exactly one matches".
///
/// | staged against held and newest | chain | decision |
/// |---|---|---|
/// | above newest | | AlreadyAhead |
/// | equals newest | equal | From |
/// | equals newest | differs | Fork |
/// | below newest, inside a held batch | | Fork |
/// | below newest, the next held batch begins right after it | equal to its `prev` | From |
/// | below newest, the next held batch begins right after it | differs from its `prev` | Fork |
/// | below newest, the next held batch begins later and opens a resync | equal to its `prev` | From |
/// | below newest, the next held batch begins later and opens a resync | differs from its `prev` | Gap |
/// | below newest, the next held batch begins later and opens no resync | | Gap |
/// | below newest, nothing held is above it | | Gap |
///
/// A batch that opens a resync gets no more trust than another: what lies between the staged position and
/// its `prev` may be data that the process server lost after this agent forgot it, and the resync, begun
/// before that loss, does not copy it. The resync that answers a gap, a fork or `AlreadyAhead` is sealed
/// onto the staged chain, so that the next session finds it equal.
pub fn resume(
    staged: BatchPosition,
    newest: BatchPosition,
    held: impl IntoIterator<Item = SealedMeta>,
) -> Resume {
    let after = staged.seq;
    if after >= newest.seq {
        return match (after == newest.seq, staged.chain == newest.chain) {
            (false, _) => Resume::AlreadyAhead { staged: after },
            (true, true) => Resume::From { after },
            (true, false) => Resume::Fork,
        };
    }
    let Some(next) = held.into_iter().find(|meta| meta.last > after) else {
        return Resume::Gap { from: after.next() };
    };
    if next.first <= after {
        return Resume::Fork;
    }
    let continues = next.first == after.next();
    match (continues, next.prev == staged.chain) {
        (true, true) => Resume::From { after },
        (true, false) => Resume::Fork,
        // Burnt sequences lie only in front of a batch that opens a resync.
        (false, true) if next.flags.starts_resync() => Resume::From { after },
        (false, _) => Resume::Gap { from: after.next() },
    }
}
