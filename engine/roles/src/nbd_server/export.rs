//! What an NBD client can be shown: the [`Export`] and the [`ExportDirectory`] traits.
//!
//! The server has checked every offset and length against the size it read just before the call,
//! so an export sees only ranges inside its size, unless it shrank since: then it answers
//! [`ExportError::OutOfRange`]. Lengths are never zero. Offsets and lengths are bytes without any
//! alignment.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// What an export says of itself; asked again for every request, so it must be cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size now, in bytes.
    pub size_bytes: u64,
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether a flush on one connection covers the writes answered on every other one.
    pub can_multi_conn: bool,
    /// Whether trim is offered.
    pub can_trim: bool,
    /// Whether writing zeroes is always faster than writing data.
    pub has_fast_zeroes: bool,
}

/// A part of the answer to [`Export::block_status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// Length in bytes, not zero.
    pub length: u64,
    /// No space is allocated.
    pub is_hole: bool,
    /// Reads as zeros.
    pub is_zero: bool,
}

/// Why an export did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The range is outside the size as it is now.
    #[error("outside the export")]
    OutOfRange,
    /// The export takes no changes.
    #[error("the export is read-only")]
    ReadOnly,
    /// The storage below is full.
    #[error("no space left below the export")]
    NoSpace,
    /// Only a fast way was wanted and there is none; or the operation is not offered.
    #[error("not supported")]
    Unsupported,
    /// The export is going away; the client should reconnect later.
    #[error("the export is shutting down")]
    ShuttingDown,
    /// The storage below failed; the range holds old or new content, per sector.
    #[error("input or output error: {0}")]
    Io(String),
}

/// A disk as an NBD client sees it. Calls may overlap in time and in range; two overlapping writes
/// in flight take effect in either order, but each as a whole per sector.
#[async_trait]
pub trait Export: Send + Sync {
    /// Returns the description as of now.
    fn info(&self) -> ExportInfo;

    /// Returns a line for people, shown by `nbdinfo`.
    fn description(&self) -> Option<String> {
        None
    }

    /// Reads exactly `length` bytes.
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError>;

    /// Writes the payload; durable on return only if `fua`. The payload is a slice of the
    /// connection's read buffer, which it keeps alive as a whole: copy what is kept for long.
    async fn write(&self, offset: u64, payload: Bytes, fua: bool) -> Result<(), ExportError>;

    /// Makes the range read as zeros, giving space back if `may_unmap` and possible. With
    /// `fast_only` it fails with `Unsupported`, at once and without effect, where it would not be
    /// faster than writing data. Durable on return only if `fua`.
    async fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        fua: bool,
        may_unmap: bool,
        fast_only: bool,
    ) -> Result<(), ExportError>;

    /// Says that the content of the range is no longer wanted; what it reads as afterwards is the
    /// export's choice. Durable on return only if `fua`.
    async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ExportError>;

    /// Makes every write that returned before this call durable, whichever connection sent it.
    async fn flush(&self) -> Result<(), ExportError>;

    /// Describes the range from its start: at least one part, in order, without gaps. It may stop
    /// early or go beyond the end of the range; the server cuts what is too much.
    async fn block_status(&self, offset: u64, length: u64) -> Result<Vec<BlockRange>, ExportError>;
}

/// The exports of a server, by name.
#[async_trait]
pub trait ExportDirectory: Send + Sync {
    /// Finds an export; the empty name asks for the default one. `None`: there is none.
    async fn lookup(&self, name: &str) -> Option<Arc<dyn Export>>;

    /// Returns the names to show, sorted. May be fewer than `lookup` knows.
    async fn list(&self) -> Vec<String>;
}

/// A directory of one export, found by its name and as the default.
pub struct SingleExport {
    name: String,
    export: Arc<dyn Export>,
}

impl SingleExport {
    /// Makes the directory.
    pub fn new(name: impl Into<String>, export: Arc<dyn Export>) -> SingleExport {
        SingleExport { name: name.into(), export }
    }
}

#[async_trait]
impl ExportDirectory for SingleExport {
    async fn lookup(&self, name: &str) -> Option<Arc<dyn Export>> {
        (name.is_empty() || name == self.name).then(|| Arc::clone(&self.export))
    }

    async fn list(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}
