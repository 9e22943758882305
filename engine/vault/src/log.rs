//! Log records: one per slot, chained by BLAKE3, sealed body, small segments inline behind it.
//!
//! Invariants
//! - LG-1 The header is the body's additional data: a record read at another slot, machine, vault
//!   or epoch does not open.
//! - LG-2 `prev` digests header and sealed body of the record before, not the segment inline behind it: that is
//!   covered by root, digest and seals in the body, so that rot in it costs what rot in any segment costs.
//! - LG-3 A body carries the whole head state after it, so the newest record alone restarts a writer.

use crate::codec::{Malformed, Put, Take, put_crc};
use crate::keys::ONCE;
use crate::segment::SegmentId;
use redoubt_core::change::ResyncReason;
use redoubt_core::names::{NAME_BYTES_MAX, NAMES_MAX};
use redoubt_core::{
    BatchPosition, Chain, Generation, MachineId, Marker, MarkerId, MarkerKind, Names, Sectors, VolumeId,
    VolumeIndex, WallTime, WriteSeq,
};
use redoubt_wire::aead::{Key, TAG_BYTES};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"DRLOG1\0\0";
pub(crate) const HEADER_BYTES: usize = 144;
/// Markers that are points in one commit; also bounds the version numbers of a slot.
pub(crate) const POINTS_MAX: usize = 4096;
/// Segments of one commit: 16 GiB at the target size.
pub(crate) const SEGMENTS_MAX: usize = 1024;
/// Volumes of a machine.
pub(crate) const VOLUMES_MAX: usize = 256;

/// A volume as a recovery point or the head shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Lasting identity.
    pub id: VolumeId,
    /// Size at that point.
    pub sectors: Sectors,
}

/// Volumes by ordinal.
pub type Volumes = BTreeMap<VolumeIndex, VolumeInfo>;

/// What the log says after its newest record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadState {
    /// Everything up to here is in the vault, durably.
    pub position: BatchPosition,
    /// Volumes with their sizes.
    pub volumes: Volumes,
    /// Whether the image is a legal one: false from a `ResyncBegin` to its `ResyncEnd`, and
    /// before the first.
    pub exact: bool,
    /// Why a resync is under way, if one is.
    pub resync: Option<ResyncReason>,
    /// What the machine and its volumes are called, those of older points included.
    pub names: Names,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Seal = 1,
    Commit = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PointRow {
    pub(crate) marker: Marker,
    pub(crate) seq: WriteSeq,
    pub(crate) exact: bool,
    pub(crate) volumes: Volumes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) uuid: u128,
    pub(crate) length: u64,
    pub(crate) tail: u64,
    pub(crate) units: u32,
    pub(crate) root: [u8; 32],
    /// BLAKE3 of the whole segment, for scrubbing without a key.
    pub(crate) digest: [u8; 32],
    pub(crate) inline: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) from: WriteSeq,
    pub(crate) head: HeadState,
    pub(crate) points: Vec<PointRow>,
    pub(crate) segments: Vec<SegmentRow>,
    /// Units sealed with the record's data key by all commits up to this one, as far as they are known.
    pub(crate) sealed: u64,
}

/// The clear part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) vault: u128,
    pub(crate) machine: MachineId,
    pub(crate) slot: u64,
    pub(crate) epoch: u64,
    pub(crate) writer: u128,
    pub(crate) kind: Kind,
    pub(crate) prev: [u8; 32],
    pub(crate) dek: u32,
}

impl Header {
    fn encode(&self, body_bytes: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put(MAGIC);
        header.put_u16(crate::vault::MAJOR);
        header.put_u16(crate::vault::MINOR);
        header.put_u8(self.kind as u8);
        header.put(&[0; 3]);
        header.put_u128(self.vault);
        header.put_u128(self.machine.0);
        header.put_u64(self.slot);
        header.put_u64(self.epoch);
        header.put_u128(self.writer);
        header.put(&self.prev);
        header.put_u32(self.dek);
        header.put_u32(body_bytes);
        header.resize(HEADER_BYTES - 4, 0);
        put_crc(&mut header);
        header
    }

    fn decode(bytes: &[u8]) -> Result<(Header, u32), Malformed> {
        let mut take = Take::new(crate::codec::checked_crc(bytes)?);
        if take.array()? != *MAGIC {
            return Err(Malformed("not a log record"));
        }
        if take.u16()? != crate::vault::MAJOR {
            return Err(Malformed("unknown major format"));
        }
        take.u16()?;
        let kind = match take.u8()? {
            1 => Kind::Seal,
            2 => Kind::Commit,
            _ => return Err(Malformed("unknown kind of record")),
        };
        take.bytes(3)?;
        let (vault, machine) = (take.u128()?, MachineId(take.u128()?));
        let (slot, epoch, writer, prev) = (take.u64()?, take.u64()?, take.u128()?, take.array()?);
        let (dek, body) = (take.u32()?, take.u32()?);
        Ok((Header { vault, machine, slot, epoch, writer, kind, prev, dek }, body))
    }

    fn key(&self, dek: &Key) -> Key {
        let mut salt = Vec::with_capacity(40);
        salt.put_u128(self.machine.0);
        salt.put_u64(self.slot);
        salt.put_u128(self.writer);
        dek.derive(&salt, &[b"drv1 log", &self.vault.to_be_bytes()])
    }
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogRecord {
    pub(crate) header: Header,
    pub(crate) body: Body,
    /// Where an inline segment starts in the object.
    pub(crate) inline_at: u64,
}

impl LogRecord {
    pub(crate) fn segment_id(&self, row: &SegmentRow) -> SegmentId {
        let header = &self.header;
        let (vault, machine, epoch, dek) = (header.vault, header.machine, header.epoch, header.dek);
        SegmentId { vault, machine, epoch, uuid: row.uuid, dek }
    }
}

/// Encodes a record. The pair (slot, writer) must never be encoded twice with different bodies.
pub(crate) fn encode(header: &Header, body: &Body, dek: &Key, inline: Option<&[u8]>) -> Vec<u8> {
    let mut sealed = encode_body(body);
    let mut bytes = header.encode((sealed.len() + TAG_BYTES) as u32);
    let tag = header.key(dek).seal(ONCE, &bytes, &mut sealed);
    bytes.put(&sealed);
    bytes.put(&tag);
    bytes.put(inline.unwrap_or(&[]));
    bytes
}

/// Reads only the clear header.
pub(crate) fn peek(bytes: &[u8]) -> Result<(Header, u32), Malformed> {
    Header::decode(bytes.get(..HEADER_BYTES).ok_or(Malformed("shorter than its header"))?)
}

/// Opens a record's body.
pub(crate) fn open_body(bytes: &[u8], dek: &Key) -> Result<Vec<u8>, Malformed> {
    let (header, length) = peek(bytes)?;
    let mut take = Take::new(bytes);
    let aad = take.bytes(HEADER_BYTES)?;
    let sealed = take.bytes(length as usize)?;
    let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Malformed("shorter than its tag"))?;
    let mut body = body.to_vec();
    header.key(dek).open(ONCE, aad, &mut body, tag).map_err(|_| Malformed("the seal is broken"))?;
    Ok(body)
}

/// Returns the digest that the next record names (LG-2), of a record that decoded.
pub(crate) fn digest(bytes: &[u8], record: &LogRecord) -> [u8; 32] {
    *blake3::hash(&bytes[..record.inline_at as usize]).as_bytes()
}

/// The same of a record that was only looked at: of as much of it as its header says, if there is that much.
pub(crate) fn peek_digest(bytes: &[u8]) -> Option<[u8; 32]> {
    let (_, length) = peek(bytes).ok()?;
    let record = bytes.get(..HEADER_BYTES + length as usize)?;
    Some(*blake3::hash(record).as_bytes())
}

/// Decodes and checks a record; of an inline segment not even the length (LG-2).
pub(crate) fn decode(bytes: &[u8], dek: &Key) -> Result<LogRecord, Malformed> {
    let (header, length) = peek(bytes)?;
    let body = decode_body(&open_body(bytes, dek)?)?;
    let inline_at = (HEADER_BYTES + length as usize) as u64;
    if body.segments.iter().filter(|row| row.inline).count() > 1 {
        return Err(Malformed("more than one segment is inline"));
    }
    Ok(LogRecord { header, body, inline_at })
}

fn put_volumes(out: &mut Vec<u8>, volumes: &Volumes) {
    out.put_u16(volumes.len() as u16);
    for (index, info) in volumes {
        out.put_u16(index.0);
        out.put_u128(info.id.0);
        out.put_u64(info.sectors.0);
    }
}

fn count(take: &mut Take<'_>, limit: usize) -> Result<usize, Malformed> {
    let count = usize::from(take.u16()?);
    if count > limit { Err(Malformed("a count is over its limit")) } else { Ok(count) }
}

fn take_volumes(take: &mut Take<'_>) -> Result<Volumes, Malformed> {
    let mut volumes = Volumes::new();
    for _ in 0..count(take, VOLUMES_MAX)? {
        let index = VolumeIndex(take.u16()?);
        let info = VolumeInfo { id: VolumeId(take.u128()?), sectors: Sectors(take.u64()?) };
        volumes.insert(index, info);
    }
    Ok(volumes)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u8(text.len() as u8);
    out.put(text.as_bytes());
}

fn take_text<'a>(take: &mut Take<'a>) -> Result<&'a str, Malformed> {
    let length = usize::from(take.u8()?);
    let text = std::str::from_utf8(take.bytes(length)?).ok().filter(|text| text.len() <= NAME_BYTES_MAX);
    text.ok_or(Malformed("a name is too long, or no text"))
}

fn put_names(out: &mut Vec<u8>, names: &Names) {
    put_text(out, names.machine());
    out.put_u16(names.volumes().len() as u16);
    for (id, name) in names.volumes() {
        out.put_u128(id.0);
        put_text(out, name);
    }
}

fn take_names(take: &mut Take<'_>) -> Result<Names, Malformed> {
    let mut names = Names::default();
    names.call_machine(take_text(take)?);
    for _ in 0..count(take, NAMES_MAX)? {
        let id = VolumeId(take.u128()?);
        names.call_volume(id, take_text(take)?);
    }
    Ok(names)
}

const REASONS: [ResyncReason; 7] = [
    ResyncReason::Initial,
    ResyncReason::UncleanStop,
    ResyncReason::Overflow,
    ResyncReason::StageLost,
    ResyncReason::Fork,
    ResyncReason::Untracked,
    ResyncReason::Requested,
];
const KINDS: [MarkerKind; 3] = [MarkerKind::Crash, MarkerKind::App, MarkerKind::Planned];

/// Numbers start at 1 in the order of the tables above; 0 means none.
fn number<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|entry| entry == value).map_or(0, |at| at as u8 + 1)
}

pub(crate) fn put_head(out: &mut Vec<u8>, head: &HeadState) {
    out.put_u64(head.position.generation.0);
    out.put_u64(head.position.seq.0);
    out.put(&head.position.chain.0);
    out.put_u8(u8::from(head.exact));
    out.put_u8(head.resync.map_or(0, |reason| number(&REASONS, &reason)));
    put_volumes(out, &head.volumes);
    put_names(out, &head.names);
}

pub(crate) fn put_point(out: &mut Vec<u8>, point: &PointRow) {
    out.put_u128(point.marker.id.0);
    out.put_u8(number(&KINDS, &point.marker.kind));
    out.put_u64(point.marker.wall.0);
    out.put_u64(point.seq.0);
    out.put_u8(u8::from(point.exact));
    put_volumes(out, &point.volumes);
}

fn encode_body(body: &Body) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(body.from.0);
    put_head(&mut out, &body.head);
    out.put_u16(body.points.len() as u16);
    body.points.iter().for_each(|point| put_point(&mut out, point));
    out.put_u16(body.segments.len() as u16);
    for row in &body.segments {
        out.put_u128(row.uuid);
        out.put_u64(row.length);
        out.put_u64(row.tail);
        out.put_u32(row.units);
        out.put(&row.root);
        out.put(&row.digest);
        out.put_u8(u8::from(row.inline));
    }
    out.put_u64(body.sealed);
    out
}

pub(crate) fn take_head(take: &mut Take<'_>) -> Result<HeadState, Malformed> {
    let (generation, seq) = (Generation(take.u64()?), WriteSeq(take.u64()?));
    let position = BatchPosition { generation, seq, chain: Chain(take.array()?) };
    let exact = take.flag()?;
    let resync = match take.u8()? {
        0 => None,
        at => Some(*REASONS.get(usize::from(at) - 1).ok_or(Malformed("unknown reason of a resync"))?),
    };
    Ok(HeadState { position, exact, resync, volumes: take_volumes(take)?, names: take_names(take)? })
}

pub(crate) fn take_point(take: &mut Take<'_>) -> Result<PointRow, Malformed> {
    let id = MarkerId(take.u128()?);
    let at = usize::from(take.u8()?).wrapping_sub(1);
    let kind = *KINDS.get(at).ok_or(Malformed("unknown kind of marker"))?;
    let marker = Marker { id, kind, wall: WallTime(take.u64()?) };
    let (seq, exact) = (WriteSeq(take.u64()?), take.flag()?);
    Ok(PointRow { marker, seq, exact, volumes: take_volumes(take)? })
}

pub(crate) fn decode_body(bytes: &[u8]) -> Result<Body, Malformed> {
    let mut take = Take::new(bytes);
    let (from, head) = (WriteSeq(take.u64()?), take_head(&mut take)?);
    let mut points = Vec::new();
    for _ in 0..count(&mut take, POINTS_MAX)? {
        points.push(take_point(&mut take)?);
    }
    let mut segments = Vec::new();
    for _ in 0..count(&mut take, SEGMENTS_MAX)? {
        let (uuid, length, tail, units) = (take.u128()?, take.u64()?, take.u64()?, take.u32()?);
        let (root, digest, inline) = (take.array()?, take.array()?, take.flag()?);
        if length > 32 << 20 || tail > length {
            return Err(Malformed("a segment has an impossible length"));
        }
        segments.push(SegmentRow { uuid, length, tail, units, root, digest, inline });
    }
    let sealed = take.u64()?;
    take.finish()?;
    Ok(Body { from, head, points, segments, sealed })
}
