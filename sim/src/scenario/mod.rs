//! Scenario files: one file, one story.
//!
//! [`load_scenarios`] reads a file, and those it stands on, into [`Scenario`]s or into *all* their problems. A scenario
//! still holds ranges and expressions; `crate::plan` draws them from a seed.
//!
//! What is *not* here: any randomness, any run.

pub mod budget;
mod catalogue;
mod codes;
mod day;
mod estate;
mod expect;
mod files;
pub mod keys;
pub mod known;
mod layout;
pub mod manual;
mod matrix;
mod picture;
mod problem;
mod quantity;
mod read;
mod reader;
mod scaled;
mod schema;
mod story;
mod targets;
mod timeline;
mod tree;
pub mod verbs;
mod weather;

pub use catalogue::{LOAD_WORDS, ORACLE_WORDS, WORDS, Words};
pub use codes::Code;
pub use day::Day;
pub use estate::standard as default_estate;
pub use expect::{Bound, MEASURES, Objective, STATISTICS};
pub use files::{Directories, Library, Nothing};
pub use known::{KNOWN_FILE, KnownFailure, KnownFailures, load_known};
pub use layout::{FileKind, LayoutError, layout};
pub use picture::{Alike, alike};
pub use problem::{Problem, Problems, Shown, SourceFile, advice, nearest};
pub use quantity::{Range, UNITS, Unit, parse_in, parse_range};
pub use read::{load, load_estate, load_scenarios, load_weather};
pub use reader::{is_pattern, matches};
pub use scaled::{PAGE_BYTES, carries, finest, slowest_link};
pub use schema::schema;
pub use story::{sentences, tell};
pub use tree::Span;

use std::collections::BTreeMap;
use verbs::Verb;

/// How many seeds a run set takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedCounts {
    /// The first one.
    pub from: u64,
    /// Whether the file names the first one: no other seed is then drawn for it.
    pub is_fixed: bool,
    /// On each change.
    pub pr: u64,
    /// Each night.
    pub nightly: u64,
}

/// A protected machine of the estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Host name.
    pub name: String,
    /// Sizes of its disks in bytes.
    pub disks: Vec<u64>,
}

/// A process server of the estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Host name.
    pub name: String,
    /// Its site: `source` or `target`.
    pub site: String,
}

/// The estate: hosts, sizes, bounds. All of it in the units of its operator, whatever the scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estate {
    /// Factor by which sizes and rates are divided when it is played.
    pub scale: u64,
    /// Protected machines, all in the site `source`.
    pub machines: Vec<MachineSpec>,
    /// Process servers; a machine uses the first until it is moved.
    pub servers: Vec<ServerSpec>,
    /// Hardware model of the disks.
    pub disk: String,
    /// Hardware model of the link between the sites.
    pub link: String,
    /// What the link carries in bytes per second, if not what its model does.
    pub bandwidth: Option<u64>,
    /// Hardware model of the object store.
    pub store: String,
    /// Bytes the agent may hold in memory.
    pub spool_memory: u64,
    /// Bytes the agent may spill.
    pub spill: u64,
    /// Bytes a process server may stage.
    pub stage: u64,
    /// Time between recovery points, in milliseconds.
    pub point_every: u64,
    /// The newest points that are kept; if none, those of the usual rules.
    pub keep: Option<u32>,
}

/// What the guest of a machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Model name, one of [`verbs::LOADS`].
    pub model: String,
    /// Operations per second.
    pub rate: Range,
    /// Bytes per second that are written in pages, instead of a rate of operations.
    pub writes: Option<Range>,
    /// The hours in which that holds.
    pub day: Option<Day>,
    /// Share of what is written that compression cannot save, in parts per million.
    pub entropy: Option<u32>,
    /// Operations under way at once.
    pub jobs: Range,
    /// Seed of the guest's own choices; drawn if it is none. A frozen scenario has it.
    pub seed: Option<u64>,
}

impl Load {
    /// Returns what it does, in words.
    pub fn words(&self) -> String {
        match self.writes {
            Some(writes) => format!("{}, {}/s", self.model, writes.words()),
            None => format!("{}, {}/s", self.model, self.rate.words()),
        }
    }
}

/// A point in time of the timeline: `[base] + offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// Label of an earlier step, with `true` for its start instead of its end.
    pub base: Option<(String, bool)>,
    /// Variables and constants that are added.
    pub terms: Vec<Value>,
}

/// A quantity: given, or drawn by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Given in place (a range here is drawn as well).
    Given(Range),
    /// `$name` of `[vary]`.
    Var(String),
}

/// A group of `[protect]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its machines.
    pub machines: Vec<String>,
    /// What is promised, in milliseconds.
    pub rpo: Option<u64>,
}

/// What a verb acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// One of these is drawn; none if the verb acts on nothing.
    Names(Vec<String>),
    /// The choice of `[vary]` with this name.
    Var(String),
}

/// A verb and what it acts on.
#[derive(Clone, Debug)]
pub struct Deed {
    /// The verb.
    pub verb: &'static Verb,
    /// Its targets.
    pub on: On,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Act {
    /// `do`, `fault` or `check`, from the key table; one of several is drawn.
    Verb(Vec<Deed>),
    /// `heal = "label"`.
    Heal(String),
    /// `end = true`.
    End,
}

/// One step of the timeline.
#[derive(Clone, Debug)]
pub struct Step {
    /// When.
    pub at: When,
    /// What.
    pub act: Act,
    /// How long.
    pub lasts: Option<Value>,
    /// Share of the seeds in which it happens, in parts per million.
    pub chance: u32,
    /// Label.
    pub id: Option<String>,
    /// Quantities of the verb.
    pub amounts: BTreeMap<String, Value>,
}

/// A recurring fault of the weather.
#[derive(Clone, Debug)]
pub struct Gust {
    /// One of these is drawn each time.
    pub deeds: Vec<Deed>,
    /// Time from one end to the next begin.
    pub every: Range,
    /// How long it lasts.
    pub lasts: Range,
    /// Share of the seeds in which it occurs at all, in parts per million.
    pub chance: u32,
    /// Quantities of the verb.
    pub amounts: BTreeMap<String, Range>,
}

/// Background faults.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Its name.
    pub name: String,
    /// What it is like.
    pub title: String,
    /// What comes and goes.
    pub gusts: Vec<Gust>,
}

/// From when on a promise counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// The end of the step with this label.
    Label(String),
    /// Milliseconds since the start; frozen scenarios have no labels.
    At(u64),
}

/// `protected(GROUP) within BOUND of LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// As it is written.
    pub text: String,
    /// The group.
    pub group: String,
    /// Milliseconds.
    pub within: u64,
    /// From when on they count.
    pub since: Since,
}

/// A variable of `[vary]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// A number.
    Range(Range),
    /// One of several names.
    Choice(Vec<String>),
}

/// What must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Promises in figures.
    pub objectives: Vec<Objective>,
    /// Groups that must be protected again.
    pub protected: Vec<Promise>,
    /// Oracles, by name.
    pub always: Vec<String>,
    /// Bound of the liveness phase in milliseconds.
    pub converges_within: u64,
    /// Marks that at least one seed of a run set must reach.
    pub sometimes: Vec<String>,
}

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name: the file's name without its extension, and the values of the matrix behind it.
    pub name: String,
    /// One line.
    pub title: String,
    /// Why it exists.
    pub why: String,
    /// Words to select by.
    pub tags: Vec<String>,
    /// What broke elsewhere, by its public reference.
    pub lessons: Vec<String>,
    /// Seeds per run set.
    pub seeds: SeedCounts,
    /// Hosts.
    pub estate: Estate,
    /// Groups by name.
    pub groups: BTreeMap<String, Group>,
    /// Guests, by machine name.
    pub loads: BTreeMap<String, Load>,
    /// Variables.
    pub vary: BTreeMap<String, Vary>,
    /// Steps in file order, except that none stands before one that its time refers to.
    pub steps: Vec<Step>,
    /// Adds faults drawn freely from these.
    pub swarm: Vec<&'static Verb>,
    /// Background faults.
    pub weather: Option<Weather>,
    /// Promises.
    pub expect: Expect,
}
