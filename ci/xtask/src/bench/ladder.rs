//! P6: what a vault writes for each byte that a machine wrote, over 24 hours of the usual ladder with folds on.
//!
//! The work is `engine/redoubt/examples/ladder_cost.rs`; each round is a seed of it, and it prints one line of JSON
//! per load. It counts bytes, so a busy machine gives the same figures as a quiet one. The yardstick is an undo log on
//! the same changes, counted too: nobody who keeps points in that way writes less.

use super::figure::{Figure, Goal, median, number};
use crate::command::{cargo, output};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One load of one seed. Figures without a unit are per byte that the machine wrote.
#[derive(Deserialize)]
struct Round {
    load: String,
    written: f64,
    log: f64,
    seg: f64,
    cseg: f64,
    fold: f64,
    idx: f64,
    cat: f64,
    undo_log: f64,
    /// In bytes.
    ingested: u64,
    disk: u64,
    held_before: u64,
    held_after: u64,
    shown: u64,
    points: u64,
}

/// P6.
pub(super) fn amplification(rounds: usize) -> Result<Vec<Figure>> {
    let mut loads: BTreeMap<String, Vec<Round>> = BTreeMap::new();
    for seed in 1..=rounds {
        let seed = seed.to_string();
        let example =
            ["run", "--release", "--quiet", "-p", "redoubt", "--example", "ladder_cost", "--", &seed];
        for line in output(cargo(&example))?.lines() {
            let round: Round = serde_json::from_str(line).with_context(|| line.to_owned())?;
            loads.entry(round.load.clone()).or_default().push(round);
        }
    }
    Ok(loads.iter().map(|(load, rounds)| figure(load, rounds)).collect())
}

fn figure(load: &str, rounds: &[Round]) -> Figure {
    let all = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let of = |value: fn(&Round) -> f64| number(median(&all(value)));
    let mib = |value: fn(&Round) -> u64| {
        let all: Vec<f64> = rounds.iter().map(|round| (value(round) >> 20) as f64).collect();
        number(median(&all))
    };
    let what = match load {
        "hot" => "four of five writes on a twentieth of the disk",
        "even" => "4 KiB anywhere",
        "log" => "a log around a quarter of the disk, and hot pages",
        _ => "some KiB between two points",
    };
    Figure {
        bar: "P6",
        what: format!("written per byte of a day of the ladder: {what}"),
        unit: "",
        values: all(|round| round.written),
        goal: Goal::AtMost(1.5),
        sides: format!(
            "log and segments {}x, packed anew {}x, folds, index, catalogues {}x; undo log {}x; {} MiB came, of a disk \
             of {} MiB: the vault held {} MiB before and {} MiB after, of which its {} points show {} MiB",
            of(|round| round.log + round.seg),
            of(|round| round.cseg),
            of(|round| round.fold + round.idx + round.cat),
            of(|round| round.undo_log),
            mib(|round| round.ingested),
            mib(|round| round.disk),
            mib(|round| round.held_before),
            mib(|round| round.held_after),
            of(|round| round.points as f64),
            mib(|round| round.shown),
        ),
    }
}
