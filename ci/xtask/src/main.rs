//! Project tasks: `cargo xtask tidy | test | bench | tools`.
//!
//! What is *not* here: anything a user of Redoubt needs. The lab is `cargo sim`.
#![allow(clippy::disallowed_methods, reason = "a build tool runs on the real machine")]

mod bench;
mod command;
mod licences;
mod passes;
mod report;
mod servers;
mod test;
mod tidy;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

/// Project tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks the house rules: dependency table, headers, sizes, words, cfg placement.
    Tidy,
    /// Runs every check that main must pass; installs the tools it needs.
    Test {
        /// Which set.
        #[arg(value_enum, default_value = "pr")]
        set: TestSet,
        /// Runs only the steps whose name contains this text.
        #[arg(long)]
        only: Option<String>,
    },
    /// Measures the performance bars against peers and prints one line per bar.
    Bench {
        /// Bars to measure, such as P1; all without a name.
        names: Vec<String>,
        /// Interleaved rounds per figure.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Appends the figures to reports/bench and renews its table.
        #[arg(long)]
        record: bool,
    },
    /// Installs the programs that tests and benches use (Debian packages, npm, PyPI).
    Tools,
}

/// How much to test.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TestSet {
    /// What every change must pass, under 20 minutes on 2 cores.
    Pr,
    /// More seeds and more kill cycles, for hours without a person.
    Nightly,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().task {
        Task::Tidy => tidy::run(),
        Task::Test { set, only } => test::run(set, only.as_deref()),
        Task::Bench { names, rounds, record } => bench::run(&names, rounds, record),
        Task::Tools => tools::install().map(|()| ExitCode::SUCCESS),
    }
}
