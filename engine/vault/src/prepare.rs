//! The part of a commit before its slot: records packed into segments, segments stored.
//!
//! It touches no slot and no claim, so the next commit may be prepared while the slot of the one before it is
//! in flight. What is prepared and never gets its slot is an orphan, as after a crash.
//!
//! Invariants
//! - PR-1 A preparer goes on where its last commit ends, whether that one has its slot yet or not. Commits are
//!   published in the order in which they were prepared (the writer refuses another).
//! - PR-2 A commit prepared again after an error goes on with the segments it has: nothing is compressed
//!   twice, and a store that fills up is not filled with attempts.
//! - PR-3 At most [`SEGMENTS_AT_ONCE`] segments are encoded or put at once.
//!
//! What is *not* here: slots, fencing (`writer`), how records become versions (`pack`).

use crate::error::{CommitError, StoreFailure};
use crate::key_ring::DataKey;
use crate::log::{HeadState, PointRow, SegmentRow};
use crate::names;
use crate::pack::{Packed, Portion, check_order};
use crate::sealing::SealingKey;
use crate::segment::{Encoded, SegmentId, TARGET_BYTES};
use crate::shrink::Shrinker;
use crate::store::{Created, Seen};
use crate::vault::Vault;
use crate::writer::WriterSettings;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{BatchPosition, MachineId, Record};
use redoubt_ports::{Entropy, Rare, StoreError, StoreKey, Workers, compute};
use std::sync::{Arc, Mutex, PoisonError};

/// Segments encoded or put at once; bounds memory in flight to 8 x 32 MiB at worst.
pub(crate) const SEGMENTS_AT_ONCE: usize = 8;

/// A segment that is forced to be small is not smaller than this.
const SMALL_SEGMENT_BYTES: usize = 64 << 10;

/// What preparing needs to know of the writer it works for.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) vault: Vault,
    pub(crate) machine: MachineId,
    pub(crate) settings: WriterSettings,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) key: SealingKey,
    pub(crate) epoch: u64,
}

/// A commit whose segments are in the store, to be published by the writer.
pub struct Prepared {
    pub(crate) from: BatchPosition,
    pub(crate) head: HeadState,
    pub(crate) points: Vec<PointRow>,
    pub(crate) segments: Vec<SegmentRow>,
    /// The segments that are in the store.
    pub(crate) stored: Vec<Seen>,
    /// Its only segment, if that goes into its log slot.
    pub(crate) inline: Option<Bytes>,
    /// Left to be stored behind the slot, by a planted bug only.
    pub(crate) late: Option<Encoded>,
    /// What its segments are sealed with, and so its record.
    pub(crate) key: DataKey,
}

impl Prepared {
    /// Returns the last position of the commit.
    pub fn position(&self) -> BatchPosition {
        self.head.position
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({:?} .. {:?})", self.from, self.head.position)
    }
}

/// One segment on its way.
enum Segment {
    Planned,
    Encoded(Encoded),
    Stored(Encoded, Seen),
}

/// A commit that is being prepared.
struct Unfinished {
    from: BatchPosition,
    packed: Arc<Packed>,
    portions: Vec<Arc<Portion>>,
    segments: Vec<Segment>,
    key: DataKey,
}

/// The end of one step of a segment.
enum Step {
    Encoded(usize, Encoded),
    Put(usize, Result<Seen, StoreFailure>),
}

/// Prepares one commit after another.
pub struct Preparer {
    task: Task,
    head: HeadState,
    unfinished: Option<Unfinished>,
    shrinkers: Arc<Mutex<Vec<Shrinker>>>,
}

impl std::fmt::Debug for Preparer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Preparer({}, epoch {}, at {:?})", self.task.machine, self.task.epoch, self.head.position)
    }
}

impl Preparer {
    pub(crate) fn new(task: Task, head: HeadState) -> Preparer {
        Preparer { task, head, unfinished: None, shrinkers: Arc::default() }
    }

    pub(crate) fn set_workers(&mut self, workers: Arc<dyn Workers>) {
        self.task.workers = workers;
    }

    /// Makes another one that begins where this one is.
    pub(crate) fn another(&self) -> Preparer {
        Preparer::new(self.task.clone(), self.head.clone())
    }

    /// Returns the head after the last commit that was prepared.
    pub fn head(&self) -> &HeadState {
        &self.head
    }

    /// Goes back to where the log ends: what was prepared behind it is given up.
    pub(crate) fn go_to(&mut self, head: &HeadState) {
        if self.head.position != head.position {
            (self.head, self.unfinished) = (head.clone(), None);
        }
    }

    /// Packs records up to and including `to`, which must be the position of the last one, and stores their
    /// segments. Records may repeat what was prepared before; one that brings nothing new is empty.
    ///
    /// After `Retry`, `StoreFull` or `Denied` deliver the same again. Dropping the future is like such an error.
    pub async fn prepare(
        &mut self,
        records: Vec<Record>,
        to: BatchPosition,
    ) -> Result<Prepared, CommitError> {
        let at = self.head.position;
        let fresh = fresh(at, records, to)?;
        if fresh.is_empty() {
            let (points, segments, stored) = (Vec::new(), Vec::new(), Vec::new());
            let head = self.head.clone();
            let key = self.task.key.now();
            return Ok(Prepared { from: at, head, points, segments, stored, inline: None, late: None, key });
        }
        let again = |old: &Unfinished| old.from == at && old.packed.head.position == to;
        if !self.unfinished.as_ref().is_some_and(again) {
            self.unfinished = None;
            self.unfinished = Some(self.plan(at, &fresh, to)?);
        }
        let is_inline = self.store().await?;
        let Some(done) = self.unfinished.take() else { return Err(CommitError::Fork(to.seq)) };
        let (mut segments, mut stored, mut inline, mut late) = (Vec::new(), Vec::new(), None, None);
        for segment in done.segments {
            match segment {
                Segment::Planned => {}
                Segment::Stored(encoded, seen) => {
                    segments.push(row(&encoded, false));
                    stored.push(seen);
                }
                Segment::Encoded(encoded) => {
                    segments.push(row(&encoded, is_inline));
                    (inline, late) =
                        if is_inline { (Some(encoded.bytes), None) } else { (None, Some(encoded)) };
                }
            }
        }
        self.head = done.packed.head.clone();
        let (head, points) = (self.head.clone(), done.packed.points.clone());
        Ok(Prepared { from: at, head, points, segments, stored, inline, late, key: done.key })
    }

    fn plan(
        &self,
        from: BatchPosition,
        records: &[Record],
        to: BatchPosition,
    ) -> Result<Unfinished, CommitError> {
        let mut packed = Packed::new(&self.head, records)?;
        packed.head.position = to;
        let mut bytes = self.task.settings.segment_bytes.min(TARGET_BYTES);
        if self.task.vault.store.chance.forces(Rare::SmallSegments) {
            bytes = (bytes / 4).max(SMALL_SEGMENT_BYTES.min(bytes));
        }
        let portions = packed.portions(bytes)?;
        let segments = portions.iter().map(|_| Segment::Planned).collect();
        let portions = portions.into_iter().map(Arc::new).collect();
        let key = self.task.key.now();
        Ok(Unfinished { from, packed: Arc::new(packed), portions, segments, key })
    }

    /// Encodes and stores what is not stored yet, unless it goes into the slot; tells whether it does.
    async fn store(&mut self) -> Result<bool, CommitError> {
        let early = planted::active(Bug::PublishBeforeLastSegment);
        let mut steps: FuturesUnordered<BoxFuture<'static, Step>> = FuturesUnordered::new();
        let mut next = 0;
        loop {
            let Some(commit) = &self.unfinished else { return Ok(false) };
            let count = commit.segments.len();
            while next < count && steps.len() < SEGMENTS_AT_ONCE {
                match &commit.segments[next] {
                    Segment::Planned => steps.push(self.encode(commit, next)),
                    Segment::Encoded(encoded) => steps.extend(self.put(next, count, encoded.clone(), early)),
                    Segment::Stored(..) => {}
                }
                next += 1;
            }
            let Some(step) = steps.next().await else { break };
            match step {
                Step::Encoded(at, encoded) => {
                    steps.extend(self.put(at, count, encoded.clone(), early));
                    self.keep(at, Segment::Encoded(encoded));
                }
                Step::Put(at, Ok(seen)) => self.stored(at, seen),
                Step::Put(at, Err(failure)) => {
                    if failure.last == StoreError::AlreadyExists {
                        // 128 random bits met twice: the next attempt takes others.
                        self.keep(at, Segment::Planned);
                    }
                    return Err(failure.into());
                }
            }
        }
        let segments = self.unfinished.as_ref().map(|commit| &commit.segments[..]);
        Ok(!early && matches!(segments, Some([Segment::Encoded(_)])))
    }

    fn keep(&mut self, at: usize, segment: Segment) {
        if let Some(commit) = &mut self.unfinished {
            commit.segments[at] = segment;
        }
    }

    fn stored(&mut self, at: usize, seen: Seen) {
        let Some(commit) = &mut self.unfinished else { return };
        let segment = std::mem::replace(&mut commit.segments[at], Segment::Planned);
        if let Segment::Encoded(encoded) = segment {
            commit.segments[at] = Segment::Stored(encoded, seen);
        }
    }

    fn encode(&self, commit: &Unfinished, at: usize) -> BoxFuture<'static, Step> {
        let (vault, machine) = (self.task.vault.uuid, self.task.machine);
        // A new identity for each encoding: a key seals one segment once (SG-1).
        let uuid = self.task.entropy.id();
        let id = SegmentId { vault, machine, epoch: self.task.epoch, uuid, dek: commit.key.id };
        let (packed, portion) = (commit.packed.clone(), commit.portions[at].clone());
        let (dek, shrinkers) = (commit.key.key.clone(), self.shrinkers.clone());
        let workers = self.task.workers.clone();
        let work = move || {
            let idle = shrinkers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (encoded, idle) = packed.encode(&portion, id, &dek, idle.unwrap_or_else(Shrinker::new));
            // At most as many as encoded at once (PR-3).
            shrinkers.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
            encoded
        };
        Box::pin(async move { Step::Encoded(at, compute(&*workers, work).await) })
    }

    fn name(&self, segment: &Encoded) -> StoreKey {
        names::segment(self.task.machine, self.task.epoch, segment.uuid)
    }

    /// The put of a segment, unless its place is elsewhere.
    fn put(
        &self,
        at: usize,
        count: usize,
        segment: Encoded,
        early: bool,
    ) -> Option<BoxFuture<'static, Step>> {
        let is_inline = count == 1 && segment.bytes.len() <= self.task.settings.inline_bytes && !early;
        if is_inline || early && at + 1 == count {
            return None;
        }
        let (name, vault) = (self.name(&segment), self.task.vault.clone());
        Some(Box::pin(async move { Step::Put(at, put_segment(&vault, name, segment.bytes).await) }))
    }
}

/// Returns the records behind `at`, checked: they must continue it and end at `to`.
fn fresh(at: BatchPosition, records: Vec<Record>, to: BatchPosition) -> Result<Vec<Record>, CommitError> {
    if to.seq == at.seq && to.chain != at.chain || to.generation < at.generation {
        return Err(CommitError::Fork(to.seq));
    }
    let fresh: Vec<Record> = records.into_iter().filter(|record| record.seq > at.seq).collect();
    check_order(at.seq, &fresh)?;
    let last = fresh.last().map_or(at.seq, |record| record.seq);
    if last != to.seq && to.seq > at.seq {
        return Err(CommitError::Gap { after: last, found: to.seq });
    }
    Ok(fresh)
}

pub(crate) async fn put_segment(vault: &Vault, name: StoreKey, bytes: Bytes) -> Result<Seen, StoreFailure> {
    match vault.store.create(&name, &bytes).await? {
        Created::Mine => Ok(vault.store.seen_by_name(name, &bytes)),
        Created::Other(_) => {
            let (object, last) = (name.to_string(), StoreError::AlreadyExists);
            Err(StoreFailure { operation: "create", object, attempts: 1, last })
        }
    }
}

fn row(segment: &Encoded, inline: bool) -> SegmentRow {
    SegmentRow {
        uuid: segment.uuid,
        length: segment.bytes.len() as u64,
        tail: segment.tail,
        units: segment.units,
        root: segment.root,
        digest: segment.digest,
        inline,
    }
}
