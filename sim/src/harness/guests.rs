//! Guests on a machine: the disks they see are the agent's exports.

use super::estate::Machine;
use crate::ports::lock;
use crate::workload::guest::{GuestDisk, GuestError, Recorder};
use crate::workload::mixed::{self, Volume};
use crate::workload::{Cut, Pace, database};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Extent, MarkerId, MarkerKind, WriteSeq};
use redoubt_roles::agent::Agent;
use redoubt_roles::nbd_server::{Export, ExportError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// One marker that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its identity and the tick of the answer; none while no answer came.
    pub(super) answer: Option<(MarkerId, u64)>,
    /// Whether the agent had a session then.
    pub(super) connected: bool,
    /// When, in milliseconds of the run.
    pub(super) at: u64,
}

/// Cuts that the vault does not hold yet, and the newest one that it does.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Place in the stream, and when it was cut.
    waiting: VecDeque<(WriteSeq, u64)>,
    newest: Option<u64>,
}

impl Cuts {
    /// Returns when the newest cut was made that the vault holds, as the agent tells it.
    pub(super) fn newest(&mut self, vaulted: WriteSeq) -> Option<u64> {
        while self.waiting.front().is_some_and(|(seq, _)| *seq <= vaulted) {
            self.newest = self.waiting.pop_front().map(|(_, at)| at);
        }
        self.newest
    }
}

/// A cut that a point may stand for, and its marker.
pub(super) type PossibleCut = (Cut, Asked);

/// Markers asked for, by the tick of asking.
pub(super) type Markers = BTreeMap<u64, Asked>;

/// A volume of a machine through its agent.
struct AgentDisk(Arc<dyn Export>);

fn failed(error: ExportError) -> GuestError {
    match error {
        ExportError::ShuttingDown => GuestError::Gone,
        other => GuestError::Io(other.to_string()),
    }
}

#[async_trait]
impl GuestDisk for AgentDisk {
    async fn read(&self, extent: Extent) -> Result<Bytes, GuestError> {
        self.0.read(extent.lba.bytes(), extent.bytes() as u32).await.map_err(failed)
    }

    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), GuestError> {
        self.0.write(extent.lba.bytes(), payload, durable).await.map_err(failed)
    }

    async fn zero(&self, extent: Extent, trim: bool, durable: bool) -> Result<(), GuestError> {
        let (offset, length) = (extent.lba.bytes(), extent.bytes());
        if trim {
            self.0.trim(offset, length, durable).await.map_err(failed)
        } else {
            self.0.write_zeroes(offset, length, durable, true, false).await.map_err(failed)
        }
    }

    async fn flush(&self) -> Result<(), GuestError> {
        self.0.flush().await.map_err(failed)
    }
}

/// Starts the guests of a machine in its process.
pub(super) fn start(machine: &Arc<Machine>, agent: &Arc<Agent>, stop: &Arc<AtomicBool>) {
    let mut volumes = Vec::new();
    for (index, bytes) in machine.spec.disks.iter().enumerate() {
        let Ok(export) = agent.export(&volume_name(index)) else { continue };
        let disk: Arc<dyn GuestDisk> = Arc::new(AgentDisk(export));
        volumes.push((index as u16, disk, bytes / 512));
    }
    let recorder = machine.recorder.clone();
    let plan = machine.guest.clone();
    let pace = Pace::of(&plan, machine.scale);
    if plan.model == "database" {
        let (index, disk, _) = volumes.remove(0);
        let pause = Duration::from_micros(1_000_000 * machine.scale / u64::from(plan.rate / 2 + 1));
        machine.host.spawn(database::run(recorder.clone(), disk, index, pause, Arc::clone(stop)));
    }
    let volumes: Vec<Volume> =
        volumes.into_iter().map(|(index, disk, sectors)| Volume { index, disk, sectors }).collect();
    if volumes.is_empty() {
        return;
    }
    let volumes = Arc::new(volumes);
    for number in 0..plan.jobs {
        let epoch = machine.starts.load(Ordering::Relaxed) as u32;
        let job = mixed::job(
            recorder.clone(),
            Arc::clone(&volumes),
            plan.clone(),
            pace,
            number + 1000 * epoch,
            Arc::clone(stop),
        );
        machine.host.spawn(job);
    }
}

/// Returns the name of a volume.
pub(super) fn volume_name(index: usize) -> String {
    format!("vol{index}")
}

/// Cuts a marker and records between which ticks.
pub(super) async fn cut(machine: &Machine, agent: &Agent) -> Option<MarkerId> {
    let connected = agent.status().is_connected;
    let at = (machine.recorder.clock)().as_millis() as u64;
    let asked = lock(&machine.recorder.log).tick();
    lock(&machine.markers).insert(asked, Asked { answer: None, connected, at });
    match agent.cut_marker(MarkerKind::Crash).await {
        Ok(id) => {
            let done = lock(&machine.recorder.log).tick();
            // Nothing else is stamped between the cut and here: it is the newest of the stream.
            lock(&machine.cuts).waiting.push_back((agent.status().watermarks.issued(), at));
            lock(&machine.markers).insert(asked, Asked { answer: Some((id, done)), connected, at });
            Some(id)
        }
        Err(_) => {
            lock(&machine.markers).remove(&asked);
            None
        }
    }
}

/// Cuts markers steadily for as long as the process lives.
pub(super) async fn cut_steadily(
    machine: Arc<Machine>,
    agent: Weak<Agent>,
    every: Duration,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(every).await;
        let Some(agent) = agent.upgrade() else { return };
        cut(&machine, &agent).await;
    }
}

/// Returns the cuts that a point with this marker may stand for.
pub(super) fn possible_cuts(markers: &Markers, recorder: &Recorder, id: MarkerId) -> Vec<PossibleCut> {
    let known = markers.iter().find_map(|(asked, marker)| match marker.answer {
        Some((found, done)) if found == id => Some((Cut { asked: *asked, done }, *marker)),
        _ => None,
    });
    if let Some(cut) = known {
        return vec![cut];
    }
    // The answer never came because the process ended: the cut lies before its end.
    let log = lock(&recorder.log);
    markers
        .iter()
        .filter(|(_, marker)| marker.answer.is_none())
        .map(|(asked, marker)| (Cut { asked: *asked, done: log.epoch_end(*asked) }, *marker))
        .collect()
}

/// A counter of process starts; part of each guest's seed, so that a restarted guest does not repeat
/// itself.
pub(super) type Starts = AtomicU64;
