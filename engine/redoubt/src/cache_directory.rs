//! The directory of a mount's cache: made when the mount begins, gone on with if an interrupted mount left it,
//! removed at the end. Its control socket answers `redoubt status --state DIRECTORY`.

use crate::failure::{Exit, Failure, Outcome};
use crate::output::say;
use crate::units::show_size;
use redoubt_host::HostFiles;
use redoubt_ports::IoKind;
use redoubt_roles::mount::LocalCache;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A mount's cache and where it is.
pub(crate) struct CacheDirectory {
    path: PathBuf,
    pub(crate) cache: Arc<LocalCache>,
}

impl CacheDirectory {
    /// Makes the directory or goes on with what an interrupted mount left there.
    pub(crate) async fn take(path: PathBuf, bytes_max: u64) -> Outcome<CacheDirectory> {
        make(&path)?;
        let files = Arc::new(HostFiles::open(&path)?);
        let cache = LocalCache::open(files, bytes_max).await.map_err(|error| match error.kind {
            IoKind::Busy => {
                Failure::new(Exit::Refused, format!("cache {} is used by another mount", path.display()))
                    .hint("choose another directory with --cache-dir")
            }
            _ => Failure::from(error),
        })?;
        let held = cache.status();
        if held.has_parts {
            let (path, held) = (path.display(), show_size(held.bytes));
            say(format!("going on with {path}: an interrupted mount left {held} in it"));
        }
        Ok(CacheDirectory { path, cache })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the cache, and the directory if nothing else is in it.
    pub(crate) async fn remove(self) -> Outcome<()> {
        let cannot = |why: String| {
            Failure::new(Exit::Failed, format!("cannot remove cache {}: {why}", self.path.display()))
                .hint("remove it by hand; nothing needs it any more")
        };
        self.cache.remove().await.map_err(|error| cannot(error.to_string()))?;
        match std::fs::remove_dir(&self.path) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(cannot(error.to_string())),
            _ => Ok(()),
        }
    }
}

/// Makes a directory that only its owner may enter: that is the access control of the socket in it.
fn make(path: &Path) -> Outcome<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Failure::new(Exit::Unreachable, format!("cannot make cache {}: {error}", path.display()))
                .hint("choose a writable place with --cache-dir"))
        }
        _ => Ok(()),
    }
}
