//! A protected disk, as the guest's own storage: sectors with a volatile cache.
//!
//! Model: a write that returned is visible to later reads. It is durable only after a later
//! `flush` returned, or if it was asked to be durable. On power loss each unflushed sector
//! independently keeps its old or its new content. After an error the addressed sectors hold the
//! old or the new content, per sector.

use crate::{IoError, IoKind};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Extent, Sectors};
use std::sync::Arc;

/// Opens disks of this host by name: a path in production, a model's name in the lab.
#[async_trait]
pub trait Disks: Send + Sync {
    /// Opens a disk for exclusive use. `IoKind::Busy` if another process holds it.
    async fn open(&self, name: &str, read_only: bool) -> Result<Arc<dyn Disk>, IoError>;
}

/// What a disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// Size now.
    pub sectors: Sectors,
    /// Smallest write that the device does without reading, in bytes (512 or 4096).
    pub physical_sector_bytes: u32,
    /// Whether space can be given back; if not, a trim is done as a write of zeros.
    pub can_trim: bool,
}

/// One open disk. All extents lie inside the size, or the call fails with `OutOfRange`.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Returns the current description.
    fn info(&self) -> DiskInfo;

    /// Reads the extent.
    async fn read(&self, extent: Extent) -> Result<Bytes, IoError>;

    /// Writes the extent; durable on return only if `durable`.
    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), IoError>;

    /// Makes the extent read as zeros; gives space back if `unmap` and possible.
    async fn write_zeroes(&self, extent: Extent, unmap: bool, durable: bool) -> Result<(), IoError>;

    /// Makes every write that returned before this call durable.
    async fn flush(&self) -> Result<(), IoError>;

    /// Changes the size; new sectors read as zeros. `Unsupported` for devices of fixed size.
    async fn resize(&self, sectors: Sectors) -> Result<(), IoError>;

    /// Returns something that stays the same as long as nobody changes the disk, whether it is open here or not, such
    /// as an image file's time of change. `None`: the host keeps no such thing.
    async fn stamp(&self) -> Result<Option<u128>, IoError> {
        Ok(None)
    }

    /// Returns the parts of the extent that may hold data, in order; what lies between reads as
    /// zeros. The default says that everything may.
    async fn data_extents(&self, extent: Extent) -> Result<Vec<Extent>, IoError> {
        let size = self.info().sectors.0;
        if extent.lba.0.checked_add(extent.sectors.0).is_none_or(|end| end > size) {
            let detail = format!("the disk ends at sector {size}");
            return Err(IoError::new(IoKind::OutOfRange, format!("ask for data in {extent}"), detail));
        }
        Ok(vec![extent])
    }
}
