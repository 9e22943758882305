//! What to do with a batch, by the newest accepted position and the ends accepted before it.
//!
//! | batch against staged position `p` | decision |
//! |---|---|
//! | ends before `p`, but not where a recent batch with the same chain ended | Fork |
//! | ends before `p`, otherwise | Duplicate |
//! | ends at `p`, same chain | Duplicate |
//! | ends at `p`, other chain | Fork |
//! | begins at or before `p`, ends after it | Fork |
//! | after `p`, opens a resync | Accept |
//! | right after `p`, same chain before it | Accept |
//! | right after `p`, other chain before it | Fork |
//! | leaves out sequences | Gap |
//!
//! *Recent* are the ends of the newest [`RECENT_MAX`] accepted batches (after a restart those still staged and
//! the vaulted position): what ends below the oldest of them cannot be judged and counts as a duplicate, which
//! is harmless, because a duplicate changes nothing.
//!
//! A batch that opens a resync is accepted whatever its `prev` is; if `prev` is not the chain at `p`, the
//! sender does not continue this history, and `HistoryReplaced` says so for the log.
//!
//! What is *not* here: what a verdict costs the session (`staging`).

use crate::ids::BatchPosition;
use crate::sealed::SealedMeta;
use std::collections::VecDeque;

/// Ends of accepted batches that are remembered to tell a duplicate from an older fork: 48 KiB per machine,
/// far more batches than a session has in flight.
pub const RECENT_MAX: usize = 1024;

/// What to do with a batch. See the table of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It continues the stream.
    Accept,
    /// It is there already.
    Duplicate,
    /// It leaves out sequences.
    Gap,
    /// It belongs to another history.
    Fork,
}

/// Judges a batch against the newest accepted position. The first row of the table needs the recent ends
/// and is the receiver's: here every batch that ends before `p` is a duplicate.
pub fn judge(batch: &SealedMeta, at: BatchPosition) -> Verdict {
    if batch.last < at.seq {
        return Verdict::Duplicate;
    }
    if batch.last == at.seq {
        return if batch.chain == at.chain { Verdict::Duplicate } else { Verdict::Fork };
    }
    if batch.first <= at.seq {
        return Verdict::Fork;
    }
    match (batch.flags.starts_resync(), batch.first == at.seq.next(), batch.prev == at.chain) {
        (true, _, _) | (false, true, true) => Verdict::Accept,
        (false, true, false) => Verdict::Fork,
        (false, false, _) => Verdict::Gap,
    }
}

/// Judges a batch that a start found staged. Nobody vouches for what lies between it and `at`, and the vault may
/// be an older one than it was staged for, restored from a copy: a resync that does not follow the very position
/// `at` was compared with another vault, and what it left out as equal is not in this one.
pub fn judge_found(batch: &SealedMeta, at: BatchPosition) -> Verdict {
    match judge(batch, at) {
        Verdict::Accept if batch.prev != at.chain => Verdict::Fork,
        verdict => verdict,
    }
}

/// Tells whether a batch that ends before the accepted position belongs to another history, as far as
/// `recent`, the ends of accepted batches in order, reaches back.
pub(super) fn is_older_fork(batch: &SealedMeta, recent: &VecDeque<BatchPosition>) -> bool {
    match recent.binary_search_by_key(&batch.last, |position| position.seq) {
        Ok(index) => recent[index].chain != batch.chain,
        // Batches are immutable: one that ends between two known ends was never accepted.
        Err(index) => index > 0,
    }
}
