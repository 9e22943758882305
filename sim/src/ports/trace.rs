//! The trace: a digest over everything that happened, the marks that were reached, and the lines of it
//! if a person wants to read.

use super::lock;
use crate::capsule::{Beat, Pulse};
use crate::oracles::Finding;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

thread_local! {
    /// Lines of the run on this thread; here, so that they outlive a run that panics.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The trace of the run on this thread, for the same reason.
    static LAST: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Hexadecimal digits of a beat's digest: enough to part runs, short enough for many.
const BEAT_DIGITS: usize = 16;

/// What a trace came to.
#[derive(Default)]
pub struct Traced {
    /// Digest over all events.
    pub digest: String,
    /// How many events.
    pub events: u64,
    /// When the last one was, in milliseconds.
    pub last_ms: u64,
    /// Digests on the way.
    pub beats: Vec<Beat>,
    /// Lines for people, if they were asked for.
    pub lines: Vec<String>,
    /// What leaves saw that must not be.
    pub findings: Vec<Finding>,
}

/// Bytes that are gathered before they go into the digest: it takes many at once several times faster.
const GATHERED: usize = 64 << 10;

/// A digest over bytes that come in small pieces.
#[derive(Default)]
struct Digest {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

impl Digest {
    fn update(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.hasher.update(&self.gathered);
        self.gathered.clear();
    }

    fn hex(&mut self) -> String {
        self.settle();
        self.hasher.finalize().to_hex().to_string()
    }
}

struct State {
    digest: Digest,
    events: u64,
    last_ms: u64,
    pulse: Pulse,
    is_kept: bool,
    findings: Vec<Finding>,
    marks: BTreeSet<&'static str>,
    bites: BTreeMap<&'static str, u64>,
    arms: BTreeSet<(&'static str, u32)>,
}

/// Shared by all leaves of a world.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<State>>);

impl Trace {
    /// Begins the line of what an oracle found.
    pub const FOUND: &str = "found by ";

    /// Returns what is left of the run on this thread that panicked.
    pub fn left() -> Traced {
        LAST.take().map(|trace| trace.finish()).unwrap_or_default()
    }

    /// Makes an empty trace; keeps lines only if asked.
    pub fn new(lines: bool) -> Trace {
        let state = State {
            digest: Digest::default(),
            events: 0,
            last_ms: 0,
            pulse: Pulse::default(),
            is_kept: lines,
            findings: Vec::new(),
            marks: BTreeSet::new(),
            bites: BTreeMap::new(),
            arms: BTreeSet::new(),
        };
        let trace = Trace(Arc::new(Mutex::new(state)));
        LINES.take();
        LAST.set(Some(trace.clone()));
        trace
    }

    /// Adds an event with its bytes to the digest only.
    pub fn event(&self, at: Duration, what: &str, bytes: &[u8]) {
        let mut state = lock(&self.0);
        let now_ms = at.as_millis() as u64;
        if state.pulse.is_due(now_ms) {
            let (events, digest) = (state.events, state.digest.hex());
            state.pulse.beat(now_ms, events, digest[..BEAT_DIGITS].to_owned());
        }
        state.events += 1;
        state.last_ms = now_ms;
        state.digest.update(&at.as_nanos().to_le_bytes());
        state.digest.update(what.as_bytes());
        state.digest.update(&(bytes.len() as u64).to_le_bytes());
        state.digest.update(bytes);
    }

    /// Adds a line for people, and to the digest.
    pub fn line(&self, at: Duration, text: impl FnOnce() -> String) {
        let text = text();
        self.event(at, &text, &[]);
        if lock(&self.0).is_kept {
            LINES.with_borrow_mut(|lines| lines.push(format!("{:>10.3} s  {text}", at.as_secs_f64())));
        }
    }

    /// Reports something a leaf saw that must not be.
    pub fn finding(&self, finding: Finding) {
        let mut state = lock(&self.0);
        if state.findings.len() < 10 && !state.findings.contains(&finding) {
            state.findings.push(finding);
        }
    }

    /// Notes that something worth reaching happened.
    pub fn mark(&self, mark: &'static str) {
        lock(&self.0).marks.insert(mark);
    }

    /// Notes that a fault bit: somebody met it. A knob that is turned and never bites tests nothing.
    pub fn bite(&self, verb: &'static str) {
        *lock(&self.0).bites.entry(verb).or_default() += 1;
    }

    /// Returns which faults bit so far, and how often.
    pub fn bites(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.0).bites.clone()
    }

    /// Notes that the engine came to a place where it warns or tells of an error.
    pub fn arm(&self, file: &'static str, line: u32) {
        lock(&self.0).arms.insert((file, line));
    }

    /// Returns those places so far.
    pub fn arms(&self) -> BTreeSet<(&'static str, u32)> {
        lock(&self.0).arms.clone()
    }

    /// Returns what was reached so far.
    pub fn marks(&self) -> BTreeSet<&'static str> {
        lock(&self.0).marks.clone()
    }

    /// Ends the trace.
    pub fn finish(&self) -> Traced {
        // Held no longer than the run: a thread may play another one.
        LAST.take();
        let mut state = lock(&self.0);
        Traced {
            digest: state.digest.hex(),
            events: state.events,
            last_ms: state.last_ms,
            beats: state.pulse.beats().to_vec(),
            lines: LINES.take(),
            findings: std::mem::take(&mut state.findings),
        }
    }
}
