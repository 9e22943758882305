//! A disk shown as it is, without replication: the yardstick of the benches.
//!
//! - DE-1 A client's bytes outside the written range never change, though the disk writes whole
//!   sectors: sectors covered in part are read, patched and written under the range lock.

use super::export::{BlockRange, Export, ExportError, ExportInfo};
use super::range_lock::RangeLock;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use redoubt_core::units::SECTOR_BYTES;
use redoubt_core::{Extent, Lba, Sectors};
use redoubt_ports::{Disk, IoError, IoKind};
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

    async fn patch(&self, offset: u64, payload: &[u8], fua: bool) -> Result<(), IoError> {
        let Some(extent) = Extent::covering_bytes(offset, payload.len() as u64) else { return Ok(()) };
        let mut sectors = BytesMut::from(&self.disk.read(extent).await?[..]);
        let start = usize::try_from(offset - extent.lba.bytes()).unwrap_or(usize::MAX);
        sectors[start..start + payload.len()].copy_from_slice(payload);
        self.disk.write(extent, sectors.freeze(), fua).await
    }

    async fn zero(&self, offset: u64, length: u64, fua: bool, unmap: bool) -> Result<(), IoError> {
        const ZEROS: [u8; SECTOR_BYTES as usize] = [0; SECTOR_BYTES as usize];
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(SECTOR_BYTES), end / SECTOR_BYTES * SECTOR_BYTES);
        if first > last {
            // Inside one sector.
            return self.patch(offset, zeros(&ZEROS, length), fua).await;
        }
        self.patch(offset, zeros(&ZEROS, first - offset), fua).await?;
        self.patch(last, zeros(&ZEROS, end - last), fua).await?;
        match inner_extent(offset, length) {
            Some(extent) => self.disk.write_zeroes(extent, unmap, fua).await,
            None => Ok(()),
        }
    }
}

fn zeros(sector: &[u8], length: u64) -> &[u8] {
    &sector[..usize::try_from(length).unwrap_or(usize::MAX)]
}

/// Returns the sectors that lie inside the byte range as a whole.
fn inner_extent(offset: u64, length: u64) -> Option<Extent> {
    let first = offset.div_ceil(SECTOR_BYTES);
    let end = (offset + length) / SECTOR_BYTES;
    (first < end).then(|| Extent { lba: Lba(first), sectors: Sectors(end - first) })
}

fn failure(error: IoError) -> ExportError {
    match error.kind {
        IoKind::OutOfRange => ExportError::OutOfRange,
        IoKind::NoSpace => ExportError::NoSpace,
        IoKind::Unsupported => ExportError::Unsupported,
        _ => ExportError::Io(error.to_string()),
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
        let Some(extent) = Extent::covering_bytes(offset, u64::from(length)) else { return Ok(Bytes::new()) };
        let sectors = self.disk.read(extent).await.map_err(failure)?;
        let start = usize::try_from(offset - extent.lba.bytes()).unwrap_or(usize::MAX);
        Ok(sectors.slice(start..start + length as usize))
    }

    async fn write(&self, offset: u64, payload: Bytes, fua: bool) -> Result<(), ExportError> {
        let length = payload.len() as u64;
        let Some(extent) = Extent::covering_bytes(offset, length) else { return Ok(()) };
        let _guard = self.changes.acquire(extent).await;
        let whole = extent.lba.bytes() == offset && extent.bytes() == length;
        let written = if whole {
            self.disk.write(extent, payload, fua).await
        } else {
            self.patch(offset, &payload, fua).await
        };
        written.map_err(failure)
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
        let Some(extent) = Extent::covering_bytes(offset, length) else { return Ok(()) };
        let _guard = self.changes.acquire(extent).await;
        self.zero(offset, length, fua, may_unmap).await.map_err(failure)
    }

    async fn trim(&self, offset: u64, length: u64, fua: bool) -> Result<(), ExportError> {
        // What a trimmed byte reads as is free: sectors covered in part are left alone.
        let Some(extent) = inner_extent(offset, length) else { return Ok(()) };
        let _guard = self.changes.acquire(extent).await;
        self.disk.write_zeroes(extent, true, fua).await.map_err(failure)
    }

    async fn flush(&self) -> Result<(), ExportError> {
        self.disk.flush().await.map_err(failure)
    }

    async fn block_status(&self, offset: u64, length: u64) -> Result<Vec<BlockRange>, ExportError> {
        let Some(extent) = Extent::covering_bytes(offset, length) else { return Ok(Vec::new()) };
        let data = self.disk.data_extents(extent).await.map_err(failure)?;
        let end = offset + length;
        let mut at = offset;
        let mut ranges = Vec::new();
        for part in data {
            let (start, stop) = (part.lba.bytes().clamp(at, end), (part.end() * SECTOR_BYTES).min(end));
            ranges.push(BlockRange { length: start - at, is_hole: true, is_zero: true });
            ranges.push(BlockRange { length: stop.saturating_sub(start), is_hole: false, is_zero: false });
            at = stop.max(at);
        }
        ranges.push(BlockRange { length: end - at, is_hole: true, is_zero: true });
        ranges.retain(|range| range.length > 0);
        Ok(ranges)
    }
}
