//! P8 and P15: a disk of 1 TiB with 20 million extents and 1 000 points, opened from a local store.
//!
//! The work is `engine/redoubt/examples/index_cost.rs`: it fills a vault once, then each round is a process that
//! opens the newest point, looks blocks up, opens the oldest point and prints one line of JSON. The files
//! may be in the page cache: what is measured is what the reader asks for, not the disk.

use super::figure::{Figure, Goal, median, number};
use crate::command::{cargo, output};
use anyhow::{Context, Result};
use serde::Deserialize;

/// One process.
#[derive(Deserialize)]
struct Round {
    newest_ms: f64,
    oldest_ms: f64,
    lookup_us: f64,
    cold_us: f64,
    resident_mib: f64,
}

/// P8, P15.
pub(super) fn index(rounds: usize) -> Result<Vec<Figure>> {
    let place = super::place::Place::new("p15")?;
    let directory = place.path("vault");
    let example = |what: &str| {
        let mut example =
            cargo(&["run", "--release", "--quiet", "-p", "redoubt", "--example", "index_cost", "--", what]);
        example.arg(&directory);
        output(example)
    };
    example("fill")?;
    let mut told = Vec::new();
    for _ in 0..rounds {
        let line = example("measure")?;
        told.push(serde_json::from_str::<Round>(line.trim()).with_context(|| line.clone())?);
    }
    let all = |value: fn(&Round) -> f64| told.iter().map(value).collect::<Vec<_>>();
    let of = |value: fn(&Round) -> f64| number(median(&all(value)));
    let both = format!("newest {}, oldest {} ms", of(|round| round.newest_ms), of(|round| round.oldest_ms));
    let figure = |bar, what: &str, unit, value: fn(&Round) -> f64, goal, sides: &str| Figure {
        bar,
        what: what.to_owned(),
        unit,
        values: all(value),
        goal: Goal::AtMost(goal),
        sides: sides.to_owned(),
    };
    let loads = format!("with blocks to load: {} us", of(|round| round.cold_us));
    Ok(vec![
        figure(
            "P8",
            "open to first 4 KiB, newest of 1 000 points",
            "ms",
            |round| round.newest_ms,
            100.0,
            &both,
        ),
        figure(
            "P8",
            "open to first 4 KiB, oldest of 1 000 points",
            "ms",
            |round| round.oldest_ms,
            100.0,
            &both,
        ),
        figure("P15", "lookup of 4 KiB among 20 M extents", "us", |round| round.lookup_us, 10.0, &loads),
        figure(
            "P15",
            "memory of a reader that looked everywhere",
            "MiB",
            |round| round.resident_mib,
            256.0,
            "",
        ),
    ])
}
