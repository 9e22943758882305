//! One file's bytes: what a read sees, what a power loss leaves.
//!
//! The page cache writes back when it likes, so any block may become durable at any time. A sync makes
//! durable what was written before it was asked for. A sync that fails does not: as Linux does, the
//! blocks it covered count as clean from then on, whether or not they reached the disk. No later sync
//! writes them again, and once the cache has dropped them, reads show what the disk has.
//!
//! Invariants
//! - FC-1 A block is dirty or forsaken whenever the disk may hold other bytes than a read shows.
//!
//! What is *not* here: names, errors, time.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Unit in which content reaches the disk: a sector, the least that no power loss tears.
const BLOCK: usize = 512;

/// Rolls a number below the bound.
pub(super) type Roll<'a> = &'a mut dyn FnMut(u64) -> u64;

/// The bytes of one file.
#[derive(Default)]
pub(super) struct Content {
    now: Vec<u8>,
    disk: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Blocks that a failed sync left clean.
    forsaken: BTreeSet<usize>,
}

/// What a sync covers.
pub(super) struct Covered {
    length: usize,
    blocks: BTreeMap<usize, Vec<u8>>,
}

impl Covered {
    /// Returns how much a sync has to write.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.values().map(|block| block.len() as u64).sum()
    }
}

fn block_of(bytes: &[u8], block: usize) -> &[u8] {
    let from = (block * BLOCK).min(bytes.len());
    &bytes[from..(from + BLOCK).min(bytes.len())]
}

/// Puts the block into bytes that may end before or inside it.
fn put(bytes: &mut [u8], block: usize, content: &[u8]) {
    let from = (block * BLOCK).min(bytes.len());
    let to = (from + content.len()).min(bytes.len());
    bytes[from..to].copy_from_slice(&content[..to - from]);
}

impl Content {
    /// Returns the file as a read shows it, all of it durable.
    pub(super) fn copy(&self) -> Content {
        Content { now: self.now.clone(), disk: self.now.clone(), ..Content::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn read(&self, offset: usize, length: usize) -> Bytes {
        let from = offset.min(self.now.len());
        let to = from.saturating_add(length).min(self.now.len());
        Bytes::copy_from_slice(&self.now[from..to])
    }

    fn touch(&mut self, from: usize, to: usize) {
        for block in from / BLOCK..to.div_ceil(BLOCK) {
            self.dirty.insert(block);
            self.forsaken.remove(&block);
        }
    }

    /// Writes, growing the file as needed.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8], roll: Roll<'_>) {
        let to = offset + bytes.len();
        if bytes.is_empty() {
            return;
        }
        for block in offset / BLOCK..to.div_ceil(BLOCK) {
            if self.dirty.contains(&block) && roll(4) == 0 {
                self.write_back(block);
            }
        }
        let old = self.now.len();
        if old < to {
            self.now.resize(to, 0);
        }
        self.now[offset..to].copy_from_slice(bytes);
        self.touch(offset.min(old), to);
    }

    /// The block reaches the disk in the background, as it is now; the length may not have yet.
    fn write_back(&mut self, block: usize) {
        let content = block_of(&self.now, block).to_vec();
        put(&mut self.disk, block, &content);
    }

    /// Cuts or grows.
    pub(super) fn set_len(&mut self, length: usize) {
        let old = self.now.len();
        self.now.resize(length, 0);
        if old < length {
            self.touch(old, length);
        }
    }

    /// Returns what a sync asked for now covers.
    pub(super) fn covered(&self) -> Covered {
        let blocks = self.dirty.iter().map(|block| (*block, block_of(&self.now, *block).to_vec()));
        Covered { length: self.now.len(), blocks: blocks.collect() }
    }

    /// The sync succeeded.
    pub(super) fn harden(&mut self, covered: &Covered) {
        self.disk.resize(covered.length, 0);
        for (block, content) in &covered.blocks {
            put(&mut self.disk, *block, content);
            if block_of(&self.now, *block) == content {
                self.dirty.remove(block);
            }
        }
    }

    /// The sync failed: each covered block reached the disk by chance, and none is dirty any more.
    pub(super) fn forsake(&mut self, covered: &Covered, roll: Roll<'_>) {
        if self.disk.len() < covered.length && roll(2) == 0 {
            self.disk.resize(covered.length, 0);
        }
        for (block, content) in &covered.blocks {
            if roll(2) == 0 {
                put(&mut self.disk, *block, content);
            }
            if block_of(&self.now, *block) == content {
                self.dirty.remove(block);
                self.forsaken.insert(*block);
            }
        }
    }

    /// The cache drops some of the blocks it believes to be clean.
    pub(super) fn evict(&mut self, roll: Roll<'_>) {
        for block in std::mem::take(&mut self.forsaken) {
            if roll(2) == 0 {
                self.forsaken.insert(block);
                continue;
            }
            let mut content = block_of(&self.disk, block).to_vec();
            content.resize(block_of(&self.now, block).len(), 0);
            put(&mut self.now, block, &content);
        }
    }

    /// Returns the file as a power loss leaves it: some length, and of each block that was not synced
    /// the old or the new bytes.
    pub(super) fn after_power_loss(&mut self, roll: Roll<'_>) -> Content {
        let (now, disk) = (self.now.len(), self.disk.len());
        let length = match roll(3) {
            0 => disk,
            1 => now,
            _ => disk.min(now) + roll(now.abs_diff(disk) as u64 + 1) as usize,
        };
        let mut found = self.disk.clone();
        found.resize(length, 0);
        for block in &self.dirty {
            if roll(2) == 0 {
                put(&mut found, *block, block_of(&self.now, *block));
            }
        }
        Content { now: found.clone(), disk: found, ..Content::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes, &mut |_| 1);
        content
    }

    #[test]
    fn a_later_sync_does_not_heal_a_failed_one() {
        let mut content = file(&[1; 600]);
        let synced = content.covered();
        content.harden(&synced);
        content.write(0, &[2; 600], &mut |_| 1);
        let failed = content.covered();
        content.forsake(&failed, &mut |_| 1);
        let later = content.covered();
        content.harden(&later);
        assert_eq!(content.read(0, 600), [2; 600][..], "the cache still shows the new bytes");
        assert_eq!(content.after_power_loss(&mut |_| 0).read(0, 600), [1; 600][..]);
        content.evict(&mut |_| 1);
        assert_eq!(content.read(0, 600), [1; 600][..], "without the cache the old ones are there");
    }

    #[test]
    fn bytes_written_again_after_a_failed_sync_can_be_synced() {
        let mut content = file(&[1; 600]);
        let failed = content.covered();
        content.forsake(&failed, &mut |_| 1);
        content.write(0, &[1; 600], &mut |_| 1);
        let again = content.covered();
        content.harden(&again);
        content.evict(&mut |_| 1);
        assert_eq!(content.after_power_loss(&mut |_| 0).read(0, 600), [1; 600][..]);
    }

    #[test]
    fn what_is_written_during_a_sync_stays_volatile() {
        let mut content = file(&[1; 512]);
        let covered = content.covered();
        content.write(0, &[2; 512], &mut |_| 1);
        content.harden(&covered);
        assert_eq!(content.after_power_loss(&mut |_| 1).read(0, 512), [1; 512][..]);
        assert_eq!(content.after_power_loss(&mut |_| 0).read(0, 512), [2; 512][..]);
    }

    #[test]
    fn the_cache_may_write_back_what_is_overwritten_later() {
        let mut content = file(&[1; 512]);
        let synced = content.covered();
        content.harden(&synced);
        content.write(0, &[2; 512], &mut |_| 1);
        content.write(0, &[3; 512], &mut |_| 0);
        let found: Vec<u8> = [0, 1].map(|side| content.after_power_loss(&mut |_| side).read(0, 1)[0]).into();
        assert_eq!(found, [3, 2]);
    }
}
