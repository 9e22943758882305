//! What a client writes to a mounted point: in a sparse file of bounded size, until the mount ends.
//!
//! The file is a [`Disk`]: it has one holder, and a cache that a loss of power empties. A mount that ends
//! removes its file. A mount that was cut off leaves it, and the next mount of the same point goes on
//! with it: what a client was told is durable is still there.
//!
//! - OV-1 A range is in the log only after its data is durable, so the log never names foreign bytes.
//! - OV-2 A flush that returned covers every change that returned before it.
//! - OV-3 The file takes at most the given bytes of data and a bounded log; a change beyond it fails and
//!   changes nothing.
//!
//! What is *not* here: the bytes of header and log (`overlay_log`), the point below (`mount`), and when the
//! file is made and removed (the caller).

use super::overlay_log::{HEADER_SECTORS, Header, LogScan, OverlayOf, RANGES_PER_SECTOR, Unusable};
use super::ranges::Ranges;
use bytes::Bytes;
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use redoubt_ports::{Disk, IoError, IoKind};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Data a file may hold if nobody says: a day of a busy test, and room that a recovery site has.
pub const OVERLAY_BYTES_MAX_DEFAULT: u64 = 8 << 30;

/// Data is counted in blocks of what file systems allocate.
const BLOCK_SECTORS: u64 = 8;
const BLOCK_BYTES: u64 = BLOCK_SECTORS * SECTOR_BYTES;
/// Ranges that the log takes beyond one for each block: trims of small parts hold no data.
const SPARE_RANGES: u64 = 1 << 16;
/// Part of the log that is read or written at once.
const LOG_STEP_SECTORS: u64 = (1 << 20) / SECTOR_BYTES;
/// More data runs than this in one answer may have been rounded: ask for smaller parts.
const RUNS_MAX: usize = 1024;
/// A part of this size has fewer runs than that.
const RUNS_STEP_SECTORS: u64 = RUNS_MAX as u64 * BLOCK_SECTORS;

/// Why a file cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OverlayError {
    /// The file failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// It holds something else.
    #[error("it is no overlay")]
    NotAnOverlay,
    /// A newer program made it.
    #[error("it has format {0}, this program knows another")]
    Version(u32),
    /// It holds the writes to another point or volume.
    #[error("it is the overlay of another recovery point or volume")]
    Foreign,
    /// Part of it is lost.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<Unusable> for OverlayError {
    fn from(unusable: Unusable) -> OverlayError {
        match unusable {
            Unusable::NotAnOverlay => OverlayError::NotAnOverlay,
            Unusable::Version(version) => OverlayError::Version(version),
            Unusable::Damaged(what) => OverlayError::Damaged(what),
        }
    }
}

#[derive(Default)]
struct State {
    /// Sectors that are here and not in the point.
    written: Ranges,
    /// Those of them that the log does not name yet.
    pending: Ranges,
    /// Blocks that take space, and how many.
    filled: Ranges,
    filled_blocks: u64,
    /// Ranges in the log, and those that changes in flight may add.
    logged: u64,
    reserved: u64,
}

/// The end of the log.
struct LogEnd {
    full: u64,
    last: Vec<Range<u64>>,
    /// After a failed flush nobody knows what is durable.
    is_broken: bool,
}

/// An open overlay.
pub struct Overlay {
    disk: Arc<dyn Disk>,
    header: Header,
    bytes_max: u64,
    state: Mutex<State>,
    log: tokio::sync::Mutex<LogEnd>,
}

impl Overlay {
    fn header(of: OverlayOf, bytes_max: u64) -> Header {
        let ranges = bytes_max / BLOCK_BYTES + SPARE_RANGES;
        Header { of, log_sectors: ranges.div_ceil(RANGES_PER_SECTOR as u64).next_multiple_of(BLOCK_SECTORS) }
    }

    /// Returns the size of a new file; it takes space only for what is written.
    pub fn file_sectors(of: OverlayOf, bytes_max: u64) -> Sectors {
        Sectors(Overlay::header(of, bytes_max).data().end())
    }

    /// Opens a file: a new one that is all zeros (`is_new`), or one that a mount of the same point left.
    pub async fn open(
        disk: Arc<dyn Disk>,
        of: OverlayOf,
        bytes_max: u64,
        is_new: bool,
    ) -> Result<Overlay, OverlayError> {
        let size = disk.info().sectors;
        let head = disk.read(Extent::new(0, HEADER_SECTORS.min(size.0))).await?;
        let header = match Header::decode(&head)? {
            Some(header) => header,
            // Its making was interrupted before anything was written.
            None if is_new || disk.data_extents(Extent::new(0, size.0)).await?.is_empty() => {
                let header = Overlay::header(of, bytes_max);
                if header.data().end() > size.0 {
                    disk.resize(Sectors(header.data().end())).await?;
                }
                disk.write(Extent::new(0, HEADER_SECTORS), header.encode().into(), true).await?;
                disk.flush().await?;
                header
            }
            None => return Err(OverlayError::NotAnOverlay),
        };
        if header.of != of {
            return Err(OverlayError::Foreign);
        }
        let end = HEADER_SECTORS.checked_add(header.log_sectors).and_then(|at| at.checked_add(of.sectors.0));
        if end.is_none_or(|end| end > disk.info().sectors.0) {
            return Err(OverlayError::Damaged("it is shorter than its header says".to_owned()));
        }
        let log = tokio::sync::Mutex::new(LogEnd { full: 0, last: Vec::new(), is_broken: false });
        let overlay = Overlay { disk, header, bytes_max, state: Mutex::default(), log };
        overlay.recover().await?;
        Ok(overlay)
    }

    /// Reads the log, and forgets what lies behind its end: it may name what is not there.
    async fn recover(&self) -> Result<(), OverlayError> {
        let log = self.header.log();
        let mut scan = LogScan::new(self.header);
        let mut state = State::default();
        let mut at = log.lba.0;
        while at < log.end() {
            let step = Extent::new(at, (log.end() - at).min(LOG_STEP_SECTORS));
            let found = |range| {
                state.logged += 1;
                state.written.insert(range);
            };
            scan.take(&self.disk.read(step).await?, found)?;
            at = step.end();
        }
        for range in state.written.iter() {
            for run in self.data_runs(range).await? {
                state.filled.insert(run.start / BLOCK_SECTORS..run.end.div_ceil(BLOCK_SECTORS));
            }
        }
        state.filled_blocks = state.filled.iter().map(|range| range.end - range.start).sum();
        let end = log.lba.0 + scan.full + u64::from(!scan.last.is_empty());
        self.disk.write_zeroes(Extent::new(end, log.end() - end), true, false).await?;
        self.disk.flush().await?;
        *self.log.lock().await = LogEnd { full: scan.full, last: scan.last, is_broken: false };
        *self.state() = state;
        Ok(())
    }

    /// Returns the parts of a range of the volume that take space.
    async fn data_runs(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, IoError> {
        let (mut runs, mut asked) = (Vec::new(), vec![range]);
        while let Some(range) = asked.pop() {
            let found = self.disk.data_extents(self.place(&range)).await?;
            let length = range.end - range.start;
            if found.len() >= RUNS_MAX && length > RUNS_STEP_SECTORS {
                let middle = range.start + length / 2;
                asked.extend([range.start..middle, middle..range.end]);
                continue;
            }
            let data = self.header.data().lba.0;
            runs.extend(found.into_iter().map(|run| run.lba.0 - data..run.end() - data));
        }
        Ok(runs)
    }

    /// Returns the bytes of data it holds.
    pub fn held_bytes(&self) -> u64 {
        self.state().filled_blocks * BLOCK_BYTES
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where a range of the volume lies in the file.
    fn place(&self, range: &Range<u64>) -> Extent {
        Extent::new(self.header.data().lba.0 + range.start, range.end - range.start)
    }

    /// Makes room for a change, or refuses it (OV-3).
    fn reserve(&self, extent: Extent, has_data: bool) -> Result<(), IoError> {
        let full = |detail: &str| Err(IoError::new(IoKind::NoSpace, "write to the overlay", detail));
        let mut state = self.state();
        let capacity = self.header.log_sectors * RANGES_PER_SECTOR as u64;
        if state.logged + state.pending.len() as u64 + state.reserved >= capacity {
            return full("its log is full");
        }
        if has_data {
            let blocks = extent.lba.0 / BLOCK_SECTORS..extent.end().div_ceil(BLOCK_SECTORS);
            let more = blocks.end - blocks.start - state.filled.count(blocks.clone());
            if (state.filled_blocks + more) * BLOCK_BYTES > self.bytes_max {
                return full("it holds as much as it may; mount again with a larger --overlay-max");
            }
            state.filled.insert(blocks);
            state.filled_blocks += more;
        }
        state.reserved += 1;
        Ok(())
    }

    fn settle(&self, extent: Extent, result: &Result<(), IoError>, has_data: bool) {
        let mut state = self.state();
        state.reserved -= 1;
        // A failed change is not named: the sectors read as before, or, if they were here, old or new.
        if result.is_err() {
            return;
        }
        let range = extent.lba.0..extent.end();
        if !has_data {
            let blocks = range.start.div_ceil(BLOCK_SECTORS)..range.end / BLOCK_SECTORS;
            if !blocks.is_empty() {
                state.filled_blocks -= state.filled.count(blocks.clone());
                state.filled.remove(blocks);
            }
        }
        if state.written.count(range.clone()) < extent.sectors.0 {
            state.written.insert(range.clone());
            state.pending.insert(range);
        }
    }

    /// Writes sectors; `None` makes them zeros and gives their space back.
    pub(super) async fn change(&self, extent: Extent, payload: Option<Bytes>) -> Result<(), IoError> {
        let (has_data, place) = (payload.is_some(), self.place(&(extent.lba.0..extent.end())));
        self.reserve(extent, has_data)?;
        let result = match payload {
            Some(payload) => self.disk.write(place, payload, false).await,
            None => self.disk.write_zeroes(place, true, false).await,
        };
        self.settle(extent, &result, has_data);
        result
    }

    /// Returns the parts of an extent in order, and whether each is here.
    pub(super) fn parts(&self, extent: Extent) -> Vec<(Extent, bool)> {
        let state = self.state();
        let range = extent.lba.0..extent.end();
        let here = state.written.within(range.clone()).map(|part| (part, true));
        let below = state.written.missing(range.clone()).into_iter().map(|part| (part, false));
        let mut parts: Vec<_> = here.chain(below).collect();
        parts.sort_by_key(|(part, _)| part.start);
        parts.into_iter().map(|(part, here)| (Extent::new(part.start, part.end - part.start), here)).collect()
    }

    /// Reads an extent that is here as a whole.
    pub(super) async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.disk.read(self.place(&(extent.lba.0..extent.end()))).await
    }

    /// Corrects what the point says of its data.
    pub(super) fn data_extents(&self, extent: Extent, held: Vec<Extent>) -> Vec<Extent> {
        let state = self.state();
        let range = extent.lba.0..extent.end();
        let mut data = Ranges::default();
        held.into_iter().for_each(|held| data.insert(held.lba.0..held.end()));
        state.written.within(range.clone()).for_each(|part| data.remove(part));
        for part in state.written.within(range) {
            let blocks = part.start / BLOCK_SECTORS..part.end.div_ceil(BLOCK_SECTORS);
            for block in state.filled.within(blocks) {
                let sectors = block.start * BLOCK_SECTORS..block.end * BLOCK_SECTORS;
                data.insert(sectors.start.max(part.start)..sectors.end.min(part.end));
            }
        }
        data.iter().map(|part| Extent::new(part.start, part.end - part.start)).collect()
    }

    /// Makes every change that returned durable (OV-2).
    pub(super) async fn flush(&self) -> Result<(), IoError> {
        let mut log = self.log.lock().await;
        if log.is_broken {
            let detail = "an earlier flush failed; copy what you need, then mount again";
            return Err(IoError::new(IoKind::Device, "flush the overlay", detail));
        }
        let pending: Vec<Range<u64>> = {
            let mut state = self.state();
            state.logged += state.pending.len() as u64;
            std::mem::take(&mut state.pending).iter().collect()
        };
        let result = self.persist(&mut log, pending).await;
        log.is_broken = result.is_err();
        result
    }

    async fn persist(&self, log: &mut LogEnd, pending: Vec<Range<u64>>) -> Result<(), IoError> {
        // OV-1
        self.disk.flush().await?;
        if pending.is_empty() {
            return Ok(());
        }
        let ranges: Vec<Range<u64>> = log.last.iter().cloned().chain(pending).collect();
        let (first, mut bytes) = (log.full, Vec::new());
        for (at, chunk) in ranges.chunks(RANGES_PER_SECTOR).enumerate() {
            bytes.extend(self.header.log_sector(first + at as u64, first, chunk));
        }
        let mut at = self.header.log().lba.0 + first;
        for step in bytes.chunks((LOG_STEP_SECTORS * SECTOR_BYTES) as usize) {
            let extent = Extent::new(at, step.len() as u64 / SECTOR_BYTES);
            self.disk.write(extent, Bytes::copy_from_slice(step), false).await?;
            at = extent.end();
        }
        self.disk.flush().await?;
        let full = ranges.len() / RANGES_PER_SECTOR;
        log.full = first + full as u64;
        log.last = ranges[full * RANGES_PER_SECTOR..].to_vec();
        Ok(())
    }
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
