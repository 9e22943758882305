//! L1: how much faster than real time the lab is, on the estate of `scenarios/bench`.

use super::figure::{Figure, Goal, median, number};
use crate::command::{cargo, output};
use anyhow::{Context, Result};
use serde::Deserialize;

/// One run, as `cargo sim bench --json` tells it.
#[derive(Deserialize)]
struct Run {
    verdict: String,
    simulated_seconds: f64,
    cpu_seconds: f64,
    guest_operations: f64,
}

/// L1.
pub(super) fn speed(rounds: usize) -> Result<Vec<Figure>> {
    let seeds = rounds.to_string();
    let text = output(cargo(&["sim", "bench", "--json", "--seeds", &seeds]))?;
    let mut runs = Vec::new();
    for line in text.lines() {
        runs.push(serde_json::from_str::<Run>(line).with_context(|| line.to_owned())?);
    }
    let slow = runs.iter().find(|run| run.verdict != "held");
    anyhow::ensure!(slow.is_none(), "a run of the lab did not hold: cargo sim bench shows it");
    let values: Vec<f64> = runs.iter().map(|run| run.simulated_seconds / run.cpu_seconds).collect();
    let writes: Vec<f64> = runs.iter().map(|run| run.guest_operations / run.cpu_seconds).collect();
    Ok(vec![Figure {
        bar: "L1",
        what: "lab: simulated seconds per CPU second, two sites, six machines, faults on".to_owned(),
        unit: "",
        values,
        goal: Goal::AtLeast(500.0),
        sides: format!("{} guest operations per CPU second", number(median(&writes))),
    }])
}
