//! Which blocks the planner takes up next: questions ahead of reads, both bounded.
//!
//! What is *not* here: what becomes of an answer or of a read ([`super`]).

use super::{
    AHEAD_BLOCKS_MAX, Around, DirtyBlocks, Effect, Key, QUESTION_BLOCKS, QUESTIONS_AT_ONCE, READS_AT_ONCE,
    RETRIES_MAX, RUN_BLOCKS, ResyncPlanner, VOLUMES_AT_ONCE, Work,
};
use crate::extent_map::BLOCK_SECTORS;
use crate::ids::VolumeIndex;
use crate::time::Instant;
use crate::units::Extent;
use std::ops::Range;

/// A block that could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) until: Instant,
    pub(super) attempts: u32,
}

/// Returns the sectors of blocks that exist.
fn extent_of(dirty: &dyn DirtyBlocks, volume: VolumeIndex, blocks: &Range<u64>) -> Extent {
    let last = dirty.block_extent(volume, blocks.end - 1).expect("a block in work lies in the volume");
    let first = blocks.start * BLOCK_SECTORS;
    Extent::new(first, last.end() - first)
}

impl ResyncPlanner {
    /// Reads what is known, in the order of the disk.
    pub(super) fn start_reads(&mut self, around: Around, effects: &mut Vec<Effect>) {
        while around.has_room && self.runs.len() < READS_AT_ONCE {
            let Some((volume, blocks)) = self.next_run() else { return };
            for block in blocks.clone() {
                let key = (volume, block);
                self.known.remove(&key);
                let Some(Work::Known(expected)) = self.work.get(&key).copied() else {
                    panic!("RS-2: block {block} of {volume:?} is known and not in work");
                };
                self.work.insert(key, Work::Reading(expected));
            }
            self.runs.insert((volume, blocks.start), blocks.end - blocks.start);
            effects.push(Effect::ReadRun { volume, extent: extent_of(around.dirty, volume, &blocks) });
        }
    }

    fn next_run(&self) -> Option<(VolumeIndex, Range<u64>)> {
        let (volume, first) = self.known.first().copied()?;
        // A block that failed before is read alone: one bad block must not hold seven good ones.
        let is_alone = |block| self.retries.contains_key(&(volume, block));
        let joins = |end: &u64| self.known.contains(&(volume, *end)) && !is_alone(*end);
        let longest = if is_alone(first) { 1 } else { RUN_BLOCKS };
        let end = (first + 1..first + longest).take_while(joins).last().map_or(first + 1, |last| last + 1);
        Some((volume, first..end))
    }

    /// Asks for more, as far as questions and blocks in work allow.
    pub(super) fn ask(&mut self, now: Instant, around: Around, remaining: u64, effects: &mut Vec<Effect>) {
        // Most steps end here: all that is dirty is in work.
        if !around.is_connected || self.work.len() as u64 >= remaining {
            return;
        }
        let open = self.cursors.keys().copied().filter(|volume| around.dirty.dirty_count(*volume) > 0);
        let open: Vec<VolumeIndex> = open.take(VOLUMES_AT_ONCE).collect();
        let mut progressed = true;
        while progressed {
            progressed = false;
            for volume in &open {
                progressed |= self.ask_next(now, *volume, around.dirty, effects);
            }
        }
    }

    /// Asks for the next dirty blocks of a volume, a run without gaps; tells whether there were any.
    fn ask_next(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        dirty: &dyn DirtyBlocks,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let reading: u64 = self.runs.values().sum();
        let ahead = self.work.len() - reading as usize;
        // Whole questions only, so that a full window does not go on in small steps.
        if ahead + QUESTION_BLOCKS as usize > AHEAD_BLOCKS_MAX || self.questions.len() >= QUESTIONS_AT_ONCE {
            return false;
        }
        let Some(first) = self.next_idle(now, volume, dirty) else { return false };
        let joins =
            |end: &u64| dirty.next_dirty(volume, *end) == Some(*end) && self.is_idle(now, (volume, *end));
        let end =
            (first + 1..first + QUESTION_BLOCKS).take_while(joins).last().map_or(first + 1, |last| last + 1);
        self.cursors.insert(volume, end);
        for block in first..end {
            self.work.insert((volume, block), Work::Asked);
        }
        let (id, extent) = (self.next_id, extent_of(dirty, volume, &(first..end)));
        self.next_id += 1;
        self.questions.insert(id, (volume, first..end));
        effects.push(Effect::Compare { id, volume, extent, after: self.begin });
        true
    }

    fn is_idle(&self, now: Instant, key: Key) -> bool {
        !self.work.contains_key(&key)
            && self.retries.get(&key).map_or(self.retries.len() < RETRIES_MAX, |retry| retry.until <= now)
    }

    /// Returns the next dirty block at or after the cursor that can be taken up, wrapping once.
    fn next_idle(&self, now: Instant, volume: VolumeIndex, dirty: &dyn DirtyBlocks) -> Option<u64> {
        let cursor = self.cursors[&volume];
        let scan = |mut from: u64, end: u64| {
            while let Some(block) = dirty.next_dirty(volume, from).filter(|block| *block < end) {
                if self.is_idle(now, (volume, block)) {
                    return Some(block);
                }
                if self.retries.len() >= RETRIES_MAX {
                    // Only blocks due for a retry may be taken: do not walk the whole volume.
                    let due = self.retries.range((volume, from)..(volume, end));
                    return due.map(|(key, _)| *key).find(|key| self.is_idle(now, *key)).map(|key| key.1);
                }
                from = block + 1;
            }
            None
        };
        scan(cursor, u64::MAX).or_else(|| scan(0, cursor))
    }
}
