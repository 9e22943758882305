//! The store's faults: their names in scenario files, their chances, how long each keeps its victim waiting.
//!
//! The catalogue with what the design promises about each is `sim/docs/fault-budget.md`.

use super::Shared;
use std::ops::Range;
use std::time::Duration;

/// How long a caller waits for an answer that does not come.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// When a late request is applied, in microseconds: about when its sender gives up, mostly after.
pub(super) const LATE: Range<u64> = 100_000..15_000_000;

/// When a ghost is applied: long after everybody forgot it.
pub(super) const GHOSTLY: Range<u64> = 20_000_000..600_000_000;

/// When a deleted object comes back.
pub(super) const BACK: Range<u64> = 100_000..60_000_000;

/// How long each request for a slow object takes: at times longer than any deadline of an attempt.
pub(super) const SLOWLY: Range<u64> = 500_000..45_000_000;

/// Chances in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Knobs {
    /// A request is answered with "slow down".
    pub(super) throttle: u32,
    /// A request is performed and its answer lost.
    pub(super) lost_replies: u32,
    /// A creation or deletion is performed about when its sender gives up.
    pub(super) late: u32,
    /// A creation or deletion is performed minutes after its sender gave up, or died.
    pub(super) ghosts: u32,
    /// A creation is answered with "exists already", whether it is performed or not.
    pub(super) false_conflicts: u32,
    /// A deletion that was confirmed is undone.
    pub(super) resurrections: u32,
    /// Objects, and prefixes of listings, that are slow: always the same ones.
    pub(super) slow: u32,
    /// A creation finds no room.
    pub(super) full: u32,
    /// Nobody answers.
    pub(super) outage: u32,
}

impl Knobs {
    /// Returns a knob by its name in scenario files.
    pub(super) fn by_name(&mut self, name: &str) -> &mut u32 {
        match name {
            "throttle" => &mut self.throttle,
            "lost-replies" => &mut self.lost_replies,
            "late" => &mut self.late,
            "ghosts" => &mut self.ghosts,
            "false-conflicts" => &mut self.false_conflicts,
            "resurrections" => &mut self.resurrections,
            "slow" => &mut self.slow,
            "full" => &mut self.full,
            "outage" => &mut self.outage,
            other => unreachable!("the key table knows no store knob {other}"),
        }
    }

    /// Draws how long a request for this name takes beyond the usual; the name decides whether it is slow.
    pub(super) fn slowness(&self, shared: &Shared, name: &str) -> Option<Duration> {
        if self.slow == 0 {
            return None;
        }
        let hash =
            u32::from_le_bytes(*blake3::hash(name.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 4]));
        (hash % 1_000_000 < self.slow).then(|| shared.micros(SLOWLY.start, SLOWLY.end))
    }

    /// Draws after which time a creation or deletion is performed without its sender.
    pub(super) fn lateness(&self, shared: &Shared) -> Option<Duration> {
        if shared.bites("store.ghosts", self.ghosts) {
            shared.trace.mark("ghost-left");
            return Some(shared.micros(GHOSTLY.start, GHOSTLY.end));
        }
        shared.bites("store.late", self.late).then(|| shared.micros(LATE.start, LATE.end))
    }
}

/// A promise of the port that a store of somebody else may not keep. No fault of a good store: no scenario has
/// it, and no vault may be made on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenPromise {
    /// Whether a name is free is looked up a moment before the object is put.
    RacyCreation,
    /// Objects can be read a moment after their creation.
    StaleRead,
    /// Objects are listed a moment after their creation.
    StaleList,
}

/// That moment: longer than a request in the same site takes.
pub(super) const STALENESS: Duration = Duration::from_secs(1);
