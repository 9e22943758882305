//! Which points are kept: rules that each keep some, of which every point needs one.
//!
//! Invariants
//! - LD-1 The newest point is always kept.
//! - LD-2 Pruning often ends with the same points as pruning seldom: what a rule keeps it kept ever since.
//! - LD-3 A rule says yes or no by a point's age and its place among the others alone: no clock is read.
//!
//! What is *not* here: pins and the two phases ([`super::Retention`]), how a ladder is written.

use super::retention::KeptPoint;
use crate::change::MarkerKind;
use std::time::Duration;

/// Points that a counting rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// Of every kind.
    Any,
    /// Crash-consistent ones.
    Crash,
    /// Application-consistent ones, those of a planned failover included: the source was shut down.
    App,
}

impl Which {
    fn counts(self, kind: MarkerKind) -> bool {
        match self {
            Which::Any => true,
            Which::Crash => kind == MarkerKind::Crash,
            Which::App => kind != MarkerKind::Crash,
        }
    }
}

/// One reason to keep points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// All points younger than this.
    All {
        /// The age at which the rule ends.
        within: Duration,
    },
    /// The best point of each period of the source's clock, until that point has this age. The best is the newest of
    /// the application-consistent ones, else the newest.
    Best {
        /// Length of a period; periods are counted from the Unix epoch.
        period: Duration,
        /// The age at which the rule ends.
        within: Duration,
    },
    /// The newest so many points.
    Newest {
        /// How many.
        count: u32,
        /// Points that count.
        which: Which,
    },
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The rules of a machine. Without any only the newest point is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    rules: Vec<Rule>,
}

impl Default for Ladder {
    /// All points for 2 hours, one per hour for 24 hours, one per day for 15 days.
    fn default() -> Ladder {
        Ladder::new(vec![
            Rule::All { within: 2 * HOUR },
            Rule::Best { period: HOUR, within: DAY },
            Rule::Best { period: DAY, within: 15 * DAY },
        ])
    }
}

impl Ladder {
    /// Makes a ladder of rules; their order says nothing.
    pub fn new(rules: Vec<Rule>) -> Ladder {
        Ladder { rules }
    }

    /// Returns the rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Tells for each point, oldest first, whether it is kept.
    pub fn kept<P>(&self, points: &[KeptPoint<P>]) -> Vec<bool> {
        let mut kept = vec![false; points.len()];
        let Some(newest) = points.last() else { return kept };
        let age = |point: &KeptPoint<P>| newest.at.since(point.at);
        for rule in &self.rules {
            match *rule {
                Rule::All { within } => mark(&mut kept, points, |point| age(point) < within),
                Rule::Best { period, within } => best(points, period)
                    .filter(|at| age(&points[*at]) < within)
                    .for_each(|at| kept[at] = true),
                Rule::Newest { count, which } => {
                    newest_of(points, count, which).for_each(|at| kept[at] = true);
                }
            }
        }
        *kept.last_mut().expect("LD-1: there is a newest point") = true;
        kept
    }

    /// Returns how many of the points, oldest first, are decided: no rule waits for them to age or for newer ones to
    /// come before it thins them out. Their stretch of the log is worth folding; the newest point never is.
    pub fn decided<P>(&self, points: &[KeptPoint<P>]) -> usize {
        let Some(newest) = points.last() else { return 0 };
        let first_open = |rule: &Rule| match *rule {
            Rule::All { within } => points.iter().position(|point| newest.at.since(point.at) < within),
            Rule::Best { .. } => None,
            Rule::Newest { count, which } => newest_of(points, count, which).last(),
        };
        self.rules.iter().filter_map(first_open).min().unwrap_or(usize::MAX).min(points.len() - 1)
    }

    /// Returns how many points at most the ladder keeps of a machine that makes one each `interval`.
    pub fn most(&self, interval: Duration) -> u64 {
        let per = |within: Duration, period: Duration| {
            let periods = within.as_millis() / period.as_millis().max(1);
            u64::try_from(periods).unwrap_or(u64::MAX).saturating_add(1)
        };
        let of = |rule: &Rule| match *rule {
            Rule::All { within } => per(within, interval),
            Rule::Best { period, within } => per(within, period.max(interval)),
            Rule::Newest { count, .. } => u64::from(count),
        };
        self.rules.iter().map(of).fold(1, u64::saturating_add)
    }
}

fn mark<P>(kept: &mut [bool], points: &[KeptPoint<P>], is_kept: impl Fn(&KeptPoint<P>) -> bool) {
    kept.iter_mut().zip(points).for_each(|(kept, point)| *kept |= is_kept(point));
}

/// Returns the newest points that count, newest first.
fn newest_of<P>(points: &[KeptPoint<P>], count: u32, which: Which) -> impl Iterator<Item = usize> {
    let counted = (0..points.len()).rev().filter(move |at| which.counts(points[*at].kind));
    counted.take(count as usize)
}

/// Returns the best point of each period. When a clock steps back, a period comes again: that is another one, so that
/// no step of a clock makes points share a place.
fn best<P>(points: &[KeptPoint<P>], period: Duration) -> impl Iterator<Item = usize> {
    let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
    let number = move |at: usize| points[at].wall.0 / period;
    let is_app = |at: usize| Which::App.counts(points[at].kind);
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = at;
        let mut best = (first < points.len()).then_some(first)?;
        while at < points.len() && number(at) == number(first) {
            if is_app(at) >= is_app(best) {
                best = at;
            }
            at += 1;
        }
        Some(best)
    })
}
