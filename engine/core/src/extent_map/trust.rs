//! The log file and how far it can be relied upon (XM-1, XM-5).
//!
//! What is *not* here: its bytes ([`crate::extent_log`]), who waits for it ([`crate::splitter`]).

use super::{ExtentMap, bit};
use crate::extent_log::{self, EXTENTS_PER_PAGE};
use crate::planted::{self, Bug};
use crate::units::{Extent, Sectors};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Delays between attempts to write the log after an error; the last repeats.
pub const PERSIST_RETRY_DELAYS: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

/// How far the log file can be relied upon (XM-5).
///
/// ```text
/// Whole -> Doubted (a write of the log failed) -> Disowned (writes go on unmarked)
///   |--------------- (a write of it does not end) -----^
///   ^---------'----- written again ---- CatchingUp <-----'
/// ```
///
/// A write of the log that does not end is given up by the machine, which sees to it that no later start
/// trusts the log ([`ExtentMap::give_up`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTrust {
    /// Every changed extent is marked in it.
    Whole,
    /// It was not written yet after [`StartMarks::CompareAll`], or a write of it failed. Cold extents wait until the caller has tried once to put
    /// `must_compare_all` into its durable record, see [`ExtentMap::on_disowned`].
    Doubted,
    /// Writes into cold extents go on without a durable mark.
    Disowned,
    /// It can be written again; the marks of writes that went on without one are on the way.
    CatchingUp,
}

/// One write of the log file: page contents by offset. Write all, then sync, then answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Byte offset and content of each page.
    pub writes: Vec<(u64, Bytes)>,
}

/// An image of the log that is being written.
#[derive(Debug)]
pub(super) struct Image {
    /// Marks of each page at the start of the write.
    pages: BTreeMap<u64, Vec<u64>>,
    /// The size in the header.
    sectors: Sectors,
}

impl ExtentMap {
    /// Tells whether a write into these sectors may start (XM-1, XM-5).
    pub fn is_hot(&self, extent: Extent) -> bool {
        if self.trust == LogTrust::Disowned {
            return true;
        }
        let marks = if planted::active(Bug::SkipActivityLogSync) { &self.marked } else { &self.durable };
        super::extents_in(extent).all(|extent| bit(marks, extent))
    }

    /// Returns the next write of the log, if there is something to write and none is under way.
    /// Perform it, then call [`ExtentMap::on_persisted`].
    pub fn take_persist(&mut self) -> Option<Persist> {
        if self.persisting.is_some() || (self.pages_changed.is_empty() && !self.header_changed) {
            return None;
        }
        let words_per_page = (EXTENTS_PER_PAGE / 64) as usize;
        let mut writes = Vec::new();
        let mut sectors = self.logged;
        if std::mem::take(&mut self.header_changed) {
            writes.push((0, extent_log::encode_header(self.volume, self.sectors)));
            sectors = self.sectors;
        }
        let mut pages = BTreeMap::new();
        for page in std::mem::take(&mut self.pages_changed) {
            writes.push((
                extent_log::page_offset(page),
                extent_log::encode_page(self.volume, page, &self.marked),
            ));
            let first = page as usize * words_per_page;
            let marks: Vec<u64> = self.marked.iter().skip(first).take(words_per_page).copied().collect();
            // From now on the file may hold this image or the older one: only what is in both is
            // certain (XM-1).
            for (durable, marked) in self.durable.iter_mut().skip(first).zip(&marks) {
                *durable &= marked;
            }
            pages.insert(page, marks);
        }
        self.persisting = Some(Image { pages, sectors });
        Some(Persist { writes })
    }

    /// The write of the log ended. `Ok`: more extents are hot, step the splitter. On an error the
    /// same marks are written again: call [`ExtentMap::take_persist`] after the returned delay. If
    /// [`ExtentMap::is_disown_wanted`], write the record and call [`ExtentMap::on_disowned`].
    pub fn on_persisted<E>(&mut self, result: Result<(), E>) -> Option<Duration> {
        let Image { pages, sectors } =
            self.persisting.take().expect("XM-1: a write of the log ended that was not asked for");
        if result.is_err() {
            let extents = self.extents();
            self.pages_changed.extend(pages.keys().filter(|page| **page * EXTENTS_PER_PAGE < extents));
            self.header_changed = true;
            let index = (self.persist_failures as usize).min(PERSIST_RETRY_DELAYS.len() - 1);
            self.persist_failures = self.persist_failures.saturating_add(1);
            self.trust = match self.trust {
                LogTrust::Whole | LogTrust::Doubted => LogTrust::Doubted,
                LogTrust::Disowned | LogTrust::CatchingUp => LogTrust::Disowned,
            };
            return Some(PERSIST_RETRY_DELAYS[index]);
        }
        self.persist_failures = 0;
        self.logged = sectors;
        for (page, marks) in pages {
            let first = page as usize * (EXTENTS_PER_PAGE / 64) as usize;
            let targets = self.durable.iter_mut().skip(first).zip(self.marked.iter().skip(first));
            for ((durable, marked), written) in targets.zip(marks) {
                // A resize may have dropped marks meanwhile; they are no longer ours.
                *durable |= written & marked;
            }
        }
        self.trust = match self.trust {
            LogTrust::Disowned if !self.pages_changed.is_empty() => LogTrust::CatchingUp,
            // Nothing went on unmarked, or this image held every mark made while it did.
            _ => LogTrust::Whole,
        };
        None
    }

    /// The record that says [`ExtentMap::must_compare_all`], built after the log failed, was written;
    /// or that failed as well, then repeat it after a delay and raise an alarm. From now on guests do
    /// not wait for the log (R-1): step the splitter.
    pub fn on_disowned(&mut self) {
        if self.is_disown_wanted() {
            self.trust = LogTrust::Disowned;
        }
    }

    /// The log was tried for long enough: guests wait for it no longer (R-1). The caller has seen to it, as far
    /// as anybody can, that no later start trusts it; step the splitter. Tells whether this changed anything.
    pub fn give_up(&mut self) -> bool {
        let is_waited_for =
            self.trust != LogTrust::Disowned && (self.persisting.is_some() || self.persist_failures > 0);
        if is_waited_for {
            self.trust = LogTrust::Disowned;
        }
        is_waited_for
    }

    /// The marks that this map started with were disowned by an earlier run. The caller makes every block
    /// dirty; the log is relied upon again once it has been written.
    pub fn on_marks_void(&mut self) {
        self.trust = LogTrust::Disowned;
        self.header_changed = true;
    }

    /// Tells whether writes wait for a record that says [`ExtentMap::must_compare_all`].
    pub fn is_disown_wanted(&self) -> bool {
        self.trust == LogTrust::Doubted && self.persist_failures > 0
    }

    /// Returns how far the log can be relied upon.
    pub fn trust(&self) -> LogTrust {
        self.trust
    }

    /// Tells whether the log may lack marks: each record written now must say that a start compares
    /// everything ([`StartMarks::CompareAll`]). Write the record again when this becomes false.
    pub fn must_compare_all(&self) -> bool {
        self.trust != LogTrust::Whole
    }

    /// Returns how often writing the log failed in a row; the caller reports it.
    pub fn persist_failures(&self) -> u32 {
        self.persist_failures
    }

    /// Returns the size that a start finds in the log, at the latest after this moment.
    pub fn logged_sectors(&self) -> Sectors {
        self.logged
    }
}
