//! What happened in the store, as the store itself knows it: the truth that oracles judge.

use redoubt_ports::StoreKey;
use std::time::Duration;

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It was created.
    Created,
    /// It was deleted.
    Deleted,
    /// It was deleted, and came back.
    CameBack,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// When.
    pub at: Duration,
    /// For which host.
    pub host: String,
    /// To which object.
    pub key: StoreKey,
    /// What.
    pub deed: Deed,
    /// The first bytes of what was created: the clear header of the vault's format, if it has one.
    pub header: Vec<u8>,
}
