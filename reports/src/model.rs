//! What a report is made from: a set of runs, as it stands in `run.json`.
//!
//! The file is a value, not a log: times are simulated, nothing says when or how fast it was made, and lists
//! are in order. So equal runs of equal commits give equal bytes. `docs/run-json.md` describes it for others.
//!
//! What is *not* here: reading and merging files (`file`), and everything that is derived from a set.

use crate::capacity::Capacity;
use crate::samples::Samples;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the format. Fields may be added under one number; a field that changes its meaning or goes
/// needs the next one.
pub const FORMAT: u32 = 1;

/// A set of runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSet {
    /// [`FORMAT`].
    pub format: u32,
    /// The command that played it, such as `cargo sim run wan`.
    pub command: String,
    /// What was played.
    pub build: Build,
    /// Everything that a run may reach, whether or not a scenario asks for it.
    pub marks: BTreeSet<String>,
    /// Every fault that a plan may have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub faults: BTreeSet<String>,
    /// What each oracle watches over, in words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub oracles: BTreeMap<String, String>,
    /// The scenarios, by name.
    pub scenarios: Vec<Scenario>,
}

/// Which source the lab was built from. A seed means nothing without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Version of the product.
    pub version: String,
    /// Commit, with `+` behind it if files differed; none outside a repository.
    pub commit: Option<String>,
    /// The planted bug that was active.
    pub planted_bug: Option<String>,
}

/// A scenario and what its seeds came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Name: that of its file.
    pub name: String,
    /// One line.
    pub title: String,
    /// Why it exists.
    pub why: String,
    /// Words to select by.
    pub tags: Vec<String>,
    /// Seeds that it takes to judge what is seldom.
    pub seeds_asked: u64,
    /// What was promised.
    pub promises: Promises,
    /// Hosts, sizes, hardware.
    pub estate: Estate,
    /// Sums over all runs.
    pub totals: Totals,
    /// What was reached, and in how many runs.
    pub reached: BTreeMap<String, u64>,
    /// Faults that a plan had, and what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, Met>,
    /// What was measured, over all runs.
    pub measured: BTreeMap<Measure, Samples>,
    /// What it keeps of its promise on which link, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The runs by seed; of very many that held, some are only in the totals.
    pub runs: Vec<Run>,
}

/// How often a fault was there, and met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// Runs whose plan has it.
    pub turned: u64,
    /// Runs of those in which somebody met it.
    pub bit: u64,
}

/// Promises of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// Everything has converged so long after the faults are lifted.
    pub converges_ms: u64,
    /// Time between recovery points.
    pub points_every_ms: u64,
    /// Oracles that must hold in each run.
    pub always: Vec<String>,
    /// Marks that at least one run must reach.
    pub sometimes: Vec<String>,
    /// Promises in figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objectives: Vec<Objective>,
}

/// A promise in figures, such as `lag.p99 <= rpo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// As its author wrote it.
    pub text: String,
    /// What is measured.
    pub measure: Measure,
    /// The bounds: one for all machines, or one for each group that promises another one.
    pub at_most_ms: BTreeSet<u64>,
}

/// Sums over runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Runs that held.
    pub held: u64,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Operations of guests.
    pub operations: u64,
    /// Recovery points restored and judged.
    pub points: u64,
}

/// What is measured. The words are fixed: RPO and RTO are promises, these are figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Age of the oldest write that no process server holds; each machine, each simulated second.
    Lag,
    /// Age of the newest recovery point; each machine, each simulated second.
    PointAge,
    /// What a site that was lost for good took with it: its end less the newest point that restores.
    Loss,
    /// Length of each resync.
    Resync,
    /// Time from the end of all faults until every machine is in the vault to its last write.
    Converged,
    /// Time until the newest point shows its first block at the recovery site; each machine, each time it is asked for.
    Mount,
}

/// The estate of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estate {
    /// Protected machines, in the site `source`.
    pub machines: Vec<Machine>,
    /// Process servers.
    pub servers: Vec<Server>,
    /// Hardware models it runs on.
    pub hardware: Vec<Hardware>,
    /// Bounds of the roles in bytes, by name.
    pub bounds: BTreeMap<String, u64>,
    /// The scale at which it was played, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

/// How an estate was made small enough to be played. All sizes and rates in a set are those of the whole estate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Sizes and rates of the run are divided by this.
    pub by: u64,
    /// Figures are no finer than this.
    pub finest_ms: u64,
}

/// A protected machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Host name.
    pub name: String,
    /// Sizes of its disks in bytes.
    pub disks: Vec<u64>,
    /// What its guest does, in words.
    pub load: String,
}

/// A process server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Host name.
    pub name: String,
    /// `source` or `target`.
    pub site: String,
}

/// A hardware model, with where its numbers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hardware {
    /// `disk`, `lan`, `wan` or `store`.
    pub part: String,
    /// Name of the model.
    pub model: String,
    /// `measured`, `vendor` or `assumed`.
    pub how: String,
    /// The device, document or reasoning.
    pub note: String,
    /// Its numbers in words: name and value with unit.
    pub numbers: Vec<(String, String)>,
}

/// Verdicts, mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything held.
    #[default]
    Held,
    /// A `sometimes` was never seen.
    NeverSeen,
    /// An objective was missed.
    Missed,
    /// No convergence within the bound.
    NotConverged,
    /// An invariant is broken.
    Broken,
    /// The engine crashed.
    Crashed,
}

impl Verdict {
    /// Returns it in words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Held => "held",
            Verdict::NeverSeen => "never seen",
            Verdict::Missed => "objective missed",
            Verdict::NotConverged => "no convergence",
            Verdict::Broken => "broken",
            Verdict::Crashed => "crashed",
        }
    }

    /// Returns the name of its colour and shape.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Verdict::Held => "held",
            Verdict::NeverSeen => "never",
            Verdict::Missed => "missed",
            Verdict::NotConverged => "stuck",
            Verdict::Broken => "broken",
            Verdict::Crashed => "crashed",
        }
    }
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Seed.
    pub seed: u64,
    /// What came of it.
    pub verdict: Verdict,
    /// Digest of everything that happened.
    pub digest: String,
    /// The command that plays it again.
    pub replay: String,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Longest lag.
    pub lag_max_ms: u64,
    /// What does not hold, in the order in which it was found; each oracle's first words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The entry of the known failures that it matches: it fails nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// Its course; kept for few runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
}

/// A failure that somebody has promised to mend.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Known {
    /// Where it is being mended.
    pub issue: String,
    /// The last day on which it is excused, such as `2026-12-15`.
    pub expires: String,
    /// Why it is excused.
    pub why: String,
}

/// Something that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The oracle; `assertion` for a crash of the engine, `converges` if something is waited for, `objective` if one is missed.
    pub oracle: String,
    /// What was found.
    pub what: String,
}

/// The course of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Variables as drawn.
    pub drawn: BTreeMap<String, String>,
    /// Then all faults are lifted and the guests stop.
    pub lifted_ms: u64,
    /// Faults and acts of the operator, in order of their begin.
    pub faults: Vec<Fault>,
    /// Machines, by name.
    pub machines: Vec<Track>,
    /// Process servers, by name; only their states.
    pub servers: Vec<Track>,
    /// What happened last before the first finding, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// When the first finding was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
}

/// A fault or an act of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What it does, and to what.
    pub what: String,
    /// Whether an operator did it.
    pub is_operator: bool,
    /// Its begin.
    pub from_ms: u64,
    /// Its end; that of the begin for an instant.
    pub to_ms: u64,
}

/// How one host fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Host name.
    pub name: String,
    /// What it was in, without gaps.
    pub states: Vec<Span>,
    /// Lag at the end of each simulated second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lag_ms: Vec<u64>,
    /// Operations of the guest in each simulated second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<u64>,
    /// When the recovery points were cut that are in the vault at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points_ms: Vec<u64>,
}

/// A state and how long it lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which.
    pub state: State,
    /// Its begin.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
}

/// States of machines and process servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The role does not run.
    Down,
    /// An agent: everything is in order, in memory.
    Exact,
    /// An agent: in order, partly in the spill file.
    Spilling,
    /// An agent: order is lost, only ranges are known.
    Bitmap,
    /// An agent: copies what differs.
    Resync,
    /// A process server: nobody talks to it.
    Idle,
    /// A process server: it has a session and may write.
    Writes,
    /// A process server: a newer writer took over.
    Fenced,
}

impl State {
    /// Returns it in words.
    pub fn words(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Exact => "in order",
            State::Spilling => "spilling",
            State::Bitmap => "bitmap",
            State::Resync => "resync",
            State::Idle => "idle",
            State::Writes => "writes",
            State::Fenced => "fenced",
        }
    }
}

/// A line of a run's trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: String,
    /// Equal lines that it stands for.
    pub times: u64,
}
