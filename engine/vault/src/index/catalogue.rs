//! Catalogues: all that is not log, in versions: which points there are, which runs index the log up to a slot,
//! what nobody needs any more.
//!
//! Invariants
//! - CA-1 A catalogue names the digest of the slot it ends with: one that was made of another log is noticed.
//! - CA-2 It is put after every object it names, created once, and never changed.
//! - CA-3 Its clear header only says where to look: nothing is deleted or served because of it.

use super::key::{LEVELS, Space, Version};
use super::object::{Object, Trash, put_trash, take_trash};
use super::run::{Row, Run};
use super::seal::{Blob, TableId};
use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::fold::{FoldInfo, Mark};
use crate::log::{HeadState, POINTS_MAX, put_head, put_point, take_head, take_point};
use crate::reader::{PointId, PointInfo};
use crate::whole;
pub(crate) use crate::whole::HEADER_BYTES;
use redoubt_core::maintenance::{PointClock, PointTime};
use redoubt_core::{MachineId, VolumeIndex, WallTime};
use redoubt_wire::aead::Key;
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"DRCAT1\0\0";
/// Required features this program knows.
const KNOWN_FEATURES: u64 = 0;
/// Plain bytes at most: the directory of some billion entries.
const PLAIN_MAX: usize = 64 << 20;
/// Runs at most: merging keeps them to a few per power of four.
const RUNS_MAX: usize = 1024;

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
    /// The end of what was folded: the log is needed from the slot behind it on.
    pub(crate) mark: Mark,
    /// Points up to that slot that can be listed and pinned, oldest first.
    pub(crate) live: Vec<PointOf>,
    /// Points that nobody new can pin, oldest first.
    pub(crate) retired: Vec<PointOf>,
    /// The clock at the newest point.
    pub(crate) clock: PointClock,
    pub(crate) tables: BTreeMap<u128, TableInfo>,
    /// Oldest first; together they cover all slots. Folded ones come first, up to the mark.
    pub(crate) runs: Vec<Run>,
    /// What this version does not need and one before did, by the first version that did not.
    pub(crate) garbage: Trash,
}

impl Catalogue {
    /// Tells whether it names this point.
    pub(crate) fn has(&self, id: PointId) -> bool {
        let among = |points: &[PointOf]| points.binary_search_by_key(&id, |point| point.info.id).is_ok();
        among(&self.live) || among(&self.retired)
    }

    /// Tells whether the runs show the state of a version: all states behind the mark, and before it those of
    /// points that are kept.
    pub(crate) fn shows(&self, version: Version) -> bool {
        version >= Version::new(self.mark.slot, u16::MAX) || self.has(version.point())
    }

    /// Returns what is left without the runs that the log can say as well: the folded ones.
    pub(crate) fn folded(&self) -> Catalogue {
        let Mark { slot, digest, epoch, ref head, .. } = self.mark;
        let of = |points: &[PointOf]| {
            points.iter().filter(|point| point.info.id.slot <= slot).cloned().collect::<Vec<_>>()
        };
        let mut folded = Catalogue { slot, digest, epoch, head: head.clone(), ..self.clone() };
        (folded.live, folded.retired) = (of(&self.live), of(&self.retired));
        folded.runs.retain(|run| run.to <= slot);
        folded
    }

    /// Returns the objects that only a maintainer writes and that this version names itself; what its folds name
    /// comes on top.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
        let table = |(uuid, table): (&u128, &TableInfo)| Object::Table { epoch: table.epoch, uuid: *uuid };
        let fold = |fold: &FoldInfo| Object::Fold { epoch: fold.epoch, uuid: fold.uuid };
        self.tables.iter().map(table).chain(self.folds().map(fold))
    }

    /// Returns the folds, oldest stretch first.
    pub(crate) fn folds(&self) -> impl Iterator<Item = &FoldInfo> {
        self.runs.iter().flat_map(|run| &run.folds)
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
    let header = |sealed, packed| {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put(MAGIC);
        header.put_u16(crate::vault::MAJOR);
        header.put_u16(crate::vault::MINOR);
        header.put_u32(id.dek);
        header.put_u64(KNOWN_FEATURES);
        header.put_u128(id.vault);
        header.put_u128(id.machine.0);
        header.put_u128(id.uuid);
        header.put_u64(catalogue.version);
        header.put_u64(catalogue.slot);
        header.put_u64(catalogue.maintainer);
        header.put_u32(sealed);
        header.put_u32(packed);
        header.put_u64(catalogue.mark.log_from());
        header.resize(HEADER_BYTES - 4, 0);
        put_crc(&mut header);
        header
    };
    Some(whole::seal(&key(id, dek), &plain, header))
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
    /// The first slot that the log is needed from.
    pub(crate) log_from: u64,
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
    let log_from = take.u64()?;
    if log_from == 0 || log_from > slot.max(1) {
        return Err(Malformed("the log begins behind the catalogue's slot").into());
    }
    Ok(Header { id, version, slot, log_from, maintainer, sealed, packed })
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
    let lengths = (header.sealed, header.packed);
    let body = whole::open(&key(&header.id, dek), bytes, lengths, PLAIN_MAX)?;
    Ok(decode_body(&header, &body)?)
}

fn encode_body(catalogue: &Catalogue) -> Vec<u8> {
    let mut out = Vec::new();
    out.put(&catalogue.before);
    out.put(&catalogue.digest);
    out.put_u64(catalogue.epoch);
    put_head(&mut out, &catalogue.head);
    put_mark(&mut out, &catalogue.mark);
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
        put_folds(&mut out, &run.folds);
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
    put_trash(&mut out, &catalogue.garbage);
    out
}

/// A mark at slot 0 has nothing more to say; the slot itself is in the header.
pub(crate) fn put_mark(out: &mut Vec<u8>, mark: &Mark) {
    if mark.slot > 0 {
        out.put(&mark.digest);
        out.put_varint(mark.epoch);
        out.put_varint(u64::from(mark.dek));
        put_head(out, &mark.head);
    }
}

pub(crate) fn take_mark(take: &mut Take<'_>, slot: u64) -> Result<Mark, Malformed> {
    if slot == 0 {
        return Ok(Mark::default());
    }
    let (digest, epoch, dek) = (take.array()?, take.varint()?, narrow(take)?);
    Ok(Mark { slot, digest, epoch, dek, head: take_head(take)? })
}

fn put_folds(out: &mut Vec<u8>, folds: &[FoldInfo]) {
    out.put_varint(folds.len() as u64);
    for fold in folds {
        out.put_u128(fold.uuid);
        out.put_varint(fold.epoch);
        out.put_varint(fold.length);
        out.put(&fold.digest);
        out.put_varint(u64::from(fold.dek));
        out.put_varint(fold.stored);
        out.put_varint(fold.live);
    }
}

fn take_folds(take: &mut Take<'_>) -> Result<Vec<FoldInfo>, Malformed> {
    let mut folds = Vec::new();
    for _ in 0..take.varint()? {
        let (uuid, epoch, length, digest) = (take.u128()?, take.varint()?, take.varint()?, take.array()?);
        let (dek, stored, live) = (narrow(take)?, take.varint()?, take.varint()?);
        folds.push(FoldInfo { uuid, epoch, length, digest, dek, stored, live });
    }
    Ok(folds)
}

pub(crate) fn put_clock(out: &mut Vec<u8>, clock: &PointClock) {
    let PointClock { now, source, maintainer, source_credit, maintainer_credit } = *clock;
    for value in [now.0, source.0, maintainer.0, source_credit, maintainer_credit] {
        out.put_varint(value);
    }
}

pub(crate) fn take_clock(take: &mut Take<'_>) -> Result<PointClock, Malformed> {
    Ok(PointClock {
        now: PointTime(take.varint()?),
        source: WallTime(take.varint()?),
        maintainer: WallTime(take.varint()?),
        source_credit: take.varint()?,
        maintainer_credit: take.varint()?,
    })
}

pub(crate) fn put_points(out: &mut Vec<u8>, points: &[PointOf]) {
    out.put_varint(points.len() as u64);
    for PointOf { info, at } in points {
        out.put_varint(info.id.slot);
        out.put_u16(info.id.ordinal);
        out.put_varint(at.0);
        put_point(out, &info.row());
    }
}

pub(crate) fn take_points(take: &mut Take<'_>, slot: u64) -> Result<Vec<PointOf>, Malformed> {
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
    let mark = take_mark(&mut take, header.log_from - 1)?;
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
        mark,
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
        let is_folded = run.to <= catalogue.mark.slot;
        if is_folded == run.folds.is_empty() || run.from <= catalogue.mark.slot && !is_folded {
            return Err(Malformed("the folded runs do not end with the mark"));
        }
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
    catalogue.garbage = take_trash(&mut take)?;
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
    let (to, entries) = (take.varint()?, take.varint()?);
    let mut run = Run { from, to, entries, folds: take_folds(take)?, ..Run::default() };
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
