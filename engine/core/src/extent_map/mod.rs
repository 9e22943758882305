//! Decides which parts of a volume may differ from the vault, and keeps that durable without a
//! synchronous write per guest write. One map per volume; the activity log of field lesson 5.
//!
//! ```text
//! clean -> wanted -> hot (durably marked; in sync as long as the stream flows) -> cool -> clean
//!                     | order lost: blocks become dirty, until the resync sent or compared them
//! ```
//!
//! Invariants
//! - XM-1 An extent counts as hot only if its mark is in every image the log file can hold, in
//!   particular while a write of the log is under way.
//! - XM-2 An extent is cooled only if nothing in it is in flight, dirty, stamped but not vaulted,
//!   to be read back, or finished without a later flush of the local disk. After a flush that failed a
//!   later one proves nothing: see [`ExtentMap::on_flush_failed`].
//! - XM-3 A dirty block becomes clean only by a resync read of the whole block (R-17), never by inference.
//! - XM-4 Every dirty block lies in an extent that is marked or about to be.
//! - XM-5 A log that cannot be written delays guests once (R-1): see [`LogTrust`]. While any write
//!   may lack its mark, [`ExtentMap::must_compare_all`] holds.
//!
//! What is *not* here: bytes of the log ([`crate::extent_log`]), the resync ([`crate::resync`]).

mod cooling;
mod dirty;
mod trust;
mod writes;

pub use cooling::{COOL_AFTER, COOL_AFTER_CROWDED, COOL_SCAN_MAX, HOT_EXTENTS_GOAL};
pub use trust::{LogTrust, PERSIST_RETRY_DELAYS, Persist};
pub use writes::FlushToken;

use crate::extent_log::{EXTENTS_PER_PAGE, LogImage, extents_of};
use crate::ids::{VolumeId, WriteSeq};
use crate::splitter::Stamp;
use crate::units::{Extent, Sectors};
use crate::unvaulted::Unvaulted;
use std::collections::{BTreeMap, BTreeSet};
use trust::Image;
use writes::Use;

/// Sectors in one extent, the unit of the activity log: 1 MiB.
pub const EXTENT_SECTORS: u64 = 2048;
/// Sectors in one block, the unit of dirtiness and of comparison: 64 KiB.
pub const BLOCK_SECTORS: u64 = 128;
/// Blocks in one extent; they fit one `u16` mask.
pub const BLOCKS_PER_EXTENT: u64 = EXTENT_SECTORS / BLOCK_SECTORS;

/// How a map starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartMarks {
    /// After a clean stop: what is not marked equals the vault; what is marked counts as written at
    /// `issued`, the last sequence of the record, and cools once that is vaulted.
    Clean {
        /// What the log says.
        image: LogImage,
        /// Last sequence issued before the stop.
        issued: WriteSeq,
    },
    /// Unclean stop: all blocks of all marked extents may differ.
    CompareMarked(LogImage),
    /// First copy, tracking was off, or the log cannot be trusted: everything may differ.
    CompareAll,
}

/// The extent map of one volume.
#[derive(Debug)]
pub struct ExtentMap {
    volume: VolumeId,
    sectors: Sectors,
    /// Marks as they should be in the log.
    marked: Vec<u64>,
    /// Marks certain to be in the log, whatever happens (XM-1).
    durable: Vec<u64>,
    /// Dirty blocks of each extent.
    dirty: Vec<u16>,
    dirty_blocks: u64,
    /// Extents used since they became hot.
    uses: BTreeMap<u64, Use>,
    unvaulted: Unvaulted,
    finish_ticks: u64,
    flushed_tick: u64,
    /// Extents that a failed flush may have lost something of.
    unflushable: Vec<u64>,
    has_lost_flush: bool,
    pages_changed: BTreeSet<u64>,
    header_changed: bool,
    /// The image being written.
    persisting: Option<Image>,
    /// The size in the log file.
    logged: Sectors,
    persist_failures: u32,
    trust: LogTrust,
    /// Tick of the last resize: nothing cools before a flush covers it (XM-2).
    resized_tick: u64,
    cool_cursor: u64,
}

fn words(extents: u64) -> usize {
    extents.div_ceil(64) as usize
}

fn bit(marks: &[u64], extent: u64) -> bool {
    marks[(extent / 64) as usize] >> (extent % 64) & 1 == 1
}

/// Returns the extents that the sectors touch.
fn extents_in(extent: Extent) -> std::ops::Range<u64> {
    extent.lba.0 / EXTENT_SECTORS..extent.end().div_ceil(EXTENT_SECTORS)
}

/// Returns the blocks that the sectors touch.
pub fn blocks_in(extent: Extent) -> std::ops::Range<u64> {
    extent.lba.0 / BLOCK_SECTORS..extent.end().div_ceil(BLOCK_SECTORS)
}

/// Returns how many blocks a volume has.
pub fn blocks_of(sectors: Sectors) -> u64 {
    sectors.0.div_ceil(BLOCK_SECTORS)
}

impl ExtentMap {
    /// Starts a map. The first [`ExtentMap::take_persist`] writes the whole file, and must be
    /// acknowledged, or the log disowned, before the guest is served.
    pub fn new(volume: VolumeId, sectors: Sectors, start: StartMarks) -> ExtentMap {
        let extents = extents_of(sectors);
        let (image, clean_at) = match start {
            StartMarks::Clean { image, issued } => (Some(image), Some(issued)),
            StartMarks::CompareMarked(image) => (Some(image), None),
            StartMarks::CompareAll => (None, None),
        };
        let has_log = image.is_some();
        let mut map = ExtentMap {
            volume,
            sectors,
            marked: vec![0; words(extents)],
            durable: vec![0; words(extents)],
            dirty: vec![0; extents as usize],
            dirty_blocks: 0,
            uses: BTreeMap::new(),
            unvaulted: Unvaulted::new(),
            finish_ticks: 0,
            flushed_tick: 0,
            unflushable: vec![0; words(extents)],
            has_lost_flush: false,
            pages_changed: (0..extents.div_ceil(EXTENTS_PER_PAGE)).collect(),
            header_changed: true,
            persisting: None,
            logged: sectors,
            persist_failures: 0,
            trust: if has_log { LogTrust::Whole } else { LogTrust::Doubted },
            resized_tick: 0,
            cool_cursor: 0,
        };
        for extent in 0..extents {
            let known = image.as_ref().filter(|image| extent < extents_of(image.sectors));
            if known.is_none_or(|image| bit(&image.marks, extent)) {
                map.mark(extent);
                match clean_at.filter(|_| known.is_some()) {
                    Some(issued) => map.unvaulted.insert(blocks_in(map.extent_sectors(extent)), issued),
                    None => map.dirty_sectors(map.extent_sectors(extent)),
                }
            }
        }
        map
    }

    /// Returns the volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Returns the size.
    pub fn sectors(&self) -> Sectors {
        self.sectors
    }

    fn extent_sectors(&self, extent: u64) -> Extent {
        let first = extent * EXTENT_SECTORS;
        Extent::new(first, (first + EXTENT_SECTORS).min(self.sectors.0) - first)
    }

    fn mark(&mut self, extent: u64) {
        let word = &mut self.marked[(extent / 64) as usize];
        if *word >> (extent % 64) & 1 == 0 {
            *word |= 1 << (extent % 64);
            self.pages_changed.insert(extent / EXTENTS_PER_PAGE);
        }
    }

    /// Wants the extents of these sectors hot. Ask [`ExtentMap::take_persist`] afterwards; several
    /// wants share one write of the log.
    pub fn want_hot(&mut self, extent: Extent) {
        debug_assert!(extent.end() <= self.sectors.0, "{extent} of {} sectors", self.sectors.0);
        for extent in extents_in(extent) {
            self.mark(extent);
        }
    }

    fn extents(&self) -> u64 {
        extents_of(self.sectors)
    }

    /// The volume has a new size; the splitter guarantees that nothing is in flight. Marks, dirty
    /// blocks and ranges beyond a smaller size are gone. New sectors are zero here, but the vault may
    /// hold older content of them until it has the record of the resize: they are marked until then,
    /// and dirty if the record has no place in the order. Persist the log, then the record with the
    /// new size, and only then complete the resize: a start finds any other end of it by the size.
    pub fn on_resized(&mut self, sectors: Sectors, stamp: Stamp) {
        assert!(self.uses.values().all(|entry| entry.in_flight == 0), "XM-2: a resize with writes in flight");
        let (old, extents) = (self.extents(), extents_of(sectors));
        let old_sectors = std::mem::replace(&mut self.sectors, sectors).0;
        for marks in [&mut self.marked, &mut self.durable, &mut self.unflushable] {
            marks.resize(words(extents), 0);
            if let (Some(word), used @ 1..) = (marks.last_mut(), extents % 64) {
                *word &= (1 << used) - 1;
            }
        }
        self.dirty.resize(extents as usize, 0);
        let blocks = blocks_of(sectors);
        if let (Some(last), used @ 1..) = (self.dirty.last_mut(), blocks % BLOCKS_PER_EXTENT) {
            *last &= (1 << used) - 1;
        }
        self.dirty_blocks = self.dirty.iter().map(|mask| u64::from(mask.count_ones())).sum();
        self.uses.retain(|extent, _| *extent < extents);
        self.unvaulted.truncate(blocks);
        self.header_changed = true;
        let pages = old.min(extents) / EXTENTS_PER_PAGE..extents.div_ceil(EXTENTS_PER_PAGE);
        self.pages_changed.retain(|page| *page * EXTENTS_PER_PAGE < extents);
        self.pages_changed.extend(pages);
        self.finish_ticks += 1;
        self.resized_tick = self.finish_ticks;
        if sectors.0 > old_sectors {
            let grown = Extent::new(old_sectors, sectors.0 - old_sectors);
            extents_in(grown).for_each(|extent| self.mark(extent));
            self.place(grown, stamp);
        }
    }
}

#[cfg(test)]
mod tests;
