//! `redoubt keys`: its commands and options. Values only; what they do is in `commands::keys`.

use super::{Common, StoreArgs, WhichVault, machine};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Commands on keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Lists the vault's keys and the machines' data keys, and tries them
    List(KeysList),
    /// Gives machines a new data key for what is written from now on; what is there stays readable
    Rotate(KeysRotate),
    /// Replaces the vault key without rewriting data; the old one works until it is retired
    Rewrap(KeysRewrap),
    /// Takes the vault from older vault keys: from then on only the newest opens it
    Retire(KeysList),
    /// Writes a recovery kit: all that is needed to open the vault from elsewhere, behind a passphrase
    ExportKit(KeysExportKit),
    /// Checks that a recovery kit opens its vault, and every data key in it
    CheckKit(KeysCheckKit),
}

impl Keys {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Keys::List(args) | Keys::Retire(args) => &args.common,
            Keys::Rotate(args) => &args.common,
            Keys::Rewrap(args) => &args.common,
            Keys::ExportKit(args) => &args.common,
            Keys::CheckKit(args) => &args.common,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct KeysList {
    #[command(flatten)]
    pub(crate) which: WhichVault,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct KeysRotate {
    #[command(flatten)]
    pub(crate) which: WhichVault,
    /// Machine [default: all of the vault]
    #[arg(long, value_name = "ID", value_parser = machine)]
    pub(crate) machine: Option<u128>,
    #[command(flatten)]
    pub(crate) common: Common,
}

const REWRAP_HELP: &str = "\
1. redoubt keys rewrap --new-key new.key       both keys open the vault now
2. Give every service and agent of the vault the new key file, and start them again.
3. redoubt keys export-kit kit.txt --key new.key
4. redoubt keys retire --key new.key           the old key opens nothing any more

If it is interrupted, repeat it: it goes on with the same file. After a leak of the old key also
rotate: who has it and a copy of the vault's wrapped keys has the data keys of today.";

#[derive(Debug, Args)]
#[command(after_help = REWRAP_HELP)]
pub(crate) struct KeysRewrap {
    /// File of the new vault key; made if it is not there
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key: PathBuf,
    #[command(flatten)]
    pub(crate) which: WhichVault,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct KeysExportKit {
    /// Kit to make; it must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) which: WhichVault,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct KeysCheckKit {
    /// Kit to check
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// File with the passphrase of the kit
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}
