//! Table objects: sealed parts back to back, each opened alone by what the catalogue says of it.
//!
//! Invariants
//! - TB-1 One key per table uuid and one number per part: no (key, nonce) repeats.
//! - TB-2 A part's additional data names table, number, length and codec: a swapped, cut or moved part does
//!   not open.

use super::run::TableBytes;
use crate::codec::{Malformed, Put, put_crc};
use crate::segment::{SegmentId, UnitRow, nonce, open};
use crate::shrink::{Inflater, Shrinker};
use redoubt_core::MachineId;
use redoubt_wire::aead::{Key, Opener};

const MAGIC: &[u8; 8] = b"DRIDX1\0\0";
pub(crate) const HEADER_BYTES: usize = 128;

/// What a table is, besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId {
    pub(crate) vault: u128,
    pub(crate) machine: MachineId,
    pub(crate) uuid: u128,
    pub(crate) dek: u32,
}

impl TableId {
    fn header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put(MAGIC);
        header.put_u16(crate::vault::MAJOR);
        header.put_u16(crate::vault::MINOR);
        header.put_u32(self.dek);
        header.put_u128(self.vault);
        header.put_u128(self.machine.0);
        header.put_u128(self.uuid);
        header.resize(HEADER_BYTES - 4, 0);
        put_crc(&mut header);
        header
    }

    fn opener(&self, dek: &Key) -> Opener {
        let (vault, machine) = (self.vault.to_be_bytes(), self.machine.0.to_be_bytes());
        dek.derive(&self.uuid.to_be_bytes(), &[b"drv1 idx", &vault, &machine]).opener()
    }

    /// Parts are sealed as units are, with a key of their own.
    fn as_segment(&self) -> SegmentId {
        let TableId { vault, machine, uuid, dek } = *self;
        SegmentId { vault, machine, epoch: 0, uuid, dek }
    }
}

/// A sealed part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blob {
    pub(crate) table: u128,
    /// Data key of the table.
    pub(crate) dek: u32,
    /// Epoch of the maintainer that wrote the table: part of its name.
    pub(crate) epoch: u64,
    pub(crate) number: u32,
    pub(crate) offset: u32,
    /// Sealed bytes, tag included.
    pub(crate) sealed: u32,
    pub(crate) plain: u32,
    pub(crate) codec: u8,
}

/// Seals parts into a table.
pub(crate) struct Sealer {
    id: TableId,
    epoch: u64,
    opener: Opener,
    shrinker: Shrinker,
    bytes: Vec<u8>,
    parts: u32,
}

impl Sealer {
    pub(crate) fn new(id: TableId, epoch: u64, dek: &Key) -> Sealer {
        Sealer { id, epoch, opener: id.opener(dek), shrinker: Shrinker::new(), bytes: id.header(), parts: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn put(&mut self, plain: &[u8]) -> Blob {
        let (number, offset, length) = (self.parts, self.bytes.len(), plain.len() as u32);
        let codec = self.shrinker.put(plain, &mut self.bytes);
        let aad = self.id.as_segment().aad(number, length, codec);
        let tag = self.opener.seal(nonce(number), &aad, &mut self.bytes[offset..]);
        self.bytes.put(&tag);
        self.parts += 1;
        let (table, sealed) = (self.id.uuid, (self.bytes.len() - offset) as u32);
        Blob {
            table,
            epoch: self.epoch,
            dek: self.id.dek,
            number,
            offset: offset as u32,
            sealed,
            plain: length,
            codec,
        }
    }

    pub(crate) fn finish(self) -> TableBytes {
        TableBytes { uuid: self.id.uuid, dek: self.id.dek, bytes: self.bytes.into() }
    }
}

/// Opens a part of at most `limit` plain bytes; wrong bytes are never returned.
pub(crate) fn open_part(
    id: &TableId,
    dek: &Key,
    blob: &Blob,
    limit: usize,
    sealed: &[u8],
) -> Result<Vec<u8>, Malformed> {
    if blob.plain as usize > limit || sealed.len() != blob.sealed as usize {
        return Err(Malformed("a part of the index has an impossible length"));
    }
    let Blob { number, plain, codec, .. } = *blob;
    let row = UnitRow { offset: 0, sealed: blob.sealed, plain, codec, crc: 0 };
    open(&id.as_segment(), &id.opener(dek), &mut Inflater::new(), number, &row, sealed)
}
