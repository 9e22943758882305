//! The way of a batch: accepted, staged, durable, committed (RC-1, RC-2, RC-5).
//!
//! What is *not* here: which batch continues the stream (`judge`), files, the vault.

use super::judge::{Verdict, is_older_fork, judge};
use super::{RECENT_MAX, Receiver, ReceiverEffect};
use crate::ids::BatchPosition;
use crate::message::RefusedReason;
use crate::planted::{self, Bug};
use crate::sealed::{SealedBatch, SealedMeta};
use crate::time::Instant;

/// Commits in flight: one whose slot is put, one that is packed and stored meanwhile. Bounds the shell's memory.
pub const COMMITS_AT_ONCE: usize = 2;

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) meta: SealedMeta,
    pub(super) since: Instant,
    pub(super) ticket: u64,
}

impl Receiver {
    pub(super) fn on_batch(&mut self, now: Instant, batch: SealedBatch, effects: &mut Vec<ReceiverEffect>) {
        let Some(session) = &mut self.session else { return };
        let meta = batch.meta;
        session.received_bytes = session.received_bytes.saturating_add(u64::from(meta.bytes));
        let over = session.received_bytes > session.permits_total;
        // An older generation's batches come from the spill of a machine that crashed: legal, but never
        // after newer ones.
        let foreign = meta.machine != self.machine || meta.generation > session.generation;
        if over || foreign {
            return self.refuse_current(RefusedReason::Protocol, effects);
        }
        match judge(&meta, self.accepted) {
            Verdict::Duplicate if is_older_fork(&meta, &self.recent) => {
                self.refuse_current(RefusedReason::Fork, effects);
            }
            Verdict::Duplicate => self.acknowledge(effects),
            Verdict::Gap => self.refuse_current(RefusedReason::Gap, effects),
            Verdict::Fork => self.refuse_current(RefusedReason::Fork, effects),
            Verdict::Accept if meta.generation < self.accepted.generation => {
                self.refuse_current(RefusedReason::Fork, effects);
            }
            Verdict::Accept => {
                if meta.prev != self.accepted.chain {
                    effects.push(ReceiverEffect::HistoryReplaced { at: self.accepted, by: meta });
                }
                self.accepted = meta.position();
                if self.recent.len() == RECENT_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back(self.accepted);
                self.waiting_bytes += u64::from(meta.bytes);
                self.waiting.push_back(Waiting { meta, since: now, ticket: self.next_ticket });
                effects.push(ReceiverEffect::StageAppend(batch));
                if planted::active(Bug::AckBeforeStageSync) {
                    self.durable = self.accepted;
                    self.acknowledge(effects);
                }
            }
        }
    }

    /// Group commit: one sync in flight; what arrives meanwhile shares the next one.
    pub(super) fn sync(&mut self, effects: &mut Vec<ReceiverEffect>) {
        let newest = self.waiting.back().map_or(0, |waiting| waiting.ticket);
        if self.sync_in_flight.is_none() && newest == self.next_ticket {
            self.sync_in_flight = Some(self.next_ticket);
            effects.push(ReceiverEffect::StageSync { ticket: self.next_ticket });
            self.next_ticket += 1;
        }
    }

    pub(super) fn on_synced(&mut self, ticket: u64, effects: &mut Vec<ReceiverEffect>) {
        if self.sync_in_flight != Some(ticket) {
            return;
        }
        self.sync_in_flight = None;
        if let Some(last) = self.waiting.iter().rev().find(|waiting| waiting.ticket <= ticket) {
            self.durable =
                if last.meta.last > self.durable.seq { last.meta.position() } else { self.durable };
        }
        self.acknowledge(effects);
        self.welcome(effects);
    }

    /// Begins the next commit if it is time; tells whether it did (RC-8).
    pub(super) fn commit(&mut self, now: Instant, effects: &mut Vec<ReceiverEffect>) -> bool {
        let from = self.committing.back().map_or(self.vaulted.seq, |last| last.seq.max(self.vaulted.seq));
        let behind = self.durable.seq > from;
        if self.committing.len() == COMMITS_AT_ONCE || self.fenced || !behind || now < self.commit_not_before
        {
            return false;
        }
        let later = self.waiting.iter().skip_while(|waiting| waiting.meta.last <= from);
        let durable = later.take_while(|waiting| waiting.meta.last <= self.durable.seq);
        let (mut bytes, mut marker, mut old, mut through) = (0, false, false, None);
        for waiting in durable {
            bytes += u64::from(waiting.meta.bytes);
            marker |= waiting.meta.flags.has_marker();
            old |= now >= waiting.since.after(self.limits.commit_after);
            if through.is_none() || bytes <= self.limits.commit_bytes {
                through = Some(waiting.meta.position());
            }
        }
        let asked = self.asked.iter().any(|(_, request)| request.after > self.vaulted.seq);
        // Half of the stage at the latest, so that a small stage is not full before its first commit.
        let enough = bytes >= self.limits.commit_bytes.min(self.limits.stage_bytes / 2);
        let due = enough || self.committing.is_empty() && (marker || old || asked);
        let Some(through) = through.filter(|_| due) else { return false };
        self.committing.push_back(through);
        effects.push(ReceiverEffect::Commit { through });
        true
    }

    pub(super) fn on_committed(&mut self, vaulted: BatchPosition, effects: &mut Vec<ReceiverEffect>) {
        while self.committing.front().is_some_and(|oldest| oldest.seq <= vaulted.seq) {
            self.committing.pop_front();
        }
        if vaulted.seq <= self.vaulted.seq {
            return;
        }
        assert!(vaulted.seq <= self.durable.seq, "RC-5: only staged batches are committed");
        self.vaulted = vaulted;
        while self.waiting.front().is_some_and(|waiting| waiting.meta.last <= vaulted.seq) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.waiting_bytes -= u64::from(waiting.meta.bytes);
            }
        }
        effects.push(ReceiverEffect::StageTrim { through: vaulted.seq });
        self.acknowledge(effects);
    }
}
