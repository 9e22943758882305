//! P9 and P13: reads from a mounted point against a plain export of the same bytes, and the restore of a whole disk
//! against backup tools and plain copies.
//!
//! A restore ends when the image is durable. restic and borg are not asked to flush, so their file is flushed behind
//! them, within their time. What is cold is cold for the program, not for the page cache.

use super::contestants::{Protected, plain, redoubt};
use super::figure::{Figure, Goal, median, number};
use super::fio::{self, Load};
use super::place::{Fill, Place, forget};
use super::server::Server;
use crate::command::{output, run as run_command};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Content of the image, compressible to a half.
const MIB: u64 = 1024;
/// A part of it that a mount keeps in memory.
const WARM_MIB: u64 = 32;
/// Seconds of each load.
const SECONDS: u32 = 3;
/// Processor of clients and servers where latency counts.
const LATENCY_CPU: u32 = 0;
/// Longest wait for the first recovery point.
const POINT_MAX: Duration = Duration::from_secs(60);
const SECRET: &str = "only for this measurement";

/// A vault with one point of one full disk, and nobody who writes to it.
struct Vaulted {
    place: Place,
    image: std::path::PathBuf,
    vault: std::path::PathBuf,
    state: std::path::PathBuf,
}

impl Vaulted {
    fn new(name: &str) -> Result<Vaulted> {
        let place = Place::new(name)?;
        let image = place.image("disk.img", Fill::Half, MIB, MIB)?;
        let protected = Protected::start(&place, "point", &image, "1s", None)?;
        protected.caught_up()?;
        let start = Instant::now();
        while protected.points()?.is_empty() {
            anyhow::ensure!(start.elapsed() < POINT_MAX, "no recovery point came");
            std::thread::sleep(Duration::from_millis(100));
        }
        let vault = protected.vault.clone();
        drop(protected);
        let state = place.path("point.state");
        Ok(Vaulted { place, image, vault, state })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(redoubt());
        command.args([name, "newest", "--vault"]).arg(&self.vault).arg("--state").arg(&self.state);
        command
    }

    fn mount(&self) -> Result<Server> {
        let socket = self.place.path("mount.sock");
        let mut command = self.command("mount");
        command.arg("--listen").arg(format!("unix:{}", socket.display()));
        Server::start(command, &socket)
    }
}

/// P9.
pub(super) fn reads(rounds: usize) -> Result<Vec<Figure>> {
    let vaulted = Vaulted::new("p9")?;
    let servers = [vaulted.mount()?, plain(&vaulted.place, &vaulted.image, None)?];
    let mut figures = Vec::new();
    for (what, depth) in [("depth 1", 1), ("depth 32", 32)] {
        let load = Load { pattern: "randread", block: "4k", depth, seconds: SECONDS };
        let pin = (depth == 1).then_some(LATENCY_CPU);
        let mut iops = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (server, iops) in servers.iter().zip(&mut iops) {
                let reached = fio::run_within(&server.socket, load, pin, WARM_MIB)?;
                // The first round makes it warm.
                if round > 0 {
                    iops.push(reached.iops);
                }
            }
        }
        let sides = [&iops[0], &iops[1]].map(|side| number(median(side) / 1000.0));
        figures.push(Figure {
            bar: "P9",
            what: format!("warm 4 KiB random read of a mount, {what}: mount / plain export"),
            unit: "",
            values: iops[0].iter().zip(&iops[1]).map(|(ours, theirs)| ours / theirs).collect(),
            goal: Goal::AtLeast(0.8),
            sides: format!("mount {} k/s, plain {} k/s", sides[0], sides[1]),
        });
    }
    Ok(figures)
}

/// P13.
pub(super) fn restore(rounds: usize) -> Result<Vec<Figure>> {
    let vaulted = Vaulted::new("p13")?;
    let peers = Peers::fill(&vaulted)?;
    let names = ["export", "nbdcopy of the mount", "restic", "borg", "qemu-img convert"];
    let mut speeds: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        let seconds = [
            timed(&vaulted, "out.img", |to| {
                let mut export = vaulted.command("export");
                export.arg(to);
                output(export).map(drop)
            })?,
            timed(&vaulted, "out.img", |to| by_nbdcopy(&vaulted, to))?,
            timed(&vaulted, "disk.img", |_| peers.restic())?,
            timed(&vaulted, "disk.img", |_| peers.borg())?,
            timed(&vaulted, "out.img", |to| by_qemu(&vaulted.image, to))?,
        ];
        for (speeds, seconds) in speeds.iter_mut().zip(seconds) {
            speeds.push((MIB << 20) as f64 / 1e6 / seconds);
        }
    }
    let told: Vec<String> = names
        .iter()
        .zip(&speeds)
        .map(|(name, speeds)| format!("{name} {}", number(median(speeds))))
        .collect();
    let best: Vec<f64> = (0..rounds).map(|round| speeds[2][round].max(speeds[3][round])).collect();
    Ok(vec![
        Figure {
            bar: "P13",
            what: "restore of 1 GiB, durable".to_owned(),
            unit: "MB/s",
            values: speeds[0].clone(),
            goal: Goal::AtLeast(500.0),
            sides: format!("{} MB/s", told.join(", ")),
        },
        Figure {
            bar: "P13",
            what: "the same: export / the faster of restic and borg".to_owned(),
            unit: "",
            values: speeds[0].iter().zip(&best).map(|(ours, theirs)| ours / theirs).collect(),
            goal: Goal::AtLeast(1.0),
            sides: format!("export {} MB/s, they {} MB/s", number(median(&speeds[0])), number(median(&best))),
        },
    ])
}

/// Seconds until a restore into a directory of its own is durable; its result is compared and removed.
fn timed(vaulted: &Vaulted, name: &str, restore: impl FnOnce(&Path) -> Result<()>) -> Result<f64> {
    let directory = vaulted.place.path("out");
    std::fs::create_dir_all(&directory)?;
    let to = directory.join(name);
    let start = Instant::now();
    restore(&to)?;
    std::fs::File::open(&to).with_context(|| to.display().to_string())?.sync_all()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut compare = Command::new("cmp");
    compare.arg(&vaulted.image).arg(&to);
    run_command(compare)?;
    std::fs::remove_dir_all(&directory)?;
    // What the one before left to write must not be paid by the next.
    run_command(Command::new("sync"))?;
    Ok(seconds)
}

fn by_nbdcopy(vaulted: &Vaulted, to: &Path) -> Result<()> {
    let mount = vaulted.mount()?;
    let mut copy = Command::new("nbdcopy");
    copy.arg("--flush").arg(format!("nbd+unix:///?socket={}", mount.socket.display())).arg(to);
    run_command(copy)
}

fn by_qemu(image: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-t", "writeback", "-f", "raw", "-O", "raw"]).arg(image).arg(to);
    run_command(command)
}

/// The same image in the repositories of backup tools.
struct Peers<'a>(&'a Place);

impl Peers<'_> {
    fn fill(vaulted: &Vaulted) -> Result<Peers<'_>> {
        let peers = Peers(&vaulted.place);
        for arguments in [&["init"][..], &["backup", "disk.img"]] {
            output(peers.command("restic", &peers.0.path("")).args_of(arguments))?;
        }
        let repository = peers.0.path("borg");
        let init = ["init", "--encryption=repokey"];
        output(peers.command("borg", &peers.0.path("")).args_of(&init).arg_of(&repository))?;
        let archive = format!("{}::one", repository.display());
        let create = ["create", "--compression=zstd,1", &archive, "disk.img"];
        output(peers.command("borg", &peers.0.path("")).args_of(&create))?;
        forget(&vaulted.image)?;
        Ok(peers)
    }

    fn command(&self, program: &str, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory);
        command.env("RESTIC_REPOSITORY", self.0.path("restic")).env("RESTIC_PASSWORD", SECRET);
        command.env("RESTIC_CACHE_DIR", self.0.path("restic-cache"));
        command.env("BORG_PASSPHRASE", SECRET).env("BORG_BASE_DIR", self.0.path("borg-home"));
        command
    }

    fn restic(&self) -> Result<()> {
        let out = self.0.path("out");
        output(self.command("restic", &out).args_of(&["restore", "latest", "--target", "."])).map(drop)
    }

    fn borg(&self) -> Result<()> {
        let archive = format!("{}::one", self.0.path("borg").display());
        output(self.command("borg", &self.0.path("out")).args_of(&["extract", &archive])).map(drop)
    }
}

/// Arguments in a row, for commands that are handed on by value.
trait With {
    fn args_of(self, arguments: &[&str]) -> Command;
    fn arg_of(self, argument: &Path) -> Command;
}

impl With for Command {
    fn args_of(mut self, arguments: &[&str]) -> Command {
        self.args(arguments);
        self
    }

    fn arg_of(mut self, argument: &Path) -> Command {
        self.arg(argument);
        self
    }
}
