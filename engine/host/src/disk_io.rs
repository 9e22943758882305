//! System calls on an open file or block device: whole reads and writes, zeros, holes, data runs.
//!
//! What is *not* here: which thread they run on; see `disk` and decision 0004.

use bytes::Bytes;
use redoubt_core::{Extent, SECTOR_BYTES};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};

/// Largest operation done in place on the runtime's thread: a copy into the page cache of this
/// size takes about as long as handing it to another thread (decision 0004).
pub(crate) const INLINE_BYTES_MAX: usize = 128 << 10;

/// Parts of one vectored call; the kernel takes at most 1024.
const PARTS_MAX: usize = 64;

/// Zeros written at once where the device can't make them itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Most data runs told for one question; a more scattered rest counts as data.
const DATA_RUNS_MAX: usize = 4096;

/// Reads exactly `length` bytes, or up to the end of the file.
pub(crate) fn read_fully(file: &File, offset: u64, length: usize) -> Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut done = 0;
    while done < length {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(done);
    Ok(Bytes::from(buffer))
}

/// Reads the whole range if it is in the page cache; `None` if the device would be asked.
pub(crate) fn read_cached(file: &File, offset: u64, length: usize) -> Option<Bytes> {
    let mut buffer = vec![0; length];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(count) if count == length => Some(Bytes::from(buffer)),
        _ => None,
    }
}

/// Writes all parts one after another; durable on return if asked.
pub(crate) fn write_fully(file: &File, offset: u64, parts: &[Bytes], durable: bool) -> Result<()> {
    let mut flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
    let mut sync_after = false;
    let (mut at, mut part, mut skip) = (offset, 0, 0);
    while part < parts.len() {
        if skip == parts[part].len() {
            (part, skip) = (part + 1, 0);
            continue;
        }
        let mut slices = Vec::with_capacity((parts.len() - part).min(PARTS_MAX));
        slices.push(IoSlice::new(&parts[part][skip..]));
        slices.extend(parts[part + 1..].iter().take(PARTS_MAX - 1).map(|p| IoSlice::new(p)));
        let written = if flags.is_empty() {
            rustix::io::pwritev(file, &slices, at)
        } else {
            rustix::io::pwritev2(file, &slices, at, flags)
        };
        match written {
            Ok(0) => return Err(Error::new(ErrorKind::WriteZero, "the device took no bytes")),
            Ok(count) => {
                at += count as u64;
                let mut left = count;
                while left > 0 {
                    let step = left.min(parts[part].len() - skip);
                    (skip, left) = (skip + step, left - step);
                    if skip == parts[part].len() {
                        (part, skip) = (part + 1, 0);
                    }
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL) if !flags.is_empty() => {
                (flags, sync_after) = (ReadWriteFlags::empty(), true);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if sync_after { file.sync_data() } else { Ok(()) }
}

/// Makes the range read as zeros, as a hole if `unmap`, falling back to writes.
pub(crate) fn zero_range(file: &File, offset: u64, length: u64, unmap: bool, durable: bool) -> Result<()> {
    let how = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
    let done = loop {
        match rustix::fs::fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) => break true,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => break false,
            Err(error) => return Err(error.into()),
        }
    };
    if !done {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let step = (end - at).min(ZEROES.len() as u64);
            write_fully(file, at, &[Bytes::from_static(&ZEROES).slice(..step as usize)], false)?;
            at += step;
        }
    }
    if durable { file.sync_data() } else { Ok(()) }
}

/// Returns the runs of the extent that may hold data; the rest are holes.
pub(crate) fn data_runs(file: &File, extent: Extent) -> Result<Vec<Extent>> {
    let (mut at, end) = (extent.lba.bytes(), extent.end() * SECTOR_BYTES);
    let mut runs: Vec<Extent> = Vec::new();
    while at < end {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return Ok(vec![extent]),
        };
        let full = runs.len() + 1 == DATA_RUNS_MAX;
        let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if !full => hole.min(end),
            _ => end,
        };
        let first = (data / SECTOR_BYTES).max(extent.lba.0);
        let last = hole.div_ceil(SECTOR_BYTES).min(extent.end());
        if first < last {
            runs.push(Extent::new(first, last - first));
        }
        at = hole.max(at + 1);
    }
    Ok(runs)
}
