//! Changes of the guest on their way: started, finished, flushed, vaulted (XM-2).
//!
//! What is *not* here: when their marks go ([`super::cooling`]).

use super::{ExtentMap, blocks_in, extents_in};
use crate::ids::WriteSeq;
use crate::splitter::Stamp;
use crate::time::Instant;
use crate::units::Extent;

/// Names the moment a flush of the local disk was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushToken(u64);

/// What is known of an extent that was used since it became hot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    pub(super) in_flight: u32,
    pub(super) finished_tick: u64,
    pub(super) last: Instant,
}

impl ExtentMap {
    /// A change of these sectors was started on the disk.
    pub fn on_write_started(&mut self, now: Instant, extent: Extent) {
        assert!(self.is_hot(extent), "XM-1: a write into {extent} started before it was hot");
        for extent in extents_in(extent) {
            let entry = self.uses.entry(extent).or_default();
            entry.in_flight += 1;
            entry.last = now;
            // Marked already, unless the log is disowned.
            self.mark(extent);
        }
    }

    /// A started change ended; `stamp` is its place, [`Stamp::Nothing`] if the disk failed it (the
    /// splitter then keeps the sectors in its list of recaptures, see [`ExtentMap::cool`]).
    pub fn on_write_finished(&mut self, now: Instant, extent: Extent, stamp: Stamp) {
        self.finish_ticks += 1;
        for extent in extents_in(extent) {
            let entry = self.uses.get_mut(&extent).expect("XM-2: a write ended that was never started");
            assert!(entry.in_flight > 0, "XM-2: a write ended that was never started");
            entry.in_flight -= 1;
            entry.finished_tick = self.finish_ticks;
            entry.last = now;
        }
        self.place(extent, stamp);
    }

    /// A failed write was read back and has its place.
    pub fn on_recaptured(&mut self, now: Instant, extent: Extent, stamp: Stamp) {
        self.touch(now, extent);
        self.place(extent, stamp);
    }

    pub(super) fn place(&mut self, extent: Extent, stamp: Stamp) {
        match stamp {
            Stamp::Ordered(range) => self.unvaulted.insert(blocks_in(extent), range.last),
            Stamp::Bitmap => self.dirty_sectors(extent),
            Stamp::Nothing => {}
        }
    }

    /// Local content was relied upon: it must be flushed before the extent cools (XM-2).
    pub(super) fn touch(&mut self, now: Instant, extent: Extent) {
        self.finish_ticks += 1;
        for extent in extents_in(extent) {
            let entry = self.uses.entry(extent).or_default();
            entry.finished_tick = self.finish_ticks;
            entry.last = now;
        }
    }

    /// Everything up to `seq` is durable in the vault.
    pub fn on_vaulted(&mut self, seq: WriteSeq) {
        self.unvaulted.forget_through(seq);
    }

    /// A flush of the local disk is about to be issued; give the token back when it succeeded.
    pub fn flush_issued(&self) -> FlushToken {
        FlushToken(self.finish_ticks)
    }

    /// The flush succeeded: it covers what had finished when it was issued.
    pub fn on_flushed(&mut self, token: FlushToken) {
        self.flushed_tick = self.flushed_tick.max(token.0);
    }

    /// A flush failed. The system may have dropped what it covered, so that the disk holds older content
    /// than reads show, until a power loss brings it out. Of two flushes at once either may get the error,
    /// and the other succeeds; and what an earlier run left in the cache is in no list of this one. So every
    /// extent that is marked now stays so as long as this map lives, and a stop is not clean: whatever
    /// start follows a power loss compares them.
    ///
    /// What remains: a later start on a system that was not restarted compares what the system's cache
    /// shows, and may cool them after its own flush.
    pub fn on_flush_failed(&mut self) {
        for (lost, marked) in self.unflushable.iter_mut().zip(&self.marked) {
            *lost |= marked;
        }
        self.has_lost_flush = true;
    }

    /// Tells whether a flush failed since the start: then the local disk is not known to be durable.
    pub fn has_lost_flush(&self) -> bool {
        self.has_lost_flush
    }

    /// Tells whether a flush of the local disk would let more extents cool.
    pub fn wants_flush(&self) -> bool {
        self.flushed_tick < self.finish_ticks
    }
}
