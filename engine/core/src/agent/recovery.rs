//! Lost order and how it comes back: overflow, gaps, forks, lost stages, and the resync.

use super::{AgentEffect, AgentMachine, Internal, Note};
use crate::change::{Change, MarkerKind, ResyncReason};
use crate::extent_log::LogImage;
use crate::extent_map::EXTENT_SECTORS;
use crate::ids::{Generation, VolumeIndex, WriteSeq};
use crate::message::{HashReply, HashRequest, Welcome};
use crate::resync::{Around, DirtyBlocks, Effect, Event, ResyncPlanner};
use crate::sequencer::Sequencer;
use crate::splitter::Op;
use crate::spool::Resume;
use crate::time::Instant;
use crate::units::{Extent, Sectors};
use crate::watermarks::Watermarks;
use std::collections::BTreeMap;

struct Dirty<'a>(&'a BTreeMap<VolumeIndex, super::Volume>);

impl DirtyBlocks for Dirty<'_> {
    fn next_dirty(&self, volume: VolumeIndex, from: u64) -> Option<u64> {
        let map = &self.0.get(&volume)?.map;
        map.block_extent(from).and_then(|_| map.next_dirty(from))
    }

    fn block_extent(&self, volume: VolumeIndex, block: u64) -> Option<Extent> {
        self.0.get(&volume)?.map.block_extent(block)
    }

    fn dirty_count(&self, volume: VolumeIndex) -> u64 {
        self.0.get(&volume).map_or(0, |volume| volume.map.dirty_blocks())
    }
}

/// Returns the marked extents of a log, within the size of the volume.
pub(super) fn marked_extents(image: &LogImage, sectors: Sectors) -> Vec<Extent> {
    let extents = sectors.0.div_ceil(EXTENT_SECTORS);
    let is_marked = |extent: &u64| {
        image.marks.get((extent / 64) as usize).is_some_and(|word| word >> (extent % 64) & 1 == 1)
    };
    let extent = |extent: u64| {
        let first = extent * EXTENT_SECTORS;
        Extent::new(first, (first + EXTENT_SECTORS).min(sectors.0) - first)
    };
    (0..extents).filter(is_marked).map(extent).collect()
}

impl AgentMachine {
    /// Order is lost because a change found no place.
    pub(super) fn lose_order(&mut self, effects: &mut Vec<AgentEffect>) {
        if !self.is_bitmap {
            effects.push(AgentEffect::Note(Note::OrderLost));
        }
        self.break_order();
    }

    /// Changes have no place from here on; the open records lost theirs (AG-2, AG-3).
    fn break_order(&mut self) {
        self.is_bitmap = true;
        // AG-7: a record that says clean is not true any more.
        self.state_wanted |= std::mem::take(&mut self.is_clean);
        self.is_exact = false;
        self.settling = None;
        self.planner = None;
        self.epoch += 1;
        let open = std::mem::take(&mut self.open.records);
        self.open.bytes = 0;
        self.dirty(&open);
        if self.pending_resync.is_none() {
            self.pending_resync = Some(ResyncReason::Overflow);
        }
    }

    pub(super) fn want_resync(&mut self, reason: ResyncReason) {
        self.is_initial |= reason == ResyncReason::Initial;
        self.pending_resync = Some(reason);
    }

    /// Begins the resync that is pending, once there is room for its first batch.
    pub(super) fn begin_pending_resync(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        let Some(reason) = self.pending_resync else { return };
        let records = self.volumes.len() as u64 + 1;
        let has_room = self.sequencer.remaining() >= records;
        let is_held = self.new_generation || self.fork.is_some() || self.is_stopping;
        if is_held || self.volumes.is_empty() || self.spool.is_overflowing() || !has_room {
            return;
        }
        if !self.is_bitmap {
            self.seal_open(now, effects);
        }
        if self.spool.is_overflowing() {
            return;
        }
        let range = self.sequencer.stamp(records).expect("AG-1: there is room for the resync's records");
        self.watermarks.on_issued(range.last);
        self.pending_resync = None;
        self.is_bitmap = false;
        self.is_exact = false;
        self.settling = None;
        self.epoch += 1;
        let attach = self.volumes.iter().map(|(index, volume)| Change::Attach {
            volume: *index,
            id: volume.id,
            sectors: volume.splitter.sectors(),
        });
        let changes: Vec<Change> = attach.chain([Change::ResyncBegin { reason }]).collect();
        for (change, seq) in changes.into_iter().zip(range.first.0..) {
            self.append(now, WriteSeq(seq), change, effects);
        }
        self.seal_open(now, effects);
        if self.is_bitmap {
            self.pending_resync = Some(reason);
            return;
        }
        self.is_recovering = false;
        if !std::mem::take(&mut self.is_begun_again) {
            let (_, blocks) = self.marks();
            effects.push(AgentEffect::Note(Note::ResyncBegan { reason, blocks }));
        }
        self.planner = Some(ResyncPlanner::new(range.last, self.volumes.keys().copied()));
        self.plan(now, Event::Poll, effects);
    }

    /// Steps the resync planner and performs what it asks for.
    pub(super) fn plan(&mut self, now: Instant, event: Event, effects: &mut Vec<AgentEffect>) {
        let Some(planner) = &mut self.planner else { return };
        let mut steps = Vec::new();
        let around = Around {
            dirty: &Dirty(&self.volumes),
            is_connected: self.session.is_some(),
            is_complete: !self.marks_state.is_unproven(),
            // The resync gives way when the spool fills: its reads could push the guest's order out.
            has_room: self.spool.memory_bytes() < self.memory_bytes_max / 2,
        };
        planner.step(now, event, around, &mut steps);
        for step in steps {
            match step {
                Effect::Compare { id, volume, extent, after } => {
                    // The epoch in the id keeps replies to an older resync apart.
                    let id = self.epoch << 32 | id & 0xffff_ffff;
                    effects.push(AgentEffect::AskHashes(HashRequest { id, volume, extent, after }));
                }
                Effect::ReadRun { volume, extent } => {
                    let internal = Internal::Resync { run: extent, epoch: self.epoch };
                    self.submit_internal(now, volume, Op::ResyncRead { extent }, internal, effects);
                }
                Effect::Finished => self.finish_resync(now, effects),
            }
        }
    }

    fn finish_resync(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        self.progress = self.resync_progress();
        self.planner = None;
        self.epoch += 1;
        let Some(range) = self.sequencer.stamp(1) else {
            self.lose_order(effects);
            return;
        };
        self.watermarks.on_issued(range.last);
        self.append(now, range.first, Change::ResyncEnd, effects);
        self.seal_open(now, effects);
        if !self.is_bitmap {
            self.is_exact = true;
            self.settling = Some(range.first);
            effects.push(AgentEffect::Note(Note::ResyncEnded(self.progress)));
            if self.cutter.is_some() {
                // The promise is kept again from here on: a point says so.
                effects.push(AgentEffect::MarkerDue(MarkerKind::Crash));
            }
        }
    }

    pub(super) fn on_hashes(&mut self, now: Instant, reply: HashReply, effects: &mut Vec<AgentEffect>) {
        if reply.id >> 32 == self.epoch {
            let (id, as_of) = (reply.id & 0xffff_ffff, reply.as_of);
            let event = Event::HashReply { id, as_of, hashes: reply.blocks };
            self.plan(now, event, effects);
        }
    }

    pub(super) fn on_welcome(&mut self, now: Instant, welcome: Welcome, effects: &mut Vec<AgentEffect>) {
        if self.is_stopping {
            effects.push(AgentEffect::CloseSession("the agent stops"));
            return;
        }
        self.seal_open(now, effects);
        let mut decision = self.spool.resume(welcome.staged, self.newest);
        if welcome.vaulted.seq < self.vaulted.seq {
            // The vault forgot what it had confirmed: nothing known about it holds any more.
            let (from, to) = (self.vaulted.seq, welcome.vaulted.seq);
            effects.push(AgentEffect::Note(Note::VaultWentBack { from, to }));
            self.all_dirty();
            self.resync_onto(now, welcome, effects);
            decision = self.spool.resume(welcome.staged, self.newest);
        } else if matches!(decision, Resume::Gap { .. }) {
            self.dirty_after(welcome.staged.seq);
            // After an unclean stop the record does not know what was sent last: nothing was lost then.
            if self.first_reason.is_none() {
                effects.push(AgentEffect::Note(Note::StageLost));
            }
            self.resync_onto(now, welcome, effects);
            decision = self.spool.resume(welcome.staged, self.newest);
        }
        match decision {
            Resume::From { after } => {
                self.first_reason = None;
                let _ = self
                    .watermarks
                    .on_ack(welcome.staged.seq.max(self.watermarks.staged()), welcome.vaulted.seq);
                self.take_positions(welcome.staged, welcome.vaulted);
                self.volumes.values_mut().for_each(|volume| {
                    volume.map.on_reconnect();
                });
                self.begin_session(now, after, welcome.permits_total, effects);
                self.plan(now, Event::Poll, effects);
            }
            Resume::Fork | Resume::AlreadyAhead { .. } => self.on_fork(now, welcome, effects),
            Resume::Gap { .. } => {
                effects.push(AgentEffect::CloseSession("the stream is not ready to continue"));
            }
        }
    }

    /// Gives up what the spool holds and begins a resync of what is dirty behind the staged position.
    fn resync_onto(&mut self, now: Instant, welcome: Welcome, effects: &mut Vec<AgentEffect>) {
        let reason = self.first_reason.unwrap_or(ResyncReason::StageLost);
        self.is_begun_again = self.first_reason.is_some();
        self.abandon(now, effects);
        // The resync is sealed onto what the process server holds, so that it continues from there.
        self.newest = welcome.staged;
        self.watermarks =
            Watermarks::resume(self.watermarks.issued(), welcome.staged.seq, welcome.vaulted.seq);
        self.staged = welcome.staged;
        self.vaulted = welcome.vaulted;
        self.pending_resync = Some(reason);
        self.begin_pending_resync(now, effects);
    }

    /// Gives up what the spool holds; its ranges are dirty already.
    fn abandon(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        self.break_order();
        self.unstaged.clear();
        let mut steps = Vec::new();
        self.spool.abandon(&mut steps);
        self.on_spool(now, steps, effects);
    }

    /// Another history, or a longer one than ours: never silently. A new generation compares all. A seed is no
    /// history of anybody: the first copy goes on behind it.
    fn on_fork(&mut self, now: Instant, welcome: Welcome, effects: &mut Vec<AgentEffect>) {
        let is_seed = welcome.staged.generation == Generation::SEED && self.vaulted.seq.0 == 0;
        let (note, reason) =
            if is_seed { (Note::Seeded, ResyncReason::Initial) } else { (Note::Fork, ResyncReason::Fork) };
        effects.push(AgentEffect::Note(note));
        self.all_dirty();
        self.abandon(now, effects);
        self.want_resync(reason);
        self.newest = welcome.staged;
        self.fork = Some(welcome.staged);
        self.is_recovering = true;
        self.staged = welcome.staged;
        self.vaulted = welcome.vaulted;
        let why = if is_seed { "the vault holds a seed" } else { "the histories differ; a resync begins" };
        effects.push(AgentEffect::CloseSession(why));
    }

    /// Makes the generation and the sequences of a resync after a fork; both are used only after the
    /// next record is durable (AG-5).
    pub(super) fn apply_fork(&mut self) {
        if self.state_in_flight.is_some() {
            return;
        }
        let Some(staged) = self.fork.take() else { return };
        let above = staged.seq.max(self.sequencer.reserved_until());
        self.sequencer = Sequencer::resume(above, above, false);
        self.watermarks = Watermarks::resume(above, self.staged.seq, self.vaulted.seq);
        self.generation = Generation(self.generation.0.max(staged.generation.0) + 1);
        self.new_generation = true;
        self.state_wanted = true;
    }

    /// A spilled batch cannot be read: it and all later ones are given up.
    pub(super) fn on_spill_lost(&mut self, now: Instant, first: WriteSeq, effects: &mut Vec<AgentEffect>) {
        effects.push(AgentEffect::Note(Note::SpillLost));
        self.dirty_after(WriteSeq(first.0 - 1));
        self.abandon(now, effects);
    }

    fn dirty_after(&mut self, seq: WriteSeq) {
        for volume in self.volumes.values_mut() {
            volume.map.mark_dirty_after(seq);
            for extent in std::mem::take(&mut volume.carried) {
                if extent.end() <= volume.map.sectors().0 {
                    volume.map.dirty_sectors(extent);
                }
            }
        }
    }

    pub(super) fn all_dirty(&mut self) {
        for volume in self.volumes.values_mut() {
            let sectors = volume.map.sectors().0;
            if sectors > 0 {
                volume.map.dirty_sectors(Extent::new(0, sectors));
            }
        }
    }
}
