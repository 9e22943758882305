//! Where content is: segments and units as the index names them, without what only a writer needs.

use super::key::Version;
use super::object::Object;
use crate::names;
use crate::segment::{SegmentId, UnitRow};
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;

/// What holds a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    /// An object of its own that a writer put.
    Own,
    /// The object of a log slot, from byte `base` on, behind the record.
    Inline { slot: u64, base: u64 },
    /// An object of its own that a maintainer packed.
    Packed,
}

/// A segment's identity and object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentPlace {
    pub(crate) uuid: u128,
    pub(crate) epoch: u64,
    pub(crate) dek: u32,
    pub(crate) held: Held,
}

impl SegmentPlace {
    pub(crate) fn id(&self, vault: u128, machine: MachineId) -> SegmentId {
        SegmentId { vault, machine, epoch: self.epoch, uuid: self.uuid, dek: self.dek }
    }

    /// Returns the object that holds the segment, and where in it the segment starts.
    pub(crate) fn object(&self, machine: MachineId) -> (StoreKey, u64) {
        match self.held {
            Held::Own => (names::segment(machine, self.epoch, self.uuid), 0),
            Held::Inline { slot, base } => (names::slot(machine, slot), base),
            Held::Packed => (names::packed_segment(machine, self.epoch, self.uuid), 0),
        }
    }

    /// Returns its object, if it has one of its own.
    pub(crate) fn upload(&self) -> Option<Object> {
        let (epoch, uuid) = (self.epoch, self.uuid);
        match self.held {
            Held::Own => Some(Object::Segment { epoch, uuid }),
            Held::Packed => Some(Object::Packed { epoch, uuid }),
            Held::Inline { .. } => None,
        }
    }

    /// Returns the slot whose object holds the segment, and where in it, if one does.
    pub(crate) fn inline(&self) -> Option<(u64, u64)> {
        match self.held {
            Held::Inline { slot, base } => Some((slot, base)),
            Held::Own | Held::Packed => None,
        }
    }
}

/// A unit, complete enough to be read and opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnitPlace {
    pub(crate) segment: SegmentPlace,
    pub(crate) number: u32,
    /// From the segment's start.
    pub(crate) offset: u32,
    /// Sealed bytes, tag included.
    pub(crate) sealed: u32,
    pub(crate) plain: u32,
    pub(crate) codec: u8,
}

impl UnitPlace {
    pub(crate) fn new(segment: SegmentPlace, number: u32, row: &UnitRow) -> UnitPlace {
        let (offset, sealed) = (row.offset as u32, row.sealed);
        UnitPlace { segment, number, offset, sealed, plain: row.plain, codec: row.codec }
    }

    /// The row of the segment's own table, as far as a reader needs it.
    pub(crate) fn row(&self) -> UnitRow {
        let UnitPlace { offset, sealed, plain, codec, .. } = *self;
        UnitRow { offset: u64::from(offset), sealed, plain, codec, crc: 0 }
    }
}

/// Where the content of part of a read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) first: u64,
    pub(crate) sectors: u64,
    pub(crate) unit: UnitPlace,
    /// Sectors into the unit.
    pub(crate) offset: u64,
}

/// A unit in memory: its segment is an ordinal, the codec the highest bit of `plain`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    segment: u32,
    number: u32,
    offset: u32,
    sealed: u32,
    plain: u32,
}

/// What entries name by ordinal.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) versions: Vec<Version>,
    pub(super) segments: Vec<SegmentPlace>,
    pub(super) units: Vec<Unit>,
}

impl Tables {
    pub(crate) fn add_segment(&mut self, segment: SegmentPlace) {
        self.segments.push(segment);
    }

    /// Adds a unit of the newest segment.
    pub(crate) fn add_unit(&mut self, place: &UnitPlace) {
        let UnitPlace { number, offset, sealed, plain, codec, .. } = *place;
        let segment = self.segments.len().saturating_sub(1) as u32;
        self.units.push(Unit { segment, number, offset, sealed, plain: plain | u32::from(codec) << 31 });
    }

    pub(crate) fn units(&self) -> u32 {
        self.units.len() as u32
    }

    pub(crate) fn unit(&self, ordinal: u32) -> UnitPlace {
        let unit = self.units[ordinal as usize];
        let (segment, codec) = (self.segments[unit.segment as usize], (unit.plain >> 31) as u8);
        let Unit { number, offset, sealed, plain, .. } = unit;
        UnitPlace { segment, number, offset, sealed, plain: plain & !(1 << 31), codec }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.versions.capacity() * size_of::<Version>()
            + self.segments.capacity() * size_of::<SegmentPlace>()
            + self.units.capacity() * size_of::<Unit>()
    }
}
