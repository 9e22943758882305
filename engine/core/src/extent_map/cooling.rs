//! Cooling: when an extent needs its mark no longer (XM-2).
//!
//! An extent cools when every change in it is in the vault and flushed on the local disk, and nothing
//! touched it for a while, so that a working set is marked once. The mark goes lazily: a crash before the
//! log is written finds one mark too many, never one too few. A pass looks at every mark once, in
//! batches; while very many extents are hot, the while is short.
//!
//! What is *not* here: how often a pass begins (roles).

use super::{BLOCKS_PER_EXTENT, ExtentMap, bit, extents_in};
use crate::extent_log::EXTENTS_PER_PAGE;
use crate::time::Instant;
use crate::units::Extent;
use std::collections::BTreeSet;
use std::time::Duration;

/// An extent stays hot this long after its last write, so that a working set is marked once.
pub const COOL_AFTER: Duration = Duration::from_secs(30);
/// The same while more than [`HOT_EXTENTS_GOAL`] extents are hot: marking again costs less than comparing.
pub const COOL_AFTER_CROWDED: Duration = Duration::from_secs(2);
/// Hot extents up to which a crash costs little: 4 GiB to compare, some ten seconds.
pub const HOT_EXTENTS_GOAL: u64 = 4096;
/// Marked extents looked at in one call of [`ExtentMap::cool`]; bounds its time to well below a millisecond.
pub const COOL_SCAN_MAX: usize = 1024;

impl ExtentMap {
    /// Returns how many extents are marked.
    pub fn marked_extents(&self) -> u64 {
        self.marked.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Unmarks a batch of extents that need no mark (XM-2). `recaptures` are the sectors that the
    /// splitter still has to read back; `idle_for` is usually [`COOL_AFTER`], zero at a clean stop.
    /// Lazy: ask [`ExtentMap::take_persist`] when convenient. Returns how many were unmarked.
    pub fn cool(
        &mut self,
        now: Instant,
        idle_for: Duration,
        recaptures: impl Iterator<Item = Extent>,
    ) -> usize {
        let pinned: BTreeSet<u64> = recaptures.flat_map(extents_in).collect();
        let extents = self.extents();
        let (mut scanned, mut cooled) = (0, 0);
        let mut at = if self.cool_cursor >= extents { 0 } else { self.cool_cursor };
        while at < extents && scanned < COOL_SCAN_MAX {
            if self.marked[(at / 64) as usize] >> (at % 64) == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            if bit(&self.marked, at) {
                scanned += 1;
                if !pinned.contains(&at) && self.may_cool(now, idle_for, at) {
                    self.unmark(at);
                    cooled += 1;
                }
            }
            at += 1;
        }
        self.cool_cursor = at;
        cooled
    }

    fn may_cool(&mut self, now: Instant, idle_for: Duration, extent: u64) -> bool {
        // A mark that is not durable yet is wanted by a write that is about to start.
        let is_unused = self.uses.get(&extent).is_none_or(|entry| {
            entry.in_flight == 0
                && entry.finished_tick <= self.flushed_tick
                && now.since(entry.last) >= idle_for
        });
        let blocks = extent * BLOCKS_PER_EXTENT..(extent + 1) * BLOCKS_PER_EXTENT;
        bit(&self.durable, extent)
            && self.resized_tick <= self.flushed_tick
            && is_unused
            && !bit(&self.unflushable, extent)
            && self.dirty[extent as usize] == 0
            && !self.unvaulted.contains_any(blocks)
    }

    fn unmark(&mut self, extent: u64) {
        self.uses.remove(&extent);
        self.marked[(extent / 64) as usize] &= !(1 << (extent % 64));
        self.durable[(extent / 64) as usize] &= !(1 << (extent % 64));
        self.pages_changed.insert(extent / EXTENTS_PER_PAGE);
    }

    /// Tells whether the pass that the last [`ExtentMap::cool`] belongs to has looked at every mark.
    pub fn is_cool_pass_over(&self) -> bool {
        self.cool_cursor >= self.extents()
    }
}
