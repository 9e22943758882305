//! A volume at a recovery point as a disk: what a mount serves and an export copies.
//!
//! - MO-1 The vault is never written: changes live in an overlay file of their own.
//! - MO-2 A read returns what was last written to the overlay, else what the point holds, per sector.
//! - MO-3 A read of what cannot be had ends as an error within [`READ_DEADLINE`], never as zeros.
//!
//! What is *not* here: the choice of the point, NBD (`nbd_server::DiskExport` shows this disk), and what is
//! read ahead (`redoubt_core::read_ahead`).

mod cache;
mod cache_book;
mod hydrate;
mod overlay;
mod overlay_log;
mod ranges;
#[cfg(test)]
mod tests;
mod told;

pub use cache::{CACHE_BYTES_DEFAULT, CACHE_BYTES_MIN, CacheStatus, LocalCache};
pub use hydrate::{HydrationState, HydrationStatus};
pub use overlay::{OVERLAY_BYTES_MAX_DEFAULT, Overlay, OverlayError};
pub use overlay_log::OverlayOf;

use crate::tasks::Tasks;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hydrate::{Asked, Hydration};
use redoubt_core::planted::{self, Bug};
use redoubt_core::read_ahead::ReadAhead;
use redoubt_core::{Extent, SECTOR_BYTES, Sectors, VolumeIndex};
use redoubt_ports::{Clock, Disk, DiskInfo, IoError, IoKind};
use redoubt_vault::{PointView, ReadError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use told::Told;

/// Largest read from the vault at once.
const READ_SECTORS_MAX: u64 = (4 << 20) / SECTOR_BYTES;

/// Longest wait for the vault: longer than a store's hiccup, shorter than what guests wait for a disk (30 s).
pub const READ_DEADLINE: Duration = Duration::from_secs(20);
/// Reads ahead at once; more streams than that take turns.
const AHEAD_AT_ONCE: usize = 4;

/// Writes that file systems do without reading first.
const PHYSICAL_SECTOR_BYTES: u32 = 4096;

/// One volume at one point; with an overlay it takes writes.
pub struct PointDisk {
    view: PointView,
    volume: VolumeIndex,
    sectors: Sectors,
    overlay: Option<Overlay>,
    streams: Mutex<ReadAhead>,
    ahead: Arc<Semaphore>,
    asked: Asked,
    told: Told,
    /// Reads ahead and hydration; they end with the mount.
    tasks: Tasks,
}

impl PointDisk {
    /// Makes the disk; `None` if the point has no such volume. By the clock an outage is told once in a while.
    pub fn new(
        view: PointView,
        volume: VolumeIndex,
        overlay: Option<Overlay>,
        clock: Arc<dyn Clock>,
    ) -> Option<PointDisk> {
        let sectors = view.volumes().get(&volume)?.sectors;
        let (streams, ahead) =
            (Mutex::new(ReadAhead::new(sectors.0)), Arc::new(Semaphore::new(AHEAD_AT_ONCE)));
        let (asked, told, tasks) = (Asked::default(), Told::new(clock), Tasks::default());
        Some(PointDisk { view, volume, sectors, overlay, streams, ahead, asked, told, tasks })
    }

    /// Keeps what is read of the vault in a local cache, and reads it from there.
    pub fn with_cache(mut self, cache: Arc<LocalCache>) -> PointDisk {
        self.view = self.view.with_cache(cache);
        self
    }

    /// Begins to bring the whole volume into the cache, behind everything that is asked.
    pub fn hydrate(&self) -> watch::Receiver<HydrationStatus> {
        let (status, told) = watch::channel(HydrationStatus::new(self.sectors.bytes()));
        let (view, volume, asked) = (self.view.clone(), self.volume, self.asked.share());
        self.tasks.spawn(Hydration { view, volume, sectors: self.sectors.0, asked, status }.run());
        told
    }

    /// Reads what the point holds, and starts to read ahead what probably comes next.
    async fn read_point(&self, extent: Extent) -> Result<Bytes, IoError> {
        let next = self.streams.lock().unwrap_or_else(PoisonError::into_inner).read(extent);
        if let Some(next) = next {
            self.read_ahead(next);
        }
        let _asking = self.asked.begin();
        let read = self.view.read(self.volume, extent).await;
        read.map_err(|error| {
            self.told.failed(extent, &error);
            failure(extent, &error)
        })
    }

    /// Bounds how long a client waits (MO-3).
    async fn in_time<T>(
        &self,
        extent: Extent,
        call: impl Future<Output = Result<T, IoError>>,
    ) -> Result<T, IoError> {
        timeout(READ_DEADLINE, call).await.unwrap_or_else(|_| {
            let detail = format!("the vault gave no answer for {} s", READ_DEADLINE.as_secs());
            self.told.away(extent, &detail);
            Err(IoError::new(IoKind::Device, format!("read {extent} of the point"), detail))
        })
    }

    async fn read_parts(&self, extent: Extent) -> Result<Bytes, IoError> {
        let parts =
            self.overlay.as_ref().map_or_else(|| vec![(extent, false)], |overlay| overlay.parts(extent));
        if let [(only, false)] = parts[..]
            && only.sectors.0 <= READ_SECTORS_MAX
        {
            return self.read_point(only).await;
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

    /// Reads ahead unless enough of that is going on; an error is told to who reads the same.
    fn read_ahead(&self, extent: Extent) {
        let Ok(turn) = self.ahead.clone().try_acquire_owned() else { return };
        let (view, volume) = (self.view.clone(), self.volume);
        self.tasks.spawn(async move {
            let _ = timeout(READ_DEADLINE, view.read_ahead(volume, extent)).await;
            drop(turn);
        });
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
            image.extend_from_slice(&self.read_point(part).await?);
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
        let read = self.in_time(extent, self.read_parts(extent)).await;
        if read.is_err() && planted::active(Bug::ZerosForUnread) {
            return Ok(Bytes::from(vec![0; extent.bytes() as usize]));
        }
        read
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
        let held = async {
            self.view.data_extents(self.volume, extent).await.map_err(|error| failure(extent, &error))
        };
        let held = self.in_time(extent, held).await?;
        Ok(match &self.overlay {
            Some(overlay) => overlay.data_extents(extent, held),
            None => held,
        })
    }
}
