//! What the machine's owner does: the receiver's effects, and the outcomes of commits.
//!
//! What is *not* here: decisions (`core::receiver`), what follows a failed stage (`failure`).

use super::Actor;
use crate::process_server::exactness::Known;
use crate::process_server::generation;
use crate::process_server::packer::Report;
use redoubt_core::WriteSeq;
use redoubt_core::message::Message;
use redoubt_core::receiver::{ReceiverEffect, ReceiverEvent};
use redoubt_ports::{IoError, IoKind};

impl Actor {
    pub(super) async fn perform(&mut self, effect: ReceiverEffect) -> Result<(), IoError> {
        match effect {
            ReceiverEffect::Transmit(session, message) => {
                if matches!(message, Message::Welcome(_)) {
                    self.connected = Some(session);
                }
                if let Some(outbox) = self.outboxes.get(&session) {
                    outbox.push(message);
                }
            }
            ReceiverEffect::Close(session) => self.forget(session),
            ReceiverEffect::PersistGeneration(generation) => {
                let (files, machine) = (self.shared.world.files.clone(), self.machine);
                let before = self.saving.take();
                let save = async move {
                    // One writer of the record at a time.
                    if let Some((_, task)) = before {
                        let _ = task.await;
                    }
                    generation::save(&*files, machine, generation).await
                };
                self.saving = Some((generation, tokio::spawn(save)));
            }
            ReceiverEffect::StageAppend(batch) => self.stage.append(batch).await?,
            ReceiverEffect::StageSync { ticket } => {
                let job = self.stage.sync_job();
                self.syncing = Some((ticket, tokio::spawn(job.run())));
            }
            ReceiverEffect::StageTrim { through } => self.stage.trim(through).await,
            ReceiverEffect::Commit { through } => {
                self.wanted.push_back(through);
                self.feed();
            }
            ReceiverEffect::Hash(request) => {
                if let Some(session) = self.connected {
                    self.hasher.ask(session, request);
                }
            }
            ReceiverEffect::LookAtMarks(session, request) => self.marks.begin(session, request),
            ReceiverEffect::HistoryReplaced { at, by } => {
                let (machine, at, by) = (self.machine, at.seq, by.first);
                tracing::warn!(%machine, %at, %by, "a resync replaced a lost history");
            }
            // Performed by `stage_failed`, the only one who reports a failure.
            ReceiverEffect::Restart => {}
            ReceiverEffect::ClaimAgain(session) => self.claim_for = Some(session),
        }
        Ok(())
    }

    /// Hands over what the receiver wants committed, as long as the packer takes it. What an earlier receiver
    /// began may still be under way: then its end comes first.
    pub(super) fn feed(&mut self) {
        while let Some(through) = self.wanted.front().copied() {
            if self.packer.is_full() {
                return;
            }
            let after = self.packer.end().unwrap_or(self.receiver.vaulted().seq);
            let job = self.stage.hand_over(after, through.seq);
            self.packer.begin(job);
            self.wanted.pop_front();
        }
    }

    pub(super) async fn packed(&mut self, report: Report) {
        match report {
            Report::Done { position, is_exact, .. } => {
                self.last_error = None;
                if position.seq > self.known.seq {
                    self.known = Known { seq: position.seq, is_exact };
                }
                if position.seq <= self.receiver.staged().seq {
                    self.step(ReceiverEvent::CommitDone { vaulted: position }).await;
                } else {
                    self.last_error = Some("the vault is ahead of the stage".to_owned());
                    self.step(ReceiverEvent::CommitFailed).await;
                }
                self.feed();
            }
            Report::Trouble(why) => {
                tracing::warn!(machine = %self.machine, why, "the commit is tried again");
                self.last_error = Some(why);
            }
            Report::Fenced(why) => self.fenced(why).await,
            Report::Unusable { from, why } => {
                let what = format!("commit the staged batch at sequence {from}");
                let error = IoError::new(IoKind::Device, what, why);
                let before = WriteSeq(from.0.saturating_sub(1)).min(self.receiver.staged().seq);
                self.stage_failed(&error, before).await;
            }
        }
    }

    /// Another writer has the log. Nothing is lost: the agent's next hello claims it again (RC-7).
    pub(super) async fn fenced(&mut self, why: String) {
        tracing::warn!(machine = %self.machine, why, "this process server lost the machine");
        self.is_fenced = true;
        self.last_error = Some(why);
        self.step(ReceiverEvent::Fenced).await;
    }
}
