//! The model of the extent map: a disk with a cache, a vault, and every file that may be found.
//!
//! What is *not* here: what must hold ([`super::checks`]).

use crate::extent_log::EXTENTS_PER_PAGE;
use crate::extent_map::*;
use crate::ids::{VolumeId, WriteSeq};
use crate::sequencer::SeqRange;
use crate::splitter::Stamp;
use crate::time::Instant;
use crate::units::{Extent, Sectors};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) const VOLUME: VolumeId = VolumeId(3);
pub(super) const CELL: u64 = BLOCK_SECTORS / 2;
/// Sizes in sectors: a few extents, odd ends, and both sides of the first page of the log.
pub(super) const SIZES: [u64; 6] = [
    3 * EXTENT_SECTORS,
    2 * EXTENT_SECTORS + 3 * CELL,
    EXTENT_SECTORS + CELL,
    EXTENTS_PER_PAGE * EXTENT_SECTORS,
    EXTENTS_PER_PAGE * EXTENT_SECTORS + CELL,
    (EXTENTS_PER_PAGE + 2) * EXTENT_SECTORS,
];

#[derive(Clone, Debug)]
pub(super) enum Sent {
    Cells(Vec<(u64, u64)>),
    Size(u64),
}

/// The end of a write that no flush covers any more: one that should have covered it failed.
pub(super) const FORSAKEN: u64 = u64::MAX;

/// A value on the disk, and when the operation that put it there ended.
pub(super) type Written = (Option<u64>, u64);

pub(super) struct Model {
    pub(super) map: ExtentMap,
    pub(super) size: u64,
    pub(super) record_size: u64,
    pub(super) now: Instant,
    pub(super) clock: u64,
    /// Values as read, as durable, and those written since.
    pub(super) disk: BTreeMap<u64, u64>,
    pub(super) settled: BTreeMap<u64, u64>,
    pub(super) unflushed: BTreeMap<u64, Vec<Written>>,
    pub(super) flushes: Vec<(FlushToken, u64)>,
    pub(super) vault: BTreeMap<u64, u64>,
    pub(super) sent: Vec<(u64, Sent)>,
    pub(super) seq: u64,
    pub(super) vaulted: u64,
    pub(super) attach_due: bool,
    pub(super) waiting: Vec<(Extent, u64)>,
    pub(super) started: Vec<(Extent, u64)>,
    pub(super) recaptures: Vec<Extent>,
    pub(super) headers: Vec<Bytes>,
    pub(super) pages: BTreeMap<u64, Vec<Bytes>>,
    pub(super) persist: Option<Persist>,
}

pub(super) fn cells(extent: Extent) -> std::ops::Range<u64> {
    extent.lba.0 / CELL..extent.end().div_ceil(CELL)
}

pub(super) fn apply(vault: &mut BTreeMap<u64, u64>, sent: &Sent) {
    match sent {
        Sent::Cells(cells) => vault.extend(cells.iter().copied()),
        Sent::Size(size) => vault.retain(|cell, _| *cell < size.div_ceil(CELL)),
    }
}

pub(super) fn value(image: &BTreeMap<u64, u64>, cell: u64) -> u64 {
    image.get(&cell).copied().unwrap_or(0)
}

impl Model {
    pub(super) fn new(size: u64) -> Model {
        let map = ExtentMap::new(VOLUME, Sectors(size), StartMarks::CompareAll);
        let mut model = Model {
            map,
            size,
            record_size: size,
            now: Instant(0),
            clock: 0,
            disk: BTreeMap::new(),
            settled: BTreeMap::new(),
            unflushed: BTreeMap::new(),
            flushes: vec![],
            vault: BTreeMap::new(),
            sent: vec![],
            seq: 0,
            vaulted: 0,
            attach_due: true,
            waiting: vec![],
            started: vec![],
            recaptures: vec![],
            headers: vec![Bytes::new()],
            pages: BTreeMap::new(),
            persist: None,
        };
        // The first copy of an empty disk: everything is found equal.
        model.map.on_resynced(model.now, Extent::new(0, size), Stamp::Nothing);
        model.start_persist();
        model.end_persist(true);
        model
    }

    pub(super) fn start_persist(&mut self) {
        let Some(persist) = self.map.take_persist() else { return };
        for (offset, bytes) in &persist.writes {
            match offset {
                0 => self.headers.push(bytes.clone()),
                _ => self.pages.entry(*offset).or_insert_with(|| vec![Bytes::new()]).push(bytes.clone()),
            }
        }
        self.persist = Some(persist);
    }

    pub(super) fn end_persist(&mut self, is_ok: bool) {
        let Some(persist) = self.persist.take() else { return };
        let retry = self.map.on_persisted(if is_ok { Ok(()) } else { Err(()) });
        assert_eq!(retry.is_some(), !is_ok);
        if is_ok {
            for (offset, bytes) in persist.writes {
                match offset {
                    0 => self.headers = vec![bytes],
                    _ => drop(self.pages.insert(offset, vec![bytes])),
                }
            }
            if !self.map.header_changed && self.map.trust() == LogTrust::Whole {
                self.record_size = self.size;
            }
        }
        self.start_writes();
    }

    pub(super) fn start_writes(&mut self) {
        for (extent, new) in std::mem::take(&mut self.waiting) {
            let is_busy = self.started.iter().any(|(other, _)| other.overlaps(extent));
            if is_busy || !self.map.is_hot(extent) {
                self.map.want_hot(extent);
                self.waiting.push((extent, new));
                continue;
            }
            self.map.on_write_started(self.now, extent);
            for cell in cells(extent) {
                self.unflushed.entry(cell).or_default().push((None, new));
            }
            self.started.push((extent, new));
        }
    }

    pub(super) fn stamp(&mut self, extent: Extent, is_ordered: bool) -> Stamp {
        if !is_ordered {
            return Stamp::Bitmap;
        }
        let read = cells(extent).map(|cell| (cell, value(&self.disk, cell))).collect();
        self.push(Sent::Cells(read))
    }

    /// Order begins with the size.
    pub(super) fn attach(&mut self) {
        if std::mem::take(&mut self.attach_due) {
            self.seq += 1;
            self.sent.push((self.seq, Sent::Size(self.size)));
        }
    }

    pub(super) fn push(&mut self, sent: Sent) -> Stamp {
        self.attach();
        self.seq += 1;
        self.sent.push((self.seq, sent));
        Stamp::Ordered(SeqRange { first: WriteSeq(self.seq), last: WriteSeq(self.seq) })
    }

    /// Ends a write; a failed one left the new content in some cells only.
    pub(super) fn end_write(&mut self, index: usize, failed: Option<u64>, is_ordered: bool) {
        let (extent, new) = self.started.swap_remove(index);
        self.clock += 1;
        for cell in cells(extent) {
            let written = self.unflushed.get_mut(&cell).unwrap();
            let at = written.iter().position(|(end, _)| end.is_none()).unwrap();
            if failed.is_some_and(|seed| (seed + cell).is_multiple_of(2)) {
                written.remove(at);
            } else {
                written[at].0 = Some(self.clock);
                self.disk.insert(cell, new);
            }
        }
        let stamp = if failed.is_some() {
            self.recaptures.push(extent);
            Stamp::Nothing
        } else {
            self.stamp(extent, is_ordered)
        };
        self.map.on_write_finished(self.now, extent, stamp);
        self.start_writes();
    }

    pub(super) fn recapture(&mut self, index: usize, is_ordered: bool) {
        let extent = self.recaptures[index];
        if self.started.iter().any(|(other, _)| other.overlaps(extent)) {
            return;
        }
        self.recaptures.swap_remove(index);
        let stamp = self.stamp(extent, is_ordered);
        self.map.on_recaptured(self.now, extent, stamp);
    }

    pub(super) fn resync(&mut self, block: u64, pick: u16) {
        let block = self.map.next_dirty(block).or_else(|| self.map.next_dirty(0));
        let Some(extent) = block.and_then(|block| self.map.block_extent(block)) else { return };
        if self.started.iter().any(|(other, _)| other.overlaps(extent)) {
            return;
        }
        // The vault's content of a block is known only if nothing of it is on the way.
        let on_the_way = |sent: &Sent| match sent {
            Sent::Cells(list) => list.iter().any(|(cell, _)| cells(extent).contains(cell)),
            Sent::Size(_) => true,
        };
        let is_known = !self.attach_due && !self.sent.iter().any(|(_, sent)| on_the_way(sent));
        let is_equal = cells(extent).all(|cell| value(&self.disk, cell) == value(&self.vault, cell));
        let stamp =
            if is_known && is_equal { Stamp::Nothing } else { self.stamp(extent, !pick.is_multiple_of(8)) };
        self.map.on_resynced(self.now, extent, stamp);
    }

    pub(super) fn resize(&mut self, to: u64, is_ordered: bool) {
        if !self.started.is_empty() || self.record_size != self.size {
            return;
        }
        self.clock += 1;
        if is_ordered {
            self.attach();
        }
        self.size = to;
        let end = to.div_ceil(CELL);
        let gone: Vec<u64> = self.disk.range(end..).map(|(cell, _)| *cell).collect();
        for cell in gone {
            self.disk.remove(&cell);
            self.unflushed.entry(cell).or_default().push((Some(self.clock), 0));
        }
        self.waiting.retain(|(extent, _)| extent.end() <= to);
        self.recaptures.retain(|extent| extent.lba.0 < to);
        for extent in &mut self.recaptures {
            *extent = Extent::new(extent.lba.0, extent.end().min(to) - extent.lba.0);
        }
        let stamp = if is_ordered {
            self.push(Sent::Size(to))
        } else {
            self.attach_due = true;
            Stamp::Bitmap
        };
        self.map.on_resized(Sectors(to), stamp);
    }

    pub(super) fn flushed(&mut self, index: usize) {
        let (token, at) = self.flushes.swap_remove(index);
        self.map.on_flushed(token);
        for (cell, written) in &mut self.unflushed {
            let covered = written.iter().rposition(|(end, _)| end.is_some_and(|end| end <= at));
            if let Some(last) = covered {
                self.settled.insert(*cell, written[last].1);
                written.drain(..=last);
            }
        }
    }

    /// What it should have covered is on the disk or not, and no later flush changes that.
    pub(super) fn flush_failed(&mut self, index: usize) {
        let (_, at) = self.flushes.swap_remove(index);
        self.map.on_flush_failed();
        for (end, _) in self.unflushed.values_mut().flatten() {
            if end.is_some_and(|end| end <= at) {
                *end = Some(FORSAKEN);
            }
        }
    }

    pub(super) fn vault_through(&mut self, seq: u64) {
        self.vaulted = self.vaulted.max(seq);
        let (done, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(at, _)| *at <= seq);
        self.sent = rest;
        let done: Vec<(u64, Sent)> = done;
        done.iter().for_each(|(_, sent)| apply(&mut self.vault, sent));
        self.map.on_vaulted(WriteSeq(seq));
    }
}
