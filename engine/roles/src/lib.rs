//! Async shells around the pure machines. No decision is taken here that a machine could take.

pub mod agent;
pub mod maintainer;
pub mod mount;
pub mod nbd_server;
#[cfg(test)]
mod pipeline_tests;
pub mod process_server;
mod tasks;
#[cfg(test)]
pub mod testing;
