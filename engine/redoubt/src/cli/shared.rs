//! Options that several commands share: where state and vault are, what opens the vault, which point is meant.

use super::values::{DiskArg, disk, endpoint, machine, store_url, which_machine};
use crate::failure::Outcome;
use crate::kit::{Kit, passphrase};
use crate::names::WhichMachine;
use crate::units::{duration, size};
use clap::Args;
use redoubt_host::{StoreSettings, StoreUrl};
use redoubt_ports::Endpoint;
use std::path::PathBuf;
use std::time::Duration;

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
