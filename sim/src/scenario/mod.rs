//! Scenario files: one file, one story.
//!
//! [`load`] reads a file into a [`Scenario`] or into *all* its problems. A scenario still holds
//! ranges and expressions; `crate::plan` draws them from a seed.
//!
//! What is *not* here: any randomness, any run.

mod problem;
mod quantity;
mod read;
mod timeline;
pub mod verbs;

pub use problem::{Problem, Problems, advice, nearest};
pub use quantity::{Range, Unit, parse_in, parse_range};
pub use read::{default_estate, load};

use std::collections::BTreeMap;
use verbs::Verb;

/// How many seeds a run set takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedCounts {
    /// The first one.
    pub from: u64,
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

/// The estate: hosts, sizes, bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estate {
    /// Protected machines, all in the site `source`.
    pub machines: Vec<MachineSpec>,
    /// Process servers; a machine uses the first until it is moved.
    pub servers: Vec<ServerSpec>,
    /// Hardware model of the disks.
    pub disk: String,
    /// Hardware model of the link between the sites.
    pub link: String,
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
}

/// What the guest of a machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Model name, one of [`verbs::LOADS`].
    pub model: String,
    /// Operations per second.
    pub rate: Range,
    /// Operations under way at once.
    pub jobs: Range,
    /// Seed of the guest's own choices; drawn if it is none. A frozen scenario has it.
    pub seed: Option<u64>,
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

/// What a step does.
#[derive(Clone, Debug)]
pub enum Act {
    /// `do`, `fault` or `check`, from the key table.
    Verb(&'static Verb),
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
    /// On what; a name, a link, or `$var` of a choice, or empty.
    pub on: String,
    /// How long.
    pub lasts: Option<Value>,
    /// Label.
    pub id: Option<String>,
    /// Quantities of the verb.
    pub amounts: BTreeMap<String, Value>,
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
    /// Name: the file's name without its extension.
    pub name: String,
    /// One line.
    pub title: String,
    /// Why it exists.
    pub why: String,
    /// Words to select by.
    pub tags: Vec<String>,
    /// Seeds per run set.
    pub seeds: SeedCounts,
    /// Hosts.
    pub estate: Estate,
    /// Guests, by machine name.
    pub loads: BTreeMap<String, Load>,
    /// Variables.
    pub vary: BTreeMap<String, Vary>,
    /// Steps in file order.
    pub steps: Vec<Step>,
    /// Adds faults drawn freely from the whole catalogue.
    pub swarm: bool,
    /// Promises.
    pub expect: Expect,
}
