//! Where content lies in the index's order: volume, level, index; and how an extent is cut into such cells.
//!
//! A cell of level 0 is a granule of 64 KiB, one of level n+1 is 64 cells of level n. Data lies in cells of
//! level 0. Zeros lie in the largest whole cells that fit, so that a trim of a whole disk costs a handful of
//! entries and a lookup asks one cell per level, never a list of ranges.

use crate::reader::PointId;
use crate::segment::GRANULE_SECTORS;
use redoubt_core::VolumeIndex;

/// Each level's cell is 64 of the level below.
const FAN_BITS: u32 = 6;
/// Enough for a volume of 2^64 sectors.
pub(crate) const LEVELS: u8 = 10;

/// A slot and a span in it, as one number in the log's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version(pub(crate) u64);

impl Version {
    pub(crate) fn new(slot: u64, span: u16) -> Version {
        Version(slot << 16 | u64::from(span))
    }

    pub(crate) fn slot(self) -> u64 {
        self.0 >> 16
    }

    /// The point that sees all up to this version, if there is one.
    pub(crate) fn point(self) -> PointId {
        PointId { slot: self.slot(), ordinal: self.0 as u16 }
    }
}

/// Cells of one volume and level whose numbers share all but their low 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Space {
    pub(crate) volume: VolumeIndex,
    pub(crate) level: u8,
    pub(crate) high: u32,
}

impl Space {
    /// Returns the number of a cell of its level.
    pub(crate) fn number(&self, index: u32) -> u64 {
        u64::from(self.high) << 32 | u64::from(index)
    }

    /// Returns the first sector of a cell, and how many it has.
    pub(crate) fn sectors(&self, index: u32) -> (u64, u64) {
        let bits = FAN_BITS * u32::from(self.level);
        ((self.number(index) << bits) * GRANULE_SECTORS, GRANULE_SECTORS << bits)
    }

    /// Returns the larger cells over a cell: their levels and numbers.
    pub(crate) fn over(&self, index: u32) -> impl Iterator<Item = (u8, u64)> + use<> {
        let (level, number) = (self.level, self.number(index));
        (level + 1..LEVELS).map(move |higher| (higher, number >> (FAN_BITS * u32::from(higher - level))))
    }
}

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) space: Space,
    pub(crate) index: u32,
}

impl Cell {
    pub(crate) fn new(volume: VolumeIndex, level: u8, number: u64) -> Cell {
        let space = Space { volume, level, high: (number >> 32) as u32 };
        Cell { space, index: number as u32 }
    }

    /// Returns the cell of a level that contains the granule.
    pub(crate) fn over(volume: VolumeIndex, level: u8, granule: u64) -> Cell {
        Cell::new(volume, level, granule >> (FAN_BITS * u32::from(level)))
    }
}

/// Part of an extent: sectors of one granule, or a whole cell of a higher level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) level: u8,
    pub(crate) number: u64,
    pub(crate) first: u8,
    pub(crate) sectors: u8,
}

/// Cuts zeros into cells. At most 126 pieces per level and two parts of granules.
pub(crate) fn cut_zeros(first: u64, end: u64, mut each: impl FnMut(Piece)) {
    let granule = GRANULE_SECTORS;
    let (mut from, mut to) = (first.div_ceil(granule), end / granule);
    if from > to {
        // Within one granule, touching neither of its ends.
        let (first, sectors) = ((first % granule) as u8, (end - first) as u8);
        return each(Piece { level: 0, number: to, first, sectors });
    }
    let part = |number: u64, first: u64, sectors: u64| {
        let (first, sectors) = (first as u8, sectors as u8);
        Piece { level: 0, number, first, sectors }
    };
    if !first.is_multiple_of(granule) {
        each(part(from - 1, first % granule, granule - first % granule));
    }
    if !end.is_multiple_of(granule) {
        each(part(to, 0, end % granule));
    }
    let fan = 1 << FAN_BITS;
    for level in 0..LEVELS {
        let whole = |number| Piece { level, number, first: 0, sectors: granule as u8 };
        let (inner_from, inner_to) = (from.div_ceil(fan), to / fan);
        if level + 1 == LEVELS || inner_from >= inner_to {
            (from..to).for_each(|number| each(whole(number)));
            return;
        }
        (from..inner_from * fan).for_each(|number| each(whole(number)));
        (inner_to * fan..to).for_each(|number| each(whole(number)));
        (from, to) = (inner_from, inner_to);
    }
}
