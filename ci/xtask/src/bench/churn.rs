//! P5: what travels to the vault for each byte that the guest changed.
//!
//! One image of incompressible data; each round rewrites 1 % of its 4 KiB blocks through our export.
//! The peers then back up the same image file, so all of them see the same change.

use super::contestants::Protected;
use super::figure::{Figure, Goal, median, number};
use super::fio;
use super::place::{Fill, Place, bytes_below};
use crate::command::{output, run as run_command};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the image.
const MIB: u64 = 256;
/// Rewritten in one round.
const CHURN_BYTES: u64 = (MIB << 20) / 100 / 4096 * 4096;

/// A backup program with its repository.
struct Peer {
    name: &'static str,
    repository: PathBuf,
    backup: fn(&Path, &Path) -> Command,
}

/// P5.
pub(super) fn amplification(rounds: usize) -> Result<Vec<Figure>> {
    let place = Place::new("p5")?;
    let disk = place.image("disk.img", Fill::Random, MIB, MIB)?;
    let protected = Protected::start(&place, "up", &disk, "1s", None)?;
    protected.caught_up()?;
    let copy = place.path("rsync.img");
    rsync(&disk, &copy)?;
    let peers = peers(&place)?;
    for peer in &peers {
        run_command((peer.backup)(&peer.repository, &disk))?;
    }
    let (mut ours, mut by_rsync, mut by_peer) = (Vec::new(), Vec::new(), vec![Vec::new(); peers.len()]);
    for round in 0..rounds {
        let before = bytes_below(&protected.vault)?;
        let changed = fio::churn(&protected.server.socket, MIB, CHURN_BYTES, round as u32 + 1)?;
        protected.caught_up()?;
        ours.push((bytes_below(&protected.vault)? - before) as f64 / changed);
        by_rsync.push(rsync(&disk, &copy)? / changed);
        for (peer, values) in peers.iter().zip(&mut by_peer) {
            let before = bytes_below(&peer.repository)?;
            run_command((peer.backup)(&peer.repository, &disk))?;
            values.push(bytes_below(&peer.repository)?.saturating_sub(before) as f64 / changed);
        }
    }
    let mut sides = format!("vault {}x, rsync 4K {}x", number(median(&ours)), number(median(&by_rsync)));
    for (peer, values) in peers.iter().zip(&by_peer) {
        sides += &format!(", {} {}x", peer.name, number(median(values)));
    }
    Ok(vec![Figure {
        bar: "P5",
        what: "bytes uploaded per changed byte, random 4 KiB churn of 1 %".to_owned(),
        unit: "",
        values: ours,
        goal: Goal::AtMost(1.05),
        sides,
    }])
}

/// Copies in place, by differences of 4 KiB blocks, and returns the bytes that crossed its pipe.
fn rsync(from: &Path, to: &Path) -> Result<f64> {
    let mut command = Command::new("rsync");
    command.args(["--inplace", "--no-whole-file", "--block-size=4096", "--stats", "--no-human-readable"]);
    // Same size and same second look unchanged to its quick check.
    command.arg("--ignore-times").arg(from).arg(to).env("LC_ALL", "C");
    let text = output(command)?;
    let told = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("rsync tells no bytes")?;
        Ok(line.trim().replace(',', "").parse()?)
    };
    Ok(told("Total bytes sent:")? + told("Total bytes received:")?)
}

fn peers(place: &Place) -> Result<Vec<Peer>> {
    let borg = Peer { name: "borg 64K", repository: place.path("borg"), backup: borg };
    let restic = Peer { name: "restic", repository: place.path("restic"), backup: restic };
    let mut init = Command::new("borg");
    init.args(["init", "--encryption=repokey-blake2"]).arg(&borg.repository);
    output(with_secrets(init, place))?;
    let mut init = Command::new("restic");
    init.args(["init", "--quiet", "--no-cache", "--repo"]).arg(&restic.repository);
    output(with_secrets(init, place))?;
    Ok(vec![borg, restic])
}

/// The repositories live as long as the measurement, so their pass phrase is no secret.
fn with_secrets(mut command: Command, place: &Place) -> Command {
    command.env("BORG_PASSPHRASE", "bench").env("RESTIC_PASSWORD", "bench");
    command.env("BORG_BASE_DIR", place.path("borg-home"));
    command
}

fn borg(repository: &Path, image: &Path) -> Command {
    let mut command = Command::new("borg");
    command.args([
        "create",
        "--chunker-params=fixed,65536",
        "--compression=zstd,1",
        "--files-cache=disabled",
    ]);
    command.arg(format!("{}::{{now:%Y%m%d%H%M%S%f}}", repository.display())).arg(image);
    command.env("BORG_PASSPHRASE", "bench");
    command.env("BORG_BASE_DIR", repository.with_file_name("borg-home"));
    command
}

fn restic(repository: &Path, image: &Path) -> Command {
    let mut command = Command::new("restic");
    command.args(["backup", "--quiet", "--no-cache", "--force", "--repo"]).arg(repository).arg(image);
    command.env("RESTIC_PASSWORD", "bench");
    command
}
