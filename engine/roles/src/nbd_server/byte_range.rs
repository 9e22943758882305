//! A client's bytes against a disk's whole sectors: what a range covers, its torn ends, read-modify-write.
//!
//! - BR-1 A client's bytes outside the written range never change, though the disk writes whole sectors:
//!   sectors covered in part are read, patched and written while the caller keeps other changes away.
//!
//! What is *not* here: keeping others away ([`super::range_lock`], the splitter), the protocol.

use super::export::{BlockRange, ExportError};
use bytes::{Bytes, BytesMut};
use redoubt_core::{Extent, SECTOR_BYTES};
use redoubt_ports::{Disk, IoError, IoKind};

/// Bytes `offset..offset + length` of an export; the server has checked that they lie inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl ByteRange {
    pub(crate) fn new(offset: u64, length: u64) -> ByteRange {
        ByteRange { offset, length }
    }

    fn end(self) -> u64 {
        self.offset + self.length
    }

    /// Returns the sectors that the range touches; `None` if it is empty.
    pub(crate) fn covering(self) -> Option<Extent> {
        Extent::covering_bytes(self.offset, self.length)
    }

    /// Returns the sectors that lie inside the range as a whole.
    pub(crate) fn inner(self) -> Option<Extent> {
        let first = self.offset.div_ceil(SECTOR_BYTES);
        let end = self.end() / SECTOR_BYTES;
        (first < end).then(|| Extent::new(first, end - first))
    }

    /// Returns the parts of the range outside [`ByteRange::inner`]: at most two, each shorter than a sector,
    /// or one inside a sector or over one boundary.
    pub(crate) fn torn_ends(self) -> impl Iterator<Item = ByteRange> {
        let (first, last) = match self.inner() {
            Some(inner) => (inner.lba.bytes(), inner.end() * SECTOR_BYTES),
            None => (self.end(), self.end()),
        };
        let ends =
            [ByteRange::new(self.offset, first - self.offset), ByteRange::new(last, self.end() - last)];
        ends.into_iter().filter(|end| end.length > 0)
    }

    /// Reads the range.
    pub(crate) async fn read(self, disk: &dyn Disk) -> Result<Bytes, IoError> {
        let Some(extent) = self.covering() else { return Ok(Bytes::new()) };
        let sectors = disk.read(extent).await?;
        let skip = (self.offset - extent.lba.bytes()) as usize;
        Ok(sectors.slice(skip..skip + self.length as usize))
    }

    /// Describes the range by the parts of it that hold data.
    pub(crate) async fn status(self, disk: &dyn Disk) -> Result<Vec<BlockRange>, IoError> {
        let Some(extent) = self.covering() else { return Ok(Vec::new()) };
        let (mut at, mut ranges) = (self.offset, Vec::new());
        let mut push = |to: u64, is_zero: bool| {
            let to = to.min(self.end());
            if to > at {
                ranges.push(BlockRange { length: to - at, is_hole: is_zero, is_zero });
                at = to;
            }
        };
        for data in disk.data_extents(extent).await? {
            push(data.lba.bytes(), true);
            push(data.end() * SECTOR_BYTES, false);
        }
        push(self.end(), true);
        Ok(ranges)
    }
}

/// Fills a payload at this offset up to whole sectors with what the disk holds (BR-1).
pub(crate) async fn whole_sectors(disk: &dyn Disk, offset: u64, payload: Bytes) -> Result<Bytes, IoError> {
    let Some(extent) = ByteRange::new(offset, payload.len() as u64).covering() else { return Ok(payload) };
    if extent.bytes() == payload.len() as u64 {
        return Ok(payload);
    }
    let skip = (offset - extent.lba.bytes()) as usize;
    let (sector, sectors) = (SECTOR_BYTES as usize, extent.sectors.0 as usize);
    let is_last_torn = !(skip + payload.len()).is_multiple_of(sector);
    let mut whole = BytesMut::zeroed(extent.bytes() as usize);
    let torn = [(0, skip > 0), (sectors - 1, is_last_torn && (sectors > 1 || skip == 0))];
    for (index, _) in torn.into_iter().filter(|(_, is_torn)| *is_torn) {
        let old = disk.read(Extent::new(extent.lba.0 + index as u64, 1)).await?;
        whole[index * sector..(index + 1) * sector].copy_from_slice(&old);
    }
    whole[skip..skip + payload.len()].copy_from_slice(&payload);
    Ok(whole.freeze())
}

/// Says what a client is told of a disk's error.
pub(crate) fn failure(error: &IoError) -> ExportError {
    match error.kind {
        IoKind::OutOfRange => ExportError::OutOfRange,
        IoKind::NoSpace => ExportError::NoSpace,
        IoKind::Unsupported => ExportError::Unsupported,
        _ => ExportError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemDisk;

    #[test]
    fn a_range_is_its_whole_sectors_and_its_torn_ends() {
        for offset in [0, 1, 10, 511, 512, 513, 1023, 1024] {
            for length in [0, 1, 2, 10, 502, 511, 512, 513, 1014, 1023, 1024, 1025, 1536, 1600] {
                let range = ByteRange::new(offset, length);
                let mut bytes: Vec<u64> = range.torn_ends().flat_map(|end| end.offset..end.end()).collect();
                let inner = range.inner().map(|inner| inner.lba.bytes()..inner.end() * SECTOR_BYTES);
                bytes.extend(inner.into_iter().flatten());
                bytes.sort_unstable();
                assert!(bytes.into_iter().eq(offset..offset + length), "{range:?}");
            }
        }
    }

    #[tokio::test]
    async fn whole_sectors_keep_what_lies_beside_the_payload() {
        let disk = MemDisk::new(8);
        let old: Vec<u8> = (0..8 * SECTOR_BYTES).map(|at| (at % 251) as u8).collect();
        disk.write(Extent::new(0, 8), Bytes::from(old.clone()), false).await.unwrap();
        for (offset, length) in [(0, 512), (0, 10), (10, 20), (500, 24), (511, 514), (512, 700), (1000, 1048)]
        {
            let whole = whole_sectors(&*disk, offset, Bytes::from(vec![255; length])).await.unwrap();
            let first = (offset / SECTOR_BYTES * SECTOR_BYTES) as usize;
            let mut expected = old.clone();
            expected[offset as usize..offset as usize + length].fill(255);
            assert_eq!(whole, expected[first..first + whole.len()], "{length} bytes at {offset}");
            assert_eq!(whole.len() % SECTOR_BYTES as usize, 0);
        }
    }
}
