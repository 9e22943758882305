//! `bench`: how much faster than real time the lab is, one run at a time.

use super::{files, paint, pool};
use crate::harness::{Outcome, Verdict};
use serde::Serialize;
use std::path::Path;

/// Scenarios made to be measured; no run set plays them.
const DIRECTORY: &str = "bench";

/// One run, for programs.
#[derive(Serialize)]
struct Row {
    scenario: String,
    seed: u64,
    verdict: &'static str,
    simulated_seconds: f64,
    cpu_seconds: f64,
    guest_operations: u64,
    points: u64,
}

fn row(outcome: &Outcome, cpu_seconds: f64) -> Row {
    Row {
        scenario: outcome.scenario.clone(),
        seed: outcome.seed,
        verdict: outcome.verdict().word(),
        simulated_seconds: outcome.stats.simulated as f64 / 1000.0,
        cpu_seconds,
        guest_operations: outcome.stats.operations,
        points: outcome.stats.points,
    }
}

/// Runs the scenarios one after another and prints a line for each run.
pub(super) fn bench(directory: &Path, names: &[String], seeds: u64, json: bool) -> Result<u8, u8> {
    let own = directory.join(DIRECTORY);
    let scenarios = files::select(if names.is_empty() { &own } else { directory }, names)?;
    let indices = 0..scenarios.len();
    let tasks: Vec<_> = indices.flat_map(|index| (1..=seeds).map(move |seed| (index, seed))).collect();
    let header =
        ["run", "verdict", "simulated", "CPU", "simulated s per CPU s", "guest ops per CPU s", "points"];
    let mut table = paint::table(&header);
    let mut worst = Verdict::Held;
    pool::many(&scenarios, &tasks, 1, |_, outcome, seconds| {
        worst = worst.max(outcome.verdict());
        let row = row(&outcome, seconds);
        if json {
            println!("{}", serde_json::to_string(&row).unwrap_or_default());
            return true;
        }
        table.add_row(vec![
            format!("{}@{}", row.scenario, row.seed),
            row.verdict.to_owned(),
            format!("{:.1} s", row.simulated_seconds),
            format!("{seconds:.2} s"),
            format!("{:.0}", row.simulated_seconds / seconds),
            format!("{:.0}", row.guest_operations as f64 / seconds),
            row.points.to_string(),
        ]);
        true
    })?;
    if !json {
        println!("{table}");
    }
    Ok(worst.code())
}
