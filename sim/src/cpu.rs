//! What a run costs: processor time of its thread, and memory of the process. No part of any digest.

use std::fs::read_to_string;

/// Returns the processor seconds of this thread so far; `None` where the system does not tell.
pub fn seconds() -> Option<f64> {
    let text = read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// Returns the resident bytes of this process; `None` where the system does not tell.
pub fn resident() -> Option<u64> {
    let text = read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Processor seconds of the phases of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Load and faults.
    pub load: f64,
    /// From there until everything has converged.
    pub settling: f64,
    /// Restoring, scrubbing and judging at the end.
    pub judging: f64,
}

/// Takes the time between phases.
#[derive(Debug)]
pub struct Stopwatch(f64);

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Stopwatch {
        Stopwatch(seconds().unwrap_or(0.0))
    }

    /// Returns the seconds since it was asked before.
    pub fn lap(&mut self) -> f64 {
        let now = seconds().unwrap_or(0.0);
        now - std::mem::replace(&mut self.0, now)
    }
}
