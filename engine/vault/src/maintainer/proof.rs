//! Proves a folded run before a catalogue names it: read back from the store, it shows at each kept point and at the
//! stretch's end what the runs showed that it replaces.
//!
//! It paints each cell version by version, from both sides, and compares what was painted at each point. That is another
//! way than the one by which the run was made.

use super::build::YIELD_ITEMS;
use super::sift::Zeros;
use crate::error::ReadError;
use crate::index::{Item, Merged, Run, Space, StoredIndex, Version};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a sector of a cell shows: nothing of this stretch, zeros, or the content of a version, in a unit unless that was
/// packed anew.
#[derive(Clone, Copy, Debug, Hash)]
enum Shown {
    Nothing,
    Zeros,
    Content { version: Version, unit: Option<(u128, u32, u8)> },
}

fn digest(parts: &[Shown; 128]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// One side of the comparison.
struct Side<'a> {
    index: &'a StoredIndex,
    merged: Merged,
    zeros: Zeros,
    points: &'a [u64],
    /// Tells whether the content of a segment was moved to or from another one.
    is_moved: &'a (dyn Fn(&Item) -> bool + Sync),
}

impl<'a> Side<'a> {
    async fn open(
        index: &'a StoredIndex,
        runs: &[Run],
        points: &'a [u64],
        is_moved: &'a (dyn Fn(&Item) -> bool + Sync),
    ) -> Result<Side<'a>, ReadError> {
        let zeros = Zeros::collect(index, runs, points).await?;
        Ok(Side { index, merged: Merged::open(index, runs).await?, zeros, points, is_moved })
    }

    fn cell(&self) -> Option<(Space, u32)> {
        self.merged.peek().map(|item| (item.space, item.index))
    }

    /// Paints a cell and returns what it showed: from which point on, by its ordinal, and a digest of it. The end of
    /// the stretch is one point more.
    async fn paint(&mut self, cell: (Space, u32)) -> Result<Vec<(usize, u64)>, ReadError> {
        let over = self.zeros.over(cell.0, cell.1);
        let mut over = over.into_iter().peekable();
        let (mut parts, mut passed, mut is_wet) = ([Shown::Nothing; 128], 0, false);
        let (mut last, mut shown) = (digest(&parts), Vec::new());
        loop {
            let item = self.merged.peek().filter(|item| (item.space, item.index) == cell).copied();
            let next = [over.peek().copied(), item.map(|item| item.version)].into_iter().flatten().min();
            let before = |next: Version| self.points.partition_point(|point| *point < next.0);
            let until = next.map_or(self.points.len() + 1, before);
            if until > passed {
                if std::mem::take(&mut is_wet) && digest(&parts) != last {
                    last = digest(&parts);
                    shown.push((passed, last));
                }
                passed = until;
            }
            let Some(next) = next else { return Ok(shown) };
            is_wet = true;
            if let Some(item) = item.filter(|item| item.version == next) {
                self.merged.next(self.index).await?;
                self.brush(&mut parts, &item);
            } else {
                over.next();
                parts.fill(Shown::Zeros);
            }
        }
    }

    fn brush(&self, parts: &mut [Shown; 128], item: &Item) {
        let first = usize::from(item.first);
        for (at, part) in parts[first..first + usize::from(item.sectors)].iter_mut().enumerate() {
            *part = match item.unit {
                None => Shown::Zeros,
                Some(unit) => {
                    let place = (unit.segment.uuid, unit.number, item.offset + at as u8);
                    let unit = (!(self.is_moved)(item)).then_some(place);
                    Shown::Content { version: item.version, unit }
                }
            };
        }
    }
}

/// Compares the runs of a stretch with the one that replaces them; returns the first cell that differs.
pub(super) async fn differs(
    index: &StoredIndex,
    old: &[Run],
    new: &Run,
    points: &[u64],
    is_moved: &(dyn Fn(&Item) -> bool + Sync),
) -> Result<Option<(Space, u32)>, ReadError> {
    let mut old = Side::open(index, old, points, is_moved).await?;
    let mut new = Side::open(index, std::slice::from_ref(new), points, is_moved).await?;
    let mut turn = 0;
    while let Some(cell) = [old.cell(), new.cell()].into_iter().flatten().min() {
        let (before, after) = (old.paint(cell).await?, new.paint(cell).await?);
        // With too many zeros to remember nobody can tell what they hide.
        if before != after && !old.zeros.is_full() {
            return Ok(Some(cell));
        }
        turn += 1;
        if turn % YIELD_ITEMS == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(None)
}
