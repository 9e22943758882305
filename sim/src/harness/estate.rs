//! The estate of a run: machines with agents and guests, process servers, the vault.
//!
//! This is the only file that starts roles. A role gets ports and settings, and never learns where it
//! runs.

use super::copies::OldCopy;
use super::guests::{self, Cuts, Markers, Starts};
use super::mounts::Mount;
use super::operator::Keys;
use super::probe::Probe;
use crate::plan::{GuestPlan, Plan};
use crate::ports::{Host, SimDisk, SimWorld, lock};
use crate::scenario::{MachineSpec, Scenario, ServerSpec};
use crate::workload::guest::Recorder;
use crate::workload::stamp::{self, Seen};
use crate::workload::{Density, MachineLog};
use redoubt_core::MachineId;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::{Endpoint, Entropy};
use redoubt_roles::agent::{Agent, AgentBounds, AgentSettings, MarkerPolicy, VolumeSpec};
use redoubt_roles::process_server::{ProcessServer, PsSettings};
use redoubt_vault::{Vault, VaultKeys, WriterSettings};
use redoubt_wire::StreamKey;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Port on which every process server listens.
const PORT: u16 = 9443;

/// Pause before a role that could not start is started again, as a service manager would.
const START_AGAIN: Duration = Duration::from_millis(500);

/// Largest commit in the lab.
const COMMIT_BYTES: u64 = 2 << 20;

/// Least that an agent of a scaled estate sends ahead: the largest batch of a resync.
const IN_FLIGHT_LEAST: u64 = 1 << 20;

/// Smallest commit of a scaled estate: several pages, so that a backlog is not put page by page.
const COMMIT_LEAST: u64 = 64 << 10;

/// Small objects, so that commits have no, one and several segments of their own.
const OBJECTS: WriterSettings =
    WriterSettings { inline_bytes: 32 << 10, segment_bytes: 256 << 10, key_units: 1 << 8 };

/// The index is written after few slots, so that short runs have several generations of it.
const INDEX_SLOTS: u64 = 4;

/// A protected machine.
pub(super) struct Machine {
    pub(super) spec: MachineSpec,
    pub(super) number: u16,
    pub(super) id: MachineId,
    pub(super) host: Host,
    pub(super) disks: Vec<SimDisk>,
    pub(super) recorder: Recorder,
    pub(super) guest: GuestPlan,
    pub(super) scale: u64,
    pub(super) agent: Mutex<Option<Arc<Agent>>>,
    pub(super) markers: Mutex<Markers>,
    pub(super) cuts: Mutex<Cuts>,
    pub(super) starts: Starts,
    pub(super) spilled_at_start: AtomicU64,
    pub(super) start_error: Mutex<Option<String>>,
}

/// A process server.
pub(super) struct Server {
    pub(super) spec: ServerSpec,
    pub(super) host: Host,
    pub(super) server: Mutex<Option<Arc<ProcessServer>>>,
    pub(super) start_error: Mutex<Option<String>>,
}

/// Everything of one run.
pub(super) struct Estate {
    pub(super) world: SimWorld,
    pub(super) machines: BTreeMap<String, Arc<Machine>>,
    pub(super) servers: BTreeMap<String, Arc<Server>>,
    /// Old copies of machines, by the name of the machine.
    pub(super) copies: Mutex<BTreeMap<String, OldCopy>>,
    pub(super) order: Vec<Endpoint>,
    /// The vault key that services have.
    pub(super) keys: Mutex<VaultKeys>,
    /// The one in force.
    pub(super) newest_keys: Mutex<VaultKeys>,
    pub(super) key_changes: Keys,
    /// Where the operator works.
    pub(super) operator: Host,
    pub(super) mounts: Mutex<Vec<Mount>>,
    /// The newest points that are kept, if not those of the usual rules.
    pub(super) keep: Option<u32>,
    pub(super) bounds: AgentBounds,
    pub(super) stage_bytes: u64,
    /// Factor by which the operator's sizes and rates are divided.
    pub(super) scale: u64,
    /// How long mounts took, by machine, in milliseconds; those under way have no end yet.
    pub(super) probes: Mutex<Vec<Probe>>,
    pub(super) point_every: Duration,
    pub(super) stop: Arc<AtomicBool>,
}

impl Machine {
    /// Reads what the disks really hold.
    pub(super) fn truth(&self) -> Vec<Vec<Seen>> {
        self.disks
            .iter()
            .enumerate()
            .map(|(index, disk)| stamp::read_image(self.number, index as u16, &disk.truth()))
            .collect()
    }
}

impl Estate {
    /// Builds hosts and the vault; nothing runs yet.
    pub(super) async fn build(scenario: &Scenario, plan: &Plan, world: SimWorld) -> Result<Estate, String> {
        let spec = &scenario.estate;
        let mut servers = BTreeMap::new();
        let mut order = Vec::new();
        for server in &spec.servers {
            let host = world.host(&server.name, &server.site);
            order.push(Endpoint::Tcp(server.name.clone(), PORT));
            let server_state = Server {
                spec: server.clone(),
                host,
                server: Mutex::new(None),
                start_error: Mutex::new(None),
            };
            servers.insert(server.name.clone(), Arc::new(server_state));
        }
        let mut machines = BTreeMap::new();
        for (number, machine) in spec.machines.iter().enumerate() {
            let guest = plan.guests[&machine.name].clone();
            let built = build_machine(&world, number as u16, machine, guest, spec.scale);
            machines.insert(machine.name.clone(), Arc::new(built));
        }
        let mut key = [0x5a; 32];
        key[..8].copy_from_slice(&plan.seed.to_le_bytes());
        let keys = VaultKeys::new(key);
        let operator = world.host("operator", "target");
        operator.start();
        let entropy: Arc<dyn Entropy> = operator.world().world.entropy;
        Vault::init(world.store.direct(), keys.clone(), entropy.as_ref())
            .await
            .map_err(|error| error.to_string())?;
        let bounds = AgentBounds {
            memory_bytes_max: spec.spool_memory,
            spill_bytes_max: spec.spill,
            ..AgentBounds::default()
        };
        let bounds = AgentBounds {
            in_flight_bytes_max: (bounds.in_flight_bytes_max / spec.scale)
                .max(IN_FLIGHT_LEAST.min(bounds.in_flight_bytes_max)),
            ..bounds
        };
        Ok(Estate {
            world,
            machines,
            servers,
            copies: Mutex::default(),
            order,
            newest_keys: Mutex::new(keys.clone()),
            keys: Mutex::new(keys),
            key_changes: Keys::default(),
            operator,
            mounts: Mutex::default(),
            keep: spec.keep,
            bounds,
            stage_bytes: spec.stage,
            scale: spec.scale,
            probes: Mutex::default(),
            point_every: Duration::from_millis(spec.point_every),
            stop: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Returns the vault key in force.
    pub(super) fn newest_keys(&self) -> VaultKeys {
        lock(&self.newest_keys).clone()
    }

    /// Tells whether services were ever given another vault key.
    pub(super) fn has_given_keys(&self) -> bool {
        self.key_changes.is_given()
    }

    pub(super) fn stream_key(&self, machine: MachineId) -> StreamKey {
        StreamKey::new(lock(&self.keys).stream_key(machine))
    }

    /// Starts the process of a host, whichever it is.
    pub(super) fn start(&self, host: &str) {
        if let Some(machine) = self.machines.get(host) {
            self.start_machine(machine, true);
        }
        if let Some(server) = self.servers.get(host) {
            self.start_server(server);
        }
    }

    /// Starts a machine's agent, and its guests as soon as it serves them. After an unclean stop the
    /// surviving bytes are the new base of the reference model.
    pub(super) fn start_machine(&self, machine: &Arc<Machine>, unclean: bool) {
        *lock(&machine.agent) = None;
        machine.host.start();
        let first = machine.starts.fetch_add(1, Ordering::Relaxed) == 0;
        let settings = self.agent_settings(machine);
        let key = self.stream_key(machine.id);
        let world = machine.host.world().world;
        let (every, stop) = (self.point_every, Arc::clone(&self.stop));
        let trace = self.world.shared.clone();
        let this = Arc::clone(machine);
        machine.host.spawn(async move {
            // A process that was killed ends with what it has under way.
            while this.disks.iter().any(SimDisk::is_busy) {
                tokio::time::sleep(START_AGAIN).await;
            }
            if unclean && !first {
                let truth = this.truth();
                lock(&this.recorder.log).rebase(truth);
            }
            loop {
                match Agent::start(settings.clone(), world.clone(), key.clone()).await {
                    Ok(agent) => {
                        let agent = Arc::new(agent);
                        this.spilled_at_start.fetch_add(agent.status().spill_bytes, Ordering::Relaxed);
                        *lock(&this.agent) = Some(Arc::clone(&agent));
                        *lock(&this.start_error) = None;
                        trace.trace.line(trace.now(), || format!("agent of {} runs", this.spec.name));
                        guests::start(&this, &agent, &stop);
                        let weak = Arc::downgrade(&agent);
                        drop(agent);
                        guests::cut_steadily(Arc::clone(&this), weak, every, stop).await;
                        // The process lives on without its guests.
                        return std::future::pending().await;
                    }
                    Err(error) => {
                        trace.trace.line(trace.now(), || {
                            format!("agent of {} does not start: {error}", this.spec.name)
                        });
                        *lock(&this.start_error) = Some(error.to_string());
                        tokio::time::sleep(START_AGAIN).await;
                    }
                }
            }
        });
    }

    /// Returns the settings of a machine's agent.
    pub(super) fn agent_settings(&self, machine: &Machine) -> AgentSettings {
        let mut settings = AgentSettings::new(machine.id, machine.spec.name.clone(), self.order.clone());
        settings.bounds = self.bounds;
        settings.markers = MarkerPolicy { interval: None, when_quiet: true };
        settings.volumes = (0..machine.spec.disks.len())
            .map(|index| VolumeSpec::new(guests::volume_name(index), guests::volume_name(index)))
            .collect();
        settings
    }

    /// Starts a process server.
    pub(super) fn start_server(&self, server: &Arc<Server>) {
        *lock(&server.server) = None;
        server.host.start();
        let mut settings =
            PsSettings::new(Endpoint::Tcp(server.spec.name.clone(), PORT), server.spec.name.clone());
        settings.stage_bytes_max = self.stage_bytes;
        if self.scale > 1 {
            // As in production, and divided: a commit that is put in a second is put in a second.
            settings.commit_bytes_max = (settings.commit_bytes_max / self.scale).max(COMMIT_LEAST);
        } else {
            settings.commit_bytes_max = COMMIT_BYTES;
            settings.objects = OBJECTS;
            settings.index_slots = INDEX_SLOTS;
        }
        settings.machines =
            self.machines.values().map(|machine| (machine.id, self.stream_key(machine.id))).collect();
        let ports = server.host.world();
        if let Some(count) = self.keep {
            settings.keep = Ladder::new(vec![Rule::Newest { count, which: Which::Any }]);
        }
        let keys = lock(&self.keys).clone();
        let trace = self.world.shared.clone();
        let this = Arc::clone(server);
        server.host.spawn(async move {
            loop {
                let store = Arc::clone(&ports.store);
                match ProcessServer::start(settings.clone(), ports.world.clone(), store, keys.clone()).await {
                    Ok(server) => {
                        *lock(&this.server) = Some(Arc::new(server));
                        *lock(&this.start_error) = None;
                        trace.trace.line(trace.now(), || format!("process server {} runs", this.spec.name));
                        return std::future::pending().await;
                    }
                    Err(error) => {
                        let name = &this.spec.name;
                        trace
                            .trace
                            .line(trace.now(), || format!("process server {name} does not start: {error}"));
                        *lock(&this.start_error) = Some(error.to_string());
                        tokio::time::sleep(START_AGAIN).await;
                    }
                }
            }
        });
    }

    /// Ends the process of a host without a word.
    pub(super) fn kill(&self, host: &str) {
        self.forget(host);
        if let Some(host) = self.find(host) {
            host.kill_process();
        }
    }

    /// Cuts the power of a host.
    pub(super) fn power_off(&self, host: &str) {
        self.forget(host);
        if let Some(host) = self.find(host) {
            host.power_off();
        }
    }

    fn forget(&self, host: &str) {
        let agent = self.machines.get(host).and_then(|machine| lock(&machine.agent).take());
        let server = self.servers.get(host).and_then(|server| lock(&server.server).take());
        // A killed process runs no destructors of its own; its handles simply stop to exist.
        drop((agent, server));
    }

    /// Tells whether an agent's session runs on this host, or to this host.
    pub(super) fn has_session(&self, host: &str) -> bool {
        let mut connected = self
            .machines
            .values()
            .filter(|machine| lock(&machine.agent).as_ref().is_some_and(|agent| agent.status().is_connected));
        let machine = self.machines.get(host).map(|machine| machine.id);
        let server = self.servers.get(host).and_then(|server| lock(&server.server).clone());
        match (machine, server) {
            (Some(id), _) => connected.any(|machine| machine.id == id),
            (_, Some(server)) => server.status().machines.values().any(|status| status.is_connected),
            _ => false,
        }
    }

    /// Finds a host by name.
    pub(super) fn find(&self, name: &str) -> Option<&Host> {
        let machine = self.machines.get(name).map(|machine| &machine.host);
        machine.or_else(|| self.servers.get(name).map(|server| &server.host))
    }

    /// Returns the hosts of a site.
    pub(super) fn hosts_in(&self, site: &str) -> Vec<String> {
        let mut hosts: Vec<String> = self
            .servers
            .values()
            .filter(|server| server.spec.site == site)
            .map(|s| s.spec.name.clone())
            .collect();
        if site == "source" {
            hosts.extend(self.machines.keys().cloned());
        }
        hosts
    }

    /// Returns every host's name.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.machines.keys().chain(self.servers.keys()).cloned().collect()
    }
}

fn build_machine(world: &SimWorld, number: u16, spec: &MachineSpec, guest: GuestPlan, scale: u64) -> Machine {
    let host = world.host(&spec.name, "source");
    let disks: Vec<SimDisk> = spec
        .disks
        .iter()
        .enumerate()
        .map(|(index, bytes)| host.add_disk(&guests::volume_name(index), *bytes))
        .collect();
    let sectors: Vec<u64> = spec.disks.iter().map(|bytes| bytes / 512).collect();
    let shared = world.shared.clone();
    let recorder = Recorder {
        log: Arc::new(Mutex::new(MachineLog::new(number, &sectors))),
        notices: Arc::default(),
        machine: number,
        density: guest.entropy.map_or(Density::default(), Density::of),
        clock: Arc::new(move || shared.now()),
    };
    Machine {
        spec: spec.clone(),
        number,
        id: MachineId(0x4d00 + u128::from(number)),
        host,
        disks,
        recorder,
        guest,
        scale,
        agent: Mutex::new(None),
        markers: Mutex::default(),
        cuts: Mutex::default(),
        starts: Starts::new(0),
        spilled_at_start: AtomicU64::new(0),
        start_error: Mutex::new(None),
    }
}
