//! The worker tasks of an agent: record, activity logs, spill files, resync reads, time.

use super::shell::Shell;
use bytes::Bytes;
use redoubt_core::agent::AgentEvent;
use redoubt_core::batch_file::{self, ENTRY_HEADER_BYTES, SPILL_MAGIC};
use redoubt_core::splitter::IoFailure;
use redoubt_core::spool::{SpillPlace, SpillWork};
use redoubt_core::{Instant, VolumeIndex};
use redoubt_ports::{Disk, File, IoError, IoKind, OpenMode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Beat of the machine: seals what lies open, retries, markers.
const TICK: Duration = Duration::from_millis(25);
/// How often extents are cooled; each time costs one flush of the disk.
const COOL_EVERY: Duration = Duration::from_secs(5);
/// Resync reads at once: enough to keep a disk busy beside the guest.
const READERS: usize = 4;

/// Starts all workers.
pub(super) fn spawn(shell: &Arc<Shell>, spill_files: BTreeMap<u64, Arc<dyn File>>) {
    shell.tasks.spawn(state_loop(Arc::clone(shell)));
    shell.tasks.spawn(log_loop(Arc::clone(shell)));
    shell.tasks.spawn(spill_loop(Arc::clone(shell), spill_files));
    shell.tasks.spawn(orphan_loop(Arc::clone(shell)));
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
        if !shell.write_log().await {
            shell.persist_wake.notified().await;
        }
    }
}

async fn tick_loop(shell: Arc<Shell>) {
    loop {
        tokio::time::sleep(TICK).await;
        shell.step(AgentEvent::Tick);
    }
}

/// Runs to their end the operations whose client went away.
async fn orphan_loop(shell: Arc<Shell>) {
    loop {
        let orphan = shell.lock().orphans.pop_front();
        match orphan {
            Some(orphan) => shell.tasks.spawn(orphan),
            None => shell.orphan_wake.notified().await,
        }
    }
}

async fn cool_loop(shell: Arc<Shell>) {
    loop {
        tokio::time::sleep(COOL_EVERY).await;
        flush_disks(&shell).await;
    }
}

/// Flushes every disk whose extents could cool after it.
pub(super) async fn flush_disks(shell: &Arc<Shell>) {
    let volumes: Vec<(VolumeIndex, Arc<dyn Disk>)> = {
        let core = shell.lock();
        core.volumes.iter().map(|(index, volume)| (*index, Arc::clone(&volume.disk))).collect()
    };
    for (volume, disk) in volumes {
        let Some(token) = shell.lock().machine.flush_wanted(volume) else { continue };
        match disk.flush().await {
            Ok(()) => shell.step(AgentEvent::Flushed { volume, token }),
            Err(error) => shell.trouble(error),
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
            work.and_then(|(volume, io, extent)| {
                let disk = Arc::clone(&core.volumes.get(&volume)?.disk);
                Some((volume, io, extent, disk))
            })
        };
        let Some((volume, io, extent, disk)) = work else {
            shell.read_wake.notified().await;
            continue;
        };
        let read = disk.read(extent).await;
        if let Err(error) = &read {
            shell.trouble(error);
        }
        let result = read.as_ref().map(|_| ()).map_err(failure);
        shell.step(AgentEvent::Done { volume, io, result, payload: read.ok() });
        shell.progress.notify_one();
    }
}

/// Says what the splitter must know of a disk's error.
pub(super) fn failure(error: &IoError) -> IoFailure {
    match error.kind {
        IoKind::NoSpace => IoFailure::NoSpace,
        IoKind::Unsupported => IoFailure::Unsupported,
        _ => IoFailure::Device,
    }
}

/// Returns the name of a spill file.
pub(super) fn spill_name(number: u64) -> String {
    format!("spill-{number:016x}.hrl")
}

/// The files of the spill and what of them is not durable.
struct SpillFiles {
    files: BTreeMap<u64, Arc<dyn File>>,
    unsynced: BTreeSet<u64>,
    has_new_name: bool,
}

async fn spill_loop(shell: Arc<Shell>, files: BTreeMap<u64, Arc<dyn File>>) {
    let mut spill = SpillFiles { files, unsynced: BTreeSet::new(), has_new_name: false };
    loop {
        let work = shell.lock().spill.pop_front();
        let Some(work) = work else {
            shell.spill_wake.notified().await;
            continue;
        };
        let event = match work {
            SpillWork::Read { place, first } => {
                let read = spill.read(place).await;
                if let Err(error) = &read {
                    shell.trouble(error);
                }
                Some(AgentEvent::SpillRead { first, bytes: read.ok() })
            }
            SpillWork::Sync { ticket } => match spill.sync(&shell).await {
                Ok(()) => Some(AgentEvent::SpillSynced { ticket }),
                Err(error) => Some(failed(&shell, &error)),
            },
            work => match spill.change(&shell, work).await {
                Ok(()) => None,
                Err(error) => Some(failed(&shell, &error)),
            },
        };
        if let Some(event) = event {
            shell.step(event);
            shell.progress.notify_one();
        }
    }
}

fn failed(shell: &Shell, error: &IoError) -> AgentEvent {
    shell.trouble(error);
    AgentEvent::SpillFailed
}

impl SpillFiles {
    fn get(&self, number: u64) -> Result<&Arc<dyn File>, IoError> {
        let missing = || IoError::new(IoKind::NotFound, format!("open {}", spill_name(number)), "not open");
        self.files.get(&number).ok_or_else(missing)
    }

    async fn change(&mut self, shell: &Shell, work: SpillWork) -> Result<(), IoError> {
        let files = &shell.world.files;
        match work {
            SpillWork::Create { file: number } => {
                let name = spill_name(number);
                files.remove(&name).await?;
                let file = files.open(&name, OpenMode::CreateNew).await?;
                let header = batch_file::file_header(SPILL_MAGIC, shell.settings.machine, number);
                file.write_at(0, &[header]).await?;
                self.files.insert(number, file);
                self.unsynced.insert(number);
                self.has_new_name = true;
            }
            SpillWork::Append { place, bytes } => {
                self.get(place.file)?.write_at(place.offset, &batch_file::entry(&bytes)).await?;
                self.unsynced.insert(place.file);
            }
            SpillWork::Remove { file: number } => {
                self.files.remove(&number);
                self.unsynced.remove(&number);
                files.remove(&spill_name(number)).await?;
            }
            SpillWork::Sync { .. } | SpillWork::Read { .. } => {}
        }
        Ok(())
    }

    async fn sync(&mut self, shell: &Shell) -> Result<(), IoError> {
        for number in std::mem::take(&mut self.unsynced) {
            if let Some(file) = self.files.get(&number) {
                file.sync().await?;
            }
        }
        if std::mem::take(&mut self.has_new_name) {
            shell.world.files.sync_dir().await?;
        }
        Ok(())
    }

    async fn read(&self, place: SpillPlace) -> Result<Bytes, IoError> {
        let length = ENTRY_HEADER_BYTES + place.bytes as usize;
        let mut entry = self.get(place.file)?.read_at(place.offset, length).await?;
        let damaged = || {
            let what = format!("read {} at {}", spill_name(place.file), place.offset);
            IoError::new(IoKind::Device, what, "the spilled batch is damaged")
        };
        if entry.len() != length {
            return Err(damaged());
        }
        let head = entry.split_to(ENTRY_HEADER_BYTES);
        if batch_file::entry(&entry)[0] != head {
            return Err(damaged());
        }
        Ok(entry)
    }
}

/// Returns the time until an instant, at least a millisecond.
pub(super) fn until(now: Instant, deadline: Option<Instant>, longest: Duration) -> Duration {
    deadline.map_or(longest, |deadline| deadline.since(now)).clamp(Duration::from_millis(1), longest)
}
