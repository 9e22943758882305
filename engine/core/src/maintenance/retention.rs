//! A point's end in two phases: live, then retired, then gone.
//!
//! Who wants to use a point creates a pin and then reads the newest catalogue: if the point is live there, the pin
//! holds. A maintainer lists pins only after it loaded the catalogue it builds on. So a pin of a point that became
//! retired in version v was either created before v could be seen, and every listing taken after v shows it, or it does
//! not hold. One phase is not enough: between a listing and the next version a pin may come that both miss.
//!
//! Invariants
//! - TW-1 A point is gone only after a version in which it was retired, and only if the pins listed after that version
//!   was loaded show none of it.
//! - TW-2 The newest point and pinned live points stay live; a retired point never becomes live again.
//! - TW-3 Data is needed as long as a point that sees it is live or retired.
//! - TW-4 At most [`POINTS_MAX`] points are live, those with a pin aside. If the rules keep more, the oldest go, and how many
//!   is told.
//!
//! What is *not* here: which points deserve to stay ([`super::Ladder`]), dead pins ([`super::PinWatch`]).

use super::ladder::Ladder;
use super::pins::PinListing;
use super::point_time::{PointClock, PointTime};
use crate::change::MarkerKind;
use crate::time::WallTime;

/// Points that a machine keeps at most (decision 0037): what a catalogue is read and written with every few minutes, a reader
/// has in memory, and a person can still choose from.
pub const POINTS_MAX: usize = 20_000;

/// A point that is not in any catalogue yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPoint<P> {
    /// Its name; names are ordered as the points are.
    pub id: P,
    /// How it was made.
    pub kind: MarkerKind,
    /// What the source's clock said.
    pub wall: WallTime,
}

/// A point of a catalogue, as far as retention looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPoint<P> {
    /// Its name.
    pub id: P,
    /// How it was made.
    pub kind: MarkerKind,
    /// What the source's clock said: decides in which hour or day it lies.
    pub wall: WallTime,
    /// The time by which it ages.
    pub at: PointTime,
}

/// The points of one version of the catalogue, both lists in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention<P> {
    /// The clock at the newest point.
    pub clock: PointClock,
    /// Points that can be listed, mounted and pinned.
    pub live: Vec<KeptPoint<P>>,
    /// Points that nobody new can pin; older pins may still hold them.
    pub retired: Vec<KeptPoint<P>>,
}

impl<P> Default for Retention<P> {
    fn default() -> Retention<P> {
        Retention { clock: PointClock::default(), live: Vec::new(), retired: Vec::new() }
    }
}

/// What the next version of the catalogue says of points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn<P> {
    /// Live and retired points of the next version.
    pub next: Retention<P>,
    /// Points that are in the next version no more: their data may go.
    pub gone: Vec<P>,
    /// Whether points were added, retired or dropped.
    pub is_new: bool,
    /// How many points the rules keep and the bound does not (TW-4).
    pub cut: usize,
}

impl<P: Copy + Ord> Retention<P> {
    /// Decides the points of the version after `version`, which `self` is of. `new` are the points of the log that the
    /// next version covers beyond this one, in order.
    pub fn next(
        &self,
        version: u64,
        pins: &PinListing<P>,
        new: &[NewPoint<P>],
        maintainer: WallTime,
        ladder: &Ladder,
    ) -> Turn<P> {
        let mut clock = self.clock;
        let times = clock.take_in(new.iter().map(|point| point.wall), maintainer);
        let added = new.iter().zip(times);
        let added = added.map(|(&NewPoint { id, kind, wall }, at)| KeptPoint { id, kind, wall, at });
        let points: Vec<KeptPoint<P>> = self.live.iter().copied().chain(added).collect();
        debug_assert!(points.is_sorted_by(|a, b| a.id < b.id), "points come in their order");
        let (mut live, mut fallen) = (Vec::new(), Vec::new());
        for (point, is_kept) in points.iter().zip(ladder.kept(&points)) {
            let side = if is_kept || pins.points.contains(&point.id) { &mut live } else { &mut fallen };
            side.push(*point);
        }
        let cut = cut(&mut live, &mut fallen, pins);
        // TW-1: a listing from before this version proves nothing about what it retired.
        let is_free = |point: &KeptPoint<P>| pins.after == version && !pins.points.contains(&point.id);
        let (gone, held): (Vec<_>, Vec<_>) = self.retired.iter().copied().partition(is_free);
        let is_new = !(new.is_empty() && fallen.is_empty() && gone.is_empty());
        let mut retired = held;
        retired.extend(fallen);
        retired.sort_unstable_by_key(|point| point.id);
        let gone = gone.into_iter().map(|point| point.id).collect();
        Turn { next: Retention { clock, live, retired }, gone, is_new, cut }
    }

    /// Returns the points whose data must stay, in order.
    pub fn needed(&self) -> Vec<P> {
        let mut needed: Vec<P> = self.live.iter().chain(&self.retired).map(|point| point.id).collect();
        needed.sort_unstable();
        needed
    }
}

/// TW-4: moves the oldest points beyond the bound that nobody pinned; returns how many.
fn cut<P: Copy + Ord>(
    live: &mut Vec<KeptPoint<P>>,
    fallen: &mut Vec<KeptPoint<P>>,
    pins: &PinListing<P>,
) -> usize {
    let is_pinned = |point: &KeptPoint<P>| pins.points.contains(&point.id);
    let pinned = live.iter().filter(|point| is_pinned(point)).count();
    let excess = (live.len() - pinned).saturating_sub(POINTS_MAX);
    let mut left = excess;
    live.retain(|point| {
        let stays = left == 0 || is_pinned(point);
        if !stays {
            left -= 1;
            fallen.push(*point);
        }
        stays
    });
    excess
}
