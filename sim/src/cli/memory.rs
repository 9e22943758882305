//! Memory of this process as runs go by: it must not grow with them.

use crate::cpu;

/// Runs after which caches and arenas have their size.
const EARLY: u64 = 200;

/// Looks after each run.
#[derive(Default)]
pub(super) struct Memory {
    runs: u64,
    early: Option<u64>,
}

impl Memory {
    /// A run is over.
    pub(super) fn look(&mut self) {
        self.runs += 1;
        if self.runs == EARLY {
            self.early = cpu::resident();
        }
    }

    /// Says what a long set came to.
    pub(super) fn tell(&self) {
        if let (Some(early), Some(now)) = (self.early, cpu::resident()) {
            let megabytes = |bytes: u64| bytes / 1_000_000;
            let (early, now, runs) = (megabytes(early), megabytes(now), self.runs);
            println!("memory: {early} MB after {EARLY} runs, {now} MB after {runs}");
        }
    }
}
