//! Helpers of the vault's tests: seeded entropy, a faulty store, an image oracle.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod another_life;
pub(crate) mod damage;
pub(crate) mod model;
pub(crate) mod mortal;
pub(crate) mod old_copy;
pub(crate) mod replaced;
pub(crate) mod replaced_store;
pub(crate) mod republished;
pub(crate) mod stranger;

use async_trait::async_trait;
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_core::{Change, MarkerId, Record, SECTOR_BYTES, VolumeId, VolumeIndex};
use redoubt_ports::{Entropy, RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::MemStore;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Repeatable randomness.
pub(crate) struct Seeded(Mutex<ChaCha8Rng>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Arc<Seeded> {
        Arc::new(Seeded(Mutex::new(ChaCha8Rng::seed_from_u64(seed))))
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.lock().unwrap().next_u64() % bound
    }

    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap().fill_bytes(buffer);
    }
}

/// Runs a future on paused time: sleeps order the tasks, nothing waits for a clock.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

/// A store that delays, stalls, loses replies, applies late and lies about conflicts, all by seed.
pub(crate) struct Faulty {
    pub(crate) inner: Arc<MemStore>,
    pub(crate) dice: Arc<Seeded>,
    pub(crate) percent: u64,
}

#[async_trait]
impl StoreAround for Faulty {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_millis(1 + self.dice.below(40))).await;
        let lost = |what: &str| Err(StoreError::Ambiguous(what.to_owned()));
        if self.dice.chance(self.percent) {
            match self.dice.below(7) {
                0 => {
                    let _ = self.inner.put_if_absent(key, body).await;
                    return lost("reply lost");
                }
                1 => {
                    let (inner, key) = (self.inner.clone(), key.clone());
                    let late = Duration::from_millis(self.dice.below(2000));
                    tokio::spawn(async move {
                        tokio::time::sleep(late).await;
                        let _ = inner.put_if_absent(&key, body).await;
                    });
                    return lost("applied late");
                }
                2 => return Err(StoreError::AlreadyExists),
                3 => return Err(StoreError::Throttled { retry_after: Some(Duration::from_millis(7)) }),
                4 => return lost("request lost"),
                5 => {
                    // Durable at once, answered after others had time to take over.
                    let answer = self.inner.put_if_absent(key, body).await;
                    tokio::time::sleep(Duration::from_millis(self.dice.below(2000))).await;
                    return answer;
                }
                _ => return Err(StoreError::Unavailable("for a moment".to_owned())),
            }
        }
        self.inner.put_if_absent(key, body).await
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        tokio::time::sleep(Duration::from_millis(1 + self.dice.below(20))).await;
        if self.dice.chance(self.percent / 2) {
            return Err(StoreError::Unavailable("for a moment".to_owned()));
        }
        self.inner.get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        tokio::time::sleep(Duration::from_millis(1 + self.dice.below(20))).await;
        self.inner.list_after(prefix, after, limit).await
    }
}

/// The slow, obvious truth: whole images, copied at every marker that is a point.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    pub(crate) images: BTreeMap<VolumeIndex, Vec<u8>>,
    pub(crate) ids: BTreeMap<VolumeIndex, VolumeId>,
    pub(crate) exact: bool,
    pub(crate) points: BTreeMap<MarkerId, BTreeMap<VolumeIndex, Vec<u8>>>,
    pub(crate) order: Vec<(u64, MarkerId)>,
}

impl Oracle {
    pub(crate) fn apply(&mut self, record: &Record) {
        if let Some((volume, extent)) = record.change.touched() {
            let image = self.images.get_mut(&volume).unwrap();
            let range = extent.lba.bytes() as usize..(extent.end() * SECTOR_BYTES) as usize;
            match record.change.payload() {
                Some(payload) => image[range].copy_from_slice(payload),
                None => image[range].fill(0),
            }
            return;
        }
        match &record.change {
            Change::Attach { volume, id, sectors } => {
                let image = self.images.entry(*volume).or_default();
                if self.ids.insert(*volume, *id).is_some_and(|known| known != *id) {
                    image.clear();
                }
                image.resize(sectors.bytes() as usize, 0);
            }
            Change::Resize { volume, sectors } => {
                self.images.entry(*volume).or_default().resize(sectors.bytes() as usize, 0);
            }
            Change::ResyncBegin { .. } => self.exact = false,
            Change::ResyncEnd => self.exact = true,
            Change::Marker(marker) if self.exact => {
                self.points.insert(marker.id, self.images.clone());
                self.order.push((record.seq.0, marker.id));
            }
            _ => {}
        }
    }
}
