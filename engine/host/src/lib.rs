//! The real world: ports over the kernel's sockets, files, disks and clocks, and a vault directory.
//!
//! Invariants
//! - HO-1 Nothing is reported durable before the kernel said so: `fdatasync`, `RWF_DSYNC`, or an
//!   fsync of the directory for names.
//! - HO-2 A disk and a state directory have one owner: an exclusive `flock`, held as long as the
//!   value lives; the kernel drops it with the process.
//! - HO-3 A socket file is removed only after a connection to it was refused (nobody listens).
//! - HO-4 What may wait for a device for long (flush, durable or large operations, names) runs on
//!   the blocking pool; small page-cache operations run in place (decision 0004).
//!
//! What is *not* here: any decision of a role, and anything the lab uses.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod disk;
pub mod files;
pub mod net;
pub mod store;
pub mod workers;

mod blocking;
mod disk_io;
mod errors;
mod socket_file;

use redoubt_ports::{IoError, Never, World};
use std::path::Path;
use std::sync::Arc;

pub use clock::{HostClock, HostEntropy};
pub use disk::{HostDisk, HostDisks};
pub use files::HostFiles;
pub use net::HostNet;
pub use store::{LocalStore, StoreOpenError, StoreSettings, StoreUrl};
pub use workers::HostWorkers;

/// Returns the world of a role whose state directory is `state`; the directory must exist.
/// Disk names that are relative paths are taken from the current directory.
pub fn world(state: &Path) -> Result<World, IoError> {
    Ok(World {
        clock: Arc::new(HostClock::new()),
        entropy: Arc::new(HostEntropy),
        net: Arc::new(HostNet),
        files: Arc::new(HostFiles::open(state)?),
        disks: Arc::new(HostDisks),
        workers: Arc::new(HostWorkers::new()),
        chance: Arc::new(Never),
    })
}
