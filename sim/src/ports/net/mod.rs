//! Links and sockets: directed links with delay, bandwidth, queue, loss and cuts; streams that end with
//! the process and fall silent with the power.
//!
//! All bytes between two sites share the link between them, whoever sends them.

mod link;
mod socket;
mod stream;

pub use link::LinkModel;
pub(in crate::ports) use socket::HostNet;

use super::{Shared, lock};
use socket::Listening;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stream::Direction;

/// What a lost packet costs until it is sent again.
const RETRANSMIT: Duration = Duration::from_millis(200);

struct HostState {
    site: String,
    powered: bool,
}

struct State {
    hosts: BTreeMap<String, HostState>,
    lan: LinkModel,
    wan: LinkModel,
    /// Faulted links by (from, to): host or site names.
    faults: BTreeMap<(String, String), LinkModel>,
    busy: BTreeMap<(String, String), Duration>,
    listeners: BTreeMap<(String, u16), Listening>,
    /// Listeners so far: each has its own number.
    listens: u64,
    pipes: Vec<Arc<Direction>>,
}

/// All links of a world.
#[derive(Clone)]
pub struct SimNet {
    shared: Shared,
    state: Arc<Mutex<State>>,
}

impl SimNet {
    pub(super) fn new(shared: Shared, lan: LinkModel, wan: LinkModel) -> SimNet {
        let state = State {
            hosts: BTreeMap::new(),
            lan,
            wan,
            faults: BTreeMap::new(),
            busy: BTreeMap::new(),
            listeners: BTreeMap::new(),
            listens: 0,
            pipes: Vec::new(),
        };
        SimNet { shared, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn add_host(&self, name: &str, site: &str) {
        let host = HostState { site: site.to_owned(), powered: true };
        lock(&self.state).hosts.insert(name.to_owned(), host);
    }

    pub(super) fn at(&self, host: &str) -> HostNet {
        HostNet { net: self.clone(), host: host.to_owned() }
    }

    /// Changes a link by name; `None` heals it.
    pub fn set_link(&self, link: &str, change: Option<&dyn Fn(LinkModel) -> LinkModel>) {
        let mut state = lock(&self.state);
        for (from, to) in link::ends(link) {
            let plain = state.plain(&from, &to);
            match change {
                Some(change) => {
                    state.faults.insert((from, to), change(plain));
                }
                None => {
                    state.faults.remove(&(from, to));
                }
            }
        }
        state.retime(self.shared.now());
        state.wake_all();
    }

    /// Heals every link.
    pub fn heal_all(&self) {
        let mut state = lock(&self.state);
        state.faults.clear();
        state.retime(self.shared.now());
        state.wake_all();
    }

    pub(super) fn set_power(&self, host: &str, powered: bool) {
        let mut state = lock(&self.state);
        if let Some(host) = state.hosts.get_mut(host) {
            host.powered = powered;
        }
        for direction in &state.pipes {
            if direction.from != host && direction.to != host {
                continue;
            }
            let mut pipe = lock(&direction.pipe);
            if powered {
                // The new system knows nothing of old connections: it answers them with a reset.
                pipe.reset |= pipe.silent;
            } else {
                pipe.silent = true;
            }
            pipe.wake();
        }
        state.pipes.retain(|direction| Arc::strong_count(direction) > 1);
    }

    /// Returns what lies between a host and a place now.
    pub(super) fn link(&self, from: &str, to: &str) -> LinkModel {
        lock(&self.state).link(from, to)
    }

    /// Returns what lies between, and how long a sender has to wait at its entrance, if at all.
    fn entrance(&self, from: &str, to: &str) -> (LinkModel, Option<Duration>) {
        let state = lock(&self.state);
        let link = state.link(from, to);
        if link.cut {
            self.shared.trace.bite("link.cut");
        }
        let queued = state.busy.get(&state.way(from, to)).copied().unwrap_or_default();
        let free = queued.saturating_sub(link.transfer(link.queue));
        let now = self.shared.now();
        (link, (free > now).then(|| free - now))
    }

    /// Sends bytes; returns when they arrive.
    pub(super) fn carry(&self, from: &str, to: &str, bytes: u64) -> Duration {
        let mut state = lock(&self.state);
        let link = state.link(from, to);
        if link.speed < state.plain(from, to).speed {
            self.shared.trace.bite("link.slow");
        }
        let way = state.way(from, to);
        let busy = state.busy.entry(way).or_default();
        *busy = self.shared.now().max(*busy) + link.transfer(bytes);
        let mut arrival = *busy + self.shared.draw(&link.delay);
        while self.shared.bites("link.loss", link.loss) {
            arrival += RETRANSMIT;
        }
        arrival
    }

    pub(super) fn is_powered(&self, host: &str) -> bool {
        lock(&self.state).hosts.get(host).is_none_or(|host| host.powered)
    }
}

impl State {
    fn site<'a>(&'a self, place: &'a str) -> &'a str {
        self.hosts.get(place).map_or(place, |host| host.site.as_str())
    }

    /// Returns the sites whose link the bytes use.
    fn way(&self, from: &str, to: &str) -> (String, String) {
        (self.site(from).to_owned(), self.site(to).to_owned())
    }

    fn plain(&self, from: &str, to: &str) -> LinkModel {
        if self.site(from) == self.site(to) { self.lan } else { self.wan }
    }

    fn link(&self, from: &str, to: &str) -> LinkModel {
        let mut model = self.plain(from, to);
        let (from_site, to_site) = (self.site(from), self.site(to));
        let mut names = vec![(from, to), (from, to_site), (from_site, to)];
        if from_site != to_site {
            names.push((from_site, to_site));
        }
        for (a, b) in names {
            if let Some(fault) = self.faults.get(&(a.to_owned(), b.to_owned())) {
                model.worsen(fault);
            }
        }
        model
    }

    /// What waits in a link that became faster passes at its new speed.
    fn retime(&mut self, now: Duration) {
        for direction in &self.pipes {
            let link = self.link(&direction.from, &direction.to);
            lock(&direction.pipe)
                .arrive_by(now + link.transfer(link.queue) + Duration::from_micros(link.delay.max));
        }
        let ways: Vec<_> = self.busy.keys().cloned().collect();
        for way in ways {
            let link = self.link(&way.0, &way.1);
            let latest = now + link.transfer(link.queue);
            self.busy.entry(way).and_modify(|busy| *busy = latest.min(*busy));
        }
    }

    fn wake_all(&mut self) {
        self.pipes.retain(|direction| Arc::strong_count(direction) > 1);
        for direction in &self.pipes {
            lock(&direction.pipe).wake();
        }
    }
}
