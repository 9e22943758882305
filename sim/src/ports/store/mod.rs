//! The object store: strongly consistent, put-if-absent, and able to answer in every unhelpful way.
//!
//! Here is the truth: what is stored, and what ever happened to it. Faults of requests are in `faults` and
//! `remote`, damage at rest in `damage`.

mod damage;
mod faults;
mod remote;

pub use faults::BrokenPromise;
pub(in crate::ports) use remote::HostStore;

use super::{Shared, SimNet, lock};
use crate::oracles::history::{Deed, Effect};
use crate::oracles::seals::Seals;
use crate::oracles::secrets;
use bytes::Bytes;
use damage::Spoilt;
use faults::{BACK, Knobs, STALENESS};
use redoubt_hw_models::StoreModel;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes of an object that its effect remembers: the clear headers of the vault's format are not longer.
const HEADER: usize = 144;

/// Where the header of a catalogue says the last slot that it covers (`engine/docs/vault-format.md`).
const SLOT_AT: Range<usize> = 80..88;

/// Objects by name.
type Objects = BTreeMap<StoreKey, Bytes>;

#[derive(Default)]
struct State {
    broken: Option<BrokenPromise>,
    objects: Objects,
    knobs: Knobs,
    effects: Vec<Effect>,
    /// Objects that were created for a host that was told something else.
    unanswered: BTreeSet<(String, StoreKey)>,
    spoilt: Option<Spoilt>,
    /// Something was damaged, or an old copy took its place.
    has_lost: bool,
    seals: Seals,
    /// Every object as it was, and how much had happened then.
    copy: Option<(Objects, usize)>,
    /// When the copy was put in the place of everything.
    turned: Option<Duration>,
    /// When hosts had their last answers from before that.
    misled: BTreeMap<String, Duration>,
    /// What deletions took from the copy that were on their way when it was put there.
    struck: Objects,
    /// Hosts whose process is to end, with the effects that it still has.
    tripwires: BTreeMap<String, u64>,
    /// Hosts whose process ends with what it just did.
    tripped: BTreeSet<String>,
}

impl State {
    /// Tells whether who asked at this time may have known only what was there before an old copy took its place.
    fn was_before_turn(&self, host: &str, at: Duration) -> bool {
        let is_misled = self.misled.get(host).is_some_and(|until| at <= *until);
        is_misled || self.turned.is_some_and(|turned| at < turned)
    }

    /// Tells whether a new object is bound to the vault whose place an old copy took: a slot that was on its way, or a
    /// catalogue that covers slots which are not there. A claim is one in any copy.
    fn is_of_before(&self, host: &str, key: &StoreKey, body: &Bytes, at: Duration) -> bool {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match parts[..] {
            ["g", _, "log", _] => self.was_before_turn(host, at),
            ["g", machine, "cat", _] => {
                let slot =
                    body.get(SLOT_AT).and_then(|slot| slot.try_into().ok()).map_or(0, u64::from_le_bytes);
                let last = StoreKey::new(format!("g/{machine}/log/{slot:016x}"));
                self.turned.is_some() && !self.objects.contains_key(&last)
            }
            _ => false,
        }
    }
}

/// The store of a world.
#[derive(Clone)]
pub struct SimStore {
    shared: Shared,
    net: SimNet,
    model: Arc<StoreModel>,
    state: Arc<Mutex<State>>,
    /// Wakes whatever is still on the way.
    landing: Arc<Notify>,
}

impl SimStore {
    pub(super) fn new(shared: Shared, net: SimNet, model: StoreModel) -> SimStore {
        SimStore { shared, net, model: Arc::new(model), state: Arc::default(), landing: Arc::default() }
    }

    /// Returns the store as seen from a host, as fast as it is, whatever the scale: for what reads the same bytes in an
    /// estate of any size.
    pub fn whole(&self, host: &str) -> Arc<dyn RawStore> {
        Arc::new(HostStore::whole(self.clone(), host))
    }

    /// Sets a knob by its name in scenario files.
    pub fn set(&self, knob: &str, ppm: u32) {
        *lock(&self.state).knobs.by_name(knob) = ppm;
    }

    /// Makes it a store that no vault can be built on.
    pub fn break_promise(&self, broken: BrokenPromise) {
        lock(&self.state).broken = Some(broken);
    }

    /// Tells whether the store still hides this object, as a store does that breaks this promise.
    fn hides(&self, promise: BrokenPromise, key: &StoreKey) -> bool {
        let state = lock(&self.state);
        let is_young =
            |effect: &Effect| effect.key == *key && self.shared.now().saturating_sub(effect.at) < STALENESS;
        state.broken == Some(promise) && state.effects.iter().rev().any(is_young)
    }

    /// Tells whether nobody gets an answer just now.
    pub fn is_out(&self) -> bool {
        lock(&self.state).knobs.outage > 0
    }

    /// Takes note of a body that leaves a host.
    fn sent(&self, key: &StoreKey, body: &Bytes) {
        if let Some(finding) = lock(&self.state).seals.sent(key.as_str(), body) {
            self.shared.trace.finding(finding);
        }
    }

    /// Lifts every fault. What is on the way stays on the way.
    pub fn lift_faults(&self) {
        let mut state = lock(&self.state);
        state.knobs = Knobs::default();
        state.tripwires.clear();
    }

    /// Lets everything that is still on the way arrive now: late creations, late deletions, what comes back.
    pub fn land(&self) {
        self.landing.notify_waiters();
    }

    /// Lets the host's process end with its effect number `count` from now on: nothing that it asks for
    /// afterwards happens, and [`SimStore::tripped`] names it.
    pub fn trip(&self, host: &str, count: u64) {
        lock(&self.state).tripwires.insert(host.to_owned(), count.max(1));
    }

    /// Returns the hosts whose processes are to be ended.
    pub fn tripped(&self) -> Vec<String> {
        lock(&self.state).tripped.iter().cloned().collect()
    }

    /// The host's process was ended.
    pub fn was_ended(&self, host: &str) {
        lock(&self.state).tripped.remove(host);
    }

    fn has_tripped(&self, host: &str) -> bool {
        lock(&self.state).tripped.contains(host)
    }

    /// Returns the names and sizes of all objects.
    pub fn truth(&self) -> Vec<(StoreKey, u64)> {
        lock(&self.state).objects.iter().map(|(key, body)| (key.clone(), body.len() as u64)).collect()
    }

    /// Returns everything that happened, in order.
    pub fn effects(&self) -> Vec<Effect> {
        lock(&self.state).effects.clone()
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

    fn create(&self, host: &str, key: &StoreKey, body: &Bytes) -> Result<(), StoreError> {
        self.create_asked(host, key, body, self.shared.now())
    }

    /// As [`SimStore::create`], asked for at a time: it may have been on its way when an old copy took the place of
    /// everything.
    fn create_asked(&self, host: &str, key: &StoreKey, body: &Bytes, at: Duration) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if state.objects.contains_key(key) {
            return Err(StoreError::AlreadyExists);
        }
        if let Some(finding) = secrets::judge(|| format!("object {key}"), body) {
            self.shared.trace.finding(finding);
        }
        self.shared.trace.event(self.shared.now(), key.as_str(), body);
        state.objects.insert(key.clone(), body.clone());
        let is_of_before = state.is_of_before(host, key, body, at);
        if !is_of_before {
            self.note(&mut state, host, key, Deed::Created, &body[..body.len().min(HEADER)]);
        }
        Ok(())
    }

    /// A host was told what was true at a time.
    fn told(&self, host: &str, of: Duration) {
        let mut state = lock(&self.state);
        if state.turned.is_some_and(|turned| of < turned) {
            state.misled.insert(host.to_owned(), self.shared.now());
        }
    }

    /// As [`SimStore::remove`], asked for at a time. If it was on its way when an old copy took the place of everything, it
    /// is the doing of whoever put that there.
    fn remove_asked(&self, host: &str, key: &StoreKey, at: Duration) -> Option<Bytes> {
        let mut state = lock(&self.state);
        if !state.was_before_turn(host, at) {
            drop(state);
            return self.remove(host, key);
        }
        let body = state.objects.remove(key)?;
        self.shared.trace.event(self.shared.now(), &format!("delete {key}, late"), &[]);
        self.shared.trace.mark("old-copy-was-struck");
        state.struck.insert(key.clone(), body);
        None
    }

    /// Removes an object; returns its bytes if it was there.
    fn remove(&self, host: &str, key: &StoreKey) -> Option<Bytes> {
        let mut state = lock(&self.state);
        let body = state.objects.remove(key)?;
        self.shared.trace.event(self.shared.now(), &format!("delete {key}"), &[]);
        self.note(&mut state, host, key, Deed::Deleted, &[]);
        Some(body)
    }

    fn note(&self, state: &mut State, host: &str, key: &StoreKey, deed: Deed, header: &[u8]) {
        let (at, host_name, header) = (self.shared.now(), host.to_owned(), header.to_vec());
        state.effects.push(Effect { at, host: host_name, key: key.clone(), deed, header });
        let Some(left) = state.tripwires.get_mut(host) else { return };
        *left -= 1;
        if *left == 0 {
            state.tripwires.remove(host);
            state.tripped.insert(host.to_owned());
            self.shared.trace.line(at, || format!("{host} ends with {deed:?} {key}"));
            self.shared.trip();
        }
    }

    /// Does something after a while, or as soon as everything on the way arrives; nobody waits for it.
    fn later(&self, delay: Duration, effect: impl FnOnce(&SimStore) + Send + 'static) {
        let store = self.clone();
        self.shared.leave_to_hardware(async move {
            tokio::select! {
                biased;
                () = store.landing.notified() => {}
                () = tokio::time::sleep(delay) => {}
            }
            effect(&store);
        });
    }

    /// Undoes a deletion after a while.
    fn bring_back(&self, host: &str, key: &StoreKey, body: Bytes) {
        self.shared.trace.mark("deletion-undone");
        let (host, key) = (host.to_owned(), key.clone());
        self.later(self.shared.micros(BACK.start, BACK.end), move |store| {
            let mut state = lock(&store.state);
            if !state.objects.contains_key(&key) {
                state.objects.insert(key.clone(), body);
                store.note(&mut state, &host, &key, Deed::CameBack, &[]);
            }
        });
    }
}
