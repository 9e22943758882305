//! A volume at a recovery point as a disk: what a mount serves and an export copies.
//!
//! - MO-1 The vault is never written: changes live in an overlay in memory and go with it.
//! - MO-2 A read returns what was last written to the overlay, else what the point holds, per sector.
//!
//! What is *not* here: the choice of the point, NBD (`nbd_server::DiskExport` shows this disk).

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use redoubt_core::{Extent, SECTOR_BYTES, Sectors, VolumeIndex};
use redoubt_ports::{Disk, DiskInfo, IoError, IoKind};
use redoubt_vault::{PointView, ReadError};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Sectors of one overlay block: what file systems write.
const BLOCK_SECTORS: u64 = 8;
const BLOCK_BYTES: usize = (BLOCK_SECTORS * SECTOR_BYTES) as usize;

/// Content an overlay may hold: enough for the repair of any journal, small beside a server's memory.
pub const OVERLAY_BYTES_MAX: u64 = 1 << 30;

/// Largest read from the vault at once.
const READ_SECTORS_MAX: u64 = (4 << 20) / SECTOR_BYTES;

/// Some sectors of a block that differ from the point.
#[derive(Default)]
struct Block {
    /// One bit per sector: it is in the overlay.
    written: u8,
    /// The content; `None` is zeros.
    content: Option<Box<[u8]>>,
}

#[derive(Default)]
struct Overlay {
    blocks: BTreeMap<u64, Block>,
    /// Blocks with content.
    filled: u64,
}

/// One volume at one point; with an overlay it takes writes and forgets them when dropped.
pub struct PointDisk {
    view: PointView,
    volume: VolumeIndex,
    sectors: Sectors,
    overlay: Option<Mutex<Overlay>>,
}

impl PointDisk {
    /// Makes the disk; `None` if the point has no such volume.
    pub fn new(view: PointView, volume: VolumeIndex, has_overlay: bool) -> Option<PointDisk> {
        let sectors = view.volumes().get(&volume)?.sectors;
        let overlay = has_overlay.then(Mutex::default);
        Some(PointDisk { view, volume, sectors, overlay })
    }

    fn check(&self, extent: Extent) -> Result<(), IoError> {
        match extent.lba.0.checked_add(extent.sectors.0) {
            Some(end) if end <= self.sectors.0 => Ok(()),
            _ => Err(IoError::new(IoKind::OutOfRange, "point", format!("it has {} sectors", self.sectors.0))),
        }
    }

    fn change(&self, extent: Extent, payload: Option<&[u8]>) -> Result<(), IoError> {
        self.check(extent)?;
        let Some(overlay) = &self.overlay else {
            return Err(IoError::new(IoKind::Denied, "write to point", "it is served for reading only"));
        };
        overlay.lock().unwrap_or_else(PoisonError::into_inner).change(extent, payload)
    }
}

impl Overlay {
    fn change(&mut self, extent: Extent, payload: Option<&[u8]>) -> Result<(), IoError> {
        let mut at = extent.lba.0;
        while at < extent.end() {
            let (number, skip) = (at / BLOCK_SECTORS, at % BLOCK_SECTORS);
            let count = (BLOCK_SECTORS - skip).min(extent.end() - at);
            let block = self.blocks.entry(number).or_default();
            if payload.is_some() && block.content.is_none() {
                if (self.filled + 1) * BLOCK_BYTES as u64 > OVERLAY_BYTES_MAX {
                    return Err(IoError::new(IoKind::NoSpace, "write to overlay", "the overlay is full"));
                }
                self.filled += 1;
                block.content = Some(vec![0; BLOCK_BYTES].into());
            }
            let range = bytes_of(skip, count);
            match (payload, &mut block.content) {
                (Some(payload), Some(content)) => {
                    content[range].copy_from_slice(&payload[bytes_of(at - extent.lba.0, count)]);
                }
                (None, Some(content)) => content[range].fill(0),
                (_, None) => {}
            }
            (skip..skip + count).for_each(|sector| block.written |= 1 << sector);
            at += count;
        }
        Ok(())
    }

    /// Puts what is in the overlay over an image of the extent.
    fn patch(&self, extent: Extent, image: &mut [u8]) {
        let blocks = extent.lba.0 / BLOCK_SECTORS..extent.end().div_ceil(BLOCK_SECTORS);
        for (number, block) in self.blocks.range(blocks) {
            for sector in (0..BLOCK_SECTORS).filter(|sector| block.written & (1 << sector) != 0) {
                let at = number * BLOCK_SECTORS + sector;
                if at < extent.lba.0 || at >= extent.end() {
                    continue;
                }
                let target = &mut image[bytes_of(at - extent.lba.0, 1)];
                match &block.content {
                    Some(content) => target.copy_from_slice(&content[bytes_of(sector, 1)]),
                    None => target.fill(0),
                }
            }
        }
    }
}

fn bytes_of(first: u64, count: u64) -> std::ops::Range<usize> {
    (first * SECTOR_BYTES) as usize..((first + count) * SECTOR_BYTES) as usize
}

fn failure(extent: Extent, error: &ReadError) -> IoError {
    IoError::new(IoKind::Device, format!("read {extent} of the point"), error.to_string())
}

#[async_trait]
impl Disk for PointDisk {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            sectors: self.sectors,
            physical_sector_bytes: BLOCK_BYTES as u32,
            can_trim: self.overlay.is_some(),
        }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.check(extent)?;
        let mut image = BytesMut::with_capacity(extent.bytes() as usize);
        let mut at = extent.lba.0;
        while at < extent.end() {
            let part = Extent::new(at, (extent.end() - at).min(READ_SECTORS_MAX));
            let bytes = self.view.read(self.volume, part).await.map_err(|error| failure(part, &error))?;
            if part == extent && self.overlay.is_none() {
                return Ok(bytes);
            }
            image.extend_from_slice(&bytes);
            at = part.end();
        }
        if let Some(overlay) = &self.overlay {
            overlay.lock().unwrap_or_else(PoisonError::into_inner).patch(extent, &mut image);
        }
        Ok(image.freeze())
    }

    async fn write(&self, extent: Extent, payload: Bytes, _durable: bool) -> Result<(), IoError> {
        self.change(extent, Some(&payload))
    }

    async fn write_zeroes(&self, extent: Extent, _unmap: bool, _durable: bool) -> Result<(), IoError> {
        self.change(extent, None)
    }

    async fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    async fn resize(&self, _sectors: Sectors) -> Result<(), IoError> {
        Err(IoError::new(IoKind::Unsupported, "resize point", "a point keeps its size"))
    }

    async fn data_extents(&self, extent: Extent) -> Result<Vec<Extent>, IoError> {
        self.check(extent)?;
        let held = self.view.data_extents(self.volume, extent).map_err(|error| failure(extent, &error))?;
        let Some(overlay) = &self.overlay else { return Ok(held) };
        let overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = extent.lba.0 / BLOCK_SECTORS..extent.end().div_ceil(BLOCK_SECTORS);
        let written = overlay.blocks.range(blocks).filter(|(_, block)| block.content.is_some());
        let written =
            written.filter_map(|(n, _)| Extent::new(n * BLOCK_SECTORS, BLOCK_SECTORS).intersection(extent));
        let mut all: Vec<Extent> = held.into_iter().chain(written).collect();
        all.sort();
        let mut merged: Vec<Extent> = Vec::new();
        for next in all {
            match merged.last_mut() {
                Some(last) if next.lba.0 <= last.end() => {
                    last.sectors.0 = last.end().max(next.end()) - last.lba.0;
                }
                _ => merged.push(next),
            }
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_equals_a_plain_byte_array() {
        use proptest::prelude::*;
        let change = (0u64..60, 1u64..20, any::<Option<u8>>());
        proptest!(ProptestConfig::with_cases(64), |(changes in prop::collection::vec(change, 0..40))| {
            let (mut overlay, mut model) = (Overlay::default(), vec![0xEE; 80 * SECTOR_BYTES as usize]);
            for (lba, sectors, byte) in changes {
                let payload = vec![byte.unwrap_or(0); (sectors * SECTOR_BYTES) as usize];
                overlay.change(Extent::new(lba, sectors), byte.map(|_| &payload[..])).unwrap();
                model[bytes_of(lba, sectors)].copy_from_slice(&payload);
            }
            for (lba, sectors) in [(0, 80), (3, 9), (16, 8), (79, 1)] {
                let mut image = vec![0xEE; (sectors * SECTOR_BYTES) as usize];
                overlay.patch(Extent::new(lba, sectors), &mut image);
                prop_assert_eq!(&image[..], &model[bytes_of(lba, sectors)]);
            }
        });
    }
}
