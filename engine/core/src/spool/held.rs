//! The queue of held batches, and where the bytes of each are.
//!
//! ```text
//! Memory -> Writing -> Disk <-> Reading -> Read -> (sent) Disk
//!    ^---------'  a failed write takes its bytes back
//! ```
//!
//! The counters are kept with each change, because a queue may hold a million batches and a step must not
//! walk it (SP-4). What walks is bounded by memory, by the read-backs, or happens once a session.
//!
//! What is *not* here: when to write, read, send or forget (the spool).

use super::events::SpillPlace;
use crate::ids::WriteSeq;
use crate::sealed::{SealedBatch, SealedMeta};
use bytes::Bytes;
use std::collections::VecDeque;

/// Where the bytes of a batch are.
#[derive(Debug)]
pub(super) enum Body {
    /// Only in memory.
    Memory(Bytes),
    /// Written, not synced, with the sync's ticket: the bytes stay (SP-3).
    Writing(Bytes, SpillPlace, u64),
    /// Durable on disk.
    Disk(SpillPlace),
    /// On disk, and asked for.
    Reading(SpillPlace),
    /// On disk, and read back; waits to be sent.
    Read(Bytes, SpillPlace),
}

impl Body {
    pub(super) fn is_on_disk(&self) -> bool {
        !matches!(self, Body::Memory(_) | Body::Writing(..))
    }

    pub(super) fn place(&self) -> Option<SpillPlace> {
        match self {
            Body::Memory(_) => None,
            Body::Writing(_, place, _) | Body::Disk(place) | Body::Reading(place) | Body::Read(_, place) => {
                Some(*place)
            }
        }
    }

    fn is_read_back(&self) -> bool {
        matches!(self, Body::Reading(_) | Body::Read(..))
    }

    /// The order of SP-6.
    fn rank(&self) -> u8 {
        match self {
            Body::Disk(_) | Body::Reading(_) | Body::Read(..) => 0,
            Body::Writing(..) => 1,
            Body::Memory(_) => 2,
        }
    }
}

/// A batch and its bytes.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) meta: SealedMeta,
    pub(super) body: Body,
}

/// The queue; see the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Held>,
    /// Bytes of batches that are not on disk.
    memory_bytes: u64,
    /// The oldest so many were sent in this session.
    sent: usize,
    /// Batches being read back or waiting, read, for their turn.
    reads: usize,
}

impl Queue {
    /// Makes a queue of batches that are durable on disk.
    pub(super) fn on_disk(found: Vec<(SealedMeta, SpillPlace)>) -> Queue {
        let held = |(meta, place)| Held { meta, body: Body::Disk(place) };
        Queue { batches: found.into_iter().map(held).collect(), ..Queue::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Held> {
        self.batches.front()
    }

    pub(super) fn back(&self) -> Option<&Held> {
        self.batches.back()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Held> {
        self.batches.get(index)
    }

    pub(super) fn metas(&self) -> impl Iterator<Item = SealedMeta> {
        self.batches.iter().map(|held| held.meta)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn reads(&self) -> usize {
        self.reads
    }

    pub(super) fn contains(&self, first: WriteSeq) -> bool {
        self.find(first).is_some()
    }

    fn find(&self, first: WriteSeq) -> Option<usize> {
        self.batches.binary_search_by_key(&first, |held| held.meta.first).ok()
    }

    pub(super) fn push(&mut self, batch: SealedBatch) {
        if let Some(newest) = self.batches.back() {
            let in_order = batch.meta.first == newest.meta.last.next()
                || (batch.meta.first > newest.meta.last && batch.meta.flags.starts_resync());
            assert!(in_order, "SP-1: {:?} pushed after {:?}", batch.meta, newest.meta);
        }
        self.memory_bytes += u64::from(batch.meta.bytes);
        self.batches.push_back(Held { meta: batch.meta, body: Body::Memory(batch.bytes) });
    }

    /// SP-2: called for staged batches only (and by the planted bug).
    pub(super) fn forget_oldest(&mut self) {
        if let Some(held) = self.batches.pop_front() {
            self.memory_bytes -= if held.body.is_on_disk() { 0 } else { u64::from(held.meta.bytes) };
            self.reads -= usize::from(held.body.is_read_back());
            self.sent = self.sent.saturating_sub(1);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Queue::default();
    }

    /// Returns the batches that are only in memory, oldest first, to be written.
    pub(super) fn only_in_memory(&mut self) -> impl Iterator<Item = &mut Held> {
        let first = self.batches.partition_point(|held| held.body.rank() < 2);
        self.batches.range_mut(first..)
    }

    /// Returns the batches whose bytes are in memory and not durable, newest first.
    fn not_on_disk(&mut self) -> impl Iterator<Item = &mut Held> {
        let first = self.batches.partition_point(|held| held.body.rank() == 0);
        self.batches.range_mut(first..)
    }

    /// The sync with this ticket succeeded (SP-3).
    pub(super) fn settle_written(&mut self, ticket: u64) {
        let mut freed = 0;
        for held in self.not_on_disk() {
            if let Body::Writing(_, place, with) = held.body
                && with == ticket
            {
                held.body = Body::Disk(place);
                freed += u64::from(held.meta.bytes);
            }
        }
        self.memory_bytes -= freed;
    }

    /// The write failed: what is on disk of it is unknown, memory still has it.
    pub(super) fn take_back_written(&mut self) {
        for held in self.not_on_disk() {
            if let Body::Writing(bytes, ..) = &held.body {
                held.body = Body::Memory(bytes.clone());
            }
        }
    }

    /// The batch at this place in the queue is on disk and is asked for.
    pub(super) fn begin_read(&mut self, index: usize) {
        if let Some(held) = self.batches.get_mut(index)
            && let Body::Disk(place) = held.body
        {
            held.body = Body::Reading(place);
            self.reads += 1;
        }
    }

    pub(super) fn take_read(&mut self, first: WriteSeq, bytes: Bytes) {
        if let Some(index) = self.find(first)
            && let Body::Reading(place) = self.batches[index].body
        {
            self.batches[index].body = Body::Read(bytes, place);
        }
    }

    /// Takes the next batch to send, if its bytes are at hand.
    pub(super) fn take_next(&mut self) -> Option<SealedBatch> {
        let held = self.batches.get_mut(self.sent)?;
        let (Body::Memory(bytes) | Body::Writing(bytes, ..) | Body::Read(bytes, _)) = &held.body else {
            return None;
        };
        let batch = SealedBatch { meta: held.meta, bytes: bytes.clone() };
        if let Body::Read(_, place) = held.body {
            held.body = Body::Disk(place);
            self.reads -= 1;
        }
        self.sent += 1;
        Some(batch)
    }

    /// Everything is to be sent again; what was read back and not sent is given up. Reads under way stay.
    pub(super) fn end_session(&mut self) {
        let mut left = self.reads;
        for held in self.batches.range_mut(self.sent..) {
            if left == 0 {
                break;
            }
            left -= usize::from(held.body.is_read_back());
            if let Body::Read(_, place) = held.body {
                held.body = Body::Disk(place);
                self.reads -= 1;
            }
        }
        self.sent = 0;
    }

    /// Checks the whole queue.
    pub(super) fn check(&self) {
        let in_memory = self.batches.iter().filter(|held| !held.body.is_on_disk());
        let memory_bytes: u64 = in_memory.map(|held| u64::from(held.meta.bytes)).sum();
        assert_eq!(memory_bytes, self.memory_bytes, "SP-3: memory is counted exactly");
        let reads = self.batches.iter().filter(|held| held.body.is_read_back()).count();
        assert_eq!(reads, self.reads, "SP-7: read-backs are counted exactly");
        let mut pairs = self.batches.iter().zip(self.batches.iter().skip(1));
        assert!(
            pairs.all(|(a, b)| a.meta.last < b.meta.first && a.body.rank() <= b.body.rank()),
            "SP-1, SP-6: batches are held in order, those on disk first"
        );
    }
}
