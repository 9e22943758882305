//! A link's model from ping and iperf3.

use super::{Check, Fit, FitError};
use crate::play::Chances;
use crate::{CERTAIN, How, LinkModel, Quantiles, Source};
use serde::Deserialize;

/// Answers to pings that make a distribution.
const ANSWERS_MIN: usize = 50;

/// Room at a link's entrance if iperf3 saw no queue: a few packets.
const QUEUE_MIN: u64 = 65_536;

/// Round trips played on the model.
const PLAYED: usize = 20_000;

/// Chances at which model and measurement are compared: more of them than were fitted.
const COMPARED: [(u32, &str); 6] = [
    (250_000, "p25"),
    (500_000, "p50"),
    (750_000, "p75"),
    (900_000, "p90"),
    (950_000, "p95"),
    (990_000, "p99"),
];

/// What iperf3 writes with `--json`, as far as it is read.
#[derive(Deserialize)]
struct Iperf {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Received,
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Received {
    bits_per_second: f64,
}

#[derive(Deserialize)]
struct Stream {
    sender: Sender,
}

#[derive(Deserialize)]
struct Sender {
    /// In microseconds; Linux senders only.
    #[serde(default)]
    max_rtt: u64,
}

/// What ping printed.
struct Pings {
    /// Round trips in microseconds, shortest first.
    trips: Vec<u64>,
    /// Part of the requests that got no answer.
    lost: f64,
}

impl Pings {
    fn read(text: &str) -> Result<Pings, FitError> {
        let missing = |what: &str| FitError::Missing {
            what: what.to_owned(),
            remedy: "ping -c 500 -i 0.2 HOST > ping.txt, and give the whole of what it prints",
        };
        let mut trips: Vec<u64> = text.lines().filter_map(trip).collect();
        trips.sort_unstable();
        if trips.len() < ANSWERS_MIN {
            return Err(missing(&format!(
                "a delay ({} answers to pings, at least {ANSWERS_MIN} make a distribution)",
                trips.len()
            )));
        }
        let sent = text.lines().find_map(sent).ok_or_else(|| missing("loss (ping's last lines)"))?;
        // Duplicates of an answer are no loss made good.
        let lost = 1.0 - (trips.len() as f64 / sent.max(1) as f64).min(1.0);
        Ok(Pings { trips, lost })
    }

    fn at(&self, chance: u32) -> u64 {
        at(&self.trips, chance)
    }
}

fn at(sorted: &[u64], chance: u32) -> u64 {
    let rank = (sorted.len() as u64 * u64::from(chance)).div_ceil(u64::from(CERTAIN)).max(1);
    sorted.get(rank as usize - 1).copied().unwrap_or_default()
}

/// Reads a round trip: `... time=12.3 ms`.
fn trip(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("time=")?;
    let millis: f64 = rest.split_whitespace().next()?.trim_end_matches("ms").parse().ok()?;
    (millis >= 0.0).then_some((millis * 1000.0).round() as u64)
}

/// Reads how many requests were sent: `500 packets transmitted, ...`.
fn sent(line: &str) -> Option<u64> {
    line.split_once(" packets transmitted")?.0.trim().parse().ok()
}

/// Makes a link's model of what ping and iperf3 measured across it.
///
/// A one-way delay is half a round trip: neither tool can see more. Loss is per piece one way.
pub fn link(ping: &str, iperf: &str, called: &str) -> Result<Fit<LinkModel>, FitError> {
    let pings = Pings::read(ping)?;
    let iperf: Iperf =
        serde_json::from_str(iperf).map_err(|error| FitError::Json { tool: "iperf3 --json", error })?;
    let rate = iperf.end.sum_received.bits_per_second / 8.0;
    if rate < 1.0 {
        let remedy = "iperf3 -c HOST -t 20 --json > iperf.json, and look at its `error`";
        return Err(FitError::Missing { what: "a rate".into(), remedy });
    }
    let loaded = iperf.end.streams.iter().map(|stream| stream.sender.max_rtt).max().unwrap_or(0);
    let queued = loaded.saturating_sub(pings.at(0)) as f64 / 1e6 * rate;
    let model = LinkModel {
        bytes_per_second: rate as u64,
        queue_bytes: (queued as u64).max(QUEUE_MIN),
        loss_ppm: ((1.0 - (1.0 - pings.lost).sqrt()) * f64::from(CERTAIN)).round() as u32,
        delay_us: Quantiles::of(|chance| pings.at(chance) / 2),
        source: Source { how: How::Measured, note: called.to_owned() },
    };
    let [mut there, mut back] = Chances::pair();
    let mut trips: Vec<u64> =
        (0..PLAYED).map(|_| model.delay_us.at(there.next()) + model.delay_us.at(back.next())).collect();
    trips.sort_unstable();
    let check = |(chance, figure): (u32, &str)| Check {
        job: "round trip".to_owned(),
        figure: figure.to_owned(),
        unit: "µs",
        measured: pings.at(chance) as f64,
        model: at(&trips, chance) as f64,
    };
    Ok(Fit { model, checks: COMPARED.into_iter().map(check).collect() })
}
