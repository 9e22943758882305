//! Links and connections: directed links with delay, speed, loss and cuts; messages in order.
//!
//! A connection keeps what was said while a link is cut, and delivers it when the link is back. A process that ends
//! closes its connections; a host without power falls silent, and resets them when it is back.
//!
//! What is *not* here: who says what; requests to the store ([`super::store`]).

use super::dice::{Dice, MILLI, SECOND, Times};
use redoubt_core::link::ConnectionId;
use redoubt_core::message::Message;
use redoubt_hw_models::LinkModel;
use std::collections::VecDeque;

/// What a lost packet costs until it is sent again.
const RETRANSMIT: u64 = 200 * MILLI;

/// A place: a host by its number, or a site.
pub(super) type Place = usize;

/// A link as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkNow {
    is_wan: bool,
    speed: u64,
    loss: u32,
    pub(super) is_cut: bool,
}

/// What befell a link.
#[derive(Clone, Copy, Debug)]
pub(super) enum LinkFault {
    Cut,
    Loss(u32),
    Slow(u64),
}

/// What travels: a message, or the news that its sender is gone.
pub(super) type Wire = Option<Message>;

/// Returns about how many bytes something takes on a link.
pub(super) fn bytes_of(wire: &Wire) -> u64 {
    match wire {
        Some(Message::Batch(batch)) => u64::from(batch.meta.bytes),
        Some(Message::HashReply(reply)) => 32 * reply.blocks.len() as u64 + 64,
        _ => 128,
    }
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Direction {
    pub(super) queue: VecDeque<Wire>,
    last: u64,
    /// Arrivals that found the link cut.
    stalled: u32,
}

impl Direction {
    /// Nothing arrives before a time.
    pub(super) fn begin_at(&mut self, at: u64) {
        self.last = self.last.max(at);
    }
}

/// A connection between an agent and a process server.
pub(super) struct Connection {
    pub(super) agent: u16,
    pub(super) server: u16,
    /// The process of the agent that made it.
    pub(super) agent_run: u32,
    /// The process of the server that took it; none before.
    pub(super) server_run: Option<u32>,
    pub(super) id: ConnectionId,
    pub(super) up: Direction,
    pub(super) down: Direction,
    pub(super) is_agent_open: bool,
    pub(super) is_server_open: bool,
    /// The machine that said hello.
    pub(super) machine: Option<u16>,
}

/// All links and connections.
pub(super) struct Net {
    /// Places of the two sites.
    sites: [Place; 2],
    /// Site of each host.
    site_of: Vec<Place>,
    wan: (Times, LinkModel),
    lan: (Times, LinkModel),
    faults: Vec<(Place, Place, LinkFault)>,
    /// Links between places, row by row.
    now: Vec<LinkNow>,
    busy: [[u64; 2]; 2],
    pub(super) connections: Vec<Connection>,
}

impl Net {
    /// Hosts come first, then the sites `source` and `target`.
    pub(super) fn new(sites_of_hosts: &[usize], lan: LinkModel, wan: LinkModel) -> Net {
        let hosts = sites_of_hosts.len();
        let mut net = Net {
            sites: [hosts, hosts + 1],
            site_of: sites_of_hosts.to_vec(),
            wan: (Times::of(&wan.delay_us), wan),
            lan: (Times::of(&lan.delay_us), lan),
            faults: Vec::new(),
            now: Vec::new(),
            busy: [[0; 2]; 2],
            connections: Vec::new(),
        };
        net.refresh();
        net
    }

    /// Returns the place of the target site, where the store is.
    pub(super) fn store(&self) -> Place {
        self.sites[1]
    }

    fn site(&self, place: Place) -> usize {
        if place >= self.sites[0] { place - self.sites[0] } else { self.site_of[place] }
    }

    fn refresh(&mut self) {
        let places = self.sites[1] + 1;
        let links = (0..places * places).map(|at| self.compute(at / places, at % places)).collect();
        self.now = links;
    }

    fn compute(&self, from: Place, to: Place) -> LinkNow {
        let (a, b) = (self.site(from), self.site(to));
        let is_wan = a != b;
        let model = if is_wan { &self.wan.1 } else { &self.lan.1 };
        let mut link = LinkNow { is_wan, speed: model.bytes_per_second, loss: model.loss_ppm, is_cut: false };
        let (from_site, to_site) = (self.sites[a], self.sites[b]);
        // A fault of two sites is one of the link between them, not of the hosts within one.
        let hits = |x: Place, y: Place| {
            x == from && (y == to || y == to_site) || x == from_site && (y == to || is_wan && y == to_site)
        };
        for (_, _, fault) in self.faults.iter().filter(|(x, y, _)| hits(*x, *y)) {
            match fault {
                LinkFault::Cut => link.is_cut = true,
                LinkFault::Loss(ppm) => link.loss = link.loss.max(*ppm),
                LinkFault::Slow(speed) => link.speed = link.speed.min(*speed),
            }
        }
        link
    }

    /// Changes links; `None` heals them.
    pub(super) fn set(&mut self, ends: &[(Place, Place)], fault: Option<LinkFault>) {
        for (from, to) in ends {
            self.faults.retain(|(x, y, _)| (x, y) != (from, to));
            self.faults.extend(fault.map(|fault| (*from, *to, fault)));
        }
        self.refresh();
    }

    pub(super) fn heal_all(&mut self) {
        self.faults.clear();
        self.refresh();
    }

    pub(super) fn link(&self, from: Place, to: Place) -> LinkNow {
        self.now[from * (self.sites[1] + 1) + to]
    }

    /// Sends bytes; returns when they arrive.
    pub(super) fn carry(&mut self, now: u64, dice: &mut Dice, from: Place, to: Place, bytes: u64) -> u64 {
        let link = self.link(from, to);
        let transfer = bytes * SECOND / link.speed.max(1);
        let (a, b) = (self.site(from), self.site(to));
        let busy = &mut self.busy[a][b];
        // What waits at the entrance of a slow link passes at the speed of the link as it is now.
        *busy = now.max((*busy).min(now + 2 * SECOND)) + transfer;
        let entered = *busy;
        entered + self.delay(dice, from, to)
    }

    /// Draws the way of something that takes no room on the link.
    pub(super) fn delay(&self, dice: &mut Dice, from: Place, to: Place) -> u64 {
        let link = self.link(from, to);
        let mut delay = if link.is_wan { self.wan.0.draw(dice) } else { self.lan.0.draw(dice) };
        while dice.happens(link.loss) {
            delay += RETRANSMIT;
        }
        delay
    }

    /// Returns when something that is sent now arrives: never before what was sent before it.
    pub(super) fn arrival(
        &mut self,
        now: u64,
        dice: &mut Dice,
        connection: u32,
        is_up: bool,
        bytes: u64,
    ) -> u64 {
        let at = &self.connections[connection as usize];
        let (agent, server) = (usize::from(at.agent), usize::from(at.server));
        let (from, to) = if is_up { (agent, server) } else { (server, agent) };
        let arrival = self.carry(now, dice, from, to, bytes);
        let direction = self.direction(connection, is_up);
        direction.last = arrival.max(direction.last);
        direction.last
    }

    pub(super) fn direction(&mut self, connection: u32, is_up: bool) -> &mut Direction {
        let connection = &mut self.connections[connection as usize];
        if is_up { &mut connection.up } else { &mut connection.down }
    }

    /// Takes the message that arrives; none while the link is cut.
    #[inline]
    pub(super) fn arrive(&mut self, connection: u32, is_up: bool) -> Option<Wire> {
        let at = &self.connections[connection as usize];
        let (agent, server) = (usize::from(at.agent), usize::from(at.server));
        let link = if is_up { self.link(agent, server) } else { self.link(server, agent) };
        let direction = self.direction(connection, is_up);
        if link.is_cut {
            direction.stalled += 1;
            return None;
        }
        direction.queue.pop_front()
    }

    /// Returns the arrivals that a cut held up and that a link now lets through.
    pub(super) fn released(&mut self) -> Vec<(u32, bool)> {
        let mut released = Vec::new();
        for number in 0..self.connections.len() as u32 {
            for is_up in [true, false] {
                let at = &self.connections[number as usize];
                let (agent, server) = (usize::from(at.agent), usize::from(at.server));
                let link = if is_up { self.link(agent, server) } else { self.link(server, agent) };
                if !link.is_cut {
                    let stalled = std::mem::take(&mut self.direction(number, is_up).stalled);
                    released.extend((0..stalled).map(|_| (number, is_up)));
                }
            }
        }
        released
    }
}
