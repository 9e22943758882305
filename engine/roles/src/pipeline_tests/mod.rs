//! Whole pipelines in one process, over ports in memory: what is written is what a point shows.

mod flush;
mod history;
mod orphan;
mod repair;
mod resize;
mod tracking;

use crate::agent::{Agent, AgentMode, AgentSettings, VolumeSpec};
use crate::process_server::{ProcessServer, PsSettings};
use crate::testing::{CountingEntropy, MemDisk, MemHost, MemNet};
use bytes::Bytes;
use redoubt_core::{Extent, MachineId, MarkerId, MarkerKind, Sectors, VolumeIndex};
use redoubt_ports::{Endpoint, RawStore};
use redoubt_vault::{MachineReader, MemStore, Vault, VaultKeys};
use redoubt_wire::StreamKey;
use std::sync::Arc;
use std::time::Duration;

const MACHINE: MachineId = MachineId(7);
/// Virtual time after which something that should have happened has not.
const PATIENCE: Duration = Duration::from_secs(300);

struct Lab {
    net: Arc<MemNet>,
    source: MemHost,
    target: MemHost,
    disk: Arc<MemDisk>,
    store: Arc<dyn RawStore>,
    /// The same, for tests that spoil what is in it.
    objects: Arc<MemStore>,
    keys: VaultKeys,
    vault: Vault,
    key: StreamKey,
}

fn server_at() -> Endpoint {
    Endpoint::Tcp("ps".to_owned(), 9443)
}

impl Lab {
    async fn new(sectors: u64) -> Lab {
        let (net, entropy) = (Arc::new(MemNet::default()), Arc::new(CountingEntropy::default()));
        let (source, target) = (MemHost::new(&net, &entropy), MemHost::new(&net, &entropy));
        let disk = MemDisk::new(sectors);
        source.disks.add("sda", Arc::clone(&disk));
        let objects = Arc::new(MemStore::new());
        let store: Arc<dyn RawStore> = objects.clone();
        let keys = VaultKeys::new([9; 32]);
        let vault = Vault::init(Arc::clone(&store), keys.clone(), &*entropy).await.unwrap();
        let key = StreamKey::new(keys.stream_key(MACHINE));
        Lab { net, source, target, disk, store, objects, keys, vault, key }
    }

    fn settings(&self) -> AgentSettings {
        let mut settings = AgentSettings::new(MACHINE, "db1", vec![server_at()]);
        settings.volumes.push(VolumeSpec::new("root", "sda"));
        settings.markers.interval = None;
        settings
    }

    async fn agent(&self) -> Agent {
        self.agent_with(self.settings()).await
    }

    async fn agent_with(&self, settings: AgentSettings) -> Agent {
        Agent::start(settings, self.source.world.clone(), self.key.clone()).await.unwrap()
    }

    async fn server(&self) -> ProcessServer {
        let mut settings = PsSettings::new(server_at(), "ps1");
        settings.machines.insert(MACHINE, self.key.clone());
        let (world, store) = (self.target.world.clone(), Arc::clone(&self.store));
        ProcessServer::start(settings, world, store, self.keys.clone()).await.unwrap()
    }

    async fn point_content(&self, marker: MarkerId) -> Vec<u8> {
        self.volume_content(marker, VolumeIndex(0)).await
    }

    async fn volume_content(&self, marker: MarkerId, volume: VolumeIndex) -> Vec<u8> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(reader) = MachineReader::open(&self.vault, MACHINE).await
                    && let Some(point) = reader.points().into_iter().find(|point| point.marker.id == marker)
                {
                    assert!(point.exact, "a marker cut by an exact agent is exact");
                    return (reader.view(point.id).unwrap(), point);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let (view, point) = found.await.expect("the marker becomes a point");
        let sectors = point.volumes[&volume].sectors.0;
        let mut content = Vec::new();
        for first in (0..sectors).step_by(2048) {
            let extent = Extent::new(first, 2048.min(sectors - first));
            content.extend_from_slice(&view.read(volume, extent).await.unwrap());
        }
        content
    }
}

/// Ends a server without a stop, and lets its socket go.
async fn crash(server: ProcessServer) {
    drop(server);
    tokio::time::sleep(Duration::from_millis(5)).await;
}

async fn exact(agent: &Agent) {
    let settled = tokio::time::timeout(PATIENCE, async {
        while !matches!(agent.status().mode, AgentMode::Exact | AgentMode::Spilling) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(settled.await.is_ok(), "the agent never became exact: {:?}", agent.status());
}

fn pattern(seed: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut counter = seed << 32;
    while bytes.len() < length {
        bytes.extend_from_slice(blake3::hash(&counter.to_le_bytes()).as_bytes());
        counter += 1;
    }
    bytes.truncate(length);
    bytes.into()
}

async fn scribble(agent: &Agent, seed: u64, writes: u64, bytes: u64) {
    let export = agent.export("root").unwrap();
    for count in 0..writes {
        let digest = blake3::hash(&(seed * 1_000_003 + count).to_le_bytes());
        let random = u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap());
        let length = (1 + random % 40_000).min(bytes);
        let offset = (random >> 20) % (bytes - length + 1);
        match random % 7 {
            0 => export.write_zeroes(offset, length, false, true, false).await.unwrap(),
            1 => export.trim(offset, length, false).await.unwrap(),
            _ => export.write(offset, pattern(random, length as usize), false).await.unwrap(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_guest_wrote_before_a_marker_is_what_its_point_shows() {
    let lab = Lab::new(8_192).await;
    lab.disk.poke(70_000, b"there before protection");
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 1, 60, 8_192 * 512).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    scribble(&agent, 2, 50, 8_192 * 512).await;
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn a_cut_line_is_made_up_for_in_order() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    lab.net.cut();
    scribble(&agent, 3, 300, 8_192 * 512).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    scribble(&agent, 4, 60, 8_192 * 512).await;
    lab.net.heal();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_hot_extents_are_compared_and_points_are_exact_again() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    for round in 0..3 {
        let agent = lab.agent().await;
        exact(&agent).await;
        scribble(&agent, 10 + round, 60, 8_192 * 512).await;
        let content = lab.disk.content();
        let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
        assert!(lab.point_content(marker).await == content, "round {round}");
        scribble(&agent, 20 + round, 50, 8_192 * 512).await;
        assert_eq!(agent.status().generation.0, round + 1);
        drop(agent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_needs_no_resync() {
    let lab = Lab::new(8_192).await;
    let server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    crash(server).await;
    scribble(&agent, 30, 60, 8_192 * 512).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    agent.stop().await.unwrap();
    let agent = lab.agent().await;
    assert_eq!(agent.status().generation.0, 1, "a clean start keeps its generation");
    assert!(matches!(agent.status().mode, AgentMode::Exact | AgentMode::Spilling));
    let _server = lab.server().await;
    assert!(lab.point_content(marker).await == content, "the spilled marker's point differs");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_server_goes_on_from_its_stage() {
    let lab = Lab::new(8_192).await;
    let server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 40, 60, 8_192 * 512).await;
    crash(server).await;
    scribble(&agent, 41, 60, 8_192 * 512).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    let _server = lab.server().await;
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn a_lost_stage_costs_a_resync_and_no_wrong_point() {
    let lab = Lab::new(8_192).await;
    let server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    scribble(&agent, 50, 60, 8_192 * 512).await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    crash(server).await;
    lab.target.files.lose("stage-");
    scribble(&agent, 51, 20, 8_192 * 512).await;
    let _server = lab.server().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    exact(&agent).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn an_overflow_loses_order_and_a_resync_brings_it_back() {
    let lab = Lab::new(8_192).await;
    let mut settings = lab.settings();
    settings.bounds.memory_bytes_max = 512 << 10;
    settings.bounds.spill_bytes_max = 2 << 20;
    let server = lab.server().await;
    let agent = lab.agent_with(settings).await;
    exact(&agent).await;
    crash(server).await;
    scribble(&agent, 60, 300, 8_192 * 512).await;
    assert_eq!(agent.status().mode, AgentMode::Bitmap);
    assert!(agent.cut_marker(MarkerKind::Crash).await.is_err(), "no marker without order");
    let _server = lab.server().await;
    exact(&agent).await;
    let content = lab.disk.content();
    let marker = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(marker).await == content, "the point differs from the disk at the marker");
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_read_back_into_the_stream() {
    let lab = Lab::new(8_192).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    let export = agent.export("root").unwrap();
    lab.disk.fail_writes(1);
    assert!(export.write(8192, pattern(1, 8192), false).await.is_err());
    let cut = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(marker) = agent.cut_marker(MarkerKind::Crash).await {
                return marker;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let marker = cut.await.unwrap();
    assert!(lab.point_content(marker).await == lab.disk.content(), "half a write is missing");
}

#[tokio::test(start_paused = true)]
async fn a_start_in_another_machines_directory_is_refused_and_leaves_its_spill_alone() {
    let lab = Lab::new(8_192).await;
    let (server, agent) = (lab.server().await, lab.agent().await);
    exact(&agent).await;
    lab.net.cut();
    drop(server);
    agent.export("root").unwrap().write(0, pattern(5, 4096), false).await.unwrap();
    agent.stop().await.unwrap();
    let before = lab.source.world.files.list().await.unwrap();
    assert!(before.iter().any(|name| name.ends_with(".hrl")), "{before:?}");

    let mut settings = lab.settings();
    settings.machine = MachineId(8);
    let refused = Agent::start(settings, lab.source.world.clone(), lab.key.clone()).await;
    assert!(refused.is_err());
    let after = lab.source.world.files.list().await.unwrap();
    let spills = |names: &[String]| names.iter().filter(|name| name.ends_with(".hrl")).count();
    assert_eq!(spills(&after), spills(&before), "{after:?}");
}
