//! The object store: strongly consistent, put-if-absent, and able to answer in every unhelpful way.

use super::{Shared, SimNet, lock};
use crate::oracles::secrets;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a caller waits for an answer that does not come.
const SILENCE: Duration = Duration::from_secs(3);

/// Chances of faults in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Knobs {
    throttle: u32,
    lost_replies: u32,
    late: u32,
    false_conflicts: u32,
    outage: u32,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<StoreKey, Bytes>,
    knobs: Knobs,
    /// Puts that were applied, with time and host: the truth for the single-writer oracle.
    puts: Vec<(Duration, String, StoreKey)>,
}

/// The store of a world.
#[derive(Clone)]
pub struct SimStore {
    shared: Shared,
    net: SimNet,
    state: Arc<Mutex<State>>,
}

impl SimStore {
    pub(super) fn new(shared: Shared, net: SimNet) -> SimStore {
        SimStore { shared, net, state: Arc::new(Mutex::new(State::default())) }
    }

    /// Sets a knob by its name in scenario files.
    pub fn set(&self, knob: &str, ppm: u32) {
        let knobs = &mut lock(&self.state).knobs;
        match knob {
            "throttle" => knobs.throttle = ppm,
            "lost-replies" => knobs.lost_replies = ppm,
            "late" => knobs.late = ppm,
            "false-conflicts" => knobs.false_conflicts = ppm,
            "outage" => knobs.outage = ppm,
            other => unreachable!("the key table knows no store knob {other}"),
        }
    }

    /// Lifts every fault.
    pub fn lift_faults(&self) {
        lock(&self.state).knobs = Knobs::default();
    }

    /// Returns the names and sizes of all objects.
    pub fn truth(&self) -> Vec<(StoreKey, u64)> {
        lock(&self.state).objects.iter().map(|(key, body)| (key.clone(), body.len() as u64)).collect()
    }

    /// Returns every put that was applied: when, from which host, which object.
    pub fn puts(&self) -> Vec<(Duration, String, StoreKey)> {
        lock(&self.state).puts.clone()
    }

    /// Flips one bit of the object; tells whether it exists and is not empty.
    pub fn rot(&self, key: &StoreKey) -> bool {
        let mut state = lock(&self.state);
        let Some(body) = state.objects.get_mut(key).filter(|body| !body.is_empty()) else { return false };
        let mut bytes = body.to_vec();
        let at = self.shared.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.shared.below(8);
        *body = bytes.into();
        true
    }

    fn apply(&self, host: &str, key: &StoreKey, body: &Bytes) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if state.objects.contains_key(key) {
            return Err(StoreError::AlreadyExists);
        }
        if let Some(finding) = secrets::judge(&format!("object {key}"), body) {
            self.shared.trace.finding(finding);
        }
        let now = self.shared.now();
        self.shared.trace.event(now, key.as_str(), body);
        state.objects.insert(key.clone(), body.clone());
        state.puts.push((now, host.to_owned(), key.clone()));
        Ok(())
    }

    /// Returns the store as an operator at the recovery site sees it: no faults, no delay.
    pub fn direct(&self) -> Arc<dyn RawStore> {
        Arc::new(Direct(self.clone()))
    }
}

/// The store as seen from a host.
pub(super) struct HostStore {
    store: SimStore,
    host: String,
}

impl HostStore {
    pub(super) fn new(store: SimStore, host: &str) -> HostStore {
        HostStore { store, host: host.to_owned() }
    }

    /// The way there and the faults that hit before anything happens.
    async fn reach(&self, bytes: usize) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        let link = self.store.net.link(&self.host, "target");
        let back = self.store.net.link("target", &self.host);
        let knobs = lock(&self.store.state).knobs;
        let transfer = Duration::from_nanos(bytes as u64 * 1_000_000_000 / link.speed.max(1));
        tokio::time::sleep(link.delay + shared.micros(2_000, 12_000) + transfer).await;
        if link.cut || back.cut || shared.chance(knobs.outage) {
            shared.trace.fault();
            tokio::time::sleep(SILENCE).await;
            return Err(StoreError::Unavailable("no answer".into()));
        }
        if shared.chance(knobs.throttle) {
            shared.trace.fault();
            let retry_after = (shared.below(2) == 0).then(|| shared.micros(10_000, 400_000));
            return Err(StoreError::Throttled { retry_after });
        }
        Ok(())
    }

    /// The way back: an answer that is lost.
    async fn answer(&self) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        let knobs = lock(&self.store.state).knobs;
        let back = self.store.net.link("target", &self.host);
        tokio::time::sleep(back.delay).await;
        if back.cut || shared.chance(knobs.lost_replies) {
            shared.trace.fault();
            tokio::time::sleep(SILENCE).await;
            return Err(StoreError::Ambiguous("the reply was lost".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl RawStore for HostStore {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.reach(body.len()).await?;
        let shared = self.store.shared.clone();
        let knobs = lock(&self.store.state).knobs;
        if shared.chance(knobs.late) {
            // The request hangs in the network and is applied long after its sender gave up.
            shared.trace.fault();
            let (store, host, key) = (self.store.clone(), self.host.clone(), key.clone());
            let delay = shared.micros(100_000, 15_000_000);
            shared.leave_to_hardware(async move {
                tokio::time::sleep(delay).await;
                let _ = store.apply(&host, &key, &body);
            });
            tokio::time::sleep(SILENCE.min(delay)).await;
            return Err(StoreError::Ambiguous("no answer in time".into()));
        }
        if shared.chance(knobs.false_conflicts) {
            shared.trace.fault();
            if shared.below(2) == 0 {
                let _ = self.store.apply(&self.host, key, &body);
            }
            return Err(StoreError::AlreadyExists);
        }
        let result = self.store.apply(&self.host, key, &body);
        self.answer().await?;
        result
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.reach(0).await?;
        let found = self.store.direct().get(key, range).await;
        self.answer().await?;
        found
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.reach(0).await?;
        let found = self.store.direct().list_after(prefix, after, limit).await;
        self.answer().await?;
        found
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.reach(0).await?;
        lock(&self.store.state).objects.remove(key);
        self.answer().await
    }
}

/// The store without faults and without delay.
struct Direct(SimStore);

#[async_trait]
impl RawStore for Direct {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.0.apply("operator", key, &body)
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        let state = lock(&self.0.state);
        Ok(state.objects.get(key).map(|body| match range {
            Some(range) => {
                let length = body.len() as u64;
                let (from, to) = (range.start.min(length), range.end.min(length));
                body.slice(from as usize..to.max(from) as usize)
            }
            None => body.clone(),
        }))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let state = lock(&self.0.state);
        let found = state
            .objects
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix) && after.is_none_or(|after| *key > after));
        Ok(found.take(limit).map(|(key, body)| (key.clone(), body.len() as u64)).collect())
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        lock(&self.0.state).objects.remove(key);
        Ok(())
    }
}
