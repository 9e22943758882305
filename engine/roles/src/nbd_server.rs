//! The NBD server: serves [`Export`]s to clients that others wrote, over the `Net` port.
//!
//! The protocol itself (what a request means, which flags are legal, which errno is sent) is
//! decided in `redoubt-nbd`; what an export does is decided by its owner. Here is only the
//! traffic between the two: `serve` takes connections, `connection` moves bytes and requests,
//! `in_flight` waits for the export.

pub(crate) mod byte_range;
mod connection;
pub mod disk_export;
pub mod export;
mod in_flight;
mod range_lock;
mod serve;

pub use connection::{ConnectionEnd, serve_connection};
pub use disk_export::DiskExport;
pub use export::{BlockRange, Export, ExportDirectory, ExportError, ExportInfo, SingleExport};
pub use serve::serve;
