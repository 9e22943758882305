//! The extent map against a slow model of a disk with a cache, a vault, and every file that may be
//! found after a crash.
//!
//! The model keeps, per half block, all values the disk may hold after power loss and all values the
//! vault may hold. An extent in which the two may differ must be marked in every possible file, or
//! the log must be disowned; after each crash a new map is made from one possible file, and each
//! block that differs must be dirty.

use super::*;
use crate::extent_log::{LOG_PAGE_BYTES, decode_file, encode_header};
use crate::sequencer::SeqRange;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

const VOLUME: VolumeId = VolumeId(3);
const CELL: u64 = BLOCK_SECTORS / 2;
/// Sizes in sectors: a few extents, odd ends, and both sides of the first page of the log.
const SIZES: [u64; 6] = [
    3 * EXTENT_SECTORS,
    2 * EXTENT_SECTORS + 3 * CELL,
    EXTENT_SECTORS + CELL,
    EXTENTS_PER_PAGE * EXTENT_SECTORS,
    EXTENTS_PER_PAGE * EXTENT_SECTORS + CELL,
    (EXTENTS_PER_PAGE + 2) * EXTENT_SECTORS,
];

#[derive(Clone, Debug)]
enum Sent {
    Cells(Vec<(u64, u64)>),
    Size(u64),
}

/// A value on the disk, and when the operation that put it there ended.
type Written = (Option<u64>, u64);

struct Model {
    map: ExtentMap,
    size: u64,
    record_size: u64,
    now: Instant,
    clock: u64,
    /// Values as read, as durable, and those written since.
    disk: BTreeMap<u64, u64>,
    settled: BTreeMap<u64, u64>,
    unflushed: BTreeMap<u64, Vec<Written>>,
    flushes: Vec<(FlushToken, u64)>,
    vault: BTreeMap<u64, u64>,
    sent: Vec<(u64, Sent)>,
    seq: u64,
    vaulted: u64,
    attach_due: bool,
    waiting: Vec<(Extent, u64)>,
    started: Vec<(Extent, u64)>,
    recaptures: Vec<Extent>,
    headers: Vec<Bytes>,
    pages: BTreeMap<u64, Vec<Bytes>>,
    persist: Option<Persist>,
}

fn cells(extent: Extent) -> std::ops::Range<u64> {
    extent.lba.0 / CELL..extent.end().div_ceil(CELL)
}

fn apply(vault: &mut BTreeMap<u64, u64>, sent: &Sent) {
    match sent {
        Sent::Cells(cells) => vault.extend(cells.iter().copied()),
        Sent::Size(size) => vault.retain(|cell, _| *cell < size.div_ceil(CELL)),
    }
}

fn value(image: &BTreeMap<u64, u64>, cell: u64) -> u64 {
    image.get(&cell).copied().unwrap_or(0)
}

impl Model {
    fn new(size: u64) -> Model {
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

    fn start_persist(&mut self) {
        let Some(persist) = self.map.take_persist() else { return };
        for (offset, bytes) in &persist.writes {
            match offset {
                0 => self.headers.push(bytes.clone()),
                _ => self.pages.entry(*offset).or_insert_with(|| vec![Bytes::new()]).push(bytes.clone()),
            }
        }
        self.persist = Some(persist);
    }

    fn end_persist(&mut self, is_ok: bool) {
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

    fn start_writes(&mut self) {
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

    fn stamp(&mut self, extent: Extent, is_ordered: bool) -> Stamp {
        if !is_ordered {
            return Stamp::Bitmap;
        }
        let read = cells(extent).map(|cell| (cell, value(&self.disk, cell))).collect();
        self.push(Sent::Cells(read))
    }

    /// Order begins with the size.
    fn attach(&mut self) {
        if std::mem::take(&mut self.attach_due) {
            self.seq += 1;
            self.sent.push((self.seq, Sent::Size(self.size)));
        }
    }

    fn push(&mut self, sent: Sent) -> Stamp {
        self.attach();
        self.seq += 1;
        self.sent.push((self.seq, sent));
        Stamp::Ordered(SeqRange { first: WriteSeq(self.seq), last: WriteSeq(self.seq) })
    }

    /// Ends a write; a failed one left the new content in some cells only.
    fn end_write(&mut self, index: usize, failed: Option<u64>, is_ordered: bool) {
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

    fn recapture(&mut self, index: usize, is_ordered: bool) {
        let extent = self.recaptures[index];
        if self.started.iter().any(|(other, _)| other.overlaps(extent)) {
            return;
        }
        self.recaptures.swap_remove(index);
        let stamp = self.stamp(extent, is_ordered);
        self.map.on_recaptured(self.now, extent, stamp);
    }

    fn resync(&mut self, block: u64, pick: u16) {
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

    fn resize(&mut self, to: u64, is_ordered: bool) {
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

    fn flushed(&mut self, index: usize) {
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

    fn vault_through(&mut self, seq: u64) {
        self.vaulted = self.vaulted.max(seq);
        let (done, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(at, _)| *at <= seq);
        self.sent = rest;
        let done: Vec<(u64, Sent)> = done;
        done.iter().for_each(|(_, sent)| apply(&mut self.vault, sent));
        self.map.on_vaulted(WriteSeq(seq));
    }

    /// All cells that ever held something.
    fn known_cells(&self) -> BTreeSet<u64> {
        let sent = self.sent.iter().flat_map(|(_, sent)| match sent {
            Sent::Cells(list) => list.iter().map(|(cell, _)| *cell).collect(),
            Sent::Size(_) => vec![],
        });
        let images = [&self.disk, &self.settled, &self.vault];
        let all = images.into_iter().flat_map(|image| image.keys().copied());
        let all: BTreeSet<u64> = all.chain(self.unflushed.keys().copied()).chain(sent).collect();
        all.into_iter().filter(|cell| *cell < self.size.div_ceil(CELL)).collect()
    }

    fn may_differ(&self) -> BTreeSet<u64> {
        let mut vaults = vec![self.vault.clone()];
        for (_, sent) in &self.sent {
            let mut next = vaults.last().unwrap().clone();
            apply(&mut next, sent);
            vaults.push(next);
        }
        let differs = |cell: &u64| {
            let first = value(&self.settled, *cell);
            let is_steady = self.unflushed.get(cell).is_none_or(|list| list.iter().all(|(_, v)| *v == first));
            !is_steady || vaults.iter().any(|vault| value(vault, *cell) != first)
        };
        let cells = self.known_cells().into_iter().filter(differs);
        cells.map(|cell| cell * CELL / EXTENT_SECTORS).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let is_excused = self.record_size != self.size
            || matches!(self.map.trust(), LogTrust::Disowned | LogTrust::CatchingUp);
        prop_assert_eq!(self.map.must_compare_all(), self.map.trust() != LogTrust::Whole);
        for extent in self.may_differ() {
            prop_assert!(bit(&self.map.marked, extent) || !self.started.is_empty(), "XM-4 extent {}", extent);
            if is_excused {
                continue;
            }
            let page = extent_log::page_offset(extent / EXTENTS_PER_PAGE);
            for (header, page) in self
                .headers
                .iter()
                .flat_map(|h| self.pages.get(&page).into_iter().flatten().map(move |p| (h, p)))
            {
                let file = [header.clone(), page.clone()];
                prop_assert!(reads_as_marked(&file, extent), "XM-1, XM-2: extent {} is not marked", extent);
            }
        }
        self.check_blocks()
    }

    /// A block that is neither dirty nor being changed is equal in the vault at the end of the stream.
    fn check_blocks(&self) -> Result<(), TestCaseError> {
        let mut end = self.vault.clone();
        self.sent.iter().for_each(|(_, sent)| apply(&mut end, sent));
        let mut count = 0;
        for (extent, mask) in self.map.dirty.iter().enumerate().filter(|(_, mask)| **mask != 0) {
            count += u64::from(mask.count_ones());
            prop_assert!(bit(&self.map.marked, extent as u64), "XM-4");
        }
        prop_assert_eq!(count, self.map.dirty_blocks());
        let changing = |cell| self.started.iter().any(|(extent, _)| cells(*extent).contains(&cell));
        let recaptured = |cell| self.recaptures.iter().any(|extent| cells(*extent).contains(&cell));
        for cell in self.known_cells() {
            let block = cell * CELL / BLOCK_SECTORS;
            let is_dirty = self.map.next_dirty(block) == Some(block);
            let is_equal = value(&self.disk, cell) == value(&end, cell);
            prop_assert!(is_equal || is_dirty || changing(cell) || recaptured(cell), "XM-3: cell {}", cell);
        }
        Ok(())
    }

    /// Stops at this moment, and starts from one of the files and images that may be found.
    fn crash(&mut self, pick: u64, power_lost: bool) -> Result<(), TestCaseError> {
        let mut random = pick;
        let mut choose = |bound: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % bound
        };
        for (cell, written) in std::mem::take(&mut self.unflushed) {
            let known = value(&self.settled, cell);
            let found = if power_lost {
                match choose(written.len() + 1) {
                    0 => known,
                    other => written[other - 1].1,
                }
            } else {
                let started = written.last().filter(|(end, _)| end.is_none() && choose(2) == 0);
                started.map_or(value(&self.disk, cell), |(_, new)| *new)
            };
            if cell < self.size.div_ceil(CELL) {
                self.disk.insert(cell, found);
            }
        }
        self.settled = self.disk.clone();
        let arrived = choose(self.sent.len() + 1);
        for (_, sent) in std::mem::take(&mut self.sent).into_iter().take(arrived) {
            apply(&mut self.vault, &sent);
        }
        let mut file = self.headers[choose(self.headers.len())].to_vec();
        for (offset, candidates) in &self.pages {
            file.resize(file.len().max(*offset as usize), 0);
            file.truncate(*offset as usize);
            file.extend_from_slice(&candidates[choose(candidates.len())]);
        }
        let is_trusted = self.record_size == self.size
            && self.map.trust() != LogTrust::Disowned
            && self.map.trust() != LogTrust::CatchingUp;
        let start = match decode_file(VOLUME, &file) {
            Ok(image) if is_trusted => StartMarks::CompareMarked(image),
            _ => StartMarks::CompareAll,
        };
        self.restart(start);
        let image = self.vault.clone();
        for cell in
            self.known_cells().into_iter().filter(|cell| value(&self.disk, *cell) != value(&image, *cell))
        {
            let block = cell * CELL / BLOCK_SECTORS;
            prop_assert_eq!(self.map.next_dirty(block), Some(block), "R-2: a lost difference");
        }
        Ok(())
    }

    fn restart(&mut self, start: StartMarks) {
        self.map = ExtentMap::new(VOLUME, Sectors(self.size), start);
        self.record_size = self.size;
        self.attach_due = true;
        self.seq += 1000;
        (self.waiting, self.started, self.recaptures) = (vec![], vec![], vec![]);
        (self.flushes, self.persist) = (vec![], None);
        // The guest is served once the log is written; a crash before that is the same crash again.
        self.start_persist();
        self.end_persist(true);
    }

    fn clean_stop(&mut self) {
        while !self.started.is_empty() {
            self.end_write(0, None, true);
        }
        self.waiting.clear();
        if !self.recaptures.is_empty() || self.record_size != self.size {
            return;
        }
        self.flushes = vec![(self.map.flush_issued(), self.clock)];
        self.flushed(0);
        self.map.cool(self.now, Duration::ZERO, std::iter::empty());
        for _ in 0..3 {
            self.start_persist();
            self.end_persist(true);
        }
        assert_eq!(self.map.trust(), LogTrust::Whole);
        let pages: Vec<u8> = self.pages.values().flat_map(|list| list[0].to_vec()).collect();
        let file = [self.headers[0].to_vec(), pages].concat();
        let image = decode_file(VOLUME, &file).unwrap();
        assert_eq!(image.pages_damaged, 0);
        let issued = WriteSeq(self.seq);
        let is_open = self.map.dirty_blocks() > 0;
        self.restart(if is_open {
            StartMarks::CompareMarked(image)
        } else {
            StartMarks::Clean { image, issued }
        });
        self.attach_due = is_open;
    }

    fn step(&mut self, kind: u8, a: u16, b: u16) -> Result<(), TestCaseError> {
        let pick = |len: usize| a as usize % len;
        match kind {
            0..=5 => {
                let extents = extents_of(Sectors(self.size));
                let extent = [0, 1, 2, extents - 1, extents.saturating_sub(2)][pick(5)].min(extents - 1);
                let first = extent * EXTENT_SECTORS / CELL + u64::from(b) % 34;
                let cells_left = self.size / CELL;
                let first = first.min(cells_left - 1);
                let length = (1 + u64::from(b >> 8) % 5).min(cells_left - first);
                self.clock += 1;
                self.waiting.push((Extent::new(first * CELL, length * CELL), self.clock));
                self.start_writes();
            }
            6..=9 if !self.started.is_empty() => {
                let failed = (kind == 9).then_some(u64::from(b));
                self.end_write(pick(self.started.len()), failed, kind != 8);
            }
            10 | 11 => self.start_persist(),
            12 | 13 => self.end_persist(true),
            14 => {
                self.end_persist(!b.is_multiple_of(8));
                if b.is_multiple_of(16) {
                    self.map.on_disowned();
                    self.start_writes();
                }
            }
            15 => self.flushes.push((self.map.flush_issued(), self.clock)),
            16 | 17 if !self.flushes.is_empty() => self.flushed(pick(self.flushes.len())),
            18 | 19 if !self.sent.is_empty() => self.vault_through(self.sent[pick(self.sent.len())].0),
            20 | 21 => {
                self.now = self.now.after(COOL_AFTER / 2);
                let idle = if b.is_multiple_of(2) { COOL_AFTER } else { Duration::ZERO };
                self.map.cool(self.now, idle, self.recaptures.clone().into_iter());
            }
            22 if !self.recaptures.is_empty() => {
                self.recapture(pick(self.recaptures.len()), !b.is_multiple_of(4))
            }
            23 | 24 => self.resync(u64::from(b), a),
            25 => self.resize(SIZES[pick(SIZES.len())], !b.is_multiple_of(3)),
            26 if b.is_multiple_of(4) => {
                let keep = self.sent.get(pick(self.sent.len() + 1)).map_or(self.seq, |(seq, _)| *seq);
                self.sent.retain(|(seq, _)| *seq <= keep);
                self.attach_due = true;
                self.map.mark_dirty_after(WriteSeq(keep.max(self.vaulted)));
            }
            27 => {
                self.map.on_reconnect();
            }
            28 => self.crash(u64::from(a) << 16 | u64::from(b), b.is_multiple_of(2))?,
            29 if b.is_multiple_of(3) => self.clean_stop(),
            _ => {}
        }
        self.check()
    }
}

fn reads_as_marked(file: &[Bytes; 2], extent: u64) -> bool {
    let Some(size) = file[0].get(8..16) else { return true };
    let sectors = Sectors(u64::from_le_bytes(size.try_into().unwrap()));
    if extent >= extents_of(sectors) || file[1].len() != LOG_PAGE_BYTES {
        return true;
    }
    let at = (extent % EXTENTS_PER_PAGE) as usize;
    file[1][at / 8] >> (at % 8) & 1 == 1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_may_differ_is_marked_and_found_after_any_crash(
        size in 0usize..SIZES.len(), steps in prop::collection::vec((0u8..30, any::<u16>(), any::<u16>()), 1..160),
    ) {
        let mut model = Model::new(SIZES[size]);
        for (kind, a, b) in steps {
            model.step(kind, a, b)?;
        }
    }
}

fn map_of_ten() -> ExtentMap {
    let image = LogImage { sectors: Sectors(10 * EXTENT_SECTORS), marks: vec![0], pages_damaged: 0 };
    let mut map = ExtentMap::new(VOLUME, image.sectors, StartMarks::Clean { image, issued: WriteSeq(5) });
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    map
}

#[test]
fn a_log_that_cannot_be_written_does_not_hold_writes() {
    let (mut map, write) = (map_of_ten(), Extent::new(0, 8));
    map.want_hot(write);
    map.take_persist().unwrap();
    assert_eq!(map.on_persisted(Err(())), Some(PERSIST_RETRY_DELAYS[0]));
    assert_eq!((map.trust(), map.is_hot(write)), (LogTrust::Doubted, false));
    assert!(map.must_compare_all());
    map.on_disowned();
    assert!(map.is_hot(write) && map.must_compare_all());
    map.on_write_started(Instant(0), write);
    map.take_persist().unwrap();
    let late = Extent::new(EXTENT_SECTORS, 8);
    map.on_write_started(Instant(0), late);
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!((map.trust(), map.is_hot(late)), (LogTrust::CatchingUp, false));
    assert!(map.must_compare_all(), "the late write is not in the image");
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!((map.trust(), map.is_hot(late)), (LogTrust::Whole, true));
}

#[test]
fn a_log_written_again_before_it_was_disowned_is_whole() {
    let (mut map, write) = (map_of_ten(), Extent::new(0, 8));
    map.want_hot(write);
    map.take_persist().unwrap();
    map.on_persisted(Err(()));
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!((map.trust(), map.is_hot(write)), (LogTrust::Whole, true));
    map.on_disowned();
    assert_eq!(map.trust(), LogTrust::Whole);
}

#[test]
fn marks_of_a_clean_stop_stay_until_what_was_issued_is_vaulted() {
    let sectors = Sectors(10 * EXTENT_SECTORS);
    let image = LogImage { sectors, marks: vec![0b101], pages_damaged: 0 };
    let mut map = ExtentMap::new(VOLUME, sectors, StartMarks::Clean { image, issued: WriteSeq(5) });
    map.take_persist().unwrap();
    map.on_persisted(Ok::<(), ()>(()));
    assert_eq!(map.cool(Instant(0), Duration::ZERO, std::iter::empty()), 0);
    assert_eq!(map.clone_lost(WriteSeq(4)), 2);
    map.on_vaulted(WriteSeq(5));
    assert_eq!(map.cool(Instant(0), Duration::ZERO, std::iter::empty()), 2);
    assert_eq!(map.marked_extents(), 0);
}

#[test]
fn a_region_that_was_cut_off_and_grown_again_is_not_taken_as_equal() {
    let mut map = map_of_ten();
    map.on_resized(Sectors(2 * EXTENT_SECTORS), Stamp::Bitmap);
    map.on_resized(Sectors(4 * EXTENT_SECTORS), Stamp::Bitmap);
    assert_eq!((map.dirty_blocks(), map.next_dirty(0)), (2 * BLOCKS_PER_EXTENT, Some(2 * BLOCKS_PER_EXTENT)));
    let header = map.take_persist().unwrap().writes[0].1.clone();
    assert_eq!(header, encode_header(VOLUME, Sectors(4 * EXTENT_SECTORS)));
}

impl ExtentMap {
    /// Counts the runs that a loss after `seq` would make dirty.
    fn clone_lost(&self, seq: WriteSeq) -> usize {
        self.unvaulted.clone().take_after(seq).len()
    }
}
