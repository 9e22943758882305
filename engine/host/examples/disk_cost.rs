//! What one disk operation costs in place and on the blocking pool: the figures of decision 0004.
//!
//! Both ways take turns in who goes first, each at its own places: the first write to a clean page costs
//! more than the next one, so a fixed order would charge that to one of them.
//!
//! `cargo run --release -p redoubt-host --example disk_cost FILE` uses and removes FILE (256 MiB).
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

const SPAN: u64 = 256 << 20;
const ROUNDS: usize = 4000;

fn offset(round: usize, bytes: usize) -> u64 {
    (round as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % (SPAN / bytes as u64) * bytes as u64
}

/// Prints the median and the 99th percentile in microseconds.
fn report(what: &str, bytes: usize, mut nanos: Vec<u128>) {
    nanos.sort_unstable();
    let at = |part: usize| nanos[nanos.len() * part / 100] as f64 / 1000.0;
    println!("{what:>24} {:>5} KiB  p50 {:>8.1} us  p99 {:>8.1} us", bytes >> 10, at(50), at(99));
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "disk_cost.img".to_owned());
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let file = Arc::new(file);
    let piece = vec![1; 1 << 20];
    (0..SPAN >> 20).try_for_each(|at| file.write_all_at(&piece, at << 20))?;
    file.sync_all()?;
    for bytes in [4 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20] {
        let payload: Arc<Vec<u8>> = Arc::new(vec![7; bytes]);
        let (mut write, mut pool_write, mut read, mut pool_read) = (vec![], vec![], vec![], vec![]);
        for round in 0..ROUNDS.min((1 << 30) / bytes) {
            for turn in 0..2 {
                // Every second pair begins with the pool.
                let in_place = (turn == 0) == (round % 2 == 0);
                let at = offset(2 * round + turn, bytes);
                let (shared, content) = (file.clone(), payload.clone());
                let start = Instant::now();
                if in_place {
                    file.write_all_at(&payload, at)?;
                    write.push(start.elapsed().as_nanos());
                } else {
                    tokio::task::spawn_blocking(move || shared.write_all_at(&content, at)).await??;
                    pool_write.push(start.elapsed().as_nanos());
                }
            }
            let at = offset(round, bytes);
            let mut buffer = vec![0; bytes];
            let start = Instant::now();
            file.read_exact_at(&mut buffer, at)?;
            read.push(start.elapsed().as_nanos());
            let shared = file.clone();
            let start = Instant::now();
            let buffer = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; bytes];
                shared.read_exact_at(&mut buffer, at).map(|()| buffer)
            });
            drop(buffer.await??);
            pool_read.push(start.elapsed().as_nanos());
        }
        report("write in place", bytes, write);
        report("write on the pool", bytes, pool_write);
        report("cached read in place", bytes, read);
        report("cached read on the pool", bytes, pool_read);
    }
    let mut flush = vec![];
    for round in 0..200 {
        file.write_all_at(&piece[..4096], offset(round, 4096))?;
        let start = Instant::now();
        file.sync_data()?;
        flush.push(start.elapsed().as_nanos());
    }
    report("4 KiB, then flush", 4096, flush);
    std::fs::remove_file(&path)
}
