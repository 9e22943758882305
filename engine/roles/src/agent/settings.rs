//! Settings of an agent: what an operator decides about one protected machine.
//!
//! Values only. Defaults are bounds that keep a small host safe; each says why.

use redoubt_core::{MachineId, VolumeId};
use redoubt_ports::Endpoint;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Unsent batches kept in memory: two seconds of a fast disk, and small beside any server's memory.
pub const MEMORY_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// Spill file when the sizes of the disks are not known: what a small system disk can spare.
pub const SPILL_BYTES_MAX_DEFAULT: u64 = 8 << 30;
/// Sent and not yet staged: the bandwidth-delay product of 1 Gbit/s at 250 ms.
pub const IN_FLIGHT_BYTES_MAX_DEFAULT: u64 = 32 << 20;
/// A recovery point every five minutes, as the policy of the product says.
pub const POINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(300);

/// A disk to protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Name of the export, unique in the machine.
    pub name: String,
    /// Disk, as [`redoubt_ports::Disks::open`] understands it.
    pub disk: String,
    /// Lasting identity; `None` derives it from the machine and the name.
    pub id: Option<VolumeId>,
}

impl VolumeSpec {
    /// Makes a description with a derived identity.
    pub fn new(name: impl Into<String>, disk: impl Into<String>) -> VolumeSpec {
        VolumeSpec { name: name.into(), disk: disk.into(), id: None }
    }

    /// Returns the lasting identity: the given one, or one derived from the machine and the name.
    pub fn id_in(&self, machine: MachineId) -> VolumeId {
        self.id.unwrap_or_else(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"redoubt volume v1");
            hasher.update(&machine.0.to_le_bytes());
            hasher.update(self.name.as_bytes());
            let mut id = [0; 16];
            id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            VolumeId(u128::from_le_bytes(id))
        })
    }
}

/// How much the agent may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentBounds {
    /// Bytes of sealed batches in memory before they are spilled.
    pub memory_bytes_max: u64,
    /// Bytes of the spill files before order is given up (bitmap mode).
    pub spill_bytes_max: u64,
    /// Bytes sent and not yet acknowledged as staged.
    pub in_flight_bytes_max: u64,
}

/// Least memory of an agent: a batch that is sealed and one that lies open.
const MEMORY_BYTES_MIN: u64 = 64 << 10;

impl AgentBounds {
    /// Returns bounds with an eighth of the memory, if that is enough to work at all.
    pub(super) fn with_small_memory(self) -> AgentBounds {
        let small = (self.memory_bytes_max / 8).max(MEMORY_BYTES_MIN);
        AgentBounds { memory_bytes_max: small.min(self.memory_bytes_max), ..self }
    }
}

impl Default for AgentBounds {
    fn default() -> AgentBounds {
        AgentBounds {
            memory_bytes_max: MEMORY_BYTES_MAX_DEFAULT,
            spill_bytes_max: SPILL_BYTES_MAX_DEFAULT,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX_DEFAULT,
        }
    }
}

/// Which markers are cut without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerPolicy {
    /// Time between two crash-consistent markers; `None` cuts only on demand.
    pub interval: Option<Duration>,
    /// Whether a quiet machine is marked too. If not, a marker is cut only after a change.
    pub when_quiet: bool,
}

impl Default for MarkerPolicy {
    fn default() -> MarkerPolicy {
        MarkerPolicy { interval: Some(POINT_INTERVAL_DEFAULT), when_quiet: true }
    }
}

/// Everything an agent is told about its machine.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Identity of the machine.
    pub machine: MachineId,
    /// Name for people.
    pub name: String,
    /// Volumes protected from the start. [`super::Agent::protect`] adds more.
    pub volumes: Vec<VolumeSpec>,
    /// Process servers, in order of preference; tried in turn. Empty: writes are only spooled.
    pub process_servers: Vec<Endpoint>,
    /// Which markers are cut.
    pub markers: MarkerPolicy,
    /// How much is held.
    pub bounds: AgentBounds,
}

impl AgentSettings {
    /// Makes settings with default policy and bounds.
    pub fn new(machine: MachineId, name: impl Into<String>, process_servers: Vec<Endpoint>) -> AgentSettings {
        AgentSettings {
            machine,
            name: name.into(),
            volumes: Vec::new(),
            process_servers,
            markers: MarkerPolicy::default(),
            bounds: AgentBounds::default(),
        }
    }
}
