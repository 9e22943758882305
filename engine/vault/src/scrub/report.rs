//! What a scrub found: values only.

use crate::reader::PointId;
use redoubt_core::{MachineId, VolumeId, VolumeIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Damaged places kept; what is beyond them is counted. Bounds what a vault of rubble can make a scrub hold.
pub(super) const DAMAGE_MAX: usize = 10_000;

/// Points that follow one another and miss the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The first of them.
    pub first: PointId,
    /// The last of them.
    pub last: PointId,
    /// Sectors of a volume that cannot be read there; none: the points cannot be had at all.
    pub lost: Option<(VolumeIndex, Vec<Range<u64>>)>,
}

/// What damage takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No content of any point: why.
    Nothing(&'static str),
    /// These points or ranges; none at all if everything was written again since, before the next point.
    Points(Vec<Hit>),
    /// Nobody can say without the key.
    Unknown,
}

/// Bytes of an object that are not what they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object's name.
    pub object: String,
    /// First byte; equal to `to` if the object is missing.
    pub from: u64,
    /// The byte after the last one.
    pub to: u64,
    /// What is wrong with them.
    pub what: String,
    /// What that costs.
    pub takes: Takes,
    /// Sectors of the newest state that need these bytes: what the source could send again.
    pub newest: Vec<(VolumeIndex, Range<u64>)>,
}

/// An object that nothing names: no damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The object's name.
    pub object: String,
    /// Its length.
    pub bytes: u64,
}

/// An object that the store did not hand out: nothing is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The object's name.
    pub object: String,
    /// What the store said.
    pub why: String,
}

/// How far a scrub got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it was checked.
    Done,
    /// It was told to stop: what it says is true, and it is not all.
    Stopped,
}

/// All of it, for one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose objects.
    pub machine: MachineId,
    /// Whether units were opened and damage was mapped.
    pub with_keys: bool,
    /// How far it got.
    pub ended: Ended,
    /// Objects listed.
    pub objects: u64,
    /// Objects checked, damaged ones included.
    pub checked: u64,
    /// Of these, segments that an earlier scrub found whole: they were not read again.
    pub resumed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Units checked.
    pub units: u64,
    /// Points that were mapped.
    pub points: u64,
    /// Volumes by ordinal, as the newest point or state that has them says.
    pub volumes: BTreeMap<VolumeIndex, VolumeId>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Damaged places beyond those in `damage`.
    pub more: u64,
    /// Points whose records can be read and that cannot be had.
    pub lost: Vec<PointId>,
    /// Points that miss nothing; none if it is not known of each.
    pub whole: Vec<PointId>,
    /// What could not be read.
    pub unread: Vec<Unread>,
    /// What nothing names.
    pub orphans: Vec<Orphan>,
    /// What the newest version of the catalogue does not need any more and names to be deleted: it is not checked.
    pub garbage: BTreeSet<String>,
}

impl Report {
    /// Makes the report of a scrub that has seen nothing yet.
    pub fn new(machine: MachineId, with_keys: bool) -> Report {
        Report {
            machine,
            with_keys,
            ended: Ended::Done,
            objects: 0,
            checked: 0,
            resumed: 0,
            bytes: 0,
            units: 0,
            points: 0,
            volumes: BTreeMap::new(),
            damage: Vec::new(),
            more: 0,
            lost: Vec::new(),
            whole: Vec::new(),
            unread: Vec::new(),
            orphans: Vec::new(),
            garbage: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, damage: Damage) {
        if self.damage.len() < DAMAGE_MAX { self.damage.push(damage) } else { self.more += 1 }
    }

    /// Returns those of the points that no damage takes anything of, if everything was read and it is known of each damage
    /// what it takes.
    pub(super) fn whole_of(&self, points: impl Iterator<Item = PointId>) -> Vec<PointId> {
        let is_known = |damage: &Damage| damage.takes != Takes::Unknown;
        let is_all = self.ended == Ended::Done && self.unread.is_empty() && self.more == 0;
        if !is_all || !self.damage.iter().all(is_known) {
            return Vec::new();
        }
        let hits = self.damage.iter().flat_map(|damage| match &damage.takes {
            Takes::Points(hits) => &hits[..],
            _ => &[],
        });
        let hits: Vec<&Hit> = hits.collect();
        points.filter(|point| !hits.iter().any(|hit| (hit.first..=hit.last).contains(point))).collect()
    }

    /// Tells whether damage costs content, or may.
    pub fn costs_content(&self) -> bool {
        let costs = |damage: &Damage| match &damage.takes {
            Takes::Nothing(_) => false,
            Takes::Points(hits) => !hits.is_empty() || !damage.newest.is_empty(),
            Takes::Unknown => true,
        };
        self.more > 0 || self.damage.iter().any(costs)
    }
}
