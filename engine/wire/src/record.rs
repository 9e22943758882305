//! The body of a batch: fixed record headers, then what they point at.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 1 | detail (marker kind, resync reason), else 0 |
//! | 2 | 2 | volume, else 0 |
//! | 4 | 4 | bytes of this record in the tail |
//! | 8 | 8 | first sector, size or wall time, else 0 |
//! | 16 | 8 | sectors, else 0 |
//!
//! The headers of all records come first, then the tails in the same order. Integers are
//! little-endian. Sequences are not stored: the batch is contiguous.
//!
//! Decoding canonical: a field that must be zero and is not is refused, so equal batches are equal bytes.

use crate::reader::{Reader, Short};
use bytes::{BufMut, Bytes, BytesMut};
use redoubt_core::change::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Change, Marker, MarkerKind, RECORD_BYTES_MAX, Record, ResyncReason,
};
use redoubt_core::sealed::RECORD_HEADER_BYTES;
use redoubt_core::{Extent, Lba, MarkerId, SECTOR_BYTES, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq};
use thiserror::Error;

/// Why bytes are not the body of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The body ends early or late.
    #[error("the body's length does not match its records")]
    Length,
    /// More records or bytes than a batch may have, or none.
    #[error("a body of {records} records and {bytes} bytes is outside the limits")]
    Limit {
        /// Records announced.
        records: usize,
        /// Bytes present.
        bytes: usize,
    },
    /// A field has no legal value.
    #[error("record {index} has an illegal {field}")]
    Field {
        /// Ordinal in the batch.
        index: usize,
        /// Which field.
        field: &'static str,
    },
}

impl From<Short> for RecordError {
    fn from(_: Short) -> RecordError {
        RecordError::Length
    }
}

struct Fixed {
    kind: u8,
    detail: u8,
    volume: u16,
    tail: u32,
    a: u64,
    b: u64,
}

const ATTACH: u8 = 1;
const WRITE: u8 = 2;
const WRITE_ZEROES: u8 = 3;
const TRIM: u8 = 4;
const RESIZE: u8 = 5;
const MARKER: u8 = 6;
const RESYNC_BEGIN: u8 = 7;
const RESYNC_WRITE: u8 = 8;
const RESYNC_ZEROES: u8 = 9;
const RESYNC_END: u8 = 10;

/// Bytes of an identity in the tail.
const ID_BYTES: u32 = 16;

fn fixed(change: &Change) -> Fixed {
    let zero = Fixed { kind: 0, detail: 0, volume: 0, tail: 0, a: 0, b: 0 };
    let data = |kind, volume: &VolumeIndex, lba: &Lba, payload: &Bytes| Fixed {
        kind,
        volume: volume.0,
        a: lba.0,
        tail: payload.len() as u32,
        ..zero
    };
    let range = |kind, volume: &VolumeIndex, extent: &Extent| Fixed {
        kind,
        volume: volume.0,
        a: extent.lba.0,
        b: extent.sectors.0,
        detail: 0,
        tail: 0,
    };
    match change {
        Change::Attach { volume, sectors, .. } => {
            Fixed { kind: ATTACH, volume: volume.0, a: sectors.0, tail: ID_BYTES, detail: 0, b: 0 }
        }
        Change::Write { volume, lba, payload } => data(WRITE, volume, lba, payload),
        Change::WriteZeroes { volume, extent } => range(WRITE_ZEROES, volume, extent),
        Change::Trim { volume, extent } => range(TRIM, volume, extent),
        Change::Resize { volume, sectors } => {
            Fixed { kind: RESIZE, volume: volume.0, a: sectors.0, detail: 0, tail: 0, b: 0 }
        }
        Change::Marker(marker) => Fixed {
            kind: MARKER,
            detail: marker.kind as u8,
            a: marker.wall.0,
            tail: ID_BYTES,
            volume: 0,
            b: 0,
        },
        Change::ResyncBegin { reason } => {
            Fixed { kind: RESYNC_BEGIN, detail: *reason as u8, volume: 0, tail: 0, a: 0, b: 0 }
        }
        Change::ResyncWrite { volume, lba, payload } => data(RESYNC_WRITE, volume, lba, payload),
        Change::ResyncZeroes { volume, extent } => range(RESYNC_ZEROES, volume, extent),
        Change::ResyncEnd => Fixed { kind: RESYNC_END, detail: 0, volume: 0, tail: 0, a: 0, b: 0 },
    }
}

/// Returns the bytes the body of these records takes.
pub fn body_bytes(records: &[Record]) -> usize {
    records.iter().map(|record| RECORD_HEADER_BYTES + fixed(&record.change).tail as usize).sum()
}

/// Appends the body of these records.
pub fn encode_body(records: &[Record], out: &mut BytesMut) {
    for record in records {
        let fixed = fixed(&record.change);
        out.put_u8(fixed.kind);
        out.put_u8(fixed.detail);
        out.put_u16_le(fixed.volume);
        out.put_u32_le(fixed.tail);
        out.put_u64_le(fixed.a);
        out.put_u64_le(fixed.b);
    }
    for record in records {
        match &record.change {
            Change::Attach { id, .. } => out.put_u128_le(id.0),
            Change::Marker(marker) => out.put_u128_le(marker.id.0),
            Change::Write { payload, .. } | Change::ResyncWrite { payload, .. } => out.put_slice(payload),
            _ => {}
        }
    }
}

/// Decodes the body of `count` records that start at `first`. Payloads are slices of `body`.
pub fn decode_body(body: &Bytes, first: WriteSeq, count: usize) -> Result<Vec<Record>, RecordError> {
    let limit = RecordError::Limit { records: count, bytes: body.len() };
    if count == 0 || count > BATCH_RECORDS_MAX {
        return Err(limit);
    }
    let heads = count * RECORD_HEADER_BYTES;
    let mut reader = Reader(body.get(..heads).ok_or(RecordError::Length)?);
    let mut at = heads;
    let mut payload_bytes = 0;
    let mut records = Vec::with_capacity(count);
    for index in 0..count {
        let fixed = Fixed {
            kind: reader.u8()?,
            detail: reader.u8()?,
            volume: reader.u16()?,
            tail: reader.u32()?,
            a: reader.u64()?,
            b: reader.u64()?,
        };
        let end = at.checked_add(fixed.tail as usize).filter(|end| *end <= body.len());
        let end = end.ok_or(RecordError::Length)?;
        let seq = first.0.checked_add(index as u64).ok_or(RecordError::Field { index, field: "sequence" })?;
        let change =
            change(&fixed, body.slice(at..end)).map_err(|field| RecordError::Field { index, field })?;
        payload_bytes += change.payload().map_or(0, Bytes::len);
        records.push(Record { seq: WriteSeq(seq), change });
        at = end;
    }
    if at != body.len() {
        return Err(RecordError::Length);
    }
    if payload_bytes > BATCH_BYTES_MAX {
        return Err(limit);
    }
    Ok(records)
}

fn change(fixed: &Fixed, tail: Bytes) -> Result<Change, &'static str> {
    let volume = VolumeIndex(fixed.volume);
    let must = |ok: bool, field: &'static str| if ok { Ok(()) } else { Err(field) };
    must(fixed.detail == 0 || matches!(fixed.kind, MARKER | RESYNC_BEGIN), "detail")?;
    must(fixed.volume == 0 || !matches!(fixed.kind, MARKER | RESYNC_BEGIN | RESYNC_END), "volume")?;
    must(fixed.b == 0 || matches!(fixed.kind, WRITE_ZEROES | TRIM | RESYNC_ZEROES), "second number")?;
    must(fixed.a == 0 || !matches!(fixed.kind, RESYNC_BEGIN | RESYNC_END), "first number")?;
    match fixed.kind {
        ATTACH | MARKER => must(fixed.tail == ID_BYTES, "identity")?,
        WRITE | RESYNC_WRITE => payload_is_legal(fixed)?,
        _ => must(fixed.tail == 0, "tail")?,
    }
    let id = || <[u8; 16]>::try_from(&tail[..]).map(u128::from_le_bytes).map_err(|_| "identity");
    Ok(match fixed.kind {
        ATTACH => Change::Attach { volume, id: VolumeId(id()?), sectors: sectors(fixed.a)? },
        WRITE => Change::Write { volume, lba: Lba(fixed.a), payload: tail },
        WRITE_ZEROES => Change::WriteZeroes { volume, extent: extent(fixed)? },
        TRIM => Change::Trim { volume, extent: extent(fixed)? },
        RESIZE => Change::Resize { volume, sectors: sectors(fixed.a)? },
        MARKER => Change::Marker(Marker {
            id: MarkerId(id()?),
            kind: marker_kind(fixed.detail)?,
            wall: WallTime(fixed.a),
        }),
        RESYNC_BEGIN => Change::ResyncBegin { reason: resync_reason(fixed.detail)? },
        RESYNC_WRITE => Change::ResyncWrite { volume, lba: Lba(fixed.a), payload: tail },
        RESYNC_ZEROES => Change::ResyncZeroes { volume, extent: extent(fixed)? },
        RESYNC_END => Change::ResyncEnd,
        _ => return Err("kind"),
    })
}

/// Byte addresses must fit 64 bits, or later arithmetic would overflow.
const SECTORS_MAX: u64 = u64::MAX / SECTOR_BYTES;

fn sectors(count: u64) -> Result<Sectors, &'static str> {
    if count <= SECTORS_MAX { Ok(Sectors(count)) } else { Err("size") }
}

fn extent(fixed: &Fixed) -> Result<Extent, &'static str> {
    let end = fixed.a.checked_add(fixed.b).filter(|end| *end <= SECTORS_MAX && fixed.b > 0);
    end.map(|_| Extent::new(fixed.a, fixed.b)).ok_or("extent")
}

fn payload_is_legal(fixed: &Fixed) -> Result<(), &'static str> {
    let bytes = u64::from(fixed.tail);
    let sectors = bytes / SECTOR_BYTES;
    let fits = fixed.a.checked_add(sectors).is_some_and(|end| end <= SECTORS_MAX);
    let legal = bytes > 0 && bytes <= RECORD_BYTES_MAX as u64 && bytes.is_multiple_of(SECTOR_BYTES);
    if fits && legal { Ok(()) } else { Err("payload") }
}

fn marker_kind(detail: u8) -> Result<MarkerKind, &'static str> {
    let kinds = [MarkerKind::Crash, MarkerKind::App, MarkerKind::Planned];
    kinds.into_iter().find(|kind| *kind as u8 == detail).ok_or("marker kind")
}

fn resync_reason(detail: u8) -> Result<ResyncReason, &'static str> {
    let reasons = [
        ResyncReason::Initial,
        ResyncReason::UncleanStop,
        ResyncReason::Overflow,
        ResyncReason::StageLost,
        ResyncReason::Fork,
        ResyncReason::Untracked,
        ResyncReason::Requested,
    ];
    reasons.into_iter().find(|reason| *reason as u8 == detail).ok_or("resync reason")
}
