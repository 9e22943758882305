//! Remembers which blocks were stamped but are not in the vault yet, with their last sequence.
//!
//! Intervals of blocks, so that a trim of a whole disk is one entry. A superset is always legal:
//! when the list grows too long, neighbours are joined and their gaps count as written too.
//!
//! A vault that keeps up forgets a write long before anybody asks for it. So the newest writes only stand in
//! a queue, and are sorted in when it is full or a question comes: a guest's write costs one entry at its end.
//!
//! Invariants
//! - UV-1 Each block whose last ordered write is not vaulted lies in an interval whose sequence is
//!   not smaller than that write's, or stands in the queue of recent writes.
//! - UV-2 Intervals do not overlap, and both indexes hold the same ones.
//! - UV-3 Recent writes are not older than any interval, and stand in order.
//!
//! What is *not* here: dirty blocks, whose order is lost ([`crate::extent_map`]).

use crate::ids::WriteSeq;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// Intervals kept exactly; some 16 MiB of memory per volume. Beyond it neighbours are joined.
pub(crate) const INTERVALS_MAX: usize = 1 << 18;

/// Writes that are not sorted in: a tenth of a second of a busy guest, in which the vault has most of them, and
/// about a millisecond to sort.
const RECENT_MAX: usize = 1 << 12;

/// Blocks with the sequence of their last write, until it is vaulted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unvaulted {
    /// First block to the end of the interval and its last sequence.
    by_block: BTreeMap<u64, (u64, WriteSeq)>,
    by_seq: BTreeSet<(WriteSeq, u64)>,
    /// Writes that are not in the intervals yet, oldest first (UV-3).
    recent: VecDeque<(Range<u64>, WriteSeq)>,
    recent_max: usize,
    limit: usize,
}

impl Unvaulted {
    pub(crate) fn new() -> Unvaulted {
        Unvaulted { limit: INTERVALS_MAX, recent_max: RECENT_MAX, ..Unvaulted::default() }
    }

    fn remove(&mut self, start: u64) -> (u64, WriteSeq) {
        let (end, seq) = self.by_block.remove(&start).expect("UV-2: an interval is in one index only");
        assert!(self.by_seq.remove(&(seq, start)), "UV-2: an interval is in one index only");
        (end, seq)
    }

    fn put(&mut self, blocks: Range<u64>, seq: WriteSeq) {
        if !blocks.is_empty() {
            self.by_block.insert(blocks.start, (blocks.end, seq));
            self.by_seq.insert((seq, blocks.start));
        }
    }

    /// Returns the first block of the last interval that overlaps these: one search, no list.
    fn last_overlap(&self, blocks: &Range<u64>) -> Option<u64> {
        let (start, (end, _)) = self.by_block.range(..blocks.end).next_back()?;
        (*end > blocks.start).then_some(*start)
    }

    /// The blocks were written at `seq`.
    pub(crate) fn insert(&mut self, blocks: Range<u64>, seq: WriteSeq) {
        if blocks.is_empty() {
            return;
        }
        if let Some((newest, last)) = self.recent.back_mut() {
            assert!(*last <= seq, "UV-1: a write at {seq} follows one at {last}");
            if *newest == blocks {
                *last = seq;
                return;
            }
        }
        self.recent.push_back((blocks, seq));
        if self.recent.len() > self.recent_max {
            self.sort_in_oldest();
        }
    }

    fn sort_in_oldest(&mut self) {
        if let Some((blocks, seq)) = self.recent.pop_front() {
            self.sort_in(blocks, seq);
        }
    }

    /// Brings the intervals up to date.
    fn sort_in_all(&mut self) {
        while !self.recent.is_empty() {
            self.sort_in_oldest();
        }
    }

    fn sort_in(&mut self, blocks: Range<u64>, seq: WriteSeq) {
        while let Some(start) = self.last_overlap(&blocks) {
            let (end, old) = self.remove(start);
            assert!(old <= seq, "UV-1: a write at {seq} follows one at {old}");
            self.put(start..blocks.start.max(start), old);
            self.put(blocks.end.min(end)..end, old);
        }
        self.put(blocks, seq);
        if self.by_block.len() > self.limit {
            self.join_neighbours();
        }
    }

    /// Halves the list: each pair of neighbours becomes one interval with the later sequence.
    fn join_neighbours(&mut self) {
        let old = std::mem::take(&mut self.by_block);
        self.by_seq.clear();
        let mut entries = old.into_iter();
        while let Some((start, (end, seq))) = entries.next() {
            let (end, seq) = entries.next().map_or((end, seq), |(_, (e, s))| (e, s.max(seq)));
            self.put(start..end, seq);
        }
    }

    pub(crate) fn forget_through(&mut self, seq: WriteSeq) {
        while let Some(&(first, start)) = self.by_seq.first()
            && first <= seq
        {
            self.remove(start);
        }
        while self.recent.front().is_some_and(|(_, oldest)| *oldest <= seq) {
            self.recent.pop_front();
        }
    }

    /// Removes and returns the intervals with a later sequence.
    pub(crate) fn take_after(&mut self, seq: WriteSeq) -> Vec<Range<u64>> {
        self.sort_in_all();
        let starts: Vec<u64> = self.by_seq.range((seq.next(), 0)..).map(|(_, start)| *start).collect();
        starts.into_iter().map(|start| start..self.remove(start).0).collect()
    }

    pub(crate) fn contains_any(&mut self, blocks: Range<u64>) -> bool {
        self.sort_in_all();
        !blocks.is_empty() && self.last_overlap(&blocks).is_some()
    }

    /// Forgets blocks from `end` on.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.sort_in_all();
        while let Some(start) = self.last_overlap(&(end..u64::MAX)) {
            let (_, seq) = self.remove(start);
            self.put(start..end.max(start), seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn intervals_cover_what_a_list_of_blocks_remembers(
            ops in prop::collection::vec((0u64..60, 1u64..12, 0u8..8), 1..80), limit in 3usize..40,
            recent_max in 0usize..12,
        ) {
            let mut map = Unvaulted { limit, recent_max, ..Unvaulted::default() };
            let mut oracle: BTreeMap<u64, u64> = BTreeMap::new();
            let exact = limit == 39;
            let (mut seq, mut vaulted) = (0, 0);
            for (start, len, kind) in ops {
                if kind < 6 {
                    seq += 1;
                    map.insert(start..start + len, WriteSeq(seq));
                    (start..start + len).for_each(|block| { oracle.insert(block, seq); });
                } else if kind == 6 {
                    vaulted = vaulted.max(seq.saturating_sub(len));
                    map.forget_through(WriteSeq(vaulted));
                    oracle.retain(|_, last| *last > vaulted);
                } else {
                    map.truncate(start);
                    oracle.retain(|block, _| *block < start);
                }
                prop_assert!(map.by_block.len() <= limit.max(3));
                prop_assert!(map.recent.len() <= recent_max);
                // A question sorts everything in, so a copy is asked.
                let mut asked = map.clone();
                for block in 0..80 {
                    let covered = asked.contains_any(block..block + 1);
                    prop_assert!(covered || !oracle.contains_key(&block));
                    prop_assert!(!exact || covered == oracle.contains_key(&block));
                }
            }
            let mut copy = map.clone();
            let lost: Vec<_> = copy.take_after(WriteSeq(seq / 2)).into_iter().flatten().collect();
            for (block, last) in &oracle {
                prop_assert!(*last <= seq / 2 || lost.contains(block));
            }
        }
    }
}
