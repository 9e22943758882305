//! Which runs of the index become one, and which of them leave the log: are *folded*.
//!
//! A run of the log's tail keeps every version; runs of one size are merged as they come. Once all points of a stretch
//! are decided, it is folded: what no kept point sees is dropped, and the log below it may go. Folded runs are
//! folded again, together with what came after, when that has grown: to drop what has been overwritten since, and what
//! points that are gone left behind.
//!
//! Invariants
//! - FD-1 Only stretches whose points are all decided are folded, and never the last record of the log.
//! - FD-2 Folded runs come before all others and stay folded.
//! - FD-3 Runs grow by powers: how often an entry is written again grows with the logarithm of the history, and what
//!   newer folded runs overwrite is less than a quarter of the run below them.
//!
//! What is *not* here: how runs are merged, which segments are packed anew (`redoubt-vault`).

use std::ops::Range;

/// Unfolded runs of one size that become one.
const FAN: u64 = 4;
/// Runs up to this many entries count as of one size: four of them are a few KiB. Counted as one up to a whole block, the
/// runs of a quiet machine would be written again every third round.
const SMALL: u64 = 256;
/// A folded run is folded again once what is newer has this part of its entries: bounds what it hides.
const REFOLD_PART: u64 = 4;
/// What is newer counts as so many entries at least: a few KiB are folded again at any time.
const REFOLD_LEAST: u64 = 512;

/// A run of the index, as far as folding looks at it. Runs follow one another, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunShape {
    /// The last slot it covers.
    pub last: u64,
    /// Its entries.
    pub entries: u64,
    /// Whether its stretch was folded.
    pub is_folded: bool,
}

/// What to do with a stretch of runs, by their ordinals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Make them one run that keeps every version.
    Merge(Range<usize>),
    /// Make them one run that keeps what the live and retired points see.
    Fold(Range<usize>),
}

/// Returns the next work on the runs, or none. Slots before `decided` have only decided points; `tail` is
/// the last slot of the log.
pub fn next_work(runs: &[RunShape], decided: u64, tail: u64) -> Option<Work> {
    let folded = runs.partition_point(|run| run.is_folded);
    debug_assert!(runs[folded..].iter().all(|run| !run.is_folded), "FD-2: folded runs come first");
    // FD-1
    let ripe = |run: &&RunShape| run.last < decided && run.last < tail;
    let end = folded + runs[folded..].iter().take_while(ripe).count();
    if end > folded {
        return Some(Work::Fold(fold_from(&runs[..folded], &runs[folded..end])..end));
    }
    let entries: Vec<u64> = runs[folded..].iter().map(|run| run.entries).collect();
    let merged = to_merge(&entries);
    (merged > 1).then(|| Work::Merge(runs.len() - merged..runs.len()))
}

/// Returns the ordinal of the first folded run that is folded again with the new ones.
fn fold_from(folded: &[RunShape], new: &[RunShape]) -> usize {
    let mut newer = new.iter().map(|run| run.entries).fold(0, u64::saturating_add);
    let mut first = folded.len();
    while let Some(run) = first.checked_sub(1).map(|at| folded[at]) {
        if newer.max(REFOLD_LEAST) < run.entries / REFOLD_PART {
            break;
        }
        newer = newer.saturating_add(run.entries);
        first -= 1;
    }
    first
}

fn level(entries: u64) -> u32 {
    (entries / SMALL).checked_ilog(FAN).map_or(0, |level| level + 1)
}

/// Decides how many of the newest runs become one, given the entries of each, oldest first; one: none.
fn to_merge(entries: &[u64]) -> usize {
    let mut runs = entries.to_vec();
    let mut merged = 1;
    loop {
        let last = level(runs.last().copied().unwrap_or_default());
        let alike = runs.iter().rev().take_while(|entries| level(**entries) <= last).count();
        if (alike as u64) < FAN {
            return merged;
        }
        // The sum may be of the next size and meet three of its kind there.
        let sum = runs.drain(runs.len() - alike..).sum();
        runs.push(sum);
        merged += alike - 1;
    }
}
