//! Load through fio's NBD engine, and what it says.
//!
//! `clat` of that engine is wrong at queue depth 1: latencies come from `lat_ns`.

use super::contestants::pinned;
use crate::command::output;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;
use std::process::{Command, Stdio};

/// One fio run.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// fio's name of the pattern.
    pub(crate) pattern: &'static str,
    /// fio's block size.
    pub(crate) block: &'static str,
    /// Requests in flight.
    pub(crate) depth: u32,
    /// Seconds of load.
    pub(crate) seconds: u32,
}

/// What one run reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// Median latency in microseconds.
    pub(crate) p50_us: f64,
    /// Operations per second.
    pub(crate) iops: f64,
    /// Operations in total.
    pub(crate) operations: f64,
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    read: Side,
    write: Side,
}

#[derive(Deserialize)]
struct Side {
    iops: f64,
    total_ios: f64,
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: std::collections::BTreeMap<String, f64>,
}

/// Size of the disks that [`run`] loads.
const MIB: u64 = 1024;

fn fio(socket: &Path) -> Vec<String> {
    let fixed = ["--name=load", "--ioengine=nbd", "--refill_buffers", "--output-format=json"];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).into();
    arguments.push(format!("--uri=nbd+unix:///?socket={}", socket.display()));
    arguments
}

/// Runs the load against a Unix socket, pinned to one processor if `pin` is given.
pub(crate) fn run(socket: &Path, load: Load, pin: Option<u32>) -> Result<Reached> {
    run_within(socket, load, pin, MIB)
}

/// As [`run`], on the first `mib` of the disk.
pub(crate) fn run_within(socket: &Path, load: Load, pin: Option<u32>, mib: u64) -> Result<Reached> {
    let mut command = pinned(Path::new("fio"), pin);
    command.args(fio(socket)).args(["--randrepeat=1", "--time_based", "--lat_percentiles=1"]);
    command.arg(format!("--size={mib}m"));
    command.arg("--buffer_compress_percentage=50");
    command.arg(format!("--rw={}", load.pattern)).arg(format!("--bs={}", load.block));
    command.arg(format!("--iodepth={}", load.depth)).arg(format!("--runtime={}", load.seconds));
    parse(&output(command)?, load.pattern.contains("read"))
}

/// Rewrites `bytes` of the first `mib` of the disk, 4 KiB at random places, each place once, with
/// data that does not compress. Returns the bytes written; the seed chooses the places.
pub(crate) fn churn(socket: &Path, mib: u64, bytes: u64, seed: u32) -> Result<f64> {
    let mut command = Command::new("fio");
    command.args(fio(socket)).args(["--rw=randwrite", "--bs=4k", "--iodepth=8", "--randrepeat=0"]);
    command.arg(format!("--size={mib}m")).arg(format!("--io_size={bytes}"));
    command.arg(format!("--randseed={seed}")).arg("--buffer_compress_percentage=0");
    Ok(parse(&output(command)?, false)?.operations * 4096.0)
}

/// Returns a steady load of so many random 4 KiB writes a second, to be started.
pub(crate) fn steady(socket: &Path, rate: u32, seconds: u32, mib: u64) -> Command {
    let mut command = Command::new("fio");
    command.args(fio(socket)).args(["--rw=randwrite", "--bs=4k", "--iodepth=4", "--time_based"]);
    command.arg(format!("--size={mib}m")).arg(format!("--runtime={seconds}"));
    command.arg(format!("--rate_iops={rate}")).arg("--buffer_compress_percentage=50");
    command.stdout(Stdio::null());
    command
}

fn parse(text: &str, is_read: bool) -> Result<Reached> {
    // fio prints warnings before the JSON.
    let start = text.find('{').context("fio printed no JSON")?;
    let parsed: Output = serde_json::from_str(&text[start..]).context("fio's JSON")?;
    let job = parsed.jobs.into_iter().next().context("fio ran no job")?;
    let side = if is_read { job.read } else { job.write };
    let p50 = side.lat_ns.percentile.get("50.000000").copied().unwrap_or(f64::NAN);
    Ok(Reached { p50_us: p50 / 1000.0, iops: side.iops, operations: side.total_ios })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_right_direction_are_read() {
        let side = |iops: u32| {
            format!(r#"{{"iops":{iops},"total_ios":7,"lat_ns":{{"percentile":{{"50.000000":2500}}}}}}"#)
        };
        let text = format!(r#"note: hello {{"jobs":[{{"read":{},"write":{}}}]}}"#, side(1), side(2));
        let text = text.replacen("note: hello ", "fio: warning\n", 1);
        let reached = parse(&text, false).unwrap();
        assert_eq!((reached.iops, reached.p50_us, reached.operations), (2.0, 2.5, 7.0));
    }
}
