//! Rest: how long a machine needs no tick. Nine machines of ten have nothing to do most of the time, and a beat
//! of 25 ms for each would cost an idle host its sleep, and a lab of hundreds of machines its day.
//!
//! Invariant
//! - AG-8 A tick at rest has no effects: whoever leaves it out changes nothing.

use super::AgentMachine;
use crate::time::Instant;

/// How long a machine needs no tick, if nothing else steps it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Not at all: something waits for time to pass.
    None,
    /// Until then; without an instant for as long as nothing happens.
    Until(Option<Instant>),
}

impl AgentMachine {
    /// Tells how long no tick is needed. Every step may change the answer.
    pub fn rest(&self, now: Instant) -> Rest {
        let beat = self.cutter.as_ref().and_then(|cutter| cutter.deadline());
        let is_cutter_told = self.cutter.as_ref().is_none_or(|cutter| cutter.is_exact() == self.can_mark());
        let is_stream_at_rest =
            self.open.records.is_empty() && !self.is_bitmap && !self.is_stopping && self.fork.is_none();
        let has_resync = self.planner.is_some() || self.pending_resync.is_some();
        let is_waiting = !self.recaptures_due.is_empty() || !self.resizes.is_empty();
        let is_record_wanted = self.state_wanted && self.state_in_flight.is_none();
        let are_logs_at_rest = self
            .volumes
            .values()
            .all(|volume| volume.persist_since.is_none() && volume.persist_after.is_none());
        let is_at_rest = is_cutter_told
            && is_stream_at_rest
            && !has_resync
            && !is_waiting
            && !is_record_wanted
            && are_logs_at_rest
            && !self.marks_state.is_unproven()
            && beat.is_none_or(|beat| now < beat);
        if is_at_rest { Rest::Until(beat) } else { Rest::None }
    }
}
