//! The first part of an overlay file: what it belongs to, and which sectors it holds. Bytes only.
//!
//! ```text
//! sector 0            header: magic, version, machine, marker, volume, sizes, checksum; rest of the page is zero
//! sector 8 ..         log: sectors of up to 30 ranges each, filled one after another
//! sector 8 + log ..   data: sector n of the volume is here at its own distance; holes are zeros
//! ```
//!
//! A log sector: `index u64, durable u64, count u64, count * (lba u64, sectors u64), zeros, crc32c u32` over the
//! header's checksum and the sector, little-endian. `durable` is how many full log sectors were durable before
//! this one was written. Sectors are the unit that survives a loss of power as a whole, old or new.
//!
//! - OL-1 The log ends behind the first sector that is not full. What lies behind the end was never
//!   confirmed, unless it says that more was durable: then a sector was lost, and the log is damaged.
//!
//! What is *not* here: when something is written, and the data (`overlay`).

use redoubt_core::{Extent, MachineId, MarkerId, SECTOR_BYTES, Sectors, VolumeId};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"RDOVRLAY";
const VERSION: u32 = 1;
/// The header has a page of its own.
pub(super) const HEADER_SECTORS: u64 = 8;
const SECTOR: usize = SECTOR_BYTES as usize;
/// Ranges in one log sector.
pub(super) const RANGES_PER_SECTOR: usize = 30;
const FIRST_RANGE: usize = 24;
const CRC_AT: usize = SECTOR - 4;

/// What an overlay belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayOf {
    /// Machine.
    pub machine: MachineId,
    /// Marker of the recovery point.
    pub marker: MarkerId,
    /// Volume.
    pub volume: VolumeId,
    /// Size of the volume at the point.
    pub sectors: Sectors,
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) of: OverlayOf,
    pub(super) log_sectors: u64,
}

/// One sector of the log.
struct LogSector {
    durable: u64,
    ranges: Vec<Range<u64>>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    NotAnOverlay,
    Version(u32),
    Damaged(String),
}

impl Header {
    /// Returns the log's place in the file.
    pub(super) fn log(&self) -> Extent {
        Extent::new(HEADER_SECTORS, self.log_sectors)
    }

    /// Returns the data's place in the file.
    pub(super) fn data(&self) -> Extent {
        Extent::new(HEADER_SECTORS + self.log_sectors, self.of.sectors.0)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.of.machine.0.to_le_bytes());
        bytes.extend(self.of.marker.0.to_le_bytes());
        bytes.extend(self.of.volume.0.to_le_bytes());
        bytes.extend(self.of.sectors.0.to_le_bytes());
        bytes.extend(self.log_sectors.to_le_bytes());
        bytes.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes.resize((HEADER_SECTORS * SECTOR_BYTES) as usize, 0);
        bytes
    }

    /// Reads a header; `None` if the file is fresh or its making was interrupted.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Header>, Unusable> {
        if bytes[..SECTOR].iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if &bytes[..8] != MAGIC {
            return Err(Unusable::NotAnOverlay);
        }
        let version = u32::from_le_bytes(part(bytes, 8));
        if version != VERSION {
            return Err(Unusable::Version(version));
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32::from_le_bytes(part(bytes, CRC_AT)) {
            return Err(Unusable::Damaged("its header has a wrong checksum".to_owned()));
        }
        let of = OverlayOf {
            machine: MachineId(u128::from_le_bytes(part(bytes, 16))),
            marker: MarkerId(u128::from_le_bytes(part(bytes, 32))),
            volume: VolumeId(u128::from_le_bytes(part(bytes, 48))),
            sectors: Sectors(u64::from_le_bytes(part(bytes, 64))),
        };
        Ok(Some(Header { of, log_sectors: u64::from_le_bytes(part(bytes, 72)) }))
    }

    fn seed(&self) -> u32 {
        u32::from_le_bytes(part(&self.encode(), CRC_AT))
    }

    /// Makes the log sector of this index.
    pub(super) fn log_sector(&self, index: u64, durable: u64, ranges: &[Range<u64>]) -> Vec<u8> {
        assert!(ranges.len() <= RANGES_PER_SECTOR, "a log sector holds {RANGES_PER_SECTOR} ranges");
        let mut bytes = Vec::with_capacity(SECTOR);
        for number in [index, durable, ranges.len() as u64] {
            bytes.extend(number.to_le_bytes());
        }
        for range in ranges {
            bytes.extend(range.start.to_le_bytes());
            bytes.extend((range.end - range.start).to_le_bytes());
        }
        bytes.resize(CRC_AT, 0);
        bytes.extend(crc32c::crc32c_append(self.seed(), &bytes).to_le_bytes());
        bytes
    }

    /// Reads one log sector; `None` if it is empty.
    fn read_sector(&self, index: u64, bytes: &[u8]) -> Result<Option<LogSector>, Unusable> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let damaged = |what: &str| Unusable::Damaged(format!("sector {index} of its log {what}"));
        let crc = crc32c::crc32c_append(self.seed(), &bytes[..CRC_AT]);
        if crc != u32::from_le_bytes(part(bytes, CRC_AT)) {
            return Err(damaged("has a wrong checksum"));
        }
        let number = |at: usize| u64::from_le_bytes(part(bytes, at));
        let count = usize::try_from(number(16)).unwrap_or(usize::MAX);
        if number(0) != index || count > RANGES_PER_SECTOR {
            return Err(damaged("is out of place"));
        }
        let range = |n: usize| {
            let (start, sectors) = (number(FIRST_RANGE + 16 * n), number(FIRST_RANGE + 16 * n + 8));
            start.checked_add(sectors).filter(|end| *end <= self.of.sectors.0).map(|end| start..end)
        };
        let ranges: Option<Vec<_>> = (0..count).map(range).collect();
        let ranges = ranges.ok_or_else(|| damaged("names sectors outside the volume"))?;
        Ok(Some(LogSector { durable: number(8), ranges }))
    }
}

/// The log of a file, read sector by sector.
pub(super) struct LogScan {
    header: Header,
    next: u64,
    is_over: bool,
    /// Full sectors so far.
    pub(super) full: u64,
    /// Ranges of the last sector, if it is not full.
    pub(super) last: Vec<Range<u64>>,
}

impl LogScan {
    pub(super) fn new(header: Header) -> LogScan {
        LogScan { header, next: 0, is_over: false, full: 0, last: Vec::new() }
    }

    /// Takes the next sectors of the log, and gives each of its ranges to `found`.
    pub(super) fn take(&mut self, bytes: &[u8], mut found: impl FnMut(Range<u64>)) -> Result<(), Unusable> {
        for sector in bytes.chunks_exact(SECTOR) {
            let read = self.header.read_sector(self.next, sector)?;
            self.next += 1;
            match read {
                None => self.is_over = true,
                Some(read) if self.is_over && read.durable > self.full => {
                    let what = format!("sector {} of its log is missing", self.full);
                    return Err(Unusable::Damaged(what));
                }
                Some(_) if self.is_over => {}
                Some(LogSector { ranges, .. }) => {
                    ranges.iter().cloned().for_each(&mut found);
                    if ranges.len() == RANGES_PER_SECTOR {
                        self.full += 1;
                    } else {
                        (self.last, self.is_over) = (ranges, true);
                    }
                }
            }
        }
        Ok(())
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let of = OverlayOf {
            machine: MachineId(1),
            marker: MarkerId(2),
            volume: VolumeId(3),
            sectors: Sectors(1000),
        };
        Header { of, log_sectors: 16 }
    }

    fn ranges(count: u64) -> Vec<Range<u64>> {
        (0..count).map(|n| n * 3..n * 3 + 1).collect()
    }

    fn scan(sectors: &[Vec<u8>]) -> Result<(u64, usize), Unusable> {
        let mut scan = LogScan::new(header());
        let mut count = 0;
        scan.take(&sectors.concat(), |_| count += 1)?;
        Ok((scan.full, count))
    }

    #[test]
    fn a_header_reads_back_and_damage_is_noticed() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(Some(header())));
        assert_eq!(Header::decode(&vec![0; bytes.len()]), Ok(None));
        for at in 0..84 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(Header::decode(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_log_ends_behind_the_first_sector_that_is_not_full() {
        let (zero, full, header) = (vec![0; SECTOR], ranges(30), header());
        let (first, second) = (header.log_sector(0, 0, &full), header.log_sector(1, 0, &ranges(2)));
        assert_eq!(scan(&[first.clone(), second.clone(), zero.clone()]), Ok((1, 32)));
        assert_eq!(scan(&[zero.clone(), zero.clone()]), Ok((0, 0)));
        // The loss of a flush that was never confirmed.
        assert_eq!(scan(&[zero.clone(), second.clone()]), Ok((0, 0)));
        assert_eq!(scan(&[header.log_sector(0, 0, &ranges(2)), second.clone()]), Ok((0, 2)));
        // The loss of a sector that was.
        let later = header.log_sector(1, 1, &ranges(2));
        assert!(matches!(scan(&[zero.clone(), later.clone()]), Err(Unusable::Damaged(_))));
        let mut torn = first.clone();
        torn[100] ^= 1;
        assert!(matches!(scan(&[torn, later.clone()]), Err(Unusable::Damaged(_))));
        assert!(matches!(scan(&[second, zero]), Err(Unusable::Damaged(_))), "out of place");
        let outside = header.log_sector(0, 0, std::slice::from_ref(&(999..1001)));
        assert!(matches!(scan(&[outside]), Err(Unusable::Damaged(_))));
    }
}
