//! Simulated leaves: hosts with clocks, disks, state files and sockets, the links between them and an
//! object store. Every fault is a knob here; every knob can be lifted; the truth can always be read.
//!
//! Invariants
//! - SL-1 All randomness comes from the world's seed, all time from the simulator.
//! - SL-2 An operation that reached the hardware is finished by the hardware, also when the process
//!   that asked for it is gone.
//! - SL-3 Whatever a port promised to be durable survives every power loss.

mod chance;
mod disk;
mod files;
mod host;
mod net;
mod store;
mod trace;

pub use chance::RareKnobs;
pub use disk::{DiskErrors, SimDisk};
pub use files::SimFiles;
pub use host::{Host, HostWorld};
pub use net::{LinkModel, SimNet};
pub use store::{BrokenPromise, SimStore};
pub use trace::{Trace, Traced};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_hw_models as hw;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Time for the executor to drop the tasks of a world that ends.
const DRAIN: Duration = Duration::from_millis(2);

/// Another future begins up to so many draws further on in the executor's stream.
const EXECUTOR_STEPS: u64 = 1 << 12;

fn blake3_of(number: u64) -> u64 {
    let hash = blake3::hash(&number.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

/// Locks; a panic elsewhere ends the run anyway.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all leaves share: time, dice, trace and the node on which hardware works.
#[derive(Clone)]
pub struct Shared {
    started: tokio::time::Instant,
    dice: Arc<Mutex<ChaCha8Rng>>,
    /// The trace of the run.
    pub trace: Trace,
    hardware: madsim::runtime::NodeHandle,
    /// What is rare and forced.
    pub rare: RareKnobs,
    /// Wakes whoever ends what ends with one of its own effects.
    tripped: Arc<Notify>,
}

impl Shared {
    /// Returns simulated time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns a number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        lock(&self.dice).next_u64() % bound.max(1)
    }

    /// Tells whether something with this chance (parts per million) happens.
    pub fn chance(&self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }

    /// As [`Shared::chance`], for a fault: if it happens, the verb bit.
    pub fn bites(&self, verb: &'static str, ppm: u32) -> bool {
        let is_met = self.chance(ppm);
        if is_met {
            self.trace.bite(verb);
        }
        is_met
    }

    /// From here on everything that is left to chance comes out otherwise: the dice of the leaves, and the order in
    /// which the executor runs what is ready.
    pub fn throw_other_dice(&self, future: u64) {
        let mut dice = lock(&self.dice);
        let key = dice.next_u64() ^ blake3_of(future);
        *dice = ChaCha8Rng::seed_from_u64(key);
        // The executor's own stream cannot be replaced, but it can be moved on.
        for _ in 0..=blake3_of(future) % EXECUTOR_STEPS {
            let _: u64 = madsim::rand::random();
        }
    }

    /// Something ends with an effect that it just had.
    fn trip(&self) {
        self.tripped.notify_one();
    }

    /// Waits until there is something to be ended.
    pub async fn tripping(&self) {
        self.tripped.notified().await;
    }

    /// Returns a duration between the two, in microseconds.
    pub fn micros(&self, low: u64, high: u64) -> Duration {
        Duration::from_micros(low + self.below(high - low + 1))
    }

    /// Returns how lucky a request is, in parts per million: 0 as fast as ever.
    pub fn luck(&self) -> u32 {
        self.below(u64::from(hw::CERTAIN) + 1) as u32
    }

    /// Returns how long something takes this time.
    pub fn draw(&self, times: &hw::Quantiles) -> Duration {
        Duration::from_micros(times.at(self.luck()))
    }

    /// Runs work on the hardware: it outlives the process that asked for it.
    pub async fn on_hardware<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.hardware.spawn(async move {
            let _ = sender.send(work.await);
        });
        match receiver.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs work on the hardware without waiting for it.
    pub fn leave_to_hardware<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hardware.spawn(work);
    }
}

/// The hardware of a world.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Links inside a site.
    pub lan: hw::LinkModel,
    /// The link between the sites.
    pub wan: hw::LinkModel,
    /// Every protected disk.
    pub disk: hw::DiskModel,
    /// The object store.
    pub store: hw::StoreModel,
    /// Factor by which all of this is divided.
    pub scale: u64,
}

impl Hardware {
    /// Returns the hardware with these names. None if a name is unknown.
    pub fn of(disk: &str, link: &str, store: &str) -> Option<Hardware> {
        Some(Hardware {
            lan: hw::find(&hw::LINKS, "lan")?.ok()?,
            wan: hw::find(&hw::LINKS, link)?.ok()?,
            disk: hw::find(&hw::DISKS, disk)?.ok()?,
            store: hw::find(&hw::STORES, store)?.ok()?,
            scale: 1,
        })
    }

    /// Returns the hardware of a scaled estate: rates and limits are divided, times are not. The link between the
    /// sites carries `bandwidth` bytes per second, if it is given.
    pub fn scaled(mut self, by: u64, bandwidth: Option<u64>) -> Hardware {
        self.wan.bytes_per_second = bandwidth.unwrap_or(self.wan.bytes_per_second);
        Hardware {
            lan: self.lan.divided(by),
            wan: self.wan.divided(by),
            disk: self.disk.divided(by),
            store: self.store.divided(by),
            scale: self.scale * by,
        }
    }
}

/// The simulated world of one run.
#[derive(Clone)]
pub struct SimWorld {
    /// What all leaves share.
    pub shared: Shared,
    /// All links and sockets.
    pub net: SimNet,
    /// The object store, in the site `target`.
    pub store: SimStore,
    hosts: Arc<Mutex<Vec<Host>>>,
    /// Model of the disks.
    disk: hw::DiskModel,
}

impl SimWorld {
    /// Makes an empty world inside a running simulation.
    #[expect(clippy::disallowed_methods, reason = "the simulator answers this call: it is virtual time")]
    pub fn new(seed: u64, traced: bool, hardware_of: &Hardware) -> SimWorld {
        let hardware = madsim::runtime::Handle::current().create_node().name("hardware").build();
        let shared = Shared {
            started: tokio::time::Instant::now(),
            dice: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed))),
            trace: Trace::new(traced),
            hardware,
            rare: RareKnobs::default(),
            tripped: Arc::default(),
        };
        let net = SimNet::new(
            shared.clone(),
            (&hardware_of.lan).into(),
            (&hardware_of.wan).into(),
            hardware_of.scale,
        );
        let store = SimStore::new(shared.clone(), net.clone(), hardware_of.store.clone());
        SimWorld { shared, net, store, disk: hardware_of.disk.clone(), hosts: Arc::default() }
    }

    /// Adds a host in a site.
    pub fn host(&self, name: &str, site: &str) -> Host {
        self.net.add_host(name, site);
        let host = Host::new(self, name);
        lock(&self.hosts).push(host.clone());
        host
    }

    /// Ends every process and the hardware, and lets the executor drop their tasks.
    ///
    /// Tasks hold disks, files and the runtime itself, so a run that does not end them is never freed.
    pub async fn end(self) {
        for host in lock(&self.hosts).drain(..) {
            host.kill_process();
        }
        madsim::runtime::Handle::current().kill(self.shared.hardware.id());
        tokio::time::sleep(DRAIN).await;
    }
}
