//! Decides which dirty blocks are compared, read and sent, until none is left. One planner per
//! machine; it is also the initial replication (everything dirty, an empty vault).
//!
//! ```text
//! dirty -> asked (hash of the vault) -> reading -> verdict: same | zeroes | write -> clean
//!            | dirtied meanwhile: send without comparing      | read error: back off, still dirty
//! ```
//!
//! Invariants
//! - RS-1 Finished only if no block of any volume is dirty and nothing is asked or being read (R-17).
//! - RS-2 At most [`WINDOW_BLOCKS`] blocks are in work; a block is in work at most once.
//! - RS-3 A block is skipped only if what the vault holds is known and equal, and the block was not
//!   dirtied since that was asked.
//! - RS-4 Progress never goes backwards (R-12).
//!
//! What is *not* here: the dirty bits ([`crate::extent_map`]), the reads and their serialisation
//! ([`crate::splitter`]), the records ResyncBegin and ResyncEnd (the caller stamps them).

use crate::extent_map::{BLOCK_SECTORS, BLOCKS_PER_EXTENT, blocks_in};
use crate::ids::{VolumeIndex, WriteSeq};
use crate::time::Instant;
use crate::units::Extent;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Blocks asked for or being read: 8 MiB of reads, enough to keep a disk and a link of 50 ms busy
/// without crowding out the guest.
pub const WINDOW_BLOCKS: usize = 128;
/// Volumes worked on at once (R-12).
pub const VOLUMES_AT_ONCE: usize = 3;
/// Unreadable blocks waiting for another attempt; beyond it nothing new is taken up.
pub const RETRIES_MAX: usize = 4096;
/// Longest delay between attempts to read a block; delays are 1, 2, 4, .. s up to this.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(64);

/// Blocks of [`Mode::Empty`] volumes remembered as written since the resync began; beyond it the
/// volume is sent without skipping zeros.
pub const TOUCHED_MAX: usize = 1 << 16;

/// The dirty bits of all volumes.
pub trait DirtyBlocks {
    /// Returns the first dirty block of the volume not before `from`.
    fn next_dirty(&self, volume: VolumeIndex, from: u64) -> Option<u64>;
    /// Returns the sectors of a block, clipped to the volume; `None` beyond its end.
    fn block_extent(&self, volume: VolumeIndex, block: u64) -> Option<Extent>;
    /// Returns how many blocks of the volume are dirty.
    fn dirty_count(&self, volume: VolumeIndex) -> u64;
}

/// What is known about the other side when a resync begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ask for hashes: most blocks are probably equal.
    Compare,
    /// Send without asking: the blocks are known to differ.
    Copy,
    /// The vault holds nothing of this volume: send what is not zero.
    Empty,
}

/// What the vault is known to hold of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Not known, or not valid any more: send.
    Unknown,
    /// Zeros.
    Zeros,
    /// Content with this BLAKE3.
    Hash([u8; 32]),
}

/// What the read of a block found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros only.
    Zeros,
    /// Content with this BLAKE3.
    Hash([u8; 32]),
}

/// What to do with a block that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The vault has it: stamp nothing.
    Same,
    /// Stamp `ResyncZeroes`.
    Zeroes,
    /// Stamp `ResyncWrite`.
    Write,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed, dirty bits changed, or the resync began.
    Poll,
    /// The answer to [`Effect::Compare`]: one entry per block of the extent, `None` for a block that
    /// is zero or was never written in the vault. Unknown ids are ignored.
    HashReply {
        /// Identity of the request.
        id: u64,
        /// One entry per 64 KiB block, in order.
        hashes: Vec<Option<[u8; 32]>>,
    },
    /// The guest changed these sectors, or their vault copy was lost.
    Dirtied {
        /// Volume.
        volume: VolumeIndex,
        /// Sectors.
        extent: Extent,
    },
    /// The session with the process server ended: nothing learnt in it is relied upon.
    LinkDown,
}

/// What the caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the process server for the hashes of the extent, as of `after` or later.
    Compare {
        /// Identity of the request.
        id: u64,
        /// Volume.
        volume: VolumeIndex,
        /// Sectors, a run of blocks within one extent of the extent map.
        extent: Extent,
        /// The process server answers once it has applied this sequence.
        after: WriteSeq,
    },
    /// Submit a resync read of this block to the splitter; when the splitter asks for its stamp,
    /// call [`ResyncPlanner::on_read`].
    ReadBlock {
        /// Volume.
        volume: VolumeIndex,
        /// Block number.
        block: u64,
        /// Its sectors.
        extent: Extent,
    },
    /// Nothing is left: stamp `ResyncEnd` in this same step.
    Finished,
}

/// How far a resync is, in blocks of 64 KiB; no field ever shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks that were or became dirty.
    pub total: u64,
    /// Blocks whose content in the vault was asked for and told.
    pub compared: u64,
    /// Blocks sent, zeros included.
    pub sent: u64,
    /// Blocks found equal.
    pub skipped: u64,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Asked { id: u64, dirtied: bool },
    Reading { expected: Expected },
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    until: Instant,
    attempts: u32,
}

#[derive(Clone, Copy, Debug)]
struct VolumeState {
    mode: Mode,
    cursor: u64,
}

/// The planner of one machine's resync.
#[derive(Debug)]
pub struct ResyncPlanner {
    volumes: BTreeMap<VolumeIndex, VolumeState>,
    work: BTreeMap<(VolumeIndex, u64), Work>,
    retries: BTreeMap<(VolumeIndex, u64), Retry>,
    /// Blocks of empty volumes that the guest wrote since: the vault may hold more than zeros.
    touched: BTreeSet<(VolumeIndex, u64)>,
    next_id: u64,
    progress: Progress,
    finished: bool,
}

impl ResyncPlanner {
    /// Begins a resync; the caller has stamped `ResyncBegin`. Step [`Event::Poll`] next.
    pub fn new(volumes: impl IntoIterator<Item = (VolumeIndex, Mode)>) -> ResyncPlanner {
        let volumes = volumes.into_iter().map(|(volume, mode)| (volume, VolumeState { mode, cursor: 0 }));
        ResyncPlanner {
            volumes: volumes.collect(),
            work: BTreeMap::new(),
            retries: BTreeMap::new(),
            touched: BTreeSet::new(),
            next_id: 1,
            progress: Progress::default(),
            finished: false,
        }
    }

    /// Takes one event; `issued` is the last stamped sequence, `connected` whether hashes can be asked for.
    pub fn step(
        &mut self,
        now: Instant,
        event: Event,
        (dirty, issued, connected): (&dyn DirtyBlocks, WriteSeq, bool),
        effects: &mut Vec<Effect>,
    ) {
        if self.finished {
            return;
        }
        match event {
            Event::Poll => {}
            Event::HashReply { id, hashes } => self.on_hash_reply(id, &hashes, dirty, effects),
            Event::Dirtied { volume, extent } => self.on_dirtied(volume, extent),
            Event::LinkDown => self.on_link_down(),
        }
        self.fill_window(now, dirty, issued, connected, effects);
        assert!(self.work.len() <= WINDOW_BLOCKS, "RS-2: {} blocks in work", self.work.len());
        let remaining: u64 = self.volumes.keys().map(|volume| dirty.dirty_count(*volume)).sum();
        self.progress.total = self.progress.total.max(self.progress.sent + self.progress.skipped + remaining);
        if remaining == 0 && self.work.is_empty() {
            self.finished = true;
            effects.push(Effect::Finished);
        }
    }

    /// Judges a block that was read, in the step in which the splitter asks for its stamp. Clear the
    /// dirty bit with the resulting stamp, then step [`Event::Poll`].
    pub fn on_read(&mut self, volume: VolumeIndex, block: u64, content: Content) -> Verdict {
        let work = self.work.remove(&(volume, block));
        self.retries.remove(&(volume, block));
        let Some(Work::Reading { expected }) = work else {
            panic!("RS-2: block {block} of {volume:?} was read but not asked for");
        };
        let (verdict, counter) = match (expected, content) {
            (Expected::Zeros, Content::Zeros) => (Verdict::Same, &mut self.progress.skipped),
            (Expected::Hash(a), Content::Hash(b)) if a == b => (Verdict::Same, &mut self.progress.skipped),
            (_, Content::Zeros) => (Verdict::Zeroes, &mut self.progress.sent),
            (_, Content::Hash(_)) => (Verdict::Write, &mut self.progress.sent),
        };
        *counter += 1;
        verdict
    }

    /// A block could not be read: it stays dirty and is tried again later. Returns the delay after
    /// which [`Event::Poll`] should be stepped.
    pub fn on_read_failed(&mut self, now: Instant, volume: VolumeIndex, block: u64) -> Duration {
        let key = (volume, block);
        assert!(self.work.remove(&key).is_some(), "RS-2: {key:?} failed but was not in work");
        let attempts = self.retries.get(&key).map_or(0, |retry| retry.attempts) + 1;
        let delay = retry_delay(attempts);
        self.retries.insert(key, Retry { until: now.after(delay), attempts });
        delay
    }

    /// Returns the counters.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Tells whether [`Effect::Finished`] was emitted.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns how many blocks wait for another attempt to read them.
    pub fn unreadable_blocks(&self) -> usize {
        self.retries.len()
    }

    fn on_dirtied(&mut self, volume: VolumeIndex, extent: Extent) {
        let blocks = blocks_in(extent);
        if let Some(state) = self.volumes.get_mut(&volume).filter(|state| state.mode == Mode::Empty) {
            if self.touched.len() as u64 + (blocks.end - blocks.start) > TOUCHED_MAX as u64 {
                state.mode = Mode::Copy;
            } else {
                self.touched.extend(blocks.clone().map(|block| (volume, block)));
            }
        }
        for (_, work) in self.work.range_mut((volume, blocks.start)..(volume, blocks.end)) {
            match work {
                Work::Asked { dirtied, .. } => *dirtied = true,
                Work::Reading { expected } => *expected = Expected::Unknown,
            }
        }
    }

    fn on_link_down(&mut self) {
        self.work.retain(|_, work| matches!(work, Work::Reading { .. }));
        for work in self.work.values_mut() {
            // The next session may show an older vault than the one that was compared.
            *work = Work::Reading { expected: Expected::Unknown };
        }
    }

    fn on_hash_reply(
        &mut self,
        id: u64,
        hashes: &[Option<[u8; 32]>],
        dirty: &dyn DirtyBlocks,
        effects: &mut Vec<Effect>,
    ) {
        let is_asked = |work: &Work| matches!(work, Work::Asked { id: asked, .. } if *asked == id);
        let keys: Vec<_> = self.work.iter().filter(|(_, work)| is_asked(work)).map(|(key, _)| *key).collect();
        for (index, key) in keys.iter().enumerate() {
            let Some(Work::Asked { dirtied, .. }) = self.work.get(key).copied() else { continue };
            // A reply of the wrong length proves nothing: send.
            let usable = !dirtied && hashes.len() == keys.len();
            let expected = if usable {
                self.progress.compared += 1;
                hashes[index].map_or(Expected::Zeros, Expected::Hash)
            } else {
                Expected::Unknown
            };
            self.read(*key, expected, dirty, effects);
        }
    }

    fn read(
        &mut self,
        key: (VolumeIndex, u64),
        expected: Expected,
        dirty: &dyn DirtyBlocks,
        effects: &mut Vec<Effect>,
    ) {
        let Some(extent) = dirty.block_extent(key.0, key.1) else {
            // A resize took the block away.
            self.work.remove(&key);
            self.retries.remove(&key);
            return;
        };
        self.work.insert(key, Work::Reading { expected });
        effects.push(Effect::ReadBlock { volume: key.0, block: key.1, extent });
    }

    fn fill_window(
        &mut self,
        now: Instant,
        dirty: &dyn DirtyBlocks,
        issued: WriteSeq,
        connected: bool,
        effects: &mut Vec<Effect>,
    ) {
        let block_is_dirty = |key: &(VolumeIndex, u64)| dirty.next_dirty(key.0, key.1) == Some(key.1);
        self.retries.retain(|key, _| block_is_dirty(key));
        let open = self.volumes.keys().copied().filter(|volume| dirty.dirty_count(*volume) > 0);
        let open: Vec<VolumeIndex> = open.take(VOLUMES_AT_ONCE).collect();
        let mut progressed = true;
        while progressed {
            progressed = false;
            for volume in &open {
                progressed |= self.take_run(now, *volume, (dirty, issued, connected), effects);
            }
        }
    }

    /// Takes up the next run of dirty blocks of a volume, within one extent.
    fn take_run(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        (dirty, issued, connected): (&dyn DirtyBlocks, WriteSeq, bool),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mode = self.volumes[&volume].mode;
        if mode == Mode::Compare && !connected {
            return false;
        }
        let room = WINDOW_BLOCKS - self.work.len();
        let Some(first) = self.next_idle(now, volume, dirty).filter(|_| room > 0) else { return false };
        let extent_end = (first / BLOCKS_PER_EXTENT + 1) * BLOCKS_PER_EXTENT;
        let mut end = first + 1;
        while end < extent_end
            && ((end - first) as usize) < room
            && dirty.next_dirty(volume, end) == Some(end)
            && self.is_idle(now, (volume, end))
        {
            end += 1;
        }
        self.volumes.insert(volume, VolumeState { mode, cursor: end });
        let id = self.next_id;
        match mode {
            Mode::Compare => {
                self.next_id += 1;
                for block in first..end {
                    self.work.insert((volume, block), Work::Asked { id, dirtied: false });
                }
                let last = dirty.block_extent(volume, end - 1).expect("a dirty block lies in the volume");
                let extent = Extent::new(first * BLOCK_SECTORS, last.end() - first * BLOCK_SECTORS);
                effects.push(Effect::Compare { id, volume, extent, after: issued });
            }
            Mode::Copy | Mode::Empty => {
                for key in (first..end).map(|block| (volume, block)) {
                    let is_empty = mode == Mode::Empty && !self.touched.contains(&key);
                    let expected = if is_empty { Expected::Zeros } else { Expected::Unknown };
                    self.read(key, expected, dirty, effects);
                }
            }
        }
        true
    }

    fn is_idle(&self, now: Instant, key: (VolumeIndex, u64)) -> bool {
        !self.work.contains_key(&key)
            && self.retries.get(&key).map_or(self.retries.len() < RETRIES_MAX, |retry| retry.until <= now)
    }

    /// Returns the next dirty block at or after the cursor that can be taken up, wrapping once.
    fn next_idle(&self, now: Instant, volume: VolumeIndex, dirty: &dyn DirtyBlocks) -> Option<u64> {
        let cursor = self.volumes[&volume].cursor;
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

/// Returns the delay before attempt `attempts + 1` of a read: 1, 2, 4, .. s.
pub fn retry_delay(attempts: u32) -> Duration {
    let seconds = 1u64 << attempts.saturating_sub(1).min(16);
    Duration::from_secs(seconds).min(RETRY_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOLUME: VolumeIndex = VolumeIndex(0);
    const BLOCKS: u64 = 300;

    struct Bits(BTreeSet<u64>);

    impl DirtyBlocks for Bits {
        fn next_dirty(&self, _: VolumeIndex, from: u64) -> Option<u64> {
            self.0.range(from..).next().copied()
        }
        fn block_extent(&self, _: VolumeIndex, block: u64) -> Option<Extent> {
            (block < BLOCKS).then(|| Extent::new(block * BLOCK_SECTORS, BLOCK_SECTORS))
        }
        fn dirty_count(&self, _: VolumeIndex) -> u64 {
            self.0.len() as u64
        }
    }

    fn content(byte: u8) -> Content {
        if byte == 0 { Content::Zeros } else { Content::Hash([byte; 32]) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn a_finished_resync_leaves_the_vault_equal_to_the_disk(
            mode in 0u8..3, disk in prop::collection::vec(0u8..3, 300), old in prop::collection::vec(0u8..3, 300),
            steps in prop::collection::vec((0u8..10, any::<u16>()), 0..600),
        ) {
            let mode = [Mode::Compare, Mode::Copy, Mode::Empty][mode as usize];
            let (mut disk, mut vault) = (disk, if mode == Mode::Empty { vec![0; 300] } else { old });
            let mut bits = Bits((0..BLOCKS).collect());
            let mut planner = ResyncPlanner::new([(VOLUME, mode)]);
            let (mut now, mut effects, mut last) = (Instant(0), Vec::new(), Progress::default());
            let (mut asked, mut reads): (Vec<(u64, Extent)>, Vec<u64>) = (Vec::new(), Vec::new());
            planner.step(now, Event::Poll, (&bits, WriteSeq(1), true), &mut effects);
            let quiet = std::iter::repeat_n([(7u8, 0u16), (0, 0), (9, 0)], 2000).flatten();
            for (kind, pick) in steps.into_iter().chain(quiet) {
                let mut event = Event::Poll;
                match kind {
                    0..=4 if !reads.is_empty() => {
                        let block = reads.swap_remove(pick as usize % reads.len());
                        let at = block as usize;
                        if kind == 4 {
                            planner.on_read_failed(now, VOLUME, block);
                        } else {
                            if planner.on_read(VOLUME, block, content(disk[at])) != Verdict::Same {
                                vault[at] = disk[at];
                            }
                            prop_assert_eq!(vault[at], disk[at]);
                            bits.0.remove(&block);
                        }
                    }
                    5 | 6 if !planner.is_finished() => {
                        // Kind 5 is ordered and reaches the vault; kind 6 goes to the bitmap.
                        let block = u64::from(pick) % BLOCKS;
                        disk[block as usize] = (pick >> 9) as u8 % 3;
                        if kind == 5 { vault[block as usize] = disk[block as usize]; } else { bits.0.insert(block); }
                        event = Event::Dirtied { volume: VOLUME, extent: bits.block_extent(VOLUME, block).unwrap() };
                    }
                    7 if !asked.is_empty() => {
                        let (id, extent) = asked.swap_remove(pick as usize % asked.len());
                        let hashes = blocks_in(extent).map(|block| match content(vault[block as usize]) {
                            Content::Zeros => None,
                            Content::Hash(hash) => Some(hash),
                        });
                        event = Event::HashReply { id, hashes: hashes.collect() };
                    }
                    8 => { asked.clear(); event = Event::LinkDown; }
                    _ => now = now.after(Duration::from_secs(2)),
                }
                planner.step(now, event, (&bits, WriteSeq(1), true), &mut effects);
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Compare { id, extent, .. } => asked.push((id, extent)),
                        Effect::ReadBlock { block, .. } => reads.push(block),
                        Effect::Finished => prop_assert!(bits.0.is_empty() && vault == disk),
                    }
                }
                let p = planner.progress();
                prop_assert!(p.total >= last.total && p.sent >= last.sent && p.skipped >= last.skipped);
                last = p;
            }
            prop_assert!(planner.is_finished());
        }
    }

    #[test]
    fn an_unreadable_block_keeps_the_resync_open() {
        let bits = Bits([5].into());
        let mut planner = ResyncPlanner::new([(VOLUME, Mode::Copy)]);
        let mut effects = Vec::new();
        planner.step(Instant(0), Event::Poll, (&bits, WriteSeq(0), true), &mut effects);
        for attempt in 1..9 {
            assert!(matches!(effects.pop(), Some(Effect::ReadBlock { block: 5, .. })));
            let delay = planner.on_read_failed(Instant(0), VOLUME, 5);
            assert_eq!(delay, retry_delay(attempt));
            planner.step(Instant(0), Event::Poll, (&bits, WriteSeq(0), true), &mut effects);
            assert!(effects.is_empty() && !planner.is_finished());
            planner.step(Instant(0).after(delay), Event::Poll, (&bits, WriteSeq(0), true), &mut effects);
        }
    }
}
