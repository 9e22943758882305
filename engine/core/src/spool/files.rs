//! Decides in which spill file an entry goes, and when a file is no longer needed.
//!
//! Invariants
//! - SF-1 All files together never exceed the cap.
//! - SF-2 Nothing is appended to a file found at the start or after a failed write: its tail may be torn.
//! - SF-3 A file's number is used once in the life of a process, and never while a file has it.
//!
//! Files are small against the cap, because space comes back by whole files: a spill that is drained as
//! fast as it fills must not reach its cap by what is staged already.
//!
//! What is *not* here: the bytes in a file ([`crate::batch_file`]), syncs, which batch is needed.

use super::events::{SpillPlace, SpillWork, SpoolEffect};
use crate::batch_file::{ENTRY_HEADER_BYTES, FILE_HEADER_BYTES};
use crate::planted::{self, Bug};
use std::collections::VecDeque;

/// A spill file is closed at this size: removing whole files then frees space soon.
pub const SPILL_FILE_BYTES: u64 = 64 << 20;

/// A spill with a small cap is spread over this many files, or as many as hold one batch each.
pub const FILES_PER_SPILL: u64 = 8;

/// The spill files of one machine.
#[derive(Debug)]
pub(super) struct SpillFiles {
    cap_bytes: u64,
    /// Files that exist, oldest first, each with its length.
    files: VecDeque<(u64, u64)>,
    /// Found at the start and of no use; removed with the first step.
    stale: Vec<u64>,
    /// The file that later entries may be appended to; always the newest.
    open: Option<u64>,
    next: u64,
}

impl SpillFiles {
    pub(super) fn new(cap_bytes: u64, next: u64) -> SpillFiles {
        SpillFiles { cap_bytes, files: VecDeque::new(), stale: Vec::new(), open: None, next }
    }

    /// Takes over the files of an earlier run, oldest first; those above `last_used` are stale.
    pub(super) fn found(cap_bytes: u64, found: Vec<(u64, u64)>, last_used: u64) -> SpillFiles {
        let next = found.iter().map(|(file, _)| file + 1).max().unwrap_or(0);
        let (files, stale): (Vec<_>, Vec<_>) = found.into_iter().partition(|(file, _)| *file <= last_used);
        let stale = stale.into_iter().map(|(file, _)| file).collect();
        SpillFiles { files: files.into(), stale, ..SpillFiles::new(cap_bytes, next) }
    }

    pub(super) fn take_stale(&mut self) -> impl Iterator<Item = u64> {
        std::mem::take(&mut self.stale).into_iter()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }

    /// Finds room for a batch of `bytes`; asks for a new file if the open one is full. `None` at the cap.
    pub(super) fn place(&mut self, bytes: usize, effects: &mut Vec<SpoolEffect>) -> Option<SpillPlace> {
        let entry = (ENTRY_HEADER_BYTES + bytes) as u64;
        let cap_bytes = if planted::active(Bug::UnboundedSpill) { u64::MAX } else { self.cap_bytes };
        let room = cap_bytes.saturating_sub(self.bytes());
        let full = SPILL_FILE_BYTES.min(self.cap_bytes / FILES_PER_SPILL);
        let open = self.files.back().copied();
        let open = open.filter(|(file, length)| self.open == Some(*file) && length + entry <= full);
        let (file, offset) = match open {
            Some(_) if entry > room => return None,
            Some(open) => open,
            None if entry + FILE_HEADER_BYTES as u64 > room => return None,
            None => self.create(effects),
        };
        if let Some(newest) = self.files.back_mut() {
            newest.1 = offset + entry;
        }
        assert!(self.bytes() <= cap_bytes, "SF-1: the spill is beyond its cap");
        Some(SpillPlace { file, offset, bytes: bytes as u32 })
    }

    fn create(&mut self, effects: &mut Vec<SpoolEffect>) -> (u64, u64) {
        let new = (self.next, FILE_HEADER_BYTES as u64);
        self.next += 1;
        self.open = Some(new.0);
        self.files.push_back(new);
        effects.push(SpoolEffect::Spill(SpillWork::Create { file: new.0 }));
        new
    }

    /// SF-2: a write failed.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Takes out the files before the oldest needed one; all if none is needed.
    pub(super) fn take_below(&mut self, needed: Option<u64>) -> impl Iterator<Item = u64> {
        let count = self.files.partition_point(|(file, _)| needed.is_none_or(|needed| *file < needed));
        let removed: Vec<u64> = self.files.drain(..count).map(|(file, _)| file).collect();
        removed.into_iter()
    }
}
