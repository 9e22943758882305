//! A host: power, one process at a time, a wall clock that may lie, disks and a state directory.

use super::chance::SimChance;
use super::disk::{DiskErrors, SimDisk};
use super::files::SimFiles;
use super::store::HostStore;
use super::{Shared, SimNet, SimStore, SimWorld, lock};
use async_trait::async_trait;
use madsim::runtime::{Handle, NodeHandle};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_core::{Instant, WallTime};
use redoubt_hw_models::DiskModel;
use redoubt_ports::{Clock, Disk, Disks, Entropy, IoError, IoKind, RawStore, Workers, World};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Wall time at the start of each run: 2026-01-01, so that the year never matters.
const EPOCH: i64 = 1_767_225_600_000;

/// How long a job takes, in microseconds: a small segment on an idle core, a whole one on a busy core.
const JOB_MICROS: std::ops::Range<u64> = 50..100_000;

struct SimClock {
    shared: Shared,
    step: Arc<AtomicI64>,
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant(self.shared.now().as_nanos() as u64)
    }

    fn wall(&self) -> WallTime {
        let wall = EPOCH + self.shared.now().as_millis() as i64 + self.step.load(Ordering::Relaxed);
        WallTime(wall.max(0) as u64)
    }
}

struct SimEntropy(Mutex<ChaCha8Rng>);

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        lock(&self.0).fill_bytes(buffer);
    }
}

/// Jobs take a while and overtake one another: what they do to time is up to the dice.
struct SimWorkers(Shared);

#[async_trait]
impl Workers for SimWorkers {
    async fn run(&self, job: redoubt_ports::workers::Job) {
        tokio::time::sleep(self.0.micros(JOB_MICROS.start, JOB_MICROS.end)).await;
        job();
    }
}

#[derive(Clone)]
struct HostDisks(Arc<Mutex<BTreeMap<String, SimDisk>>>);

#[async_trait]
impl Disks for HostDisks {
    async fn open(&self, name: &str, read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        let disk = lock(&self.0).get(name).cloned();
        match disk {
            Some(disk) => disk.open(read_only),
            None => Err(IoError::new(IoKind::NotFound, format!("open disk {name}"), "no such disk")),
        }
    }
}

/// The ports of a host plus its view of the store.
#[derive(Clone)]
pub struct HostWorld {
    /// What a role gets.
    pub world: World,
    /// The object store as seen from this host.
    pub store: Arc<dyn RawStore>,
}

/// A simulated host.
#[derive(Clone)]
pub struct Host {
    name: String,
    shared: Shared,
    net: SimNet,
    store: SimStore,
    disk: DiskModel,
    step: Arc<AtomicI64>,
    /// The state directory.
    pub files: SimFiles,
    disks: HostDisks,
    entropy: Arc<SimEntropy>,
    process: Arc<Mutex<Option<NodeHandle>>>,
}

impl Host {
    pub(super) fn new(world: &SimWorld, name: &str) -> Host {
        let seed = world.shared.below(u64::MAX);
        Host {
            name: name.to_owned(),
            shared: world.shared.clone(),
            net: world.net.clone(),
            store: world.store.clone(),
            disk: world.disk.clone(),
            step: Arc::new(AtomicI64::new(0)),
            files: SimFiles::new(world.shared.clone(), name, &world.disk),
            disks: HostDisks(Arc::new(Mutex::new(BTreeMap::new()))),
            entropy: Arc::new(SimEntropy(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))),
            process: Arc::new(Mutex::new(None)),
        }
    }

    /// Returns the host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a disk of zeros.
    pub fn add_disk(&self, name: &str, bytes: u64) -> SimDisk {
        let disk = SimDisk::new(self.shared.clone(), &format!("{}/{name}", self.name), bytes, &self.disk);
        lock(&self.disks.0).insert(name.to_owned(), disk.clone());
        disk
    }

    /// Returns the ports of this host.
    pub fn world(&self) -> HostWorld {
        let clock = Arc::new(SimClock { shared: self.shared.clone(), step: Arc::clone(&self.step) });
        HostWorld {
            world: World {
                clock,
                entropy: Arc::clone(&self.entropy) as Arc<dyn Entropy>,
                net: Arc::new(self.net.at(&self.name)),
                files: Arc::new(self.files.clone()),
                disks: Arc::new(self.disks.clone()),
                workers: Arc::new(SimWorkers(self.shared.clone())),
                chance: Arc::new(SimChance(self.shared.clone())),
            },
            store: Arc::new(HostStore::new(self.store.clone(), &self.name)),
        }
    }

    /// Starts a process; an older one must be gone.
    pub fn start(&self) {
        self.kill_process();
        self.files.next_process();
        lock(&self.disks.0).values().for_each(SimDisk::release);
        self.net.set_power(&self.name, true);
        *lock(&self.process) = Some(Handle::current().create_node().name(&self.name).build());
    }

    /// Runs a task in the host's process; nothing happens if there is none.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &*lock(&self.process) {
            process.spawn(work);
        }
    }

    /// Tells whether a process runs.
    pub fn is_running(&self) -> bool {
        lock(&self.process).is_some()
    }

    /// Ends the process at once. Peers see the end of its connections; its page cache survives.
    pub fn kill_process(&self) {
        let process = lock(&self.process).take();
        if let Some(process) = process {
            Handle::current().resume(process.id());
            Handle::current().kill(process.id());
        }
    }

    /// Cuts the power. Peers hear nothing; what was not durable is lost by chance.
    pub fn power_off(&self) {
        self.net.set_power(&self.name, false);
        self.kill_process();
        self.files.power_loss();
        for disk in lock(&self.disks.0).values() {
            disk.power_loss();
        }
    }

    /// Stops the process in its tracks, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        if let Some(process) = &*lock(&self.process) {
            if frozen {
                Handle::current().pause(process.id());
            } else {
                Handle::current().resume(process.id());
            }
        }
    }

    /// Steps the wall clock.
    pub fn step_clock(&self, milliseconds: i64) {
        self.step.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Takes over the disks and the state directory of another host, as they are now.
    pub fn copy_from(&self, other: &Host) {
        self.files.copy_from(&other.files);
        for (name, disk) in lock(&other.disks.0).iter() {
            let content = disk.truth();
            self.add_disk(name, content.len() as u64).fill(&content);
        }
    }

    /// Lifts every fault of the host's leaves.
    pub fn lift_faults(&self) {
        self.files.set_full(false);
        self.files.set_sync_errors(0);
        self.files.untrip();
        self.files.hang_until(Duration::ZERO);
        for disk in lock(&self.disks.0).values() {
            disk.set_errors(DiskErrors::default());
            disk.hang_until(Duration::ZERO);
        }
    }

    /// Returns the disks.
    pub fn disks(&self) -> Vec<SimDisk> {
        lock(&self.disks.0).values().cloned().collect()
    }
}
