//! Async shells around the pure machines. No decision is taken here that a machine could take.

pub mod nbd_server;
