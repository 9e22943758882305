//! How fast a scrub reads, how far it is, and whether it goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Watches a scrub from outside, and stops it.
#[derive(Debug, Default)]
pub struct ScrubWatch {
    done: AtomicU64,
    all: AtomicU64,
    stopped: AtomicBool,
}

impl ScrubWatch {
    /// Ends the scrub at its next object.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Returns how many bytes of how many are checked.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn checked(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Spreads reads over time: each takes its turn when those before it are paid for.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Pace {
        Pace { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), free: Mutex::new(None) }
    }

    /// Waits until so many bytes may be read.
    pub(super) async fn turn(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let from = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let from = free.unwrap_or(now).max(now);
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
            *free = Some(from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
            from
        };
        sleep_until(from).await;
    }
}
