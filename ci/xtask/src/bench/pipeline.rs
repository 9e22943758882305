//! P4: the whole pipeline in one process against its parts run alone in the same process.
//!
//! The work is `engine/redoubt/examples/pipeline_cost.rs`; it prints one line of JSON per round.

use super::figure::{Figure, Goal, median, number};
use crate::command::{cargo, output};
use anyhow::{Context, Result};
use serde::Deserialize;

/// One round of the example; speeds in MB of guest payload per second of CPU.
#[derive(Deserialize)]
struct Round {
    pipeline: f64,
    roofline: f64,
    memcpy: f64,
    crc32c: f64,
    zstd: f64,
    aes_gcm: f64,
}

/// P4.
pub(super) fn roofline(rounds: usize) -> Result<Vec<Figure>> {
    let rounds = rounds.to_string();
    let mut example =
        cargo(&["run", "--release", "--quiet", "-p", "redoubt", "--example", "pipeline_cost", "--", &rounds]);
    // Its state and its vault lie where every other contestant's files are.
    let place = super::place::Place::new("p4")?;
    example.arg(place.path(""));
    let mut told = Vec::new();
    for line in output(example)?.lines() {
        told.push(serde_json::from_str::<Round>(line).with_context(|| line.to_owned())?);
    }
    let of = |value: fn(&Round) -> f64| number(median(&told.iter().map(value).collect::<Vec<_>>()));
    Ok(vec![Figure {
        bar: "P4",
        what: "agent to vault, MB per CPU second / roofline".to_owned(),
        unit: "",
        values: told.iter().map(|round| round.pipeline / round.roofline).collect(),
        goal: Goal::AtLeast(0.8),
        sides: format!(
            "pipeline {}, roofline {} MB/s (memcpy {}, crc32c {}, zstd-1 {}, AES-GCM {})",
            of(|round| round.pipeline),
            of(|round| round.roofline),
            of(|round| round.memcpy),
            of(|round| round.crc32c),
            of(|round| round.zstd),
            of(|round| round.aes_gcm),
        ),
    }])
}
