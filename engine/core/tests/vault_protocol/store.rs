//! The store of the model: names and immutable objects, and everything a store may do to a request.
//!
//! Faults: a put that is applied while its reply is lost, applied later or never, even after its sender died; an
//! "already exists" that is not true; a delete that is lost, repeated later, or comes undone.

use redoubt_core::maintenance::{Garbage, Retention};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    WriterClaim(u32),
    MaintainerClaim(u32),
    Log(u32),
    /// A writer's upload.
    Segment(u32, u32),
    Catalogue(u32),
    /// A maintainer's upload: index, fold or packed segment.
    Upload(u32, u32),
    Pin(u32, u32),
}

pub(crate) const LOGS: RangeInclusive<Name> = Name::Log(0)..=Name::Log(u32::MAX);
pub(crate) const SEGMENTS: RangeInclusive<Name> = Name::Segment(0, 0)..=Name::Segment(u32::MAX, u32::MAX);
pub(crate) const CATALOGUES: RangeInclusive<Name> = Name::Catalogue(0)..=Name::Catalogue(u32::MAX);
pub(crate) const UPLOADS: RangeInclusive<Name> = Name::Upload(0, 0)..=Name::Upload(u32::MAX, u32::MAX);
pub(crate) const PINS: RangeInclusive<Name> = Name::Pin(0, 0)..=Name::Pin(u32::MAX, u32::MAX);

/// A log record. One commit writes one block of the disk, whose name is `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: u32,
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    pub(crate) prev: u32,
    /// Position of the stream before it; a commit takes it on by one, a seal does not.
    pub(crate) from: u32,
    pub(crate) key: Option<u8>,
    /// None: inline in the slot.
    pub(crate) segment: Option<Name>,
    pub(crate) is_point: bool,
}

/// What a fold says of one block: its content as of a slot is in this object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) slot: u32,
    pub(crate) key: u8,
    pub(crate) object: Name,
}

/// A run of the index, folded or not, held by one object.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) last: u32,
    pub(crate) entries: u64,
    pub(crate) object: Name,
    pub(crate) fold: Option<Rc<Vec<Row>>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) id: u32,
    pub(crate) version: u32,
    pub(crate) epoch: u32,
    /// The last slot covered.
    pub(crate) slot: u32,
    pub(crate) log_from: u32,
    /// Identity and epoch of the record before `log_from`, and the stream's position there.
    pub(crate) before: (u32, u32, u32),
    pub(crate) points: Retention<u32>,
    pub(crate) runs: Vec<Run>,
    pub(crate) garbage: Vec<Garbage<Name>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Plain,
    Record(Record),
    Catalogue(Rc<Catalogue>),
}

/// An object; equal identity means equal bytes.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) id: u32,
    pub(crate) body: Body,
}

impl Object {
    pub(crate) fn record(&self) -> Option<Record> {
        if let Body::Record(record) = &self.body { Some(*record) } else { None }
    }

    pub(crate) fn catalogue(&self) -> Option<Rc<Catalogue>> {
        if let Body::Catalogue(catalogue) = &self.body { Some(Rc::clone(catalogue)) } else { None }
    }
}

/// A small generator of random numbers: a seed gives one schedule.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed >> 32) * u64::from(limit)) >> 32) as u32
    }

    /// Tells whether something happens that happens `per_mille` times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }
}

/// How often what goes wrong, per thousand requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost_reply: u32,
    pub(crate) late_put: u32,
    pub(crate) false_exists: u32,
    pub(crate) lost_delete: u32,
    pub(crate) undone_delete: u32,
    /// Claims and pins, on top: their races are rare.
    pub(crate) claim_or_pin: u32,
}

pub(crate) enum Reply {
    Done,
    Exists,
    Unknown,
}

/// Something that the store does later.
pub(crate) enum Ghost {
    Put(Name, Object),
    Delete(Name),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Put(Name),
    Deleted(Name),
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) objects: BTreeMap<Name, Object>,
    pub(crate) ghosts: Vec<Ghost>,
    pub(crate) faults: Faults,
    /// What happened since the oracles looked.
    pub(crate) changes: Vec<Change>,
}

impl Store {
    fn apply_put(&mut self, name: Name, object: Object) -> bool {
        let is_new = !self.objects.contains_key(&name);
        if is_new {
            self.objects.insert(name, object);
            self.changes.push(Change::Put(name));
        }
        is_new
    }

    fn apply_delete(&mut self, name: Name) -> Option<Object> {
        let object = self.objects.remove(&name)?;
        self.changes.push(Change::Deleted(name));
        Some(object)
    }

    pub(crate) fn put(&mut self, name: Name, object: &Object, rng: &mut Rng) -> Reply {
        let extra = match name {
            Name::WriterClaim(_) | Name::MaintainerClaim(_) | Name::Pin(..) => self.faults.claim_or_pin,
            _ => 0,
        };
        if rng.chance(self.faults.false_exists) {
            return Reply::Exists;
        }
        if rng.chance(self.faults.late_put + extra / 2) {
            self.ghosts.push(Ghost::Put(name, object.clone()));
            return Reply::Unknown;
        }
        let is_new = self.apply_put(name, object.clone());
        match is_new {
            _ if rng.chance(self.faults.lost_reply + extra / 2) => Reply::Unknown,
            true => Reply::Done,
            false => Reply::Exists,
        }
    }

    pub(crate) fn delete(&mut self, name: Name, rng: &mut Rng) {
        let extra = if matches!(name, Name::Pin(..)) { self.faults.claim_or_pin } else { 0 };
        if rng.chance(self.faults.lost_delete + extra) {
            self.ghosts.push(Ghost::Delete(name));
        }
        let object = self.apply_delete(name);
        if let Some(object) = object.filter(|_| rng.chance(self.faults.undone_delete)) {
            self.ghosts.push(Ghost::Put(name, object));
        }
    }

    /// Does something that was asked for long ago, or forgets it.
    pub(crate) fn haunt(&mut self, rng: &mut Rng) {
        if self.ghosts.is_empty() {
            return;
        }
        let at = rng.below(self.ghosts.len() as u32) as usize;
        let ghost = self.ghosts.swap_remove(at);
        if rng.chance(200) {
            return;
        }
        match ghost {
            Ghost::Put(name, object) => {
                self.apply_put(name, object);
            }
            Ghost::Delete(name) => {
                self.apply_delete(name);
            }
        }
    }

    pub(crate) fn has_ghosts(&self) -> bool {
        !self.ghosts.is_empty()
    }
}
