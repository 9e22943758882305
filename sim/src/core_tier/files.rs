//! A host's state directory: its times and faults, and the few files at this tier: two slots of a record, the
//! activity logs, the spill's batches. Each has what a read shows and what a power loss leaves.
//!
//! What is *not* here: a process server's stage ([`super::stage`]), bytes of records and batches.

use super::dice::{Dice, MICRO, Times};
use redoubt_core::agent_state::Slot;
use redoubt_core::extent_map::Persist;
use redoubt_core::spool::SpillPlace;
use std::collections::BTreeMap;

/// Faults of a state directory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Directory {
    pub(super) is_full: bool,
    /// Chance that a sync fails, in parts per million.
    pub(super) sync_errors: u32,
    /// Nothing is answered before.
    pub(super) hang_until: u64,
    /// Faults that somebody met.
    pub(super) met: u64,
    /// What it held was lost.
    pub(super) is_lost: bool,
    /// Effects until the power is lost with one.
    pub(super) trip: Option<u64>,
    /// It was lost with the newest effect.
    pub(super) has_tripped: bool,
}

impl Directory {
    fn effect(&mut self) {
        if let Some(left) = &mut self.trip {
            *left = left.saturating_sub(1);
            self.has_tripped |= *left == 0;
        }
    }

    /// Tells whether a write finds room.
    pub(super) fn write(&mut self) -> bool {
        self.effect();
        self.met += u64::from(self.is_full);
        !self.is_full
    }

    /// Tells whether a sync succeeds.
    pub(super) fn sync(&mut self, dice: &mut Dice) -> bool {
        self.effect();
        let fails = dice.happens(self.sync_errors);
        self.met += u64::from(fails);
        !fails
    }

    /// Returns when work that would be done at `at` is done.
    pub(super) fn done_at(&mut self, at: u64) -> u64 {
        self.met += u64::from(self.hang_until > at);
        at.max(self.hang_until)
    }
}

/// How long a sync takes.
pub(super) fn sync_time(flush: &Times, dice: &mut Dice) -> u64 {
    flush.draw(dice) + 50 * MICRO
}

/// The two slots of an agent's record.
#[derive(Clone)]
pub(super) struct RecordFile {
    shown: [Slot; 2],
    durable: [Slot; 2],
}

impl RecordFile {
    pub(super) fn new() -> RecordFile {
        let empty = || [Slot::Empty, Slot::Empty];
        RecordFile { shown: empty(), durable: empty() }
    }

    pub(super) fn write(&mut self, slot: Slot) {
        let Slot::Valid(counter, _) = &slot else { return };
        let at = (*counter % 2) as usize;
        self.shown[at] = slot;
    }

    pub(super) fn synced(&mut self) {
        self.durable = self.shown.clone();
    }

    pub(super) fn shown(&self) -> [Slot; 2] {
        self.shown.clone()
    }

    /// What was not synced is there, not there, or torn.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        for (shown, durable) in self.shown.iter_mut().zip(&mut self.durable) {
            if shown != durable {
                match dice.below(3) {
                    0 => *shown = durable.clone(),
                    1 => {}
                    _ => *shown = Slot::Damaged,
                }
                *durable = shown.clone();
            }
        }
    }
}

/// A file that is written in sectors, in place: an activity log.
#[derive(Clone, Default)]
pub(super) struct LogFile {
    shown: Vec<u8>,
    durable: Vec<u8>,
}

impl LogFile {
    pub(super) fn write(&mut self, persist: &Persist) {
        for (offset, page) in &persist.writes {
            let (at, end) = (*offset as usize, *offset as usize + page.len());
            if self.shown.len() < end {
                self.shown.resize(end, 0);
            }
            self.shown[at..end].copy_from_slice(page);
        }
    }

    pub(super) fn synced(&mut self) {
        self.durable.clone_from(&self.shown);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.shown
    }

    /// Each sector that was not synced is old or new.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        self.durable.resize(self.shown.len(), 0);
        for (shown, durable) in self.shown.chunks_mut(512).zip(self.durable.chunks(512)) {
            if shown != durable && dice.coin() {
                shown.copy_from_slice(durable);
            }
        }
        self.synced();
    }
}

/// A batch in a spill file.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) batch: u32,
    pub(super) offset: u64,
    bytes: u32,
}

#[derive(Clone, Default)]
struct SpillFile {
    entries: Vec<Entry>,
    synced: usize,
}

/// What a scan finds: files with their lengths, and entries in order, each with its file.
pub(super) type Found = (Vec<(u64, u64)>, Vec<(u64, Entry)>);

/// The spill files of an agent.
#[derive(Clone, Default)]
pub(super) struct SpillDirectory(BTreeMap<u64, SpillFile>);

impl SpillDirectory {
    pub(super) fn create(&mut self, file: u64) {
        self.0.insert(file, SpillFile::default());
    }

    /// Appends an entry; false if the file is not there.
    pub(super) fn append(&mut self, place: SpillPlace, batch: u32) -> bool {
        let Some(file) = self.0.get_mut(&place.file) else { return false };
        file.entries.push(Entry { batch, offset: place.offset, bytes: place.bytes });
        true
    }

    pub(super) fn sync(&mut self) {
        self.0.values_mut().for_each(|file| file.synced = file.entries.len());
    }

    pub(super) fn read(&self, place: SpillPlace) -> Option<u32> {
        let entries = &self.0.get(&place.file)?.entries;
        entries.iter().find(|entry| entry.offset == place.offset).map(|entry| entry.batch)
    }

    pub(super) fn remove(&mut self, file: u64) {
        self.0.remove(&file);
    }

    /// Of what was not synced some entries from the front on are left in each file.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        for file in self.0.values_mut() {
            let unsynced = (file.entries.len() - file.synced) as u64;
            file.entries.truncate(file.synced + dice.below(unsynced + 1) as usize);
            file.synced = file.entries.len();
        }
    }

    /// What a start finds: files with their lengths, and entries in order. It syncs all of it.
    pub(super) fn scan(&mut self) -> Found {
        self.sync();
        let end =
            |file: &SpillFile| file.entries.last().map_or(40, |last| last.offset + 8 + u64::from(last.bytes));
        let lengths = self.0.iter().map(|(number, file)| (*number, end(file))).collect();
        let entries = self.0.iter().flat_map(|(number, file)| file.entries.iter().map(|e| (*number, *e)));
        (lengths, entries.collect())
    }
}
