//! Manifests: which runs index the log up to a slot, and how to go on from there.
//!
//! Invariants
//! - MF-1 A manifest names the digest of the slot it ends with: one that was made of another log is noticed.
//! - MF-2 It is put after every table it names. It is never needed: the log says all it says.

use super::key::{LEVELS, Space, Version};
use super::run::{Row, Run};
use super::seal::{Blob, TableId};
use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::keys::ONCE;
use crate::log::{HeadState, put_head, take_head};
use crate::segment::{Shrinker, inflater};
use redoubt_core::{MachineId, VolumeIndex};
use redoubt_wire::aead::{Key, TAG_BYTES};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"DRMAN1\0\0";
const HEADER_BYTES: usize = 128;
/// Required features this program knows.
const KNOWN_FEATURES: u64 = 0;
/// Plain bytes at most: the directory of some billion entries.
const PLAIN_MAX: usize = 64 << 20;
/// Runs at most: merging keeps them to a few per power of four.
const RUNS_MAX: usize = 1024;
const RAW: u8 = 0;

/// A table object, as a scrub needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    pub(crate) length: u64,
    /// BLAKE3 of all its bytes, for scrubbing without a key.
    pub(crate) digest: [u8; 32],
    /// Data key of its parts.
    pub(crate) dek: u32,
}

/// The index of all slots up to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) slot: u64,
    /// BLAKE3 of that slot's bytes, and the epoch of the log there.
    pub(crate) digest: [u8; 32],
    pub(crate) epoch: u64,
    pub(crate) head: HeadState,
    /// The data key it is sealed with.
    pub(crate) dek: u32,
    pub(crate) tables: BTreeMap<u128, TableInfo>,
    /// Oldest first; together they cover all slots.
    pub(crate) runs: Vec<Run>,
}

fn key(id: &TableId, dek: &Key) -> Key {
    let (vault, machine) = (id.vault.to_be_bytes(), id.machine.0.to_be_bytes());
    dek.derive(&id.uuid.to_be_bytes(), &[b"drv1 man", &vault, &machine])
}

/// Encodes a manifest under its own identity; `None` if it has grown over its limit.
pub(crate) fn encode(id: &TableId, manifest: &Manifest, dek: &Key) -> Option<Vec<u8>> {
    let plain = encode_body(manifest);
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
    object.put_u64(manifest.slot);
    object.put_u32((body.len() + TAG_BYTES) as u32);
    object.put_u32(plain.len() as u32 | u32::from(codec) << 31);
    object.resize(HEADER_BYTES - 4, 0);
    put_crc(&mut object);
    let tag = key(id, dek).seal(ONCE, &object, &mut body);
    object.put(&body);
    object.put(&tag);
    Some(object)
}

/// Why a manifest is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it requires unknown features {0:#x}: use a newer program")]
    UnknownFeature(u64),
}

/// Reads from a manifest's header which data key it is sealed with.
pub(crate) fn data_key(bytes: &[u8]) -> Result<u32, Malformed> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Malformed("shorter than its header"))?;
    let mut take = Take::new(checked_crc(header)?);
    take.bytes(12)?;
    take.u32()
}

/// Decodes and checks the manifest of a slot.
pub(crate) fn decode(
    bytes: &[u8],
    vault: u128,
    machine: MachineId,
    slot: u64,
    dek: &Key,
) -> Result<Manifest, Unusable> {
    let (header, sealed) =
        bytes.split_at_checked(HEADER_BYTES).ok_or(Malformed("shorter than its header"))?;
    let mut take = Take::new(checked_crc(header)?);
    if take.array()? != *MAGIC || take.u16()? != crate::vault::MAJOR {
        return Err(Malformed("not a manifest of this format").into());
    }
    take.u16()?;
    let (dek_id, unknown) = (take.u32()?, take.u64()? & !KNOWN_FEATURES);
    if unknown != 0 {
        return Err(Unusable::UnknownFeature(unknown));
    }
    if take.u128()? != vault || take.u128()? != machine.0 {
        return Err(Malformed("the manifest belongs elsewhere").into());
    }
    let id = TableId { vault, machine, uuid: take.u128()?, dek: dek_id };
    if take.u64()? != slot {
        return Err(Malformed("the manifest is of another slot").into());
    }
    let (length, packed) = (take.u32()? as usize, take.u32()?);
    let (codec, plain) = ((packed >> 31) as u8, (packed & !(1 << 31)) as usize);
    if length != sealed.len() || plain > PLAIN_MAX {
        return Err(Malformed("the manifest has an impossible length").into());
    }
    let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Malformed("shorter than its tag"))?;
    let mut body = body.to_vec();
    key(&id, dek).open(ONCE, header, &mut body, tag).map_err(|_| Malformed("the seal is broken"))?;
    let body = match codec {
        RAW => body,
        _ => inflater()?.decompress(&body, plain).map_err(|_| Malformed("does not decompress"))?,
    };
    if body.len() != plain {
        return Err(Malformed("has the wrong length").into());
    }
    Ok(Manifest { dek: dek_id, ..decode_body(slot, &body)? })
}

fn encode_body(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::new();
    out.put(&manifest.digest);
    out.put_u64(manifest.epoch);
    put_head(&mut out, &manifest.head);
    out.put_varint(manifest.tables.len() as u64);
    for (uuid, table) in &manifest.tables {
        out.put_u128(*uuid);
        out.put_varint(table.length);
        out.put(&table.digest);
        out.put_varint(u64::from(table.dek));
    }
    let ordinals: BTreeMap<u128, u64> = manifest.tables.keys().copied().zip(0..).collect();
    out.put_varint(manifest.runs.len() as u64);
    for run in &manifest.runs {
        out.put_varint(run.to);
        out.put_varint(run.entries);
        out.put_varint(run.points.len() as u64);
        run.points.iter().for_each(|blob| put_blob(&mut out, blob, &ordinals));
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
    out
}

fn put_blob(out: &mut Vec<u8>, blob: &Blob, ordinals: &BTreeMap<u128, u64>) {
    out.put_varint(ordinals.get(&blob.table).copied().unwrap_or(u64::MAX));
    out.put_varint(u64::from(blob.number));
    out.put_varint(u64::from(blob.offset));
    out.put_varint(u64::from(blob.sealed));
    out.put_varint(u64::from(blob.plain) << 1 | u64::from(blob.codec));
}

fn narrow(take: &mut Take<'_>) -> Result<u32, Malformed> {
    u32::try_from(take.varint()?).map_err(|_| Malformed("a number of the manifest is too large"))
}

pub(crate) fn decode_body(slot: u64, bytes: &[u8]) -> Result<Manifest, Malformed> {
    let mut take = Take::new(bytes);
    let (digest, epoch, head) = (take.array()?, take.u64()?, take_head(&mut take)?);
    let mut manifest = Manifest { slot, digest, epoch, head, ..Manifest::default() };
    let mut uuids = Vec::new();
    for _ in 0..take.varint()? {
        let (uuid, length, digest) = (take.u128()?, take.varint()?, take.array()?);
        let dek = narrow(&mut take)?;
        uuids.push(uuid);
        manifest.tables.insert(uuid, TableInfo { length, digest, dek });
    }
    let mut from = 1;
    for _ in 0..take.varint()? {
        let run = take_run(&mut take, from, &uuids, &manifest.tables)?;
        from = run
            .to
            .checked_add(1)
            .filter(|_| run.to >= from)
            .ok_or(Malformed("a run ends before it begins"))?;
        manifest.runs.push(run);
        if manifest.runs.len() > RUNS_MAX {
            return Err(Malformed("too many runs"));
        }
    }
    take.finish()?;
    if from - 1 != slot {
        return Err(Malformed("the runs do not cover the manifest's slots"));
    }
    Ok(manifest)
}

fn take_run(
    take: &mut Take<'_>,
    from: u64,
    uuids: &[u128],
    tables: &BTreeMap<u128, TableInfo>,
) -> Result<Run, Malformed> {
    let mut run = Run { from, to: take.varint()?, entries: take.varint()?, ..Run::default() };
    for _ in 0..take.varint()? {
        run.points.push(take_blob(take, uuids, tables)?);
    }
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
    let dek = info.ok_or(Malformed("a part ends behind its table"))?.dek;
    Ok(Blob { table, dek, number, offset, sealed, plain, codec: (packed & 1) as u8 })
}
