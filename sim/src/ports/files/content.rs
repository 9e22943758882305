//! One file's bytes: what a read sees, what a power loss leaves.
//!
//! The page cache writes back when it likes, so any block may become durable at any time. A sync makes
//! durable what was written before it was asked for. A sync that fails does not: as Linux does, the
//! blocks it covered count as clean from then on, whether or not they reached the disk. No later sync
//! writes them again, and once the cache has dropped them, reads show what the disk has.
//!
//! Most of a file is on the disk as a read shows it, so only what differs is held twice.
//!
//! Invariants
//! - FC-1 A block is dirty or forsaken whenever the disk may hold other bytes than a read shows, but for what an older
//!   sync that ends late puts back, and what a cut left behind the end.
//!
//! What is *not* here: names, errors, time.

use super::paged::{PAGE, Page, Paged, within};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Unit in which content reaches the disk: a sector, the least that no power loss tears.
const BLOCK: usize = 512;

/// Rolls a number below the bound.
pub(super) type Roll<'a> = &'a mut dyn FnMut(u64) -> u64;

/// The bytes of one file.
#[derive(Default)]
pub(super) struct Content {
    now: Paged,
    /// Bytes of the file on the disk.
    on_disk: usize,
    /// What the disk holds of a block, where that is told by nothing else. Of other blocks it holds zeros if they are
    /// dirty or forsaken, and else what a read shows.
    old: BTreeMap<usize, Vec<u8>>,
    dirty: Blocks,
    /// Blocks that a failed sync left clean.
    forsaken: BTreeSet<usize>,
}

/// A set of blocks, a bit each.
#[derive(Clone, Default)]
struct Blocks(Vec<u64>);

impl Blocks {
    fn contains(&self, block: usize) -> bool {
        self.0.get(block / 64).is_some_and(|bits| bits & 1 << (block % 64) != 0)
    }

    fn insert(&mut self, block: usize) {
        if self.0.len() <= block / 64 {
            self.0.resize(block / 64 + 1, 0);
        }
        self.0[block / 64] |= 1 << (block % 64);
    }

    fn remove(&mut self, block: usize) {
        if let Some(bits) = self.0.get_mut(block / 64) {
            *bits &= !(1 << (block % 64));
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.0.iter().enumerate().filter(|(_, bits)| **bits != 0);
        words.flat_map(|(at, bits)| {
            (0..64).filter(move |bit| bits & 1 << bit != 0).map(move |bit| at * 64 + bit)
        })
    }
}

/// What a sync covers: blocks, in pages as they were then.
pub(super) struct Covered {
    length: usize,
    blocks: Blocks,
    pages: BTreeMap<usize, Page>,
}

impl Covered {
    /// Returns how much a sync has to write.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| range_of(self.length, block).len() as u64).sum()
    }

    /// Returns each block with its content.
    fn blocks(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.blocks.iter().map(|block| {
            let place = range_of(self.length, block);
            let page = self.pages.get(&(block * BLOCK / PAGE));
            (block, page.map_or(&[][..], |page| within(page, place)))
        })
    }
}

/// Returns which bytes of a file of this length a block holds.
fn range_of(length: usize, block: usize) -> Range<usize> {
    (block * BLOCK).min(length)..(block * BLOCK + BLOCK).min(length)
}

fn block_of(bytes: &Paged, block: usize) -> &[u8] {
    bytes.part(range_of(bytes.len(), block))
}

/// Puts the bytes over the begin of others.
fn put_over(place: &mut [u8], content: &[u8]) {
    let length = place.len().min(content.len());
    place[..length].copy_from_slice(&content[..length]);
}

impl Content {
    /// Makes a file of which everything is durable.
    fn durable(now: Paged) -> Content {
        Content { on_disk: now.len(), now, ..Content::default() }
    }

    /// Returns the file as a read shows it, all of it durable.
    pub(super) fn copy(&self) -> Content {
        Content::durable(self.now.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn read(&self, offset: usize, length: usize) -> Bytes {
        let from = offset.min(self.now.len());
        let to = from.saturating_add(length).min(self.now.len());
        self.now.copy(from..to).into()
    }

    fn is_unsure(&self, block: usize) -> bool {
        self.dirty.contains(block) || self.forsaken.contains(&block)
    }

    /// Returns what the disk holds of a block.
    fn disk_block(&self, block: usize) -> Vec<u8> {
        let mut content = match self.old.get(&block) {
            Some(old) => old.clone(),
            None if self.is_unsure(block) => Vec::new(),
            None => block_of(&self.now, block).to_vec(),
        };
        content.resize(range_of(self.on_disk, block).len(), 0);
        content
    }

    /// The disk holds this at the begin of a block.
    fn put_on_disk(&mut self, block: usize, content: &[u8]) {
        let mut held = self.disk_block(block);
        if !held.is_empty() {
            put_over(&mut held, content);
            self.old.insert(block, held);
        }
    }

    /// The file has another length on the disk.
    fn resize_disk(&mut self, length: usize) {
        let last = self.on_disk.min(length) / BLOCK;
        let mut held = self.disk_block(last);
        self.on_disk = length;
        held.resize(range_of(length, last).len(), 0);
        self.old.split_off(&last);
        if !held.is_empty() {
            self.old.insert(last, held);
        }
    }

    /// Before a block changes: keeps what the disk holds of it.
    fn keep(&mut self, block: usize) {
        let is_told = self.old.contains_key(&block) || self.is_unsure(block);
        if !is_told && block * BLOCK < self.on_disk {
            let held = self.disk_block(block);
            self.old.insert(block, held);
        }
    }

    fn keep_all(&mut self, from: usize, to: usize) {
        (from / BLOCK..to.div_ceil(BLOCK)).for_each(|block| self.keep(block));
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
            if self.dirty.contains(block) && roll(4) == 0 {
                self.write_back(block);
            }
        }
        let old = self.now.len();
        self.keep_all(offset.min(old), to);
        if old < to {
            self.now.resize(to);
        }
        self.now.put(offset, bytes);
        self.touch(offset.min(old), to);
    }

    /// The block reaches the disk in the background, as it is now; the length may not have yet.
    fn write_back(&mut self, block: usize) {
        let content = block_of(&self.now, block).to_vec();
        self.put_on_disk(block, &content);
    }

    /// Cuts or grows.
    pub(super) fn set_len(&mut self, length: usize) {
        let old = self.now.len();
        self.keep_all(old.min(length), old.max(length).max(self.on_disk));
        self.now.resize(length);
        if old < length {
            self.touch(old, length);
        }
    }

    /// Returns what a sync asked for now covers.
    pub(super) fn covered(&self) -> Covered {
        let mut pages = BTreeMap::new();
        for at in self.dirty.iter().map(|block| block * BLOCK) {
            if let Some(page) = self.now.page(at)
                && pages.last_key_value().is_none_or(|(last, _)| *last < at / PAGE)
            {
                pages.insert(at / PAGE, page.clone());
            }
        }
        Covered { length: self.now.len(), blocks: self.dirty.clone(), pages }
    }

    /// The sync succeeded.
    pub(super) fn harden(&mut self, covered: &Covered) {
        if self.on_disk != covered.length {
            self.resize_disk(covered.length);
        }
        for (block, content) in covered.blocks() {
            let is_same = block_of(&self.now, block) == content;
            if is_same
                && !self.forsaken.contains(&block)
                && range_of(self.on_disk, block).len() == content.len()
            {
                self.old.remove(&block);
            } else {
                self.put_on_disk(block, content);
            }
            if is_same {
                self.dirty.remove(block);
            }
        }
    }

    /// The sync failed: each covered block reached the disk by chance, and none is dirty any more.
    pub(super) fn forsake(&mut self, covered: &Covered, roll: Roll<'_>) {
        if self.on_disk < covered.length && roll(2) == 0 {
            self.resize_disk(covered.length);
        }
        for (block, content) in covered.blocks() {
            if roll(2) == 0 {
                self.put_on_disk(block, content);
            }
            if block_of(&self.now, block) == content {
                self.dirty.remove(block);
                self.forsaken.insert(block);
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
            // Taken out above, so that the disk's content is told by nothing else any more.
            let mut content = self.old.get(&block).cloned().unwrap_or_default();
            content.resize(range_of(self.on_disk, block).len(), 0);
            self.old.insert(block, content.clone());
            let place = range_of(self.now.len(), block);
            content.resize(place.len(), 0);
            self.now.put(place.start, &content);
        }
    }

    /// Returns the file as a power loss leaves it: some length, and of each block that was not synced
    /// the old or the new bytes.
    pub(super) fn after_power_loss(&mut self, roll: Roll<'_>) -> Content {
        let (now, disk) = (self.now.len(), self.on_disk);
        let length = match roll(3) {
            0 => disk,
            1 => now,
            _ => disk.min(now) + roll(now.abs_diff(disk) as u64 + 1) as usize,
        };
        let mut found = self.disk();
        found.resize(length);
        for block in self.dirty.iter() {
            if roll(2) == 0 {
                let (place, content) = (range_of(length, block), block_of(&self.now, block));
                found.put(place.start, &content[..content.len().min(place.len())]);
            }
        }
        Content::durable(found)
    }

    /// Returns all that the disk holds.
    fn disk(&self) -> Paged {
        let mut disk = self.now.clone();
        disk.resize(self.on_disk);
        let others = self.old.keys().copied().chain(self.dirty.iter()).chain(self.forsaken.iter().copied());
        for block in others {
            let place = range_of(disk.len(), block);
            disk.put(place.start, &self.disk_block(block));
        }
        disk
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

    /// The same in the plainest way: both contents in full.
    #[derive(Clone, Default)]
    struct Plain {
        now: Vec<u8>,
        disk: Vec<u8>,
        dirty: BTreeSet<usize>,
        forsaken: BTreeSet<usize>,
    }

    fn block_of(bytes: &[u8], block: usize) -> &[u8] {
        &bytes[range_of(bytes.len(), block)]
    }

    fn all(bytes: &Paged) -> Vec<u8> {
        bytes.copy(0..bytes.len())
    }

    fn put(bytes: &mut [u8], block: usize, content: &[u8]) {
        let place = range_of(bytes.len(), block);
        put_over(&mut bytes[place], content);
    }

    impl Plain {
        fn touch(&mut self, from: usize, to: usize) {
            for block in from / BLOCK..to.div_ceil(BLOCK) {
                self.dirty.insert(block);
                self.forsaken.remove(&block);
            }
        }

        fn write(&mut self, offset: usize, bytes: &[u8], roll: Roll<'_>) {
            let (old, to) = (self.now.len(), offset + bytes.len());
            for block in offset / BLOCK..to.div_ceil(BLOCK) {
                if self.dirty.contains(&block) && roll(4) == 0 {
                    put(&mut self.disk, block, block_of(&self.now, block));
                }
            }
            self.now.resize(old.max(to), 0);
            self.now[offset..to].copy_from_slice(bytes);
            self.touch(offset.min(old), to);
        }

        fn set_len(&mut self, length: usize) {
            let old = self.now.len();
            self.now.resize(length, 0);
            if old < length {
                self.touch(old, length);
            }
        }

        fn sync(&mut self, covered: &Covered, fails: bool, roll: Roll<'_>) {
            if !fails || self.disk.len() < covered.length && roll(2) == 0 {
                self.disk.resize(covered.length, 0);
            }
            for (block, content) in covered.blocks() {
                if !fails || roll(2) == 0 {
                    put(&mut self.disk, block, content);
                }
                if block_of(&self.now, block) == content {
                    self.dirty.remove(&block);
                    if fails {
                        self.forsaken.insert(block);
                    }
                }
            }
        }

        fn evict(&mut self, roll: Roll<'_>) {
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
    }

    /// Rolls the same numbers again and again.
    fn dice(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |bound| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound.max(1)
        }
    }

    #[test]
    fn what_is_held_once_is_what_two_full_copies_say() {
        for seed in 0..400 {
            let mut rolls = dice(seed);
            let (mut content, mut plain) = (Content::default(), Plain::default());
            let mut covered = None;
            for step in 0..60u64 {
                let (mut a, mut b) = (dice(seed ^ step << 20), dice(seed ^ step << 20));
                match rolls(8) {
                    0..=2 => {
                        let offset = rolls(plain.now.len() as u64 + 600) as usize;
                        let bytes = vec![rolls(250) as u8 + 1; 1 + rolls(2000) as usize];
                        content.write(offset, &bytes, &mut a);
                        plain.write(offset, &bytes, &mut b);
                    }
                    3 => {
                        let length = rolls(plain.now.len() as u64 + 1500) as usize;
                        content.set_len(length);
                        plain.set_len(length);
                    }
                    4 => covered = Some(content.covered()),
                    5 | 6 => {
                        let Some(covered) = covered.take() else { continue };
                        let fails = rolls(3) == 0;
                        match fails {
                            true => content.forsake(&covered, &mut a),
                            false => content.harden(&covered),
                        }
                        plain.sync(&covered, fails, &mut b);
                    }
                    _ => {
                        content.evict(&mut a);
                        plain.evict(&mut b);
                    }
                }
                assert_eq!(all(&content.now), plain.now, "seed {seed}, step {step}: what a read shows");
                assert_eq!(all(&content.disk()), plain.disk, "seed {seed}, step {step}: what the disk holds");
                let dirty: BTreeSet<usize> = content.dirty.iter().collect();
                assert_eq!((dirty, &content.forsaken), (plain.dirty.clone(), &plain.forsaken), "seed {seed}");
            }
        }
    }

    #[test]
    fn what_is_appended_and_synced_is_held_once() {
        let mut content = Content::default();
        for part in 0..100usize {
            content.write(part * 700, &[part as u8; 700], &mut |_| 1);
            let covered = content.covered();
            content.harden(&covered);
        }
        assert!(content.old.is_empty() && content.dirty.iter().next().is_none());
        assert_eq!(all(&content.disk()), all(&content.now));
    }
}
