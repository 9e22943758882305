//! The lab: the whole engine under a deterministic simulator.
//!
//! A scenario file and a seed give a plan, drawn up front as data; the harness plays it against the
//! unchanged roles on simulated hosts; the oracles judge what they see against a reference model that
//! knows nothing of the engine.
//!
//! Everything that runs the engine exists only under `--cfg madsim` (alias `cargo sim`). The rest
//! (scenario files, plans, reference model, oracles) is plain code and is tested without it.
//!
//! What is *not* here: real sockets, disks or stores. This crate never imports `redoubt-host`.
#![forbid(unsafe_code)]

pub mod capsule;
pub mod cli;
pub mod codes;
pub mod core_tier;
pub mod cpu;
pub mod date;
pub mod freeze;
pub mod harness;
pub mod lanes;
pub mod oracles;
pub mod plan;
#[cfg(madsim)]
pub mod ports;
pub mod prey;
pub mod scale;
pub mod scenario;
pub mod seeds;
pub mod shrink;
pub mod workload;
