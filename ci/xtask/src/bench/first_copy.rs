//! P12: the first copy of a disk into the vault, and what its holes cost.
//!
//! Ours ends when everything is durable in the vault, compressed and encrypted; the peers make a plain copy
//! and flush it.

use super::contestants::{Protected, nbdkit};
use super::figure::{Figure, Goal, median, number};
use super::place::{Fill, Place};
use crate::command::run as run_command;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Content of the image, compressible to a half.
const DATA_MIB: u64 = 1024;
/// Size of the same image with a hole behind its content.
const SPARSE_MIB: u64 = 8 * DATA_MIB;
/// Allowance for a hole of seven times the data: it is to be free.
const HOLE_BAR: f64 = 1.1;

/// P12.
pub(super) fn first_copy(rounds: usize) -> Result<Vec<Figure>> {
    let (mut full, mut sparse, mut by_nbdcopy, mut by_qemu) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let place = Place::new("p12")?;
        let image = place.image("full.img", Fill::Half, DATA_MIB, DATA_MIB)?;
        full.push(protect(&place, "full", &image)?);
        by_nbdcopy.push(nbdcopy(&place, &image)?);
        by_qemu.push(qemu_img(&place, &image)?);
        let image = place.image("sparse.img", Fill::Half, DATA_MIB, SPARSE_MIB)?;
        sparse.push(protect(&place, "sparse", &image)?);
    }
    let speed = |seconds: &[f64]| -> Vec<f64> {
        seconds.iter().map(|seconds| (DATA_MIB << 20) as f64 / 1e6 / seconds).collect()
    };
    let sides = format!(
        "ours {}, nbdcopy {}, qemu-img convert {} MB/s",
        number(median(&speed(&full))),
        number(median(&speed(&by_nbdcopy))),
        number(median(&speed(&by_qemu)))
    );
    Ok(vec![
        Figure {
            bar: "P12",
            what: "first copy of 1 GiB, durable in the vault".to_owned(),
            unit: "MB/s",
            values: speed(&full),
            goal: Goal::AtLeast(500.0),
            sides,
        },
        Figure {
            bar: "P12",
            what: "the same with a hole of 7 GiB: time / time without".to_owned(),
            unit: "",
            values: sparse.iter().zip(&full).map(|(sparse, full)| sparse / full).collect(),
            goal: Goal::AtMost(HOLE_BAR),
            sides: format!("with {} s, without {} s", number(median(&sparse)), number(median(&full))),
        },
    ])
}

/// Protects a disk for the first time and returns the seconds until the vault holds all of it.
fn protect(place: &Place, name: &str, image: &Path) -> Result<f64> {
    let start = Instant::now();
    let protected = Protected::start(place, name, image, "15s", None)?;
    protected.caught_up()?;
    Ok(start.elapsed().as_secs_f64())
}

fn nbdcopy(place: &Place, image: &Path) -> Result<f64> {
    let copy = place.path("nbdcopy.img");
    std::fs::File::create(&copy)?.set_len(DATA_MIB << 20)?;
    let source = nbdkit(place, image, None)?;
    let target_place = Place::new("p12-target")?;
    let target = nbdkit(&target_place, &copy, None)?;
    let uri = |socket: &Path| format!("nbd+unix:///?socket={}", socket.display());
    let start = Instant::now();
    let mut command = Command::new("nbdcopy");
    command.arg("--flush").arg(uri(&source.socket)).arg(uri(&target.socket));
    run_command(command)?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&copy)?;
    Ok(seconds)
}

fn qemu_img(place: &Place, image: &Path) -> Result<f64> {
    let copy = place.path("qemu.img");
    let start = Instant::now();
    let mut command = Command::new("qemu-img");
    // Write-back flushes at the end; the default cache mode would not.
    command.args(["convert", "-t", "writeback", "-f", "raw", "-O", "raw"]).arg(image).arg(&copy);
    run_command(command)?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&copy)?;
    Ok(seconds)
}
