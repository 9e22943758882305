//! A vault that a service writes: found with its key, or made with a fresh one.

use crate::failure::{Exit, Failure, Outcome};
use crate::key::{self, KeySource};
use crate::output::say;
use crate::recovery;
use crate::state::{check_directory, make_directory};
use redoubt_core::MachineId;
use redoubt_host::{HostEntropy, StoreSettings, StoreUrl};
use redoubt_ports::RawStore;
use redoubt_vault::{MachineReader, Vault, VaultError};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A vault to write.
pub(crate) struct OpenVault {
    pub(crate) vault: Vault,
    pub(crate) store: Arc<dyn RawStore>,
}

async fn is_new(settings: &StoreSettings) -> Outcome<bool> {
    let StoreUrl::Directory(directory) = &settings.url else {
        let store = redoubt_host::store::open(settings)?;
        let first = store.list_after("", None, 1).await;
        return first.map(|found| found.is_empty()).map_err(|error| recovery::no_contact(settings, &error));
    };
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(!directory.exists()) };
    // The root of a fresh ext4 file system is as good as an empty directory.
    Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found"))
}

/// Checks, without changing anything, that the vault can be opened or made.
pub(crate) async fn check(settings: &StoreSettings, key: &KeySource) -> Outcome<()> {
    if let Some(directory) = settings.url.directory() {
        check_directory(directory, "vault")?;
    }
    if is_new(settings).await? {
        must_not_be_new(settings, key)?;
        return if key.exists() { key.read().map(|_| ()) } else { Ok(()) };
    }
    match recovery::open_vault(settings, key).await {
        Ok(_) => Ok(()),
        // A crash between the directory and the vault object; `open` makes it whole.
        Err(failure) if failure.what.contains("there is no vault") && key.exists() => {
            must_not_be_new(settings, key)
        }
        Err(failure) => Err(failure),
    }
}

/// A kit opens a vault that is there; none is ever made with it.
fn must_not_be_new(settings: &StoreSettings, key: &KeySource) -> Outcome<()> {
    match key {
        KeySource::File(_) => Ok(()),
        KeySource::Kit(_) => {
            Err(Failure::new(Exit::Unreachable, format!("there is no vault in {}", settings.url))
                .hint("the recovery kit is of a vault that was elsewhere: name its place with --vault"))
        }
    }
}

/// Opens the vault, making it and its key on the first run. The key is durable before the vault is.
pub(crate) async fn open(settings: &StoreSettings, key: &KeySource) -> Outcome<OpenVault> {
    let is_new = is_new(settings).await?;
    let missing = key.file().filter(|file| is_new && !file.exists());
    let keys = if let Some(file) = missing {
        let keys = key::create(file, &HostEntropy)?;
        say(format!(
            "made the vault's key {}: keep a copy elsewhere, without it nothing can be recovered",
            file.display()
        ));
        keys
    } else {
        key.read()?
    };
    if let Some(directory) = settings.url.directory() {
        make_directory(directory, "vault")?;
    }
    let store = redoubt_host::store::open(settings)?;
    let vault = match Vault::open(store.clone(), keys.clone()).await {
        Err(VaultError::NoVault) if key.file().is_some() => {
            Vault::init(store.clone(), keys, &HostEntropy).await?
        }
        other => other?,
    };
    Ok(OpenVault { vault, store })
}

/// What a status asks the vault: the newest point and how many there are.
pub(crate) struct PointsProbe {
    vault: Vault,
    machine: MachineId,
    reader: Mutex<Option<MachineReader>>,
}

impl PointsProbe {
    pub(crate) fn new(vault: Vault, machine: MachineId) -> PointsProbe {
        PointsProbe { vault, machine, reader: Mutex::new(None) }
    }

    /// Returns the points as of now; none while the machine has no log.
    pub(crate) async fn points(&self) -> Outcome<Vec<redoubt_vault::PointInfo>> {
        let mut reader = self.reader.lock().await;
        if reader.is_none() {
            match MachineReader::open(&self.vault, self.machine).await {
                Ok(opened) => *reader = Some(opened),
                Err(VaultError::UnknownMachine(_)) => return Ok(Vec::new()),
                Err(error) => return Err(Failure::from(error)),
            }
        }
        let reader = reader.as_ref().ok_or_else(|| Failure::new(Exit::Tool, "no reader"))?;
        reader.refresh().await?;
        Ok(reader.points())
    }
}
