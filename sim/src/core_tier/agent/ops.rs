//! Operations of a machine's disks: those of its guest, and the reads of the agent itself.

use super::super::common::{Common, lock};
use super::super::content::Cell;
use super::super::disk::pages;
use super::super::event::AgentWork;
use super::{AgentHost, PLANTED_DELAY};
use redoubt_core::agent::AgentEvent;
use redoubt_core::extent_map::{BLOCK_SECTORS, FlushToken};
use redoubt_core::planted;
use redoubt_core::resync::{Content, RunRead};
use redoubt_core::splitter::{IoFailure, IoId, Op};
use redoubt_core::{Extent, VolumeIndex};

/// An operation of a guest while it is under way.
#[derive(Clone, Copy, Debug)]
pub(in crate::core_tier) struct GuestOp {
    pub(in crate::core_tier) io: IoId,
    /// Its number in the reference model; zero if it changes nothing.
    pub(in crate::core_tier) number: u64,
    pub(in crate::core_tier) volume: u16,
    pub(in crate::core_tier) what: &'static str,
    pub(in crate::core_tier) began: u64,
}

/// What a disk is doing.
pub(super) enum DiskOp {
    /// A change of the guest; the job, and what its pages become.
    Change { volume: u16, io: IoId, op: Op, job: Option<u16>, cell: Cell },
    /// A read of a failed write's sectors or of a resync; what it found.
    Read { volume: u16, io: IoId, extent: Extent, cells: Box<[Cell]>, digests: Option<bool> },
    /// A flush of the guest.
    Flush { volume: u16, job: u16, covers: u64 },
    /// A flush of the cooler.
    Cool { volume: u16, token: FlushToken, covers: u64 },
    /// A planted bug: the guest was answered, the stamp follows.
    Late(u16, IoId, bytes::Bytes),
}

fn whole(extent: Extent) -> u64 {
    extent.bytes()
}

impl AgentHost {
    fn put_op(&mut self, op: DiskOp) -> u32 {
        let Some(process) = &mut self.process else { return 0 };
        match process.free_ops.pop() {
            Some(slot) => {
                process.ops[slot as usize] = Some(op);
                slot
            }
            None => {
                process.ops.push(Some(op));
                process.ops.len() as u32 - 1
            }
        }
    }

    fn take_op(&mut self, slot: u32) -> Option<DiskOp> {
        let process = self.process.as_mut()?;
        process.free_ops.push(slot);
        process.ops[slot as usize].take()
    }

    /// Asks for the end of an operation.
    fn serve(&mut self, c: &mut Common, volume: u16, time: u64, op: DiskOp) {
        let at = (c.now + time).max(self.disks[usize::from(volume)].hang_until);
        let slot = self.put_op(op);
        c.heap.push(at, self.work(AgentWork::Disk(slot)));
    }

    /// The machine lets an operation begin.
    pub(super) fn begin(&mut self, c: &mut Common, index: VolumeIndex, io: IoId, op: Op) {
        let volume = index.0;
        match op {
            Op::Write { extent, .. } | Op::WriteZeroes { extent, .. } | Op::Trim { extent } => {
                let (job, number) = self.owner(io);
                let cell = if matches!(op, Op::Write { .. }) { number } else { 0 };
                self.disks[usize::from(volume)].apply_half(pages(extent), cell, 0);
                let time = c.disk.write(&mut c.dice, whole(extent));
                self.serve(c, volume, time, DiskOp::Change { volume, io, op, job, cell });
            }
            Op::ResyncRead { extent } | Op::Recapture { extent } => {
                let is_resync = matches!(op, Op::ResyncRead { .. });
                let wants = self.process.as_ref().is_some_and(|p| p.machine.wants_digests(index, extent));
                let disk = self.disks[usize::from(volume)].cells();
                let cells: Box<[Cell]> = disk[pages(extent)].into();
                let time = c.disk.read(&mut c.dice, whole(extent));
                let digests = is_resync.then_some(wants);
                self.serve(c, volume, time, DiskOp::Read { volume, io, extent, cells, digests });
            }
            // No plan changes a size, and flushes go past the splitter.
            Op::Resize { .. } | Op::Flush => {}
        }
    }

    /// Returns the job and the number of a guest's operation.
    fn owner(&self, io: IoId) -> (Option<u16>, u64) {
        let jobs = self.process.as_ref().map(|process| &process.jobs[..]).unwrap_or_default();
        let found = jobs.iter().enumerate().find_map(|(job, state)| {
            let op = state.op.filter(|op| op.io == io)?;
            Some((Some(job as u16), op.number))
        });
        found.unwrap_or((None, 0))
    }

    /// A flush of the guest begins; it goes past the splitter, as in the agent's shell.
    pub(in crate::core_tier) fn begin_flush(&mut self, c: &mut Common, volume: u16, job: u16) {
        if let Some(process) = &mut self.process {
            process.machine.guest_flush_begun(VolumeIndex(volume));
        }
        let covers = self.disks[usize::from(volume)].flush_begun();
        let time = c.disk.flush(&mut c.dice);
        self.serve(c, volume, time, DiskOp::Flush { volume, job, covers });
    }

    pub(super) fn begin_cool_flush(&mut self, c: &mut Common, volume: u16, token: FlushToken) {
        let covers = self.disks[usize::from(volume)].flush_begun();
        let time = c.disk.flush(&mut c.dice);
        self.serve(c, volume, time, DiskOp::Cool { volume, token, covers });
    }

    pub(super) fn disk_ended(&mut self, c: &mut Common, slot: u32) {
        match self.take_op(slot) {
            Some(DiskOp::Change { volume, io, op, job, cell }) => {
                self.change_ended(c, (volume, io), op, job, cell);
            }
            Some(DiskOp::Read { volume, io, extent, cells, digests }) => {
                self.read_ended(c, (volume, io), extent, &cells, digests);
            }
            Some(DiskOp::Flush { volume, job, covers }) => self.flush_ended(c, volume, job, covers),
            Some(DiskOp::Cool { volume, token, covers }) => {
                let is_ok = self.flush_result(c, volume, covers);
                let volume = VolumeIndex(volume);
                let event = if is_ok {
                    AgentEvent::Flushed { volume, token }
                } else {
                    AgentEvent::FlushFailed { volume, is_told: false }
                };
                self.step(c, event);
                self.cool_flush_ended(c);
            }
            Some(DiskOp::Late(..)) | None => {}
        }
    }

    fn change_ended(
        &mut self,
        c: &mut Common,
        (volume, io): (u16, IoId),
        op: Op,
        job: Option<u16>,
        cell: Cell,
    ) {
        let Some(extent) = op.changes() else { return };
        let (disk, index) = (&mut self.disks[usize::from(volume)], VolumeIndex(volume));
        let is_durable = matches!(op, Op::Write { fua: true, .. } | Op::WriteZeroes { fua: true, .. });
        if c.dice.happens(disk.errors.write) {
            disk.apply_some(pages(extent), cell, &mut c.dice);
            c.marks.insert("guest-saw-disk-error");
            if is_durable {
                self.step(c, AgentEvent::FlushFailed { volume: index, is_told: true });
            }
            let result = Err(IoFailure::Device);
            self.step(c, AgentEvent::Done { volume: index, io, result, payload: None });
            return self.answer(c, job, Some("the disk failed"));
        }
        disk.apply_half(pages(extent), cell, 1);
        if is_durable {
            disk.harden(pages(extent));
        }
        let is_write = matches!(op, Op::Write { .. });
        let payload = is_write.then(|| lock(&c.truths[self.truth()].ledger).written(cell, extent));
        if let (true, Some(payload)) = (planted::is_order_late(&op), &payload) {
            let slot = self.put_op(DiskOp::Late(volume, io, payload.clone()));
            c.after(PLANTED_DELAY, self.work(AgentWork::Late(slot)));
            return self.answer(c, job, None);
        }
        // The stamp and the acknowledgement are one step.
        self.step(c, AgentEvent::Done { volume: index, io, result: Ok(()), payload });
        self.answer(c, job, None);
    }

    /// The planted bugs that answer before the write has its place.
    pub(super) fn late(&mut self, c: &mut Common, slot: u32) {
        if let Some(DiskOp::Late(volume, io, payload)) = self.take_op(slot) {
            let (volume, payload) = (VolumeIndex(volume), Some(payload));
            self.step(c, AgentEvent::Done { volume, io, result: Ok(()), payload });
        }
    }

    fn read_ended(
        &mut self,
        c: &mut Common,
        (volume, io): (u16, IoId),
        extent: Extent,
        cells: &[Cell],
        digests: Option<bool>,
    ) {
        let fails = c.dice.happens(self.disks[usize::from(volume)].errors.read);
        if fails {
            c.marks.insert("engine-read-failed");
        }
        let volume = VolumeIndex(volume);
        let payload = || lock(&c.truths[self.truth()].ledger).read(cells);
        let event = match digests {
            None => {
                let result = if fails { Err(IoFailure::Device) } else { Ok(()) };
                AgentEvent::Done { volume, io, result, payload: (!fails).then(payload) }
            }
            Some(_) if fails => AgentEvent::ResyncRead { volume, io, result: Err(IoFailure::Device) },
            Some(_) if cells.iter().all(|cell| *cell == 0) => {
                AgentEvent::ResyncRead { volume, io, result: Ok(RunRead::hole(extent)) }
            }
            Some(with_digests) => {
                let read = RunRead { payload: payload(), contents: contents(cells, with_digests) };
                AgentEvent::ResyncRead { volume, io, result: Ok(read) }
            }
        };
        self.step(c, event);
    }

    fn flush_result(&mut self, c: &mut Common, volume: u16, covers: u64) -> bool {
        let disk = &mut self.disks[usize::from(volume)];
        let is_ok = !c.dice.happens(disk.errors.flush);
        disk.flushed(covers, is_ok);
        if !is_ok {
            c.marks.insert("flush-failed");
        }
        is_ok
    }

    fn flush_ended(&mut self, c: &mut Common, volume: u16, job: u16, covers: u64) {
        let is_ok = self.flush_result(c, volume, covers);
        if !is_ok {
            self.step(c, AgentEvent::FlushFailed { volume: VolumeIndex(volume), is_told: true });
        }
        let Some(process) = &mut self.process else { return };
        let owes = process.machine.guest_flush_ended(VolumeIndex(volume));
        let error = (!is_ok || owes).then_some("a flush failed");
        self.answer(c, Some(job), error);
    }

    /// The machine refused an operation of the guest before it began.
    pub(super) fn refused(&mut self, c: &mut Common, io: IoId, failure: IoFailure) {
        let (job, _) = self.owner(io);
        let has_begun =
            |op: &Option<DiskOp>| matches!(op, Some(DiskOp::Change { io: begun, .. }) if *begun == io);
        let is_begun = self.process.as_ref().is_some_and(|process| process.ops.iter().any(has_begun));
        // What the disk failed is answered where the disk says so.
        if job.is_some() && !is_begun && failure != IoFailure::Device {
            self.answer(c, job, Some("it was refused"));
        }
    }

    /// Ends whatever the disks are doing, as a crash does.
    pub(super) fn drop_ops(&mut self, c: &mut Common) {
        let Some(process) = &mut self.process else { return };
        for op in process.ops.drain(..).flatten() {
            if let DiskOp::Change { volume, op, cell, .. } = op
                && let Some(extent) = op.changes()
            {
                self.disks[usize::from(volume)].apply_some(pages(extent), cell, &mut c.dice);
            }
        }
    }
}

/// Looks at what was read, block by block.
fn contents(cells: &[Cell], with_digests: bool) -> Vec<Content> {
    let block = (BLOCK_SECTORS / super::super::content::PAGE_SECTORS) as usize;
    let content = |block: &[Cell]| {
        if block.iter().all(|cell| *cell == 0) {
            Content::Zeros
        } else {
            Content::Data(with_digests.then(|| super::super::content::digest(block)))
        }
    };
    cells.chunks(block).map(content).collect()
}
