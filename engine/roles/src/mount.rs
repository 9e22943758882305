//! A volume at a recovery point as a disk: what a mount serves and an export copies.
//!
//! - MO-1 The vault is never written: changes live in an overlay file of their own.
//! - MO-2 A read returns what was last written to the overlay, else what the point holds, per sector.
//!
//! What is *not* here: the choice of the point, NBD (`nbd_server::DiskExport` shows this disk).

mod overlay;
mod overlay_log;
mod ranges;

pub use overlay::{OVERLAY_BYTES_MAX_DEFAULT, Overlay, OverlayError};
pub use overlay_log::OverlayOf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use redoubt_core::{Extent, SECTOR_BYTES, Sectors, VolumeIndex};
use redoubt_ports::{Disk, DiskInfo, IoError, IoKind};
use redoubt_vault::{PointView, ReadError};

/// Largest read from the vault at once.
const READ_SECTORS_MAX: u64 = (4 << 20) / SECTOR_BYTES;

/// Writes that file systems do without reading first.
const PHYSICAL_SECTOR_BYTES: u32 = 4096;

/// One volume at one point; with an overlay it takes writes.
pub struct PointDisk {
    view: PointView,
    volume: VolumeIndex,
    sectors: Sectors,
    overlay: Option<Overlay>,
}

impl PointDisk {
    /// Makes the disk; `None` if the point has no such volume.
    pub fn new(view: PointView, volume: VolumeIndex, overlay: Option<Overlay>) -> Option<PointDisk> {
        let sectors = view.volumes().get(&volume)?.sectors;
        Some(PointDisk { view, volume, sectors, overlay })
    }

    fn check(&self, extent: Extent) -> Result<(), IoError> {
        match extent.lba.0.checked_add(extent.sectors.0) {
            Some(end) if end <= self.sectors.0 => Ok(()),
            _ => Err(IoError::new(IoKind::OutOfRange, "point", format!("it has {} sectors", self.sectors.0))),
        }
    }

    async fn change(&self, extent: Extent, payload: Option<Bytes>, durable: bool) -> Result<(), IoError> {
        self.check(extent)?;
        let Some(overlay) = &self.overlay else {
            return Err(IoError::new(IoKind::Denied, "write to point", "it is served for reading only"));
        };
        overlay.change(extent, payload).await?;
        if durable { overlay.flush().await } else { Ok(()) }
    }

    /// Appends what the point itself holds.
    async fn read_below(&self, extent: Extent, image: &mut BytesMut) -> Result<(), IoError> {
        let mut at = extent.lba.0;
        while at < extent.end() {
            let part = Extent::new(at, (extent.end() - at).min(READ_SECTORS_MAX));
            let bytes = self.view.read(self.volume, part).await.map_err(|error| failure(part, &error))?;
            image.extend_from_slice(&bytes);
            at = part.end();
        }
        Ok(())
    }
}

fn failure(extent: Extent, error: &ReadError) -> IoError {
    IoError::new(IoKind::Device, format!("read {extent} of the point"), error.to_string())
}

#[async_trait]
impl Disk for PointDisk {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            sectors: self.sectors,
            physical_sector_bytes: PHYSICAL_SECTOR_BYTES,
            can_trim: self.overlay.is_some(),
        }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.check(extent)?;
        let parts =
            self.overlay.as_ref().map_or_else(|| vec![(extent, false)], |overlay| overlay.parts(extent));
        if let [(only, false)] = parts[..]
            && only.sectors.0 <= READ_SECTORS_MAX
        {
            return self.view.read(self.volume, only).await.map_err(|error| failure(only, &error));
        }
        let mut image = BytesMut::with_capacity(extent.bytes() as usize);
        for (part, is_here) in parts {
            match &self.overlay {
                Some(overlay) if is_here => image.extend_from_slice(&overlay.read(part).await?),
                _ => self.read_below(part, &mut image).await?,
            }
        }
        Ok(image.freeze())
    }

    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), IoError> {
        self.change(extent, Some(payload), durable).await
    }

    async fn write_zeroes(&self, extent: Extent, _unmap: bool, durable: bool) -> Result<(), IoError> {
        self.change(extent, None, durable).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        match &self.overlay {
            Some(overlay) => overlay.flush().await,
            None => Ok(()),
        }
    }

    async fn resize(&self, _sectors: Sectors) -> Result<(), IoError> {
        Err(IoError::new(IoKind::Unsupported, "resize point", "a point keeps its size"))
    }

    async fn data_extents(&self, extent: Extent) -> Result<Vec<Extent>, IoError> {
        self.check(extent)?;
        let held =
            self.view.data_extents(self.volume, extent).await.map_err(|error| failure(extent, &error))?;
        Ok(match &self.overlay {
            Some(overlay) => overlay.data_extents(extent, held),
            None => held,
        })
    }
}
