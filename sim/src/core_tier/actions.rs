//! What the plan does to this tier's world, and what it excuses. What has no counterpart here is told.

use super::dice::MILLI;
use super::event::Event;
use super::net::{LinkFault, Place};
use super::world::World;
use crate::oracles::guest_untouched::{self, Excuse};
use crate::plan::{self, Action, DiskFault, Plan, RESTART_AFTER};
use redoubt_core::MarkerKind;
use std::time::Duration;

/// For ever, in milliseconds: until the faults are lifted.
const FOREVER: u64 = u64::MAX / 2;

impl World {
    pub(super) fn perform(&mut self, action: &Action) {
        self.c.say(usize::MAX, || action.to_string());
        match action {
            Action::KillProcess(host) => self.down(host, false),
            Action::PowerOff(host) => self.down(host, true),
            Action::StartProcess(host) | Action::PowerOn(host) => self.up_named(host),
            Action::SiteOff(site) => self.each_of(site, |world, host| world.down(host, true)),
            Action::SiteOn(site) => self.each_of(site, |world, host| world.up_named(host)),
            Action::SiteLost(site) => self.each_of(site, |world, host| {
                world.down(host, true);
                if let Some(host) = world.find(host) {
                    world.c.hosts[host].is_lost = true;
                }
            }),
            Action::Freeze(host, ms) => self.freeze(host, *ms),
            // Wall clocks order nothing at this tier either; markers only show them.
            Action::StepClock(..) => self.c.marks.insert("clock-stepped"),
            Action::Cut(link) => self.set_link(link, Some(LinkFault::Cut)),
            Action::Loss(link, ppm) => self.set_link(link, Some(LinkFault::Loss(*ppm))),
            Action::Slow(link, speed) => self.set_link(link, Some(LinkFault::Slow(*speed))),
            Action::HealLink(link) => self.set_link(link, None),
            Action::Store(knob, ppm) => match self.c.store.knobs.by_name(knob) {
                Some(slot) => *slot = *ppm,
                None => self.cannot(format!("store.{knob}")),
            },
            Action::DiskErrors(host, kind, ppm) => self.disk_errors(host, *kind, *ppm),
            Action::DiskHang(host, ms) => self.disk_hang(host, *ms),
            Action::FilesFull(host, full) => self.files(host, |directory, _| directory.is_full = *full),
            Action::FilesSyncErrors(host, ppm) => {
                self.files(host, |directory, _| directory.sync_errors = *ppm)
            }
            Action::FilesHang(host, ms) => self.files_hang(host, *ms),
            Action::FilesAnswer(host) => self.files_answer(host),
            Action::FilesLost(host) => {
                self.down(host, false);
                if let Some(server) = self.server(host) {
                    self.servers[server].lose_files();
                }
            }
            Action::KillAtEffect(host, count) => {
                if let Some(server) = self.server(host) {
                    self.servers[server].trip = Some(*count);
                }
            }
            Action::PowerAtEffect(host, count) => {
                self.files(host, |directory, _| directory.trip = Some((*count).max(1)));
            }
            Action::Point(machine) => {
                if let Some(machine) = self.machine(machine) {
                    self.agents[machine].cut(&mut self.c, MarkerKind::Crash);
                }
            }
            Action::StopAgent(machine) => self.stop_agent(machine),
            Action::StartAgent(machine) => self.up_named(machine),
            Action::EditDisk(machine) => {
                if let Some(machine) = self.machine(machine)
                    && self.agents[machine].edit(&mut self.c)
                {
                    self.c.marks.insert("disk-edited");
                }
            }
            Action::Copy(machine) => self.copy(machine),
            Action::StartCopy(machine) => self.start_copy(machine),
            Action::StopCopy(machine) => self.stop_copy(machine),
            Action::CopyVault => {
                self.vault_copy = self.c.truths.iter().map(|truth| truth.vault.clone()).collect()
            }
            Action::RestoreVault => self.restore_vault(),
            // Every marker is judged as it lands.
            Action::CheckPoints => {}
            other => verb(other).into_iter().for_each(|verb| self.cannot(verb.to_owned())),
        }
    }

    fn cannot(&mut self, verb: String) {
        self.unplayed.insert(verb);
    }

    fn find(&self, host: &str) -> Option<usize> {
        self.names.get(host).copied()
    }

    /// Returns the number of a machine.
    fn machine(&self, host: &str) -> Option<usize> {
        self.find(host).filter(|host| *host < self.c.truths.len())
    }

    /// Returns the number of a process server.
    fn server(&self, host: &str) -> Option<usize> {
        self.find(host)?.checked_sub(2 * self.c.truths.len())
    }

    fn each_of(&mut self, site: &str, mut act: impl FnMut(&mut World, &str)) {
        let site = usize::from(site == "target");
        let hosts = self.c.hosts.iter().filter(|host| host.site == site);
        let names: Vec<String> = hosts.map(|host| host.name.clone()).collect();
        names.iter().for_each(|name| act(self, name));
    }

    fn excuse(&mut self, machine: usize, ms: u64, errors: bool, longest: Duration) {
        let from = self.c.now / MILLI;
        let excuse = Excuse { from, to: from.saturating_add(ms), errors, longest };
        self.c.truths[machine].guest.excuses.push(excuse);
    }

    fn down(&mut self, name: &str, power: bool) {
        let Some(host) = self.find(name) else { return };
        if self.c.hosts[host].is_lost {
            return;
        }
        self.c.hosts[host].frozen_until = 0;
        self.c.hosts[host].is_down = true;
        self.c.hosts[host].is_powered &= !power;
        if let Some(agent) = self.agents.iter_mut().find(|agent| usize::from(agent.host) == host) {
            agent.end(&mut self.c);
            // A start that was under way is of this process too.
            agent.run += 1;
            if power {
                agent.lose_power(&mut self.c);
            }
        } else if let Some(server) = self.server(name) {
            self.servers[server].end(&mut self.c);
            if power {
                self.servers[server].lose_power(&mut self.c);
            }
        }
    }

    fn up_named(&mut self, name: &str) {
        if let Some(host) = self.find(name) {
            self.up(host);
        }
    }

    /// A host gets power, and its process starts.
    pub(super) fn up(&mut self, host: usize) {
        let state = &mut self.c.hosts[host];
        if state.is_lost || !std::mem::take(&mut state.is_down) {
            return;
        }
        let had_power = std::mem::replace(&mut state.is_powered, true);
        if !had_power {
            self.reset(host);
        }
        if let Some(agent) = self.agents.iter_mut().find(|agent| usize::from(agent.host) == host) {
            agent.power_up(&mut self.c);
        } else if let Some(server) = host.checked_sub(2 * self.c.truths.len()) {
            self.servers[server].power_up(&mut self.c);
        }
    }

    /// The new system knows nothing of old connections: it answers them with a reset.
    fn reset(&mut self, host: usize) {
        for number in 0..self.c.net.connections.len() as u32 {
            let at = &mut self.c.net.connections[number as usize];
            let (is_agent, is_server) = (usize::from(at.agent) == host, usize::from(at.server) == host);
            if is_agent && at.is_server_open {
                self.c.send(number, true, None);
            } else if is_server && at.is_agent_open {
                self.c.send(number, false, None);
            }
        }
    }

    fn freeze(&mut self, name: &str, ms: u64) {
        let Some(host) = self.find(name).filter(|host| !self.c.hosts[*host].is_down) else { return };
        self.c.hosts[host].frozen_until = self.c.now + ms * MILLI;
        self.frozen_until = self.frozen_until.max(self.c.now + ms * MILLI);
        if let Some(machine) = self.machine(name) {
            self.excuse(machine, ms, false, Duration::MAX);
        }
    }

    /// Returns the places that a link's name means.
    fn ends(&self, link: &str) -> Vec<(Place, Place)> {
        let hosts = self.c.hosts.len();
        let place = |name: &str| match name {
            "source" => Some(hosts),
            "target" => Some(hosts + 1),
            host => self.find(host),
        };
        let pair = |a: &str, b: &str| Some((place(a)?, place(b)?));
        let pairs = if link == "wan" {
            vec![pair("source", "target"), pair("target", "source")]
        } else if let Some((a, b)) = link.split_once("<->") {
            vec![pair(a, b), pair(b, a)]
        } else {
            link.split_once("->").map(|(a, b)| vec![pair(a, b)]).unwrap_or_default()
        };
        pairs.into_iter().flatten().collect()
    }

    fn set_link(&mut self, link: &str, fault: Option<LinkFault>) {
        let ends = self.ends(link);
        self.c.net.set(&ends, fault);
        self.release();
    }

    /// What a cut held up arrives.
    fn release(&mut self) {
        for (connection, is_up) in self.c.net.released() {
            let delay = self.c.dice.below(200 * MILLI);
            self.c.after(delay, Event::Deliver(connection, is_up));
        }
    }

    fn disk_errors(&mut self, host: &str, kind: DiskFault, ppm: u32) {
        let Some(machine) = self.machine(host) else { return };
        let mut is_faulty = false;
        for disk in &mut self.agents[machine].disks {
            match kind {
                DiskFault::Read => disk.errors.read = ppm,
                DiskFault::Write => disk.errors.write = ppm,
                DiskFault::Flush => disk.errors.flush = ppm,
            }
            is_faulty |= disk.errors.read + disk.errors.write + disk.errors.flush > 0;
        }
        if is_faulty {
            return self.excuse(machine, FOREVER, true, Duration::MAX);
        }
        let now = self.c.now / MILLI;
        for excuse in &mut self.c.truths[machine].guest.excuses {
            if excuse.errors && excuse.to > now {
                excuse.to = now;
            }
        }
    }

    fn disk_hang(&mut self, host: &str, ms: u64) {
        let Some(machine) = self.machine(host) else { return };
        self.excuse(machine, ms, false, Duration::MAX);
        let until = self.c.now + ms * MILLI;
        self.agents[machine].disks.iter_mut().for_each(|disk| disk.hang_until = until);
    }

    fn files(&mut self, host: &str, change: impl Fn(&mut super::files::Directory, u64)) {
        let now = self.c.now;
        if let Some(machine) = self.machine(host) {
            change(&mut self.agents[machine].directory, now);
        } else if let Some(server) = self.server(host) {
            change(&mut self.servers[server].directory, now);
        }
    }

    fn files_hang(&mut self, host: &str, ms: Option<u64>) {
        let length = ms.unwrap_or(FOREVER / MILLI);
        self.files(host, |directory, now| directory.hang_until = now.saturating_add(length * MILLI));
        self.c.marks.insert("files-hung");
        if let Some(machine) = self.machine(host) {
            self.excuse(machine, ms.unwrap_or(FOREVER), false, guest_untouched::BOUND_OF_MARKS);
        }
    }

    fn files_answer(&mut self, host: &str) {
        let now = self.c.now;
        self.files(host, |directory, _| directory.hang_until = 0);
        self.wake_files(now);
    }

    /// What waits for an answer of a directory is asked for again: its time was far away.
    fn wake_files(&mut self, now: u64) {
        self.c.heap.hurry(now + MILLI, |event| event.is_file_work());
    }

    fn stop_agent(&mut self, name: &str) {
        let Some(machine) = self.machine(name) else { return };
        self.c.hosts[machine].is_down = true;
        self.agents[machine].stop(&mut self.c);
        let agent = &mut self.agents[machine];
        agent.on_work(&mut self.c, super::event::AgentWork::Stop);
    }

    fn copy(&mut self, name: &str) {
        let Some(machine) = self.machine(name) else { return };
        let host = (machine + self.c.truths.len()) as u16;
        self.copies.insert(machine, self.agents[machine].copy(host));
    }

    fn start_copy(&mut self, name: &str) {
        let Some(machine) = self.machine(name) else { return };
        if let Some(copy) = self.copies.remove(&machine) {
            self.c.marks.insert("old-copy-started");
            self.agents.push(copy);
            if let Some(copy) = self.agents.last_mut() {
                copy.power_up(&mut self.c);
            }
        }
    }

    fn stop_copy(&mut self, name: &str) {
        let Some(machine) = self.machine(name) else { return };
        let host = (machine + self.c.truths.len()) as u16;
        if let Some(at) = self.agents.iter().position(|agent| agent.host == host) {
            let mut copy = self.agents.remove(at);
            copy.end(&mut self.c);
        }
    }

    /// An old copy takes the place of the vault, under whoever writes.
    fn restore_vault(&mut self) {
        let copies = std::mem::take(&mut self.vault_copy);
        for (truth, copy) in self.c.truths.iter_mut().zip(copies) {
            truth.vault.go_back(copy);
            self.c.marks.insert("vault-restored");
        }
    }

    /// A process server ends with one of its effects on the store, and starts again.
    pub(super) fn trip(&mut self, server: usize) {
        let Some(left) = self.servers[server].trip else { return };
        if left > 1 {
            self.servers[server].trip = Some(left - 1);
            return;
        }
        self.servers[server].trip = None;
        self.c.marks.insert("killed-at-effect");
        let host = self.servers[server].host;
        let name = self.c.name(usize::from(host)).to_owned();
        self.down(&name, false);
        self.c.after(RESTART_AFTER * MILLI, Event::Restart(host));
    }

    /// A host lost its power with an effect on its state directory; it comes back.
    pub(super) fn lose_power_at_effect(&mut self, host: usize) {
        self.c.marks.insert("power-lost-at-effect");
        let name = self.c.name(host).to_owned();
        self.files(&name, |directory, _| (directory.trip, directory.has_tripped) = (None, false));
        self.down(&name, true);
        self.c.after(RESTART_AFTER * MILLI, Event::Restart(host as u16));
    }

    /// Lifts every fault and brings everything back that is not gone for good.
    pub(super) fn lift_all(&mut self) {
        self.c.net.heal_all();
        self.release();
        self.c.store.knobs = super::store::Knobs::default();
        let now = self.c.now;
        for truth in &mut self.c.truths {
            truth.guest.excuses.iter_mut().for_each(|excuse| excuse.to = excuse.to.min(now / MILLI));
        }
        let machines: Vec<String> =
            self.c.hosts.iter().take(self.c.truths.len()).map(|host| host.name.clone()).collect();
        machines.iter().for_each(|machine| self.stop_copy(machine));
        for agent in &mut self.agents {
            agent.directory = super::files::Directory { met: agent.directory.met, ..Default::default() };
            for disk in &mut agent.disks {
                disk.errors = super::disk::DiskErrors::default();
                disk.hang_until = 0;
            }
        }
        for server in &mut self.servers {
            let super::files::Directory { met, is_lost, .. } = server.directory;
            server.directory = super::files::Directory { met, is_lost, ..Default::default() };
            server.trip = None;
        }
        self.wake_files(now);
        for host in 0..self.c.hosts.len() {
            self.c.hosts[host].frozen_until = 0;
            self.up(host);
        }
    }
}

/// Returns the verb of an action; none if it only ends what another one began.
fn verb(action: &Action) -> Option<&'static str> {
    let events = vec![plan::Event { at: 0, action: action.clone() }];
    let plan = Plan { events, ..Plan::default() };
    plan::steps(&plan).first().map(|step| step.verb)
}
