//! Async shells around the pure machines. No decision is taken here that a machine could take.

pub mod agent;
pub mod mount;
pub mod nbd_server;
pub mod process_server;
mod tasks;
