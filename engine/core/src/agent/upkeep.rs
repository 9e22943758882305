//! The agent's own files and their moments: activity logs, the record, cooling, and resizes that wait for
//! both.
//!
//! What is *not* here: what a log says ([`crate::extent_map`]), what a record says ([`crate::agent_state`]).

use super::capture::Brought;
use super::{AgentEffect, AgentMachine, LOG_GIVE_UP_AFTER, Note};
use crate::extent_map::{COOL_AFTER, COOL_AFTER_CROWDED, FlushToken, HOT_EXTENTS_GOAL};
use crate::ids::VolumeIndex;
use crate::splitter::{Event, IoId};
use crate::time::Instant;
use std::time::Duration;

impl AgentMachine {
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
        let has_doubts = volume.map.must_compare_all();
        let failures = volume.map.persist_failures();
        self.state_wanted |= had_doubts != has_doubts;
        if ok {
            volume.persist_since = None;
        }
        volume.persist_after = delay.map(|delay| now.after(delay));
        self.resize_logged(index, ok);
        if !ok {
            effects.push(AgentEffect::Note(Note::LogFailing(failures)));
            return;
        }
        if had_doubts && !self.must_compare_all() {
            effects.push(AgentEffect::Note(Note::LogWhole));
        }
        self.split(now, index, Event::Hot, Brought::default(), effects);
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
            self.split(now, index, Event::Hot, Brought::default(), effects);
        }
    }

    /// Asks for the writes of activity logs that are wanted and not under way.
    pub(super) fn persist_maps(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        for (index, volume) in &mut self.volumes {
            if volume.persist_after.is_some_and(|after| now < after) {
                continue;
            }
            if let Some(persist) = volume.map.take_persist() {
                volume.persist_since.get_or_insert(now);
                effects.push(AgentEffect::Persist { volume: *index, persist });
            }
        }
    }

    pub(super) fn on_flushed(&mut self, index: VolumeIndex, token: FlushToken) {
        if let Some(volume) = self.volumes.get_mut(&index) {
            volume.map.on_flushed(token);
        }
    }

    pub(super) fn on_flush_failed(&mut self, index: VolumeIndex, is_told: bool) {
        let Some(volume) = self.volumes.get_mut(&index) else { return };
        volume.map.on_flush_failed();
        volume.owes_flush_error |= !is_told;
    }

    /// A flush of the guest is about to be issued; it is always followed by
    /// [`AgentMachine::guest_flush_ended`].
    pub fn guest_flush_begun(&mut self, volume: VolumeIndex) {
        if let Some(volume) = self.volumes.get_mut(&volume) {
            volume.guest_flushes += 1;
        }
    }

    /// A flush of the guest ended; if it failed, [`super::AgentEvent::FlushFailed`] came before. Tells
    /// whether the guest must be told of a failure, also of an earlier one that nobody told it.
    pub fn guest_flush_ended(&mut self, volume: VolumeIndex) -> bool {
        let Some(volume) = self.volumes.get_mut(&volume) else { return false };
        volume.guest_flushes -= 1;
        std::mem::take(&mut volume.owes_flush_error)
    }

    /// Cools one batch. Independent of flushes: the last write of a burst is flushed long before it is idle
    /// for long enough, and then no further flush comes.
    pub(super) fn on_cool(&mut self, now: Instant, index: VolumeIndex) {
        if self.vaulted.seq < self.carried_until {
            return;
        }
        let Some(volume) = self.volumes.get_mut(&index) else { return };
        let is_crowded = volume.map.marked_extents() > HOT_EXTENTS_GOAL;
        let idle_for = match (self.is_stopping, is_crowded) {
            (true, _) => Duration::ZERO,
            (false, true) => COOL_AFTER_CROWDED,
            (false, false) => COOL_AFTER,
        };
        volume.map.cool(now, idle_for, volume.splitter.recaptures());
    }

    /// A resize has its place in the stream. It is completed once the log, and then a record, know the new
    /// size, or the attempt to write them failed: then a start finds out by the size of the disk.
    pub(super) fn hold_resize(&mut self, now: Instant, io: IoId, volume: VolumeIndex) {
        self.resizes.push(HeldResize { io, volume, since: now, waits_for: WaitsFor::Log });
    }

    /// Completes resizes for which log and record took too long: a start finds out by the size of the disk.
    pub(super) fn release_resizes(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        let late = self.resizes.extract_if(.., |held| now.since(held.since) >= LOG_GIVE_UP_AFTER);
        effects.extend(late.map(|held| AgentEffect::Complete { io: held.io, result: Ok(()) }));
    }

    pub(super) fn is_resize_held(&self, io: IoId) -> bool {
        self.resizes.iter().any(|held| held.io == io)
    }

    /// A write of the volume's log ended.
    fn resize_logged(&mut self, index: VolumeIndex, ok: bool) {
        let Some(volume) = self.volumes.get(&index) else { return };
        let is_known = volume.map.logged_sectors() == volume.map.sectors();
        for held in self.resizes.iter_mut().filter(|held| held.volume == index) {
            if held.waits_for == WaitsFor::Log && (is_known || !ok) {
                held.waits_for = WaitsFor::Record;
                self.state_wanted = true;
            }
        }
    }

    /// A record is about to be built.
    pub(super) fn record_begun(&mut self) {
        for held in self.resizes.iter_mut().filter(|held| held.waits_for == WaitsFor::Record) {
            held.waits_for = WaitsFor::Writing;
        }
    }

    /// The write of the record ended.
    pub(super) fn record_ended(&mut self, effects: &mut Vec<AgentEffect>) {
        let done = self.resizes.extract_if(.., |held| held.waits_for == WaitsFor::Writing);
        effects.extend(done.map(|held| AgentEffect::Complete { io: held.io, result: Ok(()) }));
    }
}

/// A resize that is done and not completed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldResize {
    io: IoId,
    volume: VolumeIndex,
    since: Instant,
    waits_for: WaitsFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    Log,
    Record,
    Writing,
}
