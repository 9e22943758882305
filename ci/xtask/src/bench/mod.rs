//! `cargo xtask bench`: ratios against peers, measured in one run on one machine.
//!
//! Absolute times on shared machines mean little; a ratio of interleaved rounds (A B A B) means
//! more. Each bar prints one line and one row of `reports/bench/history.csv`. A missed bar is a fact, not a failure.

mod bars;
mod fio;
mod server;

use crate::command::{cargo, output, run as run_command, top};
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

/// Which side of the bar is good.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// The figure must not exceed the bar.
    AtMost(f64),
    /// The figure must reach the bar.
    AtLeast(f64),
}

/// One measured bar.
pub(crate) struct Figure {
    /// Name of the bar, such as `P1`.
    pub(crate) bar: &'static str,
    /// What was measured against what.
    pub(crate) what: String,
    /// One value per round, as a ratio or in the unit that `what` names.
    pub(crate) values: Vec<f64>,
    /// What is good.
    pub(crate) goal: Goal,
}

impl Figure {
    fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn spread(&self) -> (f64, f64) {
        self.values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
    }

    fn is_held(&self) -> bool {
        match self.goal {
            Goal::AtMost(bar) => self.median() <= bar,
            Goal::AtLeast(bar) => self.median() >= bar,
        }
    }

    fn line(&self) -> String {
        let (low, high) = self.spread();
        let goal = match self.goal {
            Goal::AtMost(bar) => format!("<= {bar}"),
            Goal::AtLeast(bar) => format!(">= {bar}"),
        };
        let held = if self.is_held() { "held" } else { "MISSED" };
        let median = self.median();
        format!("{:<4} {:<62} {median:>8.2}  [{low:.2} .. {high:.2}]  {goal:<8} {held}", self.bar, self.what)
    }
}

/// Measures the named bars, or all, and appends the history.
pub(crate) fn run(names: &[String], rounds: usize) -> Result<ExitCode> {
    if let Some(unknown) =
        names.iter().find(|name| !bars::ALL.iter().any(|(bar, _)| bar.eq_ignore_ascii_case(name)))
    {
        bail!("{unknown} is not a bar; bars: {}", bars::ALL.map(|(bar, _)| bar).join(", "));
    }
    tools::install()?;
    run_command(cargo(&["build", "--release", "--quiet", "-p", "redoubt"]))?;
    let mut figures = Vec::new();
    for (bar, measure) in bars::ALL {
        if names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(bar)) {
            eprintln!("measuring {bar}");
            figures.extend(measure(rounds).with_context(|| format!("cannot measure {bar}"))?);
        }
    }
    figures.iter().for_each(|figure| println!("{}", figure.line()));
    append_history(&figures)?;
    Ok(ExitCode::SUCCESS)
}

fn append_history(figures: &[Figure]) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(top());
    let commit = output(git)?;
    let path = top().join("reports/bench/history.csv");
    let mut text = std::fs::read_to_string(&path)
        .unwrap_or_else(|_| "commit,bar,what,median,low,high,rounds,held\n".to_owned());
    for figure in figures {
        let (low, high) = figure.spread();
        writeln!(
            text,
            "{},{},\"{}\",{:.3},{low:.3},{high:.3},{},{}",
            commit.trim(),
            figure.bar,
            figure.what,
            figure.median(),
            figure.values.len(),
            figure.is_held()
        )?;
    }
    std::fs::create_dir_all(path.parent().expect("the history lies in a directory"))?;
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_the_goal_has_a_direction() {
        let mut figure =
            Figure { bar: "P1", what: "x".into(), values: vec![3.0, 1.0, 1.05], goal: Goal::AtMost(1.1) };
        assert!(figure.is_held());
        assert_eq!(figure.spread(), (1.0, 3.0));
        figure.goal = Goal::AtLeast(1.1);
        assert!(!figure.is_held());
    }
}
