//! After a failed append or sync: what is durable stays, the rest is cut off, the machine goes on.
//!
//! What is *not* here: what a failure is (`core::receiver`), how a stage is cut (`stage`).

use super::{Actor, limits};
use crate::process_server::exactness::Known;
use crate::process_server::packer::PAUSE_MAX;
use redoubt_core::WriteSeq;
use redoubt_core::receiver::{Receiver, ReceiverEffect, ReceiverEvent, ReceiverState};
use redoubt_ports::IoError;

impl Actor {
    /// Ends the session, keeps what is durable up to the sequence, and goes on with a new receiver (AC-2).
    pub(super) async fn stage_failed(&mut self, error: &IoError, keep: WriteSeq) {
        tracing::error!(machine = %self.machine, %error, "the stage failed; its durable part is kept");
        self.last_error = Some(error.to_string());
        let mut effects = Vec::new();
        self.receiver.step(self.now(), ReceiverEvent::StageFailed, &mut effects);
        for effect in effects {
            if let ReceiverEffect::Transmit(session, message) = effect
                && let Some(outbox) = self.outboxes.get(&session)
            {
                outbox.push(message);
            }
        }
        std::mem::take(&mut self.outboxes).values().for_each(|outbox| outbox.close());
        self.connected = None;
        self.wanted.clear();
        self.settle_files().await;
        self.cut_after = Some(keep);
        self.rebuild().await;
    }

    /// Cuts the stage and makes a receiver of what is left. After a failure it is tried again later.
    pub(super) async fn rebuild(&mut self) {
        let Some(keep) = self.cut_after else { return };
        self.refused_until = self.now().after(self.stage_pause);
        self.stage_pause = (self.stage_pause * 2).min(PAUSE_MAX);
        let kept = self.stage.entries().iter().take_while(|entry| entry.meta.last <= keep).count();
        if let Err(error) = self.stage.cut(kept).await {
            tracing::error!(machine = %self.machine, %error, "cannot cut the stage; trying again later");
            self.last_error = Some(error.to_string());
            return;
        }
        let vaulted = self.receiver.vaulted();
        let end = self.stage.entries().back().map_or(vaulted.seq, |entry| entry.meta.last);
        if self.known.seq > end {
            // It spoke of what was cut. Inexact is the safe answer until a commit tells.
            self.known = Known { seq: vaulted.seq, is_exact: false };
        }
        let staged = self.stage.entries().iter().map(|entry| entry.meta).collect();
        let (generation, exact) = (self.generation, self.known.is_exact);
        let state = ReceiverState { generation, vaulted, staged, exact };
        let limits = limits(&self.shared, self.stage.bytes());
        self.receiver = Receiver::new(self.now(), self.machine, limits, state);
        self.cut_after = None;
        if self.is_fenced {
            // No session exists yet, hence no effects.
            self.receiver.step(self.now(), ReceiverEvent::Fenced, &mut Vec::new());
        }
    }
}
