//! The NBD server: serves [`Export`]s to clients that others wrote, over the `Net` port.
//!
//! The protocol itself (what a request means, which flags are legal, which errno is sent) is
//! decided in `redoubt-nbd`; what an export does is decided by its owner. Here is only the
//! traffic between the two.

pub mod export;

pub use export::{BlockRange, Export, ExportDirectory, ExportError, ExportInfo, SingleExport};
