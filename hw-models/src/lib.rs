//! Hardware models: numbers with a unit and a provenance, used as parameters by the lab.
//!
//! A model is a TOML file under `disk/` or `link/`. The unit is part of each key's name, and every
//! model says how its numbers were obtained, so that a report can print it beside each result.
//!
//! What is *not* here: behaviour (`redoubt-sim`) and faults, which belong to a scenario.
#![forbid(unsafe_code)]

use serde::Deserialize;

/// How the numbers of a model were obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Measured by us on a named device.
    Measured,
    /// Taken from the vendor's data sheet.
    Vendor,
    /// Chosen as plausible; no evidence.
    Assumed,
}

/// Where the numbers of a model come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The kind of evidence.
    pub how: How,
    /// The device, document or reasoning.
    pub note: String,
}

/// A disk: service times and limits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskModel {
    /// Smallest write done without reading, in bytes: 512 or 4096.
    pub physical_sector_bytes: u32,
    /// Time of one read before transfer, in microseconds.
    pub read_latency_us: u64,
    /// Time of one cached write before transfer, in microseconds.
    pub write_latency_us: u64,
    /// Time of a flush, in microseconds.
    pub flush_latency_us: u64,
    /// Transfer rate, in bytes per second.
    pub bytes_per_second: u64,
    /// Operations served at the same time.
    pub queue_depth: u32,
    /// Provenance of all of the above.
    pub source: Source,
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkModel {
    /// One-way delay, in microseconds.
    pub delay_us: u64,
    /// Largest extra delay, in microseconds.
    pub jitter_us: u64,
    /// Transfer rate, in bytes per second.
    pub bytes_per_second: u64,
    /// Bytes in flight or queued before the sender has to wait.
    pub queue_bytes: u64,
    /// Provenance of all of the above.
    pub source: Source,
}

/// The text is no model; says which key is wrong. Correct the file.
#[derive(Debug, thiserror::Error)]
#[error("not a valid hardware model: {0}")]
pub struct ModelError(#[from] toml::de::Error);

impl DiskModel {
    /// Reads a model from the text of its file.
    pub fn parse(text: &str) -> Result<DiskModel, ModelError> {
        Ok(toml::from_str(text)?)
    }
}

impl LinkModel {
    /// Reads a model from the text of its file.
    pub fn parse(text: &str) -> Result<LinkModel, ModelError> {
        Ok(toml::from_str(text)?)
    }
}

/// Text of the model of a flash disk with a volatile cache.
pub const DISK_FLASH: &str = include_str!("../disk/flash.toml");

/// Text of the model of a wide-area link.
pub const LINK_WAN: &str = include_str!("../link/wan.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_in_the_tree_are_valid() {
        let disk = DiskModel::parse(DISK_FLASH).unwrap();
        assert!([512, 4096].contains(&disk.physical_sector_bytes));
        assert!(disk.queue_depth > 0 && disk.bytes_per_second > 0);
        let link = LinkModel::parse(LINK_WAN).unwrap();
        assert!(link.queue_bytes > 0 && link.bytes_per_second > 0);
    }

    #[test]
    fn a_model_without_provenance_is_refused() {
        let (text, _) = LINK_WAN.split_once("[source]").unwrap();
        assert!(LinkModel::parse(text).is_err());
    }
}
