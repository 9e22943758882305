//! Tests of the maintainer's decisions, against oracles written from the specification's words.

mod clocks;
mod deleting;
mod ladder;
mod phases;

use super::{KeptPoint, Ladder, NewPoint, PinListing, Retention, Turn};
use crate::change::MarkerKind;
use crate::time::WallTime;
use std::collections::BTreeSet;

pub(super) const MINUTE: u64 = 60_000;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
/// A Monday in 2026, at midnight.
pub(super) const BEGIN: u64 = 1_767_571_200_000 / DAY * DAY;

/// A catalogue's points, taken from version to version.
#[derive(Default)]
pub(super) struct Catalogue {
    pub(super) version: u64,
    pub(super) points: Retention<u64>,
    pub(super) pinned: BTreeSet<u64>,
}

impl Catalogue {
    pub(super) fn publish(&mut self, new: &[NewPoint<u64>], clock: u64, ladder: &Ladder) -> Turn<u64> {
        let pins = PinListing { after: self.version, points: self.pinned.clone() };
        let turn = self.points.next(self.version, &pins, new, WallTime(clock), ladder);
        self.version += 1;
        self.points = turn.next.clone();
        turn
    }

    pub(super) fn live(&self) -> Vec<u64> {
        ids(&self.points.live)
    }
}

pub(super) fn ids(points: &[KeptPoint<u64>]) -> Vec<u64> {
    points.iter().map(|point| point.id).collect()
}

pub(super) fn point(id: u64, kind: MarkerKind, wall: u64) -> NewPoint<u64> {
    NewPoint { id, kind, wall: WallTime(wall) }
}
