//! Time and randomness from the kernel.
//!
//! What is *not* here: time zones, and any use of the wall clock for order.

use redoubt_core::{Instant, WallTime};
use redoubt_ports::{Clock, Entropy};
use std::time::{SystemTime, UNIX_EPOCH};

/// `CLOCK_MONOTONIC` since this value was made, and `CLOCK_REALTIME`.
#[derive(Debug)]
pub struct HostClock {
    origin: std::time::Instant,
}

impl HostClock {
    /// Makes a clock whose monotonic time starts now.
    pub fn new() -> HostClock {
        HostClock { origin: std::time::Instant::now() }
    }
}

impl Default for HostClock {
    fn default() -> HostClock {
        HostClock::new()
    }
}

impl Clock for HostClock {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `getrandom(2)`.
#[derive(Debug, Clone, Copy)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    /// Fills the buffer; panics if the kernel has no random numbers, because going on with
    /// predictable keys would be worse than stopping.
    fn fill(&self, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::rand::getrandom(&mut buffer[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no random numbers: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_ids_differ() {
        let clock = HostClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.wall() > WallTime(1_600_000_000_000));
        assert_ne!(HostEntropy.id(), HostEntropy.id());
    }
}
