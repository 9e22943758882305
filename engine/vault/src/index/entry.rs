//! Entries: what part of a cell holds as of one version; and the walk that explains a granule.

use super::key::Version;
use super::place::{Found, Tables};
use crate::segment::GRANULE_SECTORS;

/// The unit of zeros.
pub(crate) const ZERO: u32 = u32::MAX;

/// Content of part of a cell as of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The cell, within its space.
    pub(crate) index: u32,
    /// Ordinal of the version.
    pub(crate) version: u32,
    /// Ordinal of the unit, or [`ZERO`].
    pub(crate) unit: u32,
    pub(crate) first: u8,
    pub(crate) sectors: u8,
    /// Sectors into the unit.
    pub(crate) offset: u8,
}

const _: () = assert!(size_of::<Entry>() == 16, "the index's memory is planned for 16 bytes an entry");

pub(crate) fn mask(first: u64, sectors: u64) -> u128 {
    let ones = if sectors >= 128 { u128::MAX } else { (1 << sectors) - 1 };
    ones << first
}

/// A granule that is being explained: which of its sectors are still wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) granule: u64,
    pub(crate) mask: u128,
}

impl Wanted {
    /// The part of `[first, end)` that lies in the granule.
    pub(crate) fn new(granule: u64, first: u64, end: u64) -> Wanted {
        let start = granule * GRANULE_SECTORS;
        let (from, to) = (first.max(start) - start, end.min(start + GRANULE_SECTORS) - start);
        Wanted { granule, mask: mask(from, to - from) }
    }

    /// Takes entries of the granule, newest first, until all is explained or one is older than `floor`:
    /// the newest zeros over the whole granule, if there are any, end the walk.
    pub(crate) fn resolve<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        floor: Option<Version>,
        tables: &Tables,
        found: &mut Vec<Found>,
    ) {
        for entry in entries {
            if self.mask == 0 || floor.is_some_and(|floor| tables.versions[entry.version as usize] <= floor) {
                break;
            }
            let (first, sectors) = (u64::from(entry.first), u64::from(entry.sectors));
            let mut hit = self.mask & mask(first, sectors);
            self.mask &= !hit;
            while hit != 0 && entry.unit != ZERO {
                let at = u64::from(hit.trailing_zeros());
                let run = u64::from((hit >> at).trailing_ones());
                hit &= !mask(at, run);
                let (unit, offset) = (tables.unit(entry.unit), u64::from(entry.offset) + at - first);
                let first = self.granule * GRANULE_SECTORS + at;
                found.push(Found { first, sectors: run, unit, offset });
            }
        }
        self.close(floor);
    }

    /// Zeros over the whole granule explain all that newer entries did not.
    pub(crate) fn close(&mut self, floor: Option<Version>) {
        if floor.is_some() {
            self.mask = 0;
        }
    }
}
