//! What is on its way, so that nothing is fetched twice at once.
//!
//! Who claims a key loads it; who comes later waits for the landing and looks again. A claim ends when it is
//! dropped, whether or not the load worked, and nobody waits while it holds one: no two can wait for each other.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Keys on their way.
#[derive(Debug)]
pub(crate) struct Flights<K> {
    busy: Mutex<BTreeSet<K>>,
    landed: Notify,
}

impl<K> Default for Flights<K> {
    fn default() -> Flights<K> {
        Flights { busy: Mutex::new(BTreeSet::new()), landed: Notify::new() }
    }
}

/// Keys that one load claimed.
#[derive(Debug)]
pub(crate) struct Claim<'a, K: Ord> {
    flights: &'a Flights<K>,
    keys: Vec<K>,
}

impl<K: Ord + Copy> Flights<K> {
    /// Waits for the next end of a claim after this call.
    pub(crate) fn landing(&self) -> Notified<'_> {
        self.landed.notified()
    }

    /// Makes an empty claim.
    pub(crate) fn claim(&self) -> Claim<'_, K> {
        Claim { flights: self, keys: Vec::new() }
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<K>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Copy> Claim<'_, K> {
    /// Claims a key; false if another load has it.
    pub(crate) fn add(&mut self, key: K) -> bool {
        let is_free = self.flights.busy().insert(key);
        if is_free {
            self.keys.push(key);
        }
        is_free
    }
}

impl<K: Ord> Drop for Claim<'_, K> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut busy = self.flights.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            busy.remove(key);
        }
        drop(busy);
        self.flights.landed.notify_waiters();
    }
}
