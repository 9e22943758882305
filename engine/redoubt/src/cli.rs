//! The command line: names, options and help. Values only; what they do is in `commands`.

mod keys;

pub(crate) use keys::*;

use crate::failure::Outcome;
use crate::kit::{Kit, passphrase};
use crate::names::WhichMachine;
use crate::output::Format;
use crate::settings::keep::ladder;
use crate::units::{duration, size};
use clap::{Args, Parser, Subcommand};
use redoubt_core::MachineId;
use redoubt_core::maintenance::Ladder;
use redoubt_host::store::RATE_MIN;
use redoubt_host::{StoreSettings, StoreUrl};
use redoubt_ports::Endpoint;
use redoubt_roles::mount::CACHE_BYTES_MIN;
use std::path::PathBuf;
use std::time::Duration;

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

/// A disk with the name of its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskArg {
    pub(crate) name: String,
    pub(crate) path: String,
}

pub(crate) fn volume_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(legal) {
        return Err(format!(
            "{text:?} is no volume name; use 1 to 64 letters, digits, dots, dashes or underscores"
        ));
    }
    Ok(text.to_owned())
}

fn disk(text: &str) -> Result<DiskArg, String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH, such as erp=disk.img")?;
    if path.is_empty() {
        return Err("the path is empty; write NAME=PATH, such as erp=disk.img".to_owned());
    }
    Ok(DiskArg { name: volume_name(name)?, path: path.to_owned() })
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: redoubt_ports::net::EndpointError| error.to_string())
}

/// Where the state of a service is.
#[derive(Debug, Args)]
pub(crate) struct StateArg {
    /// State directory of the service
    #[arg(long, value_name = "DIR", default_value = "redoubt-state")]
    pub(crate) state: PathBuf,
}

/// Options that `up` and `agent` share.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Disk to protect and its name, such as erp=/dev/sdb or erp=disk.img; may be repeated
    #[arg(long = "disk", value_name = "NAME=PATH", value_parser = disk)]
    pub(crate) disks: Vec<DiskArg>,
    /// Where NBD clients connect: unix:PATH or tcp:HOST:PORT; may be repeated [default: STATE/nbd.sock]
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint)]
    pub(crate) listen: Vec<Endpoint>,
    /// Time between two recovery points, such as 500ms, 15s or 5m [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) point_interval: Option<Duration>,
    /// Identity of this machine at its first start, if `import` made one for it [default: a new one]
    #[arg(long, value_name = "ID", value_parser = machine)]
    pub(crate) machine: Option<u128>,
    /// Memory for changes that are not sent yet [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_max: Option<u64>,
    /// Spill file for changes that do not fit in memory [default: 8GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) spill_max: Option<u64>,
}

pub(crate) fn store_url(text: &str) -> Result<StoreUrl, String> {
    StoreUrl::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn rate(text: &str) -> Result<u64, String> {
    match size(text)? {
        rate if rate < RATE_MIN => Err(format!("{text} is too little: a vault needs {} MiB", RATE_MIN >> 20)),
        rate => Ok(rate),
    }
}

pub(crate) fn cache_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes > 0 && bytes < CACHE_BYTES_MIN => Err(format!(
            "{text} is too little: a cache needs {} MiB, or write 0 for none",
            CACHE_BYTES_MIN >> 20
        )),
        bytes => Ok(bytes),
    }
}

/// Which store a vault is in, and how to reach it.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Vault: a directory, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX; made on the first
    /// run [default: the one that the state directory names, to recover; else redoubt-vault]
    #[arg(long, value_name = "DIR|URL", value_parser = store_url)]
    pub(crate) vault: Option<StoreUrl>,
    /// Server that speaks the protocol of the vault's cloud, such as https://minio.example:9000
    /// [default: the cloud's own]
    #[arg(long, value_name = "URL")]
    pub(crate) vault_endpoint: Option<String>,
    /// File with credentials for the vault's cloud, a line NAME=VALUE each [default: AWS_*, AZURE_* or
    /// GOOGLE_* variables of the environment]
    #[arg(long, value_name = "FILE")]
    pub(crate) vault_credentials: Option<PathBuf>,
}

impl StoreArgs {
    /// Returns what was given, over what is known already of another place or of the same.
    pub(crate) fn over(&self, known: Option<StoreSettings>) -> Option<StoreSettings> {
        let mut settings = match (&self.vault, known) {
            (Some(url), Some(known)) if *url == known.url => known,
            (Some(url), _) => StoreSettings::new(url.clone()),
            (None, known) => known?,
        };
        settings.endpoint = self.vault_endpoint.clone().or(settings.endpoint);
        settings.credentials = self.vault_credentials.clone().or(settings.credentials);
        Some(settings)
    }
}

/// Options that every service shares.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Settings file (TOML); options given here win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State directory, made on the first run [default: redoubt-state]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// What opens the vault.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct KeyArgs {
    /// Key file of the vault [default: the vault's path with .key added]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Recovery kit instead of a key file; it also says where the vault is. Its passphrase is asked for on the
    /// terminal, unless REDOUBT_PASSPHRASE holds it
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub(crate) recovery_kit: Option<PathBuf>,
    /// File with the passphrase of a recovery kit
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// Opens the recovery kit, if one was named.
    pub(crate) fn kit(&self) -> Outcome<Option<Kit>> {
        let Some(path) = &self.recovery_kit else { return Ok(None) };
        Kit::read(path, || passphrase::existing(self.passphrase_file.as_deref(), path)).map(Some)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Most that is sent to the vault per second, on average [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(crate) vault_rate_max: Option<u64>,
    /// Recovery points to keep: all:AGE, hourly:AGE, daily:AGE, weekly:AGE, PERIOD:AGE, newest:COUNT, crash:COUNT or
    /// app:COUNT with commas between them, or latest [default: all:2h,hourly:24h,daily:15d]
    #[arg(long, value_name = "RULES", value_parser = ladder)]
    pub(crate) keep: Option<Ladder>,
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
    pub(crate) store: StoreArgs,
    /// Most that is sent to the vault per second, on average [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(crate) vault_rate_max: Option<u64>,
    /// Recovery points to keep: all:AGE, hourly:AGE, daily:AGE, weekly:AGE, PERIOD:AGE, newest:COUNT, crash:COUNT or
    /// app:COUNT with commas between them, or latest [default: all:2h,hourly:24h,daily:15d]
    #[arg(long, value_name = "RULES", value_parser = ladder)]
    pub(crate) keep: Option<Ladder>,
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
    /// Recovery points to keep: all:AGE, hourly:AGE, daily:AGE, weekly:AGE, PERIOD:AGE, newest:COUNT, crash:COUNT or
    /// app:COUNT with commas between them, or latest [default: all:2h,hourly:24h,daily:15d]
    #[arg(long, value_name = "RULES", value_parser = ladder)]
    pub(crate) keep: Option<Ladder>,
    /// Machine to maintain; may be repeated [default: all of the vault]
    #[arg(long = "machine", value_name = "ID", value_parser = machine)]
    pub(crate) machines: Vec<u128>,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) fn machine(text: &str) -> Result<u128, String> {
    let wrong = || format!("{text:?} is no machine; write its 32 hexadecimal digits");
    if text.len() != 32 {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16).map_err(|_| wrong())
}

fn which_machine(text: &str) -> Result<WhichMachine, String> {
    match machine(text) {
        Ok(id) => Ok(WhichMachine::Id(MachineId(id))),
        Err(_) if text.is_empty() => Err("write the machine's name or its 32 hexadecimal digits".to_owned()),
        Err(_) => Ok(WhichMachine::Name(text.to_owned())),
    }
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

/// Where a vault is; whatever is not given is what the service of the state directory uses.
#[derive(Debug, Args)]
pub(crate) struct WhichVault {
    #[command(flatten)]
    pub(crate) state: StateArg,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// One machine of a vault.
#[derive(Debug, Args)]
pub(crate) struct VaultArgs {
    #[command(flatten)]
    pub(crate) which: WhichVault,
    /// Machine, if the vault holds several: its name, or its 32 hexadecimal digits
    #[arg(long, value_name = "NAME|ID", value_parser = which_machine)]
    pub(crate) machine: Option<WhichMachine>,
}

#[derive(Debug, Args)]
pub(crate) struct Points {
    /// Also those that retention has given up and that are not gone yet: nothing can be mounted of them any more
    #[arg(long)]
    pub(crate) all: bool,
    /// Says what the machine takes in the vault; lists all its objects
    #[arg(long)]
    pub(crate) space: bool,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// A volume at a point.
#[derive(Debug, Args)]
pub(crate) struct PointArgs {
    /// Recovery point: its name or a unique beginning of it, as `points` lists it, or `newest`
    #[arg(value_name = "POINT")]
    pub(crate) point: String,
    /// Volume, if the point holds several: the name it was protected under, or its id
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Option<String>,
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
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
nothing names are told, and are no damage. An interrupted scrub says how far it came.

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
    #[command(flatten)]
    pub(crate) vault: VaultArgs,
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

#[cfg(test)]
mod tests;
