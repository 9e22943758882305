//! Decides which held batches leave in a session, and which are read back for it ahead of time.
//!
//! A session is bounded twice: by the process server's permits, which protect its stage, and by a number of
//! batches, which protects the queues between: a cut of some minutes leaves thousands of small batches, and
//! a link that is handed all of them at once drops the session, at every attempt anew.
//!
//! What is *not* here: sockets, the resume decision (`resume`), permits' origin (the receiver, the agent).

use super::Spool;
use super::events::{SpillWork, SpoolEffect};
use super::held::Body;
use crate::planted::{self, Bug};

/// Batches sent and not yet staged. Below the queues of the agent's shell, and half of what the receiver
/// remembers to tell a duplicate from a fork. Full batches reach the bound by bytes first.
pub const IN_FLIGHT_BATCHES_MAX: usize = 512;

/// Read-backs in flight or waiting in memory for their turn: enough to keep a disk busy, few enough to bound the memory they need.
pub const READS_MAX: usize = 4;

/// What one session may send.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) sent_bytes: u64,
    pub(super) permits_total: u64,
}

impl Spool {
    /// Sends what may be sent (SP-1, SP-5), then reads ahead.
    pub(super) fn send(&mut self, effects: &mut Vec<SpoolEffect>) {
        let Some(session) = self.session.as_mut().filter(|_| !self.lost) else { return };
        let before = self.held.sent();
        while self.held.sent() < IN_FLIGHT_BATCHES_MAX
            && let Some(next) = self.held.get(self.held.sent())
            && session.sent_bytes + u64::from(next.meta.bytes) <= session.permits_total
            && let Some(batch) = self.held.take_next()
        {
            session.sent_bytes += u64::from(batch.meta.bytes);
            effects.push(SpoolEffect::Send(batch));
        }
        let forgotten = if planted::active(Bug::ForgetAfterSend) { self.held.sent() - before } else { 0 };
        (0..forgotten).for_each(|_| self.held.forget_oldest());
        self.read_ahead(effects);
    }

    /// Asks for the next batches that are on disk, as far as the permits reach.
    fn read_ahead(&mut self, effects: &mut Vec<SpoolEffect>) {
        let Some(session) = &self.session else { return };
        let next = self.held.sent();
        let mut bytes = session.sent_bytes;
        for index in next..self.held.len() {
            let Some(held) = self.held.get(index) else { break };
            bytes += u64::from(held.meta.bytes);
            if bytes > session.permits_total || !held.body.is_on_disk() {
                break;
            }
            let Body::Disk(place) = held.body else { continue };
            // The next one to send is always read: those of an earlier session may fill the bound.
            if self.held.reads() >= READS_MAX && index > next {
                break;
            }
            effects.push(SpoolEffect::Spill(SpillWork::Read { place, first: held.meta.first }));
            self.held.begin_read(index);
        }
    }
}
