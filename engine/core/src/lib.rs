//! The decisions of the replication engine: values and synchronous state machines.
//!
//! Nothing here waits, reads a clock, draws a random number or touches a device. A machine is
//! driven by `step(now, event, &mut effects)`; the shells in `redoubt-roles` perform the effects
//! and feed completions back as events. The same code therefore runs in the lab, in production
//! and in plain loops of property tests.
//!
//! What is *not* here: frames (`redoubt-wire`), NBD (`redoubt-nbd`), any IO (`redoubt-ports`).
#![forbid(unsafe_code)]

pub mod agent;
pub mod agent_state;
pub mod batch_file;
pub mod change;
pub mod extent_log;
pub mod extent_map;
pub mod ids;
pub mod link;
pub mod maintenance;
pub mod markers;
pub mod message;
pub mod names;
pub mod planted;
pub mod read_ahead;
pub mod receiver;
pub mod resync;
pub mod sealed;
pub mod sequencer;
pub mod splitter;
pub mod spool;
pub mod time;
pub mod units;
mod unvaulted;
pub mod watermarks;

pub use change::{Batch, BatchError, Change, Marker, MarkerKind, Record};
pub use ids::{BatchPosition, Chain, Generation, MachineId, MarkerId, VolumeId, VolumeIndex, WriteSeq};
pub use names::Names;
pub use sealed::{SealedBatch, SealedFlags, SealedMeta};
pub use time::{Instant, WallTime};
pub use units::{Extent, Lba, SECTOR_BYTES, Sectors};
pub use watermarks::Watermarks;
