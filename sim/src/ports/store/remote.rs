//! The store as seen from a host: the way there, the store's own time, the faults of a request, the way back.

use super::faults::{BrokenPromise, Knobs, SILENCE, STALENESS};
use super::{SimStore, lock};
use crate::ports::net::Way;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreError, StoreKey, pause};
use std::ops::Range;
use std::time::Duration;

/// Where the store is.
const SITE: &str = "target";

/// Bytes of a request or an answer beside its body.
const REQUEST: usize = 500;

/// Bytes of a request that do not grow with its data: its own, and the headers of the object in it.
const FIXED: u64 = REQUEST as u64 + 500;

/// Bytes of one name in a listing.
const ENTRY: usize = 150;

/// The store as seen from a host.
pub(in crate::ports) struct HostStore {
    store: SimStore,
    host: String,
    there: Way,
    back: Way,
    /// It is as fast as it is, whatever the scale.
    is_whole: bool,
}

impl HostStore {
    pub(in crate::ports) fn new(store: SimStore, host: &str) -> HostStore {
        let (there, back) = (store.net.way(host, SITE), store.net.way(SITE, host));
        HostStore { store, host: host.to_owned(), there, back, is_whole: false }
    }

    pub(super) fn whole(store: SimStore, host: &str) -> HostStore {
        HostStore { is_whole: true, ..HostStore::new(store, host) }
    }

    fn knobs(&self) -> Knobs {
        lock(&self.store.state).knobs
    }

    /// Notes that a fault of the store was met.
    fn met(&self) {
        self.store.shared.trace.mark("store-fault-hit");
    }

    /// Sends bytes over the link and returns how long they are on their way.
    fn carry(&self, way: Way, bytes: usize) -> Duration {
        let fixed = if self.is_whole { u64::MAX } else { FIXED };
        let arrival = self.store.net.carry(way, bytes as u64, fixed);
        arrival.saturating_sub(self.store.shared.now())
    }

    /// Returns the store's own time for a request with or for this many bytes.
    fn serve(&self, bytes: usize) -> Duration {
        let (shared, model) = (&self.store.shared, &self.store.model);
        let factor = if self.is_whole { self.store.net.scale() } else { 1 };
        let rate = model.bytes_per_second.saturating_mul(factor).max(1);
        let transfer = Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate);
        shared.draw(&model.request_us) + transfer
    }

    /// The way there and the faults that hit before anything happens.
    async fn reach(&self, name: &str, bytes: usize) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        if self.store.has_tripped(&self.host) {
            return std::future::pending().await;
        }
        // In one wait: nothing is looked at between the two.
        pause(self.carry(self.there, bytes + REQUEST) + self.serve(bytes)).await;
        let (link, back) = (self.store.net.link(self.there), self.store.net.link(self.back));
        let knobs = self.knobs();
        let is_cut = link.cut || back.cut;
        if is_cut || shared.bites("store.outage", knobs.outage) {
            if is_cut {
                shared.trace.bite("link.cut");
            }
            self.met();
            tokio::time::sleep(SILENCE).await;
            return Err(StoreError::Unavailable("no answer".into()));
        }
        if shared.bites("store.throttle", knobs.throttle) {
            self.met();
            let retry_after = (shared.below(2) == 0).then(|| shared.micros(10_000, 400_000));
            return Err(StoreError::Throttled { retry_after });
        }
        if let Some(slowness) = knobs.slowness(shared, name) {
            shared.trace.bite("store.slow");
            shared.trace.mark("slow-object-met");
            tokio::time::sleep(slowness).await;
        }
        Ok(())
    }

    /// The object is there, and its creator was told that it may not be, or that it is another's.
    fn was_misled(&self, key: &StoreKey) {
        lock(&self.store.state).unanswered.insert((self.host.clone(), key.clone()));
    }

    /// The way back of what was true at a time: an answer that is lost, or that nobody hears because its process ends with the effect.
    async fn answer(&self, bytes: usize, of: Duration) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        if self.store.has_tripped(&self.host) {
            return std::future::pending().await;
        }
        pause(self.carry(self.back, bytes + REQUEST)).await;
        self.store.told(&self.host, of);
        let back = self.store.net.link(self.back);
        if back.cut || shared.bites("store.lost-replies", self.knobs().lost_replies) {
            self.met();
            tokio::time::sleep(SILENCE).await;
            return Err(StoreError::Ambiguous("the reply was lost".into()));
        }
        Ok(())
    }

    /// Leaves the request to the network, which performs it after `delay`; its sender waits, and gives up.
    async fn leave(&self, delay: Duration, effect: impl FnOnce(&SimStore) + Send + 'static) -> StoreError {
        self.met();
        self.store.later(delay, effect);
        tokio::time::sleep(SILENCE.min(delay)).await;
        StoreError::Ambiguous("no answer in time".into())
    }
}

#[async_trait]
impl RawStore for HostStore {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.store.sent(key, &body);
        let at = self.store.shared.now();
        self.reach(key.as_str(), body.len()).await?;
        let (shared, knobs) = (&self.store.shared, self.knobs());
        if shared.bites("store.full", knobs.full) {
            self.met();
            shared.trace.mark("store-was-full");
            self.answer(0, self.store.shared.now()).await?;
            return Err(StoreError::NoSpace);
        }
        if let Some(delay) = knobs.lateness(shared) {
            let (host, key) = (self.host.clone(), key.clone());
            let create = move |store: &SimStore| drop(store.create_asked(&host, &key, &body, at));
            return Err(self.leave(delay, create).await);
        }
        if shared.bites("store.false-conflicts", knobs.false_conflicts) {
            self.met();
            if shared.below(2) == 0 && self.store.create_asked(&self.host, key, &body, at).is_ok() {
                self.was_misled(key);
            }
            return Err(StoreError::AlreadyExists);
        }
        let broken = lock(&self.store.state).broken;
        if broken == Some(BrokenPromise::RacyCreation) {
            let is_free = !lock(&self.store.state).objects.contains_key(key);
            tokio::time::sleep(STALENESS).await;
            if is_free {
                lock(&self.store.state).objects.remove(key);
            }
        }
        let result = self.store.create_asked(&self.host, key, &body, at);
        let answer = self.answer(0, self.store.shared.now()).await;
        if result.is_ok() && answer.is_err() {
            self.was_misled(key);
        }
        answer?;
        result
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.reach(key.as_str(), 0).await?;
        let found = match self.store.hides(BrokenPromise::StaleRead, key) {
            true => None,
            false => self.store.read(key, range),
        };
        let of = self.store.shared.now();
        let bytes = found.as_ref().map_or(0, Bytes::len);
        pause(self.serve(bytes)).await;
        self.answer(bytes, of).await?;
        if bytes > 0 && lock(&self.store.state).unanswered.remove(&(self.host.clone(), key.clone())) {
            self.store.shared.trace.mark("lost-reply-read-back");
        }
        Ok(found)
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.reach(prefix, 0).await?;
        let mut found = self.store.direct().list_after(prefix, after, limit).await;
        if let Ok(found) = &mut found {
            found.retain(|(key, _)| !self.store.hides(BrokenPromise::StaleList, key));
        }
        let of = self.store.shared.now();
        self.answer(found.as_ref().map_or(0, |found| found.len() * ENTRY), of).await?;
        found
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let at = self.store.shared.now();
        self.reach(key.as_str(), 0).await?;
        let (shared, knobs) = (&self.store.shared, self.knobs());
        if let Some(delay) = knobs.lateness(shared) {
            let (host, key) = (self.host.clone(), key.clone());
            let remove = move |store: &SimStore| drop(store.remove_asked(&host, &key, at));
            return Err(self.leave(delay, remove).await);
        }
        let removed = self.store.remove_asked(&self.host, key, at);
        self.answer(0, self.store.shared.now()).await?;
        if let Some(body) = removed
            && shared.bites("store.resurrections", knobs.resurrections)
        {
            self.store.bring_back(&self.host, key, body);
        }
        Ok(())
    }
}
