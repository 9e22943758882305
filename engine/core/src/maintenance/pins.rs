//! Pins: somebody uses a point. When a pin counts as left behind.
//!
//! A pin carries no time. Its holder makes a new one, under a new name, every [`PIN_RENEW_EVERY`], and deletes the one
//! before it only when the next is due, so that a listing in pages shows one of them whatever it meets. A pin is worth
//! nothing to a holder that slept on it for [`PIN_DEAD_AFTER`]: not even if the catalogue that it read meanwhile, before it
//! slept, still had the point.
//!
//! Invariants
//! - PN-1 A pin is dead once this maintainer saw the same name for [`PIN_DEAD_AFTER`] of its own monotonic time: no
//!   wall clock, and nothing that another process says, ends a pin.
//! - PN-2 A name that was not listed and comes back is watched from the beginning.
//! - PN-3 What is watched is bounded; pins beyond it are alive.
//!
//! What is *not* here: who holds pins (`redoubt-roles`), how a pin's name holds its point.

use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A pin that was seen for so long is dead. Longer than a frozen host or a severed link usually lasts.
pub const PIN_DEAD_AFTER: Duration = Duration::from_hours(24);

/// A holder renews its pin so often: three renewals may fail.
pub const PIN_RENEW_EVERY: Duration = Duration::from_hours(6);

/// Pins watched at once; some 100 bytes each.
pub const PINS_WATCHED_MAX: usize = 4096;

/// Pinned points, listed after a version of the catalogue was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinListing<P> {
    /// The version that had been loaded when the listing began.
    pub after: u64,
    /// Points with a pin that is alive.
    pub points: BTreeSet<P>,
}

/// Remembers since when each pin is there.
#[derive(Clone, Debug)]
pub struct PinWatch<N> {
    since: BTreeMap<N, Instant>,
}

impl<N> Default for PinWatch<N> {
    fn default() -> PinWatch<N> {
        PinWatch { since: BTreeMap::new() }
    }
}

impl<N: Ord + Clone> PinWatch<N> {
    /// Takes a complete listing; returns the dead pins. They hold nothing and are to be deleted.
    pub fn listed(&mut self, now: Instant, names: &BTreeSet<N>) -> BTreeSet<N> {
        self.since.retain(|name, _| names.contains(name));
        for name in names {
            if self.since.len() < PINS_WATCHED_MAX && !self.since.contains_key(name) {
                self.since.insert(name.clone(), now);
            }
        }
        let dead = self.since.iter().filter(|(_, since)| now.since(**since) >= PIN_DEAD_AFTER);
        dead.map(|(name, _)| name.clone()).collect()
    }
}
