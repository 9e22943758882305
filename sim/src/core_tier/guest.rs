//! Guests: what the jobs of a machine do. The models of the full lab, in pages instead of sectors.
//!
//! What is *not* here: the reference model of what they did ([`crate::workload::log`]).

use super::agent::{AgentHost, GuestOp};
use super::common::Common;
use super::content::PAGE_SECTORS;
use super::dice::{Dice, MICRO, SECOND};
use super::event::{AgentWork, Event};
use crate::plan::GuestPlan;
use crate::workload::OpKind;
use redoubt_core::agent::AgentEvent;
use redoubt_core::splitter::Op;
use redoubt_core::{Extent, VolumeIndex};

/// Largest write, in pages: one full record.
const LARGEST: u64 = 256;
/// Pages at the start of a volume that take half of all writes, so that writes overlap.
const HOT: u64 = 16;
/// Some operations wait for the next multiple of this, so that jobs meet on the disk.
const MEETING: u64 = 40_000 * MICRO;
/// Pages on which they meet.
const MEETING_PAGES: u64 = 4;

/// What a job does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Mixed,
    Trickle,
    Large,
    Pages,
    /// Appends to a log durably, then writes a page of data.
    Database {
        is_logged: bool,
    },
}

/// One job of a guest.
pub(super) struct Job {
    dice: Dice,
    model: Model,
    pause: u64,
    volumes: std::ops::Range<u16>,
    /// The operation under way.
    pub(super) op: Option<GuestOp>,
    /// It waits for the others of its machine.
    is_meeting: bool,
    /// Pages it appended so far.
    appended: u64,
}

impl Job {
    /// Makes the jobs of a machine for one life of its process.
    pub(super) fn all(plan: &GuestPlan, volumes: usize, life: u32) -> Vec<Job> {
        let job = |number: u32, model, volumes, rate: u32, jobs: u32| Job {
            dice: Dice::new(plan.seed ^ u64::from(number + 1000 * life) << 40),
            model,
            pause: SECOND * u64::from(jobs) / u64::from(rate.max(1)),
            volumes,
            op: None,
            is_meeting: false,
            appended: 0,
        };
        let (all, model) = (volumes as u16, plan.model.as_str());
        let mut jobs = Vec::new();
        let mut rest = 0..all;
        let mut usual = match model {
            "trickle" => Model::Trickle,
            "large" => Model::Large,
            "pages" => Model::Pages,
            _ => Model::Mixed,
        };
        if model == "database" {
            jobs.push(job(999, Model::Database { is_logged: false }, 0..1, plan.rate / 2 + 1, 1));
            rest = 1..all;
            usual = Model::Mixed;
        }
        if !rest.is_empty() {
            jobs.extend((0..plan.jobs).map(|number| job(number, usual, rest.clone(), plan.rate, plan.jobs)));
        }
        jobs
    }

    /// Draws the pause before the next operation.
    fn rest(&mut self, now: u64) -> u64 {
        let pause = self.pause / 2 + self.dice.below(self.pause.max(1));
        self.is_meeting =
            !matches!(self.model, Model::Database { .. } | Model::Pages) && self.dice.below(3) == 0;
        if self.is_meeting { pause + MEETING - (now + pause) % MEETING } else { pause }
    }

    fn pages(&mut self, room: u64) -> (u64, u64) {
        if self.is_meeting {
            let first = self.dice.below(MEETING_PAGES.min(room));
            return (first, 1 + self.dice.below(MEETING_PAGES.min(room) - first));
        }
        let largest = LARGEST.min(room / 2).max(1);
        let bound = match (self.model, self.dice.below(100)) {
            (Model::Trickle | Model::Pages, _) => 1,
            (Model::Large, 0..60) => largest,
            (_, 0..30) => 1,
            (_, 30..75) => 2,
            (_, 75..95) => 16,
            (_, 95..98) => 64,
            _ => largest,
        };
        let pages = 1 + self.dice.below(bound.min(largest));
        let span = if self.model != Model::Pages && self.dice.coin() { HOT.min(room) } else { room };
        (self.dice.below(span).min(room - pages), pages)
    }

    /// Draws an operation: what it is, and its pages. None is a flush, a read if it has no kind.
    fn draw(&mut self, room: u64) -> (&'static str, Option<OpKind>, (u64, u64), bool) {
        match &mut self.model {
            Model::Pages => ("write", Some(OpKind::Write), (self.dice.below(room), 1), false),
            Model::Database { is_logged } => {
                *is_logged = !*is_logged;
                let half = (room / 2).max(1);
                if !*is_logged {
                    let page = half.min(room - 1) + self.dice.below((room - half).max(1));
                    return ("write", Some(OpKind::Write), (page.min(room - 1), 1), false);
                }
                self.appended += 1;
                ("write", Some(OpKind::Write), (self.appended % half, 1), true)
            }
            _ => {
                let pages = self.pages(room);
                match self.dice.below(200) {
                    0..10 => ("flush", None, pages, false),
                    10..20 => ("zero", Some(OpKind::Zero), pages, false),
                    20..28 => ("trim", Some(OpKind::Zero), pages, false),
                    draw => ("write", Some(OpKind::Write), pages, draw < 56),
                }
            }
        }
    }
}

impl AgentHost {
    /// A job acts: it submits its next operation.
    pub(super) fn act(&mut self, c: &mut Common, number: u16) {
        if c.is_quiet {
            return;
        }
        let truth = usize::from(self.settings.machine);
        // A stop that has begun takes no operation any more.
        let Some(process) = self.process.as_mut().filter(|process| !process.is_stopping) else { return };
        let job = &mut process.jobs[usize::from(number)];
        let volumes = job.volumes.clone();
        let volume = volumes.start + job.dice.below(u64::from(volumes.end - volumes.start)) as u16;
        let size = self.disks[usize::from(volume)].sectors() / PAGE_SECTORS;
        let (what, kind, (page, pages), fua) = job.draw(size);
        let began = c.now;
        let io = process.machine.next_io();
        let Some(kind) = kind else {
            process.jobs[usize::from(number)].op = Some(GuestOp { io, number: 0, volume, what, began });
            return self.begin_flush(c, volume, number);
        };
        // The reference model counts in pages.
        let op = c.truths[truth].guest.log.submit(volume, kind, Some(Extent::new(page, pages)));
        process.jobs[usize::from(number)].op = Some(GuestOp { io, number: op, volume, what, began });
        let extent = Extent::new(page * PAGE_SECTORS, pages * PAGE_SECTORS);
        let op = match what {
            "zero" => Op::WriteZeroes { extent, fua: false, may_unmap: true },
            "trim" => Op::Trim { extent },
            _ => Op::Write { extent, fua },
        };
        self.step(c, AgentEvent::Submit { volume: VolumeIndex(volume), io, op });
    }

    /// A guest's operation ended: the job goes on after its pause.
    pub(super) fn answer(&mut self, c: &mut Common, job: Option<u16>, error: Option<&str>) {
        let Some(number) = job else { return };
        let truth = usize::from(self.settings.machine);
        let Some(process) = &mut self.process else { return };
        let job = &mut process.jobs[usize::from(number)];
        let Some(op) = job.op.take() else { return };
        let rest = job.rest(c.now);
        let guest = &mut c.truths[truth].guest;
        if op.number > 0 && error.is_none() {
            guest.log.acknowledge(op.number);
        }
        guest.notice(c.now, op.volume, op.what, c.now - op.began, error);
        c.after(rest, Event::Agent(self.host, self.run, AgentWork::Guest(number)));
    }
}
