//! A protected disk at page granularity: what it shows, what a power loss may leave of it, its faults.
//!
//! A write takes effect in two halves, the first when it begins and the second when it ends: two that overlap and
//! are under way together mix, as on a real disk. What was not flushed may be lost, page by page, back to any
//! content since the durable one. A flush that fails makes nothing durable, and no later one heals what it covered.
//!
//! What is *not* here: who may write when (the splitter), payloads.

use super::content::{Cell, PAGE_SECTORS};
use super::dice::{Dice, MICRO, Times};
use redoubt_core::Extent;
use redoubt_hw_models::DiskModel;
use std::ops::Range;

/// Times of a disk.
pub(super) struct DiskTimes {
    read: Times,
    write: Times,
    flush: Times,
    read_speed: u64,
    write_speed: u64,
    pub(super) is_volatile: bool,
}

impl DiskTimes {
    pub(super) fn of(model: &DiskModel) -> DiskTimes {
        DiskTimes {
            read: Times::of(&model.read_us),
            write: Times::of(&model.write_us),
            flush: Times::of(&model.flush_us),
            read_speed: model.read_bytes_per_second,
            write_speed: model.write_bytes_per_second,
            is_volatile: model.volatile_cache,
        }
    }

    pub(super) fn read(&self, dice: &mut Dice, bytes: u64) -> u64 {
        self.read.draw(dice) + bytes * 1_000_000 / self.read_speed.max(1) * MICRO
    }

    pub(super) fn write(&self, dice: &mut Dice, bytes: u64) -> u64 {
        self.write.draw(dice) + bytes * 1_000_000 / self.write_speed.max(1) * MICRO
    }

    pub(super) fn flush(&self, dice: &mut Dice) -> u64 {
        self.flush.draw(dice)
    }
}

/// Chances of errors, in parts per million of requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskErrors {
    pub(super) read: u32,
    pub(super) write: u32,
    pub(super) flush: u32,
}

/// A content that was replaced and may come back.
#[derive(Clone, Copy)]
struct Replaced {
    number: u64,
    page: u32,
    before: Cell,
    /// A flush that covered its successor failed.
    is_forsaken: bool,
}

/// The pages that an extent covers.
pub(super) fn pages(extent: Extent) -> Range<usize> {
    (extent.lba.0 / PAGE_SECTORS) as usize..extent.end().div_ceil(PAGE_SECTORS) as usize
}

/// One disk.
#[derive(Clone)]
pub(super) struct Disk {
    cells: Vec<Cell>,
    /// What was replaced since it was durable, oldest first.
    replaced: Vec<Replaced>,
    /// Replacements so far.
    numbers: u64,
    pub(super) errors: DiskErrors,
    pub(super) hang_until: u64,
    is_volatile: bool,
}

impl Disk {
    pub(super) fn new(bytes: u64, is_volatile: bool) -> Disk {
        let cells = vec![0; (bytes / (PAGE_SECTORS * redoubt_core::SECTOR_BYTES)) as usize];
        let errors = DiskErrors::default();
        Disk { cells, replaced: Vec::new(), numbers: 0, errors, hang_until: 0, is_volatile }
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn sectors(&self) -> u64 {
        self.cells.len() as u64 * PAGE_SECTORS
    }

    fn set(&mut self, page: usize, cell: Cell) {
        let before = std::mem::replace(&mut self.cells[page], cell);
        if self.is_volatile && before != cell {
            self.replaced.push(Replaced {
                number: self.numbers,
                page: page as u32,
                before,
                is_forsaken: false,
            });
            self.numbers += 1;
        }
    }

    /// One half of a write takes effect: every second page.
    pub(super) fn apply_half(&mut self, pages: Range<usize>, cell: Cell, half: usize) {
        let end = pages.end.min(self.cells.len());
        let first = pages.start + (pages.start % 2 != half) as usize;
        for page in (first..end).step_by(2) {
            self.set(page, cell);
        }
    }

    /// A write ends without its caller: any of its pages may have been written.
    pub(super) fn apply_some(&mut self, pages: Range<usize>, cell: Cell, dice: &mut Dice) {
        let end = pages.end.min(self.cells.len());
        for page in pages.start..end {
            if dice.coin() {
                self.set(page, cell);
            }
        }
    }

    /// Returns what a flush that begins now covers.
    pub(super) fn flush_begun(&self) -> u64 {
        self.numbers
    }

    /// A flush ended that began at `covers`.
    pub(super) fn flushed(&mut self, covers: u64, is_ok: bool) {
        let count = self.replaced.partition_point(|replaced| replaced.number < covers);
        if !is_ok {
            self.replaced[..count].iter_mut().for_each(|replaced| replaced.is_forsaken = true);
        } else if self.replaced[..count].iter().any(|replaced| replaced.is_forsaken) {
            self.replaced.retain(|replaced| replaced.number >= covers || replaced.is_forsaken);
        } else {
            self.replaced.drain(..count);
        }
    }

    /// These pages are durable as they are: a write that was asked to be.
    pub(super) fn harden(&mut self, pages: Range<usize>) {
        self.replaced.retain(|replaced| !pages.contains(&(replaced.page as usize)));
    }

    /// Somebody past the machine writes a page, durably.
    pub(super) fn edit(&mut self, page: usize, cell: Cell) {
        self.set(page, cell);
        self.harden(page..page + 1);
    }

    /// The power is gone: each page that was not flushed goes back by some of its contents. Returns how many did.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) -> usize {
        let mut kept: std::collections::BTreeSet<u32> = std::collections::BTreeSet::new();
        let mut lost = 0;
        for replaced in std::mem::take(&mut self.replaced).into_iter().rev() {
            if kept.contains(&replaced.page) {
                continue;
            }
            if dice.coin() {
                self.cells[replaced.page as usize] = replaced.before;
                lost += 1;
            } else {
                kept.insert(replaced.page);
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk::new(64 << 10, true)
    }

    fn write(disk: &mut Disk, pages: Range<usize>, cell: Cell) {
        disk.apply_half(pages.clone(), cell, 0);
        disk.apply_half(pages, cell, 1);
    }

    fn survivors(disk: &Disk) -> std::collections::BTreeSet<Cell> {
        let found = (0..200).map(|seed| {
            let mut copy = disk.clone();
            copy.lose_power(&mut Dice::new(seed));
            copy.cells[3]
        });
        found.collect()
    }

    #[test]
    fn a_flush_covers_what_ended_before_it_began() {
        let mut disk = disk();
        write(&mut disk, 3..4, 1);
        let covers = disk.flush_begun();
        write(&mut disk, 3..4, 2);
        disk.flushed(covers, true);
        assert_eq!(survivors(&disk), [1, 2].into());
        write(&mut disk, 3..4, 3);
        disk.harden(3..4);
        assert_eq!(survivors(&disk), [3].into());
    }

    #[test]
    fn no_later_flush_heals_what_a_failed_one_covered() {
        let mut disk = disk();
        write(&mut disk, 3..4, 1);
        let covers = disk.flush_begun();
        disk.flushed(covers, false);
        let covers = disk.flush_begun();
        disk.flushed(covers, true);
        assert_eq!(survivors(&disk), [0, 1].into());
    }

    #[test]
    fn two_writes_under_way_together_mix() {
        let mut disk = disk();
        disk.apply_half(0..4, 1, 0);
        disk.apply_half(0..4, 2, 0);
        disk.apply_half(0..4, 2, 1);
        disk.apply_half(0..4, 1, 1);
        assert_eq!(disk.cells[..4], [2, 1, 2, 1]);
    }
}
