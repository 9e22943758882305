//! What the way from a guest's write to the vault costs, and what its parts cost alone.
//!
//! One process with one thread runs an agent, a process server and a vault in a directory; the disk takes
//! writes and keeps nothing, so that only the pipeline is measured. The roofline is one memory copy, one
//! checksum, one compression and one encryption of the same bytes, by the same libraries in the same process.
//! Speeds are MB of guest payload per second of CPU, user and system, of all threads.
//!
//! `cargo run --release -p redoubt --example pipeline_cost -- ROUNDS DIRECTORY` prints one JSON line per round.
#![allow(clippy::disallowed_methods, reason = "a measurement needs the true clocks and a real directory")]

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Extent, MachineId, SECTOR_BYTES, Sectors};
use redoubt_host::{HostEntropy, LocalStore};
use redoubt_ports::{Disk, DiskInfo, Disks, Endpoint, IoError};
use redoubt_roles::agent::{Agent, AgentSettings, VolumeSpec};
use redoubt_roles::nbd_server::Export;
use redoubt_roles::process_server::{ProcessServer, PsSettings};
use redoubt_vault::{Vault, VaultKeys};
use redoubt_wire::StreamKey;
use redoubt_wire::aead::{Key, counter_nonce};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MACHINE: MachineId = MachineId(1);
/// Size of the disk and of the data: each 4 KiB block is written once in a round, at a random place.
const BYTES: usize = 192 << 20;
const WRITE_BYTES: usize = 4096;
/// Writes in flight.
const DEPTH: usize = 16;
/// Grain of the vault, at which the parts are measured.
const UNIT_BYTES: usize = 64 << 10;
/// The guest pauses when so much waits in memory, so that nothing is spilled.
const BACKLOG_BYTES: u64 = 16 << 20;

/// A disk that takes everything and keeps nothing.
struct NullDisk;

#[async_trait]
impl Disks for NullDisk {
    async fn open(&self, _name: &str, _read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        Ok(Arc::new(NullDisk))
    }
}

#[async_trait]
impl Disk for NullDisk {
    fn info(&self) -> DiskInfo {
        let sectors = Sectors(BYTES as u64 / SECTOR_BYTES);
        DiskInfo { sectors, physical_sector_bytes: 4096, can_trim: true }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        Ok(Bytes::from(vec![0; extent.bytes() as usize]))
    }

    async fn write(&self, _extent: Extent, _payload: Bytes, _durable: bool) -> Result<(), IoError> {
        Ok(())
    }

    async fn write_zeroes(&self, _extent: Extent, _unmap: bool, _durable: bool) -> Result<(), IoError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    async fn resize(&self, _sectors: Sectors) -> Result<(), IoError> {
        Ok(())
    }

    async fn data_extents(&self, _extent: Extent) -> Result<Vec<Extent>, IoError> {
        Ok(Vec::new())
    }
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// CPU seconds of this thread so far.
fn thread_cpu() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

/// Runs the work and returns MB per CPU second of [`BYTES`].
fn speed(mut work: impl FnMut()) -> f64 {
    let before = cpu();
    work();
    BYTES as f64 / 1e6 / (cpu() - before)
}

/// Repeatable noise.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Makes data of which each 4 KiB compresses to a half.
fn data() -> Bytes {
    let (mut data, mut state) = (vec![0; BYTES], 7);
    for half in data.chunks_mut(2048).step_by(2) {
        half.chunks_mut(8).for_each(|word| word.copy_from_slice(&next(&mut state).to_le_bytes()));
    }
    Bytes::from(data)
}

/// The parts alone: memory copy, crc32c, zstd level 1, AES-256-GCM.
fn parts(data: &[u8]) -> [f64; 4] {
    let mut unit = vec![0; UNIT_BYTES];
    let memcpy = speed(|| {
        for source in data.chunks_exact(UNIT_BYTES) {
            unit.copy_from_slice(source);
            std::hint::black_box(&mut unit);
        }
    });
    let mut sum = 0;
    let crc = speed(|| data.chunks(UNIT_BYTES).for_each(|unit| sum ^= crc32c::crc32c(unit)));
    std::hint::black_box(sum);
    let mut compressor = zstd::bulk::Compressor::new(1).expect("a compressor");
    let mut out = vec![0; 2 * UNIT_BYTES];
    let zstd = speed(|| {
        for unit in data.chunks(UNIT_BYTES) {
            compressor.compress_to_buffer(unit, &mut out[..]).expect("room for the worst case");
        }
    });
    let opener = Key::new([1; 32]).opener();
    let aes = speed(|| {
        for number in 0..BYTES / UNIT_BYTES {
            std::hint::black_box(opener.seal(counter_nonce(number as u64), b"", &mut unit));
        }
    });
    [memcpy, crc, zstd, aes]
}

/// Everything that runs: dropped, it stops at once.
struct Pipeline {
    agent: Agent,
    _server: ProcessServer,
}

async fn start(directory: &Path) -> Pipeline {
    let place = |name: &str| {
        let path = directory.join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    };
    let store = Arc::new(LocalStore::open(&place("vault")).expect("a store"));
    let keys = VaultKeys::new([3; 32]);
    Vault::init(store.clone(), keys.clone(), &HostEntropy).await.expect("a vault");
    let key = StreamKey::new(keys.stream_key(MACHINE));
    let socket = Endpoint::Unix(directory.join("stream.sock").display().to_string());
    let world = redoubt_host::world(&place("server")).expect("a world");
    let server = ProcessServer::start(PsSettings::new(socket.clone(), "bench"), world, store, keys);
    let server = server.await.expect("a process server");
    let mut world = redoubt_host::world(&place("agent")).expect("a world");
    world.disks = Arc::new(NullDisk);
    let mut settings = AgentSettings::new(MACHINE, "bench", vec![socket]);
    settings.volumes = vec![VolumeSpec::new("bench", "null")];
    let agent = Agent::start(settings, world, key).await.expect("an agent");
    let pipeline = Pipeline { agent, _server: server };
    pipeline.caught_up().await;
    pipeline
}

impl Pipeline {
    /// Waits until everything issued is in the vault.
    async fn caught_up(&self) {
        loop {
            let status = self.agent.status();
            let marks = status.watermarks;
            if status.mode == redoubt_roles::agent::AgentMode::Exact && marks.vaulted() >= marks.issued() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Writes all data once, in random order; returns the CPU seconds spent in the writes' own steps.
    async fn write_all(&self, data: &Bytes, seed: u64) -> f64 {
        let export: Arc<dyn Export> = self.agent.export("bench").expect("the export");
        let mut order: Vec<usize> = (0..BYTES / WRITE_BYTES).collect();
        let mut state = seed;
        for at in (1..order.len()).rev() {
            order.swap(at, next(&mut state) as usize % (at + 1));
        }
        let mut inside = 0.0;
        for chunk in order.chunks(DEPTH) {
            let began = thread_cpu();
            for block in chunk {
                let offset = block * WRITE_BYTES;
                let payload = data.slice(offset..offset + WRITE_BYTES);
                export.write(offset as u64, payload, false).await.expect("a write");
            }
            inside += thread_cpu() - began;
            tokio::task::yield_now().await;
            while self.agent.status().memory_bytes > BACKLOG_BYTES {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        inside
    }
}

async fn run(rounds: usize, directory: &Path) {
    let data = data();
    let pipeline = start(directory).await;
    // Twice first: extents get hot and files their size.
    for warm_up in 0..2 {
        pipeline.write_all(&data, warm_up).await;
        pipeline.caught_up().await;
    }
    for round in 0..rounds {
        let before = cpu();
        let inside = pipeline.write_all(&data, 10 + round as u64).await;
        pipeline.caught_up().await;
        let whole = BYTES as f64 / 1e6 / (cpu() - before);
        let [memcpy, crc, zstd, aes] = parts(&data);
        let roofline = 1.0 / [memcpy, crc, zstd, aes].iter().map(|speed| 1.0 / speed).sum::<f64>();
        let write_ns = inside * 1e9 / (BYTES / WRITE_BYTES) as f64;
        println!(
            "{{\"pipeline\":{whole:.1},\"roofline\":{roofline:.1},\"memcpy\":{memcpy:.1},\"crc32c\":{crc:.1},\
             \"zstd\":{zstd:.1},\"aes_gcm\":{aes:.1},\"write_step_ns\":{write_ns:.0}}}"
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: pipeline_cost ROUNDS DIRECTORY";
    let rounds = arguments.next().and_then(|text| text.parse().ok()).expect(usage);
    let directory = std::path::PathBuf::from(arguments.next().expect(usage));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(rounds, &directory));
    // The tasks of the roles end with the runtime.
    runtime.shutdown_timeout(Duration::from_secs(1));
}
