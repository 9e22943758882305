//! What fio writes with `--output-format=json+`, as far as a fit reads it.

use super::FitError;
use crate::CERTAIN;
use serde::Deserialize;
use std::collections::BTreeMap;

/// All that fio wrote.
#[derive(Deserialize)]
pub(super) struct Output {
    #[serde(rename = "global options", default)]
    options: BTreeMap<String, String>,
    jobs: Vec<Job>,
}

/// One job and what it measured.
#[derive(Deserialize)]
pub(super) struct Job {
    #[serde(rename = "job options", default)]
    options: BTreeMap<String, String>,
    pub(super) read: Direction,
    pub(super) write: Direction,
    sync: Sync,
}

/// What was read, or what was written.
#[derive(Deserialize)]
pub(super) struct Direction {
    pub(super) total_ios: u64,
    pub(super) bw_bytes: f64,
    pub(super) iops: f64,
    clat_ns: Times,
}

/// What was flushed.
#[derive(Deserialize)]
struct Sync {
    #[serde(default)]
    total_ios: u64,
    lat_ns: Option<Times>,
}

/// A histogram: nanoseconds and how many requests took them.
#[derive(Deserialize)]
pub(super) struct Times {
    min: u64,
    max: u64,
    #[serde(default)]
    bins: BTreeMap<String, u64>,
}

/// What a job is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Small requests at random places, one after another.
    Latency,
    /// Large requests.
    Rate,
    /// Small requests at random places, many at once.
    Queue,
}

impl Output {
    pub(super) fn parse(text: &str) -> Result<Output, FitError> {
        // Warnings of fio come before its JSON.
        let json = text.find('{').map_or(text, |start| &text[start..]);
        serde_json::from_str(json).map_err(|error| FitError::Json { tool: "fio", error })
    }

    fn option<'a>(&'a self, job: &'a Job, name: &str) -> Option<&'a str> {
        job.options.get(name).or(self.options.get(name)).map(String::as_str)
    }

    /// Returns how many requests a job had at once.
    pub(super) fn at_once(&self, job: &Job) -> u32 {
        self.option(job, "iodepth").and_then(|depth| depth.parse().ok()).unwrap_or(1)
    }

    /// Returns the bytes of a job's requests.
    pub(super) fn block(&self, job: &Job) -> u64 {
        self.option(job, "bs").and_then(bytes).unwrap_or(4096)
    }

    fn purpose(&self, job: &Job) -> Option<Purpose> {
        let is_random = self.option(job, "rw").is_some_and(|pattern| pattern.starts_with("rand"));
        match (self.block(job), self.at_once(job)) {
            (131_072.., _) => Some(Purpose::Rate),
            (..=16_384, 1) if is_random && job.sync.total_ios == 0 => Some(Purpose::Latency),
            (..=16_384, 2..) if is_random => Some(Purpose::Queue),
            _ => None,
        }
    }

    /// Finds the first job of a purpose that reads, or that writes.
    pub(super) fn find(&self, purpose: Purpose, reads: bool) -> Option<&Job> {
        let does = |job: &&Job| if reads { job.read.total_ios > 0 } else { job.write.total_ios > 0 };
        self.jobs.iter().filter(does).find(|job| self.purpose(job) == Some(purpose))
    }

    /// Finds how long flushes took.
    pub(super) fn flushes(&self) -> Option<&Times> {
        let flushed = self.jobs.iter().filter(|job| job.sync.total_ios > 0);
        flushed.filter_map(|job| job.sync.lat_ns.as_ref()).find(|times| !times.bins.is_empty())
    }
}

impl Direction {
    /// Returns the histogram, if fio wrote one.
    pub(super) fn times(&self) -> Option<&Times> {
        (!self.clat_ns.bins.is_empty()).then_some(&self.clat_ns)
    }
}

impl Times {
    /// Returns the time, in nanoseconds, that this part per million of all requests did not exceed.
    pub(super) fn at(&self, chance: u32) -> u64 {
        if chance == 0 {
            return self.min;
        }
        if chance >= CERTAIN {
            return self.max;
        }
        let mut bins: Vec<(u64, u64)> =
            self.bins.iter().filter_map(|(time, count)| Some((time.parse().ok()?, *count))).collect();
        bins.sort_unstable();
        let all: u64 = bins.iter().map(|(_, count)| count).sum();
        let rank = (u128::from(all) * u128::from(chance)).div_ceil(u128::from(CERTAIN)) as u64;
        let mut seen = 0;
        let reached = bins.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        reached.map_or(self.max, |(time, _)| *time)
    }
}

/// Reads a size as fio writes it: `4k`, `1M`, `65536`. Its units are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_fio_writes_them() {
        assert_eq!(
            (bytes("4k"), bytes("1M"), bytes("512"), bytes("many")),
            (Some(4096), Some(1 << 20), Some(512), None)
        );
    }

    #[test]
    fn a_quantile_counts_requests_not_bins() {
        let bins = [("1000", 90), ("2000", 9), ("10000", 1)].map(|(time, count)| (time.to_owned(), count));
        let times = Times { min: 990, max: 10_100, bins: bins.into() };
        let chances = [0, 500_000, 900_000, 900_001, 990_000, 995_000, CERTAIN];
        assert_eq!(chances.map(|chance| times.at(chance)), [990, 1000, 1000, 2000, 2000, 10_000, 10_100]);
    }
}
