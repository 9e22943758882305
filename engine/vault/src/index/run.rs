//! Stored runs: the index of a stretch of the log, cut by place into blocks that tables hold.
//!
//! Runs follow one another along the log; each version of each sector is in exactly one. A run's *directory*
//! has a row per block. Table objects are put before the catalogue that names them and never change.

use super::block::{self, BLOCK_ENTRIES};
use super::entry::{Entry, ZERO, mask};
use super::key::{Cell, Space, Version};
use super::place::{Tables, UnitPlace};
use super::seal::{Blob, Sealer, TableId};
use crate::fold::FoldInfo;
use bytes::Bytes;
use redoubt_core::VolumeIndex;
use redoubt_wire::aead::Key;

/// A table is closed when it has so many bytes: one put each, and what a merge holds in memory.
const TABLE_BYTES: usize = 8 << 20;

/// One entry with everything it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) space: Space,
    pub(crate) index: u32,
    pub(crate) version: Version,
    pub(crate) first: u8,
    pub(crate) sectors: u8,
    pub(crate) offset: u8,
    /// None: zeros.
    pub(crate) unit: Option<UnitPlace>,
}

impl Item {
    pub(crate) fn new(space: Space, entry: &Entry, tables: &Tables) -> Item {
        let Entry { index, first, sectors, offset, .. } = *entry;
        let version = tables.versions[entry.version as usize];
        let unit = (entry.unit != ZERO).then(|| tables.unit(entry.unit));
        Item { space, index, version, first, sectors, offset, unit }
    }

    /// The order of runs.
    pub(crate) fn key(&self) -> (Space, u32, Version) {
        (self.space, self.index, self.version)
    }
}

/// Where a block is and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) space: Space,
    /// First cell, and the version from which on it is told here; zero unless the block before begins it.
    pub(crate) first: u32,
    pub(crate) cut: Version,
    /// Last cell.
    pub(crate) last: u32,
    pub(crate) blob: Blob,
}

/// The index of slots `from..=to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) entries: u64,
    /// What is left of its stretch, if that was folded; a folded run has one at least.
    pub(crate) folds: Vec<FoldInfo>,
    /// By (space, first, cut).
    pub(super) rows: Vec<Row>,
    /// Levels that have rows, as bits.
    pub(super) levels: u16,
}

impl Run {
    /// A run that was folded and of which only the folds are known.
    pub(crate) fn without_rows(from: u64, to: u64, folds: Vec<FoldInfo>) -> Run {
        Run { from, to, folds, ..Run::default() }
    }

    /// Adds the next row of the directory.
    pub(crate) fn push(&mut self, row: Row) {
        self.levels |= 1 << row.space.level;
        self.rows.push(row);
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn levels(&self) -> impl Iterator<Item = u8> + use<> {
        super::levels(self.levels)
    }

    /// Tells whether it may hold data of granules `from..to`.
    pub(crate) fn touches(&self, volume: VolumeIndex, from: u64, to: u64) -> bool {
        let (from, last) = (Cell::new(volume, 0, from), Cell::new(volume, 0, to.saturating_sub(1)));
        let at = self.rows.partition_point(|row| (row.space, row.last) < (from.space, from.index));
        self.rows.get(at).is_some_and(|row| (row.space, row.first) <= (last.space, last.index))
    }

    /// Returns the tables it lies in, each at least once.
    pub(crate) fn tables(&self) -> impl Iterator<Item = u128> {
        self.rows.iter().map(|row| row.blob.table)
    }

    /// Returns the one block that may say something of the cell at a version.
    pub(crate) fn row(&self, cell: Cell, version: Version) -> Option<&Row> {
        let key = (cell.space, cell.index, version);
        let at = self.rows.partition_point(|row| (row.space, row.first, row.cut) <= key);
        let row = self.rows[..at].last()?;
        (row.space == cell.space && cell.index <= row.last).then_some(row)
    }
}

/// A finished table object.
#[derive(Debug)]
pub(crate) struct TableBytes {
    pub(crate) uuid: u128,
    pub(crate) dek: u32,
    pub(crate) bytes: Bytes,
}

/// Cuts sorted items into blocks and tables.
pub(crate) struct RunBuilder<'a> {
    id: TableId,
    epoch: u64,
    dek: &'a Key,
    sealer: Sealer,
    block: Vec<Item>,
    carried: usize,
    run: Run,
    pub(super) block_entries: usize,
    pub(super) table_bytes: usize,
}

impl<'a> RunBuilder<'a> {
    /// Begins the run of some slots; `epoch` is the maintainer's, `uuid` the first table's.
    pub(crate) fn new(
        id: TableId,
        epoch: u64,
        dek: &'a Key,
        uuid: u128,
        slots: (u64, u64),
    ) -> RunBuilder<'a> {
        let run = Run { from: slots.0, to: slots.1, ..Run::default() };
        let sealer = Sealer::new(TableId { uuid, ..id }, epoch, dek);
        let (block, carried) = (Vec::new(), 0);
        let (block_entries, table_bytes) = (BLOCK_ENTRIES, TABLE_BYTES);
        RunBuilder { id, epoch, dek, sealer, block, carried, run, block_entries, table_bytes }
    }

    /// Adds the next item; `uuid` names a table, should one begin. Returns a table that is full.
    pub(crate) fn add(&mut self, item: Item, uuid: impl FnOnce() -> u128) -> Option<TableBytes> {
        let full = self.block.last().is_some_and(|last| last.space != item.space)
            || self.block.len() - self.carried >= self.block_entries;
        let table = if full { self.close_block(Some(&item), uuid) } else { None };
        self.run.entries += 1;
        self.block.push(item);
        table
    }

    /// Returns the run and its last table.
    pub(crate) fn finish(mut self) -> (Run, Option<TableBytes>) {
        if !self.block.is_empty() {
            self.put_block();
        }
        let last = (!self.sealer.is_empty()).then(|| self.sealer.finish());
        (self.run, last)
    }

    fn close_block(&mut self, next: Option<&Item>, uuid: impl FnOnce() -> u128) -> Option<TableBytes> {
        let last = *self.block.last()?;
        let within = next.is_some_and(|next| (next.space, next.index) == (last.space, last.index));
        let carried = if within { carry(&self.block) } else { Vec::new() };
        self.put_block();
        (self.carried, self.block) = (carried.len(), carried);
        self.next_table(uuid)
    }

    fn next_table(&mut self, uuid: impl FnOnce() -> u128) -> Option<TableBytes> {
        (self.sealer.bytes() >= self.table_bytes).then(|| {
            let next = Sealer::new(TableId { uuid: uuid(), ..self.id }, self.epoch, self.dek);
            std::mem::replace(&mut self.sealer, next).finish()
        })
    }

    fn put_block(&mut self) {
        let (first, last) = (self.block[0], self.block[self.block.len() - 1]);
        let cut = if self.carried > 0 { self.block[self.carried].version } else { Version::default() };
        let blob = self.sealer.put(&block::encode(&self.block, self.carried));
        self.run.push(Row { space: first.space, first: first.index, cut, last: last.index, blob });
        self.block.clear();
    }
}

/// Returns what shows of the block's last cell, oldest first.
fn carry(items: &[Item]) -> Vec<Item> {
    let Some(last) = items.last() else { return Vec::new() };
    let mut hidden = 0u128;
    let mut shown: Vec<Item> = Vec::new();
    for item in items.iter().rev().take_while(|item| item.index == last.index) {
        let covers = mask(u64::from(item.first), u64::from(item.sectors));
        if covers & !hidden != 0 {
            shown.push(*item);
        }
        hidden |= covers;
    }
    shown.reverse();
    shown
}
