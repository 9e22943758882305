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
//!   to be read back, or finished without a later flush of the local disk.
//! - XM-3 A dirty block becomes clean only by a resync read of the whole block (R-17), never by inference.
//! - XM-4 Every dirty block lies in an extent that is marked or about to be.
//! - XM-5 A log that cannot be written delays guests once (R-1): see [`LogTrust`]. While any write
//!   may lack its mark, [`ExtentMap::must_compare_all`] holds.
//!
//! What is *not* here: bytes of the log ([`crate::extent_log`]), the resync ([`crate::resync`]).

use crate::extent_log::{self, EXTENTS_PER_PAGE, LogImage, extents_of};
use crate::ids::{VolumeId, WriteSeq};
use crate::planted::{self, Bug};
use crate::splitter::Stamp;
use crate::time::Instant;
use crate::units::{Extent, Sectors};
use crate::unvaulted::Unvaulted;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Sectors in one extent, the unit of the activity log: 1 MiB.
pub const EXTENT_SECTORS: u64 = 2048;
/// Sectors in one block, the unit of dirtiness and of comparison: 64 KiB.
pub const BLOCK_SECTORS: u64 = 128;
/// Blocks in one extent; they fit one `u16` mask.
pub const BLOCKS_PER_EXTENT: u64 = EXTENT_SECTORS / BLOCK_SECTORS;
/// An extent stays hot this long after its last write, so that a working set is marked once.
pub const COOL_AFTER: Duration = Duration::from_secs(30);
/// Marked extents looked at in one call of [`ExtentMap::cool`]; bounds its time.
pub const COOL_SCAN_MAX: usize = 4096;
/// Delays between attempts to write the log after an error; the last repeats.
pub const PERSIST_RETRY_DELAYS: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

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

/// How far the log file can be relied upon (XM-5).
///
/// ```text
/// Whole -> Doubted (a write of the log failed) -> Disowned (writes go on unmarked)
///   ^---------'----- written again ---- CatchingUp <-----'
/// ```
///
/// What remains: if neither the log nor the record can be written and the agent then dies, a later
/// start may trust an old log. Nothing local can say so on a disk that takes no writes; the caller
/// raises an alarm when it cannot persist the record.
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

/// Names the moment a flush of the local disk was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushToken(u64);

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    in_flight: u32,
    finished_tick: u64,
    last: Instant,
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
    pages_changed: BTreeSet<u64>,
    header_changed: bool,
    /// The image being written: pages, and their marks at the start of the write.
    persisting: Option<BTreeMap<u64, Vec<u64>>>,
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
            pages_changed: (0..extents.div_ceil(EXTENTS_PER_PAGE)).collect(),
            header_changed: true,
            persisting: None,
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

    /// Tells whether a write into these sectors may start (XM-1, XM-5).
    pub fn is_hot(&self, extent: Extent) -> bool {
        if self.trust == LogTrust::Disowned {
            return true;
        }
        let marks = if planted::active(Bug::SkipActivityLogSync) { &self.marked } else { &self.durable };
        extents_in(extent).all(|extent| bit(marks, extent))
    }

    /// Returns the next write of the log, if there is something to write and none is under way.
    /// Perform it, then call [`ExtentMap::on_persisted`].
    pub fn take_persist(&mut self) -> Option<Persist> {
        if self.persisting.is_some() || (self.pages_changed.is_empty() && !self.header_changed) {
            return None;
        }
        let words_per_page = (EXTENTS_PER_PAGE / 64) as usize;
        let mut writes = Vec::new();
        if std::mem::take(&mut self.header_changed) {
            writes.push((0, extent_log::encode_header(self.volume, self.sectors)));
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
        self.persisting = Some(pages);
        Some(Persist { writes })
    }

    /// The write of the log ended. `Ok`: more extents are hot, step the splitter. On an error the
    /// same marks are written again: call [`ExtentMap::take_persist`] after the returned delay. If
    /// [`ExtentMap::is_disown_wanted`], write the record and call [`ExtentMap::on_disowned`].
    pub fn on_persisted<E>(&mut self, result: Result<(), E>) -> Option<Duration> {
        let pages = self.persisting.take().expect("XM-1: a write of the log ended that was not asked for");
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

    fn extents(&self) -> u64 {
        extents_of(self.sectors)
    }

    /// A change of these sectors was started on the disk.
    pub fn on_write_started(&mut self, now: Instant, extent: Extent) {
        assert!(self.is_hot(extent), "XM-1: a write into {extent} started before it was hot");
        for extent in extents_in(extent) {
            let entry = self.uses.entry(extent).or_default();
            entry.in_flight += 1;
            entry.last = now;
            // Marked already, unless the log is disowned.
            self.mark(extent);
        }
    }

    /// A started change ended; `stamp` is its place, [`Stamp::Nothing`] if the disk failed it (the
    /// splitter then keeps the sectors in its list of recaptures, see [`ExtentMap::cool`]).
    pub fn on_write_finished(&mut self, now: Instant, extent: Extent, stamp: Stamp) {
        self.finish_ticks += 1;
        for extent in extents_in(extent) {
            let entry = self.uses.get_mut(&extent).expect("XM-2: a write ended that was never started");
            assert!(entry.in_flight > 0, "XM-2: a write ended that was never started");
            entry.in_flight -= 1;
            entry.finished_tick = self.finish_ticks;
            entry.last = now;
        }
        self.place(extent, stamp);
    }

    /// A failed write was read back and has its place.
    pub fn on_recaptured(&mut self, now: Instant, extent: Extent, stamp: Stamp) {
        self.touch(now, extent);
        self.place(extent, stamp);
    }

    fn place(&mut self, extent: Extent, stamp: Stamp) {
        match stamp {
            Stamp::Ordered(range) => self.unvaulted.insert(blocks_in(extent), range.last),
            Stamp::Bitmap => self.dirty_sectors(extent),
            Stamp::Nothing => {}
        }
    }

    /// Local content was relied upon: it must be flushed before the extent cools (XM-2).
    fn touch(&mut self, now: Instant, extent: Extent) {
        self.finish_ticks += 1;
        for extent in extents_in(extent) {
            let entry = self.uses.entry(extent).or_default();
            entry.finished_tick = self.finish_ticks;
            entry.last = now;
        }
    }

    /// Everything up to `seq` is durable in the vault.
    pub fn on_vaulted(&mut self, seq: WriteSeq) {
        self.unvaulted.forget_through(seq);
    }

    /// A flush of the local disk is about to be issued; give the token back when it succeeded.
    pub fn flush_issued(&self) -> FlushToken {
        FlushToken(self.finish_ticks)
    }

    /// The flush succeeded: it covers what had finished when it was issued.
    pub fn on_flushed(&mut self, token: FlushToken) {
        self.flushed_tick = self.flushed_tick.max(token.0);
    }

    /// Tells whether a flush of the local disk would let more extents cool.
    pub fn wants_flush(&self) -> bool {
        self.flushed_tick < self.finish_ticks
    }

    /// The session with the process server is back. Returns the dirty blocks that still need a
    /// resync; a connection proves nothing about them (XM-3).
    pub fn on_reconnect(&mut self) -> u64 {
        if planted::active(Bug::ClearBitmapOnReconnect) {
            self.dirty.fill(0);
            self.dirty_blocks = 0;
        }
        self.dirty_blocks
    }

    /// Order of these sectors is lost: their blocks become dirty and their extents marked. The mark
    /// is durable already if a write caused it; otherwise ask [`ExtentMap::take_persist`].
    pub fn dirty_sectors(&mut self, extent: Extent) {
        for block in blocks_in(extent) {
            let index = block / BLOCKS_PER_EXTENT;
            let mask = 1 << (block % BLOCKS_PER_EXTENT);
            let slot = &mut self.dirty[index as usize];
            self.dirty_blocks += u64::from(*slot & mask == 0);
            *slot |= mask;
            self.mark(index);
        }
    }

    /// The process server lost what it had staged after `seq`: every block written later becomes
    /// dirty. Returns the runs of sectors, for the resync planner's `Dirtied`.
    pub fn mark_dirty_after(&mut self, seq: WriteSeq) -> Vec<Extent> {
        let lost: Vec<Extent> =
            self.unvaulted.take_after(seq).into_iter().filter_map(|blocks| self.clip(blocks)).collect();
        lost.iter().for_each(|extent| self.dirty_sectors(*extent));
        lost
    }

    fn clip(&self, blocks: std::ops::Range<u64>) -> Option<Extent> {
        let first = blocks.start * BLOCK_SECTORS;
        let end = (blocks.end * BLOCK_SECTORS).min(self.sectors.0);
        (first < end).then(|| Extent::new(first, end - first))
    }

    /// A resync read of whole blocks has its place: [`Stamp::Ordered`] if it was sent,
    /// [`Stamp::Nothing`] if it equals the vault. With [`Stamp::Bitmap`] the blocks stay dirty.
    pub fn on_resynced(&mut self, now: Instant, extent: Extent, stamp: Stamp) {
        assert!(
            extent.lba.0.is_multiple_of(BLOCK_SECTORS)
                && (extent.end().is_multiple_of(BLOCK_SECTORS) || extent.end() == self.sectors.0),
            "XM-3: {extent} is no whole number of blocks"
        );
        self.place(extent, stamp);
        if stamp == Stamp::Bitmap {
            return;
        }
        self.touch(now, extent);
        for block in blocks_in(extent) {
            let slot = &mut self.dirty[(block / BLOCKS_PER_EXTENT) as usize];
            let mask = 1 << (block % BLOCKS_PER_EXTENT);
            self.dirty_blocks -= u64::from(*slot & mask != 0);
            *slot &= !mask;
        }
    }

    /// Returns the first dirty block not before `from`.
    pub fn next_dirty(&self, from: u64) -> Option<u64> {
        let first = (from / BLOCKS_PER_EXTENT) as usize;
        let mask = u16::MAX << (from % BLOCKS_PER_EXTENT);
        let mut tail = self.dirty.iter().enumerate().skip(first);
        let (index, head) = tail.next()?;
        let (index, bits) = if head & mask != 0 {
            (index, head & mask)
        } else {
            tail.find(|(_, bits)| **bits != 0).map(|(index, bits)| (index, *bits))?
        };
        Some(index as u64 * BLOCKS_PER_EXTENT + u64::from(bits.trailing_zeros()))
    }

    /// Returns the sectors of a block, or `None` if it lies beyond the end.
    pub fn block_extent(&self, block: u64) -> Option<Extent> {
        self.clip(block..block + 1)
    }

    /// Returns how many blocks are dirty.
    pub fn dirty_blocks(&self) -> u64 {
        self.dirty_blocks
    }

    /// Returns how many extents are marked.
    pub fn marked_extents(&self) -> u64 {
        self.marked.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Unmarks a batch of extents that need no mark (XM-2). `recaptures` are the sectors that the
    /// splitter still has to read back; `idle_for` is usually [`COOL_AFTER`], zero at a clean stop.
    /// Lazy: ask [`ExtentMap::take_persist`] when convenient. Returns how many were unmarked.
    pub fn cool(
        &mut self,
        now: Instant,
        idle_for: Duration,
        recaptures: impl Iterator<Item = Extent>,
    ) -> usize {
        let pinned: BTreeSet<u64> = recaptures.flat_map(extents_in).collect();
        let extents = self.extents();
        let (mut scanned, mut cooled) = (0, 0);
        let mut at = if self.cool_cursor >= extents { 0 } else { self.cool_cursor };
        while at < extents && scanned < COOL_SCAN_MAX {
            if self.marked[(at / 64) as usize] >> (at % 64) == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            if bit(&self.marked, at) {
                scanned += 1;
                if !pinned.contains(&at) && self.may_cool(now, idle_for, at) {
                    self.unmark(at);
                    cooled += 1;
                }
            }
            at += 1;
        }
        self.cool_cursor = at;
        cooled
    }

    fn may_cool(&self, now: Instant, idle_for: Duration, extent: u64) -> bool {
        // A mark that is not durable yet is wanted by a write that is about to start.
        let is_unused = self.uses.get(&extent).is_none_or(|entry| {
            entry.in_flight == 0
                && entry.finished_tick <= self.flushed_tick
                && now.since(entry.last) >= idle_for
        });
        let blocks = extent * BLOCKS_PER_EXTENT..(extent + 1) * BLOCKS_PER_EXTENT;
        bit(&self.durable, extent)
            && self.resized_tick <= self.flushed_tick
            && is_unused
            && self.dirty[extent as usize] == 0
            && !self.unvaulted.contains_any(blocks)
    }

    fn unmark(&mut self, extent: u64) {
        self.uses.remove(&extent);
        self.marked[(extent / 64) as usize] &= !(1 << (extent % 64));
        self.durable[(extent / 64) as usize] &= !(1 << (extent % 64));
        self.pages_changed.insert(extent / EXTENTS_PER_PAGE);
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
        self.marked.resize(words(extents), 0);
        self.durable.resize(words(extents), 0);
        if let (Some(word), Some(durable), used @ 1..) =
            (self.marked.last_mut(), self.durable.last_mut(), extents % 64)
        {
            *word &= (1 << used) - 1;
            *durable &= (1 << used) - 1;
        }
        self.dirty.resize(extents as usize, 0);
        let blocks = sectors.0.div_ceil(BLOCK_SECTORS);
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
