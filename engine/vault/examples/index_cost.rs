//! Prints what a reader's index costs: time to load a log of a million extents, time per lookup.
//!
//! Run it with `cargo run --release -p redoubt-vault --example index_cost`. The store is in memory, so
//! the figures are those of the index, the tables and the seals, not of a network.
#![allow(clippy::disallowed_methods, reason = "a measurement needs the true clock and /proc")]

use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Record, Sectors, VolumeId, VolumeIndex,
    WriteSeq,
};
use redoubt_ports::Entropy;
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultKeys};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const MACHINE: MachineId = MachineId(1);
const VOLUME: VolumeIndex = VolumeIndex(0);
/// 64 GiB.
const SECTORS: u64 = 1 << 27;
const EXTENTS: u64 = 1_000_000;
const COMMITS: u64 = 40;
const LOOKUPS: u64 = 200_000;

/// Repeatable numbers; good enough for places on a disk, never for keys.
#[derive(Default)]
struct Mix(AtomicU64);

impl Mix {
    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for Mix {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.iter_mut().for_each(|byte| *byte = self.next() as u8);
    }
}

/// Fills the vault with writes of 4 KiB; `places` is how many 4 KiB blocks they fall on.
async fn fill(vault: &Vault, mix: &Arc<Mix>, places: u64) {
    let mut writer = MachineWriter::claim(vault, MACHINE, mix.clone()).await.expect("a claim");
    let payload = bytes::Bytes::from(vec![7; 4096]);
    let mut seq = 0;
    for commit in 0..COMMITS {
        let mut changes = Vec::new();
        if commit == 0 {
            changes.push(Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(SECTORS) });
            changes.push(Change::ResyncBegin { reason: ResyncReason::Initial });
        }
        changes.extend((0..EXTENTS / COMMITS).map(|_| {
            let lba = Lba(mix.next() % places * 8);
            Change::Write { volume: VOLUME, lba, payload: payload.clone() }
        }));
        let records: Vec<Record> = changes
            .into_iter()
            .map(|change| {
                seq += 1;
                Record { seq: WriteSeq(seq), change }
            })
            .collect();
        let chain = Chain([0; 32]);
        let to = BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain };
        writer.commit(records, to).await.expect("a commit");
    }
}

async fn measure(what: &str, places: u64) {
    let (store, mix) = (Arc::new(MemStore::new()), Arc::new(Mix::default()));
    let vault = Vault::init(store, VaultKeys::new([1; 32]), &*mix).await.expect("a vault");
    let start = Instant::now();
    fill(&vault, &mix, places).await;
    let wrote = start.elapsed();
    let (before, start) = (resident(), Instant::now());
    let reader = MachineReader::open(&vault, MACHINE).await.expect("a reader");
    let opened = start.elapsed();
    let memory = resident().saturating_sub(before) >> 10;
    let view = reader.head_view();
    for (name, sectors) in [("4 KiB", 8), ("1 MiB", 2048)] {
        let (start, mut found) = (Instant::now(), 0);
        for _ in 0..LOOKUPS {
            let first = mix.next() % (places * 8).saturating_sub(sectors).max(1);
            found += view.data_extents(VOLUME, Extent::new(first, sectors)).expect("a lookup").len();
        }
        let each = start.elapsed().as_nanos() / u128::from(LOOKUPS);
        println!("{what}: lookup of {name}: {each} ns ({found} extents found)");
    }
    println!(
        "{what}: {EXTENTS} writes packed in {wrote:.2?}, opened in {opened:.2?}, {memory} MiB more resident"
    );
}

/// Resident KiB of this process; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        measure("spread over 64 GiB", SECTORS / 8).await;
        measure("on 2000 blocks (many versions each)", 2000).await;
    });
}
