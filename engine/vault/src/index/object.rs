//! What a maintainer may delete some day, by name: a table, a fold, a segment, a stretch of log slots.

use crate::codec::{Malformed, Put, Take};
use crate::names;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;

/// Ordered as they are deleted: content first, what names it later, so that whoever looks finds a reason for what is
/// still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    /// A segment that a writer put.
    Segment {
        epoch: u64,
        uuid: u128,
    },
    /// A segment that a maintainer packed.
    Packed {
        epoch: u64,
        uuid: u128,
    },
    Table {
        epoch: u64,
        uuid: u128,
    },
    Fold {
        epoch: u64,
        uuid: u128,
    },
    /// Log slots that follow one another.
    Slots {
        first: u64,
        last: u64,
    },
}

const TABLE: u8 = 1;
const FOLD: u8 = 2;
const SEGMENT: u8 = 3;
const PACKED: u8 = 4;
const SLOTS: u8 = 5;

impl Object {
    /// Returns how many objects of the store it stands for.
    pub(crate) fn count(&self) -> u64 {
        match *self {
            Object::Slots { first, last } => last - first + 1,
            _ => 1,
        }
    }

    /// Returns the names in the store.
    pub(crate) fn names(&self, machine: MachineId) -> impl Iterator<Item = StoreKey> {
        let (one, slots) = match *self {
            Object::Segment { epoch, uuid } => (Some(names::segment(machine, epoch, uuid)), None),
            Object::Packed { epoch, uuid } => (Some(names::packed_segment(machine, epoch, uuid)), None),
            Object::Table { epoch, uuid } => (Some(names::table(machine, epoch, uuid)), None),
            Object::Fold { epoch, uuid } => (Some(names::fold(machine, epoch, uuid)), None),
            Object::Slots { first, last } => (None, Some(first..=last)),
        };
        let slots = slots.into_iter().flatten().map(move |slot| names::slot(machine, slot));
        one.into_iter().chain(slots)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut upload = |kind, epoch, uuid| {
            out.put_u8(kind);
            out.put_varint(epoch);
            out.put_u128(uuid);
        };
        match *self {
            Object::Table { epoch, uuid } => upload(TABLE, epoch, uuid),
            Object::Fold { epoch, uuid } => upload(FOLD, epoch, uuid),
            Object::Segment { epoch, uuid } => upload(SEGMENT, epoch, uuid),
            Object::Packed { epoch, uuid } => upload(PACKED, epoch, uuid),
            Object::Slots { first, last } => {
                out.put_u8(SLOTS);
                out.put_varint(first);
                out.put_varint(last);
            }
        }
    }

    fn take(take: &mut Take<'_>) -> Result<Object, Malformed> {
        let (kind, number) = (take.u8()?, take.varint()?);
        Ok(match kind {
            TABLE => Object::Table { epoch: number, uuid: take.u128()? },
            FOLD => Object::Fold { epoch: number, uuid: take.u128()? },
            SEGMENT => Object::Segment { epoch: number, uuid: take.u128()? },
            PACKED => Object::Packed { epoch: number, uuid: take.u128()? },
            SLOTS => match take.varint()? {
                last if number > 0 && last >= number => Object::Slots { first: number, last },
                _ => return Err(Malformed("garbage of no slot")),
            },
            _ => return Err(Malformed("garbage of an unknown kind")),
        })
    }
}

/// What a version does not need and one before did, by the first version that did not.
pub(crate) type Trash = BTreeMap<Object, u64>;

pub(crate) fn put_trash(out: &mut Vec<u8>, trash: &Trash) {
    out.put_varint(trash.len() as u64);
    for (object, since) in trash {
        object.put(out);
        out.put_varint(*since);
    }
}

pub(crate) fn take_trash(take: &mut Take<'_>) -> Result<Trash, Malformed> {
    let mut trash = Trash::new();
    for _ in 0..take.varint()? {
        let object = Object::take(take)?;
        trash.insert(object, take.varint()?);
    }
    Ok(trash)
}
