//! The agent's own files: the record, the activity logs, the spill. One write of each kind at a time.

use super::super::common::{Common, lock};
use super::super::content::number_of;
use super::super::event::AgentWork;
use super::super::files::sync_time;
use super::{AgentHost, COOL_EVERY, PLANTED_DELAY};
use redoubt_core::VolumeIndex;
use redoubt_core::agent::AgentEvent;
use redoubt_core::agent_state::Slot;
use redoubt_core::planted::{self, Bug};
use redoubt_core::spool::SpillWork;

impl AgentHost {
    fn sync_ends(&mut self, c: &mut Common, work: AgentWork) {
        let at = c.now + sync_time(&c.flush, &mut c.dice);
        let at = self.directory.done_at(at);
        c.heap.push(at, self.work(work));
    }

    /// Begins the write of the record, if it is wanted and none is under way.
    pub(super) fn write_state(&mut self, c: &mut Common) {
        let Some(process) = &mut self.process else { return };
        if process.saving.is_some() || !std::mem::take(&mut process.is_state_wanted) {
            return;
        }
        process.state_counter += 1;
        process.saving = Some(Slot::Valid(process.state_counter, process.machine.record()));
        self.sync_ends(c, AgentWork::State);
    }

    pub(super) fn state_written(&mut self, c: &mut Common) {
        // A directory that began to hang meanwhile answers later.
        if self.directory.hang_until > c.now {
            return self.sync_ends(c, AgentWork::State);
        }
        let Some(slot) = self.process.as_mut().and_then(|process| process.saving.take()) else { return };
        let is_written = self.directory.write();
        if is_written {
            self.record.write(slot);
        }
        let is_ok = is_written && self.directory.sync(&mut c.dice);
        if is_ok {
            self.record.synced();
        } else if let Some(process) = &mut self.process {
            // The next attempt goes to the same slot: the other one holds the record that is good.
            process.state_counter -= 1;
        }
        self.step(c, AgentEvent::StateWritten { ok: is_ok });
        self.write_state(c);
        self.look_whether_ready(c, is_ok);
    }

    /// Begins the write of an activity log, if one is wanted and none is under way.
    pub(super) fn write_log(&mut self, c: &mut Common) {
        let Some(process) = &mut self.process else { return };
        if process.logging.is_some() {
            return;
        }
        process.logging = process.persists.pop_front();
        if process.logging.is_none() {
            return;
        }
        if planted::active(Bug::SkipActivityLogSync) {
            // As in the agent's shell: marks are relied upon long before they are written.
            return c.after(PLANTED_DELAY, self.work(AgentWork::Log));
        }
        self.sync_ends(c, AgentWork::Log);
    }

    pub(super) fn log_written(&mut self, c: &mut Common) {
        if self.directory.hang_until > c.now {
            return self.sync_ends(c, AgentWork::Log);
        }
        let Some((volume, persist)) = self.process.as_mut().and_then(|process| process.logging.take()) else {
            return;
        };
        let is_written = self.directory.write();
        let log = &mut self.logs[usize::from(volume.0)];
        if is_written {
            log.write(&persist);
        }
        let is_ok = is_written && self.directory.sync(&mut c.dice);
        if is_ok {
            self.logs[usize::from(volume.0)].synced();
        }
        self.step(c, AgentEvent::Persisted { volume, ok: is_ok });
        self.write_log(c);
        self.look_whether_ready(c, is_ok);
    }

    /// Does the spool's work on its files, up to the next piece that takes time.
    pub(super) fn spill(&mut self, c: &mut Common) {
        loop {
            let Some(process) = &mut self.process else { return };
            if process.spilling.is_some() {
                return;
            }
            let Some(work) = process.spill_work.pop_front() else { return };
            match work {
                SpillWork::Create { .. } | SpillWork::Append { .. } if process.has_spill_failed => {}
                SpillWork::Create { file } => {
                    process.has_spill_failed |= !self.directory.write();
                    self.spill.create(file);
                }
                SpillWork::Append { place, bytes } => {
                    let is_ok = self.directory.write() && self.spill.append(place, number_of(&bytes));
                    process.has_spill_failed |= !is_ok;
                    c.marks.insert("spilled");
                }
                SpillWork::Remove { file } => self.spill.remove(file),
                SpillWork::Sync { .. } | SpillWork::Read { .. } => {
                    process.spilling = Some(work);
                    self.sync_ends(c, AgentWork::Spill);
                }
            }
        }
    }

    pub(super) fn spilled(&mut self, c: &mut Common) {
        if self.directory.hang_until > c.now {
            return self.sync_ends(c, AgentWork::Spill);
        }
        let Some(process) = &mut self.process else { return };
        let event = match process.spilling.take() {
            Some(SpillWork::Sync { ticket }) => {
                let has_failed = std::mem::take(&mut process.has_spill_failed);
                if !has_failed && self.directory.sync(&mut c.dice) {
                    self.spill.sync();
                    AgentEvent::SpillSynced { ticket }
                } else {
                    AgentEvent::SpillFailed { ticket }
                }
            }
            Some(SpillWork::Read { place, first }) => {
                let batch = self.spill.read(place);
                let ledger = lock(&c.truths[self.truth()].ledger);
                let is_right = |batch: &u32| ledger.batches[*batch as usize].meta.first == first;
                let bytes = batch.filter(is_right).map(|batch| ledger.bytes(batch));
                drop(ledger);
                AgentEvent::SpillRead { first, bytes }
            }
            _ => return,
        };
        self.step(c, event);
        self.spill(c);
    }

    /// Flushes the disks, then looks at every mark; `again` if it comes back by itself.
    pub(super) fn cool(&mut self, c: &mut Common, again: bool) {
        if self.process.is_none() {
            return;
        }
        if again {
            c.after(COOL_EVERY, self.work(AgentWork::Cool));
        }
        let Some(process) = self.process.as_mut().filter(|process| process.cooling == 0) else { return };
        let volumes = 0..self.disks.len() as u16;
        let wanted: Vec<_> = volumes
            .filter_map(|volume| Some((volume, process.machine.flush_wanted(VolumeIndex(volume))?)))
            .collect();
        process.cooling = wanted.len() as u32;
        if wanted.is_empty() {
            self.cool_all(c);
        }
        for (volume, token) in wanted {
            self.begin_cool_flush(c, volume, token);
        }
    }

    pub(super) fn cool_flush_ended(&mut self, c: &mut Common) {
        let Some(process) = &mut self.process else { return };
        process.cooling -= 1;
        if process.cooling == 0 {
            self.cool_all(c);
        }
    }

    fn cool_all(&mut self, c: &mut Common) {
        for volume in (0..self.disks.len() as u16).map(VolumeIndex) {
            loop {
                self.step(c, AgentEvent::Cool { volume });
                if !self.process.as_ref().is_some_and(|process| process.machine.is_cooling(volume)) {
                    break;
                }
            }
        }
    }
}
