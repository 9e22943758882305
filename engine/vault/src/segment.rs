//! Segments: immutable runs of sealed 64 KiB units, a unit table in the clear, a sealed extent table.
//!
//! Layout: header (128) | units | unit table (12 each) | extent table + tag | trailer (64). See
//! `engine/docs/vault-format.md`.
//!
//! Invariants
//! - SG-1 One key per segment uuid and one encryption per unit number: no (key, nonce) repeats.
//! - SG-2 A unit's additional data names segment, number, length and codec: a swapped, cut or
//!   moved unit does not open.

use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::keys::ONCE;
use crate::shrink::{Inflater, RAW, Shrinker, ZSTD};
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{MachineId, SECTOR_BYTES, VolumeIndex};
use redoubt_wire::aead::{Key, NONCE_BYTES, Opener, TAG_BYTES};

/// Plain bytes of a unit at most: the grain of compression, sealing and reading.
pub(crate) const UNIT_BYTES: usize = 64 << 10;
/// Sectors of a granule; a data extent never crosses a granule's border.
pub(crate) const GRANULE_SECTORS: u64 = UNIT_BYTES as u64 / SECTOR_BYTES;
/// A segment is closed when its plain content reaches this; with tables it stays below 32 MiB.
pub(crate) const TARGET_BYTES: usize = 16 << 20;
/// Extents of a segment at most; bounds the table's plain size.
pub(crate) const EXTENTS_MAX: usize = 1 << 18;
/// Units of a segment at most.
const UNITS_MAX: usize = 1 << 18;
/// Plain bytes of an extent table at most: the longest row has under 48 bytes.
const TABLE_BYTES_MAX: usize = EXTENTS_MAX * 48;
pub(crate) const HEADER_BYTES: usize = 128;
const ROW_BYTES: usize = 12;
pub(crate) const TRAILER_BYTES: usize = 64;
const TABLE_NUMBER: u32 = 0x8000_0000;
const MAGIC: &[u8; 8] = b"DRSEG1\0\0";
const TRAILER_MAGIC: &[u8; 4] = b"DRSE";

/// What a segment is, besides its content; its header is a function of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    pub(crate) vault: u128,
    pub(crate) machine: MachineId,
    pub(crate) epoch: u64,
    pub(crate) uuid: u128,
    pub(crate) dek: u32,
}

impl SegmentId {
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put(MAGIC);
        header.put_u16(crate::vault::MAJOR);
        header.put_u16(crate::vault::MINOR);
        header.put_u32(self.dek);
        header.put_u128(self.vault);
        header.put_u128(self.machine.0);
        header.put_u128(self.uuid);
        header.put_u64(self.epoch);
        header.resize(HEADER_BYTES - 4, 0);
        put_crc(&mut header);
        header
    }

    /// Reads a header that is exactly what its own fields imply.
    pub(crate) fn read(header: &[u8]) -> Option<SegmentId> {
        let mut take = Take::new(header);
        take.bytes(MAGIC.len() + 4).ok()?;
        let dek = take.u32().ok()?;
        let (vault, machine, uuid) = (take.u128().ok()?, MachineId(take.u128().ok()?), take.u128().ok()?);
        let id = SegmentId { vault, machine, uuid, epoch: take.u64().ok()?, dek };
        (id.header() == header).then_some(id)
    }

    /// Expands the segment's key.
    pub(crate) fn opener(&self, dek: &Key) -> Opener {
        let (vault, machine) = (self.vault.to_be_bytes(), self.machine.0.to_be_bytes());
        dek.derive(&self.uuid.to_be_bytes(), &[b"drv1 seg", &vault, &machine]).opener()
    }

    pub(crate) fn aad(&self, number: u32, plain: u32, codec: u8) -> Vec<u8> {
        let mut aad = Vec::with_capacity(48);
        aad.put_u128(self.uuid);
        aad.put_u32(number);
        aad.put_u32(plain);
        aad.put_u8(codec);
        aad.put_u128(self.machine.0);
        aad.put_u16(crate::vault::MAJOR);
        aad
    }
}

pub(crate) fn nonce(number: u32) -> [u8; NONCE_BYTES] {
    let mut nonce = ONCE;
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    nonce
}

/// One row of the unit table, with the unit's place in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitRow {
    pub(crate) offset: u64,
    /// Sealed bytes, tag included.
    pub(crate) sealed: u32,
    pub(crate) plain: u32,
    pub(crate) codec: u8,
    pub(crate) crc: u32,
}

/// Where an extent's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Zero,
    /// `offset` counts sectors inside the unit's plain bytes.
    Unit {
        unit: u32,
        offset: u8,
    },
}

/// One row of the extent table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentRow {
    pub(crate) volume: VolumeIndex,
    /// Which span between the commit's points it belongs to.
    pub(crate) span: u16,
    pub(crate) first: u64,
    pub(crate) sectors: u64,
    pub(crate) source: Source,
}

/// A finished segment, ready to be put.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) uuid: u128,
    pub(crate) bytes: Bytes,
    pub(crate) tail: u64,
    pub(crate) units: u32,
    pub(crate) root: [u8; 32],
    /// BLAKE3 of the bytes.
    pub(crate) digest: [u8; 32],
}

/// Packs extents into the units of one segment.
pub(crate) struct Builder {
    id: SegmentId,
    opener: Opener,
    shrinker: Shrinker,
    bytes: Vec<u8>,
    rows: Vec<UnitRow>,
    extents: Vec<ExtentRow>,
    open: Vec<u8>,
}

impl Builder {
    pub(crate) fn new(id: SegmentId, dek: &Key, shrinker: Shrinker) -> Builder {
        let (opener, bytes) = (id.opener(dek), id.header());
        let (rows, extents, open) = (Vec::new(), Vec::new(), Vec::with_capacity(UNIT_BYTES));
        Builder { id, opener, shrinker, bytes, rows, extents, open }
    }

    pub(crate) fn zero(&mut self, volume: VolumeIndex, span: u16, first: u64, sectors: u64) {
        self.extents.push(ExtentRow { volume, span, first, sectors, source: Source::Zero });
    }

    /// Adds content of at most one granule, given in parts that follow one another; returns its unit and the sectors
    /// into that.
    pub(crate) fn data(&mut self, volume: VolumeIndex, span: u16, first: u64, parts: &[&[u8]]) -> (u32, u8) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(length > 0 && length <= UNIT_BYTES);
        if self.open.len() + length > UNIT_BYTES {
            self.close_unit();
        }
        let offset = (self.open.len() as u64 / SECTOR_BYTES) as u8;
        let unit = self.rows.len() as u32;
        let source = Source::Unit { unit, offset };
        self.extents.push(ExtentRow { volume, span, first, sectors: length as u64 / SECTOR_BYTES, source });
        match parts {
            // A whole unit is compressed where it lies.
            [whole] if length == UNIT_BYTES => {
                let row = self.put_sealed(self.rows.len() as u32, whole);
                self.rows.push(row);
            }
            _ => parts.iter().for_each(|part| self.open.extend_from_slice(part)),
        }
        (unit, offset)
    }

    /// Returns a unit that is closed.
    pub(crate) fn unit(&self, number: u32) -> Option<&UnitRow> {
        self.rows.get(number as usize)
    }

    /// Tells whether the next content belongs into another segment.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= TARGET_BYTES || self.extents.len() >= EXTENTS_MAX
    }

    /// Gives each span another number.
    pub(crate) fn rename_spans(&mut self, order: &[u16]) {
        self.extents.iter_mut().for_each(|row| row.span = order[usize::from(row.span)]);
    }

    /// Appends a buffer, compressed and sealed in place.
    fn put_sealed(&mut self, number: u32, plain: &[u8]) -> UnitRow {
        let (start, length) = (self.bytes.len(), plain.len() as u32);
        let codec = self.shrinker.put(plain, &mut self.bytes);
        let aad = self.id.aad(number, length, codec);
        let tag = self.opener.seal(nonce(number), &aad, &mut self.bytes[start..]);
        self.bytes.put(&tag);
        let sealed = &self.bytes[start..];
        let (crc, sealed) = (crc32c::crc32c(sealed), sealed.len() as u32);
        UnitRow { offset: start as u64, sealed, plain: length, codec, crc }
    }

    /// Closes the unit that is filled; what comes next begins another.
    pub(crate) fn close_unit(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut open = std::mem::take(&mut self.open);
        let row = self.put_sealed(self.rows.len() as u32, &open);
        self.rows.push(row);
        open.clear();
        self.open = open;
    }

    /// Closes the segment and returns it, and what compresses the next one.
    pub(crate) fn finish(mut self) -> (Encoded, Shrinker) {
        self.close_unit();
        let tail = self.bytes.len();
        for row in &self.rows {
            self.bytes.put_u32(row.sealed);
            self.bytes.put_u32(row.plain | u32::from(row.codec) << 24);
            self.bytes.put_u32(row.crc);
        }
        let table = self.put_sealed(TABLE_NUMBER, &encode_extents(&self.extents));
        let root = root(&self.id, &self.bytes[tail..]);
        let start = self.bytes.len();
        self.bytes.put_u64(tail as u64);
        self.bytes.put_u32(self.rows.len() as u32);
        self.bytes.put_u32(table.sealed);
        self.bytes.put_u32(table.plain | u32::from(table.codec) << 31);
        self.bytes.put(&root);
        self.bytes.put_u32(0);
        let crc = crc32c::crc32c(&self.bytes[start..]);
        self.bytes.put_u32(crc);
        self.bytes.put(TRAILER_MAGIC);
        self.bytes.resize(start + TRAILER_BYTES, 0);
        let digest = *blake3::hash(&self.bytes).as_bytes();
        let (units, bytes, tail) = (self.rows.len() as u32, self.bytes.into(), tail as u64);
        (Encoded { uuid: self.id.uuid, bytes, tail, units, root, digest }, self.shrinker)
    }
}

fn root(id: &SegmentId, tables: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&id.header()).update(tables).finalize().as_bytes()
}

fn encode_extents(extents: &[ExtentRow]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut last = 0u64;
    for row in extents {
        table.put_varint(u64::from(row.volume.0));
        table.put_varint(u64::from(row.span));
        let delta = row.first.wrapping_sub(last) as i64;
        table.put_varint(((delta << 1) ^ (delta >> 63)) as u64);
        table.put_varint(row.sectors);
        match row.source {
            Source::Zero => table.put_u8(0),
            Source::Unit { unit, offset } => {
                table.put_u8(1);
                table.put_varint(u64::from(unit));
                table.put_u8(offset);
            }
        }
        last = row.first.wrapping_add(row.sectors);
    }
    table
}

pub(crate) fn decode_extents(bytes: &[u8], units: &[UnitRow]) -> Result<Vec<ExtentRow>, Malformed> {
    let mut take = Take::new(bytes);
    let mut extents = Vec::new();
    let mut last = 0u64;
    while !take.is_empty() {
        let narrow = |value: u64| u16::try_from(value).map_err(|_| Malformed("a number is too large"));
        let volume = VolumeIndex(narrow(take.varint()?)?);
        let span = narrow(take.varint()?)?;
        let zigzag = take.varint()?;
        let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let first = last.wrapping_add(delta as u64);
        let sectors = take.varint()?;
        let end = first.checked_add(sectors).filter(|end| *end > first);
        last = end.ok_or(Malformed("an extent is empty or overflows"))?;
        let source = match take.u8()? {
            0 => Source::Zero,
            1 => {
                let unit = take.varint()?;
                let offset = take.u8()?;
                let row = usize::try_from(unit).ok().and_then(|unit| units.get(unit));
                let plain = u64::from(row.ok_or(Malformed("an extent names no unit"))?.plain) / SECTOR_BYTES;
                let same = first / GRANULE_SECTORS == (last - 1) / GRANULE_SECTORS;
                if !same || u64::from(offset) + sectors > plain {
                    return Err(Malformed("an extent leaves its unit or granule"));
                }
                Source::Unit { unit: unit as u32, offset }
            }
            _ => return Err(Malformed("unknown extent kind")),
        };
        extents.push(ExtentRow { volume, span, first, sectors, source });
        if extents.len() > EXTENTS_MAX {
            return Err(Malformed("too many extents"));
        }
    }
    Ok(extents)
}

/// What lies behind the units, as far as it is in the clear.
struct ClearTail<'a> {
    rows: Vec<UnitRow>,
    /// The sealed extent table as a row, and its bytes.
    table: UnitRow,
    sealed: &'a [u8],
}

/// Checks everything behind the units that needs no key. `tail` is where `bytes` start in the segment.
fn clear_tail<'a>(
    id: &SegmentId,
    tail: u64,
    root_expected: Option<&[u8; 32]>,
    bytes: &'a [u8],
) -> Result<ClearTail<'a>, Malformed> {
    let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(Malformed("no trailer"))?;
    let (tables, trailer) = bytes.split_at(at);
    // Content of the trailer up to its checksum; the magic closes it.
    checked_crc(&trailer[..60])?;
    if &trailer[60..] != TRAILER_MAGIC {
        return Err(Malformed("no trailer magic"));
    }
    let mut take = Take::new(&trailer[..56]);
    let (place, units, sealed) = (take.u64()?, take.u32()? as usize, take.u32()? as usize);
    let (plain, found): (u32, [u8; 32]) = (take.u32()?, take.array()?);
    if place != tail || root_expected.is_some_and(|root| found != *root) || root(id, tables) != found {
        return Err(Malformed("the tables are not those of the commit record"));
    }
    if units > UNITS_MAX || tables.len() != units * ROW_BYTES + sealed {
        return Err(Malformed("table lengths disagree"));
    }
    let rows = decode_rows(&tables[..units * ROW_BYTES], tail)?;
    let (codec, plain) = ((plain >> 31) as u8, plain & 0x7fff_ffff);
    if plain as usize > TABLE_BYTES_MAX {
        return Err(Malformed("the extent table is too large"));
    }
    let table = UnitRow { offset: 0, sealed: sealed as u32, plain, codec, crc: 0 };
    Ok(ClearTail { rows, table, sealed: &tables[units * ROW_BYTES..] })
}

/// Checks the tables of a whole segment by the digest that its own trailer names: says nothing of who made
/// it. Returns where they begin, and the units.
pub(crate) fn clear_tables(id: &SegmentId, segment: &[u8]) -> Result<(u64, Vec<UnitRow>), Malformed> {
    let at = segment.len().checked_sub(TRAILER_BYTES).ok_or(Malformed("no trailer"))?;
    let tail = Take::new(&segment[at..]).u64()?;
    let behind = usize::try_from(tail).ok().and_then(|tail| segment.get(tail..));
    let behind = behind.ok_or(Malformed("the trailer names no place in the segment"))?;
    clear_tail(id, tail, None, behind).map(|tables| (tail, tables.rows))
}

/// Tells whether a unit's sealed bytes have their checksum.
pub(crate) fn check_unit(row: &UnitRow, segment: &[u8]) -> bool {
    let sealed = segment.get(row.offset as usize..row.offset as usize + row.sealed as usize);
    sealed.is_some_and(|sealed| crc32c::crc32c(sealed) == row.crc)
}

/// Checks and decodes everything behind the units. `tail` is where `bytes` start in the segment.
pub(crate) fn parse_tail(
    id: &SegmentId,
    dek: &Key,
    tail: u64,
    root_expected: &[u8; 32],
    bytes: &[u8],
) -> Result<(Vec<UnitRow>, Vec<ExtentRow>), Malformed> {
    let ClearTail { rows, table, sealed } = clear_tail(id, tail, Some(root_expected), bytes)?;
    let mut inflater = Inflater::new();
    let table = open(id, &id.opener(dek), &mut inflater, TABLE_NUMBER, &table, sealed)?;
    let extents = decode_extents(&table, &rows)?;
    Ok((rows, extents))
}

fn decode_rows(bytes: &[u8], tail: u64) -> Result<Vec<UnitRow>, Malformed> {
    let mut take = Take::new(bytes);
    let mut rows = Vec::with_capacity(bytes.len() / ROW_BYTES);
    let mut offset = HEADER_BYTES as u64;
    while !take.is_empty() {
        let (sealed, packed, crc) = (take.u32()?, take.u32()?, take.u32()?);
        let (plain, codec) = (packed & 0x00ff_ffff, (packed >> 24) as u8);
        let sizes = plain as usize <= UNIT_BYTES && sealed as usize <= UNIT_BYTES + TAG_BYTES;
        if !sizes || !u64::from(plain).is_multiple_of(SECTOR_BYTES) {
            return Err(Malformed("a unit has an impossible size"));
        }
        rows.push(UnitRow { offset, sealed, plain, codec, crc });
        offset += u64::from(sealed);
    }
    if offset == tail { Ok(rows) } else { Err(Malformed("the units do not fill the segment")) }
}

/// Opens one unit; wrong bytes are never returned.
pub(crate) fn open_unit(
    id: &SegmentId,
    opener: &Opener,
    inflater: &mut Inflater,
    number: u32,
    row: &UnitRow,
    sealed: &[u8],
) -> Result<Bytes, Malformed> {
    if planted::active(Bug::ServeUnchecked) {
        let served = open(id, opener, inflater, number, row, sealed).unwrap_or_else(|_| sealed.to_vec());
        return Ok(resized(served, row.plain as usize).into());
    }
    if sealed.len() != row.sealed as usize {
        return Err(Malformed("a unit is cut short"));
    }
    open(id, opener, inflater, number, row, sealed).map(Bytes::from)
}

fn resized(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(length, 0);
    bytes
}

pub(crate) fn open(
    id: &SegmentId,
    opener: &Opener,
    inflater: &mut Inflater,
    number: u32,
    row: &UnitRow,
    sealed: &[u8],
) -> Result<Vec<u8>, Malformed> {
    let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Malformed("shorter than its tag"))?;
    let mut body = body.to_vec();
    let aad = id.aad(number, row.plain, row.codec);
    opener.open(nonce(number), &aad, &mut body, tag).map_err(|_| Malformed("the seal is broken"))?;
    let plain = match row.codec {
        RAW => body,
        // Bounded by the table.
        ZSTD => inflater.open(&body, row.plain as usize)?,
        _ => return Err(Malformed("unknown codec")),
    };
    if plain.len() == row.plain as usize { Ok(plain) } else { Err(Malformed("has the wrong length")) }
}
