//! P1 P2: the price of replication over our own plain export. P3: the plain export over its peers.

use super::contestants::{Protected, nbdkit, plain, qemu_nbd};
use super::figure::{Figure, Goal, median, number};
use super::fio::{self, Load, Reached};
use super::place::{Fill, Place, forget};
use super::server::Server;
use anyhow::Result;
use std::path::Path;

/// Latency runs are pinned with their server: wakes across processors would hide the difference.
const LATENCY_CPU: u32 = 1;
/// Where the process server works: in production it is on another machine.
const OTHER_CPU: u32 = 0;
/// Seconds of load in one round.
const SECONDS: u32 = 3;
/// Size of the disks.
const MIB: u64 = 1024;

/// P1 and P2: 4 KiB writes at queue depth 1, replication on, over our own plain export.
pub(super) fn cost_of_replication(rounds: usize) -> Result<Vec<Figure>> {
    let place = Place::new("p1")?;
    let plain_disk = place.image("plain.img", Fill::Zeros, MIB, MIB)?;
    let protected_disk = place.image("protected.img", Fill::Zeros, MIB, MIB)?;
    let a = plain(&place, &plain_disk, Some(LATENCY_CPU))?;
    let b = Protected::start(&place, "up", &protected_disk, "15s", Some(LATENCY_CPU))?;
    b.caught_up()?;
    // What was written and read until here: neither side starts with a better page cache.
    [&plain_disk, &protected_disk].into_iter().try_for_each(|disk| forget(disk))?;
    b.server.move_helpers(OTHER_CPU)?;
    let load = Load { pattern: "randwrite", block: "4k", depth: 1, seconds: SECONDS };
    let mut latency = [Vec::new(), Vec::new()];
    let mut cpu = [Vec::new(), Vec::new(), Vec::new()];
    // The first round warms caches and the activity log; it is not counted.
    for round in 0..=rounds {
        let (reached_a, used_a) = with_cpu(&a, load, || Ok(()))?;
        let (reached_b, used_b) = with_cpu(&b.server, load, || b.caught_up())?;
        if round > 0 {
            latency[0].push(reached_a.p50_us);
            latency[1].push(reached_b.p50_us);
            cpu[0].push(used_a.all * 1e6 / reached_a.operations);
            cpu[1].push(used_b.first * 1e6 / reached_b.operations);
            cpu[2].push(used_b.all * 1e6 / reached_b.operations);
        }
    }
    let figure = |bar, what: &str, ours: &[f64], plain: &[f64], goal| Figure {
        bar,
        what: what.to_owned(),
        unit: "",
        values: ratios(ours, plain),
        goal: Goal::AtMost(goal),
        sides: format!("protected {} us, plain {} us", number(median(ours)), number(median(plain))),
    };
    Ok(vec![
        figure("P1", "4 KiB write p50, depth 1: protected / plain export", &latency[1], &latency[0], 1.10),
        figure("P2", "CPU per 4 KiB write: agent / plain export", &cpu[1], &cpu[0], 1.5),
        figure(
            "P2",
            "CPU per 4 KiB write: agent, process server, vault / plain export",
            &cpu[2],
            &cpu[0],
            1.5,
        ),
    ])
}

/// CPU seconds of a server.
struct Used {
    all: f64,
    /// Of its first thread, which is the agent's.
    first: f64,
}

/// One load and the CPU of the server for it, what it still does afterwards included.
fn with_cpu(server: &Server, load: Load, settle: impl Fn() -> Result<()>) -> Result<(Reached, Used)> {
    let (all, first) = (server.cpu_seconds()?, server.first_thread_seconds()?);
    let reached = fio::run(&server.socket, load, Some(LATENCY_CPU))?;
    settle()?;
    Ok((reached, Used { all: server.cpu_seconds()? - all, first: server.first_thread_seconds()? - first }))
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

type Start = fn(&Place, &Path, Option<u32>) -> Result<Server>;

/// P3: our plain export over nbdkit's file plugin and qemu-nbd, as a ratio of operations per second.
pub(super) fn plain_export(rounds: usize) -> Result<Vec<Figure>> {
    let loads = [
        ("4 KiB random write, depth 1", "randwrite", "4k", 1),
        ("4 KiB random write, depth 32", "randwrite", "4k", 32),
        ("128 KiB write, depth 4", "write", "128k", 4),
        ("4 KiB random read, depth 1", "randread", "4k", 1),
    ];
    let contestants: [(&str, Start); 3] =
        [("plain export", plain), ("nbdkit file", nbdkit), ("qemu-nbd", qemu_nbd)];
    let place = Place::new("p3")?;
    let mut disks = Vec::new();
    for name in ["0.img", "1.img", "2.img"] {
        let disk = place.image(name, Fill::Zeros, MIB, MIB)?;
        forget(&disk)?;
        disks.push(disk);
    }
    let mut figures = Vec::new();
    for (what, pattern, block, depth) in loads {
        let pin = (depth == 1).then_some(LATENCY_CPU);
        let mut servers = Vec::new();
        for ((_, start), disk) in contestants.iter().zip(&disks) {
            servers.push(start(&place, disk, pin)?);
        }
        let load = Load { pattern, block, depth, seconds: SECONDS };
        let mut iops = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (server, iops) in servers.iter().zip(&mut iops) {
                let reached = fio::run(&server.socket, load, pin)?;
                if round > 0 {
                    iops.push(reached.iops);
                }
            }
        }
        for peer in 1..contestants.len() {
            let name = contestants[peer].0;
            let sides = [&iops[0], &iops[peer]].map(|side| number(median(side) / 1000.0));
            figures.push(Figure {
                bar: "P3",
                what: format!("{what}: plain export / {name}"),
                unit: "",
                values: ratios(&iops[0], &iops[peer]),
                goal: Goal::AtLeast(1.0),
                sides: format!("ours {} k/s, {name} {} k/s", sides[0], sides[1]),
            });
        }
    }
    Ok(figures)
}
