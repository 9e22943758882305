//! The world of one schedule: the store, the clock, the oracles, and the ports through which actors act.
//!
//! Each request to the store is a point where any other actor may run, the sender may freeze, or die.

use crate::Mutant;
use crate::oracle::Oracle;
use crate::store::{Body, CATALOGUES, Catalogue, LOGS, Name, Object, Record, Reply, Rng, Store};
use redoubt_core::maintenance::Ladder;
use redoubt_core::{Instant, WallTime};
use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::task::Poll;

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) oracle: Oracle,
    pub(crate) rng: Rng,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) ladder: Ladder,
    pub(crate) minutes: u64,
    pub(crate) next_id: u32,
    /// Commits acknowledged, deletes, fencings: that a schedule did something.
    pub(crate) counts: [u64; 3],
    /// How often of eight rounds a maintainer goes on from what it published itself.
    pub(crate) own: u32,
}

/// What the creation of an object came to, proven.
pub(crate) enum Created {
    Mine,
    Other(Object),
}

#[derive(Clone)]
pub(crate) struct Port(pub(crate) Rc<RefCell<World>>);

/// The log from the catalogue's `log_from` on, proven by its chain.
pub(crate) struct Tail {
    pub(crate) records: Vec<Record>,
    /// Identity, epoch and position of the end, its slot.
    pub(crate) id: u32,
    pub(crate) epoch: u32,
    pub(crate) position: u32,
    pub(crate) slot: u32,
}

impl Tail {
    fn begin(catalogue: &Catalogue) -> Tail {
        let (id, epoch, position) = catalogue.before;
        Tail { records: Vec::new(), id, epoch, position, slot: catalogue.log_from - 1 }
    }

    /// Takes the next record, unless it is not the next one.
    pub(crate) fn push(&mut self, record: Record) -> bool {
        if record.slot != self.slot + 1 || record.prev != self.id {
            return false;
        }
        let is_void = record.epoch < self.epoch;
        if !is_void {
            self.position = record.from + u32::from(record.key.is_some());
            self.epoch = record.epoch;
        }
        (self.id, self.slot) = (record.id, record.slot);
        // A void record holds its slot, nothing else.
        let (key, is_point) = if is_void { (None, false) } else { (record.key, record.is_point) };
        self.records.push(Record { key, is_point, ..record });
        true
    }
}

/// Lets others run.
pub(crate) async fn turn() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Port {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.0.borrow().mutant == Some(mutant)
    }

    pub(crate) fn fresh(&self) -> u32 {
        let mut world = self.0.borrow_mut();
        world.next_id += 1;
        world.next_id
    }

    pub(crate) fn below(&self, limit: u32) -> u32 {
        self.0.borrow_mut().rng.below(limit)
    }

    pub(crate) fn now(&self) -> Instant {
        Instant(self.0.borrow().minutes * 60_000_000_000)
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime((1 + self.0.borrow().minutes) * 60_000)
    }

    pub(crate) fn count(&self, what: usize) {
        self.0.borrow_mut().counts[what] += 1;
    }

    /// A writer tells its sources that a commit is safe.
    pub(crate) fn acknowledge(&self, record: &Record) {
        let now = self.now();
        let world = &mut *self.0.borrow_mut();
        world.counts[0] += 1;
        world.oracle.observe(&mut world.store, now);
        world.oracle.acknowledge(record);
    }

    pub(crate) async fn put(&self, name: Name, object: &Object) -> Reply {
        turn().await;
        let world = &mut *self.0.borrow_mut();
        world.store.put(name, object, &mut world.rng)
    }

    pub(crate) async fn get(&self, name: Name) -> Option<Object> {
        turn().await;
        self.0.borrow().store.objects.get(&name).cloned()
    }

    pub(crate) async fn delete(&self, name: Name) {
        turn().await;
        let world = &mut *self.0.borrow_mut();
        world.counts[1] += 1;
        world.store.delete(name, &mut world.rng);
    }

    /// Lists in two pages; what changes between them may be seen or not.
    pub(crate) async fn list(&self, names: RangeInclusive<Name>) -> Vec<Name> {
        turn().await;
        let mut listed: Vec<Name> = self.names(&names);
        if listed.len() < 2 {
            return listed;
        }
        listed.truncate(1 + self.below(listed.len() as u32) as usize);
        let last = *listed.last().expect("a first page");
        turn().await;
        listed.extend(self.names(&(last..=*names.end())).into_iter().filter(|name| *name > last));
        listed
    }

    fn names(&self, names: &RangeInclusive<Name>) -> Vec<Name> {
        self.0.borrow().store.objects.range(names.clone()).map(|(name, _)| *name).collect()
    }

    /// Creates an object and finds out for certain whose bytes bear the name.
    pub(crate) async fn create(&self, name: Name, object: &Object) -> Created {
        loop {
            match self.put(name, object).await {
                Reply::Done => return Created::Mine,
                Reply::Exists | Reply::Unknown if self.is(Mutant::TrustReplies) => return Created::Mine,
                Reply::Exists | Reply::Unknown => {}
            }
            match self.get(name).await {
                Some(found) if found.id == object.id => return Created::Mine,
                Some(other) => return Created::Other(other),
                None => {}
            }
        }
    }

    pub(crate) async fn upload(&self, name: Name) {
        let object = Object { id: self.fresh(), body: Body::Plain };
        self.create(name, &object).await;
    }

    /// Takes the next number of a series of claims that has no gaps.
    pub(crate) async fn claim(&self, name: fn(u32) -> Name) -> Option<u32> {
        let listed = match self.list(name(0)..=name(u32::MAX)).await.last() {
            Some(Name::WriterClaim(number) | Name::MaintainerClaim(number)) => *number,
            _ => 0,
        };
        let sparse = self.is(Mutant::SparseClaims);
        for number in (listed + 1..).take(8) {
            let object = Object { id: self.fresh(), body: Body::Plain };
            let is_mine = if sparse {
                matches!(self.put(name(number), &object).await, Reply::Done)
            } else {
                matches!(self.create(name(number), &object).await, Created::Mine)
            };
            if is_mine {
                return Some(number);
            }
        }
        None
    }

    /// Returns the newest version of the catalogue; an empty one before the first.
    pub(crate) async fn newest(&self) -> Rc<Catalogue> {
        loop {
            turn().await;
            let newest = {
                let world = self.0.borrow();
                world.store.objects.range(CATALOGUES).next_back().map(|(name, _)| *name)
            };
            let Some(name) = newest else {
                return Rc::new(Catalogue { log_from: 1, ..Catalogue::default() });
            };
            if let Some(catalogue) = self.get(name).await.and_then(|object| object.catalogue()) {
                return catalogue;
            }
        }
    }

    /// Reads the log behind a catalogue. None: the catalogue is not the newest, its log is gone.
    pub(crate) async fn tail(&self, catalogue: &Catalogue) -> Option<Tail> {
        let listed = self.list(Name::Log(catalogue.log_from)..=*LOGS.end()).await;
        turn().await;
        let world = self.0.borrow();
        let mut tail = Tail::begin(catalogue);
        for name in listed {
            let record = world.store.objects.get(&name).and_then(Object::record)?;
            if !tail.push(record) {
                return None;
            }
        }
        let may_be_empty = catalogue.version == 0 || world.mutant == Some(Mutant::DropLastRecord);
        (may_be_empty || !tail.records.is_empty()).then_some(tail)
    }
}
