//! Hardware models: numbers with a unit and a provenance, used as parameters by the lab.
//!
//! A model is a TOML file under `disk/`, `link/` or `store/`, known by its file name. The unit is part of each key's name, and every
//! model says how its numbers were obtained, so that a report can print it beside each result. [`fit`] makes a model of what a
//! benchmark measured and says how far the model is from it; [`show`] draws one as text.
//!
//! What is *not* here: content, draws and waiting (`redoubt-sim`), and faults, which belong to a scenario.
#![forbid(unsafe_code)]

mod clock;
mod disk;
pub mod fit;
mod link;
mod play;
mod quantiles;
pub mod show;
mod store;

pub use clock::{DiskClock, Operation, Service};
pub use disk::{DiskModel, Throttle, WriteCache};
pub use link::LinkModel;
pub use quantiles::{CERTAIN, Quantiles};
pub use store::StoreModel;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;

include!(concat!(env!("OUT_DIR"), "/tree.rs"));

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
        f.pad(match self {
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

/// As it stands in a model's file.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = toml::Value::String(self.note.clone());
        writeln!(f, "[source]\nhow  = \"{}\"\nnote = {note}", self.how)
    }
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

/// Finds a model of the tree by name. None if there is no such name.
pub fn find<M: DeserializeOwned>(models: &[(&str, &str)], name: &str) -> Option<Result<M, ModelError>> {
    models.iter().find(|(known, _)| *known == name).map(|(_, text)| parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_in_the_tree_make_sense() {
        for (name, text) in DISKS {
            assert_eq!(parse::<DiskModel>(text).unwrap().fault(), None, "{name}");
        }
        for (name, text) in LINKS {
            assert_eq!(parse::<LinkModel>(text).unwrap().fault(), None, "{name}");
        }
        for (name, text) in STORES {
            assert_eq!(parse::<StoreModel>(text).unwrap().fault(), None, "{name}");
        }
    }

    #[test]
    fn a_model_is_found_by_its_name() {
        let (name, text) = LINKS[0];
        assert_eq!(find::<LinkModel>(&LINKS, name).unwrap().unwrap(), parse(text).unwrap());
        assert!(find::<LinkModel>(&LINKS, "none").is_none());
        assert_eq!(source(text).unwrap(), parse::<LinkModel>(text).unwrap().source);
    }

    #[test]
    fn a_model_without_provenance_is_refused() {
        let (text, _) = LINKS[0].1.split_once("[source]").unwrap();
        assert!(parse::<LinkModel>(text).is_err());
    }

    #[test]
    fn a_model_that_is_written_is_read_as_the_same() {
        for (_, text) in DISKS {
            let disk: DiskModel = parse(text).unwrap();
            assert_eq!(parse::<DiskModel>(&disk.to_string()).unwrap(), disk);
        }
        for (_, text) in LINKS {
            let link: LinkModel = parse(text).unwrap();
            assert_eq!(parse::<LinkModel>(&link.to_string()).unwrap(), link);
        }
        for (_, text) in STORES {
            let store: StoreModel = parse(text).unwrap();
            assert_eq!(parse::<StoreModel>(&store.to_string()).unwrap(), store);
        }
    }

    #[test]
    fn a_model_that_is_divided_has_other_rates_and_the_same_times() {
        for (name, text) in DISKS {
            let disk: DiskModel = parse(text).unwrap();
            let small = disk.divided(1000);
            assert_eq!(small.fault(), None, "{name}");
            assert_eq!(small.write_bytes_per_second, disk.write_bytes_per_second / 1000, "{name}");
            assert_eq!((small.flush_us, small.queue_depth), (disk.flush_us, disk.queue_depth), "{name}");
            assert_eq!(disk.divided(1), disk, "{name}");
            assert_eq!(disk.divided(u64::MAX).fault(), None, "{name}");
        }
        let link: LinkModel = parse(LINKS[0].1).unwrap();
        let small = link.divided(10);
        assert_eq!(small.bytes_per_second, link.bytes_per_second / 10);
        assert_eq!((small.delay_us, small.loss_ppm), (link.delay_us, link.loss_ppm));
        let store: StoreModel = parse(STORES[0].1).unwrap();
        assert_eq!(store.divided(4).bytes_per_second, store.bytes_per_second / 4);
        assert_eq!(store.divided(4).request_us, store.request_us);
    }

    #[test]
    fn a_number_that_makes_no_sense_is_named() {
        let disk: DiskModel = parse(DISKS[0].1).unwrap();
        let no_queue = DiskModel { queue_depth: 0, ..disk.clone() };
        assert!(no_queue.fault().is_some_and(|fault| fault.contains("queue_depth")));
        let falling = DiskModel { read_us: Quantiles { min: u64::MAX, ..disk.read_us }, ..disk };
        assert!(falling.fault().is_some_and(|fault| fault.contains("never fall")));
    }
}
