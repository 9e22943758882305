//! How long something takes: a distribution by nine of its quantiles, linear in between.
//!
//! Benchmarks print them, and data sheets hint at some. Between two of them nothing is known,
//! and a straight line claims least.
//!
//! Invariants
//! - QU-1 The quantiles never fall, so that more chance is never less time.

use serde::Deserialize;
use std::fmt;

/// All of the chance, in parts per million.
pub const CERTAIN: u32 = 1_000_000;

/// The chances, in parts per million, at which the time is known.
const KNOTS: [u32; 9] = [0, 50_000, 500_000, 900_000, 950_000, 990_000, 999_000, 999_900, CERTAIN];

/// A distribution of times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// The shortest.
    pub min: u64,
    /// One of 20 is at most this.
    pub p5: u64,
    /// The median.
    pub p50: u64,
    /// Nine of ten are at most this.
    pub p90: u64,
    /// 19 of 20 are at most this.
    pub p95: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// 999 of 1000 are at most this.
    pub p99_9: u64,
    /// All but one of 10,000 are at most this.
    pub p99_99: u64,
    /// The longest.
    pub max: u64,
}

impl Quantiles {
    /// A time that is always the same.
    pub const fn fixed(micros: u64) -> Quantiles {
        Quantiles {
            min: micros,
            p5: micros,
            p50: micros,
            p90: micros,
            p95: micros,
            p99: micros,
            p99_9: micros,
            p99_99: micros,
            max: micros,
        }
    }

    /// Reads the quantiles off anything that knows the time for a chance.
    pub fn of(time: impl Fn(u32) -> u64) -> Quantiles {
        let mut least = 0;
        let [min, p5, p50, p90, p95, p99, p99_9, p99_99, max] = KNOTS.map(|chance| {
            least = time(chance).max(least);
            least
        });
        Quantiles { min, p5, p50, p90, p95, p99, p99_9, p99_99, max }
    }

    fn times(&self) -> [u64; 9] {
        [self.min, self.p5, self.p50, self.p90, self.p95, self.p99, self.p99_9, self.p99_99, self.max]
    }

    /// Tells whether they never fall (QU-1).
    pub fn is_rising(&self) -> bool {
        self.times().is_sorted()
    }

    /// Returns the time, in microseconds, that this part per million of all cases does not exceed.
    pub fn at(&self, chance: u32) -> u64 {
        let (chance, times) = (chance.min(CERTAIN), self.times());
        let above = KNOTS.partition_point(|knot| *knot < chance).clamp(1, KNOTS.len() - 1);
        let (from, to) = (KNOTS[above - 1], KNOTS[above]);
        let (low, high) = (times[above - 1], times[above].max(times[above - 1]));
        let part = u128::from(high - low) * u128::from(chance - from) / u128::from(to - from);
        low + part as u64
    }

    /// Returns the mean, in microseconds.
    pub fn mean(&self) -> f64 {
        let times = self.times();
        let piece = |at: usize| {
            let part = f64::from(KNOTS[at + 1] - KNOTS[at]) / f64::from(CERTAIN);
            part * (times[at] as f64 + times[at + 1] as f64) / 2.0
        };
        (0..KNOTS.len() - 1).map(piece).sum()
    }
}

/// As it stands in a model's file.
impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, p5, p50, p90, p95, p99, p99_9, p99_99, max] = self.times();
        write!(
            f,
            "{{ min = {min}, p5 = {p5}, p50 = {p50}, p90 = {p90}, p95 = {p95}, p99 = {p99}, p99_9 = {p99_9}, p99_99 = {p99_99}, max = {max} }}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISING: Quantiles = Quantiles {
        min: 10,
        p5: 11,
        p50: 20,
        p90: 60,
        p95: 100,
        p99: 150,
        p99_9: 1050,
        p99_99: 2050,
        max: 3050,
    };

    #[test]
    fn known_times_are_met_and_between_them_is_a_line() {
        for (chance, time) in KNOTS.into_iter().zip(RISING.times()) {
            assert_eq!(RISING.at(chance), time);
        }
        assert_eq!((RISING.at(275_000), RISING.at(700_000), RISING.at(2_000_000)), (15, 40, 3050));
    }

    #[test]
    fn the_mean_is_the_area_below_the_curve() {
        let steps = 100_000;
        let sum: f64 =
            (0..steps).map(|step| RISING.at(step * (CERTAIN / steps) + CERTAIN / steps / 2) as f64).sum();
        assert!((RISING.mean() - sum / f64::from(steps)).abs() < 1.0, "{}", RISING.mean());
        assert!((Quantiles::fixed(7).mean() - 7.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_read_off_a_curve_never_falls() {
        let read = Quantiles::of(|chance| u64::from(CERTAIN - chance));
        assert!(read.is_rising() && read.min == 1_000_000);
        assert!(!Quantiles { p90: 1, ..RISING }.is_rising());
        assert_eq!(Quantiles::of(|chance| RISING.at(chance)), RISING);
    }
}
