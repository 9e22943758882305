//! The command that asks for a comparison.

use super::Common;
use super::shared::StateArg;
use super::values::which_machine;
use crate::names::WhichMachine;
use clap::Args;

const RESYNC_HELP: &str = "\
Ask for it after somebody worked on a protected disk past Redoubt: a rescue system that wrote to it,
a disk put back from a copy, a guest that was started without its splitter. The service of the state
directory, `up` or `agent`, reads the disks, compares every block of 64 KiB with what the vault
holds, and sends what differs.

Guests go on: what they write meanwhile is taken and streamed as ever. It costs one read of each
disk, and one of the newest state in the vault, which a cloud may charge for; over the link go
digests, and blocks that differ. No recovery point is made before it is over; those there are stay.

If a resync is under way, it begins again and takes these disks up as well. The command waits until
the vault has everything, and where the service sees the vault until a point has it. Interrupted
with Ctrl-C, it leaves the service at it. If the service ends before it is over, ask again.

Exit codes: 0 compared, or taken up with --no-wait; 3 no service runs there; 4 it protects another
machine, or no such disk; 5 interrupted, or the service was started anew.";

#[derive(Debug, Args)]
#[command(after_help = RESYNC_HELP)]
pub(crate) struct Resync {
    /// Machine that the service protects: its name, or its 32 hexadecimal digits
    #[arg(value_name = "MACHINE", value_parser = which_machine)]
    pub(crate) machine: WhichMachine,
    /// Disk to compare, by the name it is protected under; may be repeated [default: all of the machine]
    #[arg(long = "volume", value_name = "NAME")]
    pub(crate) volumes: Vec<String>,
    /// Does not wait for the end: `status` shows how far it is
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) state: StateArg,
    #[command(flatten)]
    pub(crate) common: Common,
}
