//! The file of an overlay: made for one mount, found again after one that was cut off, removed at the end.
//!
//! - OF-1 A file that was not made for this very point and volume is never changed.
//! - OF-2 A mount that ends removes its file. One that was killed leaves it, and the next one of the same
//!   point goes on with it: clients were told that what they flushed is kept.
//!
//! What is *not* here: what is in the file (`redoubt_roles::mount`).

use crate::failure::{Exit, Failure, Outcome};
use crate::output::say;
use crate::units::show_size;
use redoubt_host::HostDisks;
use redoubt_ports::{Disks, IoKind};
use redoubt_roles::mount::{Overlay, OverlayError, OverlayOf};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file that one mount uses; the open overlay holds its lock.
pub(crate) struct OverlayFile {
    path: PathBuf,
}

impl OverlayFile {
    /// Makes the file, or goes on with what an interrupted mount of the same point left there.
    pub(crate) async fn take(
        path: PathBuf,
        of: OverlayOf,
        bytes_max: u64,
    ) -> Outcome<(Overlay, OverlayFile)> {
        let is_new = make(&path, Overlay::file_sectors(of, bytes_max).bytes())?;
        let opened = async {
            let disk = HostDisks.open(&path.display().to_string(), false).await?;
            Overlay::open(disk, of, bytes_max, is_new).await
        };
        match opened.await {
            Ok(overlay) => {
                if !is_new {
                    let held = show_size(overlay.held_bytes());
                    say(format!("going on with {}: an interrupted mount left {held} in it", path.display()));
                }
                Ok((overlay, OverlayFile { path }))
            }
            Err(error) => {
                if is_new {
                    let _ = std::fs::remove_file(&path);
                }
                Err(refused(&path, error))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file and with it all that was written.
    pub(crate) fn remove(self) -> Outcome<()> {
        std::fs::remove_file(&self.path).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot remove overlay {}: {error}", self.path.display()))
                .hint("remove it by hand; nothing needs it any more")
        })
    }
}

/// Makes a sparse file; false if there is one already that holds something.
fn make(path: &Path, bytes: u64) -> Outcome<bool> {
    let cannot = |error: std::io::Error| {
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                "make room, choose a smaller --overlay-max, or a file elsewhere with --overlay-file"
            }
            _ => "choose a file in a writable directory with --overlay-file",
        };
        Failure::new(Exit::Unreachable, format!("cannot make overlay {}: {error}", path.display())).hint(hint)
    };
    let file = match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            grow_empty(path, bytes).map_err(cannot)?;
            return Ok(false);
        }
        made => made.map_err(cannot)?,
    };
    file.set_len(bytes).map_err(|error| {
        let _ = std::fs::remove_file(path);
        cannot(error)
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))
        .and_then(|directory| directory.sync_all())
        .map_err(cannot)?;
    Ok(true)
}

/// Gives a file without a byte its size: its mount died while it made it.
fn grow_empty(path: &Path, bytes: u64) -> std::io::Result<()> {
    let is_empty = |file: &std::fs::Metadata| file.is_file() && file.len() == 0;
    if !std::fs::metadata(path).is_ok_and(|found| is_empty(&found)) {
        return Ok(());
    }
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    // Whoever uses it by now holds the lock.
    if file.try_lock().is_ok() && is_empty(&file.metadata()?) {
        file.set_len(bytes)?;
    }
    Ok(())
}

fn refused(path: &Path, error: OverlayError) -> Failure {
    let path = path.display();
    match error {
        OverlayError::Io(error) if error.kind == IoKind::Busy => {
            Failure::new(Exit::Refused, format!("overlay {path} is in use by another process"))
                .hint("choose another file with --overlay-file")
        }
        OverlayError::Io(error) if error.kind != IoKind::Unsupported => Failure::from(error),
        error => Failure::new(Exit::Refused, format!("cannot use overlay {path}: {error}"))
            .hint("choose another file with --overlay-file, or remove this one if nobody needs it"),
    }
}
