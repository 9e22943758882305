//! The worker tasks of an agent: record, activity logs, resync reads, time.
//!
//! What is *not* here: the spill files ([`super::spill`]), the link ([`super::link_task`]).

use super::guarded;
use super::shell::{Purpose, ReadBack, Shell};
use super::spill;
use super::trouble::Concern;
use redoubt_core::agent::{AgentEvent, Rest};
use redoubt_core::planted::{self, Bug};
use redoubt_core::resync::RunRead;
use redoubt_core::splitter::IoFailure;
use redoubt_core::{Extent, Instant, VolumeIndex};
use redoubt_ports::{Disk, File, IoError, IoKind, Rare};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Beat of the machine: seals what lies open, retries, markers.
const TICK: Duration = Duration::from_millis(25);
/// Least time between two beats.
const BEAT_LEAST: Duration = Duration::from_millis(1);
/// How often extents are cooled; each time costs one flush of the disk.
const COOL_EVERY: Duration = Duration::from_secs(5);
/// How lazy the planted bug of the activity log is.
const PLANTED_DELAY: Duration = Duration::from_secs(2);
/// Reads of the machine at once: all that the resync has open.
const READERS: usize = redoubt_core::resync::READS_AT_ONCE;

/// How long a read that is forced to be slow keeps what it found: many others begin and end meanwhile.
const SLOW_READER: Duration = Duration::from_millis(200);

/// Starts all workers.
pub(super) fn spawn(shell: &Arc<Shell>, spill_files: BTreeMap<u64, Arc<dyn File>>) {
    shell.tasks.spawn(state_loop(Arc::clone(shell)));
    shell.tasks.spawn(log_loop(Arc::clone(shell)));
    shell.tasks.spawn(spill::run(Arc::clone(shell), spill_files));
    shell.tasks.spawn(guarded::run_orphans(Arc::clone(shell)));
    shell.tasks.spawn(tick_loop(Arc::clone(shell)));
    shell.tasks.spawn(cool_loop(Arc::clone(shell)));
    for _ in 0..READERS {
        shell.tasks.spawn(read_loop(Arc::clone(shell)));
    }
}

async fn state_loop(shell: Arc<Shell>) {
    loop {
        if !shell.write_state().await {
            shell.state_wake.notified().await;
        }
    }
}

async fn log_loop(shell: Arc<Shell>) {
    loop {
        if planted::active(Bug::SkipActivityLogSync) {
            tokio::time::sleep(PLANTED_DELAY).await;
        }
        if !shell.write_log().await {
            shell.persist_wake.notified().await;
        }
    }
}

/// Ticks on the beat, and not at all while the machine rests.
async fn tick_loop(shell: Arc<Shell>) {
    let began = shell.now();
    loop {
        // On the beat, also after a rest.
        let past = shell.now().since(began).as_nanos() % TICK.as_nanos();
        let left = beat(&shell).saturating_sub(Duration::from_nanos(past as u64));
        tokio::time::sleep(left.max(BEAT_LEAST)).await;
        shell.step(AgentEvent::Tick);
        let rest = {
            let mut core = shell.lock();
            let rest = core.machine.rest(shell.now());
            core.is_resting = rest != Rest::None;
            rest
        };
        let Rest::Until(until) = rest else { continue };
        let woken = shell.tick_wake.notified();
        match until {
            None => woken.await,
            Some(until) => drop(tokio::time::timeout(until.since(shell.now()), woken).await),
        }
        shell.lock().is_resting = false;
    }
}

fn beat(shell: &Shell) -> Duration {
    let chance = &shell.world.chance;
    match () {
        () if chance.forces(Rare::EarlyBeat) => TICK / 25,
        () if chance.forces(Rare::LateBeat) => TICK * 12,
        () => TICK,
    }
}

async fn cool_loop(shell: Arc<Shell>) {
    loop {
        let is_early = shell.world.chance.forces(Rare::EarlyCooling);
        tokio::time::sleep(if is_early { COOL_EVERY / 50 } else { COOL_EVERY }).await;
        cool(&shell).await;
    }
}

/// Flushes the disks, then looks at every mark once, a batch at a time: guests step in between.
pub(super) async fn cool(shell: &Arc<Shell>) {
    flush_disks(shell).await;
    let volumes: Vec<VolumeIndex> = shell.lock().volumes.keys().copied().collect();
    for volume in volumes {
        loop {
            shell.step(AgentEvent::Cool { volume });
            if !shell.lock().machine.is_cooling(volume) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Flushes every disk whose extents could cool after it.
async fn flush_disks(shell: &Arc<Shell>) {
    let volumes: Vec<(VolumeIndex, Arc<dyn Disk>)> = {
        let core = shell.lock();
        core.volumes.iter().map(|(index, volume)| (*index, Arc::clone(&volume.disk))).collect()
    };
    for (volume, disk) in volumes {
        let Some(token) = shell.lock().machine.flush_wanted(volume) else { continue };
        match disk.flush().await {
            Ok(()) => shell.step(AgentEvent::Flushed { volume, token }),
            Err(error) => {
                shell.trouble(Concern::Disk, error);
                shell.step(AgentEvent::FlushFailed { volume, is_told: false });
            }
        }
    }
}

async fn read_loop(shell: Arc<Shell>) {
    loop {
        let work = {
            let mut core = shell.lock();
            let work = core.reads.pop_front();
            if !core.reads.is_empty() {
                shell.read_wake.notify_one();
            }
            work.and_then(|read| {
                let disk = Arc::clone(&core.volumes.get(&read.volume)?.disk);
                Some((read, disk))
            })
        };
        let Some((read, disk)) = work else {
            shell.read_wake.notified().await;
            continue;
        };
        let event = perform(&shell, &*disk, read).await;
        if shell.world.chance.forces(Rare::SlowReader) {
            tokio::time::sleep(SLOW_READER).await;
        }
        {
            let mut core = shell.lock();
            shell.step_in(&mut core, event);
            if !core.machine.has_unreadable() {
                core.troubles.end(Concern::Disk);
            }
        }
        shell.progress.notify_one();
    }
}

async fn perform(shell: &Shell, disk: &dyn Disk, read: ReadBack) -> AgentEvent {
    let ReadBack { volume, io, extent, purpose } = read;
    let failed = |error: IoError| {
        shell.trouble(Concern::Disk, &error);
        failure(&error)
    };
    match purpose {
        Purpose::Recapture => {
            let found = disk.read(extent).await.map_err(failed);
            let result = found.as_ref().map(|_| ()).map_err(|failure| *failure);
            AgentEvent::Done { volume, io, result, payload: found.ok() }
        }
        Purpose::Resync { with_digests } => {
            let result = read_run(disk, extent, with_digests).await.map_err(failed);
            AgentEvent::ResyncRead { volume, io, result }
        }
    }
}

/// Reads a run, unless the disk says that it is a hole.
async fn read_run(disk: &dyn Disk, extent: Extent, with_digests: bool) -> Result<RunRead, IoError> {
    if disk.data_extents(extent).await?.is_empty() {
        return Ok(RunRead::hole(extent));
    }
    Ok(RunRead::of(disk.read(extent).await?, with_digests))
}

/// Says what the splitter must know of a disk's error.
pub(super) fn failure(error: &IoError) -> IoFailure {
    match error.kind {
        IoKind::NoSpace => IoFailure::NoSpace,
        IoKind::Unsupported => IoFailure::Unsupported,
        _ => IoFailure::Device,
    }
}

/// Returns the time until an instant, at least a millisecond.
pub(super) fn until(now: Instant, deadline: Option<Instant>, longest: Duration) -> Duration {
    deadline.map_or(longest, |deadline| deadline.since(now)).clamp(Duration::from_millis(1), longest)
}
