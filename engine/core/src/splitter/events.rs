//! What the splitter is told, what it wants done, and what it asks.
//!
//! What is *not* here: who decides (the splitter).

use super::{IoFailure, IoId, Op, Stamp};
use crate::units::Extent;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation is wanted.
    Submit {
        /// Its name.
        io: IoId,
        /// What to do.
        op: Op,
    },
    /// More extents are durably marked.
    Hot,
    /// A started operation ended on the disk.
    Done {
        /// Its name.
        io: IoId,
        /// How it ended.
        result: Result<(), IoFailure>,
    },
}

/// What the caller does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Mark every extent of these sectors durably, then step [`Event::Hot`].
    MarkHot {
        /// Sectors about to change.
        extent: Extent,
    },
    /// Perform the operation, then step [`Event::Done`]. Tell the extent map if the operation changes sectors.
    Start {
        /// Its name.
        io: IoId,
        /// What to do.
        op: Op,
    },
    /// The operation has its place: append its records with these sequences, or mark the bitmap,
    /// before the next effect is performed.
    Stamped {
        /// Its name.
        io: IoId,
        /// What was done.
        op: Op,
        /// Its place.
        stamp: Stamp,
    },
    /// Tell who submitted it.
    Complete {
        /// Its name.
        io: IoId,
        /// How it ended.
        result: Result<(), IoFailure>,
    },
    /// Submit [`Op::Recapture`] of this extent, at once for attempt 0, after a growing delay later.
    Recapture {
        /// Sectors, within one extent of the extent map.
        extent: Extent,
        /// Attempts that failed so far.
        attempt: u32,
    },
}

/// What the splitter asks while it steps. Answers are final within the step.
pub trait CaptureContext {
    /// Tells whether every extent of these sectors is durably marked.
    fn is_hot(&self, extent: Extent) -> bool;

    /// Gives a completed operation its place. Called once per success, in the order of the stream.
    fn stamp(&mut self, io: IoId, op: &Op) -> Stamp;
}
