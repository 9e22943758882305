//! The open batch, the spool and the session: from a stamped record to the watermark that lets it go.

use super::{AgentEffect, AgentMachine, IDLE_BATCHES, OpenBatch, SEAL_AGE, SEAL_BYTES, Session};
use crate::change::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, Change, Marker, Record};
use crate::ids::{BatchPosition, VolumeIndex, WriteSeq};
use crate::markers::{MarkerEffect, MarkerEvent};
use crate::spool::{SpoolEffect, SpoolEvent};
use crate::time::Instant;
use crate::units::Extent;
use bytes::Bytes;

impl AgentMachine {
    /// Puts a stamped record into the open batch (AG-1).
    pub(super) fn append(
        &mut self,
        now: Instant,
        seq: WriteSeq,
        change: Change,
        effects: &mut Vec<AgentEffect>,
    ) {
        let bytes = change.payload().map_or(0, Bytes::len);
        if self.open.bytes + bytes > BATCH_BYTES_MAX || self.open.records.len() >= BATCH_RECORDS_MAX {
            self.seal_open(now, effects);
        }
        if self.is_bitmap {
            // The seal above overflowed the spool: this record has no place any more (AG-3).
            self.dirty(&[Record { seq, change }]);
            return;
        }
        if self.open.records.is_empty() {
            self.open.since = now;
        }
        let last = self.open.records.last().map(|record| record.seq);
        assert!(last.is_none_or(|last| last.next() == seq), "AG-1: {seq} follows {last:?}");
        self.open.bytes += bytes;
        self.open.records.push(Record { seq, change });
    }

    pub(super) fn seal_if_large(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        if self.open.bytes >= SEAL_BYTES {
            self.seal_open(now, effects);
        }
    }

    /// Seals the open batch and gives it to the spool.
    pub(super) fn seal_open(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        if self.open.records.is_empty() {
            return;
        }
        let fresh = OpenBatch { records: Vec::new(), bytes: 0, since: now };
        let open = std::mem::replace(&mut self.open, fresh);
        let batch = Batch::new(self.generation, open.records).expect("AG-1: the open batch is legal");
        let sealed = (self.sealer)(&batch, self.newest.chain);
        let position = sealed.meta.position();
        let mut steps = Vec::new();
        self.spool.step(SpoolEvent::Push(sealed), &mut steps);
        if steps.contains(&SpoolEffect::Refused) {
            self.dirty(&batch.records);
        } else {
            self.newest = position;
            self.unstaged.push_back((position.seq, open.since));
        }
        self.on_spool(now, steps, effects);
    }

    /// The records have no place in the stream: their blocks are dirty (AG-3). Sectors that a resize took
    /// away and a later one gave back are zeros here, which the vault does not know either.
    pub(super) fn dirty(&mut self, records: &[Record]) {
        for record in records {
            let touched = match record.change {
                Change::Resize { volume, sectors } => Some((volume, sectors.0, u64::MAX)),
                _ => record.change.touched().map(|(volume, extent)| (volume, extent.lba.0, extent.end())),
            };
            let Some((volume, first, end)) = touched else { continue };
            let Some(volume) = self.volumes.get_mut(&volume) else { continue };
            let end = end.min(volume.map.sectors().0);
            if first < end {
                volume.map.dirty_sectors(Extent::new(first, end - first));
            }
        }
    }

    pub(super) fn spool(&mut self, now: Instant, event: SpoolEvent, effects: &mut Vec<AgentEffect>) {
        let mut steps = Vec::new();
        self.spool.step(event, &mut steps);
        self.on_spool(now, steps, effects);
    }

    pub(super) fn on_spool(&mut self, now: Instant, steps: Vec<SpoolEffect>, effects: &mut Vec<AgentEffect>) {
        for step in steps {
            match step {
                SpoolEffect::Accepted => {}
                SpoolEffect::Refused | SpoolEffect::Overflow => self.lose_order(effects),
                SpoolEffect::Spill(work) => effects.push(AgentEffect::Spill(work)),
                SpoolEffect::Send(batch) => {
                    self.watermarks.on_sent(batch.meta.last);
                    if let Some(session) = &mut self.session {
                        session.sent.push_back((batch.meta.last, u64::from(batch.meta.bytes)));
                    }
                    effects.push(AgentEffect::Send(batch));
                }
                SpoolEffect::Drained => {}
                SpoolEffect::Lost { first } => self.on_spill_lost(now, first, effects),
            }
        }
    }

    pub(super) fn on_spill_synced(&mut self, now: Instant, ticket: u64, effects: &mut Vec<AgentEffect>) {
        self.spool(now, SpoolEvent::SpillSynced { ticket }, effects);
    }

    pub(super) fn on_spill_failed(&mut self, now: Instant, ticket: u64, effects: &mut Vec<AgentEffect>) {
        self.spool(now, SpoolEvent::SpillFailed { ticket }, effects);
    }

    pub(super) fn on_spill_read(
        &mut self,
        now: Instant,
        first: WriteSeq,
        bytes: Option<Bytes>,
        effects: &mut Vec<AgentEffect>,
    ) {
        let event = match bytes {
            Some(bytes) => SpoolEvent::ReadDone { first, bytes },
            None => SpoolEvent::ReadFailed { first },
        };
        self.spool(now, event, effects);
    }

    pub(super) fn begin_session(
        &mut self,
        now: Instant,
        after: WriteSeq,
        granted: u64,
        effects: &mut Vec<AgentEffect>,
    ) {
        self.session = Some(Session { granted, staged_bytes: 0, sent: std::collections::VecDeque::new() });
        self.marks_state.on_session();
        self.ask_marks(now, effects);
        let permits_total = self.permits();
        self.spool(now, SpoolEvent::SessionUp { after, permits_total }, effects);
    }

    fn permits(&self) -> u64 {
        let own = |session: &Session| session.granted.min(session.staged_bytes + self.in_flight_bytes_max);
        self.session.as_ref().map_or(0, own)
    }

    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        staged: BatchPosition,
        vaulted: BatchPosition,
        permits_total: u64,
        effects: &mut Vec<AgentEffect>,
    ) {
        if self.session.is_none() {
            return;
        }
        if !self.watermarks.on_ack(staged.seq.max(self.watermarks.staged()), vaulted.seq) {
            effects.push(AgentEffect::CloseSession("it acknowledged what was never sent"));
            return;
        }
        self.take_positions(staged, vaulted);
        if let Some(session) = &mut self.session {
            while session.sent.front().is_some_and(|(last, _)| *last <= staged.seq) {
                session.staged_bytes += session.sent.pop_front().map_or(0, |(_, bytes)| bytes);
            }
            session.granted = session.granted.max(permits_total);
        }
        let permits = self.permits();
        self.spool(now, SpoolEvent::Permits(permits), effects);
        self.spool(now, SpoolEvent::Staged(staged.seq), effects);
        // The resync may have waited for this room.
        self.plan(now, crate::resync::Event::Poll, effects);
    }

    pub(super) fn take_positions(&mut self, staged: BatchPosition, vaulted: BatchPosition) {
        while self.unstaged.front().is_some_and(|(last, _)| *last <= staged.seq) {
            self.unstaged.pop_front();
        }
        if staged.seq >= self.staged.seq {
            self.staged = staged;
        }
        if vaulted.seq >= self.vaulted.seq {
            self.vaulted = vaulted;
            let carried = self.carried_until;
            for volume in self.volumes.values_mut() {
                volume.map.on_vaulted(vaulted.seq);
                if vaulted.seq >= carried {
                    volume.carried.clear();
                }
            }
            if self.settling.is_some_and(|end| end <= vaulted.seq) {
                self.settling = None;
                self.state_wanted |= std::mem::take(&mut self.is_initial);
            }
        }
    }

    pub(super) fn on_session_down(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        if self.session.take().is_some() {
            self.spool(now, SpoolEvent::SessionDown, effects);
            let marks = self.watermarks;
            self.watermarks =
                crate::watermarks::Watermarks::resume(marks.issued(), marks.staged(), marks.vaulted());
            self.plan(now, crate::resync::Event::LinkDown, effects);
        }
    }

    pub(super) fn on_cut_marker(&mut self, now: Instant, marker: Marker, effects: &mut Vec<AgentEffect>) {
        if !self.can_mark() {
            return;
        }
        let Some(range) = self.sequencer.stamp(1) else { return };
        self.watermarks.on_issued(range.first);
        self.append(now, range.first, Change::Marker(marker.clone()), effects);
        if self.is_bitmap {
            // Making room for it ended order: it has no place.
            return;
        }
        self.seal_open(now, effects);
        if self.settling.is_some_and(|end| end.next() == range.first) {
            // The first point behind a resync belongs to it.
            self.settling = Some(range.first);
        }
        effects.push(AgentEffect::MarkerCut { marker, seq: range.first });
    }

    pub(super) fn on_tick(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        self.recapture_due(now, effects);
        self.watch_files(now, effects);
        // Never in the step of a guest's write: a batch for each write would cost every hop a sync and
        // a dozen wake-ups (decision 0005).
        let is_link_idle = self.session.is_some() && self.unstaged.len() < IDLE_BATCHES;
        if is_link_idle || now.since(self.open.since) >= SEAL_AGE {
            self.seal_open(now, effects);
        }
        self.plan(now, crate::resync::Event::Poll, effects);
        let can_mark = self.can_mark();
        let mut steps = Vec::new();
        if let Some(cutter) = &mut self.cutter {
            cutter.step(now, MarkerEvent::Exact(can_mark), &mut steps);
            cutter.step(now, MarkerEvent::Tick, &mut steps);
        }
        for step in steps {
            if let MarkerEffect::Cut(kind) = step {
                effects.push(AgentEffect::MarkerDue(kind));
            }
        }
    }

    /// Ends every step: wanted writes are asked for, and a resync that was waiting for room begins.
    pub(super) fn settle(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        if self.session.is_none() && self.is_stopping {
            self.seal_open(now, effects);
        }
        self.apply_fork();
        self.begin_pending_resync(now, effects);
        self.persist_maps(now, effects);
        self.renumber_marks(now);
        if self.state_in_flight.is_none() {
            let reservation = if self.is_stopping { None } else { self.sequencer.take_reservation() };
            if reservation.is_some() || self.state_wanted {
                self.state_wanted = false;
                self.state_in_flight = Some(reservation);
                // The record is built after this effect, so it says so for at least these.
                let doubted = self.volumes.iter().filter(|(_, volume)| volume.map.is_disown_wanted());
                self.disowning = doubted.map(|(index, _)| *index).collect();
                self.record_begun();
                effects.push(AgentEffect::WriteState);
            }
        }
    }

    pub(super) fn on_state_written(&mut self, now: Instant, ok: bool, effects: &mut Vec<AgentEffect>) {
        let asked = self.state_in_flight.take().expect("a record was written that was not asked for");
        match (asked, ok) {
            (Some(through), true) => self.sequencer.on_reserved(through),
            (Some(_), false) => self.sequencer.on_reserve_failed(),
            (None, false) => self.state_wanted = true,
            (None, true) => {}
        }
        if ok {
            self.new_generation = false;
        } else {
            self.state_wanted |= !self.disowning.is_empty();
        }
        let disowned = std::mem::take(&mut self.disowning);
        self.disown_logs(now, disowned, effects);
        self.record_ended(effects);
    }

    pub(super) fn on_stop(&mut self, now: Instant, effects: &mut Vec<AgentEffect>) {
        self.is_stopping = true;
        self.seal_open(now, effects);
        self.spool(now, SpoolEvent::SpillAll, effects);
        // AG-9
        let is_known = self.volumes.values().all(|volume| volume.fingerprint.is_some());
        if self.is_settled() && is_known && self.can_stop_clean() && !self.is_clean {
            self.is_clean = true;
            self.state_wanted = true;
        }
    }

    pub(super) fn on_fingerprint(&mut self, volume: VolumeIndex, digest: [u8; 32]) {
        if self.is_settled()
            && let Some(volume) = self.volumes.get_mut(&volume)
        {
            volume.fingerprint = Some(digest);
        }
    }
}
