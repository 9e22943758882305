//! `cargo xtask bench`: figures against peers, measured in one run on one machine.
//!
//! Absolute times on shared machines mean little; a ratio of interleaved rounds (A B A B) means
//! more. A missed bar is a fact, not a failure; it is named with its reason and the plan.

mod bars;
mod churn;
mod contestants;
mod figure;
mod fio;
mod first_copy;
mod hashing;
mod history;
mod index;
mod lab;
mod ladder;
mod lag;
mod machine;
mod pipeline;
mod place;
mod server;
mod serving;
mod write_path;

use crate::command::{cargo, run as run_command, top};
use crate::tools;
use anyhow::{Context, Result, bail};
use figure::Figure;
use std::process::ExitCode;

/// Load average per core above which the figures are not worth keeping.
const BUSY: f64 = 0.5;

/// Measures the named bars, or all; appends them to the history if asked.
pub(crate) fn run(names: &[String], rounds: usize, record: bool) -> Result<ExitCode> {
    let known: Vec<&str> = bars::ALL.iter().flat_map(|measurement| measurement.bars).copied().collect();
    let is_named = |bar: &str| names.iter().any(|name| name.eq_ignore_ascii_case(bar));
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|bar| name.eq_ignore_ascii_case(bar))) {
        bail!("{unknown} is not a bar; bars: {}", known.join(", "));
    }
    if rounds == 0 {
        bail!("a figure needs at least one round; --rounds 5 gives a median and a spread");
    }
    let is_wanted = |measurement: &bars::Measurement| {
        names.is_empty() || measurement.bars.iter().any(|bar| is_named(bar))
    };
    let is_of_lab = |measurement: &bars::Measurement| measurement.bars.iter().all(|bar| bar.starts_with('L'));
    if bars::ALL.iter().any(|measurement| is_wanted(measurement) && !is_of_lab(measurement)) {
        tools::install_with_peers()?;
        run_command(cargo(&["build", "--release", "--quiet", "-p", "redoubt"]))?;
    }
    let load = machine::load();
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    if load > BUSY * cores {
        eprintln!("warning: the load average is {load:.1} on {cores} cores: these figures say little");
    }
    let mut figures = Vec::new();
    let mut failed = Vec::new();
    for measurement in &bars::ALL {
        if !is_wanted(measurement) {
            continue;
        }
        let bars = measurement.bars.join(" ");
        eprintln!("measuring {bars}: {}", measurement.title);
        match (measurement.measure)(rounds).with_context(|| format!("cannot measure {bars}")) {
            Ok(measured) => figures.extend(measured),
            // The other bars are still worth their time.
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    figures.retain(|figure| names.is_empty() || is_named(figure.bar));
    show(&figures)?;
    if record {
        history::record(&figures, &top().join("target"), load)?;
    }
    failed.iter().for_each(|error| eprintln!("error: {error}"));
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints one line per figure, then why each missed bar is missed.
fn show(figures: &[Figure]) -> Result<()> {
    let width = figures.iter().map(|figure| figure.what.len()).max().unwrap_or_default();
    for figure in figures {
        println!(
            "{:<4} {:<width$} {:>10}  [{}]  {:<8} {:<6}  {}",
            figure.bar,
            figure.what,
            figure.shown(),
            figure.shown_spread(),
            figure.goal.to_string(),
            figure.verdict(),
            figure.sides,
        );
    }
    let reasons = history::reasons()?;
    let mut missed: Vec<&str> = figures.iter().filter(|f| !f.is_held()).map(|figure| figure.bar).collect();
    missed.dedup();
    for bar in missed {
        let reason = reasons.get(bar).map_or("no reason is written down in reports/bench/missed.toml", |r| r);
        println!("\n{bar} is missed: {}", reason.trim());
    }
    Ok(())
}
