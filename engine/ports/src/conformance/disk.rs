//! What every [`Disk`] must do, faults and loss of power aside. Each implementation runs this suite
//! on fresh disks made by its factory; a broken promise panics with its name.

use crate::{Disk, Disks, IoError, IoKind};
use bytes::Bytes;
use futures::future::{Future, join_all};
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use std::sync::Arc;

/// Size of the disk that the factory makes: enough for data runs to be apart, quick to read whole.
pub const DISK_SECTORS: Sectors = Sectors(8192);

/// Runs the whole suite. The factory makes a new disk of zeros with [`DISK_SECTORS`], held by
/// nobody, and says how to open it.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<dyn Disks>, String)>,
{
    a_disk_has_one_holder(factory().await).await;
    a_read_only_disk_denies_changes(factory().await).await;
    a_missing_disk_is_not_found(factory().await).await;
    written_sectors_read_back(&*open(factory().await).await).await;
    zeroed_and_trimmed_sectors_read_as_zeros(&*open(factory().await).await).await;
    what_lies_outside_is_out_of_range(&*open(factory().await).await).await;
    data_extents_cover_all_data(&*open(factory().await).await).await;
    concurrent_writes_apart_do_not_mix(&*open(factory().await).await).await;
    a_resize_keeps_what_stays_and_adds_zeros(&*open(factory().await).await).await;
}

async fn open((disks, name): (Arc<dyn Disks>, String)) -> Arc<dyn Disk> {
    let disk = disks.open(&name, false).await.expect("a free disk opens");
    assert_eq!(disk.info().sectors, DISK_SECTORS, "the factory makes disks of this size");
    disk
}

fn payload(extent: Extent, fill: u8) -> Bytes {
    Bytes::from(vec![fill; extent.bytes() as usize])
}

async fn write(disk: &dyn Disk, extent: Extent, fill: u8, durable: bool) {
    disk.write(extent, payload(extent, fill), durable).await.expect("a write inside the disk succeeds");
}

/// Asserts that every byte of the extent is `fill`.
async fn holds(disk: &dyn Disk, extent: Extent, fill: u8) {
    let found = disk.read(extent).await.expect("a read inside the disk succeeds");
    assert_eq!(found.len() as u64, extent.bytes(), "a read is never short");
    let wrong = found.iter().position(|byte| *byte != fill);
    assert_eq!(wrong, None, "{extent} is all {fill}");
}

fn kind<T>(result: Result<T, IoError>) -> Option<IoKind> {
    result.err().map(|error| error.kind)
}

async fn a_disk_has_one_holder((disks, name): (Arc<dyn Disks>, String)) {
    let holder = disks.open(&name, false).await.expect("a free disk opens");
    for read_only in [false, true] {
        let second = disks.open(&name, read_only).await;
        assert_eq!(kind(second), Some(IoKind::Busy), "a held disk is busy, read-only: {read_only}");
    }
    drop(holder);
    let reader = disks.open(&name, true).await.expect("a disk is free once its holder is gone");
    assert_eq!(kind(disks.open(&name, false).await), Some(IoKind::Busy), "no writer beside a reader");
    drop(reader);
    assert_eq!(kind(disks.open(&name, false).await), None, "a disk is free once its reader is gone");
}

async fn a_read_only_disk_denies_changes((disks, name): (Arc<dyn Disks>, String)) {
    let disk = disks.open(&name, true).await.expect("a free disk opens for reading");
    let extent = Extent::new(8, 1);
    assert_eq!(kind(disk.write(extent, payload(extent, 1), false).await), Some(IoKind::Denied));
    assert_eq!(kind(disk.write_zeroes(extent, true, false).await), Some(IoKind::Denied));
    assert!(disk.resize(Sectors(DISK_SECTORS.0 * 2)).await.is_err(), "a resize is a change");
    assert_eq!(disk.info().sectors, DISK_SECTORS, "a refused resize changes nothing");
    holds(&*disk, extent, 0).await;
}

async fn a_missing_disk_is_not_found((disks, name): (Arc<dyn Disks>, String)) {
    let missing = disks.open(&format!("{name}-missing"), false).await;
    assert_eq!(kind(missing), Some(IoKind::NotFound), "a disk is never made by opening it");
}

async fn written_sectors_read_back(disk: &dyn Disk) {
    let whole = Extent::new(0, DISK_SECTORS.0);
    holds(disk, whole, 0).await;
    // One sector, a page across page bounds, and more than any implementation does in place.
    for (extent, fill, durable) in
        [(Extent::new(0, 1), 1, false), (Extent::new(13, 8), 2, true), (Extent::new(1001, 2049), 3, false)]
    {
        write(disk, extent, fill, durable).await;
        holds(disk, extent, fill).await;
    }
    disk.flush().await.expect("a flush succeeds");
    write(disk, Extent::new(15, 2), 4, false).await;
    for (extent, fill) in [
        (Extent::new(0, 1), 1),
        (Extent::new(1, 12), 0),
        (Extent::new(13, 2), 2),
        (Extent::new(15, 2), 4),
        (Extent::new(17, 4), 2),
        (Extent::new(21, 980), 0),
        (Extent::new(1001, 2049), 3),
        (Extent::new(3050, DISK_SECTORS.0 - 3050), 0),
    ] {
        holds(disk, extent, fill).await;
    }
    let last = Extent::new(DISK_SECTORS.0 - 1, 1);
    write(disk, last, 5, true).await;
    holds(disk, last, 5).await;
}

async fn zeroed_and_trimmed_sectors_read_as_zeros(disk: &dyn Disk) {
    write(disk, Extent::new(0, 4096), 7, false).await;
    let modes = [(false, false), (false, true), (true, false), (true, true)];
    for (at, (unmap, durable)) in (0..).zip(modes) {
        // Odd bounds: implementations round holes to their blocks and must write the rest.
        let zeroed = Extent::new(at * 1024 + 3, 517);
        disk.write_zeroes(zeroed, unmap, durable).await.expect("zeros inside the disk succeed");
        holds(disk, zeroed, 0).await;
        holds(disk, Extent::new(at * 1024, 3), 7).await;
        holds(disk, Extent::new(zeroed.end(), 1024 - 520), 7).await;
        write(disk, Extent::new(at * 1024 + 100, 1), 8, false).await;
        holds(disk, Extent::new(at * 1024 + 100, 1), 8).await;
    }
}

async fn what_lies_outside_is_out_of_range(disk: &dyn Disk) {
    let last = Extent::new(DISK_SECTORS.0 - 1, 1);
    write(disk, last, 9, false).await;
    let across = Extent::new(DISK_SECTORS.0 - 1, 2);
    for extent in [across, Extent::new(DISK_SECTORS.0, 1), Extent::new(u64::MAX - 1, 1)] {
        let outside = Some(IoKind::OutOfRange);
        assert_eq!(kind(disk.read(extent).await), outside, "read {extent}");
        assert_eq!(kind(disk.write(extent, payload(extent, 1), false).await), outside, "write {extent}");
        assert_eq!(kind(disk.write_zeroes(extent, true, false).await), outside, "zero {extent}");
        assert_eq!(kind(disk.data_extents(extent).await), outside, "data in {extent}");
    }
    holds(disk, last, 9).await;
}

async fn data_extents_cover_all_data(disk: &dyn Disk) {
    let runs = [Extent::new(0, 1), Extent::new(1021, 5), Extent::new(4096, 1024), Extent::new(8191, 1)];
    for run in runs {
        write(disk, run, 6, false).await;
    }
    let trimmed = Extent::new(4096, 512);
    disk.write_zeroes(trimmed, true, false).await.expect("a trim succeeds");
    for asked in [Extent::new(0, DISK_SECTORS.0), Extent::new(1023, 3200), Extent::new(8000, 192)] {
        let told = disk.data_extents(asked).await.expect("a question inside the disk succeeds");
        let mut end = asked.lba.0;
        for extent in &told {
            assert!(extent.lba.0 >= end && extent.sectors.0 > 0, "in order, apart, not empty: {told:?}");
            end = extent.end();
        }
        assert!(end <= asked.end(), "inside what was asked: {told:?}");
        let content = disk.read(asked).await.expect("a read inside the disk succeeds");
        for (sector, bytes) in (asked.lba.0..).zip(content.chunks(SECTOR_BYTES as usize)) {
            let has_data = bytes.iter().any(|byte| *byte != 0);
            let is_told = told.iter().any(|extent| extent.overlaps(Extent::new(sector, 1)));
            assert!(is_told || !has_data, "sector {sector} has data that is not told: {told:?}");
        }
    }
}

async fn concurrent_writes_apart_do_not_mix(disk: &dyn Disk) {
    let extents: Vec<Extent> = (0..64).map(|at| Extent::new(at * 9, 9)).collect();
    join_all(extents.iter().zip(1..).map(|(extent, fill)| write(disk, *extent, fill, fill % 5 == 0))).await;
    for (extent, fill) in extents.iter().zip(1..) {
        holds(disk, *extent, fill).await;
    }
    holds(disk, Extent::new(64 * 9, 100), 0).await;
}

async fn a_resize_keeps_what_stays_and_adds_zeros(disk: &dyn Disk) {
    let size = DISK_SECTORS.0;
    write(disk, Extent::new(0, size), 3, false).await;
    match kind(disk.resize(Sectors(size + 1024)).await) {
        Some(IoKind::Unsupported) => {
            assert_eq!(disk.info().sectors, DISK_SECTORS, "a refused resize changes nothing");
            holds(disk, Extent::new(0, size), 3).await;
            return;
        }
        other => assert_eq!(other, None, "a resize succeeds or is unsupported"),
    }
    assert_eq!(disk.info().sectors, Sectors(size + 1024), "the new size is told at once");
    holds(disk, Extent::new(0, size), 3).await;
    holds(disk, Extent::new(size, 1024), 0).await;
    write(disk, Extent::new(size - 8, 1032), 4, true).await;
    match kind(disk.resize(Sectors(size - 4)).await) {
        Some(IoKind::Unsupported) => return,
        other => assert_eq!(other, None, "a shrink succeeds or is unsupported"),
    }
    let cut = Extent::new(size - 4, 1);
    assert_eq!(kind(disk.read(cut).await), Some(IoKind::OutOfRange), "what was cut off is outside");
    holds(disk, Extent::new(size - 8, 4), 4).await;
    disk.resize(Sectors(size)).await.expect("a disk that grew once grows again");
    holds(disk, Extent::new(size - 4, 4), 0).await;
    holds(disk, Extent::new(0, size - 8), 3).await;
}
