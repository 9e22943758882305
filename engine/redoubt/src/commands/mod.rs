//! One file per command.

mod agent;
mod bench_plain;
mod diff;
mod export;
mod import;
mod keys;
mod maintainer;
mod mount;
pub(crate) mod nbd;
mod points;
mod process_server;
mod progress;
mod protect;
mod resync;
pub(crate) mod scrub;
mod scrub_notes;
mod status;
mod up;
mod vault_dump;
mod verify;

use crate::cli::Command;
use crate::failure::Outcome;

/// Runs one command to its end.
pub(crate) async fn run(command: Command) -> Outcome<()> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::ProcessServer(args) => process_server::run(args).await,
        Command::Maintainer(args) => maintainer::run(args).await,
        Command::Protect(args) => protect::run(args).await,
        Command::Resync(args) => resync::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Points(args) => points::run(args).await,
        Command::Mount(args) => mount::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Scrub(args) => scrub::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::VaultDump(args) => vault_dump::run(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::BenchPlain(args) => bench_plain::run(args).await,
    }
}
