//! The trace: a digest over everything that happened, the marks that were reached, and the lines of it
//! if a person wants to read.

use super::lock;
use crate::oracles::Finding;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

thread_local! {
    /// Lines of the run on this thread; here, so that they outlive a run that panics.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct State {
    digest: blake3::Hasher,
    is_kept: bool,
    findings: Vec<Finding>,
    marks: BTreeSet<&'static str>,
}

/// Shared by all leaves of a world.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<State>>);

impl Trace {
    /// Begins the line of what an oracle found.
    pub const FOUND: &str = "found by ";

    /// Takes the lines kept on this thread.
    pub fn take_lines() -> Vec<String> {
        LINES.take()
    }

    /// Makes an empty trace; keeps lines only if asked.
    pub fn new(lines: bool) -> Trace {
        let state = State {
            digest: blake3::Hasher::new(),
            is_kept: lines,
            findings: Vec::new(),
            marks: BTreeSet::new(),
        };
        Trace(Arc::new(Mutex::new(state)))
    }

    /// Adds an event with its bytes to the digest only.
    pub fn event(&self, at: Duration, what: &str, bytes: &[u8]) {
        let mut state = lock(&self.0);
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

    /// Returns what was reached so far.
    pub fn marks(&self) -> BTreeSet<&'static str> {
        lock(&self.0).marks.clone()
    }

    /// Returns digest, lines and findings.
    pub fn finish(&self) -> (String, Vec<String>, Vec<Finding>) {
        let mut state = lock(&self.0);
        let digest = state.digest.finalize().to_hex().to_string();
        (digest, Trace::take_lines(), std::mem::take(&mut state.findings))
    }
}
