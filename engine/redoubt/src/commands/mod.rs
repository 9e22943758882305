//! One file per command.

mod bench_plain;
mod export;
mod mount;
pub(crate) mod nbd;
mod points;
mod protect;
mod status;

use crate::cli::Command;
use crate::failure::{Exit, Failure, Outcome};

/// Runs one command to its end.
pub(crate) async fn run(command: Command) -> Outcome<()> {
    match command {
        Command::BenchPlain(args) => bench_plain::run(args).await,
        Command::Points(args) => points::run(args).await,
        Command::Mount(args) => mount::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Protect(args) => protect::run(args).await,
        Command::Export(args) => export::run(args).await,
        other => Err(Failure::new(Exit::Tool, format!("{other:?} is not in this build"))),
    }
}
