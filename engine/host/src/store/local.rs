//! A vault in a local directory: creations through `object_store`'s file system back end, readings and
//! listings here, because its own list walks and stats whole trees.
//!
//! That back end is not durable by default, and three holes stay open even with `with_fsync(true)`;
//! this layer closes them:
//! - ST-1 A directory counts as durable only after this process synced its parent; a directory
//!   found existing may have been made by a process that died before its own sync.
//! - ST-2 `AlreadyExists` may be adopted as success by the caller (its own lost answer), so the
//!   found object and its directory are synced before the answer.
//! - ST-3 A crash in mid-upload leaves `name#1`, which the back end never removes: swept before the first
//!   creation in a directory, if older than any upload that may still be at work in another process.
//!
//! - ST-4 Opening, reading and listing change nothing: a vault on a read-only medium can be recovered from.
//! - ST-5 A listing costs the directories it touches, not the vault.
//!
//! What is *not* here: retries and the reading back of uncertain results (`redoubt-vault`).

use super::is_name;
use crate::blocking;
use crate::disk_io::read_fully;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, PutMode, PutOptions, PutPayload};
use redoubt_ports::{IoError, RawStore, StoreError, StoreKey};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::errors::failed;

/// An upload older than this has no process any more. An attempt lasts half a minute; the rest is for
/// clocks. To remove one at work could let another process publish half of its own upload by that name.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// One vault directory.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    store: LocalFileSystem,
    /// Directories whose name is durable, swept.
    durable: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl LocalStore {
    /// Opens an existing directory; changes nothing in it.
    pub fn open(root: &Path) -> Result<LocalStore, IoError> {
        let what = || format!("open vault directory {}", root.display());
        let root = root.canonicalize().map_err(|e| failed(what(), e))?;
        std::fs::read_dir(&root).map_err(|e| failed(what(), e))?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| failed(what(), std::io::Error::other(e)))?
            .with_fsync(true);
        Ok(LocalStore { root, store, durable: Arc::default() })
    }

    /// ST-1 for the directory of `key`.
    async fn ensure_directory(&self, key: &StoreKey) -> Result<(), StoreError> {
        let parent = key.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let parent = self.root.join(parent);
        if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(&parent) {
            return Ok(());
        }
        let (root, durable) = (self.root.clone(), self.durable.clone());
        blocking::run(move || {
            // Held throughout: nobody may see the directory exist before it is durable.
            let mut durable = durable.lock().unwrap_or_else(PoisonError::into_inner);
            make_durable(&root, &parent, &mut durable)?;
            sweep(&parent, SystemTime::now());
            Ok(())
        })
        .await
        .map_err(|error| of_io(&error, StoreError::Unavailable(error.to_string())))
    }
}

fn make_durable(root: &Path, directory: &Path, durable: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    if durable.contains(directory) {
        return Ok(());
    }
    if directory == root {
        durable.insert(directory.to_owned());
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(root);
    make_durable(root, parent, durable)?;
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::File::open(parent)?.sync_all()?;
    durable.insert(directory.to_owned());
    Ok(())
}

/// ST-3. What cannot be removed stays: it is hidden, and only space.
fn sweep(directory: &Path, now: SystemTime) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| is_upload(&entry.file_name().to_string_lossy())) {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        if written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > STALE_AFTER)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_upload(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn of_io(error: &std::io::Error, otherwise: StoreError) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::NoSpace,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Denied(error.to_string()),
        _ => otherwise,
    }
}

/// Finds the system's error below `error` and says what it means, or `otherwise`.
fn of_store(error: &Error, otherwise: fn(String) -> StoreError) -> StoreError {
    let mut source = Some(error as &dyn std::error::Error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return of_io(io, otherwise(error.to_string()));
        }
        source = inner.source();
    }
    otherwise(error.to_string())
}

#[async_trait]
impl RawStore for LocalStore {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.ensure_directory(key).await?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = ObjectPath::from(key.as_str());
        match self.store.put_opts(&path, PutPayload::from_bytes(body), options).await {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. }) => {
                let file = self.root.join(key.as_str());
                blocking::run(move || {
                    std::fs::File::open(&file)?.sync_all()?;
                    std::fs::File::open(file.parent().unwrap_or(&file))?.sync_all()
                })
                .await
                .map_err(|error| StoreError::Ambiguous(error.to_string()))?;
                Err(StoreError::AlreadyExists)
            }
            // The link may have been made before the failure, so nothing else is certain.
            Err(error) => Err(of_store(&error, StoreError::Ambiguous)),
        }
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        let path = self.root.join(key.as_str());
        let found = blocking::run(move || read(&path, range)).await;
        found.map_err(|error| of_io(&error, StoreError::Unavailable(error.to_string())))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let mut listing = Listing {
            root: self.root.clone(),
            prefix: prefix.to_owned(),
            after: after.map(|key| key.as_str().to_owned()),
            limit,
            found: Vec::new(),
        };
        let listed = blocking::run(move || {
            let below = listing.prefix.rfind('/').map_or(0, |at| at + 1);
            let directory = listing.prefix[..below].to_owned();
            listing.visit(&directory).map(|()| listing.found)
        });
        listed.await.map_err(|error| of_io(&error, StoreError::Unavailable(error.to_string())))
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let path = self.root.join(key.as_str());
        match blocking::run(move || std::fs::remove_file(path)).await {
            Err(error) if !is_absence(&error) => Err(of_io(&error, StoreError::Ambiguous(error.to_string()))),
            _ => Ok(()),
        }
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Reads a file or a range of it, cut at its end.
fn read(path: &Path, range: Option<Range<u64>>) -> std::io::Result<Option<Bytes>> {
    let file = match std::fs::File::open(path) {
        Err(error) if is_absence(&error) => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Ok(None);
    }
    let range = range.unwrap_or(0..u64::MAX);
    let (from, to) = (range.start.min(metadata.len()), range.end.min(metadata.len()));
    read_fully(&file, from, to.saturating_sub(from) as usize).map(Some)
}

/// One walk over the directories that can hold what is asked for, in the order of names.
struct Listing {
    root: PathBuf,
    prefix: String,
    after: Option<String>,
    limit: usize,
    found: Vec<(StoreKey, u64)>,
}

impl Listing {
    /// `directory` is empty or ends with a slash, as in the names of what it holds.
    fn visit(&mut self, directory: &str) -> std::io::Result<()> {
        let entries = match std::fs::read_dir(self.root.join(directory)) {
            Err(error) if is_absence(&error) => return Ok(()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type()?;
            let is_directory = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            let name = format!("{directory}{name}{}", if is_directory { "/" } else { "" });
            if is_name(&name) && self.wants(&name, is_directory) {
                names.push(name);
            }
        }
        // A directory sorts by its slash, which is where its content belongs.
        names.sort();
        for name in names {
            if self.found.len() >= self.limit {
                break;
            }
            if name.ends_with('/') {
                self.visit(&name)?;
                continue;
            }
            match std::fs::metadata(self.root.join(&name)) {
                Ok(metadata) => self.found.push((StoreKey::new(name), metadata.len())),
                Err(error) if is_absence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells whether the object is to be listed, or the directory may hold one that is.
    fn wants(&self, name: &str, is_directory: bool) -> bool {
        let prefix = &self.prefix[..];
        let fits = name.starts_with(prefix) || (is_directory && prefix.starts_with(name));
        let later = |after: &String| name > after.as_str() || (is_directory && after.starts_with(name));
        fits && self.after.as_ref().is_none_or(later)
    }
}
