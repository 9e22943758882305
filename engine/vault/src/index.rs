//! The index: per volume and 64 KiB granule, every version of every sector, newest last.
//!
//! A partition covers 4 GiB of a volume. It holds a table of 16-byte entries by granule and version, with
//! one offset per granule, and a small map of what came since; the map is merged into the table once it
//! is a good part of it, so that adding stays cheap and memory near that of the table.
//!
//! Invariants
//! - IX-1 Entries of a granule are in version order; two of one version do not overlap.
//! - IX-2 A lookup at version v never sees a later entry.
//! - IX-3 What came since the last merge is never older than the table: versions do not go back.
//!
//! Source: the vault's plan, structure B (granule-sorted entries with offsets). Not here: partitions that
//! are loaded on demand, which need index objects in the store.

use crate::segment::{ExtentRow, GRANULE_SECTORS, Source};
use redoubt_core::VolumeIndex;
use std::collections::BTreeMap;
use std::ops::Range;

#[cfg(test)]
mod tests;

/// A slot and a span in it, as one number in the log's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64);

impl Version {
    pub(crate) fn new(slot: u64, span: u16) -> Version {
        Version(slot << 16 | u64::from(span))
    }
}

/// Zeros over more granules than this are kept once per partition, not per granule.
const WIDE_GRANULES: u64 = 64;
/// Granules of a partition: 4 GiB.
const PARTITION_GRANULES: u64 = 1 << 16;
const PARTITION_SECTORS: u64 = PARTITION_GRANULES * GRANULE_SECTORS;
/// Entries that come to a partition before its first merge; the map costs about 100 bytes for each.
const MERGE_MIN: usize = 4096;
/// Entries that make it worth to settle a partition: fewer cost less than a table of offsets.
const SETTLE_MIN: usize = 1024;
/// A later merge comes when this part of the table has come since: each entry is then moved a few times.
const MERGE_PART: usize = 4;

/// Content of part of a granule as of one version.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Ordinal of the version.
    version: u32,
    segment: u32,
    unit: u32,
    first: u8,
    sectors: u8,
    offset: u8,
    zero: bool,
}

const _: () = assert!(size_of::<Entry>() == 16, "the table's memory is planned for 16 bytes an entry");

/// Zeros over many granules.
#[derive(Clone, Copy, Debug)]
struct Wide {
    version: u32,
    first: u64,
    end: u64,
}

/// 4 GiB of a volume. Granules are counted from its start.
#[derive(Debug, Default)]
struct Partition {
    /// Where each granule's entries begin in the table, and the end of the last one's.
    starts: Vec<u32>,
    table: Vec<Entry>,
    fresh: BTreeMap<u16, Vec<Entry>>,
    fresh_entries: usize,
    wide: Vec<Wide>,
}

/// Where the content of part of a read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) first: u64,
    pub(crate) sectors: u64,
    pub(crate) segment: u32,
    pub(crate) unit: u32,
    /// Sectors into the unit.
    pub(crate) offset: u64,
}

/// All volumes of a machine.
#[derive(Debug)]
pub(crate) struct Index {
    /// Versions that have content, in order; entries name them by ordinal.
    versions: Vec<Version>,
    /// By volume and number of the partition.
    partitions: BTreeMap<(VolumeIndex, u64), Partition>,
    merge_min: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index { versions: Vec::new(), partitions: BTreeMap::new(), merge_min: MERGE_MIN }
    }
}

fn mask(first: u64, sectors: u64) -> u128 {
    let ones = if sectors >= 128 { u128::MAX } else { (1 << sectors) - 1 };
    ones << first
}

impl Index {
    /// Adds one extent; versions must not go back.
    pub(crate) fn add(&mut self, version: Version, segment: u32, row: &ExtentRow) {
        debug_assert!(self.versions.last().is_none_or(|last| *last <= version), "IX-3");
        if self.versions.last() != Some(&version) {
            self.versions.push(version);
        }
        let version = (self.versions.len() - 1) as u32;
        let (mut first, end) = (row.first, row.first + row.sectors);
        while first < end {
            let number = first / PARTITION_SECTORS;
            let base = number * PARTITION_SECTORS;
            let last = end.min(base + PARTITION_SECTORS);
            let partition = self.partitions.entry((row.volume, number)).or_default();
            partition.add(version, segment, row.source, first - base..last - base);
            if partition.fresh_entries >= self.merge_min.max(partition.table.len() / MERGE_PART) {
                partition.merge();
            }
            first = last;
        }
    }

    /// Gives up the memory of what came since, after much was added at once.
    pub(crate) fn settle(&mut self) {
        let worth_it = |partition: &&mut Partition| partition.fresh_entries >= SETTLE_MIN;
        self.partitions.values_mut().filter(worth_it).for_each(Partition::merge);
    }

    /// Finds the content of `[first, end)` at a version, in address order; gaps are zeros.
    pub(crate) fn find(&self, version: Version, volume: VolumeIndex, first: u64, end: u64) -> Vec<Found> {
        let mut found = Vec::new();
        if first >= end {
            return found;
        }
        let known = self.versions.partition_point(|at| *at <= version) as u32;
        let numbers = (volume, first / PARTITION_SECTORS)..=(volume, (end - 1) / PARTITION_SECTORS);
        for ((_, number), partition) in self.partitions.range(numbers) {
            let base = number * PARTITION_SECTORS;
            let range = first.max(base) - base..end.min(base + PARTITION_SECTORS) - base;
            partition.find(known, base, range, &mut found);
        }
        found
    }
}

impl Partition {
    fn add(&mut self, version: u32, segment: u32, source: Source, range: Range<u64>) {
        let granules = range.start / GRANULE_SECTORS..range.end.div_ceil(GRANULE_SECTORS);
        if granules.end - granules.start > WIDE_GRANULES {
            self.wide.push(Wide { version, first: range.start, end: range.end });
            return;
        }
        let (zero, unit, offset) = match source {
            Source::Zero => (true, 0, 0),
            Source::Unit { unit, offset } => (false, unit, offset),
        };
        for granule in granules {
            let base = granule * GRANULE_SECTORS;
            let first = range.start.max(base) - base;
            let sectors = (range.end.min(base + GRANULE_SECTORS) - base - first) as u8;
            let entry = Entry { version, segment, unit, first: first as u8, sectors, offset, zero };
            self.fresh.entry(granule as u16).or_default().push(entry);
            self.fresh_entries += 1;
        }
    }

    /// Makes one table of table and map.
    fn merge(&mut self) {
        let newest = self.fresh.last_key_value().map_or(0, |(granule, _)| u64::from(*granule) + 1);
        let granules = newest.max(self.starts.len().saturating_sub(1) as u64);
        let mut table = Vec::with_capacity(self.table.len() + self.fresh_entries);
        let mut starts = Vec::with_capacity(granules as usize + 1);
        for granule in 0..granules {
            starts.push(table.len() as u32);
            table.extend_from_slice(self.settled(granule));
            table.extend_from_slice(self.since(granule));
        }
        starts.push(table.len() as u32);
        let (fresh, wide) = (BTreeMap::new(), std::mem::take(&mut self.wide));
        *self = Partition { starts, table, fresh, fresh_entries: 0, wide };
    }

    fn settled(&self, granule: u64) -> &[Entry] {
        match self.starts.get(granule as usize..granule as usize + 2) {
            Some(&[from, to]) => &self.table[from as usize..to as usize],
            _ => &[],
        }
    }

    fn since(&self, granule: u64) -> &[Entry] {
        self.fresh.get(&(granule as u16)).map_or(&[], |entries| entries)
    }

    fn find(&self, known: u32, base: u64, range: Range<u64>, found: &mut Vec<Found>) {
        let count = |entries: &[Entry]| entries.partition_point(|entry| entry.version < known);
        for granule in range.start / GRANULE_SECTORS..range.end.div_ceil(GRANULE_SECTORS) {
            let (settled, since) = (self.settled(granule), self.since(granule));
            let (settled, since) = (&settled[..count(settled)], &since[..count(since)]);
            if settled.is_empty() && since.is_empty() {
                continue;
            }
            let start = granule * GRANULE_SECTORS;
            let (from, to) = (range.start.max(start) - start, range.end.min(start + GRANULE_SECTORS) - start);
            let place = found.len();
            let entries = since.iter().rev().chain(settled.iter().rev());
            self.resolve(entries, known, start, mask(from, to - from), found);
            let new = &mut found[place..];
            new.iter_mut().for_each(|part| part.first += base);
            new.sort_by_key(|part| part.first);
        }
    }

    /// Walks one granule's versions, newest first, until every wanted sector is explained.
    fn resolve<'a>(
        &self,
        entries: impl Iterator<Item = &'a Entry>,
        known: u32,
        base: u64,
        mut wanted: u128,
        found: &mut Vec<Found>,
    ) {
        let end = base + GRANULE_SECTORS;
        let here = |wide: &&Wide| wide.version < known && wide.first < end && wide.end > base;
        let mut zeros = self.wide.iter().rev().filter(here).peekable();
        for entry in entries {
            while let Some(wide) = zeros.next_if(|wide| wide.version >= entry.version) {
                let from = wide.first.max(base) - base;
                wanted &= !mask(from, wide.end.min(end) - base - from);
            }
            if wanted == 0 {
                return;
            }
            let (first, sectors) = (u64::from(entry.first), u64::from(entry.sectors));
            let mut hit = wanted & mask(first, sectors);
            wanted &= !hit;
            while hit != 0 && !entry.zero {
                let at = u64::from(hit.trailing_zeros());
                let run = u64::from((hit >> at).trailing_ones());
                hit &= !mask(at, run);
                let (segment, unit) = (entry.segment, entry.unit);
                let offset = u64::from(entry.offset) + at - first;
                found.push(Found { first: base + at, sectors: run, segment, unit, offset });
            }
        }
    }
}
