//! The speed of the lab on the estate of `scenarios/bench`: L1, how much faster than real time the full lab is, and
//! L2, how many steps of machines the core tier plays.

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

/// What the core tier played, as `cargo sim core --json` tells it.
#[derive(Deserialize)]
struct Core {
    verdict: String,
    cpu_seconds: f64,
    simulated_seconds: f64,
    machine_steps: f64,
    heap_events: f64,
    guest_operations: f64,
}

/// Seeds of one round of L2: some seconds of processor time.
const CORE_SEEDS: usize = 40;

/// L2. A step is one call of the machine of an agent, of a link or of a receiver (decision 0029); each round plays other
/// seeds. Drawing the plans and judging every marker are part of the time.
pub(super) fn core_speed(rounds: usize) -> Result<Vec<Figure>> {
    let mut values = Vec::new();
    let (mut heap, mut simulated, mut operations) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (seeds, from) = (CORE_SEEDS.to_string(), (1 + round * CORE_SEEDS).to_string());
        let seeds = ["--seeds", seeds.as_str(), "--from", from.as_str()];
        let mut command = cargo(&["sim", "--scenarios", "scenarios/bench", "--jobs", "1", "core", "--json"]);
        command.args(seeds);
        let text = output(command)?;
        let core: Core = serde_json::from_str(&text).with_context(|| text.clone())?;
        anyhow::ensure!(core.verdict == "held", "a run of the core tier did not hold");
        values.push(core.machine_steps / core.cpu_seconds / 1e6);
        heap.push(core.heap_events / core.cpu_seconds / 1e6);
        simulated.push(core.simulated_seconds / core.cpu_seconds);
        operations.push(core.guest_operations / core.cpu_seconds / 1e3);
    }
    let (heap, simulated, operations) = (median(&heap), median(&simulated), median(&operations));
    Ok(vec![Figure {
        bar: "L2",
        what: "core tier: machine steps per CPU second, two sites, six machines, faults on".to_owned(),
        unit: "M/s",
        values,
        goal: Goal::AtLeast(3.0),
        sides: format!(
            "{} M events of the heap, {} simulated s, {} k guest operations per CPU second",
            number(heap),
            number(simulated),
            number(operations)
        ),
    }])
}
