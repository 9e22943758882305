//! What can be done to a volume through its splitter, where it finds its place, and how it can fail.
//!
//! What is *not* here: order and stamps (the splitter), payloads (the agent's shell keeps them).

use super::QUEUED_MAX;
use crate::planted::{self, Bug};
use crate::sequencer::SeqRange;
use crate::units::{Extent, Sectors};
use thiserror::Error;

/// Names one operation; chosen by the caller, unique among the unfinished ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// What is to be done on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The guest writes.
    Write {
        /// Sectors written.
        extent: Extent,
        /// Durable before completion.
        fua: bool,
    },
    /// The guest wants the extent to read as zeros.
    WriteZeroes {
        /// Sectors that become zero.
        extent: Extent,
        /// Durable before completion.
        fua: bool,
        /// The space may be given back.
        may_unmap: bool,
    },
    /// The guest discards; done as zeros at the source, so that both sides stay equal.
    Trim {
        /// Sectors that become zero.
        extent: Extent,
    },
    /// The volume gets a new size.
    Resize {
        /// New size.
        sectors: Sectors,
    },
    /// Everything completed before becomes durable.
    Flush,
    /// The resync reads; what it read goes into the stream in the step that completes it.
    ResyncRead {
        /// Sectors read.
        extent: Extent,
    },
    /// Reads back what a failed write left; goes into the stream as a plain write.
    Recapture {
        /// Sectors read, as asked for by [`Effect::Recapture`].
        extent: Extent,
    },
}

impl Op {
    /// Returns the sectors addressed, if the operation addresses some.
    pub fn extent(&self) -> Option<Extent> {
        match *self {
            Op::Write { extent, .. }
            | Op::WriteZeroes { extent, .. }
            | Op::Trim { extent }
            | Op::ResyncRead { extent }
            | Op::Recapture { extent } => Some(extent),
            Op::Resize { .. } | Op::Flush => None,
        }
    }

    /// Returns the sectors whose content this operation changes: they must be hot before it starts,
    /// and the caller tells the extent map of start and end.
    pub fn changes(&self) -> Option<Extent> {
        match *self {
            Op::Write { extent, .. } | Op::WriteZeroes { extent, .. } | Op::Trim { extent } => Some(extent),
            _ => None,
        }
    }

    /// Tells whether the two must not be on the disk at the same time (CP-1).
    pub(super) fn conflicts(&self, other: &Op) -> bool {
        if planted::active(Bug::OverlapUnordered) {
            return false;
        }
        match (self, other) {
            (Op::Flush, _) | (_, Op::Flush) => false,
            (Op::Resize { .. }, _) | (_, Op::Resize { .. }) => true,
            _ => match (self.extent(), other.extent()) {
                (Some(a), Some(b)) => a.overlaps(b),
                _ => false,
            },
        }
    }
}

/// Where a completed operation found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// In the stream, at these sequences.
    Ordered(SeqRange),
    /// In the bitmap: its order is lost.
    Bitmap,
    /// Nowhere, because it changes nothing: a resync read that found no difference.
    Nothing,
}

/// Why an operation failed. The guest sees it; replication never causes one but [`IoFailure::Overloaded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IoFailure {
    /// It reaches beyond the end; nothing happened.
    #[error("{extent} reach beyond the end of the volume at sector {}; nothing was done", end.0)]
    OutOfRange {
        /// What was asked.
        extent: Extent,
        /// Size at that moment.
        end: Sectors,
    },
    /// The disk failed it; each sector holds the old or the new content.
    #[error("the disk failed the operation; the sectors may hold old or new content")]
    Device,
    /// The disk is full; each sector holds the old or the new content.
    #[error("the disk has no space left; the sectors may hold old or new content")]
    NoSpace,
    /// The disk cannot do this; nothing happened.
    #[error("the disk cannot do this operation; nothing was done")]
    Unsupported,
    /// The client ignored [`super::Splitter::has_room`]; nothing happened.
    #[error("more than {QUEUED_MAX} operations are queued on this volume; nothing was done")]
    Overloaded,
}

impl IoFailure {
    /// Tells whether the disk may hold new content although the operation failed.
    pub(super) fn may_have_changed(self) -> bool {
        matches!(self, IoFailure::Device | IoFailure::NoSpace)
    }
}
