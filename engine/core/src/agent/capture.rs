//! From a submitted operation to its stamp: the splitters, the extent maps and the open batch.
//!
//! What is *not* here: the rules of order and of marks ([`crate::splitter`], [`crate::extent_map`]).

use super::{AgentEffect, AgentMachine, Internal, Note};
use crate::change::{Change, RECORD_BYTES_MAX};
use crate::extent_map::{BLOCK_SECTORS, COOL_AFTER, ExtentMap, FlushToken};
use crate::ids::{VolumeIndex, WriteSeq};
use crate::resync::{self, Content, ResyncPlanner, Verdict, retry_delay};
use crate::sequencer::Sequencer;
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
    payload: Option<&'a Bytes>,
    is_bitmap: &'a mut bool,
    verdict: Option<Verdict>,
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

    fn judge(&mut self) -> Stamp {
        let (Some(Internal::Resync { block, epoch }), Some(planner), Some(payload)) =
            (self.internal, self.planner.as_deref_mut(), self.payload)
        else {
            return Stamp::Bitmap;
        };
        if epoch != self.epoch || *self.is_bitmap {
            return Stamp::Bitmap;
        }
        let is_zero = payload.iter().all(|byte| *byte == 0);
        let content = if is_zero { Content::Zeros } else { Content::Hash(*blake3::hash(payload).as_bytes()) };
        let verdict = planner.on_read(self.volume, block, content);
        self.verdict = Some(verdict);
        if verdict == Verdict::Same { Stamp::Nothing } else { self.take(1) }
    }
}

impl CaptureContext for Stamper<'_> {
    fn is_hot(&self, extent: Extent) -> bool {
        self.map.is_hot(extent)
    }

    fn stamp(&mut self, _io: IoId, op: &Op) -> Stamp {
        match op {
            Op::ResyncRead { .. } => self.judge(),
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
            self.split(now, volume, Event::Submit { io, op }, None, effects);
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
        let internal = self.internal.get(&io).copied();
        if let (Some(Internal::Resync { block, epoch }), Err(_)) = (internal, result)
            && epoch == self.epoch
            && let Some(planner) = &mut self.planner
        {
            planner.on_read_failed(now, volume, block);
        }
        self.split(now, volume, Event::Done { io, result }, payload, effects);
        self.internal.remove(&io);
    }

    /// Steps a splitter and performs what it asks for within the machine.
    fn split(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        event: Event,
        payload: Option<Bytes>,
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
            payload: payload.as_ref(),
            is_bitmap: &mut self.is_bitmap,
            verdict: None,
        };
        let mut steps = Vec::new();
        volume.splitter.step(event, &mut stamper, &mut steps);
        let verdict = stamper.verdict;
        if !was_bitmap && self.is_bitmap {
            // The open batch is a legal prefix; only what follows lost its place.
            self.is_bitmap = false;
            self.seal_open(now, effects);
            self.lose_order(now, effects);
        }
        for step in steps {
            self.on_split(now, index, step, (payload.as_ref(), verdict), effects);
        }
    }

    fn on_split(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        step: Effect,
        (payload, verdict): (Option<&Bytes>, Option<Verdict>),
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
                self.on_stamped(now, index, op, stamp, (payload, verdict), effects);
            }
            Effect::Complete { io, result } => {
                if let Some(extent) = self.started.remove(&io) {
                    volume.map.on_write_finished(now, extent, Stamp::Nothing);
                }
                if self.internal.remove(&io).is_none() {
                    effects.push(AgentEffect::Complete { io, result });
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
        (payload, verdict): (Option<&Bytes>, Option<Verdict>),
        effects: &mut Vec<AgentEffect>,
    ) {
        let volume = self.volumes.get_mut(&index).expect("the volume of an operation exists");
        match op {
            Op::Write { extent, .. } | Op::WriteZeroes { extent, .. } | Op::Trim { extent } => {
                volume.map.on_write_finished(now, extent, stamp);
            }
            Op::Recapture { extent } => volume.map.on_recaptured(now, extent, stamp),
            Op::ResyncRead { extent } => volume.map.on_resynced(now, extent, stamp),
            Op::Resize { sectors } => {
                volume.map.on_resized(sectors, stamp);
                self.state_wanted = true;
            }
            Op::Flush => {}
        }
        let is_zero = verdict == Some(Verdict::Zeroes);
        if let Stamp::Ordered(range) = stamp {
            self.watermarks.on_issued(range.last);
            for (change, seq) in changes_of(index, op, payload, is_zero).into_iter().zip(range.first.0..) {
                self.append(now, WriteSeq(seq), change, effects);
            }
            self.seal_if_large(now, effects);
        }
        // After the records have their place: the planner may find that nothing is left, and stamp that.
        match op.extent() {
            Some(extent) if !matches!(op, Op::ResyncRead { .. }) => {
                self.plan(now, resync::Event::Dirtied { volume: index, extent }, effects);
            }
            _ => self.plan(now, resync::Event::Poll, effects),
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
        self.split(now, volume, Event::Submit { io, op }, None, effects);
    }

    /// Submits the reads of failed writes that are due.
    pub(super) fn recapture_due(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        let (due, later) = std::mem::take(&mut self.recaptures_due)
            .into_iter()
            .partition::<Vec<_>, _>(|(when, _, _)| *when <= now);
        self.recaptures_due = later;
        for (_, volume, extent) in due {
            self.submit_internal(now, volume, Op::Recapture { extent }, Internal::Recapture, effects);
        }
    }

    pub(super) fn on_persisted(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        ok: bool,
        effects: &mut Vec<AgentEffect>,
    ) {
        let Some(volume) = self.volumes.get_mut(&index) else { return };
        let had_doubts = volume.map.must_compare_all();
        let delay = volume.map.on_persisted(if ok { Ok(()) } else { Err(()) });
        self.state_wanted |= had_doubts != volume.map.must_compare_all();
        volume.persist_after = delay.map(|delay| now.after(delay));
        if ok {
            self.split(now, index, Event::Hot, None, effects);
        } else {
            effects.push(AgentEffect::Note(Note::LogFailing(volume.map.persist_failures())));
        }
    }

    /// A record that disowns these logs was written, or could not be: guests wait no longer.
    pub(super) fn disown_logs(
        &mut self,
        now: Instant,
        logs: Vec<VolumeIndex>,
        effects: &mut Vec<AgentEffect>,
    ) {
        for index in logs {
            let Some(volume) = self.volumes.get_mut(&index) else { continue };
            volume.map.on_disowned();
            self.split(now, index, Event::Hot, None, effects);
        }
    }

    /// Asks for the writes of activity logs that are wanted and not under way.
    pub(super) fn persist_maps(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        for (index, volume) in &mut self.volumes {
            if volume.persist_after.is_some_and(|after| now < after) {
                continue;
            }
            if let Some(persist) = volume.map.take_persist() {
                effects.push(AgentEffect::Persist { volume: *index, persist });
            }
        }
    }

    pub(super) fn on_flushed(
        &mut self,
        now: Instant,
        index: VolumeIndex,
        token: FlushToken,
        _effects: &mut Vec<AgentEffect>,
    ) {
        let may_cool = self.vaulted.seq >= self.carried_until;
        let Some(volume) = self.volumes.get_mut(&index) else { return };
        volume.map.on_flushed(token);
        if may_cool {
            let idle_for = if self.is_stopping { std::time::Duration::ZERO } else { COOL_AFTER };
            volume.map.cool(now, idle_for, volume.splitter.recaptures());
        }
    }
}

/// Makes the records of a completed operation.
fn changes_of(volume: VolumeIndex, op: Op, payload: Option<&Bytes>, is_zero: bool) -> Vec<Change> {
    match op {
        Op::Write { extent, .. } | Op::Recapture { extent } => {
            let payload = payload.expect("a write ends with its content");
            assert_eq!(payload.len() as u64, extent.bytes(), "the content fills the sectors");
            let pieces = (0..payload.len()).step_by(RECORD_BYTES_MAX);
            let piece = |at: usize| Change::Write {
                volume,
                lba: Lba(extent.lba.0 + at as u64 / SECTOR_BYTES),
                payload: payload.slice(at..payload.len().min(at + RECORD_BYTES_MAX)),
            };
            pieces.map(piece).collect()
        }
        Op::ResyncRead { extent } if is_zero => vec![Change::ResyncZeroes { volume, extent }],
        Op::ResyncRead { extent } => {
            let payload = payload.expect("a resync read ends with its content").clone();
            debug_assert!(extent.sectors.0 <= BLOCK_SECTORS);
            vec![Change::ResyncWrite { volume, lba: extent.lba, payload }]
        }
        Op::WriteZeroes { extent, .. } => vec![Change::WriteZeroes { volume, extent }],
        Op::Trim { extent } => vec![Change::Trim { volume, extent }],
        Op::Resize { sectors } => vec![Change::Resize { volume, sectors }],
        Op::Flush => Vec::new(),
    }
}
