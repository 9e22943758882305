//! The bars that are measured, and how.
//!
//! P1 P2: the price of replication over our own plain export. P3: the plain export over nbdkit.

use super::fio::{self, Load, Reached};
use super::server::Server;
use super::{Figure, Goal};
use crate::command::{run as run_command, top};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

type Measure = fn(usize) -> Result<Vec<Figure>>;

/// Every bar with its measurement.
pub(crate) const ALL: [(&str, Measure); 2] = [("P1", cost_of_replication), ("P3", plain_export)];

/// Latency runs are pinned with their server: wakes across processors would hide the difference.
const LATENCY_CPU: u32 = 1;

const SECONDS: u32 = 3;

/// A directory for one measurement, removed on drop.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Result<Place> {
        let path = top().join("target/bench").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Place(path))
    }

    fn disk(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=1M", "count=1024", "status=none"]);
        command.arg(format!("of={}", path.display()));
        run_command(command)?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pinned(program: &Path, pin: Option<u32>) -> Command {
    match pin {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn redoubt() -> PathBuf {
    top().join("target/release/redoubt")
}

fn plain(place: &Place, disk: &Path, pin: Option<u32>) -> Result<Server> {
    let socket = place.0.join("plain.sock");
    let mut command = pinned(&redoubt(), pin);
    command.arg("bench-plain").arg("--disk").arg(disk);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    Server::start(command, &socket)
}

fn protected(place: &Place, disk: &Path, pin: Option<u32>) -> Result<Server> {
    let socket = place.0.join("up.sock");
    let mut command = pinned(&redoubt(), pin);
    command.arg("up").arg("--state").arg(place.0.join("state")).arg("--vault").arg(place.0.join("vault"));
    command.arg("--disk").arg(format!("bench={}", disk.display()));
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    Server::start(command, &socket)
}

fn nbdkit(place: &Place, disk: &Path, pin: Option<u32>) -> Result<Server> {
    let socket = place.0.join("nbdkit.sock");
    let mut command = pinned(Path::new("nbdkit"), pin);
    command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(disk);
    Server::start(command, &socket)
}

/// P1 and P2: 4 KiB writes at queue depth 1, replication on, over our own plain export.
fn cost_of_replication(rounds: usize) -> Result<Vec<Figure>> {
    let place = Place::new("p1")?;
    let (plain_disk, protected_disk) = (place.disk("plain.img")?, place.disk("protected.img")?);
    let a = plain(&place, &plain_disk, Some(LATENCY_CPU))?;
    let b = protected(&place, &protected_disk, Some(LATENCY_CPU))?;
    let load = Load { pattern: "randwrite", block: "4k", depth: 1, seconds: SECONDS };
    let (mut latency, mut cpu) = (Vec::new(), Vec::new());
    // The first round warms caches and the activity log; it is not counted.
    for round in 0..=rounds {
        let (reached_a, cpu_a) = with_cpu(&a, load)?;
        let (reached_b, cpu_b) = with_cpu(&b, load)?;
        if round > 0 {
            latency.push(reached_b.p50_us / reached_a.p50_us);
            cpu.push((cpu_b / reached_b.operations) / (cpu_a / reached_a.operations));
        }
    }
    Ok(vec![
        Figure {
            bar: "P1",
            what: "4 KiB write p50 at depth 1: protected / plain".into(),
            values: latency,
            goal: Goal::AtMost(1.10),
        },
        Figure {
            bar: "P2",
            what: "CPU per 4 KiB write: protected (all roles) / plain".into(),
            values: cpu,
            goal: Goal::AtMost(1.5),
        },
    ])
}

fn with_cpu(server: &Server, load: Load) -> Result<(Reached, f64)> {
    let before = server.cpu_seconds()?;
    let reached = fio::run(&server.socket, load, Some(LATENCY_CPU))?;
    Ok((reached, server.cpu_seconds()? - before))
}

/// P3: our plain export over nbdkit's file plugin, as a ratio of operations per second.
fn plain_export(rounds: usize) -> Result<Vec<Figure>> {
    let loads = [
        ("4 KiB random write, depth 1", "randwrite", "4k", 1),
        ("4 KiB random write, depth 32", "randwrite", "4k", 32),
        ("128 KiB write, depth 4", "write", "128k", 4),
        ("4 KiB random read, depth 1", "randread", "4k", 1),
    ];
    let place = Place::new("p3")?;
    let (ours, theirs) = (place.disk("ours.img")?, place.disk("theirs.img")?);
    let mut figures = Vec::new();
    for (what, pattern, block, depth) in loads {
        let pin = (depth == 1).then_some(LATENCY_CPU);
        let a = plain(&place, &ours, pin)?;
        let b = nbdkit(&place, &theirs, pin)?;
        let load = Load { pattern, block, depth, seconds: SECONDS };
        let mut values = Vec::new();
        for _ in 0..rounds {
            let reached_a = fio::run(&a.socket, load, pin)?;
            let reached_b = fio::run(&b.socket, load, pin)?;
            values.push(reached_a.iops / reached_b.iops);
        }
        let what = format!("{what}: plain export / nbdkit file");
        figures.push(Figure { bar: "P3", what, values, goal: Goal::AtLeast(1.0) });
    }
    Ok(figures)
}
