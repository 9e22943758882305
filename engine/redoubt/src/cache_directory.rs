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

/// Directories of one name that are tried: more mounts of one point name their own.
const MOUNTS_MAX: u32 = 16;

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

    /// As [`CacheDirectory::take`], of the first directory of this name that no other mount uses: two mounts of one
    /// point, or of disks of two machines that are called the same, have a cache each.
    pub(crate) async fn take_free(name: &str, bytes_max: u64) -> Outcome<CacheDirectory> {
        let mut taken = CacheDirectory::take(PathBuf::from(format!("{name}.cache")), bytes_max).await;
        for number in 2..=MOUNTS_MAX {
            if !matches!(&taken, Err(failure) if failure.exit == Exit::Refused) {
                break;
            }
            taken = CacheDirectory::take(PathBuf::from(format!("{name}-{number}.cache")), bytes_max).await;
        }
        taken
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

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_roles::mount::CACHE_BYTES_MIN;

    #[tokio::test]
    async fn mounts_of_one_name_have_a_cache_each_and_the_first_free_one_is_gone_on_with() {
        let place = tempfile::tempdir().unwrap();
        let name = place.path().join("erp-5.0").display().to_string();
        let take = || CacheDirectory::take_free(&name, CACHE_BYTES_MIN);
        let (first, second) = (take().await.unwrap(), take().await.unwrap());
        assert!(first.path().ends_with("erp-5.0.cache") && second.path().ends_with("erp-5.0-2.cache"));
        drop(first);
        assert!(take().await.unwrap().path().ends_with("erp-5.0.cache"));
    }
}
