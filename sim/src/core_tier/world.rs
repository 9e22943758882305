//! The world of a run: all hosts around the event heap, from the first event to convergence.
//!
//! What is *not* here: what the plan does ([`super::actions`]), what oracles know ([`super::oracle`]).

use super::agent::{AgentHost, Settings};
use super::common::{Common, HostState, Parts, Trace, Truth};
use super::content::{Cell, Ledger};
use super::dice::{MILLI, Times};
use super::disk::{Disk, DiskTimes};
use super::event::Event;
use super::net::Net;
use super::oracle::Guest;
use super::request::{Effect, Outcome};
use super::server::ServerHost;
use super::store::Store;
use super::vault::MachineVault;
use crate::plan::{Action, Plan};
use crate::scenario::Scenario;
use redoubt_core::spool::SpoolLimits;
use redoubt_core::{Generation, MachineId, MarkerKind};
use redoubt_hw_models as hw;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the harness looks at everything, as in the full lab.
const LOOK_EVERY: u64 = 250 * MILLI;
/// Time for guests to finish what is under way after they are told to stop.
const QUIESCE: u64 = 3_000 * MILLI;
/// A last marker that is not in the vault after this time is cut again.
const CUT_AGAIN: u64 = 10_000 * MILLI;
/// What may be over a bound: one batch that is being sealed and one that is being taken over.
const SLACK: u64 = 2 * redoubt_core::change::BATCH_BYTES_MAX as u64;

/// A run.
pub(super) struct World {
    pub(super) c: Common,
    pub(super) agents: Vec<AgentHost>,
    pub(super) servers: Vec<ServerHost>,
    /// Hosts by name.
    pub(super) names: BTreeMap<String, usize>,
    plan: Vec<(u64, Action)>,
    length: u64,
    bound: u64,
    loses_source: bool,
    /// Actions that this tier has no counterpart for.
    pub(super) unplayed: BTreeSet<String>,
    /// Copies of machines that were taken, by machine.
    pub(super) copies: BTreeMap<usize, AgentHost>,
    /// A copy of the whole vault.
    pub(super) vault_copy: Vec<MachineVault>,
    phase: Phase,
    /// Until when some host is frozen.
    pub(super) frozen_until: u64,
    limits: SpoolLimits,
    stage_bytes: u64,
    /// A process server's files failed, or there are several: what order-kept excuses.
    is_order_excused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Load,
    /// Faults are lifted; since when, and until when everything must have converged.
    Liveness {
        since: u64,
        until: u64,
    },
    Over {
        has_converged: bool,
    },
}

fn hardware<M: serde::de::DeserializeOwned>(models: &[(&str, &str)], name: &str) -> M {
    hw::find(models, name).and_then(Result::ok).expect("the reader of scenario files knows all models")
}

/// Returns the hosts: machines, then a place for a copy of each, then process servers.
fn hosts(scenario: &Scenario) -> Vec<HostState> {
    let estate = &scenario.estate;
    let state = |name: String, site| HostState {
        name,
        site,
        is_powered: true,
        frozen_until: 0,
        is_lost: false,
        is_down: false,
    };
    let machines = estate.machines.iter().map(|machine| state(machine.name.clone(), 0));
    let copies = estate.machines.iter().map(|machine| state(format!("{}'s copy", machine.name), 0));
    let site = |site: &str| usize::from(site == "target");
    let servers = estate.servers.iter().map(|server| state(server.name.clone(), site(&server.site)));
    machines.chain(copies).chain(servers).collect()
}

impl World {
    pub(super) fn new(scenario: &Scenario, plan: &Plan, trace: Option<Trace>) -> World {
        let estate = &scenario.estate;
        let (machines, hosts) = (estate.machines.len(), hosts(scenario));
        let disk: hw::DiskModel = hardware(&hw::DISKS, &estate.disk);
        let sites: Vec<usize> = hosts.iter().map(|host| host.site).collect();
        let (lan, wan) = (hardware(&hw::LINKS, "lan"), hardware(&hw::LINKS, &estate.link));
        let pages = |bytes: &u64| bytes / 4096;
        let truth = |number: usize| {
            let sizes: Vec<u64> = estate.machines[number].disks.iter().map(pages).collect();
            let images: Vec<usize> = sizes.iter().map(|pages| *pages as usize).collect();
            Truth {
                vault: MachineVault::new(&images),
                ledger: Arc::new(Mutex::new(Ledger::new(MachineId(number as u128 + 1)))),
                guest: Guest::new(number as u16, &sizes),
                welcomed: Generation(0),
            }
        };
        let c = Common::new(Parts {
            seed: plan.seed,
            trace,
            disk: DiskTimes::of(&disk),
            flush: Times::of(&disk.flush_us),
            net: Net::new(&sites, lan, wan),
            store: Store::new(&hardware(&hw::STORES, &estate.store)),
            truths: (0..machines).map(truth).collect(),
            hosts,
        });
        let limits = SpoolLimits { memory_bytes: estate.spool_memory, spill_bytes: estate.spill };
        let first_server = 2 * machines as u16;
        let agents = estate.machines.iter().enumerate().map(|(number, machine)| {
            let settings = Settings {
                machine: number as u16,
                limits,
                points: Duration::from_millis(estate.point_every),
                servers: (0..estate.servers.len() as u16).map(|server| first_server + server).collect(),
                guest: plan.guests[&machine.name].clone(),
            };
            let disks = machine.disks.iter().map(|bytes| Disk::new(*bytes, c.disk.is_volatile)).collect();
            AgentHost::new(number as u16, settings, disks)
        });
        let agents: Vec<AgentHost> = agents.collect();
        let server = |number: u16| ServerHost::new(first_server + number, number, machines, estate.stage);
        let servers: Vec<ServerHost> = (0..estate.servers.len() as u16).map(server).collect();
        let names = c.hosts.iter().enumerate().map(|(at, host)| (host.name.clone(), at)).collect();
        World {
            agents,
            is_order_excused: servers.len() > 1,
            servers,
            names,
            plan: plan.events.iter().map(|event| (event.at * MILLI, event.action.clone())).collect(),
            length: plan.length * MILLI,
            bound: scenario.expect.converges_within * MILLI,
            loses_source: plan.loses_source(),
            unplayed: BTreeSet::new(),
            copies: BTreeMap::new(),
            vault_copy: Vec::new(),
            phase: Phase::Load,
            frozen_until: 0,
            limits,
            stage_bytes: estate.stage,
            c,
        }
    }

    /// Plays everything. Tells whether it converged, or need not.
    pub(super) fn run(&mut self) -> bool {
        for server in &mut self.servers {
            server.power_up(&mut self.c);
        }
        for agent in &mut self.agents {
            agent.power_up(&mut self.c);
        }
        for (index, (at, _)) in self.plan.iter().enumerate() {
            self.c.heap.push(*at, Event::Plan(index as u32));
        }
        self.c.heap.push(LOOK_EVERY, Event::Look);
        while let Some((at, event)) = self.c.heap.pop() {
            self.c.take(at, &event);
            self.on_event(event);
            if let Phase::Over { has_converged } = self.phase {
                return has_converged;
            }
        }
        false
    }

    /// The host that an event is for, if its process must be awake for it.
    fn frozen_until_of(&self, event: &Event) -> u64 {
        let host = match event {
            Event::Agent(host, ..) => usize::from(*host),
            Event::Server(number, ..) => usize::from(self.servers[usize::from(*number)].host),
            Event::Deliver(connection, is_up) => {
                let at = &self.c.net.connections[*connection as usize];
                usize::from(if *is_up { at.server } else { at.agent })
            }
            Event::Connected(connection) => usize::from(self.c.net.connections[*connection as usize].agent),
            Event::Connect(connection) => usize::from(self.c.net.connections[*connection as usize].server),
            _ => return 0,
        };
        self.c.hosts[host].frozen_until
    }

    fn on_event(&mut self, event: Event) {
        // Hardly ever is anybody frozen.
        if self.c.now < self.frozen_until {
            let until = self.frozen_until_of(&event);
            if until > self.c.now {
                return self.c.heap.push(until, event);
            }
        }
        match event {
            Event::Agent(host, run, work) => {
                if let Some(agent) = self.agent_at(host, run) {
                    self.agents[agent].on_work(&mut self.c, work);
                    if self.agents[agent].directory.has_tripped {
                        self.lose_power_at_effect(usize::from(host));
                    }
                }
            }
            Event::Server(number, run, work) => {
                let server = &mut self.servers[usize::from(number)];
                if server.run == run {
                    server.on_work(&mut self.c, work);
                    if server.directory.has_tripped {
                        let host = usize::from(server.host);
                        self.lose_power_at_effect(host);
                    }
                }
            }
            Event::Connect(number) => self.connect(number),
            Event::Connected(number) => {
                if let Some(agent) = self.agent_of(number) {
                    self.agents[agent].connected(&mut self.c, number);
                }
            }
            Event::Refused(number) => {
                if let Some(agent) = self.agent_of(number) {
                    self.agents[agent].hear(&mut self.c, number, None);
                }
            }
            Event::Deliver(number, is_up) => self.deliver(number, is_up),
            Event::Land(request) => self.land(request),
            Event::Plan(index) => {
                let action = self.plan[index as usize].1.clone();
                self.perform(&action);
            }
            Event::Restart(host) => self.up(usize::from(host)),
            Event::Look => self.look(),
        }
    }

    /// Returns the agent of a connection, if the process that made it lives.
    fn agent_of(&self, number: u32) -> Option<usize> {
        let at = &self.c.net.connections[number as usize];
        self.agent_at(at.agent, at.agent_run)
    }

    /// Returns the agent of a host, if this process of it lives: machines come first, in order, copies behind them.
    fn agent_at(&self, host: u16, run: u32) -> Option<usize> {
        let is_it = |at: &usize| self.agents[*at].host == host && self.agents[*at].run == run;
        let machine = usize::from(host);
        if machine < self.c.truths.len() {
            return Some(machine).filter(is_it);
        }
        (self.c.truths.len()..self.agents.len()).find(is_it)
    }

    fn server_of(&self, host: u16) -> usize {
        usize::from(host) - 2 * self.c.truths.len()
    }

    fn connect(&mut self, number: u32) {
        let at = &self.c.net.connections[number as usize];
        let (agent, host) = (usize::from(at.agent), at.server);
        let (up, down) =
            (self.c.net.link(agent, usize::from(host)), self.c.net.link(usize::from(host), agent));
        if up.is_cut || down.is_cut || !self.c.hosts[usize::from(host)].is_powered {
            // Nobody answers: the agent gives up by itself.
            return;
        }
        let server = self.server_of(host);
        let is_taken = self.servers[server].accept(&mut self.c, number);
        let back = self.c.net.delay(&mut self.c.dice, usize::from(host), agent);
        let event = if is_taken { Event::Connected(number) } else { Event::Refused(number) };
        self.c.after(back, event);
        if is_taken {
            // Behind the connection itself.
            self.c.net.direction(number, false).begin_at(self.c.now + back);
            self.servers[server].challenge(&mut self.c, number);
        }
    }

    fn deliver(&mut self, number: u32, is_up: bool) {
        let Some(heard) = self.c.net.arrive(number, is_up) else { return };
        if is_up {
            let server = self.server_of(self.c.net.connections[number as usize].server);
            self.servers[server].hear(&mut self.c, number, heard);
        } else if let Some(agent) = self.agent_of(number) {
            self.agents[agent].hear(&mut self.c, number, heard);
        }
    }

    /// A request takes effect in the vault.
    fn land(&mut self, number: u32) {
        let Some(request) = self.c.requests.get(number) else { return };
        let (server, machine) = (usize::from(request.server), usize::from(request.machine));
        let effect = request.effect.clone();
        let is_effect = matches!(effect, Effect::Claim | Effect::Seal(_) | Effect::Commit { .. });
        let vault = &mut self.c.truths[machine].vault;
        let outcome = match effect {
            Effect::Claim => Outcome::Epoch(vault.claim()),
            Effect::Seal(epoch) => vault.seal(epoch).map_or(Outcome::Fenced, |()| Outcome::Done),
            Effect::Commit { epoch, era, batches } => {
                let disks = self.disks_at_rest(machine);
                let is_ours = self.c.land(machine, (epoch, era), &batches, &disks);
                if is_ours { Outcome::Done } else { Outcome::Fenced }
            }
            Effect::Look | Effect::Hash => Outcome::Done,
            Effect::Marks(asked) => {
                if asked.disown {
                    vault.disown(asked.number);
                }
                Outcome::Marks(asked, vault.is_disowned(asked.number))
            }
        };
        self.c.requests.landed(number, outcome);
        if is_effect {
            self.trip(server);
        }
    }

    fn disks_at_rest(&self, machine: usize) -> Vec<Vec<Cell>> {
        if self.c.truths[machine].guest.last.is_none() {
            return Vec::new();
        }
        self.agents[machine].disks.iter().map(|disk| disk.cells().to_vec()).collect()
    }

    /// The harness looks at everything, and moves from load to liveness to the end.
    fn look(&mut self) {
        self.judge_bounds();
        self.mark_faults_of_files();
        self.c.after(LOOK_EVERY, Event::Look);
        match self.phase {
            Phase::Load if self.c.now >= self.length => {
                if self.loses_source {
                    self.phase = Phase::Over { has_converged: true };
                    return;
                }
                self.c.say(usize::MAX, || "all faults are lifted, guests stop".to_owned());
                self.c.is_quiet = true;
                self.lift_all();
                self.phase = Phase::Liveness { since: self.c.now, until: self.c.now + self.bound };
            }
            Phase::Liveness { since, until } if self.c.now >= since + QUIESCE => {
                if self.cut_last() {
                    self.c.say(usize::MAX, || "everything has converged".to_owned());
                    self.phase = Phase::Over { has_converged: true };
                } else if self.c.now >= until || !self.c.findings.is_empty() {
                    self.phase = Phase::Over { has_converged: false };
                }
            }
            // What is broken stays so: the trace ends near it.
            _ if !self.c.findings.is_empty() => self.phase = Phase::Over { has_converged: true },
            _ => {}
        }
    }

    /// Cuts the last marker of each machine that is at rest; tells whether all of them are in the vault. One that does
    /// not get there is cut again: a marker whose order is lost never becomes a point.
    fn cut_last(&mut self) -> bool {
        let mut are_there = true;
        for (machine, agent) in self.agents.iter_mut().enumerate().take(self.c.truths.len()) {
            let guest = &self.c.truths[machine].guest;
            let is_due = guest.last.is_none_or(|(_, cut)| self.c.now - cut >= CUT_AGAIN);
            if is_due && !guest.is_last_there && agent.is_settled() && agent.is_idle() {
                let last = agent.cut(&mut self.c, MarkerKind::Planned);
                self.c.truths[machine].guest.last = last.map(|id| (id, self.c.now));
            }
            are_there &= self.c.truths[machine].guest.is_last_there;
        }
        are_there
    }

    /// Whoever met a fault of his files has met it, whatever came of that.
    fn mark_faults_of_files(&mut self) {
        let agents = self.agents.iter().map(|agent| agent.directory.met);
        if agents.chain(self.servers.iter().map(|server| server.directory.met)).any(|met| met > 0) {
            self.c.marks.insert("file-fault-hit");
        }
    }

    /// Oracle `bounded`.
    fn judge_bounds(&mut self) {
        let mut found = Vec::new();
        for agent in &self.agents {
            let Some(process) = &agent.process else { continue };
            let (memory, spill) = process.machine.spool_bytes();
            let name = self.c.name(usize::from(agent.host));
            let (most_memory, most_spill) = (self.limits.memory_bytes, self.limits.spill_bytes);
            // Twice the bound and a batch, as the spool says of itself.
            if memory > 2 * most_memory + SLACK {
                found.push(format!("{name} holds {memory} bytes in memory; the bound is {most_memory}"));
            }
            if spill > most_spill {
                found.push(format!("{name} spilled {spill} bytes; the bound is {most_spill}"));
            }
        }
        for server in &self.servers {
            let staged: u64 = server.staged_bytes().sum();
            let most = self.stage_bytes + SLACK * self.c.truths.len() as u64;
            if staged > most {
                let name = self.c.name(usize::from(server.host));
                found.push(format!("{name} stages {staged} bytes; the bound is {most}"));
            }
            self.is_order_excused |= server.directory.is_lost;
        }
        for what in found {
            self.c.find("bounded", what);
        }
    }

    /// The last judges. An operation that is still under way counts as one that took until now.
    pub(super) fn judge(&mut self) {
        for agent in &self.agents {
            let guest = &mut self.c.truths[usize::from(agent.settings.machine)].guest;
            for op in agent.pending() {
                guest.notice(self.c.now, op.volume, op.what, self.c.now - op.began, None);
            }
        }
        for machine in 0..self.c.truths.len() {
            self.c.judge_guest(machine, self.is_order_excused);
        }
    }

    /// Says what each role waits for.
    pub(super) fn waiting(&self) -> String {
        let mut lines = Vec::new();
        for agent in &self.agents {
            let name = self.c.name(usize::from(agent.host));
            lines.push(match &agent.process {
                None => format!("agent {name} does not run"),
                Some(process) => {
                    let machine = &process.machine;
                    format!(
                        "agent {name}: exact {}, bitmap {}, session {}, link {:?}, {:?}, {} operations of its guest under way",
                        machine.is_exact(),
                        machine.is_bitmap(),
                        machine.has_session(),
                        process.link.state(),
                        machine.watermarks(),
                        agent.pending().count()
                    )
                }
            });
        }
        for server in &self.servers {
            for machine in 0..self.c.truths.len() {
                let (host, of) = (self.c.name(usize::from(server.host)), self.c.name(machine));
                lines.push(format!("process server {host} for {of}: {}", server.line(machine)));
            }
        }
        lines.join("\n")
    }
}
