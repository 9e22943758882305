//! What an agent tells about itself, as values.

use redoubt_core::resync::Progress;
use redoubt_core::watermarks::Watermarks;
use redoubt_core::{BatchPosition, Generation, MachineId, VolumeId};
use redoubt_ports::IoError;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// What the stream can promise now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentMode {
    /// Ordered, in memory.
    Exact,
    /// Ordered, partly in the spill file.
    Spilling,
    /// Order lost: only dirty blocks are known; no points.
    Bitmap,
    /// Copying what differs; no points until its end is in the vault.
    Resync {
        /// The first copy of a volume is part of it.
        is_initial: bool,
        /// Blocks settled since it began.
        blocks_done: u64,
        /// Blocks settled and left.
        blocks_total: u64,
    },
}

/// One protected volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// Name of the export.
    pub name: String,
    /// Lasting identity.
    pub id: VolumeId,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// An agent at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Identity of the machine.
    pub machine: MachineId,
    /// Generation it writes in.
    pub generation: Generation,
    /// Whether a session is established.
    pub is_connected: bool,
    /// How far the stream has come.
    pub watermarks: Watermarks,
    /// Staged position with its chain.
    pub staged: BatchPosition,
    /// Vaulted position with its chain.
    pub vaulted: BatchPosition,
    /// What the stream can promise.
    pub mode: AgentMode,
    /// How far the newest copy since the start is, or how it ended; nothing of anything if there was none.
    pub copy: Progress,
    /// How far the process server is behind: age of the oldest change that it does not hold. `None` while
    /// no order is promised: then an age would say better than the truth.
    pub lag: Option<Duration>,
    /// Age of the oldest change in the stream that is not staged yet, whatever is promised.
    pub unstaged: Duration,
    /// The activity log may lack marks: a start after a crash would compare everything.
    pub must_compare_all: bool,
    /// Bytes of sealed batches in memory.
    pub memory_bytes: u64,
    /// Bytes in the spill file.
    pub spill_bytes: u64,
    /// Extents that may differ from the vault.
    pub hot_extents: u64,
    /// Volumes, in order of their index.
    pub volumes: Vec<VolumeStatus>,
    /// How often a process server did not have what it had acknowledged as staged, since the start.
    pub stage_losses: u64,
    /// How often another history was found, since the start.
    pub forks: u64,
    /// Newest trouble that has not been resolved, in words.
    pub last_error: Option<String>,
}

/// Why an agent call failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    /// A disk or state file failed. Fix the cause and try again.
    #[error("agent: {0}")]
    Io(#[from] IoError),
    /// The state in the role's directory cannot be used.
    #[error("agent state {file} is unusable: {detail}")]
    State {
        /// File name.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// The name is taken by another volume.
    #[error("volume {0:?} exists already with another disk")]
    VolumeExists(String),
    /// No volume has this name.
    #[error("no volume is called {0:?}")]
    NoVolume(String),
    /// Too many volumes for one machine.
    #[error("a machine has at most {0} volumes")]
    TooManyVolumes(usize),
    /// The agent stopped.
    #[error("the agent is stopped")]
    Stopped,
    /// A marker cannot be cut now; the stream has no order or a failed write is being read back.
    #[error("no marker can be cut now: {0}")]
    NoMarker(&'static str),
}
