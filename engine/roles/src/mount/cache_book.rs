//! Where a mount's cache holds which part, and the bytes that say so at the end of each of its files.
//!
//! A file holds sealed parts one after another, then a *footer*: a row for each, their count, a checksum and a
//! magic number. A file without a whole footer was being written when its mount was killed: it is thrown away.
//!
//! - CB-1 Parts are given up by whole files, the oldest first, so that room never has holes.
//! - CB-2 A row is used only if it lies inside its file; its bytes only if their checksum agrees.
//!
//! What is *not* here: reading and writing files (`cache`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use redoubt_vault::PartId;
use std::collections::{BTreeMap, VecDeque};

const MAGIC: u64 = u64::from_be_bytes(*b"RDCACHE1");
/// Id, place, length and checksum of a part.
const ROW_BYTES: u64 = 16 + 8 + 4 + 4;
/// Count, checksum of rows and count, magic number.
pub(super) const TAIL_BYTES: u64 = 4 + 4 + 8;
/// Parts remembered at most, some 300 MiB of memory: 256 GiB of a disk.
pub(super) const PARTS_MAX: usize = 1 << 22;

/// Where a part lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) at: u64,
    pub(super) length: u32,
    pub(super) crc: u32,
}

/// One file: its number, the bytes of its parts, and which they are.
#[derive(Debug, Default)]
struct Row {
    number: u32,
    bytes: u64,
    parts: Vec<PartId>,
}

impl Row {
    /// Bytes that the file takes with its footer.
    fn size(&self) -> u64 {
        self.bytes + self.parts.len() as u64 * ROW_BYTES + TAIL_BYTES
    }
}

/// The content of a cache.
#[derive(Debug, Default)]
pub(super) struct Book {
    parts: BTreeMap<PartId, Place>,
    /// Oldest first; the last one is being written.
    files: VecDeque<Row>,
    bytes: u64,
}

impl Book {
    pub(super) fn find(&self, id: PartId) -> Option<Place> {
        self.parts.get(&id).copied()
    }

    /// Returns the bytes that all files take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes that these parts would take.
    pub(super) fn cost(parts: &[(PartId, Bytes)]) -> u64 {
        parts.iter().map(|(_, part)| part.len() as u64 + ROW_BYTES).sum()
    }

    /// Begins a file.
    pub(super) fn begin(&mut self, number: u32) {
        let row = Row { number, ..Row::default() };
        self.bytes += row.size();
        self.files.push_back(row);
    }

    /// Number and parts' bytes of the file that is being written.
    pub(super) fn end(&self) -> Option<(u32, u64)> {
        self.files.back().map(|row| (row.number, row.bytes))
    }

    /// Notes a part at the end of the file that is being written.
    pub(super) fn add(&mut self, id: PartId, length: u32, crc: u32) {
        let Some(row) = self.files.back_mut() else { return };
        let place = Place { file: row.number, at: row.bytes, length, crc };
        self.bytes += u64::from(length) + ROW_BYTES;
        row.bytes += u64::from(length);
        row.parts.push(id);
        self.parts.insert(id, place);
    }

    /// Forgets a part; its bytes stay until their file goes.
    pub(super) fn forget(&mut self, id: PartId) {
        self.parts.remove(&id);
    }

    /// Gives a file up; returns whether there was one.
    pub(super) fn drop_file(&mut self, number: u32) -> bool {
        let Some(at) = self.files.iter().position(|row| row.number == number) else { return false };
        let Some(row) = self.files.remove(at) else { return false };
        self.bytes -= row.size();
        for id in row.parts {
            if self.parts.get(&id).is_some_and(|place| place.file == number) {
                self.parts.remove(&id);
            }
        }
        true
    }

    /// Returns the oldest file that is not being written.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.files.len() > 1).then(|| self.files.front().map(|row| row.number))?
    }

    /// Encodes the footer of the file that is being written.
    pub(super) fn footer(&self) -> Bytes {
        let mut out = BytesMut::new();
        let Some(row) = self.files.back() else { return out.freeze() };
        let known = |id: &PartId| Some((*id, self.find(*id).filter(|place| place.file == row.number)?));
        let rows: Vec<(PartId, Place)> = row.parts.iter().filter_map(known).collect();
        for (id, place) in &rows {
            out.put_u128(id.0);
            out.put_u64(place.at);
            out.put_u32(place.length);
            out.put_u32(place.crc);
        }
        out.put_u32(rows.len() as u32);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out.put_u64(MAGIC);
        out.freeze()
    }

    /// Takes in a file that an earlier mount completed.
    pub(super) fn adopt(&mut self, number: u32, parts: Vec<(PartId, Place)>) {
        let bytes = parts.iter().map(|(_, place)| place.at + u64::from(place.length)).max().unwrap_or(0);
        let row = Row { number, bytes, parts: parts.iter().map(|(id, _)| *id).collect() };
        self.bytes += row.size();
        self.files.push_back(row);
        self.parts.extend(parts);
    }
}

/// Length of the footer, from the last [`TAIL_BYTES`] of a file of this length.
pub(super) fn footer_bytes(tail: &[u8], length: u64) -> Option<u64> {
    if tail.len() as u64 != TAIL_BYTES || (&tail[8..]).get_u64() != MAGIC {
        return None;
    }
    let bytes = u64::from((&tail[..4]).get_u32()) * ROW_BYTES + TAIL_BYTES;
    (bytes <= length).then_some(bytes)
}

/// Decodes a footer; `data` is the length of what lies before it (CB-2).
pub(super) fn decode_footer(footer: &[u8], number: u32, data: u64) -> Option<Vec<(PartId, Place)>> {
    let (checked, mut rest) = footer.split_at_checked(footer.len().checked_sub(12)?)?;
    if rest.get_u32() != crc32c::crc32c(checked) {
        return None;
    }
    let mut rows = checked.split_at_checked(checked.len().checked_sub(4)?)?.0;
    let mut parts = Vec::with_capacity(rows.len() / ROW_BYTES as usize);
    while rows.len() >= ROW_BYTES as usize {
        let id = PartId(rows.get_u128());
        let place = Place { file: number, at: rows.get_u64(), length: rows.get_u32(), crc: rows.get_u32() };
        if place.at.checked_add(u64::from(place.length))? > data {
            return None;
        }
        parts.push((id, place));
    }
    rows.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let mut book = Book::default();
        for file in 0..3 {
            book.begin(file);
            (0..4).for_each(|part| book.add(PartId(u128::from(file * 4 + part)), 100, part));
        }
        book
    }

    #[test]
    fn a_footer_reads_back_and_any_changed_byte_spoils_it() {
        let mut book = book();
        book.forget(PartId(9));
        let footer = book.footer();
        let tail = &footer[footer.len() - TAIL_BYTES as usize..];
        assert_eq!(footer_bytes(tail, 400 + footer.len() as u64), Some(footer.len() as u64));
        assert_eq!(footer_bytes(tail, footer.len() as u64 - 1), None, "longer than its file");
        let parts = decode_footer(&footer, 2, 400).unwrap();
        assert_eq!(parts.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [8, 10, 11]);
        assert_eq!(parts[1].1, book.find(PartId(10)).unwrap());
        assert!(decode_footer(&footer, 2, 399).is_none(), "a row beyond the data");
        for at in 0..footer.len() - 8 {
            let mut spoilt = footer.to_vec();
            spoilt[at] ^= 0x40;
            assert!(decode_footer(&spoilt, 2, 400).is_none(), "byte {at}");
        }
    }

    #[test]
    fn files_go_as_a_whole_and_take_their_parts_and_bytes_along() {
        let mut book = book();
        let whole = book.bytes();
        assert_eq!(book.oldest(), Some(0));
        assert!(book.drop_file(0) && !book.drop_file(0));
        assert_eq!((book.parts(), book.find(PartId(3)), book.oldest()), (8, None, Some(1)));
        assert_eq!(book.bytes(), whole / 3 * 2);
        book.drop_file(1);
        assert_eq!(book.oldest(), None, "what is being written stays");
        let parts = decode_footer(&book.footer(), 2, 400).unwrap();
        let mut next = Book::default();
        next.adopt(2, parts);
        assert_eq!((next.bytes(), next.parts()), (book.bytes(), 4));
    }
}
