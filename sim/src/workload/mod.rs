//! Guests: what the protected machines do, and the reference model of what they did.
//!
//! A guest writes stamped sectors: each names the operation that wrote it, so that any image can be
//! read back as "who wrote each sector last". The log of operations is the only truth the oracles
//! use; it is written from the guest's side and knows nothing of the engine.

pub mod database;
pub mod guest;
pub mod log;
pub mod mixed;
pub mod notices;
pub mod pace;
pub mod stamp;

pub use guest::{GuestDisk, GuestError, Recorder};
pub use log::{Base, Cut, MachineLog, Op, OpKind};
pub use pace::Pace;
pub use stamp::{Density, Seen, Stamp};
