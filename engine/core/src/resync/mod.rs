//! Decides which dirty blocks are compared, read and sent, until none is left. One planner per
//! machine; it is also the initial replication (everything dirty, an empty vault).
//!
//! ```text
//! dirty -> asked (hashes of the vault) -> known -> reading -> verdict: same | zeroes | write -> clean
//!   ^------- session over, resized -------'---------'| read error: back off, still dirty
//! ```
//!
//! Two windows run ahead independently: questions, which cost a round trip and hardly any memory, and
//! reads, which cost memory and are bounded by what the caller has room for. Neither waits for a commit
//! of what the resync itself sends.
//!
//! One answer of the vault, taken at any sequence from `ResyncBegin` on, stays valid for the whole
//! resync: every change stamped since is in the stream, so if the disk equals the answer at the moment of
//! the read, then the vault equals the disk once the stream up to that moment is applied. A change that
//! has no place in the stream ends the resync (AG-2), and its planner with it.
//!
//! Invariants
//! - RS-1 Finished only if no block of any volume is dirty and nothing is asked or being read (R-17).
//! - RS-2 A block is in work at most once; at most [`AHEAD_BLOCKS_MAX`] blocks are asked for or known and
//!   [`READS_AT_ONCE`] runs are being read.
//! - RS-3 A block is skipped only if the vault's content at or after `ResyncBegin`, told in this session,
//!   equals what was read.
//! - RS-4 Progress never goes backwards (R-12).
//!
//! What is *not* here: the dirty bits ([`crate::extent_map`]), the reads and their serialisation
//! ([`crate::splitter`]), the records ResyncBegin and ResyncEnd (the caller stamps them).

mod blocks;
mod window;

pub use blocks::{Content, DirtyBlocks, Expected, Piece, RunRead, Verdict, pieces};

use crate::extent_map::blocks_in;
use crate::ids::{VolumeIndex, WriteSeq};
use crate::time::Instant;
use crate::units::Extent;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use window::Retry;

/// Blocks asked for, or known and not read yet: 128 MiB of disk, enough for 500 MB/s over a round trip of
/// 250 ms; some 200 KiB of memory.
pub const AHEAD_BLOCKS_MAX: usize = 2048;
/// Blocks of one question: 4 MiB of disk, so that dense ranges cost few messages.
pub const QUESTION_BLOCKS: u64 = 64;
/// Questions open at once; the process server takes 64.
pub const QUESTIONS_AT_ONCE: usize = 48;
/// Blocks of one read: 512 KiB, the longest that a guest's write may have to wait for.
pub const RUN_BLOCKS: u64 = 8;
/// Reads at once: 4 MiB in all keep a disk busy and stay small beside the spool.
pub const READS_AT_ONCE: usize = 8;
/// Volumes worked on at once (R-12).
pub const VOLUMES_AT_ONCE: usize = 3;
/// Unreadable blocks waiting for another attempt; beyond it nothing new is taken up.
pub const RETRIES_MAX: usize = 4096;
/// Longest delay between attempts to read a block; delays are 1, 2, 4, .. s up to this.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(64);

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
        /// The vault's content was taken at this sequence.
        as_of: WriteSeq,
        /// One entry per 64 KiB block, in order.
        hashes: Vec<Option<[u8; 32]>>,
    },
    /// The volume has a new size; blocks from this one on do not exist.
    Resized {
        /// Volume.
        volume: VolumeIndex,
        /// Number of blocks.
        blocks: u64,
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
        /// Sectors, at most [`QUESTION_BLOCKS`] blocks.
        extent: Extent,
        /// The process server answers once it has applied this sequence.
        after: WriteSeq,
    },
    /// Submit a resync read of this run to the splitter; when the splitter asks for its stamp, call
    /// [`ResyncPlanner::on_read`]. If it cannot be read, call [`ResyncPlanner::on_read_failed`].
    ReadRun {
        /// Volume.
        volume: VolumeIndex,
        /// Its sectors, at most [`RUN_BLOCKS`] whole blocks.
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

/// What the caller knows when it steps.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// The dirty bits.
    pub dirty: &'a dyn DirtyBlocks,
    /// Whether the process server can be asked.
    pub is_connected: bool,
    /// Whether all that may differ is known to be dirty: before that nothing is finished.
    pub is_complete: bool,
    /// Whether what is read next finds room on its way.
    pub has_room: bool,
}

/// A block: its volume and number.
type Key = (VolumeIndex, u64);

#[derive(Clone, Copy, Debug)]
enum Work {
    Asked,
    Known(Expected),
    Reading(Expected),
}

/// The planner of one machine's resync.
#[derive(Debug)]
pub struct ResyncPlanner {
    begin: WriteSeq,
    /// Volumes with the block after the last one that was taken up.
    cursors: BTreeMap<VolumeIndex, u64>,
    work: BTreeMap<Key, Work>,
    known: BTreeSet<Key>,
    /// Open questions: the blocks of each.
    questions: BTreeMap<u64, (VolumeIndex, std::ops::Range<u64>)>,
    /// Runs being read: blocks of each, by the first.
    runs: BTreeMap<Key, u64>,
    retries: BTreeMap<Key, Retry>,
    next_id: u64,
    progress: Progress,
    finished: bool,
}

impl ResyncPlanner {
    /// Begins a resync whose `ResyncBegin` was stamped at `begin`. Step [`Event::Poll`] next.
    pub fn new(begin: WriteSeq, volumes: impl IntoIterator<Item = VolumeIndex>) -> ResyncPlanner {
        ResyncPlanner {
            begin,
            cursors: volumes.into_iter().map(|volume| (volume, 0)).collect(),
            work: BTreeMap::new(),
            known: BTreeSet::new(),
            questions: BTreeMap::new(),
            runs: BTreeMap::new(),
            retries: BTreeMap::new(),
            next_id: 1,
            progress: Progress::default(),
            finished: false,
        }
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: Event, around: Around, effects: &mut Vec<Effect>) {
        if self.finished {
            return;
        }
        match event {
            Event::Poll => {}
            Event::HashReply { id, as_of, hashes } => self.on_hash_reply(id, as_of, &hashes),
            Event::Resized { volume, blocks } => self.on_resized(volume, blocks),
            Event::LinkDown => self.on_link_down(),
        }
        let remaining: u64 = self.cursors.keys().map(|volume| around.dirty.dirty_count(*volume)).sum();
        self.start_reads(around, effects);
        self.ask(now, around, remaining, effects);
        self.check();
        self.progress.total = self.progress.total.max(self.progress.sent + self.progress.skipped + remaining);
        if remaining == 0 && self.work.is_empty() && around.is_complete {
            self.finished = true;
            effects.push(Effect::Finished);
        }
    }

    /// Judges a run that was read, in the step in which the splitter asks for its stamp. Clear the
    /// dirty bits with the resulting stamp, then step [`Event::Poll`].
    pub fn on_read(&mut self, volume: VolumeIndex, run: Extent, contents: &[Content]) -> Vec<Verdict> {
        let expected = self.take_run(volume, run);
        assert_eq!(expected.len(), contents.len(), "RS-2: one content for each block of {run}");
        let verdicts = expected.iter().zip(contents).map(|(expected, content)| {
            let verdict = blocks::judge(*expected, *content);
            match verdict {
                Verdict::Same => self.progress.skipped += 1,
                Verdict::Zeroes | Verdict::Write => self.progress.sent += 1,
            }
            verdict
        });
        let verdicts = verdicts.collect();
        for block in blocks_in(run) {
            self.retries.remove(&(volume, block));
        }
        verdicts
    }

    /// A run could not be read: its blocks stay dirty and are tried again later, one by one.
    pub fn on_read_failed(&mut self, now: Instant, volume: VolumeIndex, run: Extent) {
        self.take_run(volume, run);
        for block in blocks_in(run) {
            let key = (volume, block);
            let attempts = self.retries.get(&key).map_or(0, |retry| retry.attempts) + 1;
            self.retries.insert(key, Retry { until: now.after(retry_delay(attempts)), attempts });
        }
    }

    /// A run was not read at all: a resize took its place, or the volume is overloaded. What is left of
    /// it stays dirty and is taken up again.
    pub fn on_read_refused(&mut self, volume: VolumeIndex, run: Extent) {
        self.take_run(volume, run);
    }

    /// Tells whether digests of the run's blocks can save sending them.
    pub fn wants_digests(&self, volume: VolumeIndex, run: Extent) -> bool {
        let hashed = |work: Option<&Work>| matches!(work, Some(Work::Reading(Expected::Hash(_))));
        blocks_in(run).any(|block| hashed(self.work.get(&(volume, block))))
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

    fn on_hash_reply(&mut self, id: u64, as_of: WriteSeq, hashes: &[Option<[u8; 32]>]) {
        let Some((volume, blocks)) = self.questions.remove(&id) else { return };
        // An answer of the wrong length, or from before the resync, proves nothing: send.
        let is_usable = hashes.len() as u64 == blocks.end - blocks.start && as_of >= self.begin;
        for (index, block) in blocks.enumerate() {
            let key = (volume, block);
            let Some(work @ Work::Asked) = self.work.get_mut(&key) else { continue };
            let told = hashes.get(index).filter(|_| is_usable);
            self.progress.compared += u64::from(told.is_some());
            *work = Work::Known(
                told.map_or(Expected::Unknown, |hash| hash.map_or(Expected::Zeros, Expected::Hash)),
            );
            self.known.insert(key);
        }
    }

    /// What lies beyond the end is nobody's work; a run being read ends by itself.
    fn on_resized(&mut self, volume: VolumeIndex, blocks: u64) {
        self.work.retain(|key, work| key.0 != volume || key.1 < blocks || matches!(work, Work::Reading(_)));
        self.known.retain(|key| key.0 != volume || key.1 < blocks);
        self.retries.retain(|key, _| key.0 != volume || key.1 < blocks);
    }

    fn on_link_down(&mut self) {
        self.questions.clear();
        self.known.clear();
        self.work.retain(|_, work| matches!(work, Work::Reading(_)));
        for work in self.work.values_mut() {
            // The next session may show an older vault than the one that was compared.
            *work = Work::Reading(Expected::Unknown);
        }
    }

    /// Ends the work on a run; returns what was expected of its blocks.
    fn take_run(&mut self, volume: VolumeIndex, run: Extent) -> Vec<Expected> {
        let blocks = blocks_in(run);
        let known = self.runs.remove(&(volume, blocks.start));
        assert_eq!(known, Some(blocks.end - blocks.start), "RS-2: {run} of {volume:?} was not asked for");
        let take = |block| match self.work.remove(&(volume, block)) {
            Some(Work::Reading(expected)) => expected,
            other => panic!("RS-2: block {block} of {volume:?} was read, but is {other:?}"),
        };
        blocks.map(take).collect()
    }

    fn check(&self) {
        let reading: u64 = self.runs.values().sum();
        let ahead = self.work.len() - reading as usize;
        assert!(ahead <= AHEAD_BLOCKS_MAX, "RS-2: {ahead} blocks ahead");
        assert!(self.runs.len() <= READS_AT_ONCE, "RS-2: {} reads", self.runs.len());
    }
}

/// Returns the delay before attempt `attempts + 1` of a read: 1, 2, 4, .. s.
pub fn retry_delay(attempts: u32) -> Duration {
    let seconds = 1u64 << attempts.saturating_sub(1).min(16);
    Duration::from_secs(seconds).min(RETRY_DELAY_MAX)
}

#[cfg(test)]
mod tests;
