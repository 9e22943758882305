//! P7: how far the vault is behind a guest that writes steadily, with a point each second.
//!
//! The link is a socket on the same machine, far from saturated: what is measured is the engine's own delay.

use super::contestants::Protected;
use super::figure::{Figure, Goal, median, number, quantile};
use super::fio;
use super::place::{Fill, Place};
use anyhow::Result;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Guest writes of 4 KiB per second: 2 MB/s, the mean of a busy server.
const RATE: u32 = 500;
/// Length of a round.
const SECONDS: u32 = 12;
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// Size of the disk.
const MIB: u64 = 256;

/// P7.
pub(super) fn lag(rounds: usize) -> Result<Vec<Figure>> {
    let place = Place::new("p7")?;
    let disk = place.image("disk.img", Fill::Half, MIB, MIB)?;
    let protected = Protected::start(&place, "up", &disk, "1s", None)?;
    protected.caught_up()?;
    let (mut lags, mut gaps, mut ages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let round = round(&protected)?;
        lags.push(quantile(&round.lags, 0.99));
        gaps.push(quantile(&round.gaps, 0.99));
        ages.push(quantile(&round.ages, 0.99));
    }
    let figure = |what: &str, values: Vec<f64>, goal| Figure {
        bar: "P7",
        what: what.to_owned(),
        unit: "s",
        sides: format!("median of the rounds' p99 {} s", number(median(&values))),
        values,
        goal: Goal::AtMost(goal),
    };
    Ok(vec![
        figure("lag p99: age of the oldest write not staged durably", lags, 1.0),
        // A tenth for the grain of timers.
        figure("a point each second: p99 of the time between two points", gaps, 1.1),
        // One interval and one bar of lag.
        figure("p99 of the age of the newest point in the vault", ages, 2.0),
    ])
}

#[derive(Default)]
struct Round {
    lags: Vec<f64>,
    gaps: Vec<f64>,
    ages: Vec<f64>,
}

fn round(protected: &Protected) -> Result<Round> {
    let mut load = fio::steady(&protected.server.socket, RATE, SECONDS, MIB).spawn()?;
    let (began, start) = (wall_ms(), Instant::now());
    let mut round = Round::default();
    while start.elapsed() < Duration::from_secs(u64::from(SECONDS)) && load.try_wait()?.is_none() {
        let status = protected.status()?;
        round.lags.extend(status.lag_ms.map(|lag| lag as f64 / 1000.0));
        if let Some(point) = status.newest_point {
            round.ages.push(wall_ms().saturating_sub(point.wall_ms) as f64 / 1000.0);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let ended = wall_ms();
    anyhow::ensure!(load.wait()?.success(), "the load failed");
    let points = protected.points()?;
    let within: Vec<u64> = points.into_iter().filter(|wall| (began..=ended).contains(wall)).collect();
    round.gaps = within.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1000.0).collect();
    Ok(round)
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
