//! The structures of `engine/docs/vault-format.md`, each checked as that document says.
//!
//! What is *not* here: which records count and what a point sees; see the crate's root.

use crate::{Fault, Head, Holder, Machine, Objects, Point, Record, SegmentRow, Versions, Volumes};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) type Id = [u8; 16];
type Key = [u8; 32];

const LOG_HEADER: usize = 144;
const SEGMENT_HEADER: usize = 128;
const TRAILER: usize = 64;
/// No table or unit unpacks to more; a frame that says so is not believed.
const PLAIN_MAX: usize = 16 << 20;

/// Fields from the front of some bytes; `None` where they end too early.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn raw(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn le(&mut self, length: usize) -> Option<u64> {
        Some(self.raw(length)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.le(1)?;
            number |= (byte & 127) << shift;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    /// The name of the structure and its format, of which only the major must be known.
    pub(crate) fn is(&mut self, magic: &[u8; 8]) -> Option<()> {
        (self.raw(8)? == magic && self.le(2)? == 1 && self.le(2).is_some()).then_some(())
    }

    /// A number that is told by its zigzag difference to another.
    pub(crate) fn from(&mut self, from: u64) -> Option<u64> {
        let zigzag = self.varint()?;
        Some(from.wrapping_add(((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)) as u64))
    }

    /// The state after a record; of it only the place in the stream.
    pub(crate) fn head(&mut self) -> Option<Head> {
        let head = (self.le(8)?, self.le(8)?, self.array()?);
        self.raw(2)?;
        self.volumes()?;
        self.names()?;
        Some(head)
    }

    pub(crate) fn point(&mut self, slot: u64, ordinal: u16) -> Option<Point> {
        let (marker, _, wall_ms) = (self.array()?, self.le(1)?, self.le(8)?);
        let (seq, exact, volumes) = (self.le(8)?, self.le(1)? == 1, self.volumes()?);
        Some(Point { slot, ordinal, marker, wall_ms, seq, exact, volumes })
    }

    /// Names are for people: nothing is proven of them.
    fn names(&mut self) -> Option<()> {
        let length = self.le(1)? as usize;
        self.raw(length)?;
        for _ in 0..self.le(2)? {
            self.raw(16)?;
            let length = self.le(1)? as usize;
            self.raw(length)?;
        }
        Some(())
    }

    fn volumes(&mut self) -> Option<Volumes> {
        (0..self.le(2)?).map(|_| Some((self.le(2)? as u16, (self.array()?, self.le(8)?)))).collect()
    }
}

pub(crate) fn derive(key: &[u8], salt: &[u8], purpose: &[&[u8]]) -> Key {
    let parts = purpose.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes(), *part].concat());
    let mut derived = [0; 32];
    let expanded =
        hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), key).expand(&parts.collect::<Vec<u8>>(), &mut derived);
    assert!(expanded.is_ok(), "32 bytes are within the reach of HKDF-SHA256");
    derived
}

pub(crate) fn unseal(key: &Key, number: u32, additional: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (body, tag) = sealed.split_last_chunk::<16>()?;
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&number.to_le_bytes());
    let mut plain = body.to_vec();
    let buffer = plain.as_mut_slice().into();
    let opened = Aes256Gcm::new(key.into()).decrypt_inout_detached(
        &Nonce::from(nonce),
        additional,
        buffer,
        &Tag::from(*tag),
    );
    opened.ok().map(|()| plain)
}

pub(crate) fn has_crc(bytes: &[u8]) -> bool {
    bytes.split_last_chunk().is_some_and(|(body, crc)| crc32c::crc32c(body) == u32::from_le_bytes(*crc))
}

/// Reads an object that must be there.
pub(crate) fn fetch(objects: &dyn Objects, name: &str) -> Result<Vec<u8>, Fault> {
    objects.get(name).map_err(Fault::Store)?.ok_or_else(|| Fault::damage(name, 0..0, "the object is missing"))
}

/// Opens the vault with its key, and the machine's data keys with that.
pub(crate) fn open(objects: &dyn Objects, vault_key: &Key, machine: &str) -> Result<Machine, Fault> {
    let check = |name: &str, bytes: &[u8]| {
        let length = bytes.len() as u64;
        if has_crc(bytes) { Ok(()) } else { Err(Fault::damage(name, 0..length, "its checksum differs")) }
    };
    let whole = |name: &str| fetch(objects, name).and_then(|bytes| check(name, &bytes).map(|()| bytes));
    // Stored twice: one of the two is enough.
    let bytes = whole("vault").or_else(|fault| whole("vault.twin").map_err(|_| fault))?;
    let mut fields = Fields(&bytes);
    let parsed = (|| {
        fields.is(b"DRVAULT1")?;
        Some((fields.le(8)?, fields.le(8)?, fields.array::<16>()?, fields.raw(16)?))
    })();
    let Some((0, _, vault, proof)) = parsed else {
        return Err(Fault::damage("vault", 0..20, "it is no vault of format 1 without required features"));
    };
    let mine = &derive(vault_key, &vault, &[b"drv1 check"])[..16];
    let number = if proof == mine { Some(1) } else { later_key(objects, &vault, mine)? };
    let number = number.ok_or_else(|| Fault::damage("vault", 44..60, "the key is not that of this vault"))?;
    let mut at = Machine { vault, id: [0; 16], data_keys: BTreeMap::new() };
    for name in objects.list(&format!("g/{machine}/key/")).map_err(Fault::Store)? {
        let bytes = fetch(objects, &name)?;
        let mut fields = Fields(&bytes);
        let parsed = (|| {
            fields.is(b"DRKEY1\0\0")?;
            let (id, ours) = (fields.le(4)?, fields.raw(16)? == vault);
            let (of, wrap, by) = (fields.array::<16>()?, fields.raw(16)?, fields.le(4)?);
            fields.le(4)?;
            let original = format!("g/{machine}/key/{id:08x}");
            let first = name.strip_suffix(".twin").unwrap_or(&name);
            let named = first == original || first == format!("{original}.{by:08x}");
            let key = unseal(&derive(vault_key, wrap, &[b"drv1 wrap"]), 0, &bytes[..72], fields.raw(48)?)?;
            let right = ours && named && by == number && hex(&of) == machine && has_crc(&bytes);
            right.then_some((id, of, key.try_into().ok()?))
        })();
        // One that does not open is missed by the first record that names it.
        if let Some((id, of, key)) = parsed {
            at.id = of;
            at.data_keys.insert(id, key);
        }
    }
    if at.data_keys.is_empty() {
        let name = format!("g/{machine}/key/");
        return Err(Fault::damage(&name, 0..0, "no data key of the machine opens with this vault key"));
    }
    Ok(at)
}

/// Finds the number of a vault key that is not the first, if it is in force.
fn later_key(objects: &dyn Objects, vault: &Id, check: &[u8]) -> Result<Option<u64>, Fault> {
    let names = objects.list("key/").map_err(Fault::Store)?;
    for name in &names {
        let bytes = fetch(objects, name)?;
        let mut fields = Fields(&bytes);
        let parsed = (|| {
            fields.is(if name.ends_with(".ready") { b"DRVKOK1\0" } else { b"DRVKEY1\0" })?;
            let number = fields.le(4)?;
            let ours = fields.raw(16)? == vault && fields.raw(16)? == check && has_crc(&bytes);
            ours.then_some(number)
        })();
        let number = parsed.filter(|number| names.contains(&format!("key/{number:08x}.ready")));
        if number.is_some() {
            return Ok(number);
        }
    }
    Ok(None)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens and checks one log record; whether it follows the one before is the caller's to see.
pub(crate) fn record(at: &Machine, slot: u64, bytes: &[u8]) -> Result<Record, Fault> {
    let name = at.slot(slot);
    let broken = |range: Range<usize>, what| {
        Fault::damage(&name, range.start as u64..range.end.min(bytes.len()) as u64, what)
    };
    let header = bytes.get(..LOG_HEADER).filter(|header| has_crc(header));
    let header = header.ok_or_else(|| broken(0..LOG_HEADER, "its header's checksum differs"))?;
    let mut fields = Fields(header);
    let parsed = (|| {
        fields.is(b"DRLOG1\0\0")?;
        let kind = fields.le(4)?;
        let ours = fields.raw(16)? == at.vault && fields.raw(16)? == at.id && fields.le(8)? == slot;
        let (epoch, writer, prev) = (fields.le(8)?, fields.raw(16)?, fields.array()?);
        let (dek, length) = (fields.le(4)?, fields.le(4)? as usize);
        let key = at.data_keys.get(&dek);
        (ours && matches!(kind, 1 | 2)).then_some((epoch, writer, prev, LOG_HEADER + length, dek, key))
    })();
    let (epoch, writer, prev, end, dek, data_key) =
        parsed.ok_or_else(|| broken(0..LOG_HEADER, "it is not the record of this slot"))?;
    let salt = [&at.id[..], &slot.to_le_bytes(), writer].concat();
    let key_name = format!("g/{}/key/{dek:08x}", hex(&at.id));
    let no_key = || Fault::damage(&key_name, 0..0, "the data key is missing or does not open");
    let data_key = data_key.ok_or_else(no_key)?;
    let key = derive(data_key, &salt, &[b"drv1 log", &at.vault]);
    let plain = bytes.get(LOG_HEADER..end).and_then(|sealed| unseal(&key, 0, header, sealed));
    let plain = plain.ok_or_else(|| broken(LOG_HEADER..end, "the seal of its body is broken"))?;
    let mut record = Record { slot, epoch, prev, inline_at: end, ..Record::default() };
    let minor = header[10..12].try_into().ok();
    body(&plain, &mut record, dek, minor).ok_or_else(|| broken(LOG_HEADER..end, "its body is malformed"))?;
    Ok(record)
}

fn body(plain: &[u8], record: &mut Record, data_key: u64, minor: Option<[u8; 2]>) -> Option<()> {
    let (mut fields, slot, epoch) = (Fields(plain), record.slot, record.epoch);
    (record.from, record.head) = (fields.le(8)?, fields.head()?);
    for ordinal in 0..fields.le(2)? as u16 {
        record.points.push(fields.point(slot, ordinal)?);
    }
    for _ in 0..fields.le(2)? {
        let (uuid, length) = (fields.array()?, fields.le(8)?);
        let (table, units) = (fields.le(8)? as usize, fields.le(4)? as usize);
        let (root, digest) = (fields.array()?, fields.array()?);
        let holder = if fields.le(1)? == 1 { Holder::Slot(slot, record.inline_at) } else { Holder::Own };
        let versions = Versions::Of(slot);
        let row =
            SegmentRow { uuid, epoch, data_key, minor, holder, length, table, units, root, digest, versions };
        record.segments.push(row);
    }
    fields.le(8)?;
    fields.0.is_empty().then_some(())
}

/// One row of an extent table, with the unit and the sector in it where its content is.
pub(crate) struct Row {
    pub(crate) volume: u16,
    pub(crate) version: u64,
    pub(crate) first: u64,
    pub(crate) sectors: u64,
    pub(crate) content: Option<(usize, usize)>,
}

/// A segment whose tables were checked.
pub(crate) struct Segment {
    key: Key,
    additional: [Vec<u8>; 2],
    bytes: Vec<u8>,
    /// Place of each sealed unit, its plain length, codec, checksum.
    units: Vec<(Range<usize>, u32, u8, u32)>,
    header_differs: bool,
    pub(crate) rows: Vec<Row>,
}

/// Checks a segment's tables against the record or the fold that lists it. `Err` says which bytes are wrong, and why.
pub(crate) fn segment(
    at: &Machine,
    row: &SegmentRow,
    bytes: Vec<u8>,
) -> Result<Segment, (Range<usize>, &'static str)> {
    if bytes.len() as u64 != row.length || bytes.len() < SEGMENT_HEADER + TRAILER {
        return Err((bytes.len().min(row.length as usize)..row.length as usize, "it is shorter or longer"));
    }
    let minor = row.minor.unwrap_or([bytes[10], bytes[11]]);
    let mut header = [&b"DRSEG1\0\0"[..], &[1, 0], &minor[..], &(row.data_key as u32).to_le_bytes()].concat();
    header.extend([&at.vault[..], &at.id, &row.uuid[..], &row.epoch.to_le_bytes()].concat());
    header.resize(SEGMENT_HEADER - 4, 0);
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    let end = bytes.len() - TRAILER;
    let (mut fields, tables) = (Fields(&bytes[end..]), bytes.get(row.table..end).unwrap_or_default());
    let root = *blake3::Hasher::new().update(&header).update(tables).finalize().as_bytes();
    let parsed = (|| {
        let ours = fields.le(8)? == row.table as u64 && fields.le(4)? == row.units as u64;
        let (sealed, packed) = (fields.le(4)? as usize, fields.le(4)? as u32);
        let same = fields.array()? == row.root && has_crc(&bytes[end..end + 60]) && bytes.ends_with(b"DRSE");
        (ours && same && tables.len() == row.units * 12 + sealed).then_some(packed)
    })();
    let packed = parsed.ok_or((end..end + TRAILER, "its trailer is not that of the log record"))?;
    if root != row.root {
        return Err((row.table..end, "its tables are not those of the log record"));
    }
    let data_key = at.data_keys.get(&row.data_key).ok_or((12..16, "its data key is missing"))?;
    let key = derive(data_key, &row.uuid, &[b"drv1 seg", &at.vault, &at.id]);
    let additional = [row.uuid.to_vec(), [&at.id[..], &[1, 0]].concat()];
    let header_differs = bytes[..SEGMENT_HEADER] != header;
    let mut segment = Segment { key, additional, bytes, units: Vec::new(), header_differs, rows: Vec::new() };
    segment.tables(row, end, packed).ok_or((row.table..end, "its tables are malformed"))?;
    Ok(segment)
}

impl Segment {
    fn tables(&mut self, row: &SegmentRow, end: usize, packed: u32) -> Option<()> {
        let (mut fields, mut start) = (Fields(self.bytes.get(row.table..end)?), SEGMENT_HEADER);
        for _ in 0..row.units {
            let (length, packed, crc) = (fields.le(4)? as usize, fields.le(4)? as u32, fields.le(4)? as u32);
            self.units.push((start..start + length, packed & 0xff_ffff, (packed >> 24) as u8, crc));
            start += length;
        }
        let plain = self.open(0x8000_0000, packed & 0x7fff_ffff, (packed >> 31) as u8, fields.0)?;
        let (mut fields, mut last) = (Fields(&plain), 0u64);
        while !fields.0.is_empty() {
            let (volume, span, first) = (fields.varint()? as u16, fields.varint()?, fields.from(last)?);
            let (version, sectors) = (row.version(span)?, fields.varint()?);
            last = first.checked_add(sectors)?;
            let content = match fields.le(1)? {
                0 => None,
                _ => {
                    let (unit, sector) = (fields.varint()? as usize, fields.le(1)? as usize);
                    let fits = sectors <= 128
                        && (sector + sectors as usize) * 512 <= self.units.get(unit)?.1 as usize;
                    fits.then_some(Some((unit, sector)))?
                }
            };
            self.rows.push(Row { volume, version, first, sectors, content });
        }
        (start == row.table).then_some(())
    }

    fn open(&self, number: u32, plain: u32, codec: u8, sealed: &[u8]) -> Option<Vec<u8>> {
        let numbers = [&number.to_le_bytes()[..], &plain.to_le_bytes(), &[codec]].concat();
        let additional = [&self.additional[0], &numbers, &self.additional[1]].map(|part| &part[..]).concat();
        let body = unseal(&self.key, number, &additional, sealed)?;
        let length = (plain as usize).min(PLAIN_MAX);
        let body = if codec == 1 { zstd::bulk::decompress(&body, length).ok()? } else { body };
        (body.len() == plain as usize).then_some(body)
    }

    /// Returns how many units there are.
    pub(crate) fn count(&self) -> usize {
        self.units.len()
    }

    pub(crate) fn has_digest(&self, digest: &[u8; 32]) -> bool {
        blake3::hash(&self.bytes).as_bytes() == digest
    }

    /// Opens one unit. `Err` says which bytes are wrong, and why.
    pub(crate) fn unit(&self, number: usize) -> Result<Vec<u8>, (Range<usize>, &'static str)> {
        let (place, plain, codec, crc) = &self.units[number];
        if number == 0 && self.header_differs {
            return Err((0..SEGMENT_HEADER, "its header is not that of the log record"));
        }
        let sealed = self.bytes.get(place.clone()).unwrap_or_default();
        if crc32c::crc32c(sealed) != *crc {
            return Err((place.clone(), "the checksum of a unit differs"));
        }
        let opened = self.open(number as u32, *plain, *codec, sealed);
        opened.ok_or((place.clone(), "the seal of a unit is broken"))
    }
}
