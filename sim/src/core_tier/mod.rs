//! The core tier: the pure machines wired by queues in a plain event heap.
//!
//! ```text
//! guest -> AgentMachine -> Link -> (link) -> Receiver -> stage -> vault
//!              |  disks, record, logs, spill                 |  claims, slots, image
//!              '---------------- one heap, one clock, one stream of chance ----------'
//! ```
//!
//! It plays the scenario files and plans of the full lab, without async code, sockets, bytes, compression and
//! encryption: content is a number per page (`content`). So it plays tens of times as many seeds in the same
//! time, and it can say nothing about what it leaves out: bytes of files, frames and the vault's format, the
//! shells in `redoubt-roles`. What a plan has and this tier cannot play is told in [`Outcome::unplayed`].
//!
//! Invariants
//! - CT-1 Equal scenario and plan give an equal run, whoever looks at it: the digest says so.
//! - CT-2 An action of a plan is played or told.
//!
//! What is *not* here: decisions of the engine; the full lab ([`crate::harness`]).

mod actions;
mod agent;
mod common;
mod content;
mod dice;
mod disk;
mod event;
mod files;
mod guest;
mod heap;
mod marks;
mod net;
mod oracle;
pub mod prey;
mod request;
mod server;
mod store;
mod vault;
mod world;

pub use common::{Steps, Trace};
pub use marks::MARKS;

use crate::harness::Verdict;
use crate::oracles::Finding;
use crate::plan::Plan;
use crate::scenario::Scenario;
use std::collections::BTreeSet;

/// What came of one plan at this tier.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Scenario name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What does not hold.
    pub findings: Vec<Finding>,
    /// What each role waits for, if nothing converged.
    pub waiting: Option<String>,
    /// The panic of a machine.
    pub panic: Option<String>,
    /// Steps of the machines.
    pub steps: Steps,
    /// Simulated milliseconds.
    pub simulated: u64,
    /// Operations of guests.
    pub operations: u64,
    /// Markers judged.
    pub judged: u64,
    /// Marks reached.
    pub marks: BTreeSet<&'static str>,
    /// Verbs of the plan that this tier cannot play, and promises that it does not judge.
    pub unplayed: BTreeSet<String>,
    /// Digest of all events.
    pub digest: u64,
}

impl Outcome {
    /// Returns the verdict.
    pub fn verdict(&self) -> Verdict {
        if self.panic.is_some() {
            Verdict::Crashed
        } else if !self.findings.is_empty() {
            Verdict::Broken
        } else if self.waiting.is_some() {
            Verdict::NotConverged
        } else {
            Verdict::Held
        }
    }

    /// Returns the oracle that spoke first; an assertion of the engine counts as none.
    pub fn oracle(&self) -> Option<&str> {
        let waits = self.waiting.as_ref().map(|_| "converges");
        self.findings.first().map(|finding| finding.oracle).or(waits)
    }
}

/// Plays one plan on the calling thread, and writes down what happens if somebody wants to read it.
pub fn play(scenario: &Scenario, plan: &Plan, trace: Option<&Trace>) -> Outcome {
    if scenario.estate.scale > 1 {
        // A scaled estate is a matter of bytes and rates, which this tier does not have.
        let unplayed = BTreeSet::from(["estates at a scale".to_owned()]);
        return Outcome { scenario: plan.scenario.clone(), seed: plan.seed, unplayed, ..Outcome::default() };
    }
    let mut world = world::World::new(scenario, plan, trace.cloned());
    let has_converged = world.run();
    world.judge();
    let waiting = (!has_converged).then(|| world.waiting());
    if !plan.due.is_empty() {
        world.unplayed.insert("protected".to_owned());
    }
    if !scenario.expect.objectives.is_empty() {
        world.unplayed.insert("objectives".to_owned());
    }
    let operations = world.c.truths.iter().map(|truth| truth.guest.log.len() as u64).sum();
    let judged = world.c.truths.iter().map(|truth| truth.guest.judged).sum();
    Outcome {
        scenario: plan.scenario.clone(),
        seed: plan.seed,
        waiting,
        panic: None,
        steps: world.c.steps,
        simulated: world.c.now / dice::MILLI,
        operations,
        judged,
        marks: world.c.marks.take(),
        unplayed: std::mem::take(&mut world.unplayed),
        digest: world.c.digest.0,
        findings: std::mem::take(&mut world.c.findings),
    }
}
