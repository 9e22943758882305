//! The speed of the lab on the scenarios of `scenarios/bench`: L1, how much faster than real time the full lab is, L2, how
//! many steps of machines the core tier plays, and L3, how many seeds the lab plays and how many it needs to find a bug.

use super::figure::{Figure, Goal, median, number};
use crate::command::{cargo, output};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The estate of L1.
const ESTATE: &str = "two-sites-six-machines";
/// The seed of L3.
const SEED: &str = "one-machine-for-two-minutes";
/// Simulated seconds of a seed.
const SEED_SECONDS: f64 = 120.0;

/// One run, as `cargo sim bench --json` tells it.
#[derive(Deserialize)]
struct Run {
    verdict: String,
    simulated_seconds: f64,
    cpu_seconds: f64,
    guest_operations: f64,
    events: f64,
    load_seconds: f64,
    judging_seconds: f64,
}

/// One planted bug, as `cargo sim bugs --json` tells it.
#[derive(Deserialize)]
struct Hunt {
    bug: String,
    runs: f64,
}

fn lines<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn runs(scenario: &str, seeds: usize) -> Result<Vec<Run>> {
    let seeds = seeds.to_string();
    let bench = ["sim", "--scenarios", "scenarios/bench", "bench", scenario, "--json", "--seeds", &seeds];
    let runs: Vec<Run> = lines(&output(cargo(&bench))?)?;
    let failed = runs.iter().any(|run| run.verdict != "held");
    anyhow::ensure!(!failed, "a run of the lab did not hold: cargo sim bench shows it");
    Ok(runs)
}

/// L1.
pub(super) fn speed(rounds: usize) -> Result<Vec<Figure>> {
    let runs = runs(ESTATE, rounds)?;
    let of = |value: fn(&Run) -> f64| -> Vec<f64> { runs.iter().map(value).collect() };
    let per_cpu = |value: Vec<f64>| number(median(&value));
    let sides = format!(
        "{} guest operations and {} events per CPU second; {} % of it is load and faults, {} % judging at the end",
        per_cpu(of(|run| run.guest_operations / run.cpu_seconds)),
        per_cpu(of(|run| run.events / run.cpu_seconds)),
        per_cpu(of(|run| 100.0 * run.load_seconds / run.cpu_seconds)),
        per_cpu(of(|run| 100.0 * run.judging_seconds / run.cpu_seconds)),
    );
    Ok(vec![Figure {
        bar: "L1",
        what: "lab: simulated seconds per CPU second, two sites, six machines, faults on".to_owned(),
        unit: "",
        values: of(|run| run.simulated_seconds / run.cpu_seconds),
        goal: Goal::AtLeast(500.0),
        sides,
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
        let mut command =
            cargo(&["sim", "--scenarios", "scenarios/bench", "--jobs", "1", "core", ESTATE, "--json"]);
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

/// L3. A bug that is missed is an error of the command. Bugs are searched once, whatever the rounds: a search has no luck of its own.
pub(super) fn seeds(rounds: usize) -> Result<Vec<Figure>> {
    let runs = runs(SEED, rounds.max(5))?;
    let seconds: Vec<f64> = runs.iter().map(|run| run.cpu_seconds / run.simulated_seconds).collect();
    let played = Figure {
        bar: "L3",
        what: "lab: seeds of 120 simulated seconds per CPU minute, one machine, swarm".to_owned(),
        unit: "",
        values: seconds.iter().map(|seconds| 60.0 / (SEED_SECONDS * seconds)).collect(),
        goal: Goal::AtLeast(200.0),
        sides: format!("{} ms of CPU each", number(1000.0 * SEED_SECONDS * median(&seconds))),
    };
    let hunts: Vec<Hunt> = lines(&output(cargo(&["sim", "bugs", "--json"]))?)?;
    let slowest = hunts.iter().max_by(|a, b| a.runs.total_cmp(&b.runs));
    let values: Vec<f64> = hunts.iter().map(|hunt| hunt.runs).collect();
    let most = Figure {
        bar: "L3",
        what: "lab: runs until the best hidden planted bug is found".to_owned(),
        unit: "",
        values: slowest.iter().map(|hunt| hunt.runs).collect(),
        goal: Goal::AtMost(100.0),
        sides: format!(
            "{} bugs, median {} runs, the most for {}",
            hunts.len(),
            number(median(&values)),
            slowest.map_or("none", |hunt| hunt.bug.as_str())
        ),
    };
    Ok(vec![played, most])
}
