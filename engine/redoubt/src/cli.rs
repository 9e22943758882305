//! The command line: names, options and help. Values only; what they do is in `commands`.

mod keys;
mod points;
mod proofs;
mod resync;
mod services;
mod shared;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use keys::*;
pub(crate) use points::*;
pub(crate) use proofs::*;
pub(crate) use resync::*;
pub(crate) use services::*;
pub(crate) use shared::*;
pub(crate) use values::*;

use crate::output::Format;
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Quick start:
  truncate -s 2G disk.img
  redoubt up --vault vault --disk erp=disk.img --listen unix:erp.sock
  redoubt status
  redoubt points
  redoubt mount newest --listen unix:point.sock

Exit codes: 0 done, 1 fault of the tool, 2 wrong usage, 3 missing or not reachable,
4 refused by the state, 5 failed, 6 done with warnings.";

/// Protects disks: streams every write to a recovery vault, and serves the disks as they were at any recovery point.
#[derive(Debug, Parser)]
#[command(name = "redoubt", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Protects disks with all roles in this one process: the quick start
    Up(Up),
    /// Runs an agent alone: serves the disks and streams their writes to a process server
    Agent(Agent),
    /// Runs a process server alone: takes streams and writes them to a vault
    ProcessServer(ProcessServer),
    /// Runs the maintainer of a vault alone, anywhere: keeps its index and deletes what is needed no more
    Maintainer(Maintainer),
    /// Adds a disk to a running `up` or `agent`
    Protect(Protect),
    /// Shows health, lag and newest recovery point of a running service
    Status(Status),
    /// Has a running service compare a machine's disks with the vault and send what differs
    Resync(Resync),
    /// Lists the recovery points in a vault
    Points(Points),
    /// Serves a volume as it was at a recovery point, over NBD
    Mount(Mount),
    /// Writes a volume as it was at a recovery point to an image, raw or qcow2
    Export(Export),
    /// Puts images of disks into a vault as a seed, so that their first copy sends only what differs
    Import(Import),
    /// Proves that a recovery point is what the machine wrote, with a second reader of the vault
    Verify(Verify),
    /// Reads all of a vault and says what is damaged and which recovery points that takes; can repair
    Scrub(Scrub),
    /// Lists where two recovery points differ
    Diff(Diff),
    /// Shows what the objects of a vault hold, in words, whole or damaged
    VaultDump(VaultDump),
    /// Shows and replaces the keys of a vault, makes and checks recovery kits
    #[command(subcommand)]
    Keys(Keys),
    /// Serves a disk over NBD without replication, to measure against
    #[command(hide = true)]
    BenchPlain(BenchPlain),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Form of the output on stdout
    #[arg(long, value_enum, default_value_t = Format::Table, value_name = "FORM")]
    pub(crate) format: Format,
    /// Draws with plain characters only
    #[arg(long)]
    pub(crate) ascii: bool,
}
