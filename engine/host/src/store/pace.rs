//! A bound on what is sent to a store per second. Reading is not slowed: a recovery has no time to lose.

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Smallest bound, in bytes per second. The vault has at most 64 MiB on the way at once, and the last of it must
/// not wait past the half minute that an attempt lasts.
pub const RATE_MIN: u64 = 4 << 20;

/// A store whose creations wait for their turn.
pub(super) struct Paced {
    store: Arc<dyn RawStore>,
    bytes_per_second: u64,
    /// When what was sent so far has had its time.
    free: Mutex<Instant>,
}

impl Paced {
    pub(super) fn new(store: Arc<dyn RawStore>, rate: u64) -> Paced {
        Paced { store, bytes_per_second: rate.max(RATE_MIN), free: Mutex::new(Instant::now()) }
    }

    /// Takes the time for this many bytes and returns when they may start.
    fn reserve(&self, bytes: usize) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*free).max(Instant::now());
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        *free = start + Duration::from_nanos(nanos as u64);
        start
    }
}

#[async_trait]
impl StoreAround for Paced {
    fn inner(&self) -> &dyn RawStore {
        &*self.store
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        tokio::time::sleep_until(self.reserve(body.len())).await;
        self.store.put_if_absent(key, body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_takes_its_time_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(crate::LocalStore::open(directory.path()).unwrap());
        let paced = Paced::new(store, 8 << 20);
        let first = paced.reserve(16 << 20);
        let second = paced.reserve(4 << 20);
        assert_eq!(second - first, Duration::from_secs(2));
        assert_eq!(paced.reserve(0) - second, Duration::from_millis(500));
        assert_eq!(Paced::new(paced.store, 1).bytes_per_second, RATE_MIN);
    }
}
