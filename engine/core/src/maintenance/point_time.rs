//! The time by which points age: it passes only as far as two clocks agree that it did.
//!
//! One clock is the source's, whose wall time each point carries; the other is that of the maintainer, read
//! whenever it takes points in. Either may be wrong by years, or jump there and back. A point's time is
//! given once, when it enters the catalogue, and kept there.
//!
//! Invariants
//! - PT-1 While one of the two clocks is right, no point is older than it is, but for [`CREDIT`]. Which of the points
//!   that are taken in together is how old only the source's clock says: if it stepped back among them, or ran away
//!   from the maintainer's, all of them count as new as the newest.
//! - PT-2 Later points never have earlier times, whatever the clocks say.
//! - PT-3 Without new points no time passes: a machine that stops keeps what it has.
//!
//! What is *not* here: what age does to a point ([`super::Ladder`]).

use crate::planted::{self, Bug};
use crate::time::WallTime;
use std::time::Duration;

/// How far one clock may run ahead of the other before what is more is forgotten: beats of points and rounds
/// of the maintainer do not fall together, and rounds may take minutes.
pub const CREDIT: Duration = Duration::from_mins(15);

const CREDIT_MS: u64 = CREDIT.as_millis() as u64;

/// Milliseconds by which points age, since the machine's first point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointTime(pub u64);

impl PointTime {
    /// Returns the time since `earlier`, or zero if that is later.
    pub fn since(self, earlier: PointTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where both clocks stood at the newest point taken in. Its default is that of a machine without points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointClock {
    /// Time of the newest point.
    pub now: PointTime,
    /// What the source's clock said at that point.
    pub source: WallTime,
    /// What the maintainer's clock said when it took that point in; zero before the first one.
    pub maintainer: WallTime,
    /// Milliseconds that passed by the source's clock alone.
    pub source_credit: u64,
    /// Milliseconds that passed by the maintainer's clock alone.
    pub maintainer_credit: u64,
}

impl PointClock {
    /// Takes in new points, oldest first, and returns their times. The first ones ever have the same time: only one
    /// clock speaks of what was before.
    pub fn take_in(
        &mut self,
        sources: impl IntoIterator<Item = WallTime>,
        maintainer: WallTime,
    ) -> Vec<PointTime> {
        let is_first = self.maintainer == WallTime(0);
        let passed = maintainer.0.saturating_sub(self.maintainer.0).saturating_add(self.maintainer_credit);
        let mut left = if is_first { 0 } else { passed };
        let mut times = Vec::new();
        let mut is_steady = true;
        for source in sources {
            is_steady &= source >= self.source;
            let passed = source.0.saturating_sub(self.source.0).saturating_add(self.source_credit);
            let step = if planted::active(Bug::TrustWallClock) { left } else { passed.min(left) };
            left -= step;
            let passed = passed.max(step);
            is_steady &= passed - step <= CREDIT_MS;
            self.now = PointTime(self.now.0.saturating_add(step));
            self.source_credit = if is_first { 0 } else { (passed - step).min(CREDIT_MS) };
            self.source = source;
            times.push(self.now);
        }
        if !is_steady {
            // PT-1
            times.fill(self.now);
        }
        if !times.is_empty() {
            // PT-3: with no new point the clocks go on being compared from the old one.
            (self.maintainer, self.maintainer_credit) = (maintainer, left.min(CREDIT_MS));
        }
        times
    }
}
