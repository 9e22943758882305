//! The name of a Unix socket: taken over from the dead, never from the living.
//!
//! Two processes may find the same stale name at once. Whoever holds the lock file decides alone,
//! and has bound the name before the lock file goes, so that the other one then finds a listener.

use crate::net::failed;
use redoubt_ports::{Endpoint, NetError};
use rustix::fs::FlockOperation;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use tokio::net::UnixListener;

/// A bound name, removed on drop if it is still this socket's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: String,
    inode: u64,
}

impl SocketFile {
    fn of(path: &str) -> std::io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), inode: std::fs::symlink_metadata(path)?.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`; removes a stale socket first. `InUse` if somebody listens there, or if the
/// name belongs to something that is no socket.
pub(crate) fn bind(path: &str) -> Result<(UnixListener, SocketFile), NetError> {
    let endpoint = Endpoint::Unix(path.to_owned());
    let fresh = |error: std::io::Error| match error.kind() {
        // `Refused` would mislead here: what is missing is the directory.
        ErrorKind::NotFound => NetError::Failed(endpoint.clone(), "its directory does not exist".into()),
        _ => failed(&endpoint, error),
    };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => replace_stale(path, &endpoint)?,
        other => other.map_err(fresh)?,
    };
    let file = SocketFile::of(path).map_err(fresh)?;
    Ok((listener, file))
}

fn replace_stale(path: &str, endpoint: &Endpoint) -> Result<UnixListener, NetError> {
    let what = |error| failed(endpoint, error);
    let is_socket = std::fs::symlink_metadata(path).map_err(what)?.file_type().is_socket();
    if !is_socket {
        let detail = "a file that is no socket has this name; choose another or remove it";
        return Err(NetError::Failed(endpoint.clone(), detail.into()));
    }
    let lock_path = format!("{path}.lock");
    let lock = std::fs::File::create(&lock_path).map_err(what)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(NetError::InUse(endpoint.clone()));
    }
    let result = match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path)).map_err(what)
        }
        _ => Err(NetError::InUse(endpoint.clone())),
    };
    let _ = std::fs::remove_file(&lock_path);
    result
}
