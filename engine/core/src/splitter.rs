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
//! Parts: operations (`operation`), what goes in and out (`events`), failed writes (`recapture`).
//!
//! What is *not* here: disk operations, payloads, reads of the guest (they change nothing), the
//! extent map and the sequencer (both behind [`CaptureContext`]).
//! Source: ours; field lessons 1 and 2 (one ordered queue, stamp on completion).

mod events;
mod operation;
mod recapture;

pub use events::{CaptureContext, Effect, Event};
pub use operation::{IoFailure, IoId, Op, Stamp};
pub use recapture::{RECAPTURES_MAX, split_at_extents};

use crate::planted::{self, Bug};
use crate::units::{Extent, Sectors};
use recapture::Recaptures;
use std::collections::{BTreeMap, VecDeque};

/// Operations on the disk at once per volume, flushes not counted: more than a fast disk needs to
/// be busy, and it bounds the scan for overlaps.
pub const IN_FLIGHT_MAX: usize = 256;

/// Operations queued per volume. The NBD server stops reading requests before
/// ([`Splitter::has_room`]); beyond it an operation is refused.
pub const QUEUED_MAX: usize = 4096;

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
    recaptures: Recaptures,
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
            recaptures: Recaptures::default(),
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
        self.recaptures.iter()
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
        if let Op::Recapture { extent }
        | Op::Write { extent, .. }
        | Op::WriteZeroes { extent, .. }
        | Op::Trim { extent } = op
        {
            self.recaptures.on_known(extent);
        }
        let stamp = context.stamp(io, &op);
        let may_be_nothing = matches!(op, Op::ResyncRead { .. });
        assert!(stamp != Stamp::Nothing || may_be_nothing, "CP-4: {op:?} succeeded and has no place");
        effects.push(Effect::Stamped { io, op, stamp });
    }

    fn fail(&mut self, io: IoId, op: &Op, failure: IoFailure, effects: &mut Vec<Effect>) {
        effects.push(Effect::Complete { io, result: Err(failure) });
        if let Op::Recapture { extent } = *op {
            self.recaptures.on_failed(extent, failure, self.sectors, effects);
        } else if let (Some(extent), true) = (op.changes(), failure.may_have_changed()) {
            self.recaptures.want(extent, self.sectors, effects);
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

#[cfg(test)]
mod tests;
