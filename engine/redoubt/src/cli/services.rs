//! Commands that protect disks, and look at who does.

use super::Common;
use super::shared::{AgentArgs, ServiceArgs, StateArg, StoreArgs, WhichVault};
use super::values::{DiskArg, disk, endpoint, machine, rate};
use crate::settings::keep::ladder;
use crate::units::size;
use clap::Args;
use redoubt_core::maintenance::Ladder;
use redoubt_ports::Endpoint;

/// Which recovery points a vault keeps.
#[derive(Debug, Args)]
pub(crate) struct KeepArg {
    /// Recovery points to keep: all:AGE, hourly:AGE, daily:AGE, weekly:AGE, PERIOD:AGE, newest:COUNT, crash:COUNT or
    /// app:COUNT with commas between them, or latest [default: all:2h,hourly:24h,daily:15d]
    #[arg(long = "keep", value_name = "RULES", value_parser = ladder)]
    pub(crate) rules: Option<Ladder>,
}

/// The vault that a service writes, and how.
#[derive(Debug, Args)]
pub(crate) struct WrittenVault {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Most that is sent to the vault per second, on average [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(crate) vault_rate_max: Option<u64>,
    #[command(flatten)]
    pub(crate) keep: KeepArg,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) vault: WrittenVault,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    /// Process server to stream to: tcp:HOST:PORT or unix:PATH; may be repeated, first is preferred
    #[arg(long = "process-server", value_name = "ENDPOINT", value_parser = endpoint)]
    pub(crate) process_servers: Vec<Endpoint>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessServer {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) vault: WrittenVault,
    /// Where agents connect: tcp:HOST:PORT or unix:PATH
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint)]
    pub(crate) listen: Option<Endpoint>,
    /// Machine that may connect, as its agent prints it; may be repeated [default: every machine
    /// whose agent has the vault's key]
    #[arg(long = "machine", value_name = "ID", value_parser = machine)]
    pub(crate) machines: Vec<u128>,
    /// Space for staged changes, divided among the machines [default: 8GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) stage_max: Option<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}

const MAINTAINER_HELP: &str = "\
A process server maintains the vault it writes; this takes that work over, on a host of your choice.
It needs the vault and its key, nothing of the protected site. Any number may run: each machine of the
vault has one that does the work, the one that came last. If it stands still, another takes over.

One line for each piece of work; ends when it is interrupted.";

#[derive(Debug, Args)]
#[command(after_help = MAINTAINER_HELP)]
pub(crate) struct Maintainer {
    #[command(flatten)]
    pub(crate) which: WhichVault,
    #[command(flatten)]
    pub(crate) keep: KeepArg,
    /// Machine to maintain; may be repeated [default: all of the vault]
    #[arg(long = "machine", value_name = "ID", value_parser = machine)]
    pub(crate) machines: Vec<u128>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Protect {
    /// Disk to protect and its name, such as erp=/dev/sdb or erp=disk.img
    #[arg(value_name = "NAME=PATH", value_parser = disk)]
    pub(crate) disk: DiskArg,
    #[command(flatten)]
    pub(crate) state: StateArg,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) state: StateArg,
    /// Shows it again every second until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// Answers a monitoring system: one line, and exit code 0 ok, 1 warning, 2 critical, 3 unknown
    #[arg(long, conflicts_with = "watch")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct BenchPlain {
    /// Disk to serve
    #[arg(long, value_name = "PATH")]
    pub(crate) disk: String,
    /// Where NBD clients connect
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint)]
    pub(crate) listen: Endpoint,
    /// Permit no change
    #[arg(long)]
    pub(crate) read_only: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}
