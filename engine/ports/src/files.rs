//! Small files of a role: spill, stage, activity log, state.
//!
//! Model: file content is durable after [`File::sync`]; a *name* (created, renamed, removed) is
//! durable only after [`Files::sync_dir`]. Before that, power loss may keep or lose each of them
//! independently. A process crash loses nothing that a call returned for.

use crate::IoError;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist.
    Existing,
    /// It must not exist.
    CreateNew,
    /// Either.
    CreateOrOpen,
}

/// One flat directory. Names are plain file names without a separator.
#[async_trait]
pub trait Files: Send + Sync {
    /// Opens a file for reading and writing.
    async fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn File>, IoError>;

    /// Returns the names present, sorted.
    async fn list(&self) -> Result<Vec<String>, IoError>;

    /// Renames a file over another one, atomically for readers.
    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError>;

    /// Removes a name; missing is fine.
    async fn remove(&self, name: &str) -> Result<(), IoError>;

    /// Makes all earlier creations, renames and removals of this directory durable.
    async fn sync_dir(&self) -> Result<(), IoError>;

    /// Returns the bytes that can still be written, or `None` if unknown.
    async fn free_bytes(&self) -> Result<Option<u64>, IoError>;

    /// Takes the directory for this process until the value is dropped or the process ends.
    /// `IoKind::Busy` if another process holds it.
    async fn lock(&self) -> Result<Box<dyn std::any::Any + Send + Sync>, IoError>;
}

/// One open file. A length of zero says nothing special, hence no `is_empty`.
#[allow(clippy::len_without_is_empty)]
#[async_trait]
pub trait File: Send + Sync {
    /// Reads up to `length` bytes; shorter only at the end of the file.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, IoError>;

    /// Writes the parts one after another from `offset`, growing the file as needed.
    async fn write_at(&self, offset: u64, parts: &[Bytes]) -> Result<(), IoError>;

    /// Returns the length in bytes.
    async fn len(&self) -> Result<u64, IoError>;

    /// Cuts or grows (with zeros) the file.
    async fn set_len(&self, length: u64) -> Result<(), IoError>;

    /// Makes content and length durable. After an error nothing since the last success is known
    /// to be durable, and a later success proves nothing about it.
    async fn sync(&self) -> Result<(), IoError>;
}
