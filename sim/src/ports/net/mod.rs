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

/// Bytes of a message that do not grow with its data: headers of frames, batches and records, and the whole of a ping
/// or an acknowledgement. In a scaled estate a page stands for as many as the scale says, and a header for itself.
const FIXED: u64 = 176;

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
    /// When the way from one site to another is free, by their names.
    busy: BTreeMap<String, BTreeMap<String, Duration>>,
    listeners: BTreeMap<(String, u16), Listening>,
    /// Listeners so far: each has its own number.
    listens: u64,
    pipes: Vec<Arc<Direction>>,
}

/// All links of a world.
#[derive(Clone)]
pub struct SimNet {
    shared: Shared,
    scale: u64,
    state: Arc<Mutex<State>>,
}

impl SimNet {
    pub(super) fn new(shared: Shared, lan: LinkModel, wan: LinkModel, scale: u64) -> SimNet {
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
        SimNet { shared, scale, state: Arc::new(Mutex::new(state)) }
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

    /// Returns what lies between, and how long a sender of these bytes has to wait at its entrance, if at all. In a
    /// scaled estate what is fixed goes in between two pages, as it would between two packets.
    fn entrance(&self, from: &str, to: &str, bytes: u64) -> (LinkModel, Option<Duration>) {
        let state = lock(&self.state);
        let link = state.link(from, to);
        if link.cut {
            self.shared.trace.bite("link.cut");
        }
        let queued = state.busy(from, to);
        let free = queued.saturating_sub(link.transfer(link.queue));
        let (now, is_small) = (self.shared.now(), self.scale > 1 && bytes <= FIXED);
        (link, (free > now && !is_small).then(|| free - now))
    }

    /// Returns the factor by which rates are divided.
    pub(super) fn scale(&self) -> u64 {
        self.scale
    }

    /// Returns what a message weighs on a link of a scaled estate.
    fn weight(&self, bytes: u64, fixed: u64) -> u64 {
        let fixed = bytes.min(fixed);
        bytes - fixed + fixed / self.scale
    }

    /// Sends a message, of which so many bytes do not grow with its data; returns when it arrives.
    pub(super) fn carry(&self, from: &str, to: &str, bytes: u64, fixed: u64) -> Duration {
        let bytes = self.weight(bytes, fixed);
        let mut state = lock(&self.state);
        let link = state.link(from, to);
        if link.speed < state.plain(from, to).speed {
            self.shared.trace.bite("link.slow");
        }
        let busy = self.shared.now().max(state.busy(from, to)) + link.transfer(bytes);
        state.set_busy(from, to, busy);
        let mut arrival = busy + self.shared.draw(&link.delay);
        while self.shared.bites("link.loss", link.loss) {
            arrival += RETRANSMIT;
        }
        arrival
    }

    pub(super) fn is_powered(&self, host: &str) -> bool {
        lock(&self.state).hosts.get(host).is_none_or(|host| host.powered)
    }
}

/// Returns the site of a host; a site is its own.
fn site_of<'a>(hosts: &'a BTreeMap<String, HostState>, place: &'a str) -> &'a str {
    hosts.get(place).map_or(place, |host| host.site.as_str())
}

impl State {
    fn site<'a>(&'a self, place: &'a str) -> &'a str {
        site_of(&self.hosts, place)
    }

    /// Returns when the link between the sites of two places is free.
    fn busy(&self, from: &str, to: &str) -> Duration {
        let of_site = self.busy.get(self.site(from));
        of_site.and_then(|ways| ways.get(self.site(to))).copied().unwrap_or_default()
    }

    fn set_busy(&mut self, from: &str, to: &str, until: Duration) {
        let State { hosts, busy, .. } = self;
        let (from, to) = (site_of(hosts, from), site_of(hosts, to));
        if let Some(place) = busy.get_mut(from).and_then(|ways| ways.get_mut(to)) {
            *place = until;
        } else {
            busy.entry(from.to_owned()).or_default().insert(to.to_owned(), until);
        }
    }

    fn plain(&self, from: &str, to: &str) -> LinkModel {
        if self.site(from) == self.site(to) { self.lan } else { self.wan }
    }

    fn link(&self, from: &str, to: &str) -> LinkModel {
        let mut model = self.plain(from, to);
        if self.faults.is_empty() {
            return model;
        }
        let (from_site, to_site) = (self.site(from), self.site(to));
        let is_between_sites = from_site != to_site;
        for ((a, b), fault) in &self.faults {
            let (is_from, is_to) = (a == from, b == to);
            let is_met = (is_from || a == from_site) && (is_to || b == to_site);
            if is_met && (is_from || is_to || is_between_sites) {
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
        let of_site = |(from, ways): (&String, &BTreeMap<String, Duration>)| {
            ways.keys().map(|to| (from.clone(), to.clone())).collect::<Vec<_>>()
        };
        for (from, to) in self.busy.iter().flat_map(of_site).collect::<Vec<_>>() {
            let link = self.link(&from, &to);
            let latest = now + link.transfer(link.queue);
            let busy = self.busy(&from, &to);
            self.set_busy(&from, &to, latest.min(busy));
        }
    }

    fn wake_all(&mut self) {
        self.pipes.retain(|direction| Arc::strong_count(direction) > 1);
        for direction in &self.pipes {
            lock(&direction.pipe).wake();
        }
    }
}
