//! Sealed batches: encrypted once at the source, immutable on every hop (decision 0003).
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `RDSB` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | flags |
//! | 8 | 16 | machine |
//! | 24 | 8 | generation |
//! | 32 | 8 | first sequence |
//! | 40 | 8 | last sequence |
//! | 48 | 4 | records |
//! | 52 | 4 | body bytes |
//! | 56 | 32 | chain before |
//! | 88 | 8 | id of the stream key (decision 0025) |
//! | 96 | 16 | tag |
//! | 112 | | body, AES-256-GCM |
//!
//! Key: per (machine, generation). Nonce: the first sequence, never used twice (ID-1). Associated
//! data: the first 96 bytes. Chain: BLAKE3 of the 112 header bytes; the tag in it stands for the body.
//!
//! Invariants
//! - SB-1 Opening checks that the clear flags say what the records say.
//! - SB-2 Nothing is allocated by a length that was not checked against what is present.

use crate::aead::{BrokenSeal, StreamKey, StreamKeyId, TAG_BYTES, counter_nonce};
use crate::reader::{Reader, Short};
use crate::record::{self, RecordError};
use bytes::{BufMut, Bytes, BytesMut};
use redoubt_core::change::{BATCH_RECORDS_MAX, Batch, BatchError, Change, Record};
use redoubt_core::planted::{self, Bug};
use redoubt_core::sealed::{SEALED_BYTES_MAX, SEALED_HEADER_BYTES, SealedBatch, SealedFlags, SealedMeta};
use redoubt_core::{Chain, Generation, MachineId, WriteSeq};
use thiserror::Error;

const MAGIC: [u8; 4] = redoubt_core::sealed::SEALED_MAGIC;
const VERSION: u16 = 1;
const AAD_BYTES: usize = SEALED_HEADER_BYTES - TAG_BYTES;
const KEY_AT: usize = 88;

/// Why bytes are not a sealed batch, or cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// Too short for the header, or not as long as the header says.
    #[error("{found} bytes are not the length of the sealed batch")]
    Length {
        /// Bytes present.
        found: usize,
    },
    /// Not a sealed batch.
    #[error("these bytes are no sealed batch (wrong magic)")]
    Magic,
    /// Written by a newer engine.
    #[error("sealed batch format {0} is unknown; this engine reads format 1")]
    Version(u16),
    /// A header field has no legal value.
    #[error("the sealed batch's header has an illegal {0}")]
    Header(&'static str),
    /// Sealed under another stream key: what holds it was given another vault key since.
    #[error("the batch is sealed under the stream key {found}; the one at hand is {ours}")]
    OtherKey {
        /// The key it was sealed with.
        found: StreamKeyId,
        /// The key at hand.
        ours: StreamKeyId,
    },
    /// The key does not open it: damage.
    #[error(transparent)]
    Broken(#[from] BrokenSeal),
    /// It opened, but its body is malformed: a fault of the sender.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// It opened, but its records are no batch: a fault of the sender.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The clear flags do not match the records: a fault of the sender.
    #[error("the clear flags do not match the records")]
    Flags,
}

impl From<Short> for SealError {
    fn from(_: Short) -> SealError {
        SealError::Header("length")
    }
}

/// Derives the flags a hop must see from the records.
pub fn flags_of(records: &[Record]) -> SealedFlags {
    let body = records.iter().find(|record| !matches!(record.change, Change::Attach { .. }));
    let starts = body.is_some_and(|record| matches!(record.change, Change::ResyncBegin { .. }));
    let marker = records.iter().any(|record| matches!(record.change, Change::Marker(_)));
    SealedFlags(
        if starts { SealedFlags::STARTS_RESYNC } else { 0 }
            | if marker { SealedFlags::HAS_MARKER } else { 0 },
    )
}

/// Seals a batch that continues the stream at `prev`. Copies each payload once.
///
/// # Panics
/// If the batch was not made by [`Batch::new`] (CH-1, bounds).
pub fn seal(key: &StreamKey, machine: MachineId, batch: &Batch, prev: Chain) -> SealedBatch {
    assert!((1..=BATCH_RECORDS_MAX).contains(&batch.records.len()), "CH-1: a batch is within its bounds");
    let flags = flags_of(&batch.records);
    let body_bytes = record::body_bytes(&batch.records);
    let mut bytes = BytesMut::with_capacity(SEALED_HEADER_BYTES + body_bytes);
    bytes.put_slice(&MAGIC);
    bytes.put_u16_le(VERSION);
    bytes.put_u16_le(flags.0);
    bytes.put_u128_le(machine.0);
    bytes.put_u64_le(batch.generation.0);
    bytes.put_u64_le(batch.first().0);
    bytes.put_u64_le(batch.last().0);
    bytes.put_u32_le(batch.records.len() as u32);
    bytes.put_u32_le(body_bytes as u32);
    bytes.put_slice(&prev.0);
    bytes.put_slice(&key.id().0);
    bytes.put_bytes(0, TAG_BYTES);
    record::encode_body(&batch.records, &mut bytes);
    assert!(bytes.len() <= SEALED_BYTES_MAX, "a sealed batch is within its bound");
    if !is_in_the_clear(batch.generation) {
        let (header, body) = bytes.split_at_mut(SEALED_HEADER_BYTES);
        let batch_key = key.batch_key(machine.0, batch.generation.0);
        let tag = batch_key.seal(counter_nonce(batch.first().0), &header[..AAD_BYTES], body);
        header[AAD_BYTES..].copy_from_slice(&tag);
    }
    let chain = chain_of(&bytes[..SEALED_HEADER_BYTES]);
    let meta = SealedMeta {
        machine,
        generation: batch.generation,
        first: batch.first(),
        last: batch.last(),
        flags,
        prev,
        chain,
        bytes: bytes.len() as u32,
    };
    SealedBatch { meta, bytes: bytes.freeze() }
}

/// Tells whether a planted bug leaves a batch unsealed; the canary's only after an unclean start.
fn is_in_the_clear(generation: Generation) -> bool {
    planted::active(Bug::PlaintextFrame) || generation.0 > 1 && planted::active(Bug::Canary)
}

fn chain_of(header: &[u8]) -> Chain {
    Chain(*blake3::hash(header).as_bytes())
}

/// Reads the clear header without the key and checks it against the length present.
pub fn peek(bytes: &[u8]) -> Result<SealedMeta, SealError> {
    let wrong_length = SealError::Length { found: bytes.len() };
    let header = bytes.get(..SEALED_HEADER_BYTES).ok_or(wrong_length)?;
    let mut reader = Reader(header);
    if reader.array::<4>()? != MAGIC {
        return Err(SealError::Magic);
    }
    let version = reader.u16()?;
    if version != VERSION {
        return Err(SealError::Version(version));
    }
    let flags = SealedFlags(reader.u16()?);
    let meta = SealedMeta {
        machine: MachineId(reader.u128()?),
        generation: Generation(reader.u64()?),
        first: WriteSeq(reader.u64()?),
        last: WriteSeq(reader.u64()?),
        flags,
        prev: Chain::default(),
        chain: chain_of(header),
        bytes: bytes.len() as u32,
    };
    let records = reader.u32()?;
    let body_bytes = reader.u32()? as usize;
    let prev = Chain(reader.array()?);
    if flags.0 & !SealedFlags::KNOWN != 0 {
        return Err(SealError::Header("flag"));
    }
    if meta.first.0 == 0 || meta.first.0.checked_add(u64::from(records)) != meta.last.0.checked_add(1) {
        return Err(SealError::Header("sequence"));
    }
    if records == 0 || records as usize > BATCH_RECORDS_MAX {
        return Err(SealError::Header("record count"));
    }
    if bytes.len() > SEALED_BYTES_MAX || bytes.len() - SEALED_HEADER_BYTES != body_bytes {
        return Err(wrong_length);
    }
    Ok(SealedMeta { prev, ..meta })
}

/// Returns which stream key sealed it; `None` if it is too short for a header.
pub fn key_of(bytes: &[u8]) -> Option<StreamKeyId> {
    Some(StreamKeyId(*bytes.get(KEY_AT..AAD_BYTES)?.first_chunk()?))
}

/// Reads the clear header and keeps the bytes with it.
pub fn parse(bytes: Bytes) -> Result<SealedBatch, SealError> {
    Ok(SealedBatch { meta: peek(&bytes)?, bytes })
}

/// Opens a sealed batch. Payloads are slices of the decrypted buffer.
///
/// The buffer is decrypted in place if nobody else holds it, else it is copied first.
pub fn open(key: &StreamKey, bytes: Bytes) -> Result<Batch, SealError> {
    let meta = peek(&bytes)?;
    if let Some(found) = key_of(&bytes).filter(|found| *found != key.id()) {
        return Err(SealError::OtherKey { found, ours: key.id() });
    }
    let mut buffer = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let (header, body) = buffer.split_at_mut(SEALED_HEADER_BYTES);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&header[AAD_BYTES..]);
    if !is_in_the_clear(meta.generation) {
        let batch_key = key.batch_key(meta.machine.0, meta.generation.0);
        batch_key.open(counter_nonce(meta.first.0), &header[..AAD_BYTES], body, &tag)?;
    }
    let body = buffer.freeze().slice(SEALED_HEADER_BYTES..);
    let count = (meta.last.0 - meta.first.0 + 1) as usize;
    let batch = Batch::new(meta.generation, record::decode_body(&body, meta.first, count)?)?;
    if flags_of(&batch.records) != meta.flags {
        return Err(SealError::Flags);
    }
    Ok(batch)
}
