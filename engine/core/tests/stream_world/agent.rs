//! The agent's process: spool, link, spill files, and the little that must survive a crash.

use super::disk::{Disk, Found, MACHINE, START, seal};
use super::{Bounds, Image, Sealed, Truth};
use redoubt_core::batch_file::SPILL_MAGIC;
use redoubt_core::link::{ConnectionId, Link, LinkEffect, LinkEvent};
use redoubt_core::message::{Hello, Message, PROTOCOL_VERSIONS, Welcome};
use redoubt_core::spool::{Resume, SpillWork, Spool, SpoolEffect, SpoolEvent, SpoolLimits};
use redoubt_core::{BatchPosition, Chain, Generation, Instant, SealedBatch, WriteSeq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Sequences reserved at once; a crash burns the rest.
const RESERVE: u64 = 64;
/// Largest batch the operations make.
const BATCH_MAX: u64 = 400;

#[derive(Debug)]
pub(crate) struct Agent {
    bounds: Bounds,
    spool: Spool,
    link: Link,
    pub(crate) newest: BatchPosition,
    next_seq: u64,
    resync_due: bool,
    /// Blocks that must be read again, and blocks whose newest batch is not known to be in the vault: the
    /// extent map, which survives a crash.
    dirty: BTreeSet<u8>,
    unvaulted: BTreeMap<u8, u64>,
    reserved: u64,
    generation: u64,
    disk: Disk,
    work: VecDeque<SpillWork>,
    work_failed: bool,
    appended: Vec<Chain>,
    synced: BTreeSet<Chain>,
    held: Vec<Chain>,
    pub(crate) spill_fails: bool,
    pub(crate) read_fails: bool,
    pub(crate) connect: Option<ConnectionId>,
    pub(crate) closed: Vec<ConnectionId>,
    pub(crate) outgoing: Vec<(ConnectionId, Message)>,
}

impl Agent {
    pub(crate) fn new(bounds: Bounds) -> Agent {
        Agent {
            bounds,
            spool: Spool::new(limits(bounds), 1),
            link: Link::new(1, 3),
            newest: START,
            next_seq: 1,
            resync_due: true,
            dirty: BTreeSet::new(),
            unvaulted: BTreeMap::new(),
            reserved: RESERVE,
            generation: 1,
            disk: Disk::new(SPILL_MAGIC),
            work: VecDeque::new(),
            work_failed: false,
            appended: Vec::new(),
            synced: BTreeSet::new(),
            held: Vec::new(),
            spill_fails: false,
            read_fails: false,
            connect: None,
            closed: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, now: Instant, truth: &mut Truth) {
        self.link(now, LinkEvent::Start, truth);
    }

    pub(crate) fn stop_faults(&mut self) {
        self.spill_fails = false;
        self.read_fails = false;
    }

    pub(crate) fn is_idle(&self) -> bool {
        let spool_is_idle = self.spool.range().is_none() && !self.spool.is_overflowing();
        spool_is_idle && !self.resync_due && self.dirty.is_empty()
    }

    pub(crate) fn check(&self, truth: &Truth) {
        let memory = self.spool.memory_bytes();
        assert!(memory <= 2 * self.bounds.memory + BATCH_MAX, "O-4: {memory} bytes in memory");
        let spill = self.spool.spill_bytes();
        assert!(spill <= self.bounds.spill, "O-4: {spill} bytes spilled");
        assert!(self.held.iter().all(|chain| truth.sealed.contains_key(chain)));
    }

    pub(crate) fn write(&mut self, now: Instant, block: u8, records: u64, extra: usize, truth: &mut Truth) {
        truth.versions += 1;
        truth.source.insert(block, truth.versions);
        self.dirty.insert(block);
        if self.resync_due {
            return self.seal_resync(now, truth);
        }
        let content = Image::from([(block, truth.versions)]);
        self.push(now, content, records, false, extra, truth);
    }

    pub(crate) fn seal_resync(&mut self, now: Instant, truth: &mut Truth) {
        if self.resync_due && !self.spool.is_overflowing() {
            let read = |block: &u8| truth.source.get(block).map(|version| (*block, *version));
            let content: Image = self.dirty.iter().filter_map(read).collect();
            self.push(now, content, 3, true, 40, truth);
        }
    }

    fn push(
        &mut self,
        now: Instant,
        content: Image,
        records: u64,
        opens: bool,
        extra: usize,
        truth: &mut Truth,
    ) {
        let first = self.next_seq;
        self.next_seq += records;
        while self.reserved < self.next_seq {
            self.reserved += RESERVE;
        }
        truth.versions += 1;
        let last = self.next_seq - 1;
        let batch = seal(self.generation, first, last, opens, self.newest.chain, extra, truth.versions);
        let sealed = Sealed { content: content.clone(), image: truth.source.clone() };
        truth.sealed.insert(batch.meta.chain, sealed);
        let before = self.newest;
        self.newest = batch.meta.position();
        let marked = (self.dirty.clone(), self.unvaulted.clone(), self.resync_due);
        for block in content.keys() {
            self.dirty.remove(block);
            self.unvaulted.insert(*block, last);
        }
        self.resync_due &= !opens;
        let mut effects = Vec::new();
        self.spool.step(SpoolEvent::Push(batch), &mut effects);
        let answers = effects.iter().filter(|e| matches!(e, SpoolEffect::Accepted | SpoolEffect::Refused));
        assert_eq!(answers.count(), 1, "O-4: a push is answered once, at once");
        if effects.contains(&SpoolEffect::Refused) {
            self.newest = before;
            (self.dirty, self.unvaulted, self.resync_due) = marked;
        }
        self.perform(now, effects, truth);
    }

    fn spool(&mut self, now: Instant, event: SpoolEvent, truth: &mut Truth) {
        let mut effects = Vec::new();
        self.spool.step(event, &mut effects);
        self.perform(now, effects, truth);
    }

    fn notice_forgotten(&mut self, truth: &Truth) {
        let held: Vec<Chain> = self.spool.held().iter().map(|meta| meta.chain).collect();
        for chain in self.held.iter().filter(|chain| !held.contains(chain)) {
            assert!(truth.ever_durable.contains(chain), "O-3: forgotten and never durable");
        }
        self.held = held;
    }

    fn abandon(&mut self, now: Instant, truth: &mut Truth) {
        let mut effects = Vec::new();
        self.spool.abandon(&mut effects);
        self.held.clear();
        self.resync_due = true;
        self.perform(now, effects, truth);
    }

    fn perform(&mut self, now: Instant, effects: Vec<SpoolEffect>, truth: &mut Truth) {
        self.notice_forgotten(truth);
        for effect in effects {
            match effect {
                SpoolEffect::Accepted | SpoolEffect::Refused | SpoolEffect::Overflow => {}
                SpoolEffect::Send(batch) => self.link(now, LinkEvent::Send(batch), truth),
                SpoolEffect::Drained => self.resync_due = true,
                SpoolEffect::Lost { first } => {
                    self.mark_from(first.0);
                    self.abandon(now, truth);
                }
                SpoolEffect::Spill(work) => self.work.push_back(work),
            }
        }
    }

    fn mark_from(&mut self, first: u64) {
        let marked = self.unvaulted.iter().filter(|(_, seq)| **seq >= first);
        self.dirty.extend(marked.map(|(block, _)| *block));
    }

    /// Performs one piece of work on the spill disk.
    pub(crate) fn spill_work(&mut self, now: Instant, truth: &mut Truth) {
        let Some(work) = self.work.pop_front() else { return };
        match work {
            SpillWork::Create { file } => self.disk.create(file),
            SpillWork::Append { place, bytes } => {
                self.work_failed |= std::mem::take(&mut self.spill_fails);
                if !self.work_failed {
                    let batch = SealedBatch { meta: super::disk::meta_of(&bytes), bytes };
                    self.disk.append(place.file, place.offset, &batch);
                    self.appended.push(batch.meta.chain);
                }
            }
            SpillWork::Sync { ticket } => {
                self.work_failed |= std::mem::take(&mut self.spill_fails);
                if std::mem::take(&mut self.work_failed) {
                    return self.spool(now, SpoolEvent::SpillFailed { ticket }, truth);
                }
                self.disk.sync();
                self.synced.extend(self.appended.drain(..));
                self.spool(now, SpoolEvent::SpillSynced { ticket }, truth);
            }
            SpillWork::Read { place, first } => {
                let bytes = self.disk.read(place.file, place.offset);
                let bytes = bytes.filter(|_| !std::mem::take(&mut self.read_fails));
                let event = match bytes {
                    Some(bytes) => SpoolEvent::ReadDone { first, bytes },
                    None => SpoolEvent::ReadFailed { first },
                };
                self.spool(now, event, truth);
            }
            SpillWork::Remove { file } => self.disk.remove(file),
        }
    }

    pub(crate) fn link(&mut self, now: Instant, event: LinkEvent, truth: &mut Truth) {
        let mut effects = Vec::new();
        self.link.step(now, event, &mut effects);
        self.follow(now, effects, truth);
    }

    fn follow(&mut self, now: Instant, effects: Vec<LinkEffect>, truth: &mut Truth) {
        for effect in effects {
            match effect {
                LinkEffect::Connect { connection, .. } => self.connect = Some(connection),
                LinkEffect::Close(connection) => self.closed.push(connection),
                LinkEffect::SayHello { .. } => {
                    let hello = self.hello();
                    self.link(now, LinkEvent::HelloReady(hello), truth);
                }
                LinkEffect::Transmit(connection, message) => self.outgoing.push((connection, message)),
                LinkEffect::Decide(welcome) => self.decide(now, welcome, truth),
                LinkEffect::Acked { staged, vaulted, permits_total } => {
                    self.unvaulted.retain(|_, seq| *seq > vaulted.seq.0);
                    self.spool(now, SpoolEvent::Staged(staged.seq), truth);
                    self.spool(now, SpoolEvent::Permits(permits_total), truth);
                }
                LinkEffect::Hashes(_) | LinkEffect::Marks(_) => panic!("nothing was asked"),
                LinkEffect::SessionDown => self.spool(now, SpoolEvent::SessionDown, truth),
                LinkEffect::Stopped { reason, detail } => panic!("stopped: {reason}, {detail}"),
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            versions: PROTOCOL_VERSIONS,
            machine: MACHINE,
            generation: Generation(self.generation),
            volumes: vec![],
            names: redoubt_core::Names::default(),
            held: self.spool.range(),
            newest: self.newest,
            proof: [0; 32],
        }
    }

    fn decide(&mut self, now: Instant, welcome: Welcome, truth: &mut Truth) {
        self.unvaulted.retain(|_, seq| *seq > welcome.vaulted.seq.0);
        let decision = self.spool.resume(welcome.staged, self.newest);
        if !matches!(decision, Resume::From { .. }) {
            self.mark_from(if let Resume::Gap { from } = decision { from.0 } else { 0 });
            self.newest = welcome.staged;
            assert!(welcome.staged.seq.0 < self.next_seq, "sequences are reserved");
            self.abandon(now, truth);
        }
        let mut effects = Vec::new();
        self.link.step(now, LinkEvent::Resumed, &mut effects);
        let after: WriteSeq = welcome.staged.seq;
        self.spool(now, SpoolEvent::SessionUp { after, permits_total: welcome.permits_total }, truth);
        self.follow(now, effects, truth);
    }

    /// The process dies; with `torn`, the host loses power and that many unsynced bytes of each file remain.
    pub(crate) fn crash(&mut self, now: Instant, torn: Option<usize>, truth: &mut Truth) {
        if let Some(torn) = torn {
            self.disk.lose_power(torn);
        }
        let mut fresh = Agent::new(self.bounds);
        std::mem::swap(self, &mut fresh);
        let old = fresh;
        self.disk = old.disk;
        self.generation = old.generation + 1;
        self.next_seq = old.reserved + 1;
        self.reserved = old.reserved + RESERVE;
        self.dirty = old.dirty;
        self.dirty.extend(old.unvaulted.keys());
        self.unvaulted = old.unvaulted;
        let (files, found) = self.disk.recover();
        let place = |found: &Found| redoubt_core::spool::SpillPlace {
            file: found.file,
            offset: found.offset,
            bytes: found.meta.bytes,
        };
        let batches = found.iter().map(|found| (found.meta, place(found))).collect();
        self.spool = Spool::recover(limits(self.bounds), files, batches);
        self.held = self.spool.held().iter().map(|meta| meta.chain).collect();
        for chain in old.held.iter().filter(|chain| old.synced.contains(chain)) {
            assert!(self.held.contains(chain), "O-6: a synced batch was not found again");
        }
        self.synced.extend(self.held.iter().copied());
        self.newest = self.spool.held().last().map_or(START, |meta| meta.position());
        // A new process counts connections anew; the model's network tells them apart by number.
        self.link = old.link;
        self.link(now, LinkEvent::Stop, truth);
        self.link(now, LinkEvent::Start, truth);
    }
}

fn limits(bounds: Bounds) -> SpoolLimits {
    SpoolLimits { memory_bytes: bounds.memory, spill_bytes: bounds.spill }
}
