//! What a mount says of reads that failed: a client sees no more than an input/output error.
//!
//! Each damaged place is told once, and that the vault is away once in a while: clients ask again and again, and what is
//! told must stay readable.

use redoubt_core::{Extent, Instant};
use redoubt_ports::Clock;
use redoubt_vault::ReadError;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Damaged places that are told; a scrub lists them all.
const PLACES_MAX: usize = 16;
/// An outage is told again after this. That it ended is not: a read that the cache serves says nothing of it.
const PAUSE: Duration = Duration::from_mins(5);

/// What was told.
pub(super) struct Told {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    places: BTreeSet<String>,
    away: Option<Instant>,
}

impl Told {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Told {
        Told { state: Mutex::default(), clock }
    }

    /// A read ended with an error.
    pub(super) fn failed(&self, extent: Extent, error: &ReadError) {
        match error {
            ReadError::Store(_) => self.away(extent, &error.to_string()),
            _ if self.is_new(error.to_string()) => {
                tracing::warn!(role = "mount", "cannot read {extent} of the point: {error}");
            }
            _ => {}
        }
    }

    /// A read ended because the vault gave no answer.
    pub(super) fn away(&self, extent: Extent, why: &str) {
        if self.is_time() {
            tracing::warn!(
                role = "mount",
                "cannot read {extent} of the point while the vault is away: {why}"
            );
        }
    }

    /// Takes note of a place; false if it was told, or enough were.
    fn is_new(&self, place: String) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.places.len() < PLACES_MAX && state.places.insert(place)
    }

    /// Tells whether to speak of an outage.
    fn is_time(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let is_time = state.away.is_none_or(|told| now.since(told) >= PAUSE);
        if is_time {
            state.away = Some(now);
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TokioClock;

    fn told() -> Told {
        Told::new(Arc::new(TokioClock::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_told_once_and_many_places_come_to_an_end() {
        let told = told();
        assert!(told.is_new("one".to_owned()) && !told.is_new("one".to_owned()));
        let new = (0..100).filter(|place| told.is_new(place.to_string())).count();
        assert_eq!(new, PLACES_MAX - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_again_after_a_while() {
        let told = told();
        for _ in 0..2 {
            assert!(told.is_time() && !told.is_time());
            tokio::time::advance(PAUSE / 2).await;
            assert!(!told.is_time());
            tokio::time::advance(PAUSE / 2).await;
        }
    }
}
