//! A role's state directory.
//!
//! The lock is a `flock` on the directory itself, so that no lock file can be left behind.
//!
//! Nothing here runs in place, however small: a directory that hangs must hold up nobody but who asked
//! (decision 0008). What touches its files runs on the blocking pool.
//!
//! What is *not* here: disks (`disk`), which have other rules for size and caching.

use crate::blocking;
use crate::disk_io::{read_fully, write_fully};
use crate::errors::failed;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{File, Files, IoError, IoKind, OpenMode};
use rustix::fs::FlockOperation;
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One directory of the host.
#[derive(Debug)]
pub struct HostFiles {
    path: PathBuf,
    directory: Arc<std::fs::File>,
}

impl HostFiles {
    /// Opens an existing directory.
    pub fn open(path: &Path) -> Result<HostFiles, IoError> {
        let what = || format!("open directory {}", path.display());
        let directory = std::fs::File::open(path).map_err(|e| failed(what(), e))?;
        if !directory.metadata().map_err(|e| failed(what(), e))?.is_dir() {
            return Err(IoError::new(IoKind::Unsupported, what(), "it is not a directory"));
        }
        Ok(HostFiles { path: path.to_owned(), directory: Arc::new(directory) })
    }

    fn at(&self, name: &str) -> Result<PathBuf, IoError> {
        if name.is_empty() || name == "." || name == ".." || name.contains('/') {
            return Err(IoError::new(IoKind::Unsupported, format!("file {name:?}"), "not a plain file name"));
        }
        Ok(self.path.join(name))
    }
}

#[async_trait]
impl Files for HostFiles {
    async fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn File>, IoError> {
        let path = self.at(name)?;
        blocking::run(move || {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true);
            match mode {
                OpenMode::Existing => {}
                OpenMode::CreateNew => {
                    options.create_new(true);
                }
                OpenMode::CreateOrOpen => {
                    options.create(true).truncate(false);
                }
            }
            let file = options.open(&path).map_err(|e| failed(format!("open {}", path.display()), e))?;
            Ok(Arc::new(HostFile { path, file: Arc::new(file) }) as Arc<dyn File>)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<String>, IoError> {
        let path = self.path.clone();
        blocking::run(move || {
            let what = || format!("list {}", path.display());
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(|e| failed(what(), e))? {
                let entry = entry.map_err(|e| failed(what(), e))?;
                if entry.file_type().map_err(|e| failed(what(), e))?.is_file() {
                    names.extend(entry.file_name().into_string());
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        blocking::run(move || {
            let what = || format!("rename {} to {}", from.display(), to.display());
            std::fs::rename(&from, &to).map_err(|e| failed(what(), e))
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        let path = self.at(name)?;
        blocking::run(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        })
        .await
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        let (path, directory) = (self.path.clone(), self.directory.clone());
        blocking::run(move || {
            directory.sync_all().map_err(|e| failed(format!("sync directory {}", path.display()), e))
        })
        .await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, IoError> {
        let (path, directory) = (self.path.clone(), self.directory.clone());
        blocking::run(move || {
            let what = || format!("ask for free space of {}", path.display());
            let stat = rustix::fs::fstatvfs(&*directory).map_err(|e| failed(what(), e))?;
            Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
        })
        .await
    }

    async fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, IoError> {
        let what = || format!("lock {}", self.path.display());
        // A new open file: the lock then belongs to the returned value, not to this directory.
        let directory = std::fs::File::open(&self.path).map_err(|e| failed(what(), e))?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(directory)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(IoError::new(IoKind::Busy, what(), "another process uses this directory"))
            }
            Err(error) => Err(failed(what(), error)),
        }
    }
}

struct HostFile {
    path: PathBuf,
    file: Arc<std::fs::File>,
}

impl HostFile {
    fn what(&self, operation: &str) -> String {
        format!("{operation} {}", self.path.display())
    }
}

fn length(file: &std::fs::File, path: &Path) -> Result<u64, IoError> {
    let what = || format!("ask for length of {}", path.display());
    Ok(file.metadata().map_err(|e| failed(what(), e))?.len())
}

#[async_trait]
impl File for HostFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, IoError> {
        let (file, path) = (self.file.clone(), self.path.clone());
        blocking::run(move || {
            // Bounded by the file: a length from outside must not decide how much is allocated.
            let available = self::length(&file, &path)?.saturating_sub(offset);
            let length = length.min(usize::try_from(available).unwrap_or(usize::MAX));
            if length == 0 {
                return Ok(Bytes::new());
            }
            let what = || format!("read {} at {offset}", path.display());
            read_fully(&file, offset, length).map_err(|e| failed(what(), e))
        })
        .await
    }

    async fn write_at(&self, offset: u64, parts: &[Bytes]) -> Result<(), IoError> {
        let what = format!("write {} at {offset}", self.path.display());
        let (file, parts) = (self.file.clone(), parts.to_vec());
        blocking::run(move || write_fully(&file, offset, &parts, false).map_err(|e| failed(what, e))).await
    }

    async fn len(&self) -> Result<u64, IoError> {
        let (file, path) = (self.file.clone(), self.path.clone());
        blocking::run(move || length(&file, &path)).await
    }

    async fn set_len(&self, length: u64) -> Result<(), IoError> {
        let (file, what) = (self.file.clone(), self.what("set length of"));
        blocking::run(move || file.set_len(length).map_err(|e| failed(what, e))).await
    }

    async fn sync(&self) -> Result<(), IoError> {
        let (file, what) = (self.file.clone(), self.what("sync"));
        // fdatasync covers the length too; only times are left out.
        blocking::run(move || file.sync_data().map_err(|e| failed(what, e))).await
    }
}
