//! The kernel's error numbers as the kinds a caller can act on.

use redoubt_ports::{IoError, IoKind};
use std::io::{Error, ErrorKind};

/// Returns what the caller can do about a system error.
pub(crate) fn kind(error: &Error) -> IoKind {
    match error.kind() {
        ErrorKind::NotFound => IoKind::NotFound,
        ErrorKind::AlreadyExists => IoKind::Exists,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => IoKind::NoSpace,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => IoKind::Denied,
        ErrorKind::Unsupported => IoKind::Unsupported,
        ErrorKind::ResourceBusy | ErrorKind::WouldBlock | ErrorKind::ExecutableFileBusy => IoKind::Busy,
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => IoKind::Unsupported,
        _ if error.raw_os_error() == Some(libc::EOPNOTSUPP) => IoKind::Unsupported,
        _ => IoKind::Device,
    }
}

/// Makes a port error from a system error; `what` names the operation and its object.
pub(crate) fn failed(what: impl Into<String>, error: impl Into<Error>) -> IoError {
    let error = error.into();
    IoError::new(kind(&error), what, error.to_string())
}
