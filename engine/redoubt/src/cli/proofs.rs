//! Commands that look whether a vault is whole, and show what is in it.

use super::Common;
use super::shared::{VaultArgs, WhichVault};
use super::values::rate;
use clap::Args;
use std::path::PathBuf;

const VERIFY_HELP: &str = "\
A reader that shares no code with the rest of this program walks the machine's log from its first
record, or from where it was folded, up to the point: each record must name the digest of the one before, each commit must begin
where the one before ended, every unit of every segment must open. Then both readers must serve the
same bytes. Damage is mapped to the points and ranges that it hits.

Not proven: that no newer points ever were, since a lost end of the log leaves no trace in it; that a
maintainer who folded the log's beginning left nothing out, since the records of it are gone.

Exit codes: 0 proven; 5 not proven; 6 proven, but the vault is damaged where other points need it.";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub(crate) struct Verify {
    /// Recovery point: its name or a unique beginning of its marker, or `newest` [default: all points;
    /// the bytes of the newest are compared]
    #[arg(value_name = "POINT")]
    pub(crate) point: Option<String>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

const SCRUB_HELP: &str = "\
Every object is read once, many at the same time. With the vault's key each unit is opened, and
each damaged place is mapped to the recovery points and ranges of volumes that need it. Without the
key checksums and digests are checked as far as they are in the clear: a lost segment, and damage
of the newest record's body, cannot be seen so.

Objects that the store does not hand out are told as not read, never as damaged. Objects that
nothing names are told, and are no damage. An interrupted scrub says how far it came; with --resume
the same command goes on there: segments that were found whole are not read again, all else is. The
file is removed when all was read.

--repair asks the service of the state directory, `up` or `agent`, to compare the lost ranges of
the newest state with its disks and to send them again, and waits for a point that has them. Points
that need the lost bytes stay as they are.

Exit codes: 0 whole; 3 something could not be read; 5 content is lost, or interrupted; 6 damaged,
and no point needs what is lost.";

#[derive(Debug, Args)]
#[command(after_help = SCRUB_HELP)]
pub(crate) struct Scrub {
    /// Checks what can be checked without the vault's key
    #[arg(long, conflicts_with_all = ["key", "recovery_kit", "repair"])]
    pub(crate) without_key: bool,
    /// Has the running service send again what the newest state has lost
    #[arg(long)]
    pub(crate) repair: bool,
    /// Most that is read from the vault per second, on average [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(crate) rate_max: Option<u64>,
    /// Notes here what was found whole and, if it was interrupted before, does not read that again
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

const VAULT_DUMP_HELP: &str = "\
Examples:
  redoubt vault-dump --vault vault            every object in a line
  redoubt vault-dump --vault vault g/5e7f     those whose names begin so
  redoubt vault-dump --vault vault vault      one object, field by field with its place

Exit codes: 0 all shown and whole; 6 shown, and damage found.";

#[derive(Debug, Args)]
#[command(after_help = VAULT_DUMP_HELP)]
pub(crate) struct VaultDump {
    /// Name of an object, shown in full; or a beginning of names, shown as a list [default: all]
    #[arg(value_name = "OBJECT|PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) object: String,
    /// Shows every unit and extent of a segment, not just the first ones
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) which: WhichVault,
    #[command(flatten)]
    pub(crate) common: Common,
}
