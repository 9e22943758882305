//! `bugs`: mutation testing of the lab. Each planted bug is activated until an oracle catches it.

use super::{files, paint, pool};
use crate::harness::Verdict;
use crate::scenario::Scenario;
use comfy_table::Color;
use redoubt_core::planted::Bug;
use std::path::Path;

/// Scenarios that reach a bug's line soonest; after them all others are tried.
fn likely(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AckBeforeOrder | Bug::LoseWriteZeroes | Bug::OvertakeLargeWrites | Bug::OverlapUnordered => {
            &["steady-stream"]
        }
        Bug::SkipActivityLogSync => &["agent-host-power-loss", "torn-stage-and-spill-after-power-loss"],
        Bug::ForgetAfterSend | Bug::AckBeforeStageSync => &["process-server-dies-with-staged-data"],
        Bug::ReuseSequence => &["agent-process-crash", "agent-host-power-loss"],
        Bug::AcceptOldGeneration | Bug::SkipClaimCheck => &["zombie-process-server-is-fenced"],
        Bug::ClearBitmapOnReconnect | Bug::PointInsideResync => {
            &["long-cut-overflows-to-bitmap-then-catches-up"]
        }
        Bug::DropLastSpillRecord => &["torn-stage-and-spill-after-power-loss", "agent-process-crash"],
        Bug::PublishBeforeLastSegment | Bug::TrustAlreadyExists => &["store-throttles-and-loses-replies"],
        Bug::ServeUnchecked => &["rot-is-reported-not-served"],
        Bug::PlaintextFrame => &["steady-stream"],
        Bug::GuestWaitsForSpool => {
            &["wan-cut-spills-and-points-survive", "long-cut-overflows-to-bitmap-then-catches-up"]
        }
    }
}

/// Rounds of a bug: first the likely scenarios, some seeds each, then everything.
fn tasks(bug: Bug, scenarios: &[Scenario], seeds: u64) -> Vec<pool::Task> {
    let index = |name: &&str| scenarios.iter().position(|scenario| scenario.name == *name);
    let likely: Vec<usize> = likely(bug).iter().filter_map(index).collect();
    let first = seeds.min(20);
    let mut tasks: Vec<pool::Task> =
        (1..=first).flat_map(|seed| likely.iter().map(move |index| (*index, seed))).collect();
    for seed in 1..=seeds {
        for index in 0..scenarios.len() {
            if seed > first || !likely.contains(&index) {
                tasks.push((index, seed));
            }
        }
    }
    tasks.truncate(seeds as usize);
    tasks
}

/// `bugs`.
pub(super) fn bugs(directory: &Path, names: &[String], seeds: u64, jobs: usize) -> Result<u8, u8> {
    let scenarios = files::select(directory, &[])?;
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(pool::find_bug(name).ok_or(2u8)?);
    }
    if chosen.is_empty() {
        chosen.extend(Bug::ALL);
    }
    let mut table = paint::table(&["planted bug", "caught by", "in", "seeds", "what was seen"]);
    let mut missed = 0;
    for bug in &chosen {
        pool::activate(Some(*bug));
        let mut played = 0;
        let mut caught = None;
        let result = pool::many(&scenarios, &tasks(*bug, &scenarios, seeds), jobs, |_, outcome, _| {
            played += 1;
            if let Some((oracle, what)) = outcome.cause() {
                caught = Some((oracle, format!("{}@{}", outcome.scenario, outcome.seed), what));
            }
            caught.is_none()
        });
        pool::activate(None);
        result?;
        let name = bug.name();
        match caught {
            Some((oracle, run, what)) => {
                let what: String = what.chars().take(110).collect();
                table.add_row(vec![
                    name.into(),
                    paint::cell(oracle, Color::Green),
                    run.into(),
                    played.into(),
                    comfy_table::Cell::new(what),
                ]);
            }
            None => {
                missed += 1;
                table.add_row(vec![name.into(), paint::cell("MISSED", Color::Red), "".into(), played.into()]);
            }
        }
    }
    println!("{table}");
    println!("{} planted bugs, {} caught, {missed} missed", chosen.len(), chosen.len() - missed);
    Ok(if missed == 0 { 0 } else { Verdict::Broken.code() })
}
