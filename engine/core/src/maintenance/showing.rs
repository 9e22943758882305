//! What still shows of one place's history once only some points of it are kept.
//!
//! The entries of a cell come in the order of their versions. One is kept if some kept point, or the end of the
//! stretch, shows any part of it; what is hidden at all of them is dropped.
//!
//! Invariants
//! - SH-1 At each kept point and at the end, what is kept shows what all entries showed.
//! - SH-2 Entries leave in the order in which they came.
//! - SH-3 Between two kept points at most as many entries wait as a cell has parts.
//!
//! What is *not* here: where entries come from, which zeros of larger cells lie over the cell.

use crate::planted::{self, Bug};
use std::collections::VecDeque;

/// Parts of a cell that an entry covers, one bit each.
pub type Parts = u128;

#[derive(Debug)]
struct Waiting<T> {
    entry: T,
    /// What shows of it.
    shows: Parts,
    is_kept: bool,
}

/// Sifts the entries of one cell after the other.
#[derive(Debug)]
pub struct Sieve<'a, T> {
    /// Versions up to which kept points see, ascending.
    points: &'a [u64],
    /// Points that lie before the newest entry.
    passed: usize,
    waiting: VecDeque<Waiting<T>>,
}

impl<'a, T> Sieve<'a, T> {
    /// Begins with a cell; `points` are the versions up to which the kept points see, ascending.
    pub fn new(points: &'a [u64]) -> Sieve<'a, T> {
        Sieve { points, passed: 0, waiting: VecDeque::new() }
    }

    /// Takes the next entry: from its version on it hides what it covers. Versions do not go back.
    pub fn add(&mut self, version: u64, covers: Parts, entry: T) {
        self.hide(version, covers);
        self.waiting.push_back(Waiting { entry, shows: covers, is_kept: false });
    }

    /// Something else hides parts of the cell from this version on: zeros of a larger cell.
    pub fn hide(&mut self, version: u64, covers: Parts) {
        let passed = self.points.partition_point(|point| *point < version);
        if passed > self.passed {
            self.keep_shown();
        }
        self.passed = passed.max(self.passed);
        self.waiting.iter_mut().for_each(|waiting| waiting.shows &= !covers);
        self.waiting.retain(|waiting| waiting.is_kept || waiting.shows != 0);
    }

    /// The cell ends: what shows now shows at the end of the stretch. The next cell begins.
    pub fn finish(&mut self) {
        if !planted::active(Bug::FoldForgetsTheEnd) {
            self.keep_shown();
        }
        self.waiting.retain(|waiting| waiting.is_kept);
        self.passed = 0;
    }

    fn keep_shown(&mut self) {
        self.waiting
            .iter_mut()
            .filter(|waiting| waiting.shows != 0)
            .for_each(|waiting| waiting.is_kept = true);
    }

    /// Returns the next entry that is kept, as soon as all before it are decided.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front_if(|waiting| waiting.is_kept).map(|waiting| waiting.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What shows of each part at a version, by the number of the entry.
    fn image(entries: &[(u64, Parts, Option<usize>)], version: u64) -> Vec<Option<usize>> {
        let mut image = vec![None; 128];
        for (_, covers, entry) in entries.iter().filter(|(at, ..)| *at <= version) {
            image.iter_mut().enumerate().filter(|(part, _)| covers & 1 << part != 0).for_each(|(_, part)| {
                *part = *entry;
            });
        }
        image
    }

    fn sift(entries: &[(u64, Parts, Option<usize>)], points: &[u64]) -> (Vec<usize>, usize) {
        let (mut sieve, mut kept, mut most) = (Sieve::new(points), Vec::new(), 0);
        for (version, covers, entry) in entries {
            match entry {
                Some(entry) => sieve.add(*version, *covers, *entry),
                None => sieve.hide(*version, *covers),
            }
            most = most.max(sieve.waiting.iter().filter(|waiting| !waiting.is_kept).count());
            kept.extend(std::iter::from_fn(|| sieve.pop()));
        }
        sieve.finish();
        kept.extend(std::iter::from_fn(|| sieve.pop()));
        assert!(sieve.waiting.is_empty(), "all is decided at the end");
        (kept, most)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn kept_points_and_the_end_show_the_same_and_nothing_is_kept_in_vain(
            drawn in prop::collection::vec((0u64..3, 0u32..6, 1u32..6, prop::bool::weighted(0.1)), 0..40),
            points in prop::collection::btree_set(0u64..60, 0..6),
        ) {
            let points: Vec<u64> = points.into_iter().collect();
            let mut version = 0;
            let mut entries: Vec<(u64, Parts, Option<usize>)> = Vec::new();
            for (at, (step, first, length, is_other)) in drawn.into_iter().enumerate() {
                // Two entries of one version do not overlap; simplest: each has its own.
                version += 1 + step;
                let covers = ((1 << length) - 1) << first;
                entries.push((version, covers, (!is_other).then_some(at)));
            }
            let (kept, most) = sift(&entries, &points);
            prop_assert!(most <= 128);
            prop_assert!(kept.is_sorted());
            let left: Vec<_> = entries
                .iter()
                .filter(|(_, _, entry)| entry.is_none_or(|entry| kept.contains(&entry)))
                .copied()
                .collect();
            let mut seen = std::collections::BTreeSet::new();
            for point in points.iter().copied().chain([u64::MAX]) {
                let whole = image(&entries, point);
                prop_assert_eq!(&whole, &image(&left, point), "point {}", point);
                seen.extend(whole.into_iter().flatten());
            }
            prop_assert_eq!(kept, seen.into_iter().collect::<Vec<_>>());
        }
    }
}
