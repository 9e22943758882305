//! P1 P2: the price of replication over our own plain export. P3: the plain export over its peers.

use super::contestants::{Protected, nbdkit, plain, qemu_nbd};
use super::figure::{Figure, Goal, median, number};
use super::fio::{self, Load, Reached};
use super::place::{Fill, Place};
use super::server::Server;
use anyhow::Result;
use std::path::Path;

/// Latency runs are pinned with their server: wakes across processors would hide the difference.
const LATENCY_CPU: u32 = 1;
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
    let load = Load { pattern: "randwrite", block: "4k", depth: 1, seconds: SECONDS };
    let (mut latency, mut cpu) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    // The first round warms caches and the activity log; it is not counted.
    for round in 0..=rounds {
        let sides = [with_cpu(&a, load, || Ok(()))?, with_cpu(&b.server, load, || b.caught_up())?];
        if round > 0 {
            for (side, (reached, seconds)) in sides.into_iter().enumerate() {
                latency[side].push(reached.p50_us);
                cpu[side].push(seconds * 1e6 / reached.operations);
            }
        }
    }
    let figure = |bar, what: &str, sides: &[Vec<f64>; 2], goal| Figure {
        bar,
        what: what.to_owned(),
        unit: "",
        values: ratios(&sides[1], &sides[0]),
        goal: Goal::AtMost(goal),
        sides: format!("protected {} us, plain {} us", number(median(&sides[1])), number(median(&sides[0]))),
    };
    Ok(vec![
        figure("P1", "4 KiB write p50, depth 1: protected / plain export", &latency, 1.10),
        figure("P2", "CPU per 4 KiB write: protected (all roles) / plain export", &cpu, 1.5),
    ])
}

/// One load and the CPU seconds of the server for it, what it still does afterwards included.
fn with_cpu(server: &Server, load: Load, settle: impl Fn() -> Result<()>) -> Result<(Reached, f64)> {
    let before = server.cpu_seconds()?;
    let reached = fio::run(&server.socket, load, Some(LATENCY_CPU))?;
    settle()?;
    Ok((reached, server.cpu_seconds()? - before))
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
    let disks = ["0.img", "1.img", "2.img"].map(|name| place.image(name, Fill::Zeros, MIB, MIB));
    let mut figures = Vec::new();
    for (what, pattern, block, depth) in loads {
        let pin = (depth == 1).then_some(LATENCY_CPU);
        let mut servers = Vec::new();
        for ((_, start), disk) in contestants.iter().zip(&disks) {
            let disk = disk.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
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
