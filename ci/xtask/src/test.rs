//! `cargo xtask test`: the steps that main must pass, in the order in which they fail fastest.
//!
//! A step that fails does not stop the others: one run shows everything that is wrong.

use crate::command::{LAB_CONFIG, cargo, run as run_command};
use crate::report::{Outcome, print};
use crate::{TestSet, licences, passes, tidy, tools};
use anyhow::{Result, bail};
use std::process::ExitCode;
use std::time::Instant;

/// Compiles the planted bugs into the pure machines, for the tests that must catch them.
const PLANTED: [&str; 2] = ["--features", "redoubt-core/planted-bugs,redoubt-vault/planted-bugs"];

/// Seeds per scenario at night. Each scenario's file says how many the gate runs.
const LAB_SEEDS_AT_NIGHT: &str = "200";

/// Seeds per scenario of the core tier at night: some minutes.
const CORE_SEEDS_AT_NIGHT: &str = "2000";

/// What a step does.
enum Do {
    Check(fn(TestSet) -> Result<()>),
    /// A check that has figures to tell.
    Compare(fn(TestSet) -> Result<String>),
}
use Do::{Check, Compare};

type Step = (&'static str, Do);

/// Schedules of the vault's protocol at night: some 10 minutes. The rarest mistakes show once in 100,000.
const VAULT_SCHEDULES_AT_NIGHT: &str = "3000000";

const STEPS: [Step; 16] = [
    ("format", Check(|_| run_command(cargo(&["fmt", "--all", "--check"])))),
    ("tidy", Check(|_| tidy::check())),
    ("licences", Check(|_| licences::check())),
    ("clippy", Check(|_| clippy(&["--workspace", "--all-targets"]))),
    (
        "clippy of the lab",
        Check(|_| {
            // Optimised, as everything else of the lab: what it compiles is used by the next steps.
            clippy(&["-p", "redoubt-sim", "--all-targets", "--release", LAB_CONFIG[0], LAB_CONFIG[1]])
        }),
    ),
    ("unit and property tests", Check(unit_tests)),
    ("planted bugs of the machines", Check(planted_bugs)),
    ("vault protocol at night", Check(vault_protocol)),
    ("tests of the lab", Check(tests_of_the_lab)),
    ("core tier", Check(core_tier)),
    ("lab scenarios three times", Compare(|_| passes::play())),
    ("lab scenarios at night", Check(scenarios_at_night)),
    ("planted bugs of the lab", Check(|_| run_command(cargo(&["sim", "bugs"])))),
    ("canary of the lab at night", Check(canary)),
    ("production build", Check(|_| run_command(cargo(&["build", "--release", "-p", "redoubt"])))),
    ("end to end", Check(end_to_end)),
];

/// Runs the steps whose name contains `only`, all of them without it.
pub(crate) fn run(set: TestSet, only: Option<&str>) -> Result<ExitCode> {
    let mut outcomes = Vec::new();
    for (name, step) in STEPS {
        if only.is_some_and(|text| !name.contains(text)) {
            continue;
        }
        println!("\n== {name}");
        let start = Instant::now();
        let result = match step {
            Check(step) => step(set).map(|()| String::new()),
            Compare(step) => step(set),
        };
        let result = result.map_err(|error| format!("{error:#}"));
        outcomes.push(Outcome { name, took: start.elapsed(), result });
    }
    if outcomes.is_empty() {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        bail!("no step is called like that; steps: {}", names.join(", "));
    }
    Ok(if print(&outcomes) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn clippy(args: &[&str]) -> Result<()> {
    let mut command = cargo(&["clippy", "--quiet"]);
    command.args(args).args(["--", "-D", "warnings"]);
    run_command(command)
}

fn unit_tests(_: TestSet) -> Result<()> {
    // Those of the stores start servers.
    tools::install()?;
    run_command(cargo(&["test", "--workspace", "--exclude", "redoubt-e2e", "--no-fail-fast", "--quiet"]))
}

fn planted_bugs(_: TestSet) -> Result<()> {
    let mut command = cargo(&["test", "-p", "redoubt-core", "-p", "redoubt-vault", "--quiet"]);
    command.args(PLANTED);
    run_command(command)
}

fn tests_of_the_lab(_: TestSet) -> Result<()> {
    let mut command = cargo(&["test", "-p", "redoubt-sim", "--release", "--quiet"]);
    command.args(LAB_CONFIG);
    run_command(command)
}

/// More seeds, and a process of its own for each of some runs: the gate compares whole sets.
fn scenarios_at_night(set: TestSet) -> Result<()> {
    if set == TestSet::Pr {
        println!("only at night");
        return Ok(());
    }
    run_command(cargo(&["sim", "run", "--seeds", LAB_SEEDS_AT_NIGHT]))?;
    run_command(cargo(&["sim", "meta"]))
}

/// Each scenario with the pure machines alone, some seconds for the gate; then the planted bugs of the machines.
fn core_tier(set: TestSet) -> Result<()> {
    let mut command = cargo(&["sim", "core"]);
    if set == TestSet::Nightly {
        command.args(["--seeds", CORE_SEEDS_AT_NIGHT]);
    }
    run_command(command)?;
    run_command(cargo(&["sim", "core", "--bugs"]))
}

/// The tests of the lab hear it with fewer seeds.
fn canary(set: TestSet) -> Result<()> {
    if set == TestSet::Pr {
        println!("only at night");
        return Ok(());
    }
    run_command(cargo(&["sim", "canary"]))
}

/// The gate plays a few schedules among the unit tests.
fn vault_protocol(set: TestSet) -> Result<()> {
    if set == TestSet::Pr {
        println!("only at night");
        return Ok(());
    }
    let mut command = cargo(&["test", "-p", "redoubt-core", "--release", "--test", "vault_protocol"]);
    command.args(["--", "--nocapture"]).env("VAULT_SCHEDULES", VAULT_SCHEDULES_AT_NIGHT);
    run_command(command)
}

fn end_to_end(set: TestSet) -> Result<()> {
    tools::install()?;
    let mut command =
        cargo(&["test", "-p", "redoubt-e2e", "--release", "--quiet", "--", "--test-threads", "2"]);
    // The binary under test is the production build of the step before.
    command.env("REDOUBT_BIN", crate::command::top().join("target/release/redoubt"));
    command.env("REDOUBT_E2E_KILL_CYCLES", if set == TestSet::Nightly { "50" } else { "5" });
    run_command(command)
}
