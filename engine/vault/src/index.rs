//! The index: per volume and 64 KiB granule, every version of every sector, newest last.
//!
//! Invariants
//! - IX-1 Entries of a granule are in version order; two of one version do not overlap.
//! - IX-2 A lookup at version v never sees a later entry.

use crate::segment::{ExtentRow, GRANULE_SECTORS, Source};
use redoubt_core::VolumeIndex;
use std::collections::BTreeMap;

/// A slot and a span in it, as one number in the log's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64);

impl Version {
    pub(crate) fn new(slot: u64, span: u16) -> Version {
        Version(slot << 16 | u64::from(span))
    }
}

/// Zeros over more granules than this are kept once, not per granule.
const WIDE_GRANULES: u64 = 64;

/// Content of part of a granule as of one version.
#[derive(Clone, Copy, Debug)]
struct Entry {
    version: Version,
    segment: u32,
    unit: u32,
    first: u8,
    sectors: u8,
    offset: u8,
    zero: bool,
}

#[derive(Debug, Default)]
struct VolumeIndexed {
    granules: BTreeMap<u64, Vec<Entry>>,
    wide: Vec<(Version, u64, u64)>,
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
#[derive(Debug, Default)]
pub(crate) struct Index {
    volumes: BTreeMap<VolumeIndex, VolumeIndexed>,
}

fn mask(first: u64, sectors: u64) -> u128 {
    let ones = if sectors >= 128 { u128::MAX } else { (1 << sectors) - 1 };
    ones << first
}

impl Index {
    /// Adds one extent; versions must not go back.
    pub(crate) fn add(&mut self, version: Version, segment: u32, row: &ExtentRow) {
        let volume = self.volumes.entry(row.volume).or_default();
        let end = row.first + row.sectors;
        let (from, to) = (row.first / GRANULE_SECTORS, (end - 1) / GRANULE_SECTORS);
        if to - from > WIDE_GRANULES {
            volume.wide.push((version, row.first, end));
            return;
        }
        let (zero, unit, offset) = match row.source {
            Source::Zero => (true, 0, 0),
            Source::Unit { unit, offset } => (false, unit, offset),
        };
        for granule in from..=to {
            let base = granule * GRANULE_SECTORS;
            let (first, last) = (row.first.max(base) - base, end.min(base + GRANULE_SECTORS) - base);
            let entry = Entry {
                version,
                segment,
                unit,
                first: first as u8,
                sectors: (last - first) as u8,
                offset,
                zero,
            };
            let entries = volume.granules.entry(granule).or_default();
            debug_assert!(entries.last().is_none_or(|last| last.version <= version), "IX-1");
            entries.push(entry);
        }
    }

    /// Finds the content of `[first, end)` at a version, in address order; gaps are zeros.
    pub(crate) fn find(&self, version: Version, volume: VolumeIndex, first: u64, end: u64) -> Vec<Found> {
        let mut found = Vec::new();
        let Some(volume) = self.volumes.get(&volume) else { return found };
        let granules = first / GRANULE_SECTORS..end.div_ceil(GRANULE_SECTORS);
        for (granule, entries) in volume.granules.range(granules) {
            let base = granule * GRANULE_SECTORS;
            let (from, to) = (first.max(base) - base, end.min(base + GRANULE_SECTORS) - base);
            let start = found.len();
            resolve(entries, &volume.wide, version, base, mask(from, to - from), &mut found);
            found[start..].sort_by_key(|part| part.first);
        }
        found
    }
}

/// Walks one granule's versions, newest first, until every wanted sector is explained.
fn resolve(
    entries: &[Entry],
    wide: &[(Version, u64, u64)],
    version: Version,
    base: u64,
    mut wanted: u128,
    found: &mut Vec<Found>,
) {
    let known = entries.partition_point(|entry| entry.version <= version);
    let end = base + GRANULE_SECTORS;
    let reach = |(at, from, to): &&(Version, u64, u64)| *at <= version && *from < end && *to > base;
    let mut zeros = wide.iter().filter(reach).rev().peekable();
    let mut rest = entries[..known].iter().rev().peekable();
    while wanted != 0 {
        let zero_next = match (zeros.peek(), rest.peek()) {
            (None, None) => return,
            (Some((at, ..)), Some(entry)) => *at >= entry.version,
            (zero, _) => zero.is_some(),
        };
        if zero_next {
            let Some((_, from, to)) = zeros.next() else { return };
            let from = (*from).max(base) - base;
            wanted &= !mask(from, (*to).min(end) - base - from);
            continue;
        }
        let Some(entry) = rest.next() else { return };
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
