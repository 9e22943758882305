//! Which units of which segments still show: what a fold keeps, and how much of it is worth keeping.

use crate::index::{SegmentPlace, UnitPlace};
use redoubt_core::SECTOR_BYTES;
use std::collections::BTreeMap;

/// Units of one segment that show.
#[derive(Debug, Default)]
struct Units {
    /// One bit each, by number.
    seen: Vec<u64>,
    /// Their sealed bytes.
    sealed: u64,
    /// Sealed bytes of what shows of them, about: packed anew it would take these.
    worth: u64,
}

/// Some 100 bytes for each segment that anything of a stretch lies in, and a bit for each unit.
#[derive(Debug, Default)]
pub(super) struct Live {
    segments: BTreeMap<SegmentPlace, Units>,
}

impl Live {
    /// So many sectors of a unit show, which were not added before.
    pub(super) fn add(&mut self, unit: &UnitPlace, sectors: u8) {
        let units = self.segments.entry(unit.segment).or_default();
        let (word, bit) = (unit.number as usize / 64, 1 << (unit.number % 64));
        if units.seen.len() <= word {
            units.seen.resize(word + 1, 0);
        }
        if units.seen[word] & bit == 0 {
            units.seen[word] |= bit;
            units.sealed += u64::from(unit.sealed);
        }
        let plain = u64::from(unit.plain).max(1);
        units.worth += u64::from(sectors) * SECTOR_BYTES * u64::from(unit.sealed) / plain;
    }

    /// Tells whether anything of a segment shows.
    pub(super) fn has(&self, segment: &SegmentPlace) -> bool {
        self.segments.contains_key(segment)
    }

    /// Returns the sealed bytes of the units of a segment that show.
    pub(super) fn bytes(&self, segment: &SegmentPlace) -> u64 {
        self.segments.get(segment).map_or(0, |units| units.sealed)
    }

    /// Returns about the bytes that would be left of a segment if all of it that shows were packed anew.
    pub(super) fn worth(&self, segment: &SegmentPlace) -> u64 {
        self.segments.get(segment).map_or(0, |units| units.worth)
    }
}
