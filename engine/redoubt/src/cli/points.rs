//! Commands that list points, show what they hold, and bring images in and out.

use super::Common;
use super::shared::{PointArgs, VaultArgs, WhichVault};
use super::values::{DiskArg, cache_size, disk, endpoint, machine};
use crate::units::{Since, since, size};
use clap::Args;
use redoubt_ports::Endpoint;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Points {
    /// Also those that retention has given up and that are not gone yet: nothing can be mounted of them any more
    #[arg(long)]
    pub(crate) all: bool,
    /// Only so many, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) last: Option<u64>,
    /// Only those taken since then: an age, such as 90m, 2h or 3d, or a time in UTC, such as 2026-03-01 or
    /// "2026-03-01 14:02"
    #[arg(long, value_name = "AGE|TIME", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Says what the machine takes in the vault; lists all its objects
    #[arg(long)]
    pub(crate) space: bool,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Mount {
    #[command(flatten)]
    pub(crate) point: PointArgs,
    /// Where NBD clients connect: unix:PATH or tcp:HOST:PORT
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint)]
    pub(crate) listen: Endpoint,
    /// Takes writes and forgets them at the end; the vault never changes
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) overlay: bool,
    /// File for these writes; one that a killed mount of this point left is gone on with
    /// [default: VOLUME-POINT.overlay]
    #[arg(long, value_name = "FILE", requires = "overlay")]
    pub(crate) overlay_file: Option<PathBuf>,
    /// Data that the file may hold; beyond it writes fail with "no space"
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "overlay", default_value = "8GiB")]
    pub(crate) overlay_max: u64,
    /// Refuses writes (the default)
    #[arg(long)]
    pub(crate) read_only: bool,
    /// What of the vault is kept on the local disk until the mount ends, encrypted as in the vault; 0 for
    /// nothing [default: 8GiB; 0 for a vault in a directory, unless it is to be hydrated]
    #[arg(long, value_name = "SIZE", value_parser = cache_size)]
    pub(crate) cache: Option<u64>,
    /// Directory for it; one that a killed mount left is gone on with [default: VOLUME-POINT.cache]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Brings all of the volume into the cache, behind what clients ask: then the mount outlives an outage of
    /// the vault
    #[arg(long)]
    pub(crate) hydrate: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Form of an exported image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImageFormat {
    /// The disk's bytes, with holes where there are zeros
    Raw,
    /// QEMU's format, version 3: only what holds data takes space, on any file system
    Qcow2,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) point: PointArgs,
    /// Image to make; it must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Form of the image [default: qcow2 if the name ends so, else raw]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) to_format: Option<ImageFormat>,
    #[command(flatten)]
    pub(crate) common: Common,
}

const IMPORT_HELP: &str = "\
A first copy over a thin line takes long. Carry an image of the disk to the vault instead, on whatever
is at hand, and import it there before the machine is protected:

  at the vault    redoubt import erp=erp.img --vault vault --new-machine
  at the machine  redoubt agent --machine ID --disk erp=/dev/sdb ..

The first copy then compares each block with the seed and sends what differs. No recovery point is
made of a seed alone, and an old or a wrong one costs nothing but time. Protect the disks under the
same names, and import all that a machine has with one command. An interrupted import goes on where it was; another
image of the same disk replaces the one before. A machine that was ever protected takes no seed.";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct Import {
    /// Name that the disk will be protected under and its image, such as erp=erp.img
    #[arg(value_name = "NAME=IMAGE", value_parser = disk, required = true)]
    pub(crate) images: Vec<DiskArg>,
    /// Form of the images [default: qcow2 if the name ends so, else raw]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) from_format: Option<ImageFormat>,
    /// Makes an identity for a machine whose agent is elsewhere, and prints it [default: the machine of the state
    /// directory, which is made]
    #[arg(long, conflicts_with = "machine")]
    pub(crate) new_machine: bool,
    /// Machine whose agent is elsewhere, as an earlier import or its agent printed it
    #[arg(long, value_name = "ID", value_parser = machine)]
    pub(crate) machine: Option<u128>,
    #[command(flatten)]
    pub(crate) which: WhichVault,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// One recovery point, named as for `mount`
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// The other one
    #[arg(value_name = "B")]
    pub(crate) b: String,
    /// Only this volume: the name it was protected under, or its id [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Option<String>,
    /// Gives ranges with less than this between them as one
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub(crate) merge: u64,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}
