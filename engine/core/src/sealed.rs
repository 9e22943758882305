//! What a hop may know of a sealed batch: its clear header as a value, and its bytes as a handle.
//!
//! The machines order, forget, refuse and resend batches by [`SealedMeta`] alone; only the process
//! server's packer opens them. Sealing, opening and reading the header live in `redoubt-wire`.

use crate::change::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::ids::{BatchPosition, Chain, Generation, MachineId, WriteSeq};
use bytes::Bytes;

/// First bytes of every sealed batch.
pub const SEALED_MAGIC: [u8; 4] = *b"RDSB";

/// Bytes of the clear header of a sealed batch.
pub const SEALED_HEADER_BYTES: usize = 112;

/// Bytes of the fixed part of one record in the body.
pub const RECORD_HEADER_BYTES: usize = 24;

/// Largest sealed batch: header, fixed parts, 16 bytes of identity for each record, payloads.
pub const SEALED_BYTES_MAX: usize =
    SEALED_HEADER_BYTES + BATCH_RECORDS_MAX * (RECORD_HEADER_BYTES + 16) + BATCH_BYTES_MAX;

/// What a hop must see of a batch without its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedFlags(pub u16);

impl SealedFlags {
    /// The first record that is not `Attach` is `ResyncBegin`: the batch may jump over burnt
    /// sequences and need not continue the chain.
    pub const STARTS_RESYNC: u16 = 1;
    /// The batch contains a marker.
    pub const HAS_MARKER: u16 = 2;
    /// Every bit with a meaning.
    pub const KNOWN: u16 = Self::STARTS_RESYNC | Self::HAS_MARKER;

    /// Tells whether the batch opens a resync.
    pub fn starts_resync(self) -> bool {
        self.0 & Self::STARTS_RESYNC != 0
    }

    /// Tells whether the batch contains a marker.
    pub fn has_marker(self) -> bool {
        self.0 & Self::HAS_MARKER != 0
    }
}

/// The clear header of a sealed batch. Authentic only after the batch was opened with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedMeta {
    /// Machine whose stream it is.
    pub machine: MachineId,
    /// Generation in which all its records were stamped.
    pub generation: Generation,
    /// First sequence.
    pub first: WriteSeq,
    /// Last sequence; `last - first + 1` records.
    pub last: WriteSeq,
    /// What a hop must see.
    pub flags: SealedFlags,
    /// Chain before this batch.
    pub prev: Chain,
    /// Chain including this batch.
    pub chain: Chain,
    /// Length of the sealed batch, header included.
    pub bytes: u32,
}

impl SealedMeta {
    /// Returns the position in the stream after this batch.
    pub fn position(&self) -> BatchPosition {
        BatchPosition { generation: self.generation, seq: self.last, chain: self.chain }
    }
}

/// A sealed batch: immutable bytes that are spilled, sent, sent again and staged as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch {
    /// The clear header, decoded.
    pub meta: SealedMeta,
    /// Header and body.
    pub bytes: Bytes,
}
