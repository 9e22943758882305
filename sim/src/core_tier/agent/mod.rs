//! A machine's host at this tier: disks, state directory, and the process with the agent's machine and its link.
//!
//! This is what the async shell of the agent does, without waiting: each effect becomes an event of the heap, whose
//! end is stepped back into the machine.
//!
//! Parts: operations of disks (`ops`), record, logs and spill (`files`), the link (`link`), starts and ends (`start`).
//!
//! What is *not* here: decisions (`core::agent`, `core::link`), what guests do ([`super::guest`]).

mod files;
mod link;
mod ops;
mod start;

pub(super) use ops::GuestOp;

use super::common::Common;
use super::dice::{MILLI, SECOND};
use super::disk::Disk;
use super::event::{AgentWork, Event};
use super::files::{Directory, LogFile, RecordFile, SpillDirectory};
use super::guest::Job;
use crate::plan::GuestPlan;
use ops::DiskOp;
use redoubt_core::agent::{AgentEffect, AgentEvent, AgentMachine, Note};
use redoubt_core::agent_state::Slot;
use redoubt_core::extent_map::Persist;
use redoubt_core::link::{Link, LinkEffect};
use redoubt_core::message::{HashRequest, MarksRequest};
use redoubt_core::spool::{SpillWork, SpoolLimits};
use redoubt_core::{Marker, MarkerId, MarkerKind, SealedBatch, VolumeIndex, WallTime};
use std::collections::VecDeque;
use std::time::Duration;

/// Beat of the machine, as in the agent's shell.
pub(super) const TICK: u64 = 25 * MILLI;
/// How often extents are cooled, as in the agent's shell.
pub(super) const COOL_EVERY: u64 = 5 * SECOND;
/// How late a planted bug gives a write its place.
const PLANTED_DELAY: u64 = 2 * SECOND;

/// What an agent is told.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) machine: u16,
    pub(super) limits: SpoolLimits,
    pub(super) points: Duration,
    pub(super) servers: Vec<u16>,
    pub(super) guest: GuestPlan,
}

/// A machine's host.
pub(super) struct AgentHost {
    pub(super) host: u16,
    pub(super) settings: Settings,
    /// Number of the process; events of older ones are nobody's.
    pub(super) run: u32,
    pub(super) disks: Vec<Disk>,
    pub(super) directory: Directory,
    record: RecordFile,
    logs: Vec<LogFile>,
    spill: SpillDirectory,
    pub(super) process: Option<Box<Process>>,
    /// It runs beside the machine it is a copy of, and has no guest.
    pub(super) is_copy: bool,
    pub(super) starts: u32,
    /// The last end was a clean stop.
    is_stopped_clean: bool,
}

enum Outgoing {
    Batch(SealedBatch),
    Ask(HashRequest),
    AskMarks(MarksRequest),
    Close(&'static str),
}

/// The process on a machine's host.
pub(super) struct Process {
    pub(super) machine: AgentMachine,
    pub(super) link: Link,
    effects: Vec<AgentEffect>,
    link_effects: Vec<LinkEffect>,
    outgoing: VecDeque<Outgoing>,
    connection: Option<u32>,
    stopped_at: Option<u64>,
    ops: Vec<Option<DiskOp>>,
    free_ops: Vec<u32>,
    /// Flushes of the cooler that have not ended.
    cooling: u32,
    spill_work: VecDeque<SpillWork>,
    /// The sync or read under way.
    spilling: Option<SpillWork>,
    has_spill_failed: bool,
    is_state_wanted: bool,
    state_counter: u64,
    /// The record being written.
    saving: Option<Slot>,
    persists: VecDeque<(VolumeIndex, Persist)>,
    logging: Option<(VolumeIndex, Persist)>,
    /// Record and logs are durable: guests are served.
    is_serving: bool,
    pub(super) is_stopping: bool,
    stop_until: u64,
    pub(super) jobs: Vec<Job>,
    due_marker: Option<MarkerKind>,
}

impl AgentHost {
    pub(super) fn new(host: u16, settings: Settings, disks: Vec<Disk>) -> AgentHost {
        let logs = disks.iter().map(|_| LogFile::default()).collect();
        AgentHost {
            host,
            settings,
            run: 0,
            disks,
            directory: Directory::default(),
            record: RecordFile::new(),
            logs,
            spill: SpillDirectory::default(),
            process: None,
            is_copy: false,
            starts: 0,
            is_stopped_clean: false,
        }
    }

    fn truth(&self) -> usize {
        usize::from(self.settings.machine)
    }

    fn work(&self, work: AgentWork) -> Event {
        Event::Agent(self.host, self.run, work)
    }

    /// Something of this process is due.
    pub(super) fn on_work(&mut self, c: &mut Common, work: AgentWork) {
        match work {
            AgentWork::Start => self.start(c),
            AgentWork::Tick => self.on_tick(c),
            AgentWork::Cool => self.cool(c, true),
            AgentWork::Guest(job) => self.act(c, job),
            AgentWork::Disk(slot) => self.disk_ended(c, slot),
            AgentWork::Late(slot) => self.late(c, slot),
            AgentWork::State => self.state_written(c),
            AgentWork::Log => self.log_written(c),
            AgentWork::Spill => self.spilled(c),
            AgentWork::Stop => self.go_on_stopping(c),
        }
        self.look_around(c);
    }

    fn on_tick(&mut self, c: &mut Common) {
        if self.process.is_none() {
            return;
        }
        self.step(c, AgentEvent::Tick);
        self.tick_link(c);
        c.after(TICK, self.work(AgentWork::Tick));
    }

    /// Takes one step of the machine and performs its effects. Inlined, so that an event is not copied on its way.
    #[inline]
    pub(super) fn step(&mut self, c: &mut Common, event: AgentEvent) {
        let Some(process) = &mut self.process else { return };
        let mut effects = std::mem::take(&mut process.effects);
        c.steps.agent += 1;
        process.machine.step(c.instant(), event, &mut effects);
        self.follow_up(c, effects);
    }

    fn follow_up(&mut self, c: &mut Common, mut effects: Vec<AgentEffect>) {
        for effect in effects.drain(..) {
            self.perform(c, effect);
        }
        let Some(process) = &mut self.process else { return };
        process.effects = effects;
        // Another step: its effects come behind all of this one's.
        if let Some(kind) = process.due_marker.take() {
            self.cut(c, kind);
        }
    }

    fn perform(&mut self, c: &mut Common, effect: AgentEffect) {
        let Some(process) = &mut self.process else { return };
        match effect {
            AgentEffect::Start { volume, io, op } => self.begin(c, volume, io, op),
            AgentEffect::Complete { io, result } => {
                if let Err(failure) = result {
                    self.refused(c, io, failure);
                }
            }
            AgentEffect::Persist { volume, persist } => {
                process.persists.push_back((volume, persist));
                self.write_log(c);
            }
            AgentEffect::WriteState => {
                process.is_state_wanted = true;
                self.write_state(c);
            }
            AgentEffect::Spill(work) => {
                process.spill_work.push_back(work);
                self.spill(c);
            }
            AgentEffect::Send(batch) => process.outgoing.push_back(Outgoing::Batch(batch)),
            AgentEffect::AskHashes(request) => process.outgoing.push_back(Outgoing::Ask(request)),
            AgentEffect::AskMarks(request) => process.outgoing.push_back(Outgoing::AskMarks(request)),
            AgentEffect::CloseSession(why) => process.outgoing.push_back(Outgoing::Close(why)),
            AgentEffect::MarkerDue(kind) => process.due_marker = Some(kind),
            AgentEffect::MarkerCut { marker, seq } => {
                c.say(usize::from(self.host), || format!("cuts marker {} at sequence {seq}", marker.id.0));
            }
            AgentEffect::Note(note) => self.note(c, note),
        }
    }

    /// Cuts a marker and records between which moments. Returns its identity if it got its place.
    pub(super) fn cut(&mut self, c: &mut Common, kind: MarkerKind) -> Option<MarkerId> {
        let process = self.process.as_ref()?;
        if process.is_stopping || !process.is_serving || !process.machine.can_mark() || self.is_copy {
            return None;
        }
        c.markers += 1;
        let marker = Marker { id: MarkerId(c.markers), kind, wall: WallTime(c.now / MILLI) };
        let (id, truth) = (marker.id, self.truth());
        let before = process.machine.watermarks().issued();
        let asked = c.truths[truth].guest.log.tick();
        self.step(c, AgentEvent::CutMarker(marker));
        let guest = &mut c.truths[truth].guest;
        let done = guest.log.tick();
        guest.cuts.insert(id, crate::workload::Cut { asked, done });
        let process = self.process.as_ref()?;
        (process.machine.watermarks().issued() > before).then_some(id)
    }

    fn note(&mut self, c: &mut Common, note: Note) {
        c.say(usize::from(self.host), || format!("{note:?}"));
        let losses = &mut c.truths[self.truth()].guest.losses;
        match note {
            Note::Fork => losses.forks += 1,
            Note::StageLost => losses.stage_losses += 1,
            Note::OrderLost => {
                c.marks.insert("overflowed");
            }
            Note::ResyncEnded(_) => {
                c.marks.insert("resync-done");
            }
            Note::LogGivenUp { .. } => {
                c.marks.insert("activity-log-given-up");
            }
            Note::MarksDisowned => {
                c.marks.insert("marks-disowned");
            }
            Note::MarksVoid => {
                c.marks.insert("marks-void");
            }
            Note::VaultWentBack { .. } => {
                c.marks.insert("vault-went-back-told");
            }
            Note::LogFailing(_) => {
                c.marks.insert("activity-log-failed");
            }
            _ => {}
        }
    }

    /// Tells whether everything this agent has is on its way in order, and nothing waits in files.
    pub(super) fn is_settled(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let machine = &process.machine;
            machine.is_promised() && machine.has_session() && machine.spool_bytes().1 == 0
        })
    }

    /// Tells whether no operation of a guest is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.pending().next().is_none()
    }

    /// Returns the operations of the guest that are under way.
    pub(super) fn pending(&self) -> impl Iterator<Item = GuestOp> {
        self.process.iter().flat_map(|process| process.jobs.iter().filter_map(|job| job.op))
    }
}
