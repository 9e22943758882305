//! Settings and status of a process server, as values.

use redoubt_core::maintenance::Ladder;
use redoubt_core::{BatchPosition, Generation, MachineId};
use redoubt_ports::{Endpoint, IoError, NetError};
use redoubt_vault::{INDEX_SLOTS, VaultError, WriterSettings};
use redoubt_wire::StreamKey;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// Stage space when nothing is said: an hour of 2 MB/s.
pub const STAGE_BYTES_MAX_DEFAULT: u64 = 8 << 30;
/// A commit holds at most this many payload bytes; bounds the packer's memory.
pub const COMMIT_BYTES_MAX_DEFAULT: u64 = 32 << 20;
/// Oldest staged change waits at most this long for a commit.
pub const COMMIT_DELAY_DEFAULT: Duration = Duration::from_millis(500);

/// How long a start waits for the vault. A vault that is away for longer does not keep it from starting.
pub const VAULT_CHECK_DEFAULT: Duration = Duration::from_secs(5);

/// Everything a process server is told.
#[derive(Clone, Debug)]
pub struct PsSettings {
    /// Where it listens.
    pub listen: Endpoint,
    /// Machines it serves, with the key of each one's stream; the stage is divided among them. Empty:
    /// up to 16 machines, each of which proves the key that the vault key gives.
    pub machines: BTreeMap<MachineId, StreamKey>,
    /// Bytes of staged batches, over all machines, that are not vaulted yet.
    pub stage_bytes_max: u64,
    /// Payload bytes of one vault commit.
    pub commit_bytes_max: u64,
    /// How a commit is cut into objects.
    pub objects: WriterSettings,
    /// Slots of the log behind the newest catalogue that make a round of the maintainer worth its puts.
    pub index_slots: u64,
    /// Recovery points that are kept.
    pub keep: Ladder,
    /// Longest wait of a staged batch for its commit.
    pub commit_delay: Duration,
    /// How long the start waits for the vault, to refuse a wrong one. Zero: who starts it has looked.
    pub vault_check: Duration,
    /// Name of the vault claim, for people.
    pub name: String,
}

impl PsSettings {
    /// Makes settings with default bounds.
    pub fn new(listen: Endpoint, name: impl Into<String>) -> PsSettings {
        PsSettings {
            listen,
            machines: BTreeMap::new(),
            stage_bytes_max: STAGE_BYTES_MAX_DEFAULT,
            commit_bytes_max: COMMIT_BYTES_MAX_DEFAULT,
            objects: WriterSettings::default(),
            index_slots: INDEX_SLOTS,
            keep: Ladder::default(),
            commit_delay: COMMIT_DELAY_DEFAULT,
            vault_check: VAULT_CHECK_DEFAULT,
            name: name.into(),
        }
    }
}

/// One machine at a process server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PsMachineStatus {
    /// Highest generation seen.
    pub generation: Generation,
    /// Whether an agent's session is established.
    pub is_connected: bool,
    /// Durable in the stage.
    pub staged: BatchPosition,
    /// Durable in the vault.
    pub vaulted: BatchPosition,
    /// Bytes staged and not vaulted.
    pub stage_bytes: u64,
    /// Whether a newer writer claimed the machine's log.
    pub is_fenced: bool,
    /// Newest trouble, in words.
    pub last_error: Option<String>,
}

/// A process server at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PsStatus {
    /// Machines that had a session or a stage, by identity.
    pub machines: BTreeMap<MachineId, PsMachineStatus>,
}

/// Why a process server does not start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PsError {
    /// A state file failed.
    #[error("process server: {0}")]
    Io(#[from] IoError),
    /// It cannot listen.
    #[error("process server: {0}")]
    Net(#[from] NetError),
    /// The store holds no vault of these keys.
    #[error("process server: {0}")]
    Vault(#[from] VaultError),
}
