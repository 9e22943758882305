//! The search for one planted bug, in a process of its own: the active bug belongs to a process, and
//! what a broken engine shouts on its way down is nobody's concern. One line of JSON says what came of it.

use super::{TOOL, files, pool};
use crate::harness::Outcome;
use crate::prey::{Prey, prey};
use crate::scenario::Scenario;
use redoubt_core::planted::Bug;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Seeds of the likely scenarios before the others get their turn.
const LIKELY_FIRST: u64 = 20;

/// What came of the search for one bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hunt {
    /// Name of the bug.
    pub(super) bug: String,
    /// Runs played.
    pub(super) runs: u64,
    /// The run in which the oracle spoke.
    pub(super) caught: Option<Caught>,
    /// What else spoke in earlier runs, and how often: other oracles, assertions of the engine.
    pub(super) others: BTreeMap<String, u64>,
}

/// The run that caught a bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Caught {
    /// Scenario.
    pub(super) scenario: String,
    /// Seed.
    pub(super) seed: u64,
    /// Every oracle that spoke, the one that had to first.
    pub(super) oracles: Vec<String>,
}

/// Runs in order: first the likely scenarios, then all.
fn tasks(prey: &Prey, scenarios: &[Scenario], runs: u64) -> Vec<pool::Task> {
    let index = |name: &&str| scenarios.iter().position(|scenario| scenario.name == *name);
    let likely: Vec<usize> = prey.scenarios.iter().filter_map(index).collect();
    let first = runs.min(LIKELY_FIRST);
    let mut tasks: Vec<pool::Task> =
        (1..=first).flat_map(|seed| likely.iter().map(move |index| (*index, seed))).collect();
    for seed in 1..=runs {
        let is_new = |index: &usize| seed > first || !likely.contains(index);
        tasks.extend((0..scenarios.len()).filter(is_new).map(|index| (index, seed)));
    }
    tasks.truncate(runs as usize);
    tasks
}

/// Returns everything that spoke in a run.
fn voices(outcome: &Outcome) -> Vec<String> {
    let mut voices: Vec<String> = outcome.findings.iter().map(|finding| finding.oracle.to_owned()).collect();
    if let Some(panic) = &outcome.panic {
        // An invariant's number names it better than a sentence.
        let number = panic.split(':').next().filter(|word| word.len() <= 6 && word.contains('-'));
        voices.push(format!("assertion {}", number.unwrap_or("of the engine")));
    } else if outcome.waiting.is_some() {
        voices.push("converges".to_owned());
    }
    voices.sort();
    voices.dedup();
    voices
}

/// Searches for one bug and prints what came of it.
pub(super) fn hunt(directory: &Path, bug: Bug, runs: u64) -> Result<u8, u8> {
    let scenarios = files::select(directory, &[])?;
    let prey = prey(bug);
    let mut hunt = Hunt { bug: bug.name(), runs: 0, caught: None, others: BTreeMap::new() };
    pool::activate(Some(bug));
    pool::many(&scenarios, &tasks(&prey, &scenarios, runs), 1, |_, outcome, _| {
        hunt.runs += 1;
        let mut oracles = voices(&outcome);
        let Some(at) = oracles.iter().position(|oracle| oracle == prey.oracle) else {
            oracles.into_iter().for_each(|voice| *hunt.others.entry(voice).or_default() += 1);
            return true;
        };
        oracles[..=at].rotate_right(1);
        hunt.caught = Some(Caught { scenario: outcome.scenario, seed: outcome.seed, oracles });
        false
    })?;
    let line = serde_json::to_string(&hunt).map_err(|_| TOOL)?;
    println!("{line}");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_is_called_by_its_invariant_and_never_counts_as_an_oracle() {
        let crashed = |text: &str| Outcome { panic: Some(text.into()), ..Outcome::default() };
        assert_eq!(voices(&crashed("XM-2: a write ended at a.rs:1")), ["assertion XM-2"]);
        assert_eq!(voices(&crashed("index out of bounds")), ["assertion of the engine"]);
        let stuck = Outcome { waiting: Some("the link".into()), ..Outcome::default() };
        assert_eq!(voices(&stuck), ["converges"]);
    }
}
