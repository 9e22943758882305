//! A set of whole numbers kept as ranges, so that a trim of a whole disk is one entry.
//!
//! - RA-1 Ranges are not empty, do not overlap and do not touch: the set has one form.

use std::collections::BTreeMap;
use std::ops::Range;

/// Start of each range to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&first, &last)) = self.0.range(..=end).next_back().filter(|(_, last)| **last >= start)
        {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.0.insert(start, end);
    }

    /// Takes a range away.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&first, &last)) =
            self.0.range(..range.end).next_back().filter(|(_, last)| **last > range.start)
        {
            self.0.remove(&first);
            if first < range.start {
                self.0.insert(first, range.start);
            }
            if last > range.end {
                self.0.insert(range.end, last);
            }
        }
    }

    /// Returns how many numbers of the range are in the set.
    pub(super) fn count(&self, range: Range<u64>) -> u64 {
        self.within(range).map(|part| part.end - part.start).sum()
    }

    /// Returns the parts of the range that are in the set, in order.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let before = self.0.range(..range.start).next_back();
        let inside = self.0.range(range.clone());
        let cut = move |(first, last): (&u64, &u64)| *first.max(&range.start)..*last.min(&range.end);
        before.into_iter().chain(inside).map(cut).filter(|part| !part.is_empty())
    }

    /// Returns the parts of the range that are not in the set, in order.
    pub(super) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut at = range.start;
        let mut missing = Vec::new();
        for part in self.within(range.clone()) {
            missing.push(at..part.start);
            at = part.end;
        }
        missing.push(at..range.end);
        missing.retain(|part| !part.is_empty());
        missing
    }

    /// Returns all ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// Returns how many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn ranges_equal_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..40),
            (from, length) in (0u64..60, 0u64..30),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), [false; 100]);
            for (adds, start, length) in steps {
                let range = start..start + length;
                if adds { ranges.insert(range.clone()) } else { ranges.remove(range.clone()) }
                model[start as usize..(start + length) as usize].fill(adds);
            }
            let asked = from..from + length;
            let inside: Vec<u64> = asked.clone().filter(|n| model[*n as usize]).collect();
            let outside: Vec<u64> = asked.clone().filter(|n| !model[*n as usize]).collect();
            prop_assert_eq!(ranges.within(asked.clone()).flatten().collect::<Vec<_>>(), inside.clone());
            prop_assert_eq!(ranges.missing(asked.clone()).into_iter().flatten().collect::<Vec<_>>(), outside);
            prop_assert_eq!(ranges.count(asked), inside.len() as u64);
            let all: Vec<Range<u64>> = ranges.iter().collect();
            prop_assert!(all.iter().all(|range| !range.is_empty()), "RA-1");
            prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "RA-1");
            prop_assert_eq!(ranges.len(), all.len());
        }
    }
}
