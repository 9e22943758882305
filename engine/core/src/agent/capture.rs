//! From a submitted operation to its stamp: the splitters, the extent maps and the open batch.
//!
//! What is *not* here: the rules of order and of marks ([`crate::splitter`], [`crate::extent_map`]).

use super::{AgentEffect, AgentMachine, Internal};
use crate::change::{Change, RECORD_BYTES_MAX};
use crate::extent_map::{ExtentMap, blocks_of};
use crate::ids::VolumeIndex;
use crate::resync::{self, Piece, ResyncPlanner, RunRead, Verdict, pieces, retry_delay};
use crate::sequencer::{SeqRange, Sequencer};
use crate::splitter::{CaptureContext, Effect, Event, IoFailure, IoId, Op, Stamp};
use crate::time::Instant;
use crate::units::{Extent, Lba, SECTOR_BYTES};
use bytes::Bytes;

/// Answers the splitter's questions within one step.
struct Stamper<'a> {
    map: &'a ExtentMap,
    volume: VolumeIndex,
    sequencer: &'a mut Sequencer,
    planner: Option<&'a mut ResyncPlanner>,
    internal: Option<Internal>,
    epoch: u64,
    read: Option<&'a RunRead>,
    is_bitmap: &'a mut bool,
    /// What becomes of the run that was read.
    pieces: Vec<Piece>,
}

/// What an operation that ended brought along.
#[derive(Default)]
pub(super) struct Brought {
    payload: Option<Bytes>,
    read: Option<RunRead>,
    pieces: Vec<Piece>,
}

impl Stamper<'_> {
    fn take(&mut self, records: u64) -> Stamp {
        if *self.is_bitmap {
            return Stamp::Bitmap;
        }
        match self.sequencer.stamp(records) {
            Some(range) => Stamp::Ordered(range),
            None => {
                // AG-2: order is lost from this change on; the guest does not wait.
                *self.is_bitmap = true;
                Stamp::Bitmap
            }
        }
    }

    fn judge(&mut self, run: Extent) -> Stamp {
        let (Some(Internal::Resync { epoch, .. }), Some(planner), Some(read)) =
            (self.internal, self.planner.as_deref_mut(), self.read)
        else {
            return Stamp::Bitmap;
        };
        if epoch != self.epoch || *self.is_bitmap {
            return Stamp::Bitmap;
        }
        self.pieces = pieces(run, &planner.on_read(self.volume, run, &read.contents));
        match self.pieces.iter().filter(|piece| piece.verdict != Verdict::Same).count() {
            0 => Stamp::Nothing,
            records => self.take(records as u64),
        }
    }
}

impl CaptureContext for Stamper<'_> {
    fn is_hot(&self, extent: Extent) -> bool {
        self.map.is_hot(extent)
    }

    fn stamp(&mut self, _io: IoId, op: &Op) -> Stamp {
        match op {
            Op::ResyncRead { extent } => self.judge(*extent),
            Op::Write { extent, .. } | Op::Recapture { extent } => {
                self.take(extent.bytes().div_ceil(RECORD_BYTES_MAX as u64))
            }
            _ => self.take(1),
        }
    }
}

impl AgentMachine {
    pub(super) fn on_submit(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        io: IoId,
        op: Op,
        effects: &mut Vec<AgentEffect>,
    ) {
        if self.volumes.contains_key(&volume) {
            self.split(now, volume, Event::Submit { io, op }, Brought::default(), effects);
        } else {
            effects.push(AgentEffect::Complete { io, result: Err(IoFailure::Unsupported) });
        }
    }

    pub(super) fn on_done(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        io: IoId,
        result: Result<(), IoFailure>,
        payload: Option<Bytes>,
        effects: &mut Vec<AgentEffect>,
    ) {
        self.split(
            now,
            volume,
            Event::Done { io, result },
            Brought { payload, ..Brought::default() },
            effects,
        );
        self.internal.remove(&io);
    }

    /// A resync read ended.
    pub(super) fn on_resync_read(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        io: IoId,
        result: Result<RunRead, IoFailure>,
        effects: &mut Vec<AgentEffect>,
    ) {
        let ended = Event::Done { io, result: result.as_ref().map(|_| ()).map_err(|failure| *failure) };
        self.split(now, volume, ended, Brought { read: result.ok(), ..Brought::default() }, effects);
        self.internal.remove(&io);
    }

    /// Steps a splitter and performs what it asks for within the machine.
    pub(super) fn split(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        event: Event,
        mut brought: Brought,
        effects: &mut Vec<AgentEffect>,
    ) {
        let was_bitmap = self.is_bitmap;
        let volume = self.volumes.get_mut(&index).expect("the volume of an operation exists");
        let done = match event {
            Event::Done { io, .. } => Some(io),
            _ => None,
        };
        let mut stamper = Stamper {
            map: &volume.map,
            volume: index,
            sequencer: &mut self.sequencer,
            planner: self.planner.as_mut(),
            internal: done.and_then(|io| self.internal.get(&io).copied()),
            epoch: self.epoch,
            read: brought.read.as_ref(),
            is_bitmap: &mut self.is_bitmap,
            pieces: Vec::new(),
        };
        let mut steps = std::mem::take(&mut self.split_effects);
        volume.splitter.step(event, &mut stamper, &mut steps);
        brought.pieces = stamper.pieces;
        if !was_bitmap && self.is_bitmap {
            // The open batch is a legal prefix; only what follows lost its place.
            self.is_bitmap = false;
            self.seal_open(now, effects);
            self.lose_order(effects);
        }
        for step in steps.drain(..) {
            self.on_split(now, index, step, &brought, effects);
        }
        self.split_effects = steps;
    }

    fn on_split(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        step: Effect,
        brought: &Brought,
        effects: &mut Vec<AgentEffect>,
    ) {
        let volume = self.volumes.get_mut(&index).expect("the volume of an operation exists");
        match step {
            Effect::MarkHot { extent } => volume.map.want_hot(extent),
            Effect::Start { io, op } => {
                if let Some(extent) = op.changes() {
                    volume.map.on_write_started(now, extent);
                    self.started.insert(io, extent);
                }
                effects.push(AgentEffect::Start { volume: index, io, op });
            }
            Effect::Stamped { io, op, stamp } => {
                self.started.remove(&io);
                if let Op::Resize { .. } = op {
                    self.hold_resize(now, io, index);
                }
                self.on_stamped(now, index, op, stamp, brought, effects);
            }
            Effect::Complete { io, result } => {
                if let Some(extent) = self.started.remove(&io) {
                    volume.map.on_write_finished(now, extent, Stamp::Nothing);
                }
                match self.internal.remove(&io) {
                    Some(Internal::Resync { run, epoch }) if epoch == self.epoch => {
                        self.on_run_ended(now, index, run, result);
                    }
                    Some(Internal::Resync { .. }) => {}
                    Some(Internal::Recapture) => {}
                    None if self.is_resize_held(io) => {}
                    None => effects.push(AgentEffect::Complete { io, result }),
                }
            }
            Effect::Recapture { extent, attempt } => {
                let delay = if attempt == 0 { std::time::Duration::ZERO } else { retry_delay(attempt) };
                self.recaptures_due.push((now.after(delay), index, extent));
            }
        }
    }

    fn on_stamped(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        op: Op,
        stamp: Stamp,
        brought: &Brought,
        effects: &mut Vec<AgentEffect>,
    ) {
        let volume = self.volumes.get_mut(&index).expect("the volume of an operation exists");
        let mut event = resync::Event::Poll;
        match op {
            Op::Write { extent, .. } | Op::WriteZeroes { extent, .. } | Op::Trim { extent } => {
                volume.map.on_write_finished(now, extent, stamp);
            }
            Op::Recapture { extent } => volume.map.on_recaptured(now, extent, stamp),
            Op::ResyncRead { extent } => resynced(&mut volume.map, now, extent, stamp, &brought.pieces),
            Op::Resize { sectors } => {
                volume.map.on_resized(sectors, stamp);
                self.state_wanted = true;
                event = resync::Event::Resized { volume: index, blocks: blocks_of(sectors) };
            }
            Op::Flush => {}
        }
        if let Stamp::Ordered(range) = stamp {
            self.watermarks.on_issued(range.last);
            let mut seq = range.first;
            each_change(index, op, brought, |change| {
                self.append(now, seq, change, effects);
                seq = seq.next();
            });
            self.seal_if_large(now, effects);
        }
        // After the records have their place: the planner may find that nothing is left, and stamp that.
        if matches!(op, Op::ResyncRead { .. } | Op::Resize { .. }) {
            self.plan(now, event, effects);
        }
    }

    /// A resync read is over for the splitter. The planner must not wait for one that was never stamped:
    /// the disk failed it, a resize took its sectors, or the queue is full.
    fn on_run_ended(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        run: Extent,
        result: Result<(), IoFailure>,
    ) {
        let Some(planner) = &mut self.planner else { return };
        match result {
            Ok(()) => {}
            Err(IoFailure::OutOfRange { .. } | IoFailure::Overloaded) => planner.on_read_refused(volume, run),
            Err(_) => planner.on_read_failed(now, volume, run),
        }
    }

    pub(super) fn submit_internal(
        &mut self,
        now: Instant,
        volume: VolumeIndex,
        op: Op,
        internal: Internal,
        effects: &mut Vec<AgentEffect>,
    ) {
        let io = self.next_io();
        self.internal.insert(io, internal);
        self.split(now, volume, Event::Submit { io, op }, Brought::default(), effects);
    }

    /// Submits the reads of failed writes that are due.
    pub(super) fn recapture_due(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        if self.recaptures_due.is_empty() {
            return;
        }
        let (due, later) = std::mem::take(&mut self.recaptures_due)
            .into_iter()
            .partition::<Vec<_>, _>(|(when, _, _)| *when <= now);
        self.recaptures_due = later;
        for (_, volume, extent) in due {
            self.submit_internal(now, volume, Op::Recapture { extent }, Internal::Recapture, effects);
        }
    }
}

/// Tells the map what became of each piece of a run.
fn resynced(map: &mut ExtentMap, now: Instant, run: Extent, stamp: Stamp, pieces: &[Piece]) {
    let Stamp::Ordered(range) = stamp else { return map.on_resynced(now, run, stamp) };
    let mut seq = range.first;
    for piece in pieces {
        if piece.verdict == Verdict::Same {
            map.on_resynced(now, piece.extent, Stamp::Nothing);
        } else {
            map.on_resynced(now, piece.extent, Stamp::Ordered(SeqRange { first: seq, last: seq }));
            seq = seq.next();
        }
    }
}

/// Hands out the records of a completed operation, in the order of its sequences.
fn each_change(volume: VolumeIndex, op: Op, brought: &Brought, mut each: impl FnMut(Change)) {
    match op {
        Op::Write { extent, .. } | Op::Recapture { extent } => {
            let payload = brought.payload.as_ref().expect("a write ends with its content");
            assert_eq!(payload.len() as u64, extent.bytes(), "the content fills the sectors");
            for at in (0..payload.len()).step_by(RECORD_BYTES_MAX) {
                let lba = Lba(extent.lba.0 + at as u64 / SECTOR_BYTES);
                let payload = payload.slice(at..payload.len().min(at + RECORD_BYTES_MAX));
                each(Change::Write { volume, lba, payload });
            }
        }
        Op::ResyncRead { extent: run } => {
            let read = brought.read.as_ref().expect("a resync read ends with what it read");
            for piece in brought.pieces.iter().filter(|piece| piece.verdict != Verdict::Same) {
                each(match piece.verdict {
                    Verdict::Zeroes => Change::ResyncZeroes { volume, extent: piece.extent },
                    _ => {
                        let at = (piece.extent.lba.0 - run.lba.0) * SECTOR_BYTES;
                        let payload = read.payload.slice(at as usize..(at + piece.extent.bytes()) as usize);
                        Change::ResyncWrite { volume, lba: piece.extent.lba, payload }
                    }
                });
            }
        }
        Op::WriteZeroes { extent, .. } => each(Change::WriteZeroes { volume, extent }),
        Op::Trim { extent } => each(Change::Trim { volume, extent }),
        Op::Resize { sectors } => each(Change::Resize { volume, sectors }),
        Op::Flush => {}
    }
}
