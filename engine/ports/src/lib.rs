//! The outside world as traits: every leaf that differs between the lab and production.
//!
//! A role gets a [`World`] and never learns which world it is in. Implementations live in
//! `redoubt-host` (real) and `redoubt-sim` (lab). Tasks, timers and channels are not ports: the
//! dependency table gives every crate tokio or its deterministic double.
//!
//! Rules for implementors
//! - P-1 A call that returns `Ok` from `sync`, `flush` or a durable write survives power loss.
//! - P-2 An error says what kind of thing went wrong, so that the caller can choose: retry, degrade
//!   or stop. "May or may not have happened" is a value ([`StoreError::Ambiguous`]).
//! - P-3 Dropping a returned future may or may not cancel the operation; callers assume it ran.

pub mod chance;
pub mod clock;
pub mod conformance;
pub mod disk;
pub mod files;
pub mod net;
pub mod store;
pub mod timer;
pub mod workers;

use std::sync::Arc;

pub use chance::{Chance, Never, Rare};
pub use clock::{Clock, Entropy};
pub use disk::{Disk, DiskInfo, Disks};
pub use files::{File, Files, OpenMode};
pub use net::{ByteStream, Endpoint, Listener, Net, NetError};
pub use store::{RawStore, StoreAround, StoreError, StoreKey};
pub use timer::{Alarm, Late, pause, within};
pub use workers::{InPlace, Workers, compute};

/// Everything a role needs from outside, for one host.
#[derive(Clone)]
pub struct World {
    /// Time of this host.
    pub clock: Arc<dyn Clock>,
    /// Randomness of this host.
    pub entropy: Arc<dyn Entropy>,
    /// Sockets of this host.
    pub net: Arc<dyn Net>,
    /// The role's own state directory on this host.
    pub files: Arc<dyn Files>,
    /// Disks and images of this host.
    pub disks: Arc<dyn Disks>,
    /// Threads of this host for work that only computes.
    pub workers: Arc<dyn Workers>,
    /// Whether something rare happens now; in production it never does.
    pub chance: Arc<dyn Chance>,
}

/// What went wrong with a disk or a file, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoKind {
    /// It does not exist.
    NotFound,
    /// It exists already.
    Exists,
    /// No space left; may work later.
    NoSpace,
    /// The device failed this operation; its effect is unknown.
    Device,
    /// The address is outside the device or file.
    OutOfRange,
    /// Another process holds it.
    Busy,
    /// This host may not do it.
    Denied,
    /// The device or file system cannot do this.
    Unsupported,
}

/// A failed disk or file operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct IoError {
    /// What the caller can act on.
    pub kind: IoKind,
    /// The operation and its object, such as `write spill-0000.hrl at 4096`.
    pub what: String,
    /// The cause in the system's words.
    pub detail: String,
}

impl IoError {
    /// Makes an error.
    pub fn new(kind: IoKind, what: impl Into<String>, detail: impl Into<String>) -> IoError {
        IoError { kind, what: what.into(), detail: detail.into() }
    }
}
