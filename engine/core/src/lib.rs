//! The decisions of the replication engine: values and synchronous state machines.
//!
//! Nothing here waits, reads a clock, draws a random number or touches a device. A machine is
//! driven by `step(now, event, &mut effects)`; the shells in `redoubt-roles` perform the effects
//! and feed completions back as events. The same code therefore runs in the lab, in production
//! and in plain loops of property tests.
//!
//! What is *not* here: frames (`redoubt-wire`), NBD (`redoubt-nbd`), any IO (`redoubt-ports`).
#![forbid(unsafe_code)]

pub mod change;
pub mod ids;
pub mod planted;
pub mod time;
pub mod units;

pub use change::{Batch, BatchError, Change, Marker, MarkerKind, Record};
pub use ids::{BatchPosition, Chain, Generation, MachineId, MarkerId, VolumeId, VolumeIndex, WriteSeq};
pub use time::{Instant, WallTime};
pub use units::{Extent, Lba, SECTOR_BYTES, Sectors};
