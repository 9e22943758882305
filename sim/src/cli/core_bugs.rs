//! `core --bugs`: the core tier judges its oracles. Each planted bug of the pure machines must be caught by the oracle
//! that stands for it here, and the run that caught it must hold without it.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, runs on a real clock")]

use super::core::{Wanted, each, play};
use super::{call, files, interrupt, paint, pool};
use crate::codes::{INTERRUPTED, TOOL};
use crate::core_tier::prey::{self, Prey};
use crate::harness::Verdict;
use crate::scenario::Scenario;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Most runs before a bug counts as missed.
const RUNS: u64 = 2_000;

/// What came of the search for one bug.
struct Hunt {
    runs: u64,
    caught: Option<(usize, u64, String)>,
    others: BTreeMap<String, u64>,
}

/// `core --bugs`.
pub(super) fn bugs(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    if !cfg!(madsim) {
        eprintln!("this build has no planted bugs; start it as `cargo sim`");
        return Err(TOOL);
    }
    let scenarios = files::select(directory, wanted.names)?;
    let most = wanted.seeds.unwrap_or(RUNS);
    let (mut missed, mut speaks) = (0, 0);
    let began = Instant::now();
    println!("{:<28} {:<18} {:>6} {:>8}", "planted bug", "caught by", "runs", "time");
    for prey in prey::ALL {
        let began = Instant::now();
        pool::activate(Some(prey.bug));
        let hunt = hunt(&scenarios, prey, most, wanted.jobs);
        pool::activate(None);
        if interrupt::came() {
            return Err(INTERRUPTED);
        }
        row(&scenarios, prey, &hunt, began.elapsed().as_secs_f64());
        missed += usize::from(hunt.caught.is_none());
        if let Some((index, seed, _)) = hunt.caught {
            let control = play(&scenarios[index], seed, None);
            if control.verdict() != Verdict::Held {
                println!("    without the bug: {}", control.verdict().word());
                speaks += 1;
            }
        }
    }
    let verdict = if missed + speaks > 0 { Verdict::Broken } else { Verdict::Held };
    let caught = prey::ALL.len() - missed;
    let seconds = began.elapsed().as_secs_f64();
    let summary = format!(
        "{caught} planted bugs caught, {missed} missed, {speaks} runs fail without a bug, {seconds:.1} s"
    );
    println!("{}", paint::paint(&summary, verdict));
    Ok(verdict.code())
}

/// Plays the likely scenario first, then all in turn, until the oracle speaks.
fn hunt(scenarios: &[Scenario], prey: &Prey, most: u64, jobs: usize) -> Hunt {
    let likely = scenarios.iter().position(|scenario| scenario.name == prey.scenario);
    let first = (1..=most / 2).filter_map(|seed| Some((likely?, seed)));
    let all = scenarios.len();
    let rest = (1..=most).flat_map(|seed| (0..all).map(move |index| (index, seed)));
    let mut hunt = Hunt { runs: 0, caught: None, others: BTreeMap::new() };
    each(scenarios, first.chain(rest).take(most as usize), jobs, |index, outcome| {
        hunt.runs += 1;
        match outcome.oracle() {
            Some(oracle) if oracle == prey.oracle => {
                hunt.caught = Some((index, outcome.seed, oracle.to_owned()));
                return false;
            }
            Some(other) => *hunt.others.entry(other.to_owned()).or_default() += 1,
            None => {
                if let Some(panic) = &outcome.panic {
                    let word = panic.split(':').next().unwrap_or_default().to_owned();
                    *hunt.others.entry(format!("assertion {word}")).or_default() += 1;
                }
            }
        }
        true
    });
    hunt
}

fn row(scenarios: &[Scenario], prey: &Prey, hunt: &Hunt, seconds: f64) {
    let (word, verdict) = match &hunt.caught {
        Some((_, _, oracle)) => (oracle.as_str(), Verdict::Held),
        None => ("MISSED", Verdict::Broken),
    };
    let name = prey.bug.name();
    let word = paint::paint(&format!("{word:<18}"), verdict);
    println!("{name:<28} {word} {:>6} {seconds:>6.1} s", hunt.runs);
    match &hunt.caught {
        Some((index, seed, _)) => {
            let run = call::line(&format!("core {}@{seed} --bug {name}", scenarios[*index].name));
            println!("    {}", paint::faint(&run));
        }
        None => {
            let others: Vec<String> =
                hunt.others.iter().map(|(voice, count)| format!("{voice} ({count})")).collect();
            println!("    {} should have spoken; others did: {}", prey.oracle, others.join(", "));
        }
    }
}
