//! Units of disk addresses. If it is sectors, the type says sectors.
//!
//! The engine's exact unit is the 512-byte sector, whatever the device's physical sector is:
//! it is the smallest write that any supported client can make durable on its own.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes in one sector, the exact unit of every address in the engine.
pub const SECTOR_BYTES: u64 = 512;

/// Address of a sector on a volume, counted from zero in units of [`SECTOR_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lba(pub u64);

impl Lba {
    /// Returns the byte offset of this sector.
    pub fn bytes(self) -> u64 {
        self.0 * SECTOR_BYTES
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}", self.0)
    }
}

/// A count of sectors of [`SECTOR_BYTES`] each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sectors(pub u64);

impl Sectors {
    /// Returns the size in bytes.
    pub fn bytes(self) -> u64 {
        self.0 * SECTOR_BYTES
    }
}

/// A non-empty run of sectors: `[lba, lba + sectors)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// First sector.
    pub lba: Lba,
    /// Number of sectors, never zero.
    pub sectors: Sectors,
}

impl Extent {
    /// Makes an extent of `sectors` sectors from `lba`, both plain counts.
    pub fn new(lba: u64, sectors: u64) -> Extent {
        debug_assert!(sectors > 0, "an extent is never empty");
        Extent { lba: Lba(lba), sectors: Sectors(sectors) }
    }

    /// Returns the smallest extent that covers the byte range, or `None` if it is empty.
    pub fn covering_bytes(offset: u64, length: u64) -> Option<Extent> {
        if length == 0 {
            return None;
        }
        let first = offset / SECTOR_BYTES;
        let end = (offset + length).div_ceil(SECTOR_BYTES);
        Some(Extent::new(first, end - first))
    }

    /// Returns the first sector after the extent, as a plain count.
    pub fn end(self) -> u64 {
        self.lba.0 + self.sectors.0
    }

    /// Returns the length in bytes.
    pub fn bytes(self) -> u64 {
        self.sectors.bytes()
    }

    /// Tells whether the two extents share a sector.
    pub fn overlaps(self, other: Extent) -> bool {
        self.lba.0 < other.end() && other.lba.0 < self.end()
    }

    /// Returns the shared part, if any.
    pub fn intersection(self, other: Extent) -> Option<Extent> {
        let first = self.lba.0.max(other.lba.0);
        let end = self.end().min(other.end());
        (first < end).then(|| Extent::new(first, end - first))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sectors {}..{}", self.lba.0, self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_covered_by_the_smallest_run_of_sectors() {
        assert_eq!(Extent::covering_bytes(0, 0), None);
        assert_eq!(Extent::covering_bytes(0, 1), Some(Extent::new(0, 1)));
        assert_eq!(Extent::covering_bytes(511, 2), Some(Extent::new(0, 2)));
        assert_eq!(Extent::covering_bytes(512, 512), Some(Extent::new(1, 1)));
    }

    #[test]
    fn touching_extents_do_not_overlap() {
        let a = Extent::new(0, 8);
        assert!(!a.overlaps(Extent::new(8, 1)));
        assert_eq!(a.intersection(Extent::new(7, 4)), Some(Extent::new(7, 1)));
        assert_eq!(a.intersection(Extent::new(8, 4)), None);
    }
}
