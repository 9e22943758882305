//! Reports of the lab: from a set of runs to one HTML file, JUnit's XML, a log of histograms, the summary of a job and
//! annotations of scenario files.
//!
//! Everything here is a function of a [`RunSet`]: no clock, no file, no network, no order but that of the set.
//! The page asks for nothing outside itself and needs no script.
//!
//! What is *not* here: the engine and the lab, whose crates are never imported; where a set comes from (`cargo sim`).
#![forbid(unsafe_code)]

mod annotations;
pub mod capacity;
mod causes;
mod file;
mod hdr;
mod judge;
mod junit;
mod markdown;
pub mod model;
mod samples;
mod summary;
mod svg;
mod text;
mod view;

pub use annotations::{Annotation, Level, MOST, Place, Places, annotations, code_quality, github};
pub use causes::key;
pub use file::{FileError, merge, read, write};
pub use hdr::hdr_log;
pub use judge::{never_seen, of_scenario, of_set};
pub use junit::junit;
pub use model::RunSet;
pub use samples::Samples;
pub use summary::{invalid_summary, summary};
pub use text::rate;
pub use view::html;
