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

/// A direction between two places that somebody uses: what it is like is worked out when that changes, not for each
/// message.
#[derive(Clone, Copy, Debug)]
pub(in crate::ports) struct Way(usize);

struct WayState {
    from: String,
    to: String,
    /// With its faults.
    link: LinkModel,
    /// Without them.
    plain: LinkModel,
    /// Place of its sites in `busy`.
    sites: usize,
}

/// The link from one site to another, which all ways between their hosts share.
struct Busy {
    from: String,
    to: String,
    /// When it is free.
    until: Duration,
}

struct State {
    hosts: BTreeMap<String, HostState>,
    lan: LinkModel,
    wan: LinkModel,
    /// Faulted links by (from, to): host or site names.
    faults: BTreeMap<(String, String), LinkModel>,
    ways: Vec<WayState>,
    /// The places of ways by what they lead from and to.
    known: BTreeMap<(String, String), Way>,
    busy: Vec<Busy>,
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
            ways: Vec::new(),
            known: BTreeMap::new(),
            busy: Vec::new(),
            listeners: BTreeMap::new(),
            listens: 0,
            pipes: Vec::new(),
        };
        SimNet { shared, scale, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn add_host(&self, name: &str, site: &str) {
        let host = HostState { site: site.to_owned(), powered: true };
        let mut state = lock(&self.state);
        state.hosts.insert(name.to_owned(), host);
        state.look_again();
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
        state.look_again();
        state.retime(self.shared.now());
        state.wake_all();
    }

    /// Heals every link.
    pub fn heal_all(&self) {
        let mut state = lock(&self.state);
        state.faults.clear();
        state.look_again();
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

    /// Returns the way from one place to another.
    pub(super) fn way(&self, from: &str, to: &str) -> Way {
        lock(&self.state).way(from, to)
    }

    /// Returns what a way is like now.
    pub(super) fn link(&self, way: Way) -> LinkModel {
        lock(&self.state).ways[way.0].link
    }

    /// Returns what a way is like, and how long a sender of these bytes has to wait at its entrance, if at all. In a
    /// scaled estate what is fixed goes in between two pages, as it would between two packets.
    fn entrance(&self, way: Way, bytes: u64) -> (LinkModel, Option<Duration>) {
        let state = lock(&self.state);
        let WayState { link, sites, .. } = &state.ways[way.0];
        if link.cut {
            self.shared.trace.bite("link.cut");
        }
        let free = state.busy[*sites].until.saturating_sub(link.transfer(link.queue));
        let (now, is_small) = (self.shared.now(), self.scale > 1 && bytes <= FIXED);
        (*link, (free > now && !is_small).then(|| free - now))
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
    pub(super) fn carry(&self, way: Way, bytes: u64, fixed: u64) -> Duration {
        let bytes = self.weight(bytes, fixed);
        let mut state = lock(&self.state);
        let WayState { link, plain, sites, .. } = &state.ways[way.0];
        let (link, plain, sites) = (*link, *plain, *sites);
        if link.speed < plain.speed {
            self.shared.trace.bite("link.slow");
        }
        let busy = &mut state.busy[sites].until;
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
    /// Returns the site of a host; a site is its own.
    fn site<'a>(&'a self, place: &'a str) -> &'a str {
        self.hosts.get(place).map_or(place, |host| host.site.as_str())
    }

    fn way(&mut self, from: &str, to: &str) -> Way {
        let ends = (from.to_owned(), to.to_owned());
        if let Some(way) = self.known.get(&ends) {
            return *way;
        }
        let way = Way(self.ways.len());
        let (link, plain, sites) = (self.link(from, to), self.plain(from, to), self.sites(from, to));
        self.ways.push(WayState { from: from.to_owned(), to: to.to_owned(), link, plain, sites });
        self.known.insert(ends, way);
        way
    }

    /// Returns the place of the link between the sites of two places.
    fn sites(&mut self, from: &str, to: &str) -> usize {
        let (from, to) = (self.site(from).to_owned(), self.site(to).to_owned());
        let found = self.busy.iter().position(|busy| busy.from == from && busy.to == to);
        found.unwrap_or_else(|| {
            self.busy.push(Busy { from, to, until: Duration::ZERO });
            self.busy.len() - 1
        })
    }

    /// Hosts or faults are others now.
    fn look_again(&mut self) {
        for mut way in std::mem::take(&mut self.ways) {
            (way.link, way.plain) = (self.link(&way.from, &way.to), self.plain(&way.from, &way.to));
            way.sites = self.sites(&way.from, &way.to);
            self.ways.push(way);
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
            let link = self.ways[direction.way.0].link;
            lock(&direction.pipe)
                .arrive_by(now + link.transfer(link.queue) + Duration::from_micros(link.delay.max));
        }
        for at in 0..self.busy.len() {
            let link = self.link(&self.busy[at].from, &self.busy[at].to);
            let latest = now + link.transfer(link.queue);
            self.busy[at].until = latest.min(self.busy[at].until);
        }
    }

    fn wake_all(&mut self) {
        self.pipes.retain(|direction| Arc::strong_count(direction) > 1);
        for direction in &self.pipes {
            lock(&direction.pipe).wake();
        }
    }
}
