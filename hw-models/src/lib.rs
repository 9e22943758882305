//! Hardware models: numbers with a unit and a provenance, used as parameters by the lab.
//!
//! A model is a TOML file under `disk/`, `link/` or `store/`, known by its file name. The unit is part of each key's name, and every
//! model says how its numbers were obtained, so that a report can print it beside each result.
//!
//! What is *not* here: behaviour (`redoubt-sim`) and faults, which belong to a scenario.
#![forbid(unsafe_code)]

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;

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

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Measured => "measured",
            How::Vendor => "vendor",
            How::Assumed => "assumed",
        })
    }
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
    /// Largest extra time of any of these, in microseconds.
    pub jitter_us: u64,
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

/// An object store as its clients see it, the way there not counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreModel {
    /// Time of one request before transfer, in microseconds.
    pub latency_us: u64,
    /// Largest extra time of a request, in microseconds.
    pub jitter_us: u64,
    /// Transfer rate of one request, in bytes per second.
    pub bytes_per_second: u64,
    /// Provenance of all of the above.
    pub source: Source,
}

/// The text is no model; says which key is wrong. Correct the file.
#[derive(Debug, thiserror::Error)]
#[error("not a valid hardware model: {0}")]
pub struct ModelError(#[from] toml::de::Error);

/// Reads a model from the text of its file.
pub fn parse<M: DeserializeOwned>(text: &str) -> Result<M, ModelError> {
    Ok(toml::from_str(text)?)
}

/// Reads only where the numbers of a model come from, whatever it is a model of.
pub fn source(text: &str) -> Result<Source, ModelError> {
    #[derive(Deserialize)]
    struct Any {
        source: Source,
    }
    Ok(parse::<Any>(text)?.source)
}

/// Names and texts of the disks in the tree.
pub const DISKS: [(&str, &str); 2] =
    [("flash", include_str!("../disk/flash.toml")), ("spinning", include_str!("../disk/spinning.toml"))];

/// Names and texts of the links in the tree.
pub const LINKS: [(&str, &str); 3] = [
    ("lan", include_str!("../link/lan.toml")),
    ("wan", include_str!("../link/wan.toml")),
    ("wan-slow", include_str!("../link/wan-slow.toml")),
];

/// Names and texts of the stores in the tree.
pub const STORES: [(&str, &str); 2] =
    [("local", include_str!("../store/local.toml")), ("cloud", include_str!("../store/cloud.toml"))];

/// Finds a model of the tree by name. None if there is no such name.
pub fn find<M: DeserializeOwned>(models: &[(&str, &str)], name: &str) -> Option<Result<M, ModelError>> {
    models.iter().find(|(known, _)| *known == name).map(|(_, text)| parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_in_the_tree_are_valid() {
        for (name, text) in DISKS {
            let disk: DiskModel = parse(text).unwrap();
            assert!([512, 4096].contains(&disk.physical_sector_bytes), "{name}");
            assert!(disk.queue_depth > 0 && disk.bytes_per_second > 0, "{name}");
        }
        for (name, text) in LINKS {
            let link: LinkModel = parse(text).unwrap();
            assert!(link.queue_bytes > 0 && link.bytes_per_second > 0, "{name}");
        }
        for (name, text) in STORES {
            let store: StoreModel = parse(text).unwrap();
            assert!(store.latency_us > 0 && store.bytes_per_second > 0, "{name}");
        }
    }

    #[test]
    fn a_model_is_found_by_its_name() {
        assert_eq!(find::<LinkModel>(&LINKS, "lan").unwrap().unwrap(), parse(LINKS[0].1).unwrap());
        assert!(find::<LinkModel>(&LINKS, "none").is_none());
        assert_eq!(source(LINKS[0].1).unwrap(), parse::<LinkModel>(LINKS[0].1).unwrap().source);
    }

    #[test]
    fn a_model_without_provenance_is_refused() {
        let (text, _) = LINKS[0].1.split_once("[source]").unwrap();
        assert!(parse::<LinkModel>(text).is_err());
    }
}
