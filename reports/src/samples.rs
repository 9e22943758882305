//! Samples of a duration: counted by value, rounded up to three digits, so that their number is bounded
//! whatever is recorded.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Significant decimal digits.
const DIGITS: u8 = 3;

/// Longest duration that is told apart: a year. What is longer counts as that.
const LONGEST_MS: u64 = 365 * 24 * 3600 * 1000;

/// Counted durations in milliseconds; in a file a list of pairs `[milliseconds, count]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Samples(BTreeMap<u64, u64>);

impl From<Vec<(u64, u64)>> for Samples {
    fn from(pairs: Vec<(u64, u64)>) -> Samples {
        let mut samples = Samples::default();
        pairs.into_iter().for_each(|(ms, count)| samples.record_many(ms, count));
        samples
    }
}

impl From<Samples> for Vec<(u64, u64)> {
    fn from(samples: Samples) -> Vec<(u64, u64)> {
        samples.0.into_iter().collect()
    }
}

/// Rounds up to [`DIGITS`] digits: a figure is never better than what was measured.
fn round_up(ms: u64) -> u64 {
    let mut unit = 1;
    while ms.div_ceil(unit) >= 10u64.pow(u32::from(DIGITS)) {
        unit *= 10;
    }
    ms.div_ceil(unit) * unit
}

impl Samples {
    /// Counts one duration.
    pub fn record(&mut self, ms: u64) {
        self.record_many(ms, 1);
    }

    fn record_many(&mut self, ms: u64, count: u64) {
        if count > 0 {
            *self.0.entry(round_up(ms.min(LONGEST_MS))).or_default() += count;
        }
    }

    /// Counts those of another, too.
    pub fn add(&mut self, other: &Samples) {
        other.0.iter().for_each(|(ms, count)| self.record_many(*ms, *count));
    }

    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the longest.
    pub fn max(&self) -> Option<u64> {
        self.0.keys().next_back().copied()
    }

    /// Returns the histogram.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        // Milliseconds from 0 on; both arguments are constants that the constructor accepts.
        let mut histogram =
            Histogram::new_with_bounds(1, LONGEST_MS, DIGITS).expect("the bounds of a histogram are valid");
        for (ms, count) in &self.0 {
            histogram.saturating_record_n(*ms, *count);
        }
        histogram
    }

    /// Returns the duration below or at which a share of the samples lies: the nearest rank.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.0.iter().find_map(|(ms, count)| {
            seen += count;
            (seen >= rank).then_some(*ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank_and_agree_with_the_histogram() {
        let mut samples = Samples::default();
        (1..=100).for_each(|ms| samples.record(ms));
        assert_eq!(samples.quantile(0.5), Some(50));
        assert_eq!(samples.quantile(0.99), Some(99));
        assert_eq!(samples.quantile(1.0), Some(100));
        assert_eq!(samples.histogram().value_at_quantile(0.99), 99);
        assert_eq!(Samples::default().quantile(0.5), None);
    }

    #[test]
    fn values_are_rounded_up_so_that_they_are_few() {
        assert_eq!([0, 7, 999, 1000, 1001, 12_345].map(round_up), [0, 7, 999, 1000, 1010, 12_400]);
        assert_eq!([999_999, 12_400].map(round_up), [1_000_000, 12_400]);
        let mut samples = Samples::default();
        (0..1_000_000).for_each(|ms| samples.record(ms));
        assert!(samples.0.len() < 4000, "{}", samples.0.len());
        assert_eq!(samples.count(), 1_000_000);
    }

    #[test]
    fn adding_and_writing_keep_every_count() {
        let mut samples = Samples::from(vec![(5, 2), (7, 1)]);
        samples.add(&Samples::from(vec![(7, 3)]));
        let text = serde_json::to_string(&samples).unwrap();
        assert_eq!(text, "[[5,2],[7,4]]");
        assert_eq!(serde_json::from_str::<Samples>(&text).unwrap(), samples);
    }
}
