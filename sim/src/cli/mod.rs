//! Commands of the lab. Exit codes: `crate::codes`.

mod bench;
mod bugs;
mod build;
mod capsules;
mod complaint;
mod files;
mod gather;
mod hardware;
mod hunt;
mod hw;
mod interrupt;
mod language;
mod meta;
mod paint;
mod pool;
mod replay;
mod report;
mod run;

use crate::codes;
pub(crate) use crate::codes::{INVALID, NOTHING, TOOL};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The lab: the replication engine under a deterministic simulator.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version, about, after_help = codes::table())]
struct Arguments {
    /// Directory of the scenario files.
    #[arg(long, global = true)]
    scenarios: Option<PathBuf>,
    /// Runs at once; by default one per core.
    #[arg(long, short, global = true)]
    jobs: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs scenarios, each with several seeds.
    Run {
        /// Names or tags; all if none is given.
        names: Vec<String>,
        /// Seeds of each scenario; by default what its file says.
        #[arg(long)]
        seeds: Option<u64>,
        /// First seed; by default what its file says, mostly 1.
        #[arg(long)]
        from: Option<u64>,
        /// Longest time on a real clock, such as 10m; what is not played then ends with code 30.
        #[arg(long)]
        within: Option<String>,
        /// Planted bug to activate.
        #[arg(long)]
        bug: Option<String>,
        /// Where the capsules of failed runs go; by default `target/runs`.
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
        #[command(flatten)]
        files: report::Files,
    },
    /// Runs one seed again, prints its plan and trace, and proves that it is the same run.
    Replay {
        /// SCENARIO@SEED, SCENARIO@SEED#DIGEST or a capsule, FILE.rdrun
        run: String,
        /// Stops at this time, such as 12.5 or "2 min".
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Prints only the digest.
        #[arg(long)]
        digest: bool,
        /// Planted bug to activate.
        #[arg(long)]
        bug: Option<String>,
    },
    /// Runs fresh seeds until the time is over.
    Sweep {
        /// How long, such as 10m, 90s or 2h.
        #[arg(long = "for", default_value = "10m")]
        duration: String,
        /// Names or tags; all if none is given.
        names: Vec<String>,
        /// First seed; by default 1000000.
        #[arg(long)]
        from: Option<u64>,
        /// Where the capsules of failed runs go; by default `target/runs`.
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
        #[command(flatten)]
        files: report::Files,
    },
    /// Makes reports of sets of runs that `--json` wrote.
    Report {
        /// The sets; several of one commit become one report.
        #[arg(required = true, value_name = "RUN.json")]
        sets: Vec<PathBuf>,
        #[command(flatten)]
        files: report::Files,
    },
    /// Runs each seed twice, in two processes: equal digests or it is a bug.
    Meta {
        /// Names or tags; all if none is given.
        names: Vec<String>,
        /// Seeds of each scenario.
        #[arg(long, default_value_t = 2)]
        seeds: u64,
    },
    /// Activates each planted bug until the lab catches it.
    Bugs {
        /// Names of bugs; all if none is given.
        names: Vec<String>,
        /// Most runs before a bug counts as missed.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
    },
    /// Searches for one planted bug and prints what came of it as JSON; `bugs` starts it.
    #[command(hide = true)]
    Hunt {
        /// Name of the bug.
        name: String,
        /// Most runs.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
    },
    #[command(flatten)]
    Language(language::Command),
    /// Prints what a seed draws, without running it.
    Plan {
        /// SCENARIO@SEED
        run: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hardware models: what they do, and new ones from what a benchmark measured.
    #[command(subcommand)]
    Hw(hw::Command),
    /// Measures simulated seconds per second of CPU.
    Bench {
        /// Names or tags; without one the estate of `scenarios/bench`.
        names: Vec<String>,
        /// Seeds of each scenario.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
        /// Prints one line of JSON per run.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    interrupt::listen();
    let directory = arguments.scenarios.unwrap_or_else(files::default_directory);
    let jobs = arguments.jobs.unwrap_or_else(pool::cores).max(1);
    let code = match arguments.command {
        Command::Run { names, seeds, from, within, bug, out, files } => {
            let wanted = run::Wanted { names: &names, from, jobs, files: &files, out };
            pool::with_bug(bug.as_deref(), || run::run(&directory, &wanted, seeds, within.as_deref()))
        }
        Command::Replay { run, until, digest, bug } => {
            let (until, bug) = (until.as_deref(), bug.as_deref());
            replay::replay(&directory, &replay::Wanted { run: &run, is_digest_only: digest, until, bug })
        }
        Command::Sweep { duration, names, from, out, files } => {
            let wanted = run::Wanted { names: &names, from, jobs, files: &files, out };
            run::sweep(&directory, &wanted, &duration)
        }
        Command::Report { sets, files } => report::report(&sets, files),
        Command::Meta { names, seeds } => meta::meta(&directory, &names, seeds, jobs),
        Command::Bugs { names, seeds } => bugs::bugs(&directory, &names, seeds, jobs),
        Command::Hunt { name, seeds } => {
            pool::find_bug(&name).ok_or(2).and_then(|bug| hunt::hunt(&directory, bug, seeds))
        }
        Command::Language(command) => language::run(&directory, &command),
        Command::Plan { run, json } => files::plan(&directory, &run, json),
        Command::Hw(command) => hw::hw(command),
        Command::Bench { names, seeds, json } => bench::bench(&directory, &names, seeds, json),
    };
    let code = code.unwrap_or_else(|code| code);
    ExitCode::from(if code == codes::HELD && interrupt::came() { codes::INTERRUPTED } else { code })
}
