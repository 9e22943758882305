//! The agent's link: what the link task of the agent's shell does, over the connections of this tier.

use super::super::common::Common;
use super::super::dice::SECOND;
use super::super::event::Event;
use super::super::net::{Connection, Direction};
use super::{AgentHost, Outgoing};
use redoubt_core::agent::AgentEvent;
use redoubt_core::link::{ConnectionId, LinkEffect, LinkEvent, LinkState};
use redoubt_core::message::{Hello, Message, PROTOCOL_VERSIONS};
use redoubt_core::{MachineId, Names};

/// A refusal that trying again cannot change is tried again all the same, rarely, as in the agent's shell.
const STOPPED_RETRY: u64 = 60 * SECOND;

impl AgentHost {
    #[inline]
    pub(super) fn link_step(&mut self, c: &mut Common, event: LinkEvent) {
        let Some(process) = &mut self.process else { return };
        let mut effects = std::mem::take(&mut process.link_effects);
        c.steps.link += 1;
        process.link.step(c.instant(), event, &mut effects);
        self.follow_all(c, effects);
    }

    fn follow_all(&mut self, c: &mut Common, mut effects: Vec<LinkEffect>) {
        for effect in effects.drain(..) {
            self.follow(c, effect);
        }
        if let Some(process) = &mut self.process {
            process.link_effects = effects;
        }
    }

    fn follow(&mut self, c: &mut Common, effect: LinkEffect) {
        match effect {
            LinkEffect::Connect { connection, endpoint } => self.connect(c, connection, endpoint),
            LinkEffect::Close(id) => self.close(c, id),
            LinkEffect::SayHello { .. } => {
                if let Some(hello) = self.hello() {
                    self.link_step(c, LinkEvent::HelloReady(hello));
                }
            }
            LinkEffect::Transmit(id, message) => {
                let connection = self.process.as_ref().and_then(|process| process.connection);
                let is_ours = |number: &u32| c.net.connections[*number as usize].id == id;
                if let Some(number) = connection.filter(is_ours) {
                    c.tell(number, true, message);
                }
            }
            LinkEffect::Decide(welcome) => {
                if let Some(process) = &mut self.process {
                    process.outgoing.clear();
                }
                let (staged, vaulted) = (welcome.staged.seq, welcome.vaulted.seq);
                c.say(usize::from(self.host), || format!("is welcomed: staged {staged} vaulted {vaulted}"));
                self.step(c, AgentEvent::Welcome(welcome));
                if self.process.as_ref().is_some_and(|process| process.machine.has_session()) {
                    self.link_step(c, LinkEvent::Resumed);
                }
            }
            LinkEffect::Acked { staged, vaulted, permits_total } => {
                self.step(c, AgentEvent::Ack { staged, vaulted, permits_total });
                self.judge_acknowledged(c);
            }
            LinkEffect::Hashes(reply) => self.step(c, AgentEvent::Hashes(reply)),
            LinkEffect::Marks(reply) => self.step(c, AgentEvent::Marks(reply)),
            LinkEffect::SessionDown => {
                c.marks.insert("session-lost");
                c.say(usize::from(self.host), || "its session is down".to_owned());
                self.step(c, AgentEvent::SessionDown);
                if let Some(process) = &mut self.process {
                    process.outgoing.clear();
                }
            }
            LinkEffect::Stopped { reason, .. } => {
                c.say(usize::from(self.host), || format!("is refused for good: {reason}"));
                if let Some(process) = &mut self.process {
                    process.stopped_at = Some(c.now);
                }
            }
        }
    }

    /// Oracle `loss-never-hidden`: what the agent believes to be in the vault is there.
    fn judge_acknowledged(&mut self, c: &mut Common) {
        let Some(process) = &self.process else { return };
        let vaulted = process.machine.watermarks().vaulted();
        let head = c.truths[self.truth()].vault.newest_told();
        if vaulted > head {
            let name = c.name(usize::from(self.host)).to_owned();
            let what = format!(
                "{name} was told that everything up to {vaulted} is in the vault, which ends at {head}"
            );
            c.find("loss-never-hidden", what);
        }
    }

    fn hello(&self) -> Option<Hello> {
        let machine = &self.process.as_ref()?.machine;
        Some(Hello {
            versions: PROTOCOL_VERSIONS,
            machine: MachineId(u128::from(self.settings.machine) + 1),
            generation: machine.generation(),
            volumes: machine.volumes(),
            names: Names::default(),
            held: machine.held(),
            newest: machine.newest(),
            proof: [0; 32],
        })
    }

    fn connect(&mut self, c: &mut Common, id: ConnectionId, endpoint: usize) {
        let server = self.settings.servers[endpoint];
        let number = c.net.connections.len() as u32;
        c.net.connections.push(Connection {
            agent: self.host,
            server,
            agent_run: self.run,
            server_run: None,
            id,
            up: Direction::default(),
            down: Direction::default(),
            is_agent_open: true,
            is_server_open: false,
            machine: None,
        });
        let arrival = c.net.carry(c.now, &mut c.dice, usize::from(self.host), usize::from(server), 64);
        c.heap.push(arrival, Event::Connect(number));
        if let Some(process) = &mut self.process {
            process.connection = Some(number);
        }
    }

    fn close(&mut self, c: &mut Common, id: ConnectionId) {
        let Some(process) = &mut self.process else { return };
        let is_ours = |number: &u32| c.net.connections[*number as usize].id == id;
        if let Some(number) = process.connection.take_if(|number| is_ours(number)) {
            c.net.connections[number as usize].is_agent_open = false;
            c.send(number, true, None);
        }
    }

    /// Something of the connection reached the agent: `None` if it failed or ended.
    pub(in crate::core_tier) fn hear(&mut self, c: &mut Common, number: u32, heard: Option<Message>) {
        let is_ours = self.process.as_ref().is_some_and(|process| process.connection == Some(number));
        if !is_ours {
            return;
        }
        let id = c.net.connections[number as usize].id;
        match heard {
            Some(message) => self.link_step(c, LinkEvent::Received(id, message)),
            None => self.link_step(c, LinkEvent::Broken(id)),
        }
        self.look_around(c);
    }

    pub(in crate::core_tier) fn connected(&mut self, c: &mut Common, number: u32) {
        if self.process.as_ref().is_some_and(|process| process.connection == Some(number)) {
            let id = c.net.connections[number as usize].id;
            self.link_step(c, LinkEvent::Connected(id));
        }
    }

    /// Time passes for the link; its deadlines are looked at with each beat of the machine.
    pub(super) fn tick_link(&mut self, c: &mut Common) {
        let Some(process) = &self.process else { return };
        if process.link.deadline().is_some_and(|deadline| deadline <= c.instant()) {
            self.link_step(c, LinkEvent::Tick);
        }
        let Some(process) = &mut self.process else { return };
        let is_rested = process.stopped_at.is_none_or(|at| c.now - at >= STOPPED_RETRY);
        if matches!(process.link.state(), LinkState::Disconnected | LinkState::Stopped(_))
            && process.is_serving
            && !process.is_stopping
            && is_rested
            && process.machine.may_connect()
        {
            process.stopped_at = None;
            self.link_step(c, LinkEvent::Start);
        }
    }

    /// Sends what waits.
    pub(super) fn look_around(&mut self, c: &mut Common) {
        while let Some(message) = self.process.as_mut().and_then(|process| process.outgoing.pop_front()) {
            match message {
                Outgoing::Batch(batch) => self.link_step(c, LinkEvent::Send(batch)),
                Outgoing::Ask(request) => self.link_step(c, LinkEvent::Ask(request)),
                Outgoing::AskMarks(request) => self.link_step(c, LinkEvent::AskMarks(request)),
                Outgoing::Close(why) => {
                    c.say(usize::from(self.host), || format!("closes its session: {why}"));
                    let number = self.process.as_ref().and_then(|process| process.connection);
                    if let Some(number) = number {
                        let id = c.net.connections[number as usize].id;
                        self.link_step(c, LinkEvent::Broken(id));
                    }
                }
            }
        }
    }
}
