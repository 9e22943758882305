//! Protected disks: image files and block devices, through the page cache.
//!
//! The page cache plays the part of a disk's volatile cache: it survives a crash of this process,
//! not a loss of power, exactly the model of `redoubt_ports::disk`.
//!
//! What is *not* here: the order of overlapping operations (the splitter serialises them).

use crate::blocking;
use crate::disk_io::{INLINE_BYTES_MAX, data_runs, read_cached, read_fully, write_fully, zero_range};
use crate::errors::failed;
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use redoubt_ports::{Disk, DiskInfo, Disks, IoError, IoKind};
use rustix::fs::{FlockOperation, OFlags};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Smallest write that the page cache takes without reading first.
const PAGE_BYTES: u32 = 4096;

/// Disks of this host; a name is a path.
#[derive(Debug, Clone, Copy)]
pub struct HostDisks;

#[async_trait]
impl Disks for HostDisks {
    async fn open(&self, name: &str, read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        let name = name.to_owned();
        blocking::run(move || Ok(Arc::new(HostDisk::open(&name, read_only)?) as Arc<dyn Disk>)).await
    }
}

/// One open image file or block device, locked for this value.
#[derive(Debug)]
pub struct HostDisk {
    name: String,
    file: Arc<File>,
    is_device: bool,
    read_only: bool,
    physical_sector_bytes: u32,
    sectors: AtomicU64,
}

impl HostDisk {
    /// Opens and locks it: exclusively, or shared with other readers if `read_only`.
    /// `NotFound`, `Denied`, `Busy` (another process holds it) and `Unsupported` (no disk, or a
    /// size that is no multiple of a sector) tell the caller what to ask the user for.
    pub fn open(name: &str, read_only: bool) -> Result<HostDisk, IoError> {
        let what = || format!("open disk {name}");
        let path_type = std::fs::metadata(name).map_err(|e| failed(what(), e))?.file_type();
        if !path_type.is_file() && !path_type.is_block_device() {
            let detail = "it is neither an image file nor a block device";
            return Err(IoError::new(IoKind::Unsupported, what(), detail));
        }
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(!read_only);
        if path_type.is_block_device() && !read_only {
            // The kernel refuses a device that is mounted or otherwise taken.
            options.custom_flags(OFlags::EXCL.bits() as i32);
        }
        let file = options.open(name).map_err(|e| failed(what(), e))?;
        let mode = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match rustix::fs::flock(&file, mode) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(IoError::new(IoKind::Busy, what(), "another process uses this disk"));
            }
            Err(error) => return Err(failed(what(), error)),
        }
        // Seeking to the end gives the size of files and devices alike.
        let bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|e| failed(what(), e))?;
        if bytes == 0 || bytes % SECTOR_BYTES != 0 {
            let detail = format!(
                "its size is {bytes} bytes, not a multiple of the {SECTOR_BYTES}-byte sector; \
                 `truncate -s %{SECTOR_BYTES} {name}` rounds an image up"
            );
            let detail = if bytes == 0 { "its size is zero".to_owned() } else { detail };
            return Err(IoError::new(IoKind::Unsupported, what(), detail));
        }
        let is_device = path_type.is_block_device();
        let physical_sector_bytes = if is_device {
            rustix::fs::ioctl_blkpbszget(&file).unwrap_or(PAGE_BYTES).clamp(512, PAGE_BYTES)
        } else {
            PAGE_BYTES
        };
        Ok(HostDisk {
            name: name.to_owned(),
            file: Arc::new(file),
            is_device,
            read_only,
            physical_sector_bytes,
            sectors: AtomicU64::new(bytes / SECTOR_BYTES),
        })
    }

    fn check(&self, operation: &str, extent: Extent) -> Result<(), IoError> {
        let size = self.sectors.load(Ordering::Acquire);
        if extent.lba.0.checked_add(extent.sectors.0).is_none_or(|end| end > size) {
            let detail = format!("the disk ends at sector {size}");
            return Err(IoError::new(IoKind::OutOfRange, self.what(operation, extent), detail));
        }
        Ok(())
    }

    fn check_change(&self, operation: &str, extent: Extent) -> Result<(), IoError> {
        if self.read_only {
            let what = self.what(operation, extent);
            return Err(IoError::new(IoKind::Denied, what, "the disk was opened for reading only"));
        }
        self.check(operation, extent)
    }

    fn what(&self, operation: &str, extent: Extent) -> String {
        format!("{operation} {extent} of {}", self.name)
    }
}

#[async_trait]
impl Disk for HostDisk {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            sectors: Sectors(self.sectors.load(Ordering::Acquire)),
            physical_sector_bytes: self.physical_sector_bytes,
            can_trim: true,
        }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.check("read", extent)?;
        let (offset, length) = (extent.lba.bytes(), extent.bytes() as usize);
        if length <= INLINE_BYTES_MAX
            && let Some(bytes) = read_cached(&self.file, offset, length)
        {
            return Ok(bytes);
        }
        let (file, what) = (self.file.clone(), self.what("read", extent));
        blocking::run(move || {
            let bytes = read_fully(&file, offset, length).map_err(|e| failed(&what, e))?;
            if bytes.len() < length {
                let detail = "the disk is shorter than it was when it was opened";
                return Err(IoError::new(IoKind::Device, what, detail));
            }
            Ok(bytes)
        })
        .await
    }

    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), IoError> {
        self.check_change("write", extent)?;
        if payload.len() as u64 != extent.bytes() {
            let detail = format!("{} bytes given", payload.len());
            return Err(IoError::new(IoKind::OutOfRange, self.what("write", extent), detail));
        }
        let offset = extent.lba.bytes();
        if payload.len() <= INLINE_BYTES_MAX && !durable {
            return write_fully(&self.file, offset, &[payload], false)
                .map_err(|e| failed(self.what("write", extent), e));
        }
        let (file, what) = (self.file.clone(), self.what("write", extent));
        blocking::run(move || write_fully(&file, offset, &[payload], durable).map_err(|e| failed(what, e)))
            .await
    }

    async fn write_zeroes(&self, extent: Extent, unmap: bool, durable: bool) -> Result<(), IoError> {
        self.check_change("write zeroes to", extent)?;
        let (file, what) = (self.file.clone(), self.what("write zeroes to", extent));
        let (offset, length) = (extent.lba.bytes(), extent.bytes());
        blocking::run(move || zero_range(&file, offset, length, unmap, durable).map_err(|e| failed(what, e)))
            .await
    }

    async fn flush(&self) -> Result<(), IoError> {
        if self.read_only {
            return Ok(());
        }
        let (file, what) = (self.file.clone(), format!("flush {}", self.name));
        blocking::run(move || file.sync_data().map_err(|e| failed(what, e))).await
    }

    async fn resize(&self, sectors: Sectors) -> Result<(), IoError> {
        let what = format!("resize {} to {} sectors", self.name, sectors.0);
        if self.is_device || self.read_only || sectors.0 == 0 {
            let detail = "only writable image files change their size, and never to zero";
            return Err(IoError::new(IoKind::Unsupported, what, detail));
        }
        let file = self.file.clone();
        blocking::run(move || {
            file.set_len(sectors.bytes()).and_then(|()| file.sync_data()).map_err(|e| failed(what, e))
        })
        .await?;
        self.sectors.store(sectors.0, Ordering::Release);
        Ok(())
    }

    async fn stamp(&self) -> Result<Option<u128>, IoError> {
        if self.is_device {
            return Ok(None);
        }
        let (file, what) = (self.file.clone(), format!("ask when {} changed", self.name));
        let changed = blocking::run(move || file.metadata().map_err(|e| failed(what, e))).await?;
        Ok(Some((changed.mtime() as u128) << 32 | changed.mtime_nsec() as u128))
    }

    async fn data_extents(&self, extent: Extent) -> Result<Vec<Extent>, IoError> {
        self.check("ask for data in", extent)?;
        let (file, what) = (self.file.clone(), self.what("ask for data in", extent));
        blocking::run(move || data_runs(&file, extent).map_err(|e| failed(what, e))).await
    }
}
