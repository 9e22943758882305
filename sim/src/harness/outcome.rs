//! What came of a run.

use super::record::Record;
use crate::oracles::Finding;
use std::collections::BTreeSet;

/// Verdicts, mildest first; the exit code of several runs is that of the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything held.
    Held,
    /// A `sometimes` was never seen.
    NeverSeen,
    /// Everything that must hold did, but an objective was missed.
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
            Verdict::Held => 0,
            Verdict::NeverSeen => 25,
            Verdict::Missed => 21,
            Verdict::NotConverged => 22,
            Verdict::Broken => 20,
            Verdict::Crashed => 23,
            Verdict::NotDeterministic => 24,
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
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        self.simulated += other.simulated;
        self.operations += other.operations;
        self.points += other.points;
        self.lag = self.lag.max(other.lag);
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
    /// Objectives that were missed, each with what was measured instead.
    pub missed: Vec<String>,
    /// The panic of the engine.
    pub panic: Option<String>,
    /// Marks reached.
    pub marks: BTreeSet<&'static str>,
    /// Digest of the whole trace.
    pub digest: String,
    /// The trace, if asked for.
    pub trace: Vec<String>,
    /// Numbers.
    pub stats: Stats,
    /// How each host fared.
    pub record: Record,
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
        let waiting = self.waiting.clone().map(|waiting| ("converges".into(), waiting));
        waiting.or_else(|| Some(("objective".into(), self.missed.first()?.clone())))
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
        for (count, code) in (1..).zip([0, 25, 21, 22, 20, 23, 24]) {
            assert_eq!(codes(&mildest_first[..count]), Some(code));
        }
    }

    #[test]
    fn a_crash_counts_more_than_what_was_found_before_it() {
        let found = vec![Finding::new("prefix", "x")];
        let missed = Outcome { missed: vec!["lag".into()], ..Outcome::default() };
        assert_eq!(missed.verdict(), Verdict::Missed);
        let outcome = Outcome { findings: found, waiting: Some("y".into()), ..missed };
        assert_eq!(outcome.verdict(), Verdict::Broken);
        assert_eq!(Outcome { panic: Some("z".into()), ..outcome }.verdict(), Verdict::Crashed);
    }
}
