//! A disk shown as it is, without replication: the yardstick of the benches.
//!
//! Changes that overlap are kept apart by the range lock, which read-modify-write needs (BR-1).

use super::byte_range::{ByteRange, failure, whole_sectors};
use super::export::{BlockRange, Export, ExportError, ExportInfo};
use super::range_lock::RangeLock;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{Disk, IoError};
use std::sync::Arc;

/// An export that is one disk.
pub struct DiskExport {
    disk: Arc<dyn Disk>,
    read_only: bool,
    changes: RangeLock,
}

impl DiskExport {
    /// Shows the disk.
    pub fn new(disk: Arc<dyn Disk>, read_only: bool) -> DiskExport {
        DiskExport { disk, read_only, changes: RangeLock::default() }
    }

    async fn write_bytes(&self, offset: u64, payload: Bytes, fua: bool) -> Result<(), IoError> {
        let Some(extent) = ByteRange::new(offset, payload.len() as u64).covering() else { return Ok(()) };
        let sectors = whole_sectors(&*self.disk, offset, payload).await?;
        self.disk.write(extent, sectors, fua).await
    }

    async fn zero(&self, range: ByteRange, fua: bool, unmap: bool) -> Result<(), IoError> {
        for end in range.torn_ends() {
            self.write_bytes(end.offset, Bytes::from(vec![0; end.length as usize]), fua).await?;
        }
        match range.inner() {
            Some(extent) => self.disk.write_zeroes(extent, unmap, fua).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Export for DiskExport {
    fn info(&self) -> ExportInfo {
        let info = self.disk.info();
        ExportInfo {
            size_bytes: info.sectors.bytes(),
            read_only: self.read_only,
            // All connections share one disk with one cache.
            can_multi_conn: true,
            can_trim: info.can_trim,
            has_fast_zeroes: info.can_trim,
        }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        ByteRange::new(offset, u64::from(length)).read(&*self.disk).await.map_err(|error| failure(&error))
    }

    async fn write(&self, offset: u64, payload: Bytes, fua: bool) -> Result<(), ExportError> {
        let range = ByteRange::new(offset, payload.len() as u64);
        let Some(extent) = range.covering() else { return Ok(()) };
        let _guard = self.changes.acquire(extent).await;
        self.write_bytes(offset, payload, fua).await.map_err(|error| failure(&error))
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        fua: bool,
        may_unmap: bool,
        fast_only: bool,
    ) -> Result<(), ExportError> {
        if fast_only && !self.disk.info().can_trim {
            return Err(ExportError::Unsupported);
        }
        let range = ByteRange::new(offset, length);
        let Some(extent) = range.covering() else { return Ok(()) };
        let _guard = self.changes.acquire(extent).await;
        self.zero(range, fua, may_unmap).await.map_err(|error| failure(&error))
    }

    async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ExportError> {
        // What a trimmed byte reads as is free: sectors covered in part are left alone.
        let Some(extent) = ByteRange::new(offset, length).inner() else { return Ok(()) };
        let _guard = self.changes.acquire(extent).await;
        self.disk.write_zeroes(extent, true, fua).await.map_err(|error| failure(&error))
    }

    async fn flush(&self) -> Result<(), ExportError> {
        self.disk.flush().await.map_err(|error| failure(&error))
    }

    async fn block_status(&self, offset: u64, length: u64) -> Result<Vec<BlockRange>, ExportError> {
        ByteRange::new(offset, length).status(&*self.disk).await.map_err(|error| failure(&error))
    }
}
