//! `hw`: hardware models as tables and curves, and new ones from what a benchmark measured.
//!
//! What is *not* here: how a model is made or drawn (`redoubt-hw-models`).

use super::{INVALID, TOOL, paint};
use crate::codes::USAGE;
use clap::Subcommand;
use redoubt_hw_models::fit::{self, Fit, FitError};
use redoubt_hw_models::{self as hw, DiskModel, LinkModel, StoreModel, show};
use std::fmt::Display;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Lists the models, or draws one: its times as curves and what it can do.
    Show {
        /// Name of a model; all are listed if none is given.
        name: Option<String>,
    },
    /// Prints the jobs with which fio measures all that `hw fit disk` needs.
    Jobs,
    /// Makes a model of what a benchmark measured, and says how far the model is from it.
    #[command(subcommand)]
    Fit(Measured),
}

#[derive(Subcommand)]
pub(super) enum Measured {
    /// A disk, from the jobs of `hw jobs`.
    Disk {
        /// What fio wrote with --output-format=json+
        fio: PathBuf,
        /// What the disk is called: maker, model, where it was measured.
        #[arg(long)]
        called: String,
        /// The disk keeps what it has taken when power fails; no benchmark can see that.
        #[arg(long)]
        power_loss_protection: bool,
        #[command(flatten)]
        to: To,
    },
    /// A link, from ping and iperf3.
    Link {
        /// What `ping -c 500 -i 0.2 HOST` printed.
        #[arg(long)]
        ping: PathBuf,
        /// What `iperf3 -c HOST -t 20 --json` wrote.
        #[arg(long)]
        iperf: PathBuf,
        /// What the link is called: its ends, its provider.
        #[arg(long)]
        called: String,
        #[command(flatten)]
        to: To,
    },
}

#[derive(clap::Args)]
pub(super) struct To {
    /// File of the new model, such as hw-models/disk/mine.toml; printed if none is given.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// `hw`.
pub(super) fn hw(command: Command) -> Result<u8, u8> {
    match command {
        Command::Show { name: None } => list(),
        Command::Show { name: Some(name) } => draw(&name),
        Command::Jobs => {
            print!("{}", fit::JOBS);
            Ok(0)
        }
        Command::Fit(Measured::Disk { fio, called, power_loss_protection, to }) => {
            finish(fit::disk(&read(&fio)?, &called, !power_loss_protection), &fio, &to)
        }
        Command::Fit(Measured::Link { ping, iperf, called, to }) => {
            finish(fit::link(&read(&ping)?, &read(&iperf)?, &called), &ping, &to)
        }
    }
}

fn read(path: &Path) -> Result<String, u8> {
    std::fs::read_to_string(path).map_err(|error| {
        eprintln!("cannot read {}: {error}", path.display());
        TOOL
    })
}

/// Prints a fit's error, and its model to where it belongs.
#[expect(clippy::disallowed_methods, reason = "a tool on a real machine, outside the simulation")]
fn finish<M: Display>(fit: Result<Fit<M>, FitError>, from: &Path, to: &To) -> Result<u8, u8> {
    let fit = fit.map_err(|error| {
        eprintln!("{}: {error}", from.display());
        INVALID
    })?;
    eprintln!("{:<22} {:<6} {:>9} {:>9} {:<4} {:>8}", "", "", "measured", "model", "", "error");
    for check in &fit.checks {
        eprintln!("{check}");
    }
    if let Some((median, worst)) = fit.error() {
        let (job, figure) = (&worst.job, &worst.figure);
        let off = worst.error() * 100.0;
        eprintln!("\nerror: median {:.0} %, worst {off:+.0} % ({job}, {figure})", median * 100.0);
    }
    let text = fit.model.to_string();
    let Some(path) = &to.output else {
        print!("{text}");
        return Ok(0);
    };
    std::fs::write(path, text).map_err(|error| {
        eprintln!("cannot write {}: {error}", path.display());
        TOOL
    })?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    eprintln!("wrote {}; models under hw-models/ are known by their names: {name}", path.display());
    Ok(0)
}

/// Lists all models.
fn list() -> Result<u8, u8> {
    let mut table = paint::table(&["model", "kind", "typical", "1 of 100", "rate", "numbers are"]);
    let mut row = |name: &str, kind: &str, times: &hw::Quantiles, rate: u64, source: &hw::Source| {
        let [typical, seldom] = [times.p50, times.p99].map(show::time);
        table.add_row([name, kind, &typical, &seldom, &show::rate(rate as f64), &source.how.to_string()]);
    };
    for (name, text) in hw::DISKS {
        let model: DiskModel = parsed(name, text)?;
        row(name, "disk, reads", &model.read_us, model.read_bytes_per_second, &model.source);
        row("", "disk, writes", &model.write_us, model.write_bytes_per_second, &model.source);
    }
    for (name, text) in hw::LINKS {
        let model: LinkModel = parsed(name, text)?;
        row(name, "link, one way", &model.delay_us, model.bytes_per_second, &model.source);
    }
    for (name, text) in hw::STORES {
        let model: StoreModel = parsed(name, text)?;
        row(name, "store, a request", &model.request_us, model.bytes_per_second, &model.source);
    }
    println!("{table}");
    println!("`cargo sim hw show NAME` draws one; a scenario's [estate] names disk, link and store.");
    Ok(0)
}

fn parsed<M: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<M, u8> {
    hw::parse(text).map_err(|error| {
        eprintln!("{name}: {error}");
        TOOL
    })
}

/// Draws one model.
fn draw(name: &str) -> Result<u8, u8> {
    let find = |models: &[(&str, &'static str)]| {
        models.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    };
    let (drawing, text) = if let Some(text) = find(&hw::DISKS) {
        (show::disk(&parsed(name, text)?), text)
    } else if let Some(text) = find(&hw::LINKS) {
        (show::link(&parsed(name, text)?), text)
    } else if let Some(text) = find(&hw::STORES) {
        (show::store(&parsed(name, text)?), text)
    } else {
        let all = hw::DISKS.iter().chain(&hw::LINKS).chain(&hw::STORES).map(|(known, _)| *known);
        let near = crate::scenario::nearest(name, all);
        let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        eprintln!("no model has the name {name:?}{hint}\n`cargo sim hw show` lists them");
        return Err(USAGE);
    };
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        println!("{}", line.trim_start_matches(['#', ' ']));
    }
    println!("\n{drawing}");
    if let Ok(source) = hw::source(text) {
        println!("numbers are {}: {}", source.how, source.note);
    }
    Ok(0)
}
