//! A vault that a service writes: found with its key, or made with a fresh one.

use super::late_store::{LateStore, VAULT};
use crate::failure::{Exit, Failure, Outcome};
use crate::key::{self, KeySource};
use crate::output::say;
use crate::recovery;
use crate::state::{Record, check_directory, make_directory};
use redoubt_core::MachineId;
use redoubt_host::{HostEntropy, StoreSettings, StoreUrl};
use redoubt_ports::{RawStore, StoreKey};
use redoubt_vault::{MachineReader, PointInfo, Vault, VaultError, VaultKeys};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};

/// How long the start of a service waits for a vault that it used before: guests wait for their disks meanwhile.
const CONTACT_DEADLINE: Duration = Duration::from_secs(3);
/// How long a status waits for the vault.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

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

/// A vault that a service used before, whether it answers or not.
pub(crate) struct UsedVault {
    pub(crate) store: Arc<dyn RawStore>,
    pub(crate) keys: VaultKeys,
    /// Nobody has looked into it yet.
    pub(crate) is_away: bool,
}

impl UsedVault {
    pub(crate) fn of(opened: OpenVault) -> UsedVault {
        UsedVault { keys: opened.vault.keys().clone(), store: opened.store, is_away: false }
    }
}

/// Tells whether a service with this record has used the vault: then it is there, reachable or not, and is never made.
pub(crate) fn was_used(record: Option<&Record>, settings: &StoreSettings, key: &KeySource) -> bool {
    key.exists() && record.is_some_and(|record| record.has_used(settings))
}

/// Opens a vault that was used before. One that is not there, or does not answer at once, is said and left to whoever
/// uses the store: no disk must wait for it. It is never made anew.
pub(crate) async fn open_used(settings: &StoreSettings, key: &KeySource) -> Outcome<UsedVault> {
    let keys = key.read()?;
    let (told, answer) = oneshot::channel();
    let (at, with) = (settings.clone(), key.clone());
    // On a thread of its own: a directory that hangs must not hold up the disks.
    let look = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let _ = told.send(
            runtime
                .map_err(|error| error.to_string())
                .map(|runtime| runtime.block_on(async { recovery::open_vault(&at, &with).await.map(drop) })),
        );
    };
    std::thread::Builder::new()
        .name("vault".to_owned())
        .spawn(look)
        .map_err(|error| Failure::new(Exit::Tool, format!("cannot look at the vault: {error}")))?;
    let why = match tokio::time::timeout(CONTACT_DEADLINE, answer).await {
        Ok(Ok(Ok(Ok(())))) => {
            return Ok(UsedVault { store: redoubt_host::store::open(settings)?, keys, is_away: false });
        }
        Ok(Ok(Ok(Err(failure)))) if failure.exit != Exit::Unreachable => return Err(failure),
        Ok(Ok(Ok(Err(failure)))) => failure.what,
        Ok(Ok(Err(why))) => why,
        Ok(Err(_)) | Err(_) => format!("vault {} does not answer", settings.url),
    };
    say(format!("warning: {why}; starting without it, it is tried again"));
    Ok(UsedVault { store: Arc::new(LateStore::new(settings.clone())), keys, is_away: true })
}

/// What a status asks the vault: the newest point and how many there are.
pub(crate) struct PointsProbe {
    store: Arc<dyn RawStore>,
    keys: VaultKeys,
    machine: MachineId,
    reader: Mutex<Option<MachineReader>>,
}

/// What a status knows of the points.
#[derive(Default)]
pub(crate) struct Seen {
    /// As of the newest look that succeeded; `None` if none did.
    pub(crate) points: Option<Vec<PointInfo>>,
    /// Why the newest look failed.
    pub(crate) trouble: Option<String>,
}

impl PointsProbe {
    pub(crate) fn new(store: Arc<dyn RawStore>, keys: VaultKeys, machine: MachineId) -> PointsProbe {
        PointsProbe { store, keys, machine, reader: Mutex::new(None) }
    }

    /// Returns the points as of now, or as of the newest look if the vault does not answer soon.
    pub(crate) async fn points(&self) -> Seen {
        let mut reader = self.reader.lock().await;
        let look = tokio::time::timeout(LOOK_DEADLINE, self.look(&mut reader)).await;
        let trouble = match look {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure.what),
            Err(_) => Some(format!("the vault did not answer within {} s", LOOK_DEADLINE.as_secs())),
        };
        match (&*reader, trouble) {
            (None, None) => Seen { points: Some(Vec::new()), trouble: None },
            (reader, trouble) => Seen { points: reader.as_ref().map(MachineReader::points), trouble },
        }
    }

    /// Brings the reader up to now; there is none while the machine has no log.
    async fn look(&self, reader: &mut Option<MachineReader>) -> Outcome<()> {
        if let Some(reader) = reader {
            reader.refresh().await?;
            return Ok(());
        }
        // Once without the vault's patience: what an outage says is worth more than that there is one.
        let contact = self.store.get(&StoreKey::new(VAULT), Some(0..1)).await;
        contact.map_err(|error| Failure::new(Exit::Unreachable, error.to_string()))?;
        let vault = Vault::open(self.store.clone(), self.keys.clone()).await?;
        match MachineReader::open(&vault, self.machine).await {
            Ok(opened) => *reader = Some(opened),
            Err(VaultError::UnknownMachine(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
