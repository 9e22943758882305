//! A second reader of vaults, written from `engine/docs/vault-format.md` alone. It shares no code with the
//! engine, so that a mistake of one of the two is not confirmed by the other.
//!
//! - [`prove`] walks the log from its first slot, or from where it was folded: every record opens and names the digest
//!   of the one before, every commit begins where the one before ended, every unit opens, of what was folded as of
//!   the log. Damage is mapped to the points and ranges it hits.
//! - [`content`] hands out what a point holds, each sector once, for a comparison.
//!
//! Memory holds one segment, the log's records, and the borders of what was handed out.
//! What is *not* here: a writer, an index, a store.
#![forbid(unsafe_code)]

mod content;
mod folds;
mod format;
mod proof;
mod ranges;

pub use content::{Content, content};
use format::{Id, hex};
pub use proof::prove;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

/// Reads the objects of one vault.
pub trait Objects {
    /// Returns an object's bytes; `None` if there is none of that name. An error is no answer at all.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String>;
    /// Returns the names that begin so, sorted.
    fn list(&self, prefix: &str) -> Result<Vec<String>, String>;
}

/// Volumes by ordinal: identity and sectors.
pub type Volumes = BTreeMap<u16, (Id, u64)>;

/// Bytes of an object that are not what they must be; an empty range stands for all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object's name.
    pub object: String,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// What is wrong with them.
    pub what: String,
}

/// Why reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store gave no answer, so nothing is known.
    Store(String),
    /// The vault is damaged, or the key is another one.
    Damage(Damage),
}

impl Fault {
    fn damage(object: &str, bytes: Range<u64>, what: &str) -> Fault {
        Fault::Damage(Damage { object: object.to_owned(), bytes, what: what.to_owned() })
    }
}

/// A machine in a vault, with its data keys by number; objects name theirs.
struct Machine {
    vault: Id,
    id: Id,
    data_keys: BTreeMap<u64, [u8; 32]>,
}

impl Machine {
    fn slot(&self, slot: u64) -> String {
        format!("g/{}/log/{slot:016x}", hex(&self.id))
    }
}

/// A recovery point, as the log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Log slot and ordinal in it: the point's name.
    pub slot: u64,
    /// See `slot`.
    pub ordinal: u16,
    /// Marker's identity.
    pub marker: Id,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// The marker's place in the stream.
    pub seq: u64,
    /// Whether the stream was exact there.
    pub exact: bool,
    /// Volumes at that point.
    pub volumes: Volumes,
}

/// A segment as its log record lists it.
#[derive(Clone, Debug)]
struct SegmentRow {
    uuid: Id,
    length: u64,
    table: usize,
    units: usize,
    root: [u8; 32],
    digest: [u8; 32],
    epoch: u64,
    data_key: u64,
    /// That of its record; a fold does not know it.
    minor: Option<[u8; 2]>,
    holder: Holder,
    versions: Versions,
}

/// The object that a segment is in.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// One of its own, put by a writer.
    Own,
    /// A log slot, and where in it.
    Slot(u64, usize),
    /// One of its own, put by a maintainer.
    Packed,
}

/// Versions of a segment's spans.
#[derive(Clone, Debug)]
enum Versions {
    /// Those of this slot.
    Of(u64),
    Each(Vec<u64>),
}

impl SegmentRow {
    /// Version of a span: the slot, then 16 bits of what was the span there.
    fn version(&self, span: u64) -> Option<u64> {
        match &self.versions {
            Versions::Of(slot) => (span < 1 << 16).then(|| (slot << 16) + span),
            Versions::Each(versions) => versions.get(span as usize).copied(),
        }
    }
}

/// Generation, sequence and chain of the stream.
pub type Head = (u64, u64, [u8; 32]);

/// What some slots wrote: one of the log, or those of a run that was folded.
#[derive(Clone, Debug)]
struct Layer {
    slots: RangeInclusive<u64>,
    segments: Vec<SegmentRow>,
    /// Version, volume, sectors: zeros that the folds name.
    zeros: Vec<(u64, u16, Range<u64>)>,
}

impl Default for Layer {
    fn default() -> Layer {
        Layer { slots: 1..=1, segments: Vec::new(), zeros: Vec::new() }
    }
}

/// What is left of the log's beginning, whose records are gone: what it says is sealed with the machine's key, but
/// that nothing is left out is the word of the maintainer who folded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The last slot that was folded.
    pub slot: u64,
    /// The last change in it.
    pub seq: u64,
    /// Version of the catalogue that says so.
    pub catalogue: u64,
    /// Whether all of it is there.
    pub is_whole: bool,
}

/// A log record that opened.
#[derive(Clone, Debug, Default)]
struct Record {
    slot: u64,
    epoch: u64,
    prev: [u8; 32],
    from: u64,
    /// The stream after it.
    head: Head,
    points: Vec<Point>,
    segments: Vec<SegmentRow>,
    inline_at: usize,
}

/// Which sectors of a point a damaged place takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Slot and ordinal of the point.
    pub point: (u64, u16),
    /// Volume, by ordinal.
    pub volume: u16,
    /// First sector and the one after the last, merged where they touch.
    pub sectors: Range<u64>,
}

/// What [`prove`] found.
#[derive(Default)]
pub struct Proof {
    machine: Option<Machine>,
    layers: Vec<Layer>,
    /// What is known from folds, if the log's beginning was given up.
    pub folded: Option<Folded>,
    /// The last of the log slots that follow one another without a break, from the first or from the folds on.
    pub slots: u64,
    /// Points up to there, oldest first.
    pub points: Vec<Point>,
    /// Generation, sequence and chain of the stream there.
    pub head: Head,
    /// Units that opened, and their plain bytes.
    pub units: (u64, u64),
    /// Segments read, and their bytes.
    pub segments: (u64, u64),
    /// Damaged units; they take no point as a whole.
    pub damage: Vec<Damage>,
    /// What they take.
    pub hits: Vec<Hit>,
    /// Where the proof ends before it should: no point behind it is proven.
    pub broken: Option<Damage>,
    /// Points behind that place whose records can still be read, so that they can be named.
    pub lost: Vec<Point>,
}
