//! P11: proof of a point and comparison for a resync, beside BLAKE3 alone in the same process.
//!
//! The work is `engine/redoubt/examples/hash_cost.rs`; it prints one line of JSON per round.

use super::figure::{Figure, Goal, median, number};
use crate::command::{cargo, output};
use anyhow::{Context, Result};
use serde::Deserialize;

/// One round of the example; speeds in GB of the disk per second of CPU.
#[derive(Deserialize)]
struct Round {
    verify: f64,
    server: f64,
    agent: f64,
    blake3: f64,
}

/// P11.
pub(super) fn hashing(rounds: usize) -> Result<Vec<Figure>> {
    let rounds = rounds.to_string();
    let mut example =
        cargo(&["run", "--release", "--quiet", "-p", "redoubt", "--example", "hash_cost", "--", &rounds]);
    let place = super::place::Place::new("p11")?;
    example.arg(place.path("vault"));
    let mut told = Vec::new();
    for line in output(example)?.lines() {
        told.push(serde_json::from_str::<Round>(line).with_context(|| line.to_owned())?);
    }
    let all = |value: fn(&Round) -> f64| told.iter().map(value).collect::<Vec<_>>();
    let alone = number(median(&all(|round| round.blake3)));
    let figure = |what: &str, value: fn(&Round) -> f64| Figure {
        bar: "P11",
        what: what.to_owned(),
        unit: "GB/s",
        values: all(value),
        goal: Goal::AtLeast(1.0),
        sides: format!("{}, BLAKE3 alone {alone} GB/s of one core", number(median(&all(value)))),
    };
    Ok(vec![
        figure("verify: the second reader proves a point, GB of disk per CPU second", |round| round.verify),
        figure("resync: the process server hashes what the vault holds", |round| round.server),
        figure("resync: the agent hashes the disk", |round| round.agent),
    ])
}
