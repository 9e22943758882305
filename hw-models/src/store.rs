//! An object store.

use crate::disk::grouped;
use crate::{Quantiles, Source};
use serde::Deserialize;
use std::fmt;

/// An object store as its clients see it, the way there not counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreModel {
    /// Transfer rate of one request, in bytes per second.
    pub bytes_per_second: u64,
    /// Time of one request before transfer, in microseconds.
    pub request_us: Quantiles,
    /// Provenance of all of the above.
    pub source: Source,
}

impl StoreModel {
    /// Returns the store with its rate divided by a factor, at least 1. Times of requests stay.
    pub fn divided(&self, by: u64) -> StoreModel {
        StoreModel { bytes_per_second: (self.bytes_per_second / by.max(1)).max(1), ..self.clone() }
    }

    /// Names what makes no sense. None if all does.
    pub fn fault(&self) -> Option<&'static str> {
        let checks = [
            (self.bytes_per_second > 0, "bytes_per_second is at least 1"),
            (self.request_us.is_rising(), "quantiles never fall: min <= p50 <= p90 <= p99 <= p99_9 <= max"),
        ];
        checks.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}

/// As its file.
impl fmt::Display for StoreModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bytes_per_second = {}", grouped(self.bytes_per_second))?;
        writeln!(f, "request_us = {}\n", self.request_us)?;
        write!(f, "{}", self.source)
    }
}
