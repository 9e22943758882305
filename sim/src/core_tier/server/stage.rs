//! The stage of one machine at a process server: batches in order, and how many of them are durable.
//!
//! What is *not* here: what is appended when (`core::receiver`).

use crate::core_tier::dice::Dice;
use redoubt_core::receiver::{Verdict, judge_found};
use redoubt_core::{BatchPosition, SealedMeta, WriteSeq};
use std::collections::VecDeque;

/// A staged batch.
#[derive(Clone, Copy)]
pub(super) struct Staged {
    /// Its number in the machine's ledger.
    pub(super) batch: u32,
    pub(super) meta: SealedMeta,
}

/// What one machine staged.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) entries: VecDeque<Staged>,
    /// Entries that were appended, over all time; the newest is the last of `entries`.
    appended: u64,
    /// Of these, how many a sync covers.
    synced: u64,
    /// Highest generation ever seen, durably.
    pub(super) generation: u64,
}

impl Stage {
    pub(super) fn append(&mut self, staged: Staged) {
        self.entries.push_back(staged);
        self.appended += 1;
    }

    /// Returns what a sync that begins now covers.
    pub(super) fn sync_begun(&self) -> u64 {
        self.appended
    }

    pub(super) fn synced(&mut self, covers: u64) {
        self.synced = self.synced.max(covers);
    }

    /// Returns the last durable sequence.
    pub(super) fn durable(&self) -> WriteSeq {
        let unsynced = (self.appended - self.synced) as usize;
        let count = self.entries.len().saturating_sub(unsynced);
        count.checked_sub(1).map_or(WriteSeq(0), |last| self.entries[last].meta.last)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.iter().map(|staged| u64::from(staged.meta.bytes)).sum()
    }

    pub(super) fn trim(&mut self, through: WriteSeq) {
        while self.entries.front().is_some_and(|staged| staged.meta.last <= through) {
            self.entries.pop_front();
        }
    }

    /// Keeps the first entries and makes them durable: they are written again.
    pub(super) fn cut(&mut self, keep: usize) {
        self.entries.truncate(keep);
        self.synced = self.appended;
    }

    /// Of what was not synced some entries from the front on are left.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        let unsynced = ((self.appended - self.synced) as usize).min(self.entries.len());
        let kept = self.entries.len() - unsynced + dice.below(unsynced as u64 + 1) as usize;
        self.cut(kept);
    }

    /// A start: drops what the vault holds and what does not continue it. All that is left is durable.
    pub(super) fn settle(&mut self, vaulted: BatchPosition) {
        let (mut at, mut vaulted_entries) = (vaulted, 0);
        let mut kept = self.entries.len();
        for (index, staged) in self.entries.iter().enumerate() {
            match judge_found(&staged.meta, at) {
                Verdict::Duplicate if at == vaulted => vaulted_entries = index + 1,
                Verdict::Accept => at = staged.meta.position(),
                _ => {
                    kept = index;
                    break;
                }
            }
        }
        self.cut(kept);
        self.entries.drain(..vaulted_entries.min(kept));
    }

    pub(super) fn wipe(&mut self) {
        *self = Stage::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_core::{Chain, Generation, MachineId, SealedFlags};

    fn staged(batch: u32) -> Staged {
        let seq = WriteSeq(u64::from(batch) + 1);
        let chain = |n: u32| Chain([n as u8; 32]);
        let meta = SealedMeta {
            machine: MachineId(1),
            generation: Generation(1),
            first: seq,
            last: seq,
            flags: SealedFlags(0),
            prev: chain(batch),
            chain: chain(batch + 1),
            bytes: 100,
        };
        Staged { batch, meta }
    }

    #[test]
    fn a_power_loss_takes_nothing_that_was_synced() {
        let mut stage = Stage::default();
        (0..3).for_each(|batch| stage.append(staged(batch)));
        let covers = stage.sync_begun();
        (3..6).for_each(|batch| stage.append(staged(batch)));
        stage.synced(covers);
        assert_eq!(stage.durable(), WriteSeq(3));
        stage.trim(WriteSeq(1));
        for seed in 0..50 {
            let mut copy = Stage { entries: stage.entries.clone(), ..Stage::default() };
            (copy.appended, copy.synced) = (stage.appended, stage.synced);
            copy.lose_power(&mut Dice::new(seed));
            assert!((2..=5).contains(&copy.entries.len()));
        }
    }

    #[test]
    fn a_start_keeps_what_continues_the_vault() {
        let mut stage = Stage::default();
        [0, 1, 2, 4].into_iter().for_each(|batch| stage.append(staged(batch)));
        stage.settle(staged(0).meta.position());
        assert_eq!(stage.entries.iter().map(|staged| staged.batch).collect::<Vec<_>>(), [1, 2]);
    }
}
