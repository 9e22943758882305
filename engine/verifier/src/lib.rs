//! A second reader of vaults, written from `engine/docs/vault-format.md` alone. It shares no code with the
//! engine, so that a mistake of one of the two is not confirmed by the other.
//!
//! - [`prove`] walks the log from its first slot: every record opens and names the digest of the one before,
//!   every commit begins where the one before ended, every unit opens. Damage is mapped to the points and
//!   ranges it hits.
//! - [`content`] hands out what a point holds, each sector once, for a comparison.
//!
//! Memory holds one segment, the log's records, and the borders of what was handed out.
//! What is *not* here: a writer, an index, a store.
#![forbid(unsafe_code)]

mod content;
mod format;
mod proof;
mod ranges;

pub use content::{Content, content};
use format::{Id, hex};
pub use proof::prove;
use std::collections::BTreeMap;
use std::ops::Range;

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
    inline: bool,
}

/// A log record that opened.
#[derive(Clone, Debug, Default)]
struct Record {
    slot: u64,
    epoch: u64,
    data_key: u64,
    minor: [u8; 2],
    prev: [u8; 32],
    from: u64,
    /// Generation, sequence and chain of the stream after it.
    head: (u64, u64, [u8; 32]),
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
    records: Vec<Record>,
    /// Log slots that follow one another without a break.
    pub slots: u64,
    /// Points up to there, oldest first.
    pub points: Vec<Point>,
    /// Generation, sequence and chain of the stream there.
    pub head: (u64, u64, [u8; 32]),
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
