//! Commands of the lab. Exit codes: `crate::codes`.

mod bench;
mod bugs;
mod build;
mod call;
mod canary;
mod capacity;
mod capsules;
mod ci;
mod complaint;
mod core;
mod core_bugs;
mod corpus;
mod cover;
mod diff;
mod files;
mod fork;
mod gather;
mod hardware;
mod hunt;
mod hw;
mod interrupt;
#[cfg(test)]
mod kit;
mod language;
mod memory;
mod meta;
mod paint;
mod pipe;
mod pool;
mod replay;
mod report;
mod run;
mod set;
mod shrink;
mod trace;

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
        /// First seed; by default what its file says, mostly 1.
        #[arg(long)]
        from: Option<u64>,
        #[command(flatten)]
        which: run::Seeds,
        /// Planted bug to activate.
        #[arg(long)]
        bug: Option<String>,
        /// Where the capsules of failed runs go; by default `target/runs`. With `--ci`, where all files go.
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
        #[command(flatten)]
        files: report::Files,
        #[command(flatten)]
        ci: ci::Flags,
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
    /// Shows what happened in a run, actor by actor.
    Trace {
        /// SCENARIO@SEED or a capsule, FILE.rdrun
        run: String,
        /// Only what is near this time.
        #[arg(long, value_name = "TIME")]
        around: Option<String>,
        /// Only events of this actor: a host, plan, oracles, run.
        #[arg(long)]
        actor: Option<String>,
        /// Prints one line of JSON per event.
        #[arg(long)]
        json: bool,
        /// Writes a file for https://ui.perfetto.dev instead.
        #[arg(long, value_name = "FILE")]
        perfetto: Option<PathBuf>,
        /// Planted bug to activate.
        #[arg(long)]
        bug: Option<String>,
    },
    /// Shows where two runs, their plans, or one run in two builds part.
    Diff {
        /// SCENARIO@SEED or a capsule, FILE.rdrun
        one: String,
        /// The other run; the same if none is given.
        other: Option<String>,
        /// Planted bug of the one run.
        #[arg(long)]
        bug: Option<String>,
        /// Planted bug of the other run.
        #[arg(long)]
        other_bug: Option<String>,
        /// Another build of the lab, its `redoubt-sim`, plays the other run.
        #[arg(long, value_name = "PROGRAM")]
        build: Option<PathBuf>,
        /// Compares the plans only.
        #[arg(long)]
        plans: bool,
    },
    /// Plays many futures of a run: when did its failure become inevitable?
    Fork {
        /// SCENARIO@SEED or a capsule, FILE.rdrun
        run: String,
        /// Forks there; without it, the time is searched.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Futures of each time.
        #[arg(long, default_value_t = 16)]
        futures: u64,
        /// Planted bug to activate.
        #[arg(long)]
        bug: Option<String>,
    },
    /// Shows which faults bit, which marks, warnings and changes of state a set of runs reached.
    Cover {
        /// Names or tags; all if none is given.
        names: Vec<String>,
        /// Seeds of each scenario; by default what its file says.
        #[arg(long)]
        seeds: Option<u64>,
        /// Prints the set as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Plays the failures that were kept in scenarios/regressions and shows their stories.
    Corpus,
    /// Makes a failed run as small as it can be while it fails alike, and freezes it as a scenario file.
    Shrink {
        /// SCENARIO@SEED or a capsule, FILE.rdrun
        run: String,
        /// Longest time on a real clock.
        #[arg(long, default_value = "2m")]
        within: String,
        /// Keeps the result as scenarios/regressions/NAME.toml; without it, it goes to `target/runs/shrunk`.
        #[arg(long, value_name = "NAME")]
        keep: Option<String>,
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
        #[command(flatten)]
        night: run::Night,
        /// Where the capsules of failed runs go; by default `target/runs`. With `--ci`, where all files go.
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
        #[command(flatten)]
        files: report::Files,
        #[command(flatten)]
        ci: ci::Flags,
    },
    /// Plays scenarios at the core tier: the pure machines alone, tens of times as many seeds.
    Core {
        /// Names or tags, or one run, SCENARIO@SEED; all if none is given.
        names: Vec<String>,
        /// Seeds of each scenario; of `--bugs`, most runs before a bug counts as missed.
        #[arg(long)]
        seeds: Option<u64>,
        /// Runs fresh seeds until the time is over, such as 10m.
        #[arg(long = "for", conflicts_with = "seeds")]
        duration: Option<String>,
        /// First seed; by default 1, with `--for` 1000000.
        #[arg(long)]
        from: Option<u64>,
        /// Planted bug to activate.
        #[arg(long)]
        bug: Option<String>,
        /// Activates each planted bug of the pure machines until this tier catches it.
        #[arg(long, conflicts_with_all = ["bug", "duration"])]
        bugs: bool,
        /// Lines of the trace that are shown of a failure, or of one run.
        #[arg(long, default_value_t = 40)]
        trace: usize,
        /// Prints one line of JSON with the figures.
        #[arg(long)]
        json: bool,
    },
    /// Plays an estate and says what it promises and what it keeps, by group, and which link would do.
    Capacity {
        /// A scenario with objectives.
        scenario: String,
        /// Seeds; by default what its file says.
        #[arg(long)]
        seeds: Option<u64>,
        /// Plays the link as it is and searches no other.
        #[arg(long)]
        no_search: bool,
        /// How close the smallest link is found, in percent.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100))]
        within: u64,
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: report::CapacityFiles,
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
        /// Prints one line of JSON per bug.
        #[arg(long)]
        json: bool,
    },
    /// Proves that a failure is told: plays a story whose bug bites in one seed of a hundred, and looks for it in exit
    /// code, summary, annotation, JUnit's file, capsule and replay.
    Canary {
        /// Runs.
        #[arg(long, default_value_t = 1000)]
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
    /// Measures simulated seconds per second of CPU, and says what the time and the memory go into.
    Bench {
        /// Names or tags; without one those of `scenarios/bench`.
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
    pipe::end_quietly();
    let arguments = Arguments::parse();
    interrupt::listen();
    arguments.scenarios.as_deref().into_iter().for_each(call::remember);
    let directory = arguments.scenarios.unwrap_or_else(files::default_directory);
    let jobs = arguments.jobs.unwrap_or_else(pool::cores).max(1);
    let code = match arguments.command {
        Command::Run { names, from, which, bug, out, files, ci } => {
            let wanted = run::Wanted { names: &names, from, jobs, files: &files, out, ci: &ci };
            pool::with_bug(bug.as_deref(), || run::run(&directory, &wanted, &which))
        }
        Command::Replay { run, until, digest, bug } => {
            let (until, bug) = (until.as_deref(), bug.as_deref());
            replay::replay(&directory, &replay::Wanted { run: &run, is_digest_only: digest, until, bug })
        }
        Command::Sweep { duration, names, from, night, out, files, ci } => {
            let wanted = run::Wanted { names: &names, from, jobs, files: &files, out, ci: &ci };
            run::sweep(&directory, &wanted, &duration, &night)
        }
        Command::Core { names, seeds, duration, from, bug, bugs, trace, json } => {
            let duration = duration.as_deref();
            let wanted = core::Wanted { names: &names, seeds, duration, from, jobs, trace, json };
            if bugs {
                core_bugs::bugs(&directory, &wanted)
            } else {
                pool::with_bug(bug.as_deref(), || core::core(&directory, &wanted))
            }
        }
        Command::Canary { seeds } => canary::canary(&directory, seeds, jobs),
        Command::Trace { run, around, actor, json, perfetto, bug } => {
            let (around, actor) = (around.as_deref(), actor.as_deref());
            let bug = bug.as_deref();
            trace::trace(&directory, &trace::Wanted { run: &run, bug, around, actor, json, perfetto })
        }
        Command::Diff { one, other, bug, other_bug, build, plans } => {
            let (bug, other_bug) = (bug.as_deref(), other_bug.as_deref());
            let (right, build) = (other.as_deref(), build.as_deref());
            diff::diff(&directory, &diff::Wanted { left: &one, right, bug, other_bug, build, plans })
        }
        Command::Fork { run, at, futures, bug } => {
            let (at, bug) = (at.as_deref(), bug.as_deref());
            fork::fork(&directory, &fork::Wanted { run: &run, bug, at, futures, jobs })
        }
        Command::Cover { names, seeds, json } => cover::cover(&directory, &names, seeds, jobs, json),
        Command::Corpus => corpus::corpus(&directory, jobs),
        Command::Shrink { run, within, keep, bug } => {
            let (keep, bug) = (keep.as_deref(), bug.as_deref());
            run::budget(&within).and_then(|within| {
                keep.map(shrink::check_name).transpose()?;
                shrink::shrink(&directory, &shrink::Wanted { run: &run, bug, within, jobs, keep })
            })
        }
        Command::Capacity { scenario, seeds, no_search, within, json, files } => {
            let is_search = !no_search;
            let files = &files;
            let wanted =
                capacity::Wanted { scenario: &scenario, seeds, jobs, is_search, within, json, files };
            capacity::capacity(&directory, &wanted)
        }
        Command::Report { sets, files } => report::report(&sets, files),
        Command::Meta { names, seeds } => meta::meta(&directory, &names, seeds, jobs),
        Command::Bugs { names, seeds, json } => bugs::bugs(&directory, &names, seeds, jobs, json),
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
