//! What all parts of a run share: time, the heap, chance, links, the store, the vaults, and what the oracles know.

use super::content::Ledger;
use super::dice::{Dice, Times};
use super::disk::DiskTimes;
use super::event::{Digest, Event};
use super::marks::Marks;
use super::net::{Net, Place, Wire, bytes_of};
use super::oracle::Guest;
use super::request::Requests;
use super::store::{Course, Store};
use super::vault::MachineVault;
use crate::oracles::Finding;
use redoubt_core::message::Message;
use redoubt_core::{Generation, Instant};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines of a trace that are kept: what happened before a failure.
const LINES_MAX: usize = 100_000;

/// Findings of one run; more only repeat themselves.
const FINDINGS_MAX: usize = 10;

/// Steps of pure machines, by machine. Those inside an agent (splitters, spool, planner, maps) are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Of agents.
    pub agent: u64,
    /// Of links.
    pub link: u64,
    /// Of receivers.
    pub receiver: u64,
    /// Events taken from the heap; not machine steps, for comparison.
    pub heap: u64,
}

impl Steps {
    /// Returns the steps of all machines.
    pub fn machines(&self) -> u64 {
        self.agent + self.link + self.receiver
    }
}

impl std::ops::AddAssign for Steps {
    fn add_assign(&mut self, other: Steps) {
        self.agent += other.agent;
        self.link += other.link;
        self.receiver += other.receiver;
        self.heap += other.heap;
    }
}

/// What happened, in lines. It belongs to whoever reads it, so that a run that panics leaves it.
#[derive(Clone, Default)]
pub struct Trace(Rc<RefCell<VecDeque<String>>>);

impl Trace {
    fn line(&self, line: String) {
        let mut lines = self.0.borrow_mut();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Takes the lines so far.
    pub fn take(&self) -> Vec<String> {
        self.0.take().into()
    }
}

/// A host.
pub(super) struct HostState {
    pub(super) name: String,
    pub(super) site: usize,
    pub(super) is_powered: bool,
    pub(super) frozen_until: u64,
    pub(super) is_lost: bool,
    /// Its process was ended by the plan and does not start by itself.
    pub(super) is_down: bool,
}

/// What the oracles know of one machine.
pub(super) struct Truth {
    pub(super) vault: MachineVault,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) guest: Guest,
    /// Newest generation that got a session.
    pub(super) welcomed: Generation,
}

/// See the module.
pub(super) struct Common {
    pub(super) now: u64,
    pub(super) heap: Heap,
    pub(super) dice: Dice,
    pub(super) disk: DiskTimes,
    /// Times of syncs of state files.
    pub(super) flush: Times,
    pub(super) net: Net,
    pub(super) store: Store,
    pub(super) requests: Requests,
    pub(super) hosts: Vec<HostState>,
    pub(super) truths: Vec<Truth>,
    pub(super) steps: Steps,
    pub(super) digest: Digest,
    pub(super) marks: Marks,
    pub(super) findings: Vec<Finding>,
    trace: Option<Trace>,
    /// Guests are told to stop.
    pub(super) is_quiet: bool,
    /// Number of markers so far: their identities.
    pub(super) markers: u128,
}

type Heap = super::heap::Heap<Event>;

/// What a run begins with.
pub(super) struct Parts {
    pub(super) seed: u64,
    pub(super) trace: Option<Trace>,
    pub(super) disk: DiskTimes,
    pub(super) flush: Times,
    pub(super) net: Net,
    pub(super) store: Store,
    pub(super) hosts: Vec<HostState>,
    pub(super) truths: Vec<Truth>,
}

impl Common {
    pub(super) fn new(parts: Parts) -> Common {
        Common {
            now: 0,
            heap: Heap::new(),
            dice: Dice::new(parts.seed),
            disk: parts.disk,
            flush: parts.flush,
            net: parts.net,
            store: parts.store,
            requests: Requests::default(),
            hosts: parts.hosts,
            truths: parts.truths,
            steps: Steps::default(),
            digest: Digest(parts.seed),
            marks: Marks::default(),
            findings: Vec::new(),
            trace: parts.trace,
            is_quiet: false,
            markers: 0,
        }
    }

    pub(super) fn instant(&self) -> Instant {
        Instant(self.now)
    }

    /// Asks for an event after a time.
    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.heap.push(self.now.saturating_add(delay), event);
    }

    /// Takes an event into the digest.
    pub(super) fn take(&mut self, at: u64, event: &Event) {
        self.now = at;
        self.steps.heap += 1;
        self.digest.take(at);
        event.digest(&mut self.digest);
    }

    /// Writes a line of the trace; the words are made only if somebody reads them.
    pub(super) fn say(&mut self, who: usize, words: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let name = self.hosts.get(who).map_or("lab", |host| host.name.as_str()).to_owned();
            self.line(&name, &words());
        }
    }

    fn line(&mut self, name: &str, words: &str) {
        let seconds = self.now as f64 / 1e9;
        if let Some(trace) = &self.trace {
            trace.line(format!("{seconds:>12.6}  {name:<10} {words}"));
        }
    }

    /// An oracle speaks.
    pub(super) fn find(&mut self, oracle: &'static str, what: String) {
        if self.trace.is_some() {
            self.line("oracle", &format!("{oracle}: {what}"));
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding::new(oracle, what));
        }
    }

    /// Sends a message, or the end of a connection. Inlined, so that a message is not copied on its way.
    #[inline]
    pub(super) fn send(&mut self, connection: u32, is_up: bool, wire: Wire) {
        let at = self.net.arrival(self.now, &mut self.dice, connection, is_up, bytes_of(&wire));
        self.net.direction(connection, is_up).queue.push_back(wire);
        self.heap.push(at, Event::Deliver(connection, is_up));
    }

    #[inline]
    pub(super) fn tell(&mut self, connection: u32, is_up: bool, message: Message) {
        self.send(connection, is_up, Some(message));
    }

    /// Draws the course of a request to the store.
    pub(super) fn request(&mut self, host: Place, bytes: u64, creates: bool) -> Course {
        let met = self.store.met;
        let course = self.store.request((self.now, &mut self.dice, &mut self.net), host, bytes, creates);
        if self.store.met > met {
            self.marks.insert("store-fault-hit");
        }
        course
    }

    pub(super) fn name(&self, host: usize) -> &str {
        &self.hosts[host].name
    }
}

/// Locks a ledger: nobody else ever holds it, but a sealer must be `Send`.
pub(super) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
