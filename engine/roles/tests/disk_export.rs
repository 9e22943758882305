//! The plain export against a byte array: no byte outside a request ever changes.
#![allow(missing_docs)]

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use redoubt_ports::{Disk, DiskInfo, IoError, IoKind};
use redoubt_roles::nbd_server::{BlockRange, DiskExport, Export, ExportError};
use std::ops::Range;
use std::sync::{Arc, Mutex};

const SIZE: usize = 64 << 10;

/// Yields between any two steps, so that requests in flight mix as badly as they can.
struct SlowDisk {
    bytes: Mutex<Vec<u8>>,
    yields: Mutex<ChaCha8Rng>,
    can_trim: bool,
    data: Vec<Extent>,
}

impl SlowDisk {
    fn new(can_trim: bool, data: Vec<Extent>) -> Arc<SlowDisk> {
        let yields = Mutex::new(ChaCha8Rng::seed_from_u64(3));
        Arc::new(SlowDisk { bytes: Mutex::new(vec![0xaa; SIZE]), yields, can_trim, data })
    }

    async fn pause(&self) {
        let count = self.yields.lock().unwrap().next_u32() % 5;
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
    }
}

fn range(extent: Extent) -> Range<usize> {
    let start = usize::try_from(extent.lba.bytes()).unwrap();
    start..start + usize::try_from(extent.bytes()).unwrap()
}

#[async_trait]
impl Disk for SlowDisk {
    fn info(&self) -> DiskInfo {
        let sectors = Sectors(SIZE as u64 / SECTOR_BYTES);
        DiskInfo { sectors, physical_sector_bytes: 512, can_trim: self.can_trim }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.pause().await;
        let bytes = Bytes::copy_from_slice(&self.bytes.lock().unwrap()[range(extent)]);
        self.pause().await;
        Ok(bytes)
    }

    async fn write(&self, extent: Extent, payload: Bytes, _durable: bool) -> Result<(), IoError> {
        self.pause().await;
        self.bytes.lock().unwrap()[range(extent)].copy_from_slice(&payload);
        self.pause().await;
        Ok(())
    }

    async fn write_zeroes(&self, extent: Extent, _unmap: bool, _durable: bool) -> Result<(), IoError> {
        self.pause().await;
        self.bytes.lock().unwrap()[range(extent)].fill(0);
        self.pause().await;
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        Err(IoError::new(IoKind::NoSpace, "flush", "thin pool full"))
    }

    async fn resize(&self, _sectors: Sectors) -> Result<(), IoError> {
        Err(IoError::new(IoKind::Unsupported, "resize", "fixed"))
    }

    async fn data_extents(&self, extent: Extent) -> Result<Vec<Extent>, IoError> {
        Ok(self.data.iter().filter_map(|data| data.intersection(extent)).collect())
    }
}

#[tokio::test]
async fn neighbours_in_one_sector_do_not_lose_each_others_bytes() {
    let disk = SlowDisk::new(true, vec![]);
    let export = DiskExport::new(disk.clone(), false);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut oracle = vec![0xaa; SIZE];
    for _ in 0..60 {
        // Requests in flight at once do not share a byte, but share many sectors.
        let requests = FuturesUnordered::new();
        let mut at = usize::try_from(random.next_u32() % 300).unwrap();
        while at < SIZE - 2000 {
            let length = 1 + (random.next_u32() % 1500) as usize;
            let (value, zeroes) = (random.next_u32() as u8, random.next_u32() % 4 == 0);
            oracle[at..at + length].fill(if zeroes { 0 } else { value });
            let (export, offset) = (&export, at as u64);
            requests.push(async move {
                if zeroes {
                    export.write_zeroes(offset, length as u64, false, true, false).await
                } else {
                    export.write(offset, Bytes::from(vec![value; length]), false).await
                }
            });
            at += length + (random.next_u32() % 3) as usize * 200;
        }
        requests.for_each(|done| async { done.unwrap() }).await;
        assert!(*disk.bytes.lock().unwrap() == oracle);
        let (offset, length) = (random.next_u32() % 5000, 1 + random.next_u32() % 5000);
        let read = export.read(u64::from(offset), length).await.unwrap();
        assert_eq!(read, oracle[offset as usize..(offset + length) as usize]);
    }
}

#[tokio::test]
async fn overlapping_writes_leave_one_of_them_not_a_mixture() {
    let disk = SlowDisk::new(true, vec![]);
    let export = DiskExport::new(disk.clone(), false);
    let requests = FuturesUnordered::new();
    (0..20_u8).for_each(|value| requests.push(export.write(700, Bytes::from(vec![value; 3000]), false)));
    requests.for_each(|done| async { done.unwrap() }).await;
    let bytes = disk.bytes.lock().unwrap();
    assert!(bytes[700..3700].iter().all(|byte| *byte == bytes[700]) && bytes[700] < 20);
    assert!(bytes[..700].iter().chain(&bytes[3700..]).all(|byte| *byte == 0xaa));
}

#[tokio::test]
async fn a_trim_touches_only_whole_sectors() {
    let disk = SlowDisk::new(true, vec![]);
    let export = DiskExport::new(disk.clone(), false);
    export.trim(100, 300, false).await.unwrap();
    export.trim(1000, 1100, false).await.unwrap();
    let bytes = disk.bytes.lock().unwrap();
    let zeros: Vec<_> = (0..SIZE).filter(|at| bytes[*at] == 0).collect();
    assert_eq!(zeros, (1024..2048).collect::<Vec<_>>());
}

#[tokio::test]
async fn block_status_covers_exactly_what_was_asked() {
    let disk = SlowDisk::new(true, vec![Extent::new(2, 2), Extent::new(8, 1)]);
    let export = DiskExport::new(disk, false);
    let part = |length, hole| BlockRange { length, is_hole: hole, is_zero: hole };
    let status = export.block_status(100, 4500).await.unwrap();
    assert_eq!(status, [part(924, true), part(1024, false), part(2048, true), part(504, false)]);
    assert_eq!(export.block_status(1100, 10).await.unwrap(), [part(10, false)]);
    assert_eq!(export.block_status(5000, 5000).await.unwrap(), [part(5000, true)]);
}

#[tokio::test]
async fn a_disk_that_cannot_trim_has_no_fast_zeroes_and_its_errors_keep_their_kind() {
    let export = DiskExport::new(SlowDisk::new(false, vec![]), true);
    let info = export.info();
    assert!(!info.can_trim && !info.has_fast_zeroes && info.read_only && info.size_bytes == SIZE as u64);
    assert_eq!(export.write_zeroes(0, 512, false, true, true).await, Err(ExportError::Unsupported));
    assert_eq!(export.flush().await, Err(ExportError::NoSpace));
}
