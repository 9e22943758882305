//! The object store: strongly consistent, put-if-absent, and able to answer in every unhelpful way.

use super::{Shared, SimNet, lock};
use crate::oracles::secrets;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_hw_models::StoreModel;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a caller waits for an answer that does not come.
const SILENCE: Duration = Duration::from_secs(3);

/// Where the store is.
const SITE: &str = "target";

/// Bytes of a request or an answer beside its body.
const REQUEST: usize = 500;

/// Bytes of one name in a listing.
const ENTRY: usize = 150;

/// Chances of faults in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Knobs {
    throttle: u32,
    lost_replies: u32,
    late: u32,
    false_conflicts: u32,
    outage: u32,
}

/// A promise of the port that a store of somebody else may not keep. No fault of a good store: no scenario has
/// it, and no vault may be made on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenPromise {
    /// Whether a name is free is looked up a moment before the object is put.
    RacyCreation,
    /// Objects can be read a moment after their creation.
    StaleRead,
    /// Objects are listed a moment after their creation.
    StaleList,
}

/// That moment: longer than a request in the same site takes.
const STALENESS: Duration = Duration::from_secs(1);

/// What befalls a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit changes.
    Rot,
    /// It is gone.
    Lost,
}

#[derive(Default)]
struct State {
    broken: Option<BrokenPromise>,
    objects: BTreeMap<StoreKey, Bytes>,
    knobs: Knobs,
    /// Puts that were applied, with time and host: the truth for the single-writer oracle.
    puts: Vec<(Duration, String, StoreKey)>,
    /// Objects that were created for a host that was told something else.
    unanswered: BTreeSet<(String, StoreKey)>,
    spoilt: Option<Spoilt>,
}

/// An object that an operator will meet damaged.
struct Spoilt {
    key: StoreKey,
    /// The byte that changed; none: all of it is gone.
    at: Option<u64>,
    is_met: bool,
}

/// The store of a world.
#[derive(Clone)]
pub struct SimStore {
    shared: Shared,
    net: SimNet,
    model: Arc<StoreModel>,
    state: Arc<Mutex<State>>,
}

impl SimStore {
    pub(super) fn new(shared: Shared, net: SimNet, model: StoreModel) -> SimStore {
        SimStore { shared, net, model: Arc::new(model), state: Arc::new(Mutex::new(State::default())) }
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

    /// Makes it a store that no vault can be built on.
    pub fn break_promise(&self, broken: BrokenPromise) {
        lock(&self.state).broken = Some(broken);
    }

    /// Tells whether the store still hides this object, as a store does that breaks this promise.
    fn hides(&self, promise: BrokenPromise, key: &StoreKey) -> bool {
        let state = lock(&self.state);
        let is_young = |(at, _, of): &(Duration, String, StoreKey)| {
            of == key && self.shared.now().saturating_sub(*at) < STALENESS
        };
        state.broken == Some(promise) && state.puts.iter().rev().any(is_young)
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

    /// Flips one bit of the object, or loses all of it. Returns its bytes from before; none if there are none.
    pub fn spoil(&self, key: &StoreKey, damage: Damage) -> Option<Bytes> {
        let mut state = lock(&self.state);
        let body = state.objects.get(key).filter(|body| !body.is_empty())?.clone();
        let at = match damage {
            Damage::Lost => {
                state.objects.remove(key);
                None
            }
            Damage::Rot => {
                let mut bytes = body.to_vec();
                let at = self.shared.below(bytes.len() as u64);
                bytes[at as usize] ^= 1 << self.shared.below(8);
                state.objects.insert(key.clone(), bytes.into());
                Some(at)
            }
        };
        state.spoilt = Some(Spoilt { key: key.clone(), at, is_met: false });
        Some(body)
    }

    /// Gives an object its bytes back. Tells whether an operator met the damage.
    pub fn restore(&self, key: &StoreKey, bytes: Bytes) -> bool {
        let mut state = lock(&self.state);
        state.objects.insert(key.clone(), bytes);
        state.spoilt.take().is_some_and(|spoilt| spoilt.is_met)
    }

    fn read(&self, key: &StoreKey, range: Option<Range<u64>>) -> Option<Bytes> {
        lock(&self.state).objects.get(key).map(|body| match range {
            Some(range) => {
                let length = body.len() as u64;
                let (from, to) = (range.start.min(length), range.end.min(length));
                body.slice(from as usize..to.max(from) as usize)
            }
            None => body.clone(),
        })
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

    /// Carries bytes over the link and waits for their arrival.
    async fn carry(&self, from: &str, to: &str, bytes: usize) {
        let arrival = self.store.net.carry(from, to, bytes as u64);
        tokio::time::sleep(arrival.saturating_sub(self.store.shared.now())).await;
    }

    /// The store's own time for a request with or for this many bytes.
    async fn serve(&self, bytes: usize) {
        let (shared, model) = (&self.store.shared, &self.store.model);
        let transfer = Duration::from_nanos(bytes as u64 * 1_000_000_000 / model.bytes_per_second.max(1));
        let latency = shared.micros(model.latency_us, model.latency_us + model.jitter_us);
        tokio::time::sleep(latency + transfer).await;
    }

    /// The way there and the faults that hit before anything happens.
    async fn reach(&self, bytes: usize) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        self.carry(&self.host, SITE, bytes + REQUEST).await;
        self.serve(bytes).await;
        let link = self.store.net.link(&self.host, SITE);
        let back = self.store.net.link(SITE, &self.host);
        let knobs = lock(&self.store.state).knobs;
        if link.cut || back.cut || shared.chance(knobs.outage) {
            shared.trace.mark("store-fault-hit");
            tokio::time::sleep(SILENCE).await;
            return Err(StoreError::Unavailable("no answer".into()));
        }
        if shared.chance(knobs.throttle) {
            shared.trace.mark("store-fault-hit");
            let retry_after = (shared.below(2) == 0).then(|| shared.micros(10_000, 400_000));
            return Err(StoreError::Throttled { retry_after });
        }
        Ok(())
    }

    /// The object is there, and its creator was told that it may not be, or that it is another's.
    fn was_misled(&self, key: &StoreKey) {
        lock(&self.store.state).unanswered.insert((self.host.clone(), key.clone()));
    }

    /// The way back: an answer that is lost.
    async fn answer(&self, bytes: usize) -> Result<(), StoreError> {
        let shared = &self.store.shared;
        self.carry(SITE, &self.host, bytes + REQUEST).await;
        let knobs = lock(&self.store.state).knobs;
        let back = self.store.net.link(SITE, &self.host);
        if back.cut || shared.chance(knobs.lost_replies) {
            shared.trace.mark("store-fault-hit");
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
            shared.trace.mark("store-fault-hit");
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
            shared.trace.mark("store-fault-hit");
            if shared.below(2) == 0 && self.store.apply(&self.host, key, &body).is_ok() {
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
        let result = self.store.apply(&self.host, key, &body);
        let answer = self.answer(0).await;
        if result.is_ok() && answer.is_err() {
            self.was_misled(key);
        }
        answer?;
        result
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.reach(0).await?;
        let found = match self.store.hides(BrokenPromise::StaleRead, key) {
            true => None,
            false => self.store.read(key, range),
        };
        let bytes = found.as_ref().map_or(0, Bytes::len);
        self.serve(bytes).await;
        self.answer(bytes).await?;
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
        self.reach(0).await?;
        let mut found = self.store.direct().list_after(prefix, after, limit).await;
        if let Ok(found) = &mut found {
            found.retain(|(key, _)| !self.store.hides(BrokenPromise::StaleList, key));
        }
        self.answer(found.as_ref().map_or(0, |found| found.len() * ENTRY)).await?;
        found
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.reach(0).await?;
        lock(&self.store.state).objects.remove(key);
        self.answer(0).await
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
        let all = 0..u64::MAX;
        let wanted = range.as_ref().unwrap_or(&all);
        if let Some(spoilt) = &mut lock(&self.0.state).spoilt {
            spoilt.is_met |= spoilt.key == *key && spoilt.at.is_none_or(|at| wanted.contains(&at));
        }
        Ok(self.0.read(key, range))
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
