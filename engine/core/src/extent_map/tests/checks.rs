//! What must hold of the extent map after each step, and after a crash at any moment.

use super::model::{CELL, FORSAKEN, Model, Sent, VOLUME, apply, cells, value};
use super::*;
use proptest::test_runner::TestCaseError;

impl Model {
    /// All cells that ever held something.
    pub(super) fn known_cells(&self) -> BTreeSet<u64> {
        let sent = self.sent.iter().flat_map(|(_, sent)| match sent {
            Sent::Cells(list) => list.iter().map(|(cell, _)| *cell).collect(),
            Sent::Size(_) => vec![],
        });
        let images = [&self.disk, &self.settled, &self.vault];
        let all = images.into_iter().flat_map(|image| image.keys().copied());
        let all: BTreeSet<u64> = all.chain(self.unflushed.keys().copied()).chain(sent).collect();
        all.into_iter().filter(|cell| *cell < self.size.div_ceil(CELL)).collect()
    }

    pub(super) fn may_differ(&self) -> BTreeSet<u64> {
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

    pub(super) fn check(&self) -> Result<(), TestCaseError> {
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
    pub(super) fn check_blocks(&self) -> Result<(), TestCaseError> {
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
    pub(super) fn crash(&mut self, pick: u64, power_lost: bool) -> Result<(), TestCaseError> {
        let mut random = pick;
        let mut choose = |bound: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % bound
        };
        for (cell, mut written) in std::mem::take(&mut self.unflushed) {
            let known = value(&self.settled, cell);
            let found = if power_lost {
                match choose(written.len() + 1) {
                    0 => known,
                    other => written[other - 1].1,
                }
            } else {
                // What it had not flushed is still in the system's cache.
                let started =
                    written.last().filter(|(end, _)| end.is_none() && choose(2) == 0).map(|(_, new)| *new);
                written.retain(|(end, _)| end.is_some_and(|end| end != FORSAKEN));
                written.extend(started.map(|new| (Some(self.clock), new)));
                started.unwrap_or(value(&self.disk, cell))
            };
            if cell >= self.size.div_ceil(CELL) {
                self.settled.remove(&cell);
                continue;
            }
            self.disk.insert(cell, found);
            if power_lost || written.is_empty() {
                self.settled.insert(cell, found);
            } else {
                self.unflushed.insert(cell, written);
            }
        }
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

    /// The guest rests and everything works: every mark goes, within a bounded number of batches, and
    /// a crash then finds nothing to compare.
    pub(super) fn rest(&mut self) -> Result<(), TestCaseError> {
        if self.map.has_lost_flush() {
            // Only a new start is rid of what a failed flush may have lost.
            self.crash(1, true)?;
        }
        while !self.waiting.is_empty() || !self.started.is_empty() || self.map.must_compare_all() {
            self.start_persist();
            self.end_persist(true);
            self.start_writes();
            while !self.started.is_empty() {
                self.end_write(0, None, true);
            }
        }
        while !self.recaptures.is_empty() {
            self.recapture(0, true);
        }
        let read = self.known_cells().into_iter().map(|cell| (cell, value(&self.disk, cell))).collect();
        let stamp = self.push(Sent::Cells(read));
        self.map.on_resynced(self.now, Extent::new(0, self.size), stamp);
        self.vault_through(self.seq);
        self.flushes = vec![(self.map.flush_issued(), self.clock)];
        self.flushed(0);
        self.persist_all();
        self.now = self.now.after(COOL_AFTER);
        // The pass under way, then a whole one.
        let batches = 2 * (extents_of(Sectors(self.size)) as usize / COOL_SCAN_MAX + 1);
        for _ in 0..batches {
            let cooled = self.map.cool(self.now, COOL_AFTER, std::iter::empty());
            prop_assert!(cooled <= COOL_SCAN_MAX);
        }
        prop_assert_eq!(self.map.marked_extents(), 0, "what rests is cold");
        self.persist_all();
        self.record_size = self.size;
        self.check()?;
        self.crash(0, true)?;
        prop_assert_eq!(self.map.dirty_blocks(), 0, "nothing is compared");
        Ok(())
    }

    fn persist_all(&mut self) {
        for _ in 0..3 {
            self.start_persist();
            self.end_persist(true);
        }
    }

    pub(super) fn restart(&mut self, start: StartMarks) {
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

    pub(super) fn clean_stop(&mut self) {
        while !self.started.is_empty() {
            self.end_write(0, None, true);
        }
        self.waiting.clear();
        if !self.recaptures.is_empty() || self.record_size != self.size || self.map.has_lost_flush() {
            return;
        }
        self.flushes = vec![(self.map.flush_issued(), self.clock)];
        self.flushed(0);
        self.map.cool(self.now, Duration::ZERO, std::iter::empty());
        self.persist_all();
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
}

pub(super) fn reads_as_marked(file: &[Bytes; 2], extent: u64) -> bool {
    let Some(size) = file[0].get(8..16) else { return true };
    let sectors = Sectors(u64::from_le_bytes(size.try_into().unwrap()));
    if extent >= extents_of(sectors) || file[1].len() != LOG_PAGE_BYTES {
        return true;
    }
    let at = (extent % EXTENTS_PER_PAGE) as usize;
    file[1][at / 8] >> (at % 8) & 1 == 1
}
