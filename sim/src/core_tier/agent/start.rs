//! Starts and ends of an agent's process: what a start finds, and what a crash or a clean stop leaves.

use super::super::common::{Common, lock};
use super::super::dice::{MILLI, SECOND};
use super::super::event::AgentWork;
use super::super::files::sync_time;
use super::super::guest::Job;
use super::super::oracle::seen;
use super::{AgentHost, COOL_EVERY, Process, TICK};
use crate::core_tier::disk::Disk;
use crate::workload::log::OpKind;
use redoubt_core::agent::{AgentEvent, AgentMachine, AgentStart, VolumeStart};
use redoubt_core::agent_state::{
    AgentRecord, Beside, Decision, DiskFact, Slot, Spill, next_counter, recover,
};
use redoubt_core::change::ResyncReason;
use redoubt_core::extent_log::{LogError, decode_file};
use redoubt_core::extent_map::StartMarks;
use redoubt_core::link::{Link, LinkEvent};
use redoubt_core::spool::SpillPlace;
use redoubt_core::{Extent, MachineId, SealedMeta, Sectors, VolumeId, VolumeIndex};
use std::collections::VecDeque;
use std::sync::Arc;

/// Pause before an agent that could not start is started again.
const START_AGAIN: u64 = 500 * MILLI;
/// How long a clean stop may take.
const STOP_DEADLINE: u64 = 20 * SECOND;
/// Bytes sent and not yet acknowledged, as the agent's default.
const IN_FLIGHT_BYTES: u64 = 32 << 20;

/// A record, why the stream begins inexact, and the volumes that are compared whole.
type Begin = (AgentRecord, Option<ResyncReason>, Vec<VolumeId>);

impl AgentHost {
    fn volume_id(&self, index: usize) -> VolumeId {
        VolumeId(u128::from(self.settings.machine) << 16 | index as u128 | 1 << 64)
    }

    fn machine_id(&self) -> MachineId {
        MachineId(u128::from(self.settings.machine) + 1)
    }

    /// A new process begins. After an unclean stop the surviving pages are the new base of the reference model.
    pub(in crate::core_tier) fn power_up(&mut self, c: &mut Common) {
        self.run += 1;
        self.starts += 1;
        if self.starts > 1 && !std::mem::take(&mut self.is_stopped_clean) && !self.is_copy {
            let truth = self.disks.iter().map(|disk| seen(disk.cells())).collect();
            c.truths[usize::from(self.settings.machine)].guest.log.rebase(truth);
            c.marks.insert("unclean-restart");
        }
        c.after(MILLI, self.work(AgentWork::Start));
    }

    /// Reads the directory and makes the machine of it, or tries again later.
    pub(super) fn start(&mut self, c: &mut Common) {
        if self.directory.hang_until > c.now {
            return c.heap.push(self.directory.hang_until, self.work(AgentWork::Start));
        }
        match self.read_directory(c) {
            Some(start) => self.run_machine(c, start),
            None => {
                c.say(usize::from(self.host), || "does not start; it tries again".to_owned());
                c.after(START_AGAIN, self.work(AgentWork::Start));
            }
        }
    }

    fn read_directory(&mut self, c: &mut Common) -> Option<(AgentStart, u64)> {
        let [a, b] = self.record.shown();
        let next = next_counter(&a, &b);
        // A scan writes what it uses again and syncs it.
        if !self.directory.sync(&mut c.dice) {
            return None;
        }
        let (spill_files, entries) = self.spill.scan();
        let ledger = lock(&c.truths[self.truth()].ledger);
        let spilled: Vec<(SealedMeta, SpillPlace)> = follow(entries.iter().map(|(file, entry)| {
            let meta = ledger.batches[entry.batch as usize].meta;
            (meta, SpillPlace { file: *file, offset: entry.offset, bytes: meta.bytes })
        }));
        drop(ledger);
        let is_broken = spilled.len() < entries.len();
        let spill = match (is_broken, spilled.is_empty()) {
            (true, _) => Spill::Damaged,
            (false, true) => Spill::Empty,
            (false, false) => Spill::Held,
        };
        let facts: Vec<DiskFact> = (0..self.disks.len())
            .map(|index| DiskFact {
                id: self.volume_id(index),
                sectors: Sectors(self.disks[index].sectors()),
                fingerprint: Some(fingerprint(&self.disks[index])),
            })
            .collect();
        let has_extent_log = self.logs.iter().any(|log| !log.bytes().is_empty());
        let decision = recover(a, b, Beside { spill, has_extent_log }, self.machine_id(), &facts);
        let whole = facts.iter().map(|fact| fact.id).collect();
        let begin: Begin = match decision {
            Decision::FirstStart => {
                (AgentRecord::first(self.machine_id()), Some(ResyncReason::Initial), whole)
            }
            Decision::CleanResume(record) => {
                let reason = record.is_resync_open.then_some(ResyncReason::UncleanStop);
                (record, reason, Vec::new())
            }
            Decision::UncleanStop(record) => (record, Some(ResyncReason::UncleanStop), Vec::new()),
            Decision::Untracked(record, changed) => (record, Some(ResyncReason::Untracked), changed),
            Decision::Refuse(why) => {
                c.say(usize::from(self.host), || format!("refuses to start: {why}"));
                return None;
            }
        };
        let counter = self.write_both(c, next, &begin)?;
        Some((self.make_start(c, begin, spill_files, spilled), counter))
    }

    /// After a start that is not clean both slots are written before anything else.
    fn write_both(&mut self, c: &mut Common, next: u64, (record, reason, _): &Begin) -> Option<u64> {
        if reason.is_none() {
            return Some(next - 1);
        }
        for counter in [next, next + 1] {
            if !self.directory.write() {
                return None;
            }
            self.record.write(Slot::Valid(counter, record.clone()));
            if !self.directory.sync(&mut c.dice) {
                return None;
            }
            self.record.synced();
        }
        Some(next + 1)
    }

    fn make_start(
        &mut self,
        c: &mut Common,
        (record, mut reason, whole): Begin,
        spill_files: Vec<(u64, u64)>,
        spilled: Vec<(SealedMeta, SpillPlace)>,
    ) -> AgentStart {
        if !spilled.is_empty() {
            c.marks.insert("spill-recovered");
        }
        let mut volumes = Vec::new();
        for index in 0..self.disks.len() {
            let id = self.volume_id(index);
            let is_whole = whole.contains(&id);
            let log =
                if is_whole { Err(LogError::Header) } else { decode_file(id, self.logs[index].bytes()) };
            let marks = record.start_marks(is_whole, log);
            if !matches!(marks, StartMarks::Clean { .. }) {
                reason = reason.or(Some(ResyncReason::Untracked));
            }
            let sectors = Sectors(self.disks[index].sectors());
            volumes.push(VolumeStart { index: VolumeIndex(index as u16), id, sectors, marks });
        }
        c.say(usize::from(self.host), || {
            format!(
                "starts in generation {}, {} batches spilled, {reason:?}",
                record.generation,
                spilled.len()
            )
        });
        let ledger = Arc::clone(&c.truths[self.truth()].ledger);
        AgentStart {
            machine: self.machine_id(),
            record,
            resync: reason,
            volumes,
            spill_files,
            spilled,
            limits: self.settings.limits,
            in_flight_bytes_max: IN_FLIGHT_BYTES,
            marker_interval: (!self.is_copy).then_some(self.settings.points),
            sealer: Box::new(move |batch, prev| lock(&ledger).seal(batch, prev)),
        }
    }

    fn run_machine(&mut self, c: &mut Common, (start, state_counter): (AgentStart, u64)) {
        let machine = AgentMachine::start(c.instant(), start);
        let link = Link::new(self.settings.servers.len(), c.dice.next());
        self.process = Some(Box::new(Process {
            machine,
            link,
            effects: Vec::new(),
            link_effects: Vec::new(),
            outgoing: VecDeque::new(),
            connection: None,
            stopped_at: None,
            ops: Vec::new(),
            free_ops: Vec::new(),
            cooling: 0,
            spill_work: VecDeque::new(),
            spilling: None,
            has_spill_failed: false,
            is_state_wanted: false,
            state_counter,
            saving: None,
            persists: VecDeque::new(),
            logging: None,
            is_serving: false,
            is_stopping: false,
            stop_until: 0,
            jobs: Vec::new(),
            due_marker: None,
        }));
        self.step(c, AgentEvent::Tick);
    }

    /// While it settles: serves once record and logs are durable; gives up if one of them cannot be written.
    pub(super) fn look_whether_ready(&mut self, c: &mut Common, is_ok: bool) {
        let Some(process) = &mut self.process else { return };
        if process.is_serving {
            return;
        }
        if !is_ok {
            self.end(c);
            self.run += 1;
            c.after(START_AGAIN, self.work(AgentWork::Start));
            return;
        }
        let is_busy = process.saving.is_some()
            || process.logging.is_some()
            || process.is_state_wanted
            || !process.persists.is_empty();
        if is_busy || !process.machine.is_ready() {
            return;
        }
        process.is_serving = true;
        let beat = c.dice.below(TICK);
        c.after(beat, self.work(AgentWork::Tick));
        c.after(COOL_EVERY, self.work(AgentWork::Cool));
        c.say(usize::from(self.host), || "serves".to_owned());
        if !self.is_copy {
            self.start_guests(c);
        }
    }

    fn start_guests(&mut self, c: &mut Common) {
        let plan = self.settings.guest.clone();
        let Some(process) = &mut self.process else { return };
        process.jobs = Job::all(&plan, self.disks.len(), self.starts);
        let jobs = process.jobs.len() as u16;
        for job in 0..jobs {
            c.after(MILLI, self.work(AgentWork::Guest(job)));
        }
    }

    /// The process ends without a word; disks and files stay as they are.
    pub(in crate::core_tier) fn end(&mut self, c: &mut Common) {
        self.drop_ops(c);
        let Some(mut process) = self.process.take() else { return };
        self.run += 1;
        // What was being written may have reached the files.
        if let Some(slot) = process.saving.take().filter(|_| c.dice.coin()) {
            self.record.write(slot);
        }
        if let Some((volume, persist)) = process.logging.take().filter(|_| c.dice.coin()) {
            self.logs[usize::from(volume.0)].write(&persist);
        }
        if let Some(number) = process.connection.take() {
            c.net.connections[number as usize].is_agent_open = false;
            if c.hosts[usize::from(self.host)].is_powered {
                c.send(number, true, None);
            }
        }
    }

    /// The power is gone: what was not durable may be lost.
    pub(in crate::core_tier) fn lose_power(&mut self, c: &mut Common) {
        for disk in &mut self.disks {
            if disk.lose_power(&mut c.dice) > 0 {
                c.marks.insert("unflushed-sectors-lost");
            }
        }
        self.record.lose_power(&mut c.dice);
        self.logs.iter_mut().for_each(|log| log.lose_power(&mut c.dice));
        self.spill.lose_power(&mut c.dice);
        self.is_stopped_clean = false;
    }

    /// A clean stop begins.
    pub(in crate::core_tier) fn stop(&mut self, c: &mut Common) {
        let Some(process) = &mut self.process else { return };
        process.is_stopping = true;
        process.stop_until = c.now + STOP_DEADLINE;
        self.link_step(c, LinkEvent::Stop);
        self.go_on_stopping(c);
    }

    pub(super) fn go_on_stopping(&mut self, c: &mut Common) {
        self.step(c, AgentEvent::SessionDown);
        let can = |this: &AgentHost| this.process.as_ref().is_some_and(|p| p.machine.can_stop_clean());
        if can(self) {
            self.cool(c, false);
            self.step(c, AgentEvent::Stop);
            let wanted = |this: &AgentHost| Some(this.process.as_ref()?.machine.fingerprints_wanted());
            for volume in wanted(self).unwrap_or_default() {
                let digest = fingerprint(&self.disks[usize::from(volume.0)]);
                self.step(c, AgentEvent::Fingerprint { volume, digest });
            }
        }
        let Some(process) = &self.process else { return };
        let is_over = process.machine.is_stopped() || c.now >= process.stop_until;
        if is_over || !can(self) {
            let is_clean = process.machine.is_stopped();
            c.say(usize::from(self.host), || format!("stopped, clean: {is_clean}"));
            // Its guest is told that it is shutting down: what is under way ends first.
            self.is_stopped_clean = true;
            self.end(c);
            return;
        }
        let pause = sync_time(&c.flush, &mut c.dice) + 5 * MILLI;
        c.after(pause, self.work(AgentWork::Stop));
    }

    /// Somebody writes to a disk while no process holds it. Tells whether he did.
    pub(in crate::core_tier) fn edit(&mut self, c: &mut Common) -> bool {
        if self.process.is_some() {
            return false;
        }
        let volume = c.dice.below(self.disks.len() as u64) as usize;
        let page = c.dice.below(self.disks[volume].cells().len() as u64);
        let truth = self.truth();
        let log = &mut c.truths[truth].guest.log;
        let op = log.submit(volume as u16, OpKind::Write, Some(Extent::new(page, 1)));
        self.disks[volume].edit(page as usize, op);
        log.acknowledge(op);
        true
    }

    /// Copies disks and files into another host.
    pub(in crate::core_tier) fn copy(&self, host: u16) -> AgentHost {
        let mut copy = AgentHost::new(host, self.settings.clone(), self.disks.clone());
        copy.record = self.record.clone();
        copy.logs.clone_from(&self.logs);
        copy.spill = self.spill.clone();
        copy.is_copy = true;
        copy
    }
}

/// Returns a digest of what a disk shows.
fn fingerprint(disk: &Disk) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for cell in disk.cells() {
        hasher.update(&cell.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Returns the entries up to the first that does not follow the one before it, as a scan uses them.
fn follow(found: impl Iterator<Item = (SealedMeta, SpillPlace)>) -> Vec<(SealedMeta, SpillPlace)> {
    let mut used: Vec<(SealedMeta, SpillPlace)> = Vec::new();
    for (meta, place) in found {
        let is_next = used.last().is_none_or(|(last, _)| {
            last.last.next() == meta.first || meta.first > last.last && meta.flags.starts_resync()
        });
        if !is_next {
            break;
        }
        used.push((meta, place));
    }
    used
}
