//! A vault in a local directory, over `object_store`'s file system back end.
//!
//! That back end is not durable by default, and three holes stay open even with `with_fsync(true)`;
//! this layer closes them:
//! - ST-1 A directory counts as durable only after this process synced its parent; a directory
//!   found existing may have been made by a process that died before its own sync.
//! - ST-2 `AlreadyExists` may be adopted as success by the caller (its own lost answer), so the
//!   found object and its directory are synced before the answer.
//! - ST-3 A crash in mid-upload leaves `name#1`, which the back end hides but never removes:
//!   swept at open, if older than this process.
//!
//! What is *not* here: retries and the reading back of uncertain results (`redoubt-vault`).

use crate::blocking;
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use redoubt_ports::{IoError, RawStore, StoreError, StoreKey};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::errors::failed;

/// One vault directory.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    store: LocalFileSystem,
    /// Directories whose name is durable.
    durable: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl LocalStore {
    /// Opens an existing directory, removes what interrupted uploads left, and makes the
    /// directories found durable. Blocks for as long as it takes to walk the tree.
    pub fn open(root: &Path) -> Result<LocalStore, IoError> {
        let what = || format!("open vault directory {}", root.display());
        let root = root.canonicalize().map_err(|e| failed(what(), e))?;
        let mut durable = BTreeSet::new();
        sweep(&root, SystemTime::now(), &mut durable).map_err(|e| failed(what(), e))?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| failed(what(), std::io::Error::other(e)))?
            .with_fsync(true);
        Ok(LocalStore { root, store, durable: Arc::new(Mutex::new(durable)) })
    }

    /// ST-1 for the directory of `key`.
    async fn ensure_directory(&self, key: &StoreKey) -> Result<(), StoreError> {
        let Some((parent, _)) = key.as_str().rsplit_once('/') else { return Ok(()) };
        let parent = self.root.join(parent);
        if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(&parent) {
            return Ok(());
        }
        let (root, durable) = (self.root.clone(), self.durable.clone());
        blocking::run(move || {
            // Held throughout: nobody may see the directory exist before it is durable.
            let mut durable = durable.lock().unwrap_or_else(PoisonError::into_inner);
            make_durable(&root, &parent, &mut durable)
        })
        .await
        .map_err(|error| of_io(&error, StoreError::Unavailable(error.to_string())))
    }
}

fn make_durable(root: &Path, directory: &Path, durable: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    if directory == root || durable.contains(directory) {
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

/// ST-3 and the first part of ST-1, for a whole tree.
fn sweep(directory: &Path, before: SystemTime, durable: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    let mut found_directory = false;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found_directory = true;
            sweep(&entry.path(), before, durable)?;
            durable.insert(entry.path());
        } else if is_stale_upload(&entry.file_name().to_string_lossy())
            && entry.metadata().and_then(|m| m.modified()).is_ok_and(|time| time < before)
        {
            match std::fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    if found_directory { std::fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

fn is_stale_upload(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn of_io(error: &std::io::Error, otherwise: StoreError) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::NoSpace,
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
        if range.as_ref().is_some_and(Range::is_empty) {
            let exists = self.store.head(&ObjectPath::from(key.as_str())).await;
            return match exists {
                Ok(_) => Ok(Some(Bytes::new())),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(of_store(&error, StoreError::Unavailable)),
            };
        }
        let path = ObjectPath::from(key.as_str());
        let options = GetOptions::new().with_range(range.clone());
        let result = match self.store.get_opts(&path, options).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => match (self.store.head(&path).await, range) {
                // A range that starts at or after the end has no bytes; that is no error.
                (Ok(meta), Some(range)) if range.start >= meta.size => Ok(Some(Bytes::new())),
                _ => Err(of_store(&error, StoreError::Unavailable)),
            },
        }
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let below = prefix.rsplit_once('/').map(|(directory, _)| ObjectPath::from(directory));
        let mut found = Vec::new();
        let mut listed = self.store.list(below.as_ref());
        loop {
            match listed.try_next().await {
                Ok(None) => break,
                Ok(Some(meta)) => {
                    let name = meta.location.as_ref();
                    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
                    // Files of other kinds, such as a key left beside the vault, are no objects.
                    if name.starts_with(prefix)
                        && name.chars().all(legal)
                        && after.is_none_or(|after| name > after.as_str())
                    {
                        found.push((StoreKey::new(name), meta.size));
                    }
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(of_store(&error, StoreError::Unavailable)),
            }
        }
        found.sort();
        found.truncate(limit);
        Ok(found)
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        match self.store.delete(&ObjectPath::from(key.as_str())).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(of_store(&error, StoreError::Ambiguous)),
        }
    }
}
