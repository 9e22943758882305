//! Mounts of recovery points at the recovery site, while everything else goes on: each pins a point, reads it all the
//! time, and holds every answer against what the point held when it was mounted. The first, third, .. mount of a run
//! reads here and there through a local cache that fills up behind it; the others have none and read their disks
//! from end to end, some reads at once, so that readers read ahead and ask the vault again for what they dropped.
//!
//! Oracle `mount-holds`: a mount never shows other bytes than its point's; each read ends within the promised time; it
//! fails only while something is wrong with the store or the way there; and its point is not given up until it is
//! unmounted, whatever retention says. It may be listed no more: a pin that comes between a maintainer's look and its
//! next version holds a retired point.

use super::estate::{Estate, Machine};
use super::restore;
use crate::oracles::Finding;
use crate::ports::{Host, lock};
use redoubt_core::{Extent, MarkerId, VolumeIndex};
use redoubt_ports::{Disk, Entropy, World};
use redoubt_roles::mount::{LocalCache, PointDisk};
use redoubt_vault::{MachineReader, Pin, PointView, Vault, VaultError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A guest gives its disk 30 s; a mount answers within 20 s, and a bit for the way through the lab.
const ANSWER_WITHIN: Duration = Duration::from_secs(21);
/// Largest read.
const SECTORS_MAX: u64 = 64;
/// Reads that are on the way at once if a disk is read in order.
const READS_AT_ONCE: u64 = 4;
/// Between two reads.
const PAUSE: Duration = Duration::from_millis(300);
/// Before something is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Rounds of reads between two renewals of the pin: far more often than a mount does it, since this also asks whether
/// the point is still held.
const RENEW_EVERY: u64 = 8;
/// Bytes of the local cache.
const CACHE_BYTES: u64 = 64 << 20;

/// How a mount reads.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Anywhere, through a local cache.
    Anywhere,
    /// From end to end, some reads at once, without a cache.
    InOrder,
}

/// What a point holds, by volume.
type Truth = BTreeMap<VolumeIndex, Vec<u8>>;

/// A read that failed.
struct Failure {
    from: Duration,
    to: Duration,
    what: String,
}

/// What a mount came to.
#[derive(Default)]
struct Seen {
    /// The point, while it is pinned.
    held: Option<MarkerId>,
    failures: Vec<Failure>,
    findings: Vec<Finding>,
}

/// A mount, running or ended.
pub(super) struct Mount {
    machine: String,
    host: Host,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

/// Mounts the oldest point of a machine.
pub(super) fn mount(estate: &Arc<Estate>, machine: &str) {
    let Some(of) = estate.machines.get(machine).cloned() else { return };
    let mut mounts = lock(&estate.mounts);
    let host = estate.world.host(&format!("mount-{machine}-{}", mounts.len()), "target");
    host.start();
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
    let manner = if mounts.len().is_multiple_of(2) { Manner::Anywhere } else { Manner::InOrder };
    let work = Work {
        estate: Arc::clone(estate),
        machine: of,
        manner,
        host: host.clone(),
        stop: stop.clone(),
        seen: seen.clone(),
    };
    host.spawn(work.run());
    mounts.push(Mount { machine: machine.to_owned(), host, stop, seen });
}

/// Ends the oldest mount of a machine.
pub(super) fn unmount(estate: &Estate, machine: &str) {
    let mounts = lock(&estate.mounts);
    let of = |mount: &&Mount| mount.machine == machine && !mount.stop.load(Ordering::Relaxed);
    if let Some(mount) = mounts.iter().find(of) {
        mount.stop.store(true, Ordering::Relaxed);
    }
}

/// Returns the points that mounts hold, by machine.
pub(super) fn held(estate: &Estate) -> Vec<(String, MarkerId)> {
    let mounts = lock(&estate.mounts);
    let held = |mount: &Mount| Some((mount.machine.clone(), lock(&mount.seen).held?));
    mounts.iter().filter_map(held).collect()
}

/// Says what was found; a read may fail while `is_faulty` says so of the time between two instants.
pub(super) fn judge(estate: &Estate, is_faulty: impl Fn(Duration, Duration) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for mount in &*lock(&estate.mounts) {
        let seen = lock(&mount.seen);
        findings.extend(seen.findings.iter().take(2).cloned());
        let unexcused = seen.failures.iter().find(|failure| !is_faulty(failure.from, failure.to));
        findings.extend(unexcused.map(|failure| {
            let (name, at) = (mount.host.name(), failure.from.as_secs_f64());
            Finding::new(
                "mount-holds",
                format!("{name}: a read at {at:.3} s failed and nothing was wrong: {}", failure.what),
            )
        }));
    }
    findings
}

struct Work {
    estate: Arc<Estate>,
    machine: Arc<Machine>,
    manner: Manner,
    host: Host,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Work {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn find(&self, what: String) {
        lock(&self.seen).findings.push(Finding::new("mount-holds", format!("{}: {what}", self.host.name())));
    }

    async fn run(self) {
        while !self.is_stopped() {
            if let Some((mut pin, marker, view, truth)) = self.open().await {
                let shared = &self.estate.world.shared;
                shared.trace.mark("point-mounted");
                shared.trace.line(shared.now(), || format!("{} holds point {marker}", self.host.name()));
                self.serve(&mut pin, marker, view, &truth).await;
                lock(&self.seen).held = None;
                return self.give_up(pin).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Pins the oldest point that can be pinned, as a mount does.
    async fn open(&self) -> Option<(Pin, MarkerId, PointView, Truth)> {
        let ports = self.host.world();
        let vault = Vault::open(ports.store, self.estate.newest_keys()).await.ok()?;
        let vault = vault.with_chance(ports.world.chance.clone());
        let reader = MachineReader::open(&vault, self.machine.id).await.ok()?;
        let oldest = reader.points().into_iter().next()?;
        // Before the pin: who pins a point just as it retires holds one that is not listed any more.
        let truth = self.truth(oldest.marker.id).await?;
        let entropy: Arc<dyn Entropy> = ports.world.entropy;
        match vault.pin(self.machine.id, oldest.id, &*entropy).await {
            Ok(pin) => Some((pin, oldest.marker.id, reader.view(oldest.id).ok()?, truth)),
            Err(error) => {
                if matches!(error, VaultError::NoPoint { .. }) {
                    self.estate.world.shared.trace.mark("pin-came-too-late");
                }
                None
            }
        }
    }

    /// Reads until it is told to stop.
    async fn serve(&self, pin: &mut Pin, marker: MarkerId, view: PointView, truth: &Truth) {
        lock(&self.seen).held = Some(marker);
        let World { files, clock, .. } = self.host.world().world;
        let cache = match self.manner {
            Manner::Anywhere => LocalCache::open(files, CACHE_BYTES).await.ok(),
            Manner::InOrder => None,
        };
        let (mut disks, mut hydrations) = (BTreeMap::new(), Vec::new());
        for volume in truth.keys() {
            let Some(mut disk) = PointDisk::new(view.clone(), *volume, None, clock.clone()) else { continue };
            if let Some(cache) = &cache {
                disk = disk.with_cache(Arc::clone(cache));
                hydrations.push(disk.hydrate());
            }
            disks.insert(*volume, disk);
        }
        let mut round = 0;
        while !self.is_stopped() {
            round += 1;
            if round % RENEW_EVERY == 0
                && let Err(VaultError::NoPoint { .. }) = pin.renew(&*self.host.world().world.entropy).await
            {
                self.find(format!("point {marker} is pinned, and was given up"));
            }
            for (volume, disk) in &disks {
                let reads = self.next(round, disk.info().sectors.0).into_iter();
                let reads = reads.map(|extent| self.read(*volume, disk, extent, &truth[volume]));
                futures::future::join_all(reads).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What a round reads of a disk of so many sectors.
    fn next(&self, round: u64, sectors: u64) -> Vec<Extent> {
        match self.manner {
            Manner::Anywhere => {
                let shared = &self.estate.world.shared;
                let first = shared.below(sectors);
                vec![Extent::new(first, 1 + shared.below(SECTORS_MAX.min(sectors - first)))]
            }
            Manner::InOrder => {
                let step = SECTORS_MAX * READS_AT_ONCE;
                let from = (round - 1) % sectors.div_ceil(step) * step;
                let firsts = (from..sectors.min(from + step)).step_by(SECTORS_MAX as usize);
                firsts.map(|first| Extent::new(first, SECTORS_MAX.min(sectors - first))).collect()
            }
        }
    }

    async fn read(&self, volume: VolumeIndex, disk: &PointDisk, extent: Extent, truth: &[u8]) {
        let shared = &self.estate.world.shared;
        let from = shared.now();
        let read = disk.read(extent).await;
        let to = shared.now();
        let took = to.saturating_sub(from);
        if took > ANSWER_WITHIN {
            self.find(format!("a read of {extent} took {:.1} s", took.as_secs_f64()));
        }
        match read {
            Ok(bytes) => {
                if bytes[..] != truth[extent.lba.bytes() as usize..][..extent.bytes() as usize] {
                    self.find(format!("volume {}: {extent} is not what the point holds", volume.0));
                }
                if self.estate.world.store.is_out() {
                    shared.trace.mark("mount-read-in-an-outage");
                }
            }
            Err(error) => {
                shared.trace.mark("mount-read-failed-in-time");
                lock(&self.seen).failures.push(Failure { from, to, what: error.to_string() });
            }
        }
    }

    /// What the point holds, as the store itself has it, without faults.
    async fn truth(&self, marker: MarkerId) -> Option<Truth> {
        let vault = restore::open(&self.estate).await.ok()?;
        let reader = MachineReader::open(&vault, self.machine.id).await.ok()?;
        let point = reader.points().into_iter().find(|point| point.marker.id == marker)?;
        let view = reader.view(point.id).ok()?;
        let mut truth = BTreeMap::new();
        for (volume, info) in view.volumes().clone() {
            let image = restore::image(&view, volume, info.sectors.0).await.ok()?;
            truth.insert(volume, image);
        }
        Some(truth)
    }

    async fn give_up(&self, pin: Pin) {
        // A killed mount leaves its pin as well.
        let _ = pin.remove().await;
    }
}
