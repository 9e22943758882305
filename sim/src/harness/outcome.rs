//! What came of a run.

use super::record::Record;
use crate::capsule::{Beat, Signature};
use crate::codes;
use crate::cpu::Spent;
use crate::oracles::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// Verdicts, mildest first; the exit code of several runs is that of the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything held.
    Held,
    /// A `sometimes` was never seen.
    NeverSeen,
    /// An objective is missed.
    Missed,
    /// No convergence within the bound.
    NotConverged,
    /// An invariant is broken.
    Broken,
    /// The engine panicked.
    Crashed,
    /// Two runs of one seed differ.
    NotDeterministic,
}

impl Verdict {
    /// Returns the exit code.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Held => codes::HELD,
            Verdict::NeverSeen => codes::NEVER_SEEN,
            Verdict::Missed => codes::MISSED,
            Verdict::NotConverged => codes::NOT_CONVERGED,
            Verdict::Broken => codes::BROKEN,
            Verdict::Crashed => codes::CRASHED,
            Verdict::NotDeterministic => codes::NOT_DETERMINISTIC,
        }
    }

    /// Returns one or two words for a table.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Held => "held",
            Verdict::NeverSeen => "never seen",
            Verdict::Missed => "objective missed",
            Verdict::NotConverged => "no convergence",
            Verdict::Broken => "BROKEN",
            Verdict::Crashed => "CRASHED",
            Verdict::NotDeterministic => "NOT DETERMINISTIC",
        }
    }
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Simulated milliseconds.
    pub simulated: u64,
    /// Operations of guests.
    pub operations: u64,
    /// Recovery points restored and judged.
    pub points: u64,
    /// Longest lag of a point seen, in milliseconds.
    pub lag: u64,
    /// Events of the leaves: everything that is in the digest.
    pub events: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        self.simulated += other.simulated;
        self.operations += other.operations;
        self.points += other.points;
        self.lag = self.lag.max(other.lag);
        self.events += other.events;
    }
}

/// What came of one scenario with one seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Scenario name.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// What does not hold.
    pub findings: Vec<Finding>,
    /// What each role waited for when the bound of the liveness phase passed.
    pub waiting: Option<String>,
    /// Objectives that the run missed, each a sentence with promise and figure.
    pub missed: Vec<String>,
    /// The panic of the engine.
    pub panic: Option<String>,
    /// Marks reached.
    pub marks: BTreeSet<&'static str>,
    /// Faults that somebody met, and how often.
    pub bites: BTreeMap<&'static str, u64>,
    /// Places where the engine told of an error or warned: file and line.
    pub arms: BTreeSet<(&'static str, u32)>,
    /// Digest of the whole trace.
    pub digest: String,
    /// Digests on the way.
    pub beats: Vec<Beat>,
    /// The trace, if asked for.
    pub trace: Vec<String>,
    /// Numbers.
    pub stats: Stats,
    /// How each host fared.
    pub record: Record,
    /// What it cost.
    pub spent: Spent,
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
        } else if !self.missed.is_empty() {
            Verdict::Missed
        } else {
            Verdict::Held
        }
    }

    /// Returns who caught it and what; none if everything held.
    pub fn cause(&self) -> Option<(String, String)> {
        if let Some(panic) = &self.panic {
            return Some(("assertion".into(), panic.clone()));
        }
        if let Some(finding) = self.findings.first() {
            return Some((finding.oracle.into(), finding.what.clone()));
        }
        if let Some(waiting) = &self.waiting {
            return Some(("converges".into(), waiting.clone()));
        }
        self.missed.first().map(|missed| ("objective".into(), missed.clone()))
    }

    /// Returns what failed, without what differs from seed to seed; none if everything held.
    pub fn signature(&self, hosts: &[&str]) -> Option<Signature> {
        let (oracle, what) = self.cause()?;
        // A role that waits says so in its own words each time: that nothing converged is the failure.
        let what =
            if oracle == "converges" { what.lines().next().unwrap_or_default().to_owned() } else { what };
        let (oracle, hits) = redoubt_reports::key(&redoubt_reports::model::Finding { oracle, what }, hosts);
        Some(Signature { oracle, hits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_verdicts_the_worst_decides_the_exit_code() {
        let codes = |verdicts: &[Verdict]| verdicts.iter().max().map(|worst| worst.code());
        let mildest_first = [
            Verdict::Held,
            Verdict::NeverSeen,
            Verdict::Missed,
            Verdict::NotConverged,
            Verdict::Broken,
            Verdict::Crashed,
            Verdict::NotDeterministic,
        ];
        let worst_last = codes::WORST_FIRST.iter().rev().copied();
        for (count, code) in (1..).zip(std::iter::once(codes::HELD).chain(worst_last)) {
            assert_eq!(codes(&mildest_first[..count]), Some(code));
        }
    }

    #[test]
    fn a_signature_is_the_same_for_other_seeds_hosts_and_figures() {
        let outcome =
            |what: &str| Outcome { findings: vec![Finding::new("prefix", what)], ..Outcome::default() };
        let of = |what: &str| outcome(what).signature(&["erp-db", "erp-app"]);
        assert_eq!(of("erp-db: sector 12 is old"), of("erp-app: sector 4711 is old"));
        assert_ne!(of("erp-db: sector 12 is old"), of("erp-db: sector 12 is torn"));
        assert_eq!(Outcome::default().signature(&[]), None);
    }

    #[test]
    fn a_crash_counts_more_than_what_was_found_before_it() {
        let found = vec![Finding::new("prefix", "x")];
        let outcome = Outcome { findings: found, waiting: Some("y".into()), ..Outcome::default() };
        assert_eq!(outcome.verdict(), Verdict::Broken);
        let missed = Outcome { missed: vec!["lag".into()], ..Outcome::default() };
        assert_eq!(missed.verdict(), Verdict::Missed);
        assert_eq!(Outcome { panic: Some("z".into()), ..outcome }.verdict(), Verdict::Crashed);
    }
}
