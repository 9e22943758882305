//! A disk's model from fio.

use super::fio::{Direction, Job, Output, Purpose, Times};
use super::{Check, Fit, FitError};
use crate::play::play;
use crate::{DiskModel, How, Operation, Quantiles, Source};

/// A job file for fio that measures all that a fit needs. Its target is given on fio's command line.
pub const JOBS: &str = "\
# Measures a disk or a file on it for `hw fit disk`. It WRITES to the target. Play it like this:
#   fio --filename=TARGET --size=4G --output-format=json+ --output=measured.json THIS-FILE
[global]
ioengine=libaio
direct=1
time_based=1
runtime=20
ramp_time=2
stonewall
[fill]
rw=write
bs=1M
iodepth=8
time_based=0
ramp_time=0
[read-latency]
rw=randread
bs=4k
iodepth=1
[write-latency]
rw=randwrite
bs=4k
iodepth=1
[flush-latency]
rw=randwrite
bs=4k
iodepth=1
fsync=1
[read-rate]
rw=read
bs=1M
iodepth=8
[write-rate]
rw=write
bs=1M
iodepth=8
[read-queue]
rw=randread
bs=4k
iodepth=64
";

/// How to measure what is missing.
const REMEDY: &str = "`cargo sim hw jobs` prints the jobs that measure all, with the command to play them";

/// Chances at which model and measurement are compared: more of them than were fitted.
const COMPARED: [(u32, &str); 7] = [
    (250_000, "p25"),
    (500_000, "p50"),
    (750_000, "p75"),
    (900_000, "p90"),
    (975_000, "p97.5"),
    (995_000, "p99.5"),
    (999_000, "p99.9"),
];

/// A side of the disk: what its jobs measured.
struct Side<'a> {
    name: &'static str,
    rate: f64,
    block: u64,
    times: &'a Times,
}

impl Side<'_> {
    /// Returns how long a request took before transfer.
    fn media(&self) -> Quantiles {
        let transfer = (self.block as f64 * 1e9 / self.rate) as u64;
        Quantiles::of(|chance| micros(self.times.at(chance).saturating_sub(transfer)))
    }
}

fn micros(nanos: u64) -> u64 {
    (nanos + 500) / 1000
}

fn missing(what: impl Into<String>) -> FitError {
    FitError::Missing { what: what.into(), remedy: REMEDY }
}

fn side<'a>(
    output: &'a Output,
    name: &'static str,
    of: fn(&Job) -> &Direction,
) -> Result<Side<'a>, FitError> {
    let reads = name == "read";
    let small = output.find(Purpose::Latency, reads);
    let small =
        small.ok_or_else(|| missing(format!("the latency of a {name} (4 KiB at random, one at once)")))?;
    let large = output.find(Purpose::Rate, reads);
    let large = large.ok_or_else(|| missing(format!("the rate of a {name} (128 KiB or more)")))?;
    let times = of(small).times().ok_or_else(|| missing("a histogram (fio's --output-format=json+)"))?;
    Ok(Side { name, rate: of(large).bw_bytes.max(1.0), block: output.block(small), times })
}

/// Makes a disk's model of what fio measured. What fio cannot see is given: what the disk is called, and whether
/// a power loss takes what was not flushed.
pub fn disk(measured: &str, called: &str, volatile_cache: bool) -> Result<Fit<DiskModel>, FitError> {
    let output = Output::parse(measured)?;
    let read = side(&output, "read", |job| &job.read)?;
    let write = side(&output, "write", |job| &job.write)?;
    let flush = output.flushes().ok_or_else(|| missing("the latency of a flush (fsync=1)"))?;
    let queue = output.find(Purpose::Queue, true);
    let queue = queue.ok_or_else(|| missing("reads at random with many at once (iodepth=64)"))?;
    let read_us = read.media();
    // Little's law: what is served at once is the rate times how long one takes.
    let held = read_us.mean() / 1e6 + output.block(queue) as f64 / read.rate;
    let served = queue.read.iops * held;
    let model = DiskModel {
        physical_sector_bytes: 4096,
        volatile_cache,
        queue_depth: (served.round() as u32).clamp(1, output.at_once(queue)),
        read_bytes_per_second: read.rate as u64,
        write_bytes_per_second: write.rate as u64,
        read_us,
        write_us: write.media(),
        flush_us: Quantiles::of(|chance| micros(flush.at(chance))),
        write_cache: None,
        throttle: None,
        source: Source { how: How::Measured, note: called.to_owned() },
    };
    let mut checks = times(&model, &read, Operation::Read(read.block));
    checks.extend(times(&model, &write, Operation::Write(write.block)));
    checks.extend(times(
        &model,
        &Side { name: "flush", rate: 1.0, block: 0, times: flush },
        Operation::Flush,
    ));
    let at_once = output.at_once(queue);
    let played = play(&model, Operation::Read(output.block(queue)), at_once);
    checks.push(Check {
        job: format!("read, {at_once} at once"),
        figure: "rate".into(),
        unit: "/s",
        measured: queue.read.iops,
        model: played.per_second(),
    });
    Ok(Fit { model, checks })
}

/// Compares how long one request after another took.
fn times(model: &DiskModel, side: &Side<'_>, what: Operation) -> Vec<Check> {
    let played = play(model, what, 1);
    let check = |(chance, figure): (u32, &str)| Check {
        job: format!("{}, one at once", side.name),
        figure: figure.to_owned(),
        unit: "µs",
        measured: side.times.at(chance) as f64 / 1000.0,
        model: played.at(chance).as_nanos() as f64 / 1000.0,
    };
    COMPARED.into_iter().map(check).collect()
}
