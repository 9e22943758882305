//! The agent: the async shell around [`redoubt_core::agent::AgentMachine`], for one protected machine.
//!
//! Dropping the handle ends everything at once, like a crash; [`Agent::stop`] is the clean end that
//! saves the next start its resync. Exports that outlive the agent answer that it is shutting down.
//!
//! What is *not* here: decisions; the NBD protocol ([`crate::nbd_server`]).

mod export;
mod fingerprint;
mod guarded;
mod link_task;
mod recover;
mod settings;
mod shell;
mod spill;
mod spill_scan;
mod status;
mod trouble;
mod waiters;
mod workers;

pub use settings::*;
pub use status::*;

use crate::nbd_server::Export;
use export::VolumeExport;
use redoubt_core::agent::{AgentEvent, AgentMachine, VolumeStart};
use redoubt_core::change::ResyncReason;
use redoubt_core::extent_map::StartMarks;
use redoubt_core::message::VOLUMES_MAX;
use redoubt_core::{Extent, MarkerId, MarkerKind, Sectors, VolumeId, VolumeIndex, WriteSeq};
use redoubt_ports::{IoError, Rare, World};
use redoubt_wire::StreamKey;
use shell::{Core, Shell};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use trouble::{Concern, Troubles};
use waiters::Waiters;

use crate::tasks::Tasks;

/// A clean stop that takes longer is given up: the next start then compares hot extents.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Attempts to write the record and the activity logs before a start is given up.
const START_WRITES_MAX: u32 = 64;

/// A running agent.
pub struct Agent {
    shell: Arc<Shell>,
    /// One volume is added at a time, so that two never get the same index.
    protecting: tokio::sync::Mutex<()>,
    /// The state directory, until the stop.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl Agent {
    /// Takes the state directory, recovers, opens the disks of the settings and starts to work. On
    /// return the record and the activity logs are durable and guests may write.
    pub async fn start(settings: AgentSettings, world: World, key: StreamKey) -> Result<Agent, AgentError> {
        let settings = match world.chance.forces(Rare::SmallMemory) {
            true => AgentSettings { bounds: settings.bounds.with_small_memory(), ..settings },
            false => settings,
        };
        let lock = world.files.lock().await?;
        let found = recover::read(&settings, &world, &key).await?;
        let machine = AgentMachine::start(world.clock.now(), found.start);
        let core = Core {
            machine,
            volumes: found.volumes,
            waiters: Waiters::default(),
            effects: Vec::new(),
            outgoing: VecDeque::new(),
            spill: VecDeque::new(),
            persists: VecDeque::new(),
            reads: VecDeque::new(),
            is_state_wanted: false,
            state_counter: found.state_counter,
            is_stopping: false,
            is_resting: false,
            troubles: Troubles::default(),
            last_marker: WriteSeq(0),
            stage_losses: 0,
            forks: 0,
        };
        let shell = Arc::new(Shell {
            settings,
            world,
            state: found.state,
            core: Mutex::new(core),
            link_wake: Notify::new(),
            spill_wake: Notify::new(),
            persist_wake: Notify::new(),
            state_wake: Notify::new(),
            read_wake: Notify::new(),
            tick_wake: Notify::new(),
            orphans: guarded::Orphans::closed(),
            progress: Notify::new(),
            tasks: Tasks::default(),
        });
        shell.step(AgentEvent::Tick);
        settle(&shell).await?;
        workers::spawn(&shell, found.spill_files);
        shell.tasks.spawn(link_task::run(Arc::clone(&shell), key));
        Ok(Agent { shell, protecting: tokio::sync::Mutex::new(()), lock: Mutex::new(Some(lock)) })
    }

    /// Protects another disk; its first copy begins at once and makes the machine inexact until it is
    /// complete. A volume that is protected already under this name and disk is left as it is.
    pub async fn protect(&self, spec: VolumeSpec) -> Result<(), AgentError> {
        let _one = self.protecting.lock().await;
        let id = spec.id_in(self.shell.settings.machine);
        let index = {
            let core = self.shell.lock();
            if core.is_stopping {
                return Err(AgentError::Stopped);
            }
            if let Some(known) = core.volumes.values().find(|volume| volume.name == spec.name) {
                let is_same = known.id == id && known.disk_name == spec.disk;
                return if is_same { Ok(()) } else { Err(AgentError::VolumeExists(spec.name)) };
            }
            let index = core.volumes.keys().next_back().map_or(0, |index| index.0 + 1);
            if usize::from(index) >= VOLUMES_MAX {
                return Err(AgentError::TooManyVolumes(VOLUMES_MAX));
            }
            VolumeIndex(index)
        };
        let volume = recover::open_volume(&self.shell.world, &spec, id).await?;
        let sectors = volume.disk.info().sectors;
        let mut core = self.shell.lock();
        core.volumes.insert(index, volume);
        let start = VolumeStart { index, id, sectors, marks: StartMarks::CompareAll };
        core.machine.add_volume(start, ResyncReason::Initial);
        self.shell.step_in(&mut core, AgentEvent::Tick);
        Ok(())
    }

    /// Returns a protected volume as an export. It may be shown by any number of servers.
    pub fn export(&self, volume: &str) -> Result<Arc<dyn Export>, AgentError> {
        Ok(Arc::new(self.volume(volume)?))
    }

    fn volume(&self, name: &str) -> Result<VolumeExport, AgentError> {
        let core = self.shell.lock();
        let (index, volume) = core
            .volumes
            .iter()
            .find(|(_, volume)| volume.name == name)
            .ok_or_else(|| AgentError::NoVolume(name.to_owned()))?;
        let (shell, disk) = (Arc::clone(&self.shell), Arc::clone(&volume.disk));
        Ok(VolumeExport { shell, volume: *index, name: name.to_owned(), disk })
    }

    /// Changes the size of a volume and its disk; the change is part of the stream.
    pub async fn resize(&self, volume: &str, sectors: Sectors) -> Result<(), AgentError> {
        let export = self.volume(volume)?;
        export.resize(sectors).await.map_err(|error| AgentError::State {
            file: volume.to_owned(),
            detail: format!("resize: {error}"),
        })
    }

    /// Cuts a marker now. It becomes a recovery point once everything before it is in the vault.
    /// `NoMarker` while the stream is inexact: try again when [`AgentStatus::mode`] is exact.
    pub async fn cut_marker(&self, kind: MarkerKind) -> Result<MarkerId, AgentError> {
        let mut core = self.shell.lock();
        if core.is_stopping {
            return Err(AgentError::Stopped);
        }
        if !core.machine.can_mark() {
            let why =
                if core.machine.is_exact() { "a failed write is read back" } else { "a resync is open" };
            return Err(AgentError::NoMarker(why));
        }
        let marker = self.shell.new_marker(kind);
        let cut = self.shell.step_in(&mut core, AgentEvent::CutMarker(marker));
        cut.ok_or(AgentError::NoMarker("no sequence is reserved; try again"))
    }

    /// Compares these sectors with the vault and sends what it does not have: a damaged unit is nothing that it
    /// has. The machine is inexact until that is in the vault, as in any resync. Volumes are named by their
    /// lasting identity; returns how many sectors are taken up.
    pub async fn resync(&self, ranges: &[(VolumeId, Extent)]) -> Result<u64, AgentError> {
        let mut core = self.shell.lock();
        if core.is_stopping {
            return Err(AgentError::Stopped);
        }
        let of = |id| core.volumes.iter().find(|(_, volume)| volume.id == id).map(|(index, _)| *index);
        let ranges: Vec<_> = ranges.iter().filter_map(|(id, extent)| Some((of(*id)?, *extent))).collect();
        let taken = core.machine.resync(&ranges);
        self.shell.step_in(&mut core, AgentEvent::Tick);
        Ok(taken)
    }

    /// Returns the agent's state now.
    pub fn status(&self) -> AgentStatus {
        let now = self.shell.now();
        let core = self.shell.lock();
        let machine = &core.machine;
        let (memory_bytes, spill_bytes) = machine.spool_bytes();
        let (hot_extents, dirty) = machine.marks();
        let is_promised = machine.is_promised() && !machine.is_resync_due();
        let mode = match (machine.is_bitmap(), is_promised) {
            (true, _) => AgentMode::Bitmap,
            (false, true) if spill_bytes > 0 => AgentMode::Spilling,
            (false, true) => AgentMode::Exact,
            (false, false) => {
                let progress = machine.resync_progress();
                let blocks_done = progress.sent + progress.skipped;
                let blocks_total = progress.total.max(blocks_done + dirty);
                AgentMode::Resync { is_initial: machine.is_initial(), blocks_done, blocks_total }
            }
        };
        let unstaged = machine.unstaged_since().map_or(Duration::ZERO, |since| now.since(since));
        let (staged, vaulted) = machine.acknowledged();
        let volume = |(index, volume): (&VolumeIndex, &shell::VolumeShell)| VolumeStatus {
            name: volume.name.clone(),
            id: volume.id,
            size_bytes: machine.sectors(*index).unwrap_or_default().bytes(),
        };
        AgentStatus {
            machine: machine.machine(),
            generation: machine.generation(),
            is_connected: machine.has_session(),
            watermarks: machine.watermarks(),
            staged,
            vaulted,
            mode,
            copy: machine.resync_progress(),
            lag: is_promised.then_some(unstaged),
            unstaged,
            must_compare_all: machine.must_compare_all(),
            memory_bytes,
            spill_bytes,
            hot_extents,
            volumes: core.volumes.iter().map(volume).collect(),
            stage_losses: core.stage_losses,
            forks: core.forks,
            last_error: core.troubles.newest(),
        }
    }

    /// Stops cleanly: no operation is taken any more, disks are flushed, memory is spilled, and the
    /// record says so. While the stream is inexact, or if a flush failed, nothing can be promised: then the next start
    /// compares hot extents, as after a crash.
    pub async fn stop(&self) -> Result<(), AgentError> {
        self.shell.lock().is_stopping = true;
        let stopping = async {
            loop {
                let moved = self.shell.progress.notified();
                {
                    let mut core = self.shell.lock();
                    self.shell.step_in(&mut core, AgentEvent::SessionDown);
                    if !core.machine.can_stop_clean() || core.machine.is_stopped() {
                        return;
                    }
                }
                workers::cool(&self.shell).await;
                self.shell.step(AgentEvent::Stop);
                if let Err(error) = self.tell_fingerprints().await {
                    let what = format!("{error}; the next start compares hot extents");
                    return self.shell.trouble(Concern::Stop, what);
                }
                self.shell.step(AgentEvent::Stop);
                if self.shell.lock().machine.is_stopped() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = moved => {}
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        };
        let ended = tokio::time::timeout(STOP_DEADLINE, stopping).await;
        self.shell.tasks.abort();
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if ended.is_err() {
            self.shell.trouble(Concern::Stop, "the stop took too long; the next start compares hot extents");
        }
        Ok(())
    }
}

impl Agent {
    /// Takes the fingerprints that a clean stop wants.
    async fn tell_fingerprints(&self) -> Result<(), IoError> {
        let wanted = self.shell.lock().machine.fingerprints_wanted();
        for volume in wanted {
            let disk = self.shell.lock().volumes.get(&volume).map(|volume| volume.disk.clone());
            let Some(disk) = disk else { continue };
            let digest = fingerprint::fingerprint(&*disk).await?;
            self.shell.step(AgentEvent::Fingerprint { volume, digest });
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut core = self.shell.lock();
        core.is_stopping = true;
        // Their senders end with them: a client that waits is told at once.
        core.waiters.clear();
        drop(core);
        self.shell.tasks.abort();
    }
}

/// Makes the record and the activity logs durable before anything is served.
async fn settle(shell: &Arc<Shell>) -> Result<(), AgentError> {
    for _ in 0..START_WRITES_MAX {
        let has_state = shell.write_state().await;
        let has_log = shell.write_log().await;
        if !has_state && !has_log && shell.lock().machine.is_ready() {
            return Ok(());
        }
        if let Some(error) = shell.lock().troubles.newest() {
            return Err(AgentError::State { file: "agent.state".to_owned(), detail: error });
        }
        shell.step(AgentEvent::Tick);
    }
    Err(AgentError::State { file: "agent.state".to_owned(), detail: "it cannot be made durable".to_owned() })
}
