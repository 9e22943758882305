//! Catalogues: all that is not log, in versions: which points there are, which runs index the log up to a slot,
//! what nobody needs any more.
//!
//! Invariants
//! - CA-1 A catalogue names the digest of the slot it ends with: one that was made of another log is noticed.
//! - CA-2 It is put after every object it names, created once, and never changed.
//! - CA-3 Its clear header only says where to look: nothing is deleted or served because of it.

use super::key::{LEVELS, Space, Version};
use super::run::{Row, Run};
use super::seal::{Blob, TableId};
use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::keys::ONCE;
use crate::log::{HeadState, POINTS_MAX, put_head, put_point, take_head, take_point};
use crate::names;
use crate::reader::{PointId, PointInfo};
use crate::segment::{Shrinker, inflater};
use redoubt_core::maintenance::{PointClock, PointTime};
use redoubt_core::{MachineId, VolumeIndex, WallTime};
use redoubt_ports::StoreKey;
use redoubt_wire::aead::{Key, TAG_BYTES};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"DRCAT1\0\0";
pub(crate) const HEADER_BYTES: usize = 128;
/// Required features this program knows.
const KNOWN_FEATURES: u64 = 0;
/// Plain bytes at most: the directory of some billion entries.
const PLAIN_MAX: usize = 64 << 20;
/// Runs at most: merging keeps them to a few per power of four.
const RUNS_MAX: usize = 1024;
const RAW: u8 = 0;

/// A table object: whose work it is, and what a scrub needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    /// Epoch of the maintainer that wrote it: part of its name.
    pub(crate) epoch: u64,
    pub(crate) length: u64,
    /// BLAKE3 of all its bytes, for scrubbing without a key.
    pub(crate) digest: [u8; 32],
    /// Data key of its parts.
    pub(crate) dek: u32,
}

/// An object that a maintainer may delete some day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Table { epoch: u64, uuid: u128 },
}

impl Object {
    pub(crate) fn name(&self, machine: MachineId) -> StoreKey {
        match *self {
            Object::Table { epoch, uuid } => names::table(machine, epoch, uuid),
        }
    }
}

/// A point, and the time by which it ages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PointOf {
    pub(crate) info: PointInfo,
    pub(crate) at: PointTime,
}

/// One version of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    /// From 1; the empty one before the first is 0.
    pub(crate) version: u64,
    /// BLAKE3 of all bytes of the version before; zeros if there was none to be read.
    pub(crate) before: [u8; 32],
    /// Epoch of the maintainer that wrote it.
    pub(crate) maintainer: u64,
    /// The runs end with this slot.
    pub(crate) slot: u64,
    /// BLAKE3 of that slot's header and body, and the epoch of the log there.
    pub(crate) digest: [u8; 32],
    pub(crate) epoch: u64,
    pub(crate) head: HeadState,
    /// The data key it is sealed with.
    pub(crate) dek: u32,
    /// Points up to that slot that can be listed and pinned, oldest first.
    pub(crate) live: Vec<PointOf>,
    /// Points that nobody new can pin, oldest first.
    pub(crate) retired: Vec<PointOf>,
    /// The clock at the newest point.
    pub(crate) clock: PointClock,
    pub(crate) tables: BTreeMap<u128, TableInfo>,
    /// Oldest first; together they cover all slots.
    pub(crate) runs: Vec<Run>,
    /// What this version does not name and one before did, by the first version that did not.
    pub(crate) garbage: BTreeMap<Object, u64>,
}

impl Catalogue {
    /// Tells whether it names this point.
    pub(crate) fn has(&self, id: PointId) -> bool {
        let among = |points: &[PointOf]| points.binary_search_by_key(&id, |point| point.info.id).is_ok();
        among(&self.live) || among(&self.retired)
    }

    /// Returns the objects that only a maintainer writes and that this version needs.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
        self.tables.iter().map(|(uuid, table)| Object::Table { epoch: table.epoch, uuid: *uuid })
    }
}

fn key(id: &TableId, dek: &Key) -> Key {
    let (vault, machine) = (id.vault.to_be_bytes(), id.machine.0.to_be_bytes());
    dek.derive(&id.uuid.to_be_bytes(), &[b"drv1 cat", &vault, &machine])
}

/// Encodes a catalogue under its own identity; `None` if it has grown over its limit.
pub(crate) fn encode(id: &TableId, catalogue: &Catalogue, dek: &Key) -> Option<Vec<u8>> {
    let plain = encode_body(catalogue);
    if plain.len() > PLAIN_MAX {
        return None;
    }
    let mut body = Vec::new();
    let codec = Shrinker::new().put(&plain, &mut body);
    let mut object = Vec::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
    object.put(MAGIC);
    object.put_u16(crate::vault::MAJOR);
    object.put_u16(crate::vault::MINOR);
    object.put_u32(id.dek);
    object.put_u64(KNOWN_FEATURES);
    object.put_u128(id.vault);
    object.put_u128(id.machine.0);
    object.put_u128(id.uuid);
    object.put_u64(catalogue.version);
    object.put_u64(catalogue.slot);
    object.put_u64(catalogue.maintainer);
    object.put_u32((body.len() + TAG_BYTES) as u32);
    object.put_u32(plain.len() as u32 | u32::from(codec) << 31);
    object.resize(HEADER_BYTES - 4, 0);
    put_crc(&mut object);
    let tag = key(id, dek).seal(ONCE, &object, &mut body);
    object.put(&body);
    object.put(&tag);
    Some(object)
}

/// Why a catalogue is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it requires unknown features {0:#x}: use a newer program")]
    UnknownFeature(u64),
}

/// The clear part of a catalogue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    id: TableId,
    version: u64,
    pub(crate) slot: u64,
    maintainer: u64,
    sealed: u32,
    packed: u32,
}

impl Header {
    /// The data key that the catalogue is sealed with.
    pub(crate) fn dek(&self) -> u32 {
        self.id.dek
    }
}

/// Reads the clear header of a version of a machine's catalogue.
pub(crate) fn peek(bytes: &[u8], vault: u128, machine: MachineId, version: u64) -> Result<Header, Unusable> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Malformed("shorter than its header"))?;
    let mut take = Take::new(checked_crc(header)?);
    if take.array()? != *MAGIC || take.u16()? != crate::vault::MAJOR {
        return Err(Malformed("not a catalogue of this format").into());
    }
    take.u16()?;
    let (dek, unknown) = (take.u32()?, take.u64()? & !KNOWN_FEATURES);
    if unknown != 0 {
        return Err(Unusable::UnknownFeature(unknown));
    }
    if take.u128()? != vault || take.u128()? != machine.0 {
        return Err(Malformed("the catalogue belongs elsewhere").into());
    }
    let id = TableId { vault, machine, uuid: take.u128()?, dek };
    if take.u64()? != version {
        return Err(Malformed("the catalogue is another version").into());
    }
    let (slot, maintainer, sealed, packed) = (take.u64()?, take.u64()?, take.u32()?, take.u32()?);
    Ok(Header { id, version, slot, maintainer, sealed, packed })
}

/// Decodes and checks a version of the catalogue.
pub(crate) fn decode(
    bytes: &[u8],
    vault: u128,
    machine: MachineId,
    version: u64,
    dek: &Key,
) -> Result<Catalogue, Unusable> {
    let header = peek(bytes, vault, machine, version)?;
    let (clear, sealed) = bytes.split_at(HEADER_BYTES);
    let (codec, plain) = ((header.packed >> 31) as u8, (header.packed & !(1 << 31)) as usize);
    if header.sealed as usize != sealed.len() || plain > PLAIN_MAX {
        return Err(Malformed("the catalogue has an impossible length").into());
    }
    let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Malformed("shorter than its tag"))?;
    let mut body = body.to_vec();
    key(&header.id, dek).open(ONCE, clear, &mut body, tag).map_err(|_| Malformed("the seal is broken"))?;
    let body = match codec {
        RAW => body,
        _ => inflater()?.decompress(&body, plain).map_err(|_| Malformed("does not decompress"))?,
    };
    if body.len() != plain {
        return Err(Malformed("has the wrong length").into());
    }
    Ok(decode_body(&header, &body)?)
}

fn encode_body(catalogue: &Catalogue) -> Vec<u8> {
    let mut out = Vec::new();
    out.put(&catalogue.before);
    out.put(&catalogue.digest);
    out.put_u64(catalogue.epoch);
    put_head(&mut out, &catalogue.head);
    put_clock(&mut out, &catalogue.clock);
    put_points(&mut out, &catalogue.live);
    put_points(&mut out, &catalogue.retired);
    out.put_varint(catalogue.tables.len() as u64);
    for (uuid, table) in &catalogue.tables {
        out.put_u128(*uuid);
        out.put_varint(table.epoch);
        out.put_varint(table.length);
        out.put(&table.digest);
        out.put_varint(u64::from(table.dek));
    }
    let ordinals: BTreeMap<u128, u64> = catalogue.tables.keys().copied().zip(0..).collect();
    out.put_varint(catalogue.runs.len() as u64);
    for run in &catalogue.runs {
        out.put_varint(run.to);
        out.put_varint(run.entries);
        out.put_varint(run.rows().len() as u64);
        for row in run.rows() {
            out.put_varint(u64::from(row.space.volume.0));
            out.put_u8(row.space.level);
            out.put_varint(u64::from(row.space.high));
            out.put_varint(u64::from(row.first));
            out.put_varint(row.cut.0);
            out.put_varint(u64::from(row.last - row.first));
            put_blob(&mut out, &row.blob, &ordinals);
        }
    }
    out.put_varint(catalogue.garbage.len() as u64);
    for (object, since) in &catalogue.garbage {
        let Object::Table { epoch, uuid } = *object;
        out.put_u8(TABLE);
        out.put_varint(epoch);
        out.put_u128(uuid);
        out.put_varint(*since);
    }
    out
}

/// Kinds of garbage.
const TABLE: u8 = 1;

fn put_clock(out: &mut Vec<u8>, clock: &PointClock) {
    let PointClock { now, source, maintainer, source_credit, maintainer_credit } = *clock;
    for value in [now.0, source.0, maintainer.0, source_credit, maintainer_credit] {
        out.put_varint(value);
    }
}

fn take_clock(take: &mut Take<'_>) -> Result<PointClock, Malformed> {
    Ok(PointClock {
        now: PointTime(take.varint()?),
        source: WallTime(take.varint()?),
        maintainer: WallTime(take.varint()?),
        source_credit: take.varint()?,
        maintainer_credit: take.varint()?,
    })
}

fn put_points(out: &mut Vec<u8>, points: &[PointOf]) {
    out.put_varint(points.len() as u64);
    for PointOf { info, at } in points {
        out.put_varint(info.id.slot);
        out.put_u16(info.id.ordinal);
        out.put_varint(at.0);
        put_point(out, &info.row());
    }
}

fn take_points(take: &mut Take<'_>, slot: u64) -> Result<Vec<PointOf>, Malformed> {
    let mut points: Vec<PointOf> = Vec::new();
    for _ in 0..take.varint()? {
        let id = PointId { slot: take.varint()?, ordinal: take.u16()? };
        if usize::from(id.ordinal) >= POINTS_MAX || points.last().is_some_and(|last| last.info.id >= id) {
            return Err(Malformed("the points are out of order"));
        }
        if id.slot > slot {
            return Err(Malformed("a point lies behind the catalogue's slot"));
        }
        let at = PointTime(take.varint()?);
        points.push(PointOf { info: PointInfo::new(id, take_point(take)?), at });
    }
    Ok(points)
}

fn put_blob(out: &mut Vec<u8>, blob: &Blob, ordinals: &BTreeMap<u128, u64>) {
    out.put_varint(ordinals.get(&blob.table).copied().unwrap_or(u64::MAX));
    out.put_varint(u64::from(blob.number));
    out.put_varint(u64::from(blob.offset));
    out.put_varint(u64::from(blob.sealed));
    out.put_varint(u64::from(blob.plain) << 1 | u64::from(blob.codec));
}

fn narrow(take: &mut Take<'_>) -> Result<u32, Malformed> {
    u32::try_from(take.varint()?).map_err(|_| Malformed("a number of the catalogue is too large"))
}

pub(crate) fn decode_body(header: &Header, bytes: &[u8]) -> Result<Catalogue, Malformed> {
    let Header { version, slot, maintainer, .. } = *header;
    let mut take = Take::new(bytes);
    let (before, digest, epoch, head) = (take.array()?, take.array()?, take.u64()?, take_head(&mut take)?);
    let clock = take_clock(&mut take)?;
    let (live, retired) = (take_points(&mut take, slot)?, take_points(&mut take, slot)?);
    let mut catalogue = Catalogue {
        version,
        before,
        maintainer,
        slot,
        digest,
        epoch,
        head,
        dek: header.dek(),
        live,
        retired,
        clock,
        ..Catalogue::default()
    };
    let mut uuids = Vec::new();
    for _ in 0..take.varint()? {
        let uuid = take.u128()?;
        let (epoch, length, digest) = (take.varint()?, take.varint()?, take.array()?);
        let table = TableInfo { epoch, length, digest, dek: narrow(&mut take)? };
        uuids.push(uuid);
        catalogue.tables.insert(uuid, table);
    }
    let mut from = 1;
    for _ in 0..take.varint()? {
        let run = take_run(&mut take, from, &uuids, &catalogue.tables)?;
        from = run
            .to
            .checked_add(1)
            .filter(|_| run.to >= from)
            .ok_or(Malformed("a run ends before it begins"))?;
        catalogue.runs.push(run);
        if catalogue.runs.len() > RUNS_MAX {
            return Err(Malformed("too many runs"));
        }
    }
    for _ in 0..take.varint()? {
        if take.u8()? != TABLE {
            return Err(Malformed("garbage of an unknown kind"));
        }
        let object = Object::Table { epoch: take.varint()?, uuid: take.u128()? };
        catalogue.garbage.insert(object, take.varint()?);
    }
    take.finish()?;
    if from - 1 != slot {
        return Err(Malformed("the runs do not cover the catalogue's slots"));
    }
    Ok(catalogue)
}

fn take_run(
    take: &mut Take<'_>,
    from: u64,
    uuids: &[u128],
    tables: &BTreeMap<u128, TableInfo>,
) -> Result<Run, Malformed> {
    let mut run = Run { from, to: take.varint()?, entries: take.varint()?, ..Run::default() };
    for _ in 0..take.varint()? {
        let volume = u16::try_from(narrow(take)?).map_err(|_| Malformed("a volume's number is too large"))?;
        let space = Space { volume: VolumeIndex(volume), level: take.u8()?, high: narrow(take)? };
        let (first, cut, more) = (narrow(take)?, Version(take.varint()?), narrow(take)?);
        let last = first.checked_add(more).ok_or(Malformed("a cell's number overflows"))?;
        let row = Row { space, first, cut, last, blob: take_blob(take, uuids, tables)? };
        let key = |row: &Row| (row.space, row.first, row.cut);
        let follows = run
            .rows()
            .last()
            .is_none_or(|before| key(before) <= key(&row) && (before.space < space || before.last <= first));
        if !follows || space.level >= LEVELS {
            return Err(Malformed("the directory is out of order"));
        }
        run.push(row);
    }
    Ok(run)
}

fn take_blob(
    take: &mut Take<'_>,
    uuids: &[u128],
    tables: &BTreeMap<u128, TableInfo>,
) -> Result<Blob, Malformed> {
    let ordinal = usize::try_from(take.varint()?).unwrap_or(usize::MAX);
    let table = *uuids.get(ordinal).ok_or(Malformed("a part of no table"))?;
    let (number, offset, sealed, packed) = (narrow(take)?, narrow(take)?, narrow(take)?, take.varint()?);
    let plain = u32::try_from(packed >> 1).map_err(|_| Malformed("a part is too long"))?;
    let end = u64::from(offset) + u64::from(sealed);
    let info = tables.get(&table).filter(|table| end <= table.length);
    let TableInfo { epoch, dek, .. } = *info.ok_or(Malformed("a part ends behind its table"))?;
    Ok(Blob { table, epoch, dek, number, offset, sealed, plain, codec: (packed & 1) as u8 })
}
