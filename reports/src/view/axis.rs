//! Axes of time: round ticks, few of them.

use crate::text;
use serde::Serialize;

/// Steps between ticks, in milliseconds, for up to an hour; then whole hours.
const STEPS: [u64; 21] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000,
    600_000, 1_200_000, 1_800_000,
];

const HOUR: u64 = 3_600_000;

/// A tick: where, as a share of the axis in percent, and its words.
#[derive(Serialize)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// An axis from zero to `top`.
pub(super) struct Axis {
    pub(super) top: u64,
    step: u64,
}

impl Axis {
    /// Makes an axis that ends with a tick at or above `max`, with at most `most` steps.
    pub(super) fn rounded(max: u64, most: u64) -> Axis {
        let step = step(max, most);
        Axis { top: max.max(1).div_ceil(step) * step, step }
    }

    /// Makes an axis that ends at `max`.
    pub(super) fn exact(max: u64, most: u64) -> Axis {
        Axis { top: max.max(1), step: step(max, most) }
    }

    /// Returns the share of a value on it.
    pub(super) fn share(&self, value: u64) -> f64 {
        value.min(self.top) as f64 / self.top as f64
    }

    /// Returns its ticks from zero on.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let values = (0..=self.top / self.step).map(|at| at * self.step);
        values
            .map(|value| Tick { at: percent(self.share(value)), label: text::tick(value, self.step) })
            .collect()
    }
}

fn step(max: u64, most: u64) -> u64 {
    let enough = |step: &u64| max.div_ceil(*step) <= most;
    STEPS.into_iter().find(enough).unwrap_or_else(|| max.div_ceil(most * HOUR).max(1) * HOUR)
}

/// Returns a share in percent, to the hundredth, so that it is short in a file.
pub(super) fn percent(share: f64) -> f64 {
    (share * 10_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let labels =
            |axis: Axis| axis.ticks().into_iter().map(|tick| tick.label).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(Axis::rounded(4200, 5)), "0 1\u{a0}s 2\u{a0}s 3\u{a0}s 4\u{a0}s 5\u{a0}s");
        assert_eq!(labels(Axis::exact(61_000, 5)), "0 20\u{a0}s 40\u{a0}s 60\u{a0}s");
        assert_eq!(labels(Axis::rounded(0, 5)), "0 1\u{a0}ms");
        assert_eq!(Axis::rounded(90 * HOUR, 5).step, 18 * HOUR);
    }
}
