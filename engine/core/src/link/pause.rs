//! Decides how long the link pauses between two attempts (LK-3).
//!
//! A session that was welcomed and then ended without having been of use counts as a failed attempt: a
//! process server that accepts sessions and cannot stage a batch would else be tried once a second for ever.
//!
//! What is *not* here: what ends an attempt (the link).

use crate::time::Instant;
use std::time::Duration;

/// Longest pause between attempts. A session that stood this long was of use.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Counts failures and draws pauses.
#[derive(Debug)]
pub(super) struct Pause {
    failures: u32,
    jitter: u64,
    streaming_since: Option<Instant>,
}

impl Pause {
    pub(super) fn new(jitter_seed: u64) -> Pause {
        Pause { failures: 0, jitter: jitter_seed, streaming_since: None }
    }

    /// Something changed that makes earlier failures old news: a start, or an acknowledgement.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn on_streaming(&mut self, now: Instant) {
        self.streaming_since = Some(now);
    }

    /// An attempt or a session failed. Returns the pause before the next attempt.
    pub(super) fn after_failure(&mut self, now: Instant) -> Duration {
        if self.streaming_since.take().is_some_and(|since| now.since(since) >= BACKOFF_MAX) {
            self.reset();
        }
        let whole = Duration::from_secs(1 << self.failures.min(5)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        // A linear congruential step is enough to spread agents; nothing depends on its quality.
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        whole - whole / 4 * ((self.jitter >> 48) as u32) / 65_536
    }
}
