//! Dirty blocks: their order is lost, until a resync sent or compared them (XM-3, XM-4).
//!
//! What is *not* here: which of them is next ([`crate::resync`]).

use super::{BLOCK_SECTORS, BLOCKS_PER_EXTENT, ExtentMap, blocks_in};
use crate::ids::WriteSeq;
use crate::planted::{self, Bug};
use crate::splitter::Stamp;
use crate::time::Instant;
use crate::units::Extent;

impl ExtentMap {
    /// The session with the process server is back. Returns the dirty blocks that still need a
    /// resync; a connection proves nothing about them (XM-3).
    pub fn on_reconnect(&mut self) -> u64 {
        if planted::active(Bug::ClearBitmapOnReconnect) {
            self.dirty.fill(0);
            self.dirty_blocks = 0;
        }
        self.dirty_blocks
    }

    /// Order of these sectors is lost: their blocks become dirty and their extents marked. The mark
    /// is durable already if a write caused it; otherwise ask [`ExtentMap::take_persist`].
    pub fn dirty_sectors(&mut self, extent: Extent) {
        for block in blocks_in(extent) {
            let index = block / BLOCKS_PER_EXTENT;
            let mask = 1 << (block % BLOCKS_PER_EXTENT);
            let slot = &mut self.dirty[index as usize];
            self.dirty_blocks += u64::from(*slot & mask == 0);
            *slot |= mask;
            self.mark(index);
        }
    }

    /// The process server lost what it had staged after `seq`: every block written later becomes
    /// dirty. Returns the runs of sectors, for the resync planner's `Dirtied`.
    pub fn mark_dirty_after(&mut self, seq: WriteSeq) -> Vec<Extent> {
        let lost: Vec<Extent> =
            self.unvaulted.take_after(seq).into_iter().filter_map(|blocks| self.clip(blocks)).collect();
        lost.iter().for_each(|extent| self.dirty_sectors(*extent));
        lost
    }

    fn clip(&self, blocks: std::ops::Range<u64>) -> Option<Extent> {
        let first = blocks.start * BLOCK_SECTORS;
        let end = (blocks.end * BLOCK_SECTORS).min(self.sectors.0);
        (first < end).then(|| Extent::new(first, end - first))
    }

    /// A resync read of whole blocks has its place: [`Stamp::Ordered`] if it was sent,
    /// [`Stamp::Nothing`] if it equals the vault. With [`Stamp::Bitmap`] the blocks stay dirty.
    pub fn on_resynced(&mut self, now: Instant, extent: Extent, stamp: Stamp) {
        assert!(
            extent.lba.0.is_multiple_of(BLOCK_SECTORS)
                && (extent.end().is_multiple_of(BLOCK_SECTORS) || extent.end() == self.sectors.0),
            "XM-3: {extent} is no whole number of blocks"
        );
        self.place(extent, stamp);
        if stamp == Stamp::Bitmap {
            return;
        }
        self.touch(now, extent);
        for block in blocks_in(extent) {
            let slot = &mut self.dirty[(block / BLOCKS_PER_EXTENT) as usize];
            let mask = 1 << (block % BLOCKS_PER_EXTENT);
            self.dirty_blocks -= u64::from(*slot & mask != 0);
            *slot &= !mask;
        }
    }

    /// Returns the first dirty block not before `from`.
    pub fn next_dirty(&self, from: u64) -> Option<u64> {
        let first = (from / BLOCKS_PER_EXTENT) as usize;
        let mask = u16::MAX << (from % BLOCKS_PER_EXTENT);
        let mut tail = self.dirty.iter().enumerate().skip(first);
        let (index, head) = tail.next()?;
        let (index, bits) = if head & mask != 0 {
            (index, head & mask)
        } else {
            tail.find(|(_, bits)| **bits != 0).map(|(index, bits)| (index, *bits))?
        };
        Some(index as u64 * BLOCKS_PER_EXTENT + u64::from(bits.trailing_zeros()))
    }

    /// Returns the sectors of a block, or `None` if it lies beyond the end.
    pub fn block_extent(&self, block: u64) -> Option<Extent> {
        self.clip(block..block + 1)
    }

    /// Returns how many blocks are dirty.
    pub fn dirty_blocks(&self) -> u64 {
        self.dirty_blocks
    }
}
