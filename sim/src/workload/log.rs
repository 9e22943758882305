//! The reference model: per machine, what the guest submitted and when it was acknowledged.
//!
//! Time here is a counter of the guest's own events (`tick`): a submission or an acknowledgement takes
//! the next number. "A was acknowledged before B was submitted" is `A.ack < B.submit`; nothing else
//! orders two operations.
//!
//! After an unclean stop nobody knows what became of operations under way, and a volatile cache may
//! have lost acknowledged ones that were not flushed. The surviving bytes, read from the device
//! itself, are the *base* of a new epoch.

use super::stamp::Seen;
use redoubt_core::Extent;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// New stamped content.
    Write,
    /// Zeros, by write-zeroes or trim.
    Zero,
    /// New size in sectors; the extent is what a shrink cuts off, if any.
    Resize(u64),
}

/// One operation of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Number, counted from 1; the index in the log plus one.
    pub id: u64,
    /// Ordinal of the volume.
    pub volume: u16,
    /// What it does.
    pub kind: OpKind,
    /// Sectors whose content it sets.
    pub extent: Option<Extent>,
    /// Tick of submission.
    pub submit: u64,
    /// Tick of acknowledgement; none if it failed or never came.
    pub ack: Option<u64>,
}

/// The state from which an epoch starts: per volume, what each sector holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Tick at which it was read.
    pub tick: u64,
    /// Per volume, per sector.
    pub volumes: Vec<Vec<Seen>>,
}

/// A request for a recovery point: the cut lies between the two ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tick before which acknowledged operations must be contained.
    pub asked: u64,
    /// Tick after which submitted operations must not be contained.
    pub done: u64,
}

/// Everything one machine's guest did.
#[derive(Clone, Debug, Default)]
pub struct MachineLog {
    /// Number of the machine in the estate.
    pub machine: u16,
    tick: u64,
    ops: Vec<Op>,
    bases: Vec<Base>,
}

impl MachineLog {
    /// Makes the log of a machine whose disks start as zeros.
    pub fn new(machine: u16, sectors: &[u64]) -> MachineLog {
        let volumes = sectors.iter().map(|count| vec![Seen::Zero; *count as usize]).collect();
        MachineLog { machine, tick: 0, ops: Vec::new(), bases: vec![Base { tick: 0, volumes }] }
    }

    /// Returns the next tick.
    pub fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// Records a submission; returns the operation's number.
    pub fn submit(&mut self, volume: u16, kind: OpKind, extent: Option<Extent>) -> u64 {
        let submit = self.tick();
        let id = self.ops.len() as u64 + 1;
        self.ops.push(Op { id, volume, kind, extent, submit, ack: None });
        id
    }

    /// Records an acknowledgement.
    pub fn acknowledge(&mut self, id: u64) {
        let tick = self.tick();
        self.ops[id as usize - 1].ack = Some(tick);
    }

    /// Starts a new epoch from what the disks hold.
    pub fn rebase(&mut self, volumes: Vec<Vec<Seen>>) {
        let tick = self.tick();
        self.bases.push(Base { tick, volumes });
    }

    /// Returns how many bytes were written, zeros not counted.
    pub fn written_bytes(&self) -> u64 {
        let writes = self.ops.iter().filter(|op| op.kind == OpKind::Write);
        writes.filter_map(|op| Some(op.extent?.bytes())).sum()
    }

    /// Returns the number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Tells whether nothing was submitted yet.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns an operation by number.
    pub fn op(&self, id: u64) -> Option<&Op> {
        self.ops.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// Returns the epoch that holds a tick: its base and its operations in order of submission.
    pub fn epoch(&self, tick: u64) -> (&Base, &[Op]) {
        let index = self.bases.partition_point(|base| base.tick < tick.max(1)) - 1;
        let base = &self.bases[index];
        let end = self.bases.get(index + 1).map_or(u64::MAX, |next| next.tick);
        let first = self.ops.partition_point(|op| op.submit < base.tick);
        let last = self.ops.partition_point(|op| op.submit < end);
        (base, &self.ops[first..last])
    }

    /// Returns the last tick of the epoch that holds a tick.
    pub fn epoch_end(&self, tick: u64) -> u64 {
        self.bases.iter().map(|base| base.tick).find(|base| *base > tick).unwrap_or(u64::MAX)
    }

    /// Returns the current tick without taking one.
    pub fn now(&self) -> u64 {
        self.tick
    }
}
