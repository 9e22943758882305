//! A disk: how long it takes, what it lets through, and what a power loss leaves of it.

use crate::{Quantiles, Source};
use serde::Deserialize;
use std::fmt;

/// A disk: service times and limits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskModel {
    /// Smallest write done without reading, in bytes: 512 or 4096.
    pub physical_sector_bytes: u32,
    /// Whether a power loss takes what no flush covered. Not so for disks with power-loss protection.
    pub volatile_cache: bool,
    /// Operations served at the same time.
    pub queue_depth: u32,
    /// Rate of all reads together, in bytes per second.
    pub read_bytes_per_second: u64,
    /// Rate of all writes together, in bytes per second.
    pub write_bytes_per_second: u64,
    /// Time of one read before transfer, in microseconds.
    pub read_us: Quantiles,
    /// Time of one write before transfer, in microseconds.
    pub write_us: Quantiles,
    /// Time of a flush, in microseconds.
    pub flush_us: Quantiles,
    /// A part of the disk that takes writes faster than the rest, until it is full.
    pub write_cache: Option<WriteCache>,
    /// What a cloud lets its customer use of it.
    pub throttle: Option<Throttle>,
    /// Provenance of all of the above.
    pub source: Source,
}

/// Fast room for writes. Once it is full, writes wait until it has drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteCache {
    /// Its size.
    pub bytes: u64,
    /// How fast it empties, in bytes per second.
    pub drains_bytes_per_second: u64,
}

/// Limits of a disk that is sold by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Operations per second in the long run.
    pub operations_per_second: u64,
    /// Operations per second while something is saved up.
    pub peak_operations_per_second: u64,
    /// Operations that may be saved up.
    pub burst_operations: u64,
    /// Bytes per second in the long run.
    pub bytes_per_second: u64,
    /// Bytes that may be saved up. While some are, the disk's own rates hold.
    pub burst_bytes: u64,
}

impl DiskModel {
    /// Returns the disk with its sizes and rates divided by a factor, each at least 1. Times stay.
    pub fn divided(&self, by: u64) -> DiskModel {
        let part = |value: u64| (value / by.max(1)).max(1);
        let cache = |cache: WriteCache| WriteCache {
            bytes: part(cache.bytes),
            drains_bytes_per_second: part(cache.drains_bytes_per_second),
        };
        let throttle = |limits: Throttle| Throttle {
            operations_per_second: part(limits.operations_per_second),
            peak_operations_per_second: part(limits.peak_operations_per_second),
            burst_operations: part(limits.burst_operations),
            bytes_per_second: part(limits.bytes_per_second),
            burst_bytes: part(limits.burst_bytes),
        };
        DiskModel {
            read_bytes_per_second: part(self.read_bytes_per_second),
            write_bytes_per_second: part(self.write_bytes_per_second),
            write_cache: self.write_cache.map(cache),
            throttle: self.throttle.map(throttle),
            ..self.clone()
        }
    }

    /// Names what makes no sense. None if all does.
    pub fn fault(&self) -> Option<&'static str> {
        let rising = [&self.read_us, &self.write_us, &self.flush_us].into_iter().all(Quantiles::is_rising);
        let cache = self.write_cache.is_none_or(|cache| cache.bytes > 0 && cache.drains_bytes_per_second > 0);
        let throttle = self.throttle.is_none_or(|limits| {
            (1..=limits.peak_operations_per_second).contains(&limits.operations_per_second)
                && limits.bytes_per_second > 0
                && limits.burst_operations > 0
                && limits.burst_bytes > 0
        });
        let checks = [
            ([512, 4096].contains(&self.physical_sector_bytes), "physical_sector_bytes is 512 or 4096"),
            ((1..=4096).contains(&self.queue_depth), "queue_depth is 1 to 4096"),
            (self.read_bytes_per_second > 0, "read_bytes_per_second is at least 1"),
            (self.write_bytes_per_second > 0, "write_bytes_per_second is at least 1"),
            (rising, "quantiles never fall: min <= p50 <= p90 <= p99 <= p99_9 <= max"),
            (cache, "numbers of write_cache are at least 1"),
            (throttle, "numbers of throttle are at least 1, and the peak is no less than the rate"),
        ];
        checks.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}

/// As its file.
impl fmt::Display for DiskModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "physical_sector_bytes  = {}", self.physical_sector_bytes)?;
        writeln!(f, "volatile_cache         = {}", self.volatile_cache)?;
        writeln!(f, "queue_depth            = {}", self.queue_depth)?;
        writeln!(f, "read_bytes_per_second  = {}", grouped(self.read_bytes_per_second))?;
        writeln!(f, "write_bytes_per_second = {}", grouped(self.write_bytes_per_second))?;
        writeln!(f, "read_us  = {}", self.read_us)?;
        writeln!(f, "write_us = {}", self.write_us)?;
        writeln!(f, "flush_us = {}", self.flush_us)?;
        if let Some(cache) = self.write_cache {
            writeln!(f, "\n[write_cache]\nbytes = {}", grouped(cache.bytes))?;
            writeln!(f, "drains_bytes_per_second = {}", grouped(cache.drains_bytes_per_second))?;
        }
        if let Some(limits) = self.throttle {
            writeln!(f, "\n[throttle]\noperations_per_second = {}", grouped(limits.operations_per_second))?;
            writeln!(f, "peak_operations_per_second = {}", grouped(limits.peak_operations_per_second))?;
            writeln!(f, "burst_operations = {}", grouped(limits.burst_operations))?;
            writeln!(f, "bytes_per_second = {}", grouped(limits.bytes_per_second))?;
            writeln!(f, "burst_bytes = {}", grouped(limits.burst_bytes))?;
        }
        write!(f, "\n{}", self.source)
    }
}

/// Writes a number in groups of three, as the files do.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}
