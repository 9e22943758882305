//! The harness: plays a plan against the unchanged roles and lets the oracles judge.
//!
//! Phases: *safety* (load and faults), *liveness* (faults lifted, everything must converge within a
//! bound), *final* (sources quiesced, bytes compared, each recovery point restored and judged).

pub mod manner;
pub mod objectives;
pub mod outcome;
pub mod record;

#[cfg(madsim)]
mod actions;
#[cfg(madsim)]
mod copies;
#[cfg(madsim)]
mod ear;
#[cfg(madsim)]
mod estate;
#[cfg(madsim)]
mod finale;
#[cfg(madsim)]
mod guests;
#[cfg(madsim)]
mod images;
#[cfg(madsim)]
mod leftovers;
#[cfg(madsim)]
mod live_scrub;
#[cfg(madsim)]
mod liveness;
#[cfg(madsim)]
mod mounts;
#[cfg(madsim)]
mod operator;
#[cfg(madsim)]
mod probe;
#[cfg(madsim)]
mod restore;
#[cfg(madsim)]
mod run;
#[cfg(madsim)]
mod scrubbing;
#[cfg(madsim)]
mod watch;

pub use manner::{Fork, Manner};
pub use outcome::{Outcome, Stats, Verdict};
pub use record::Record;
#[cfg(madsim)]
pub use run::play;
