//! Running roles: what `up`, `agent` and `process-server` are made of.
//!
//! Order of a start: plan, check without changing anything, take what is exclusive (sockets,
//! directory), only then make files. A start that fails leaves nothing new behind it that matters.

pub(crate) mod agent;
mod late_store;
pub(crate) mod server;
pub(crate) mod vault;
