//! The production binary: reads the command line, runs one command, reports how it ended.
//!
//! What is *not* here: decisions of replication (`redoubt-core`), IO of roles (`redoubt-roles`).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the binary is the real world")]

mod cache_directory;
mod cli;
mod commands;
mod control;
mod dump;
mod failure;
mod hold;
mod image;
mod image_source;
mod key;
mod kit;
mod names;
mod output;
mod overlay_file;
mod places;
mod qcow2;
mod qcow2_reader;
mod recovery;
mod scrubbed;
mod secret_file;
mod services;
mod settings;
mod signals;
mod state;
mod status;
mod units;
mod verdict;

use clap::Parser;
use cli::{Cli, Command};
use failure::{Exit, Failure, Outcome};
use output::Format;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json() => {
            let text = error.render().to_string();
            output::failure(Format::Json, &Failure::usage(text.trim_start_matches("error: ").trim_end()));
            return ExitCode::from(Exit::Usage as u8);
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    start_log();
    let format = format_of(&cli.command);
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(format, &failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// The log goes to stderr; `REDOUBT_LOG` says how much, as in `debug` or `redoubt_roles=debug`.
fn start_log() {
    let filter = std::env::var("REDOUBT_LOG").unwrap_or_else(|_| "warn".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .init();
}

/// Tells what a command line that cannot be understood asks for.
fn wants_json() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
}

fn format_of(command: &Command) -> Format {
    match command {
        Command::Up(args) => args.common.format,
        Command::Agent(args) => args.common.format,
        Command::ProcessServer(args) => args.common.format,
        Command::Maintainer(args) => args.common.format,
        Command::Protect(args) => args.common.format,
        Command::Resync(args) => args.common.format,
        Command::Status(args) => args.common.format,
        Command::Points(args) => args.common.format,
        Command::Mount(args) => args.common.format,
        Command::Export(args) => args.common.format,
        Command::Import(args) => args.common.format,
        Command::Verify(args) => args.common.format,
        Command::Scrub(args) => args.common.format,
        Command::Diff(args) => args.common.format,
        Command::VaultDump(args) => args.common.format,
        Command::Keys(args) => args.common().format,
        Command::BenchPlain(args) => args.common.format,
    }
}

/// Every role runs on one thread (decision 0001); what blocks goes to tokio's blocking pool.
fn run(command: Command) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Tool, format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(async {
        signals::survive_limits();
        commands::run(command).await
    });
    // Blocking work that is stuck in a dead device must not hold the process back for ever.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match result {
        Err(failure) if failure.exit != Exit::Warned => Err(failure),
        done => output::is_complete().and(done),
    }
}
