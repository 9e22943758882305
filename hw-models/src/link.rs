//! One direction of a link.

use crate::disk::grouped;
use crate::{Quantiles, Source};
use serde::Deserialize;
use std::fmt;

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkModel {
    /// Transfer rate, in bytes per second.
    pub bytes_per_second: u64,
    /// Bytes in flight or queued before the sender has to wait.
    pub queue_bytes: u64,
    /// Pieces lost and sent again, in parts per million.
    pub loss_ppm: u32,
    /// One-way delay, in microseconds.
    pub delay_us: Quantiles,
    /// Provenance of all of the above.
    pub source: Source,
}

impl LinkModel {
    /// Returns the link with its rate and its queue divided by a factor, each at least 1. Delays and losses stay.
    pub fn divided(&self, by: u64) -> LinkModel {
        let part = |value: u64| (value / by.max(1)).max(1);
        LinkModel {
            bytes_per_second: part(self.bytes_per_second),
            queue_bytes: part(self.queue_bytes),
            ..self.clone()
        }
    }

    /// Names what makes no sense. None if all does.
    pub fn fault(&self) -> Option<&'static str> {
        let checks = [
            (self.bytes_per_second > 0, "bytes_per_second is at least 1"),
            (self.queue_bytes > 0, "queue_bytes is at least 1"),
            (self.loss_ppm <= 500_000, "loss_ppm is at most 500000: beyond it nothing arrives"),
            (self.delay_us.is_rising(), "quantiles never fall: min <= p50 <= p90 <= p99 <= p99_9 <= max"),
        ];
        checks.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}

/// As its file.
impl fmt::Display for LinkModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bytes_per_second = {}", grouped(self.bytes_per_second))?;
        writeln!(f, "queue_bytes      = {}", grouped(self.queue_bytes))?;
        writeln!(f, "loss_ppm         = {}", grouped(u64::from(self.loss_ppm)))?;
        writeln!(f, "delay_us = {}\n", self.delay_us)?;
        write!(f, "{}", self.source)
    }
}
