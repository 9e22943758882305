//! How fast a scrub reads, how far it is, and whether it goes on.

use redoubt_ports::StoreKey;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// Watches a scrub from outside, and stops it.
#[derive(Debug, Default)]
pub struct ScrubWatch {
    done: AtomicU64,
    all: AtomicU64,
    stopped: AtomicBool,
    /// Segments that an earlier scrub found whole.
    known: BTreeSet<StoreKey>,
    /// Those that this one found whole since it was asked for them.
    whole: Mutex<Vec<StoreKey>>,
}

impl ScrubWatch {
    /// Goes on where a scrub was interrupted that found these segments whole: they are not read again (SC-5).
    pub fn resumed(known: BTreeSet<StoreKey>) -> ScrubWatch {
        ScrubWatch { known, ..ScrubWatch::default() }
    }

    /// Takes the names of segments that were found whole since the last call: what another scrub goes on from.
    pub fn take_whole(&self) -> Vec<StoreKey> {
        std::mem::take(&mut self.whole.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn knows(&self, name: &StoreKey) -> bool {
        self.known.contains(name)
    }

    pub(super) fn is_whole(&self, name: &StoreKey) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
    }

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

/// How long a wait goes on when the scrub is stopped.
const STEP: Duration = Duration::from_millis(100);

/// Spreads reads over time: each waits until those before it are paid for, and pays for itself.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// One at a time. No clock is looked at: what a read takes by itself comes on top.
    turn: tokio::sync::Mutex<()>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Pace {
        Pace {
            bytes_per_second: bytes_per_second.filter(|rate| *rate > 0),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits until so many bytes may be read; false if the scrub is stopped before: a large object at a low rate is a
    /// long wait, and behind it are others.
    pub(super) async fn turn(&self, bytes: u64, watch: &ScrubWatch) -> bool {
        let Some(rate) = self.bytes_per_second else { return true };
        let _turn = self.turn.lock().await;
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let mut left = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        while !left.is_zero() && !watch.is_stopped() {
            let step = left.min(STEP);
            sleep(step).await;
            left -= step;
        }
        left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_turn_is_sent_away_when_the_scrub_is_stopped() {
        let (pace, watch) = (Pace::new(Some(1 << 20)), ScrubWatch::default());
        assert!(pace.turn(3 << 20, &watch).await, "it is paid for");
        let stop = async {
            sleep(STEP * 3).await;
            watch.stop();
        };
        let waits = futures::future::join(pace.turn(16 << 20, &watch), pace.turn(16 << 20, &watch));
        let (paid, ()) = futures::future::join(waits, stop).await;
        assert_eq!(paid, (false, false), "neither the one whose turn it is nor the one behind it");
        assert!(Pace::new(None).turn(1, &watch).await, "without a rate nobody waits");
    }
}
