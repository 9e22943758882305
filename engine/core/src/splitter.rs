//! Decides when a change may touch the disk, in which order overlapping changes happen, and at
//! which moment a change gets its place in the stream. One splitter per volume.
//!
//! ```text
//! submitted -> queued (overlap, resize, window) -> waits for hot -> started -> stamped, completed
//! ```
//!
//! Invariants
//! - CP-1 Two operations that overlap are never on the disk at the same time; they run in the order
//!   of submission. A resync read counts as a write. A resize overlaps everything but a flush.
//! - CP-2 A change starts only when each extent it touches is durably marked (R-2).
//! - CP-3 A change is stamped in the step in which it is completed, and before it is completed: a
//!   change submitted after an acknowledgement has a larger sequence (R-3, R-22).
//! - CP-4 A change that succeeded on the disk is stamped, in the stream or in the bitmap. One that
//!   failed is read back and stamped; until then [`Splitter::is_recapture_pending`] and no marker
//!   may be cut.
//! - CP-5 Each submitted operation is completed exactly once.
//!
//! What is *not* here: disk operations, payloads, reads of the guest (they change nothing), the
//! extent map and the sequencer (both behind [`CaptureContext`]).
//! Source: ours; field lessons 1 and 2 (one ordered queue, stamp on completion).

use crate::extent_map::EXTENT_SECTORS;
use crate::planted::{self, Bug};
use crate::sequencer::SeqRange;
use crate::units::{Extent, Sectors};
use std::collections::{BTreeMap, VecDeque};
use thiserror::Error;

/// Operations on the disk at once per volume, flushes not counted: more than a fast disk needs to
/// be busy, and it bounds the scan for overlaps.
pub const IN_FLIGHT_MAX: usize = 256;

/// Operations queued per volume. The NBD server stops reading requests before
/// ([`Splitter::has_room`]); beyond it an operation is refused.
pub const QUEUED_MAX: usize = 4096;

/// Failed pieces remembered exactly; beyond it a failure is widened to its whole extent of the
/// extent map, so that a disk that fails every write cannot grow the list without end.
pub const RECAPTURES_MAX: usize = 1024;

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

    fn conflicts(&self, other: &Op) -> bool {
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
    /// The client ignored [`Splitter::has_room`]; nothing happened.
    #[error("more than {QUEUED_MAX} operations are queued on this volume; nothing was done")]
    Overloaded,
}

impl IoFailure {
    fn may_have_changed(self) -> bool {
        matches!(self, IoFailure::Device | IoFailure::NoSpace)
    }
}

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

#[derive(Clone, Copy, Debug)]
struct Waiting {
    io: IoId,
    op: Op,
    /// Earlier unfinished operations that overlap.
    blockers: usize,
    asked_hot: bool,
}

/// The write splitter of one volume.
#[derive(Debug)]
pub struct Splitter {
    sectors: Sectors,
    waiting: VecDeque<Waiting>,
    active: BTreeMap<IoId, Op>,
    active_flushes: usize,
    waiting_flushes: usize,
    /// Extents to read back, by first sector and length, with the number of failed attempts.
    recaptures: BTreeMap<Extent, u32>,
}

impl Splitter {
    /// Starts with an idle volume of the given size.
    pub fn new(sectors: Sectors) -> Splitter {
        Splitter {
            sectors,
            waiting: VecDeque::new(),
            active: BTreeMap::new(),
            active_flushes: 0,
            waiting_flushes: 0,
            recaptures: BTreeMap::new(),
        }
    }

    /// Takes one event; appends what to do.
    pub fn step(&mut self, event: Event, context: &mut dyn CaptureContext, effects: &mut Vec<Effect>) {
        match event {
            Event::Submit { io, op } => self.on_submit(io, op, context, effects),
            Event::Hot => {
                // A mark may have been given up while its operation waited for a slot or for the
                // mark of another extent: whatever is still cold asks again.
                self.waiting.iter_mut().for_each(|entry| entry.asked_hot = false);
                self.pump(context, effects);
            }
            Event::Done { io, result } => self.on_done(io, result, context, effects),
        }
    }

    /// Returns the size after all completed resizes.
    pub fn sectors(&self) -> Sectors {
        self.sectors
    }

    /// Tells whether another guest operation is welcome; if not, stop reading requests.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < QUEUED_MAX / 2
    }

    /// Tells whether a failed write has not been read back yet: no marker may be cut (CP-4).
    pub fn is_recapture_pending(&self) -> bool {
        !self.recaptures.is_empty()
    }

    /// Returns the sectors to be read back; the extent map must not cool them.
    pub fn recaptures(&self) -> impl Iterator<Item = Extent> {
        self.recaptures.keys().copied()
    }

    /// Tells whether nothing is queued, started or to be read back.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty() && self.recaptures.is_empty()
    }

    /// Returns how many operations are unfinished.
    pub fn unfinished(&self) -> usize {
        self.waiting.len() + self.active.len()
    }

    fn on_submit(&mut self, io: IoId, op: Op, context: &mut dyn CaptureContext, effects: &mut Vec<Effect>) {
        assert!(!self.active.contains_key(&io), "CP-5: operation {io:?} submitted twice");
        let is_recapture = matches!(op, Op::Recapture { .. });
        if self.waiting.len() >= QUEUED_MAX && !is_recapture {
            effects.push(Effect::Complete { io, result: Err(IoFailure::Overloaded) });
            return;
        }
        let blockers = self.active.values().filter(|other| other.conflicts(&op)).count()
            + self.waiting.iter().filter(|other| other.op.conflicts(&op)).count();
        let entry = Waiting { io, op, blockers, asked_hot: false };
        self.waiting.push_back(entry);
        self.waiting_flushes += usize::from(op == Op::Flush);
        self.pump(context, effects);
    }

    /// Starts, in order of submission, what neither overlaps nor waits for a mark (CP-1, CP-2). Asks
    /// for the heat of an operation once per [`Event::Hot`], and stops when no slot is free: a step
    /// costs one walk over at most [`QUEUED_MAX`] small entries.
    fn pump(&mut self, context: &mut dyn CaptureContext, effects: &mut Vec<Effect>) {
        let mut index = 0;
        while index < self.waiting.len() {
            let entry = self.waiting[index];
            let is_flush = entry.op == Op::Flush;
            if !is_flush && self.active.len() - self.active_flushes >= IN_FLIGHT_MAX {
                // A flush starts in the step that submits it, unless it is behind a full queue.
                if self.waiting_flushes == 0 {
                    return;
                }
                index += 1;
                continue;
            }
            if entry.blockers > 0 || entry.asked_hot {
                index += 1;
                continue;
            }
            if let Some(failure) = self.out_of_range(&entry.op) {
                self.waiting.remove(index);
                self.release(&entry.op);
                self.fail(entry.io, &entry.op, failure, effects);
                // What it blocked lies behind it in the queue, so the scan goes on from here.
                continue;
            }
            if let Some(extent) = entry.op.changes()
                && !context.is_hot(extent)
            {
                self.waiting[index].asked_hot = true;
                effects.push(Effect::MarkHot { extent });
                index += 1;
                continue;
            }
            self.waiting.remove(index);
            self.waiting_flushes -= usize::from(is_flush);
            self.active_flushes += usize::from(is_flush);
            let previous = self.active.insert(entry.io, entry.op);
            assert!(previous.is_none(), "CP-5: operation {:?} submitted twice", entry.io);
            effects.push(Effect::Start { io: entry.io, op: entry.op });
        }
    }

    fn on_done(
        &mut self,
        io: IoId,
        result: Result<(), IoFailure>,
        context: &mut dyn CaptureContext,
        effects: &mut Vec<Effect>,
    ) {
        let op = self.active.remove(&io).unwrap_or_else(|| panic!("CP-5: {io:?} ended but never started"));
        self.active_flushes -= usize::from(op == Op::Flush);
        match result {
            Ok(()) => {
                self.succeed(io, op, context, effects);
                effects.push(Effect::Complete { io, result: Ok(()) });
            }
            Err(failure) => self.fail(io, &op, failure, effects),
        }
        self.release(&op);
        self.pump(context, effects);
    }

    /// Fixes the place of a successful operation (CP-3, CP-4). The dangerous lines are here.
    fn succeed(&mut self, io: IoId, op: Op, context: &mut dyn CaptureContext, effects: &mut Vec<Effect>) {
        match op {
            Op::Flush => return,
            Op::Resize { sectors } => self.sectors = sectors,
            Op::WriteZeroes { .. } if planted::active(Bug::LoseWriteZeroes) => return,
            _ => {}
        }
        if let Op::Recapture { extent: known } | Op::Write { extent: known, .. } = op {
            // New content of all of it is about to be stamped, whether read back or written.
            self.recaptures.retain(|piece, _| piece.intersection(known) != Some(*piece));
        }
        let stamp = context.stamp(io, &op);
        let may_be_nothing = matches!(op, Op::ResyncRead { .. });
        assert!(stamp != Stamp::Nothing || may_be_nothing, "CP-4: {op:?} succeeded and has no place");
        effects.push(Effect::Stamped { io, op, stamp });
    }

    fn fail(&mut self, io: IoId, op: &Op, failure: IoFailure, effects: &mut Vec<Effect>) {
        effects.push(Effect::Complete { io, result: Err(failure) });
        if let Op::Recapture { extent } = *op {
            if matches!(failure, IoFailure::OutOfRange { .. }) {
                // A resize took the sectors away; only what is left of them is to be read back.
                let is_known = self.recaptures.remove(&extent).is_some();
                let left = self.sectors.0.saturating_sub(extent.lba.0);
                if is_known && left > 0 {
                    self.want_recapture(Extent::new(extent.lba.0, left), effects);
                }
                return;
            }
            if let Some(attempt) = self.recaptures.get_mut(&extent) {
                *attempt += 1;
                effects.push(Effect::Recapture { extent, attempt: *attempt });
            }
        } else if let (Some(extent), true) = (op.changes(), failure.may_have_changed()) {
            split_at_extents(extent).for_each(|piece| self.want_recapture(piece, effects));
        }
    }

    fn want_recapture(&mut self, mut piece: Extent, effects: &mut Vec<Effect>) {
        if self.recaptures.len() >= RECAPTURES_MAX {
            let first = piece.lba.0 / EXTENT_SECTORS * EXTENT_SECTORS;
            piece = Extent::new(first, (first + EXTENT_SECTORS).min(self.sectors.0) - first);
        }
        // Known already: its read is queued behind this failure, or will be submitted again.
        if let std::collections::btree_map::Entry::Vacant(entry) = self.recaptures.entry(piece) {
            entry.insert(0);
            effects.push(Effect::Recapture { extent: piece, attempt: 0 });
        }
    }

    fn release(&mut self, op: &Op) {
        for other in self.waiting.iter_mut().filter(|other| other.op.conflicts(op)) {
            assert!(other.blockers > 0, "CP-1: {:?} was not blocked by what ended", other.io);
            other.blockers -= 1;
        }
    }

    fn out_of_range(&self, op: &Op) -> Option<IoFailure> {
        let extent = op.extent()?;
        let fits = extent.lba.0.checked_add(extent.sectors.0).is_some_and(|end| end <= self.sectors.0);
        (!fits).then_some(IoFailure::OutOfRange { extent, end: self.sectors })
    }
}

/// Cuts an extent at the boundaries of the extent map, so that each piece lies in one extent.
pub fn split_at_extents(extent: Extent) -> impl Iterator<Item = Extent> {
    let mut at = extent.lba.0;
    std::iter::from_fn(move || {
        (at < extent.end()).then(|| {
            let end = ((at / EXTENT_SECTORS + 1) * EXTENT_SECTORS).min(extent.end());
            let piece = Extent::new(at, end - at);
            at = end;
            piece
        })
    })
}

#[cfg(test)]
mod tests;
