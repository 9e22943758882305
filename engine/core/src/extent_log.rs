//! Bytes of the activity log: one bit per extent, "may differ from the vault".
//!
//! The file is a header sector and then pages of one sector each, written in place. A sector is
//! the largest unit that a disk replaces atomically, so power loss leaves each page old or new;
//! both hold every mark that was acknowledged, because marks are added before they are relied
//! upon and removed only when no longer needed. Anything else (damage, a short file) reads as
//! "all extents of this page are marked": never too few marks, at worst too many.
//!
//! | header | bytes | page | bytes |
//! |---|---|---|---|
//! | 0..8 | magic `RDBXLOG1` | 0..480 | bits, least significant first, 3840 extents |
//! | 8..16 | volume size in sectors, LE | 480..488 | page number, LE |
//! | 16..32 | volume id, LE | 488..496 | zero |
//! | 32..496 | zero | 496..512 | checksum |
//! | 496..512 | checksum | | |
//!
//! The checksum is the first 16 bytes of BLAKE3 over the volume id (LE) and the bytes before it,
//! so a page of another volume, or at another place, is damage.
//!
//! What is *not* here: when to write ([`crate::extent_map`]), the file itself (roles).

use crate::extent_map::EXTENT_SECTORS;
use crate::ids::VolumeId;
use crate::units::Sectors;
use bytes::Bytes;
use thiserror::Error;

/// Bytes of the header and of each page.
pub const LOG_PAGE_BYTES: usize = 512;
/// Extents whose bits lie in one page.
pub const EXTENTS_PER_PAGE: u64 = 480 * 8;
/// Largest volume a log describes, in extents (256 TiB); bounds what a damaged header can allocate.
pub const LOG_EXTENTS_MAX: u64 = 1 << 28;

const MAGIC: &[u8; 8] = b"RDBXLOG1";
const CHECKED: usize = 496;

/// Why a file is no activity log of this volume. The caller treats every extent as marked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// The header does not read back.
    #[error("the header of the activity log is damaged or missing; compare the whole volume")]
    Header,
    /// It belongs to another volume.
    #[error("the activity log belongs to volume {found}, not {expected}; compare the whole volume")]
    OtherVolume {
        /// Volume asked for.
        expected: VolumeId,
        /// Volume in the header.
        found: VolumeId,
    },
}

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogImage {
    /// Size of the volume when the header was written.
    pub sectors: Sectors,
    /// Marked extents, one bit each, least significant first.
    pub marks: Vec<u64>,
    /// Pages that did not read back and count as fully marked.
    pub pages_damaged: u64,
}

/// Returns how many extents a volume has.
pub fn extents_of(sectors: Sectors) -> u64 {
    sectors.0.div_ceil(EXTENT_SECTORS)
}

/// Returns the byte offset of a page.
pub fn page_offset(page: u64) -> u64 {
    (page + 1) * LOG_PAGE_BYTES as u64
}

fn seal(volume: VolumeId, mut page: [u8; LOG_PAGE_BYTES]) -> [u8; LOG_PAGE_BYTES] {
    let digest = checksum(volume, &page);
    page[CHECKED..].copy_from_slice(&digest);
    page
}

fn checksum(volume: VolumeId, page: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&volume.0.to_le_bytes());
    hasher.update(&page[..CHECKED]);
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

/// Encodes the header; it goes to offset 0.
pub fn encode_header(volume: VolumeId, sectors: Sectors) -> Bytes {
    let mut page = [0; LOG_PAGE_BYTES];
    page[..8].copy_from_slice(MAGIC);
    page[8..16].copy_from_slice(&sectors.0.to_le_bytes());
    page[16..32].copy_from_slice(&volume.0.to_le_bytes());
    Bytes::copy_from_slice(&seal(volume, page))
}

/// Encodes one page of the marks; it goes to [`page_offset`].
pub fn encode_page(volume: VolumeId, page: u64, marks: &[u64]) -> Bytes {
    let mut out = [0; LOG_PAGE_BYTES];
    let words_per_page = (EXTENTS_PER_PAGE / 64) as usize;
    let first = page as usize * words_per_page;
    for (slot, word) in out[..480].chunks_exact_mut(8).zip(marks.iter().skip(first)) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    out[480..488].copy_from_slice(&page.to_le_bytes());
    Bytes::copy_from_slice(&seal(volume, out))
}

/// Encodes a whole file.
pub fn encode_file(volume: VolumeId, sectors: Sectors, marks: &[u64]) -> Vec<u8> {
    let mut file = encode_header(volume, sectors).to_vec();
    for page in 0..extents_of(sectors).div_ceil(EXTENTS_PER_PAGE) {
        file.extend_from_slice(&encode_page(volume, page, marks));
    }
    file
}

/// Decodes a file; never yields fewer marks than were durable.
pub fn decode_file(volume: VolumeId, file: &[u8]) -> Result<LogImage, LogError> {
    let header = file.get(..LOG_PAGE_BYTES).ok_or(LogError::Header)?;
    let found = VolumeId(u128::from_le_bytes(field(header, 16)));
    if &header[..8] != MAGIC || header[CHECKED..] != checksum(found, header) {
        return Err(LogError::Header);
    }
    if found != volume {
        return Err(LogError::OtherVolume { expected: volume, found });
    }
    let sectors = Sectors(u64::from_le_bytes(field(header, 8)));
    let extents = extents_of(sectors);
    if extents > LOG_EXTENTS_MAX {
        return Err(LogError::Header);
    }
    let mut marks = Vec::with_capacity(extents.div_ceil(64) as usize);
    let mut pages_damaged = 0;
    for number in 0..extents.div_ceil(EXTENTS_PER_PAGE) {
        let offset = page_offset(number) as usize;
        let page = file.get(offset..offset + LOG_PAGE_BYTES).filter(|page| {
            page[CHECKED..] == checksum(volume, page) && u64::from_le_bytes(field(page, 480)) == number
        });
        pages_damaged += u64::from(page.is_none());
        for word in 0..480 / 8 {
            marks.push(page.map_or(u64::MAX, |page| u64::from_le_bytes(field(page, word * 8))));
        }
    }
    marks.truncate(extents.div_ceil(64) as usize);
    if let (Some(last), used @ 1..) = (marks.last_mut(), extents % 64) {
        *last &= (1 << used) - 1;
    }
    Ok(LogImage { sectors, marks, pages_damaged })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOLUME: VolumeId = VolumeId(7);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn damage_and_short_files_never_lose_a_mark(
            extents in 1u64..9000, set in prop::collection::vec(0u64..9000, 0..40),
            cut in 512usize..3000, flip in prop::option::of(512usize..3000),
        ) {
            let sectors = Sectors(extents * EXTENT_SECTORS - 3);
            let mut marks = vec![0u64; extents.div_ceil(64) as usize];
            for bit in set.into_iter().filter(|bit| *bit < extents) {
                marks[(bit / 64) as usize] |= 1 << (bit % 64);
            }
            let mut file = encode_file(VOLUME, sectors, &marks);
            let whole = decode_file(VOLUME, &file).unwrap();
            prop_assert_eq!(&whole, &LogImage { sectors, marks: marks.clone(), pages_damaged: 0 });
            if let Some(byte) = flip.and_then(|at| file.get_mut(at)) {
                *byte ^= 0x40;
            }
            file.truncate(cut);
            let read = decode_file(VOLUME, &file).unwrap();
            for (kept, had) in read.marks.iter().zip(&marks) {
                prop_assert_eq!(kept & had, *had);
            }
        }
    }

    #[test]
    fn a_log_of_another_volume_is_refused() {
        let file = encode_file(VOLUME, Sectors(5000), &[1]);
        let error = decode_file(VolumeId(8), &file).unwrap_err();
        assert_eq!(error, LogError::OtherVolume { expected: VolumeId(8), found: VOLUME });
        assert_eq!(decode_file(VOLUME, &file[..100]), Err(LogError::Header));
    }
}
