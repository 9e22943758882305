//! Runs of a stretch without what no kept point of it, and not its end, shows any more.
//!
//! Zeros of larger cells hide what lies in smaller ones. They come last in a run, so they are collected first.
//!
//! What is *not* here: which entries of one cell are kept (`redoubt_core::maintenance::Sieve`).

use super::build::YIELD_ITEMS;
use crate::error::ReadError;
use crate::index::{Item, LEVELS, Merged, Run, Space, StoredIndex, Version, mask};
use redoubt_core::VolumeIndex;
use redoubt_core::maintenance::Sieve;
use std::collections::BTreeMap;

/// Zeros of larger cells that are remembered, some 64 bytes each. What more there are hide nothing: less is dropped.
const ZEROS_MAX: usize = 1 << 20;

/// A cell above level 0: its volume, level and number.
type Large = (VolumeIndex, u8, u64);

/// The zeros of larger cells of a stretch, those that show at a kept point or its end.
#[derive(Debug, Default)]
pub(super) struct Zeros {
    cells: BTreeMap<Large, Vec<Version>>,
    count: usize,
}

impl Zeros {
    /// Collects them from runs that follow one another.
    pub(super) async fn collect(
        index: &StoredIndex,
        runs: &[Run],
        points: &[u64],
    ) -> Result<Zeros, ReadError> {
        let mut merged = Merged::open_levels(index, runs, 1..LEVELS).await?;
        let (mut zeros, mut sieve, mut turn) = (Zeros::default(), Sieve::new(points), 0);
        while let Some(item) = merged.next(index).await? {
            let cell = (item.space, item.index);
            sieve.add(item.version.0, u128::MAX, item.version);
            if merged.peek().is_none_or(|next| (next.space, next.index) != cell) {
                sieve.finish();
                zeros.add(cell, std::iter::from_fn(|| sieve.pop()).collect());
            } else {
                let kept: Vec<Version> = std::iter::from_fn(|| sieve.pop()).collect();
                zeros.add(cell, kept);
            }
            turn += 1;
            if turn % YIELD_ITEMS == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(zeros)
    }

    fn add(&mut self, (space, index): (Space, u32), versions: Vec<Version>) {
        if !versions.is_empty() && !self.is_full() {
            self.count += versions.len();
            let cell = (space.volume, space.level, space.number(index));
            self.cells.entry(cell).or_default().extend(versions);
        }
    }

    /// Tells whether some may be missing.
    pub(super) fn is_full(&self) -> bool {
        self.count >= ZEROS_MAX
    }

    /// Returns the versions from which on all of a cell is zeros, oldest first, those of its own level left out.
    pub(super) fn over(&self, space: Space, index: u32) -> Vec<Version> {
        if self.cells.is_empty() {
            return Vec::new();
        }
        let cells =
            space.over(index).filter_map(|(level, number)| self.cells.get(&(space.volume, level, number)));
        let mut versions: Vec<Version> = cells.flatten().copied().collect();
        versions.sort_unstable();
        versions
    }
}

/// Runs that follow one another, sifted.
pub(super) struct Sifted<'a> {
    index: &'a StoredIndex,
    merged: Merged,
    zeros: &'a Zeros,
    sieve: Sieve<'a, Item>,
    cell: Option<(Space, u32)>,
    /// Zeros over the cell that were not reached yet, newest first.
    over: Vec<Version>,
    is_done: bool,
}

impl<'a> Sifted<'a> {
    /// Begins with the first item; `points` are the versions up to which the kept points see.
    pub(super) async fn open(
        index: &'a StoredIndex,
        runs: &[Run],
        zeros: &'a Zeros,
        points: &'a [u64],
    ) -> Result<Sifted<'a>, ReadError> {
        let merged = Merged::open(index, runs).await?;
        let (sieve, over) = (Sieve::new(points), Vec::new());
        Ok(Sifted { index, merged, zeros, sieve, cell: None, over, is_done: false })
    }

    /// Returns the next item that is kept.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            if let Some(item) = self.sieve.pop() {
                return Ok(Some(item));
            }
            if self.is_done {
                return Ok(None);
            }
            let cell = self.merged.peek().map(|item| (item.space, item.index));
            if cell.is_none() || cell != self.cell {
                self.hide_until(None);
                self.sieve.finish();
                self.cell = cell;
                self.over = cell.map_or(Vec::new(), |(space, index)| self.zeros.over(space, index));
                self.over.reverse();
                self.is_done = cell.is_none();
                continue;
            }
            let Some(item) = self.merged.next(self.index).await? else { continue };
            self.hide_until(Some(item.version));
            let covers = mask(u64::from(item.first), u64::from(item.sectors));
            self.sieve.add(item.version.0, covers, item);
        }
    }

    fn hide_until(&mut self, version: Option<Version>) {
        while let Some(over) = self.over.pop_if(|over| version.is_none_or(|version| *over < version)) {
            self.sieve.hide(over.0, u128::MAX);
        }
    }
}
