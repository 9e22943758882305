//! The index of what no stored index covers yet: the log's tail, in memory.
//!
//! A part covers 2^16 cells of a space. It holds a table of 16-byte entries in order and a small map of what
//! came since; the map is merged into the table once it is a good part of it, so that adding stays cheap and
//! memory near that of the table. While a log is loaded nobody looks: then entries are only appended, and sorted
//! once when it *settles*, which is five times faster.
//!
//! Invariants
//! - IX-1 Entries of a cell are in version order; two of one version do not overlap.
//! - IX-2 A lookup at version v never sees a later entry.
//! - IX-3 What came since the last merge is never older than the table: versions do not go back.
//! - IX-5 Nobody looks into a tail that is being loaded before it settled.

use super::entry::{Entry, Wanted, ZERO};
use super::key::{Cell, Piece, Space, Version, cut_zeros};
use super::levels;
use super::place::{Found, Held, SegmentPlace, Tables, UnitPlace};
use super::run::Item;
use crate::fold::{FoldRow, FoldZeros};
use crate::load::FoldedTables;
use crate::segment::{ExtentRow, GRANULE_SECTORS, Source, UnitRow};
use redoubt_core::VolumeIndex;
use std::collections::BTreeMap;

/// Entries that come to a part before its first merge; the map costs about 100 bytes for each.
const MERGE_MIN: usize = 4096;
/// Entries that make it worth to settle a part.
const SETTLE_MIN: usize = 1024;
/// A later merge comes when this part of the table has come since: each entry is then moved a few times.
const MERGE_PART: usize = 4;

#[derive(Debug, Default)]
struct Part {
    table: Vec<Entry>,
    fresh: BTreeMap<u32, Vec<Entry>>,
    fresh_entries: usize,
    /// What came while the log is loaded, in the order of versions.
    loaded: Vec<Entry>,
}

/// All volumes of a machine, for a stretch of the log.
#[derive(Debug)]
pub(crate) struct Tail {
    tables: Tables,
    parts: BTreeMap<(Space, u16), Part>,
    /// While a log is loaded: the part that took the newest entry, out of the map. A segment's extents are in order,
    /// so most go where the one before went.
    open: Option<((Space, u16), Part)>,
    /// Levels that have entries, as bits.
    levels: u16,
    entries: usize,
    is_loading: bool,
    pub(super) merge_min: usize,
}

impl Default for Tail {
    fn default() -> Tail {
        let (tables, parts) = (Tables::default(), BTreeMap::new());
        Tail { tables, parts, open: None, levels: 0, entries: 0, is_loading: false, merge_min: MERGE_MIN }
    }
}

impl Tail {
    /// Makes an empty one that a log is loaded into; it is to be settled before anybody looks (IX-5).
    pub(crate) fn to_load() -> Tail {
        Tail { is_loading: true, ..Tail::default() }
    }

    /// Adds a segment's extents as versions of `slot`; versions must not go back.
    pub(crate) fn add(&mut self, slot: u64, place: SegmentPlace, units: &[UnitRow], extents: &[ExtentRow]) {
        let base = self.tables.units();
        self.tables.add_segment(place);
        for (number, row) in units.iter().enumerate() {
            self.tables.add_unit(&UnitPlace::new(place, number as u32, row));
        }
        for row in extents {
            let version = Version::new(slot, row.span);
            debug_assert!(self.tables.versions.last().is_none_or(|last| *last <= version), "IX-3");
            if self.tables.versions.last() != Some(&version) {
                self.tables.versions.push(version);
            }
            self.add_extent(base, row);
        }
    }

    /// Adds what folds of one stretch name, each extent as of its own version. Of two of one version that say the
    /// same, that of a packed segment comes later: it was read when it was made.
    pub(crate) fn add_folded(&mut self, segments: &[FoldedTables], zeros: &[FoldZeros]) {
        let mut rows: Vec<(Version, bool, u32, ExtentRow)> = Vec::new();
        for FoldedTables { row: FoldRow { place, spans, .. }, units, extents } in segments {
            let (base, is_packed) = (self.tables.units(), place.held == Held::Packed);
            self.tables.add_segment(*place);
            for (number, row) in units.iter().enumerate() {
                self.tables.add_unit(&UnitPlace::new(*place, number as u32, row));
            }
            let of = |row: &ExtentRow| Some((spans.version(row.span)?, is_packed, base, *row));
            rows.extend(extents.iter().filter_map(of));
        }
        rows.extend(zeros.iter().map(|zeros| {
            let FoldZeros { volume, first, sectors, version } = *zeros;
            (version, false, 0, ExtentRow { volume, span: 0, first, sectors, source: Source::Zero })
        }));
        rows.sort_by_key(|(version, is_packed, ..)| (*version, *is_packed));
        for (version, _, base, row) in rows {
            debug_assert!(self.tables.versions.last().is_none_or(|last| *last <= version), "IX-3");
            if self.tables.versions.last() != Some(&version) {
                self.tables.versions.push(version);
            }
            self.add_extent(base, &row);
        }
    }

    fn add_extent(&mut self, base: u32, row: &ExtentRow) {
        let end = row.first + row.sectors;
        match row.source {
            Source::Zero => cut_zeros(row.first, end, |piece| self.put(row.volume, piece, ZERO, 0)),
            Source::Unit { unit, offset } => {
                let number = row.first / GRANULE_SECTORS;
                let (first, sectors) = ((row.first % GRANULE_SECTORS) as u8, row.sectors as u8);
                self.put(row.volume, Piece { level: 0, number, first, sectors }, base + unit, offset);
            }
        }
    }

    fn put(&mut self, volume: VolumeIndex, piece: Piece, unit: u32, offset: u8) {
        let cell = Cell::new(volume, piece.level, piece.number);
        let version = (self.tables.versions.len() - 1) as u32;
        let Piece { first, sectors, .. } = piece;
        let key = (cell.space, (cell.index >> 16) as u16);
        let entry = Entry { index: cell.index, version, unit, first, sectors, offset };
        self.levels |= 1 << piece.level;
        self.entries += 1;
        if self.is_loading {
            return self.load(key, entry);
        }
        let part = self.parts.entry(key).or_default();
        part.fresh.entry(cell.index).or_default().push(entry);
        part.fresh_entries += 1;
        if part.fresh_entries >= self.merge_min.max(part.table.len() / MERGE_PART) {
            part.merge();
        }
    }

    fn load(&mut self, key: (Space, u16), entry: Entry) {
        match &mut self.open {
            Some((open, part)) if *open == key => part.loaded.push(entry),
            _ => {
                self.close();
                let mut part = self.parts.remove(&key).unwrap_or_default();
                part.loaded.push(entry);
                self.open = Some((key, part));
            }
        }
    }

    fn close(&mut self) {
        self.parts.extend(self.open.take());
    }

    /// Sorts what was loaded, and gives up the memory of what came since, after much was added at once.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.is_loading) {
            self.close();
            self.parts.values_mut().for_each(Part::sort);
        }
        self.parts.values_mut().filter(|part| part.fresh_entries >= SETTLE_MIN).for_each(Part::merge);
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Tells whether it may hold data of granules `from..to`.
    pub(crate) fn touches(&self, volume: VolumeIndex, from: u64, to: u64) -> bool {
        let key = |granule| {
            let cell = Cell::new(volume, 0, granule);
            (cell.space, (cell.index >> 16) as u16)
        };
        self.parts.range(key(from)..=key(to.saturating_sub(1).max(from))).next().is_some()
    }

    /// Explains what it can of a granule at a version.
    pub(crate) fn find(
        &self,
        version: Version,
        volume: VolumeIndex,
        wanted: &mut Wanted,
        found: &mut Vec<Found>,
    ) {
        debug_assert!(!self.is_loading, "IX-5");
        let known = self.tables.versions.partition_point(|at| *at <= version) as u32;
        let zeros = levels(self.levels).filter(|level| *level > 0).filter_map(|level| {
            let newest = self.newest_first(Cell::over(volume, level, wanted.granule), known).next()?;
            Some(self.tables.versions[newest.version as usize])
        });
        let floor = zeros.max();
        let entries = self.newest_first(Cell::new(volume, 0, wanted.granule), known);
        wanted.resolve(entries, floor, &self.tables, found);
    }

    /// Returns the cell's entries of the first `known` versions, newest first.
    fn newest_first(&self, cell: Cell, known: u32) -> impl Iterator<Item = &Entry> {
        let part = self.parts.get(&(cell.space, (cell.index >> 16) as u16));
        let (table, fresh) = part.map_or((&[][..], &[][..]), |part| part.of(cell.index));
        let until = move |entries: &[Entry]| entries.partition_point(|entry| entry.version < known);
        fresh[..until(fresh)].iter().rev().chain(table[..until(table)].iter().rev())
    }

    /// Returns everything in the order of stored runs; merges what came since first.
    pub(crate) fn items(&mut self) -> impl Iterator<Item = Item> + Send {
        self.settle();
        self.parts.values_mut().filter(|part| !part.fresh.is_empty()).for_each(Part::merge);
        let tables = &self.tables;
        self.parts.iter().flat_map(move |((space, _), part)| {
            part.table.iter().map(move |entry| Item::new(*space, entry, tables))
        })
    }
}

impl Part {
    fn of(&self, index: u32) -> (&[Entry], &[Entry]) {
        let from = self.table.partition_point(|entry| entry.index < index);
        let to = from + self.table[from..].partition_point(|entry| entry.index == index);
        (&self.table[from..to], self.fresh.get(&index).map_or(&[], |entries| entries))
    }

    /// Makes the table of what was loaded; a stable sort keeps the versions of a cell in order (IX-1).
    fn sort(&mut self) {
        self.table.append(&mut self.loaded);
        self.table.sort_by_key(|entry| entry.index);
        self.table.shrink_to_fit();
    }

    /// Makes one table of table and map.
    fn merge(&mut self) {
        let mut table = Vec::with_capacity(self.table.len() + self.fresh_entries);
        let mut old = &self.table[..];
        for (index, entries) in &self.fresh {
            let (before, rest) = old.split_at(old.partition_point(|entry| entry.index <= *index));
            table.extend_from_slice(before);
            table.extend_from_slice(entries);
            old = rest;
        }
        table.extend_from_slice(old);
        *self = Part { table, ..Part::default() };
    }
}
