//! What a person reads about a run that did not hold: who spoke, what was seen first, what happened
//! around it, and the line that plays it again.

use super::{paint, pool};
use crate::harness::{Outcome, Verdict};
use redoubt_reports::model::Known;
use std::collections::BTreeSet;
use std::path::Path;

/// How a finding begins in a trace; what follows is the oracle.
pub(super) const FOUND: &str = " s  found by ";

/// Lines of the trace before a finding that are worth reading, and after it.
const BEFORE: usize = 10;
const AFTER: usize = 2;

/// Longest line of a trace in a complaint.
const WIDTH: usize = 96;

/// Returns each oracle's first words; what an oracle repeats adds nothing.
pub(super) fn causes(outcome: &Outcome) -> Vec<(String, String)> {
    let mut spoke = BTreeSet::new();
    let all = outcome.cause().into_iter();
    let findings = outcome.findings.iter().map(|finding| (finding.oracle.to_owned(), finding.what.clone()));
    let missed = outcome.missed.iter().map(|what| ("objective".to_owned(), what.clone()));
    all.chain(findings).chain(missed).filter(|(oracle, _)| spoke.insert(oracle.clone())).collect()
}

/// Prints what broke in a run, what happened around it in the trace, how to play it again and where its capsule
/// is; nothing if it held, and one line if the failure is known.
pub(super) fn print(outcome: &Outcome, trace: &[String], capsule: Option<&Path>, known: Option<&Known>) {
    let verdict = outcome.verdict();
    if verdict == Verdict::Held {
        return;
    }
    if let Some(known) = known {
        let run = format!("{}@{}", outcome.scenario, outcome.seed);
        println!("known {run}: {}, until {}; {}", verdict.word(), known.expires, known.issue);
        return;
    }
    println!("{} {}@{}", paint::paint(verdict.word(), verdict), outcome.scenario, outcome.seed);
    for (oracle, what) in causes(outcome) {
        let mut lines = what.lines();
        println!("    {oracle}: {}", lines.next().unwrap_or_default());
        lines.for_each(|line| println!("        {line}"));
    }
    print_around(trace);
    println!("    {}", pool::replay_line(outcome));
    if let Some(capsule) = capsule {
        println!("    {}", paint::faint(&format!("capsule: {}", capsule.display())));
    }
}

/// Returns the part of a trace that surrounds the first finding, or its end if nothing was found on the way.
fn around(trace: &[String]) -> &[String] {
    let at = trace.iter().position(|line| line.contains(FOUND)).unwrap_or(trace.len());
    let end = trace.len().min(at + 1 + AFTER);
    &trace[at.saturating_sub(BEFORE)..end]
}

/// Prints the events around the first finding.
fn print_around(trace: &[String]) {
    for line in around(trace) {
        let is_long = line.chars().count() > WIDTH;
        let short: String = line.chars().take(WIDTH - 1).collect();
        println!("  {}", paint::faint(if is_long { format!("{short}…") } else { line.clone() }.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::Finding;

    #[test]
    fn an_oracle_that_repeats_itself_is_quoted_once() {
        let finding = |oracle, what: &str| Finding::new(oracle, what);
        let findings = vec![finding("bounded", "a"), finding("bounded", "b"), finding("prefix", "c")];
        let outcome = Outcome { findings, ..Outcome::default() };
        let quoted: Vec<_> = causes(&outcome).into_iter().map(|(_, what)| what).collect();
        assert_eq!(quoted, ["a", "c"]);
    }

    #[test]
    fn what_happened_around_the_first_finding_is_shown_or_else_the_end() {
        let line = |number: usize| format!("{number:>10}.000 s  event {number}");
        let mut trace: Vec<String> = (0..40).map(line).collect();
        assert_eq!(around(&trace), &trace[30..]);
        trace[20] = "    20.000 s  found by prefix: x".to_owned();
        assert_eq!(around(&trace), &trace[10..23]);
        assert_eq!(around(&[]), <&[String]>::default());
    }
}
