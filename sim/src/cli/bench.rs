//! `bench`: how much faster than real time the lab is, one run at a time, and what the time goes into.

use super::{files, paint, pool};
use crate::cpu;
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
    events: u64,
    points: u64,
    /// CPU seconds of the phases.
    load_seconds: f64,
    settling_seconds: f64,
    judging_seconds: f64,
    /// Memory of the process when the run was over.
    resident_bytes: Option<u64>,
}

fn row(outcome: &Outcome, cpu_seconds: f64) -> Row {
    Row {
        scenario: outcome.scenario.clone(),
        seed: outcome.seed,
        verdict: outcome.verdict().word(),
        simulated_seconds: outcome.stats.simulated as f64 / 1000.0,
        cpu_seconds,
        guest_operations: outcome.stats.operations,
        events: outcome.stats.events,
        points: outcome.stats.points,
        load_seconds: outcome.spent.load,
        settling_seconds: outcome.spent.settling,
        judging_seconds: outcome.spent.judging,
        resident_bytes: cpu::resident(),
    }
}

/// Simulated seconds of a run as the bar for seeds has it.
const SEED_SECONDS: f64 = 120.0;

const HEADER: [&str; 9] = [
    "run",
    "verdict",
    "simulated",
    "CPU",
    "simulated s per CPU s",
    "events per CPU s",
    "guest ops per CPU s",
    "load, settling, judging",
    "memory",
];

impl Row {
    fn cells(&self) -> Vec<String> {
        let per_cpu = |count: u64| format!("{:.0}", count as f64 / self.cpu_seconds);
        let share = |seconds: f64| format!("{:.0} %", 100.0 * seconds / self.cpu_seconds);
        let phases = [self.load_seconds, self.settling_seconds, self.judging_seconds].map(share);
        let memory = self.resident_bytes.map(|bytes| format!("{} MB", bytes / 1_000_000));
        vec![
            format!("{}@{}", self.scenario, self.seed),
            self.verdict.to_owned(),
            format!("{:.1} s", self.simulated_seconds),
            format!("{:.2} s", self.cpu_seconds),
            format!("{:.0}", self.simulated_seconds / self.cpu_seconds),
            per_cpu(self.events),
            per_cpu(self.guest_operations),
            phases.join(", "),
            memory.unwrap_or_default(),
        ]
    }
}

/// Runs the scenarios one after another and prints a line for each run.
pub(super) fn bench(directory: &Path, names: &[String], seeds: u64, json: bool) -> Result<u8, u8> {
    let own = directory.join(DIRECTORY);
    let scenarios = files::select(if names.is_empty() { &own } else { directory }, names)?;
    let indices = 0..scenarios.len();
    let tasks: Vec<_> = indices.flat_map(|index| (1..=seeds).map(move |seed| (index, seed))).collect();
    let mut table = paint::table(&HEADER);
    let mut worst = Verdict::Held;
    let (mut simulated, mut cpu) = (0.0, 0.0);
    pool::many(&scenarios, &tasks, 1, |_, outcome, seconds| {
        worst = worst.max(outcome.verdict());
        let row = row(&outcome, seconds);
        simulated += row.simulated_seconds;
        cpu += seconds;
        if json {
            println!("{}", serde_json::to_string(&row).unwrap_or_default());
        } else {
            table.add_row(row.cells());
        }
        true
    })?;
    if !json {
        println!("{table}");
        let seeds = simulated / SEED_SECONDS / (cpu / 60.0);
        println!(
            "{:.0} simulated seconds per CPU second; {seeds:.0} seeds of {SEED_SECONDS} simulated seconds per CPU minute",
            simulated / cpu
        );
    }
    Ok(worst.code())
}
