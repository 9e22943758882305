//! The process server against an agent by script: what is acknowledged is in the vault or comes back.
//!
//! Time is paused in every test: a wait costs nothing and ends when nothing else can happen.
#![cfg(not(madsim))]

mod fencing;
mod maintainers;
mod overlap;
mod site;
mod stage;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod vault;
