//! Failures by cause, not by seed: equal words with other figures and other hosts are one cause.

use crate::model::{Finding, Known, Run, RunSet, Scenario, Verdict};
use std::collections::BTreeMap;

/// Longest pattern, in letters: what follows is detail.
const LONGEST: usize = 240;

/// Shortest word of hexadecimal digits that is an identity and not a word.
const IDENTITY: usize = 8;

/// A run that failed, and its first finding.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) run: &'a Run,
    pub(crate) finding: &'a Finding,
}

/// Runs that failed in the same way.
pub(crate) struct Cause<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) oracle: String,
    pub(crate) pattern: String,
    /// Its entry among the known failures.
    pub(crate) known: Option<&'a Known>,
    /// By scenario and seed.
    pub(crate) cases: Vec<Case<'a>>,
}

/// Returns the key by which failures are grouped: the oracle, and its words without figures and names of hosts.
pub fn key(finding: &Finding, hosts: &[&str]) -> (String, String) {
    (finding.oracle.clone(), pattern(&finding.what, hosts))
}

/// Returns the names of a scenario's hosts.
pub(crate) fn hosts(scenario: &Scenario) -> Vec<&str> {
    let machines = scenario.estate.machines.iter().map(|machine| machine.name.as_str());
    machines.chain(scenario.estate.servers.iter().map(|server| server.name.as_str())).collect()
}

fn pattern(what: &str, hosts: &[&str]) -> String {
    let is_of_word = |letter: char| letter.is_alphanumeric() || letter == '-' || letter == '_';
    let first = what.lines().next().unwrap_or_default();
    let (mut text, mut rest) = (String::new(), first);
    while let Some(letter) = rest.chars().next() {
        let end = match is_of_word(letter) {
            true => rest.find(|letter| !is_of_word(letter)).unwrap_or(rest.len()),
            false => letter.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        text.push_str(&plain(word, hosts));
        rest = after;
    }
    while text.contains("#.#") {
        text = text.replace("#.#", "#");
    }
    text.chars().take(LONGEST).collect()
}

/// Returns a word without what differs from run to run.
fn plain(word: &str, hosts: &[&str]) -> String {
    if hosts.contains(&word) {
        return "‹host›".to_owned();
    }
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_hex && word.len() >= IDENTITY && word.bytes().any(|byte| byte.is_ascii_digit()) {
        return "#".to_owned();
    }
    // The name of an invariant, such as `WM-1`, is no figure.
    if word.split_once('-').is_some_and(|(name, _)| name.len() == 2 && name == name.to_uppercase()) {
        return word.to_owned();
    }
    let mut text = String::new();
    for letter in word.chars() {
        match letter.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(letter),
        }
    }
    text
}

/// Groups all failures, the worst and most frequent causes first, known ones last.
pub(crate) fn causes(set: &RunSet) -> Vec<Cause<'_>> {
    let mut by_key: BTreeMap<_, Cause<'_>> = BTreeMap::new();
    for scenario in &set.scenarios {
        let hosts = hosts(scenario);
        for run in &scenario.runs {
            let Some(finding) = run.findings.first() else { continue };
            let key = key(finding, &hosts);
            let known = run.known.as_ref();
            let cause = by_key.entry((key.clone(), known)).or_insert(Cause {
                verdict: run.verdict,
                oracle: key.0,
                pattern: key.1,
                known,
                cases: Vec::new(),
            });
            cause.verdict = cause.verdict.max(run.verdict);
            cause.cases.push(Case { scenario, run, finding });
        }
    }
    let mut causes: Vec<_> = by_key.into_values().collect();
    // Stable: equal ones stay in the order of their words.
    causes.sort_by_key(|cause| std::cmp::Reverse((cause.known.is_none(), cause.verdict, cause.cases.len())));
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_identities_and_hosts_do_not_part_causes() {
        let hosts = ["erp-db", "ps1"];
        let one = "erp-db: point 4d00beef01 at sequence 57: sector 12 holds 3.5";
        let two = "ps1: point 01234567 at sequence 9: sector 7 holds 10.25";
        assert_eq!(pattern(one, &hosts), "‹host›: point # at sequence #: sector # holds #");
        assert_eq!(pattern(one, &hosts), pattern(two, &hosts));
        assert_ne!(pattern("WM-1: x", &hosts), pattern("WM-2: x", &hosts));
        assert_eq!(pattern("no convergence within 90 s\nagent waits", &[]), "no convergence within # s");
    }

    #[test]
    fn a_run_counts_under_what_was_found_first_and_the_worst_comes_first() {
        let run = |seed, verdict, oracles: &[&str]| Run {
            seed,
            verdict,
            findings: oracles.iter().map(|o| Finding { oracle: (*o).into(), what: "x".into() }).collect(),
            ..Run::default()
        };
        let runs = vec![
            run(1, Verdict::Broken, &["prefix", "secrets"]),
            run(2, Verdict::Broken, &["prefix"]),
            run(3, Verdict::Held, &[]),
            run(4, Verdict::Crashed, &["assertion"]),
        ];
        let scenarios = vec![Scenario { runs, ..Scenario::default() }];
        let set = RunSet {
            format: 1,
            command: String::new(),
            build: Default::default(),
            marks: Default::default(),
            faults: Default::default(),
            oracles: Default::default(),
            scenarios,
        };
        let found: Vec<_> =
            causes(&set).iter().map(|cause| (cause.oracle.clone(), cause.cases.len())).collect();
        assert_eq!(found, [("assertion".to_owned(), 1), ("prefix".to_owned(), 2)]);
    }
}
