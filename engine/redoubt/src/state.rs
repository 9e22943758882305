//! The state directory of a service: one owner, and a small file that says what it protects.
//!
//! - SD-1 Only the holder of the directory's lock writes in it.
//! - SD-2 The record is replaced as a whole: the old one or the new one survives a crash.
//! - SD-3 The record is the one place that says which disks are protected (decision 0007). A record that
//!   changed by itself is refused: a wrong name or path would protect another disk.
//!
//! What is *not* here: the roles' own files, which live in directories below.

use crate::failure::{Exit, Failure, Outcome};
use redoubt_core::MachineId;
use redoubt_host::{HostFiles, StoreSettings, StoreUrl};
use redoubt_ports::{Entropy, Files, IoKind, OpenMode};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::path::{Path, PathBuf};

const RECORD: &str = "redoubt.json";
const RECORD_NEW: &str = "redoubt.json.new";
const VERSION: u32 = 1;
/// Largest record: some thousand disks.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What a service remembers between runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    /// Machine, 32 hexadecimal digits.
    machine: String,
    /// Vault that was used last, if the service writes one.
    vault: Option<String>,
    /// Address of the server that the vault's store is on, if it is not the cloud's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vault_endpoint: Option<String>,
    /// File with credentials for the vault's store, if they are not of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vault_credentials: Option<PathBuf>,
    /// Key file that was used last.
    pub(crate) key: Option<PathBuf>,
    /// Protected disks.
    pub(crate) disks: Vec<DiskRecord>,
    /// Disks that were imported before, in the order of their places in the vault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) seeds: Vec<String>,
}

/// The record as it lies in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// CRC32C of the record's compact JSON, 8 hexadecimal digits.
    check: String,
    record: Record,
}

impl Sealed {
    fn of(record: &Record) -> serde_json::Result<Sealed> {
        let check = format!("{:08x}", crc32c::crc32c(&serde_json::to_vec(record)?));
        Ok(Sealed { check, record: record.clone() })
    }
}

/// One protected disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskRecord {
    pub(crate) name: String,
    pub(crate) path: String,
}

impl Record {
    pub(crate) fn new(entropy: &dyn Entropy) -> Record {
        Record::of(MachineId(entropy.id()))
    }

    /// The record of a machine that has its identity already.
    pub(crate) fn of(machine: MachineId) -> Record {
        Record {
            version: VERSION,
            machine: machine.to_string(),
            vault: None,
            vault_endpoint: None,
            vault_credentials: None,
            key: None,
            disks: Vec::new(),
            seeds: Vec::new(),
        }
    }

    pub(crate) fn machine(&self) -> Option<MachineId> {
        crate::cli::machine(&self.machine).ok().map(MachineId)
    }

    /// Returns the store of the vault that was used last.
    pub(crate) fn store(&self) -> Option<StoreSettings> {
        let url = StoreUrl::parse(self.vault.as_ref()?).ok()?;
        let (endpoint, credentials) = (self.vault_endpoint.clone(), self.vault_credentials.clone());
        Some(StoreSettings { endpoint, credentials, ..StoreSettings::new(url) })
    }

    /// Notes where the vault and its key are, for commands that run in another directory.
    pub(crate) fn note(&mut self, store: &StoreSettings, key: Option<&Path>) {
        self.vault = Some(place_of(store));
        self.vault_endpoint = store.endpoint.clone();
        self.vault_credentials = store.credentials.as_deref().map(absolute);
        self.key = key.map(absolute);
    }

    /// Tells whether this vault is the one that was used last.
    pub(crate) fn has_used(&self, store: &StoreSettings) -> bool {
        self.vault.as_deref() == Some(&place_of(store))
    }

    /// Notes that a disk was imported.
    pub(crate) fn seed(&mut self, name: &str) {
        if !self.seeds.iter().any(|seed| seed == name) {
            self.seeds.push(name.to_owned());
        }
    }

    /// Puts imported disks first, in the order of their seeds, and the others in that of their names, as imports do: an
    /// agent's first start gives places in this order. Returns the imported ones that are not protected.
    pub(crate) fn order_disks(&mut self) -> Vec<String> {
        let place = |name: &str| self.seeds.iter().position(|seed| seed == name).unwrap_or(usize::MAX);
        self.disks.sort_by(|a, b| (place(&a.name), &a.name).cmp(&(place(&b.name), &b.name)));
        let is_missing = |seed: &&String| !self.disks.iter().any(|disk| disk.name == **seed);
        self.seeds.iter().filter(is_missing).cloned().collect()
    }

    /// Adds a disk, or finds it there. A name never changes its disk: the vault's copy would then
    /// silently be of another disk.
    pub(crate) fn add(&mut self, name: &str, path: &str) -> Outcome<()> {
        match self.disks.iter().find(|disk| disk.name == name || disk.path == path) {
            None => self.disks.push(DiskRecord { name: name.to_owned(), path: path.to_owned() }),
            Some(disk) if disk.name == name && disk.path == path => {}
            Some(disk) => {
                let what = format!(
                    "cannot protect {path} as {name:?}: {} is protected as {:?}",
                    disk.path, disk.name
                );
                return Err(
                    Failure::new(Exit::Refused, what).hint("choose another name, or another state directory")
                );
            }
        }
        Ok(())
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns a store's place as every directory understands it.
fn place_of(store: &StoreSettings) -> String {
    match store.url.directory() {
        Some(path) => absolute(path).display().to_string(),
        None => store.url.to_string(),
    }
}

/// Reads the record without owning the directory; `None` if there is none.
pub(crate) fn peek(directory: &Path) -> Outcome<Option<Record>> {
    let path = directory.join(RECORD);
    match std::fs::read(&path) {
        Ok(bytes) => decode(&path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::new(Exit::Unreachable, format!("cannot read {}: {error}", path.display())))
        }
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Outcome<Record> {
    let refused = |detail: String| {
        Failure::new(Exit::Refused, format!("state file {} is unusable: {detail}", path.display())).hint(
            "restore it from a copy, or start with another --state directory: the disks are then copied anew",
        )
    };
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(refused(format!("{} bytes are too many", bytes.len())));
    }
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
    let expected = Sealed::of(&sealed.record).map_err(|error| refused(error.to_string()))?;
    if sealed.check != expected.check {
        return Err(refused("its content does not fit its checksum".to_owned()));
    }
    let record = sealed.record;
    if record.version != VERSION {
        return Err(refused(format!("it has version {}, this program knows {VERSION}", record.version)));
    }
    if record.machine().is_none() {
        return Err(refused("the machine is not 32 hexadecimal digits".to_owned()));
    }
    Ok(record)
}

/// A state directory that this process owns.
pub(crate) struct State {
    pub(crate) path: PathBuf,
    files: HostFiles,
    _lock: Box<dyn Any + Send + Sync>,
}

impl State {
    /// Takes the directory, making it if its parent exists.
    pub(crate) async fn own(path: &Path) -> Outcome<State> {
        make_directory(path, "state")?;
        let path = path.canonicalize().map_err(|error| {
            Failure::new(Exit::Unreachable, format!("cannot use state directory {}: {error}", path.display()))
        })?;
        let files = HostFiles::open(&path)?;
        let lock = files.lock().await.map_err(|error| match error.kind {
            IoKind::Busy => {
                let what = format!("state directory {} is used by another redoubt process", path.display());
                Failure::new(Exit::Refused, what)
                    .hint("stop that process, or choose another directory with --state")
            }
            _ => Failure::from(error),
        })?;
        Ok(State { path, files, _lock: lock })
    }

    /// Returns a directory of a role below this one, making it if needed.
    pub(crate) fn role(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.path.join(name);
        make_directory(&path, "state")?;
        Ok(path)
    }

    /// Replaces the record, durably.
    pub(crate) async fn save(&self, record: &Record) -> Outcome<()> {
        let bytes = Sealed::of(record)
            .and_then(|sealed| serde_json::to_vec_pretty(&sealed))
            .map_err(|error| Failure::new(Exit::Tool, format!("cannot write the state file: {error}")))?;
        let file = self.files.open(RECORD_NEW, OpenMode::CreateOrOpen).await?;
        file.set_len(0).await?;
        file.write_at(0, &[bytes.into()]).await?;
        file.sync().await?;
        self.files.rename(RECORD_NEW, RECORD).await?;
        self.files.sync_dir().await?;
        Ok(())
    }
}

/// Makes a directory for the owner only, unless it exists; its parent must exist.
pub(crate) fn make_directory(path: &Path, purpose: &str) -> Outcome<()> {
    use std::os::unix::fs::DirBuilderExt;
    check_directory(path, purpose)?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Failure::new(
            Exit::Unreachable,
            format!("cannot make {purpose} directory {}: {error}", path.display()),
        )),
        _ => Ok(()),
    }
}

/// Checks, without changing anything, that the directory exists or can be made.
pub(crate) fn check_directory(path: &Path, purpose: &str) -> Outcome<()> {
    if path.exists() && !path.is_dir() {
        let what = format!("{purpose} directory {} is not a directory", path.display());
        return Err(Failure::new(Exit::Refused, what).hint("choose another path"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let what = format!(
            "{purpose} directory {} cannot be made: {} does not exist",
            path.display(),
            parent.display()
        );
        return Err(
            Failure::new(Exit::Unreachable, what).hint(format!("run `mkdir -p {}`", parent.display()))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_come_in_the_order_of_their_seeds_and_then_of_their_names() {
        let mut record = Record::new(&redoubt_host::HostEntropy);
        ["b", "a", "x", "a"].iter().for_each(|name| record.seed(name));
        ["d", "c", "a", "b"].iter().for_each(|name| record.add(name, &format!("/dev/{name}")).unwrap());
        assert_eq!(record.order_disks(), ["x"], "it is not protected");
        let names: Vec<&str> = record.disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c", "d"]);
    }

    #[tokio::test]
    async fn a_record_survives_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let state = State::own(&path).await.unwrap();
        assert_eq!(State::own(&path).await.err().unwrap().exit, Exit::Refused);
        let mut record = Record::new(&redoubt_host::HostEntropy);
        record.add("erp", "/dev/a").unwrap();
        record.add("erp", "/dev/a").unwrap();
        assert_eq!(record.add("erp", "/dev/b").unwrap_err().exit, Exit::Refused);
        assert_eq!(record.add("crm", "/dev/a").unwrap_err().exit, Exit::Refused);
        state.save(&record).await.unwrap();
        assert_eq!(peek(&path).unwrap(), Some(record));
        let good = std::fs::read(path.join(RECORD)).unwrap();
        for (at, byte) in good.iter().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace()) {
            let mut wrong = good.clone();
            wrong[at] = byte ^ 1;
            std::fs::write(path.join(RECORD), &wrong).unwrap();
            assert_eq!(peek(&path).unwrap_err().exit, Exit::Refused, "byte {at}");
        }
        std::fs::write(path.join(RECORD), &good[..good.len() / 2]).unwrap();
        assert_eq!(peek(&path).unwrap_err().exit, Exit::Refused);
        assert_eq!(peek(directory.path()).unwrap(), None);
        assert!(State::own(&directory.path().join("no/such")).await.is_err());
    }
}
