//! Conformance suites: one promise of a port per function, run by every implementation's tests.

pub mod disk;
pub mod files;
pub mod net;
pub mod store;
