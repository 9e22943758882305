//! What it costs to prove a point and to compare a disk with the vault for a resync, beside BLAKE3 alone.
//!
//! A vault with one disk, whose content compresses to a half, is made in memory. Then each round does four things in
//! turn: the second reader proves everything in the vault, the process server's half of a resync hashes the newest
//! state, the agent's half hashes the disk, and BLAKE3 hashes the same bytes with nothing around it. Speeds are GB
//! of the disk per second of CPU, user and system, of all threads.
//!
//! `cargo run --release -p redoubt --example hash_cost -- ROUNDS DIRECTORY` prints one JSON line per round.
#![allow(clippy::disallowed_methods, reason = "a measurement needs the true clocks and a real directory")]

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::message::HASH_BLOCK_SECTORS;
use redoubt_core::resync::{Content, RunRead};
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    SECTOR_BYTES, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_host::{HostEntropy, LocalStore};
use redoubt_ports::StoreKey;
use redoubt_vault::{MachineReader, MachineWriter, Vault, VaultKeys};
use redoubt_verifier::Objects;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const MACHINE: MachineId = MachineId(1);
const VOLUME: VolumeIndex = VolumeIndex(0);
const KEY: [u8; 32] = [3; 32];
/// Size of the disk, all of it content.
const BYTES: usize = 256 << 20;
/// Bytes of a record and of a run that an agent reads, and of the records of one commit.
const RUN_BYTES: usize = 1 << 20;
const COMMIT_BYTES: usize = 32 << 20;
const BLOCK_BYTES: usize = (HASH_BLOCK_SECTORS * SECTOR_BYTES) as usize;

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// GB of the disk per CPU second since `before`.
fn speed(before: f64) -> f64 {
    BYTES as f64 / 1e9 / (cpu() - before)
}

/// Makes data of which each 4 KiB compresses to a half.
fn data() -> Bytes {
    let (mut data, mut state) = (vec![0; BYTES], 7u64);
    for half in data.chunks_mut(2048).step_by(2) {
        for word in half.chunks_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.copy_from_slice(&(state ^ (state >> 33)).to_le_bytes());
        }
    }
    Bytes::from(data)
}

/// Brings the disk into a new vault, as a first copy, with a point behind it.
async fn fill(directory: &Path, data: &Bytes) -> Vault {
    let store = Arc::new(LocalStore::open(directory).expect("an empty directory"));
    let vault = Vault::init(store, VaultKeys::new(KEY), &HostEntropy).await.expect("a vault");
    let mut writer = MachineWriter::claim(&vault, MACHINE, Arc::new(HostEntropy)).await.expect("a claim");
    let sectors = Sectors(BYTES as u64 / SECTOR_BYTES);
    let attach = Change::Attach { volume: VOLUME, id: VolumeId(1), sectors };
    let mut changes = vec![attach, Change::ResyncBegin { reason: ResyncReason::Initial }];
    let mut seq = 0;
    for (commit, part) in (0..).step_by(COMMIT_BYTES).zip(data.chunks(COMMIT_BYTES)) {
        changes.extend((0..part.len()).step_by(RUN_BYTES).map(|at| {
            let from = commit + at;
            let payload = data.slice(from..from + RUN_BYTES);
            Change::ResyncWrite { volume: VOLUME, lba: Lba(from as u64 / SECTOR_BYTES), payload }
        }));
        if commit + part.len() == BYTES {
            changes.push(Change::ResyncEnd);
            let (id, wall) = (MarkerId(1), WallTime(1));
            changes.push(Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }));
        }
        let record = |change| {
            seq += 1;
            Record { seq: WriteSeq(seq), change }
        };
        let records: Vec<Record> = changes.drain(..).map(record).collect();
        let position = BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([0; 32]) };
        writer.commit(records, position).await.expect("a commit");
    }
    vault
}

/// The vault's objects, read before the clock starts.
struct InMemory(BTreeMap<String, Vec<u8>>);

impl InMemory {
    async fn of(vault: &Vault) -> InMemory {
        let mut objects = BTreeMap::new();
        for name in vault.objects("").await.expect("a list") {
            let name: StoreKey = name;
            let bytes = vault.object(&name).await.expect("an answer").expect("an object that was listed");
            objects.insert(name.to_string(), bytes.to_vec());
        }
        InMemory(objects)
    }
}

impl Objects for InMemory {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(name).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        Ok(self.0.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }
}

/// The second reader, over everything.
fn verify(objects: &InMemory) -> f64 {
    let before = cpu();
    let proof = redoubt_verifier::prove(objects, &KEY, &MACHINE.to_string(), None, |_, _| {});
    let proof = proof.unwrap_or_else(|_| panic!("the vault proves nothing"));
    assert_eq!((proof.points.len(), proof.damage.len(), proof.units.1), (1, 0, BYTES as u64));
    speed(before)
}

/// Both halves of a resync's comparison, and BLAKE3 alone; all three must find the same.
async fn compare(vault: &Vault, data: &Bytes) -> [f64; 3] {
    let reader = MachineReader::open(vault, MACHINE).await.expect("a reader");
    let before = cpu();
    let answers = reader.head_view().hash_blocks(VOLUME, 0, u64::MAX).await.expect("digests");
    let server = speed(before);
    let before = cpu();
    let runs = (0..BYTES).step_by(RUN_BYTES).map(|at| RunRead::of(data.slice(at..at + RUN_BYTES), true));
    let contents: Vec<Content> = runs.flat_map(|run| run.contents).collect();
    let agent = speed(before);
    let before = cpu();
    let alone: Vec<[u8; 32]> =
        data.chunks(BLOCK_BYTES).map(|block| *blake3::hash(block).as_bytes()).collect();
    let blake3 = speed(before);
    assert!(answers.iter().flatten().eq(&alone), "the vault has what the disk has");
    assert!(contents.into_iter().eq(alone.into_iter().map(|digest| Content::Data(Some(digest)))));
    [server, agent, blake3]
}

async fn run(rounds: usize, directory: &Path) {
    let data = data();
    let vault = fill(directory, &data).await;
    let objects = InMemory::of(&vault).await;
    for round in 0..=rounds {
        let verify = verify(&objects);
        let [server, agent, blake3] = compare(&vault, &data).await;
        // The first round makes everything warm.
        if round > 0 {
            println!(
                "{{\"verify\":{verify:.3},\"server\":{server:.3},\"agent\":{agent:.3},\"blake3\":{blake3:.3}}}"
            );
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: hash_cost ROUNDS DIRECTORY";
    let rounds = arguments.next().and_then(|text| text.parse().ok()).expect(usage);
    let directory = std::path::PathBuf::from(arguments.next().expect(usage));
    std::fs::create_dir_all(&directory).expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(rounds, &directory));
}
