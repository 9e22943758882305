//! After a failed append or sync: what is durable stays, the rest is cut off, the machine goes on.

use super::{PAUSE_MAX, ServerHost};
use crate::core_tier::common::Common;
use crate::core_tier::event::ActorWork;
use redoubt_core::WriteSeq;
use redoubt_core::receiver::{Receiver, ReceiverEffect, ReceiverEvent, ReceiverState};

impl ServerHost {
    pub(super) fn stage_failed(&mut self, c: &mut Common, machine: u16, keep: WriteSeq) {
        c.marks.insert("stage-failed");
        let host = usize::from(self.host);
        c.say(host, || format!("the stage failed; it is kept up to {keep}"));
        let now = c.instant();
        let Some(open) = self.opened_machine(machine) else { return };
        let mut effects = Vec::new();
        open.receiver.step(now, ReceiverEvent::StageFailed, &mut effects);
        c.steps.receiver += 1;
        let sessions = std::mem::take(&mut open.sessions);
        open.connected = None;
        open.wanted.clear();
        open.syncing = None;
        open.saving = None;
        open.questions.clear();
        open.cut_after = Some(keep);
        for effect in effects {
            if let ReceiverEffect::Transmit(session, message) = effect {
                let number = session.0 as u32 - 1;
                if c.net.connections[number as usize].is_server_open {
                    c.tell(number, false, message);
                }
            }
        }
        for (session, _) in sessions {
            self.close(c, session);
        }
        self.rebuild(c, machine);
    }

    /// Cuts the stage and makes a receiver of what is left. After a failure it is tried again later.
    pub(super) fn rebuild(&mut self, c: &mut Common, machine: u16) {
        let now = c.instant();
        let Some(open) = self.opened_machine(machine) else { return };
        let Some(keep) = open.cut_after else { return };
        let pause = open.stage_pause;
        open.refused_until = now.0 + pause;
        open.stage_pause = (pause * 2).min(PAUSE_MAX);
        let (vaulted, is_fenced) = (open.receiver.vaulted(), open.is_fenced);
        self.after(c, pause, machine, ActorWork::Tick);
        if self.directory.hang_until > c.now || !self.directory.write() || !self.directory.sync(&mut c.dice) {
            return;
        }
        let stage = &mut self.machines[usize::from(machine)].stage;
        let kept = stage.entries.iter().take_while(|staged| staged.meta.last <= keep).count();
        stage.cut(kept);
        let staged: Vec<_> = stage.entries.iter().map(|staged| staged.meta).collect();
        let bytes = stage.bytes();
        let seen = staged.iter().map(|meta| meta.generation).max().unwrap_or_default();
        let generation = redoubt_core::Generation(stage.generation).max(seen).max(vaulted.generation);
        let exact = c.truths[usize::from(machine)].vault.is_exact;
        let state = ReceiverState { generation, vaulted, staged, exact };
        let receiver = Receiver::new(now, super::actor::id(machine), self.limits(bytes), state);
        let Some(open) = self.opened_machine(machine) else { return };
        open.receiver = receiver;
        open.cut_after = None;
        if is_fenced {
            open.receiver.step(now, ReceiverEvent::Fenced, &mut Vec::new());
        }
        self.step_nothing(c, machine);
    }
}
