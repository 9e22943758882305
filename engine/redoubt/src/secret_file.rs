//! Makes a file for the owner's eyes only: a key, a recovery kit.
//!
//! - KF-1 It is durable before it is reported, and never overwrites anything.
//! - KF-2 What could not be written whole is not left behind: the next attempt would take it for a damaged one.

use crate::failure::{Exit, Failure, Outcome};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes the file; `what` is its name in an error.
pub(crate) fn make(path: &Path, what: &str, text: &str) -> Outcome<()> {
    let cannot = |error: std::io::Error| {
        let (exit, hint) = match error.kind() {
            ErrorKind::AlreadyExists => (Exit::Refused, "name a new file; this one was not changed"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                (Exit::Failed, "make room, then try again; nothing was left behind")
            }
            _ => (Exit::Unreachable, "its directory must exist and be writable"),
        };
        Failure::new(exit, format!("cannot make {what} {}: {error}", path.display())).hint(hint)
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        cannot(error)
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(cannot)
}
