//! What a start finds in the agent's directory, and the machine made of it.

use super::fingerprint::fingerprint;
use super::settings::{AgentSettings, VolumeSpec};
use super::shell::VolumeShell;
use super::spill_scan::FoundSpill;
use super::status::AgentError;
use redoubt_core::agent::{AgentStart, VolumeStart};
use redoubt_core::agent_state::{
    AgentRecord, Beside, Decision, DiskFact, SLOT_BYTES, Slot, decode_slot, next_counter, recover,
};
use redoubt_core::change::ResyncReason;
use redoubt_core::extent_log::{LogError, LogImage, decode_file};
use redoubt_core::extent_map::StartMarks;
use redoubt_core::spool::SpoolLimits;
use redoubt_core::{Sectors, VolumeId, VolumeIndex};
use redoubt_ports::{File, Files, OpenMode, World};
use redoubt_wire::StreamKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the agent's record.
const STATE_NAME: &str = "agent.state";

/// Everything a start makes.
pub(super) struct Recovered {
    pub(super) start: AgentStart,
    pub(super) volumes: BTreeMap<VolumeIndex, VolumeShell>,
    pub(super) spill_files: BTreeMap<u64, Arc<dyn File>>,
    pub(super) state: Arc<dyn File>,
    pub(super) state_counter: u64,
}

/// Opens a disk and the file of its activity log.
pub(super) async fn open_volume(
    world: &World,
    spec: &VolumeSpec,
    id: VolumeId,
) -> Result<VolumeShell, AgentError> {
    let disk = world.disks.open(&spec.disk, false).await?;
    let log = world.files.open(&format!("extents-{id}.log"), OpenMode::CreateOrOpen).await?;
    world.files.sync_dir().await?;
    Ok(VolumeShell { name: spec.name.clone(), disk_name: spec.disk.clone(), id, disk, log })
}

async fn read_log(shell: &VolumeShell) -> Result<Result<LogImage, LogError>, AgentError> {
    let length = shell.log.len().await?;
    let bytes = shell.log.read_at(0, length as usize).await?;
    let log = decode_file(shell.id, &bytes);
    if let Err(error) = &log {
        tracing::warn!(role = "agent", volume = %shell.name, %error, "the whole volume is compared");
    }
    Ok(log)
}

/// Tells whether an activity log was ever written here. An empty file is not one: logs are created
/// before the first record and written after it.
async fn has_extent_log(world: &World) -> Result<bool, AgentError> {
    for name in world.files.list().await?.iter().filter(|name| name.starts_with("extents-")) {
        if world.files.open(name, OpenMode::Existing).await?.len().await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn read_slots(file: &dyn File) -> Result<(Slot, Slot, u64), AgentError> {
    let first = file.read_at(0, SLOT_BYTES).await?;
    let second = file.read_at(SLOT_BYTES as u64, SLOT_BYTES).await?;
    let (first, second) = (decode_slot(&first), decode_slot(&second));
    let next = next_counter(&first, &second);
    Ok((first, second, next))
}

/// Writes both slots, after a start that is not clean: no later damage is mistaken for a first start,
/// and none leads back behind this one (AS-4). Returns the counter of the last write.
async fn write_both(
    files: &dyn Files,
    file: &dyn File,
    next: u64,
    record: &AgentRecord,
) -> Result<u64, AgentError> {
    for counter in [next, next + 1] {
        let slot = redoubt_core::agent_state::encode_slot(counter, record);
        super::shell::write_slot(file, counter, slot).await?;
    }
    files.sync_dir().await?;
    Ok(next + 1)
}

/// Returns what is known of the disks: after a clean stop, also whether they hold what they did then.
async fn disk_facts(opened: &[VolumeShell], slots: [&Slot; 2]) -> Vec<DiskFact> {
    let is_clean = slots.iter().any(|slot| matches!(slot, Slot::Valid(_, record) if record.is_clean));
    let mut facts = Vec::new();
    for shell in opened {
        let fingerprint = match is_clean {
            true => fingerprint(&*shell.disk).await.map_or_else(
                |error| {
                    tracing::warn!(role = "agent", volume = %shell.name, %error, "the whole volume is compared");
                    None
                },
                Some,
            ),
            false => None,
        };
        facts.push(DiskFact { id: shell.id, sectors: shell.disk.info().sectors, fingerprint });
    }
    facts
}

/// Reads the directory and opens the disks.
pub(super) async fn read(
    settings: &AgentSettings,
    world: &World,
    key: &StreamKey,
) -> Result<Recovered, AgentError> {
    let state = world.files.open(STATE_NAME, OpenMode::CreateOrOpen).await?;
    let (first, second, next) = read_slots(&*state).await?;
    let mut spill = FoundSpill::scan(world, settings, key.id()).await?;
    let has_extent_log = has_extent_log(world).await?;
    let mut opened = Vec::new();
    for spec in &settings.volumes {
        opened.push(open_volume(world, spec, spec.id_in(settings.machine)).await?);
    }
    let facts = disk_facts(&opened, [&first, &second]).await;
    let decision =
        recover(first, second, Beside { spill: spill.kind(), has_extent_log }, settings.machine, &facts);
    let all: Vec<VolumeId> = facts.iter().map(|fact| fact.id).collect();
    let (record, reason, whole) = match decision {
        Decision::FirstStart => (AgentRecord::first(settings.machine), Some(ResyncReason::Initial), all),
        Decision::CleanResume(record) => {
            let reason = record.is_resync_open.then_some(ResyncReason::UncleanStop);
            (record, reason, Vec::new())
        }
        Decision::UncleanStop(record) => (record, Some(ResyncReason::UncleanStop), Vec::new()),
        Decision::Untracked(record, changed) => {
            for shell in opened.iter().filter(|shell| changed.contains(&shell.id)) {
                tracing::warn!(
                    role = "agent", volume = %shell.name, disk = %shell.disk_name,
                    "new, or not what the last run left: the whole volume is compared"
                );
            }
            (record, Some(ResyncReason::Untracked), changed)
        }
        Decision::Refuse(refused) => {
            return Err(AgentError::State { file: STATE_NAME.to_owned(), detail: refused.to_string() });
        }
    };
    spill.clear(world).await?;
    let state_counter =
        if reason.is_some() { write_both(&*world.files, &*state, next, &record).await? } else { next - 1 };
    build(settings, key, (record, reason, whole), spill, (opened, state, state_counter)).await
}

async fn build(
    settings: &AgentSettings,
    key: &StreamKey,
    (record, mut reason, whole): (AgentRecord, Option<ResyncReason>, Vec<VolumeId>),
    spill: FoundSpill,
    (opened, state, state_counter): (Vec<VolumeShell>, Arc<dyn File>, u64),
) -> Result<Recovered, AgentError> {
    let mut next_index = record.volumes.iter().map(|volume| volume.index.0 + 1).max().unwrap_or(0);
    let mut volumes = BTreeMap::new();
    let mut starts = Vec::new();
    for shell in opened {
        let known = record.volumes.iter().find(|volume| volume.id == shell.id);
        let index = known.map_or_else(
            || {
                next_index += 1;
                VolumeIndex(next_index - 1)
            },
            |volume| volume.index,
        );
        let is_whole = whole.contains(&shell.id);
        let log = if is_whole { Err(LogError::Header) } else { read_log(&shell).await? };
        let marks = record.start_marks(is_whole, log);
        if !matches!(marks, StartMarks::Clean { .. }) {
            reason = reason.or(Some(ResyncReason::Untracked));
        }
        let sectors: Sectors = shell.disk.info().sectors;
        starts.push(VolumeStart { index, id: shell.id, sectors, marks });
        volumes.insert(index, shell);
    }
    let (machine, stream_key) = (settings.machine, key.clone());
    let start = AgentStart {
        machine,
        record,
        resync: reason,
        volumes: starts,
        spill_files: spill.lengths,
        spilled: spill.batches,
        limits: SpoolLimits {
            memory_bytes: settings.bounds.memory_bytes_max,
            spill_bytes: settings.bounds.spill_bytes_max,
        },
        in_flight_bytes_max: settings.bounds.in_flight_bytes_max,
        marker_interval: settings.markers.interval,
        sealer: Box::new(move |batch, prev| redoubt_wire::sealed::seal(&stream_key, machine, batch, prev)),
    };
    Ok(Recovered { start, volumes, spill_files: spill.files, state, state_counter })
}
