//! Where the log begins, and what is left of the slots before: the newest catalogue that can be read, and its folds.
//!
//! What is *not* here: tables of the index. They are passed over; whoever reads through them is to be checked.

use crate::format::{Fields, derive, fetch, has_crc, hex, unseal};
use crate::{Fault, Head, Holder, Layer, Machine, Objects, Point, SegmentRow, Versions};
use std::ops::RangeInclusive;

const HEADER: usize = 128;
/// A body that says it unpacks to more is not believed.
const PLAIN_MAX: usize = 64 << 20;

/// A fold object, as a catalogue names it.
pub(crate) struct Named {
    slots: RangeInclusive<u64>,
    uuid: [u8; 16],
    epoch: u64,
    length: u64,
    digest: [u8; 32],
    data_key: u64,
}

/// As far as it matters here.
#[derive(Default)]
pub(crate) struct Catalogue {
    pub(crate) version: u64,
    /// The last slot that was folded, what the next record names, epoch and head there.
    pub(crate) mark: u64,
    pub(crate) digest: [u8; 32],
    pub(crate) epoch: u64,
    pub(crate) head: Head,
    /// Points up to the mark that are kept, oldest first.
    pub(crate) points: Vec<Point>,
    pub(crate) folds: Vec<Named>,
}

/// Opens an object that is one sealed body behind a clear header.
fn open(
    at: &Machine,
    bytes: &[u8],
    data_key: u64,
    uuid: &[u8],
    purpose: &[u8],
    lengths: [u32; 2],
) -> Option<Vec<u8>> {
    let (clear, sealed) = bytes.split_at_checked(HEADER)?;
    let (codec, plain) = (lengths[1] >> 31, (lengths[1] & 0x7fff_ffff) as usize);
    let key = derive(at.data_keys.get(&data_key)?, uuid, &[purpose, &at.vault, &at.id]);
    let fits = sealed.len() == lengths[0] as usize && plain <= PLAIN_MAX;
    let body = unseal(&key, 0, clear, sealed).filter(|_| fits)?;
    let body = if codec == 1 { zstd::bulk::decompress(&body, plain).ok()? } else { body };
    (body.len() == plain).then_some(body)
}

fn catalogue(at: &Machine, version: u64, bytes: &[u8]) -> Option<Catalogue> {
    let mut fields = Fields(bytes.get(..HEADER).filter(|header| has_crc(header))?);
    fields.is(b"DRCAT1\0\0")?;
    let (data_key, required) = (fields.le(4)?, fields.le(8)?);
    let ours = fields.raw(16)? == at.vault && fields.raw(16)? == at.id && required == 0;
    let (uuid, same) = (fields.raw(16)?, fields.le(8)? == version);
    let (slot, _) = (fields.le(8)?, fields.le(8)?);
    let (lengths, log_from) = ([fields.le(4)? as u32, fields.le(4)? as u32], fields.le(8)?);
    if !ours || !same || !(1..=slot.max(1)).contains(&log_from) {
        return None;
    }
    let mut found = Catalogue { version, mark: log_from - 1, ..Catalogue::default() };
    let plain = open(at, bytes, data_key, uuid, b"drv1 cat", lengths)?;
    if found.mark > 0 {
        body(&mut Fields(&plain), &mut found)?;
    }
    Some(found)
}

fn body(fields: &mut Fields<'_>, found: &mut Catalogue) -> Option<()> {
    fields.raw(32 + 32 + 8)?;
    fields.head()?;
    mark_and_points(fields, found)?;
    found.points.retain(|point| point.slot <= found.mark);
    found.points.sort_by_key(|point| (point.slot, point.ordinal));
    for _ in 0..fields.varint()? {
        fields.raw(16)?;
        fields.varint()?;
        fields.varint()?;
        fields.raw(32)?;
        fields.varint()?;
    }
    let mut from = 1;
    for _ in 0..fields.varint()? {
        let (to, _) = (fields.varint()?, fields.varint()?);
        for _ in 0..fields.varint()? {
            let (uuid, epoch, length) = (fields.array()?, fields.varint()?, fields.varint()?);
            let (digest, data_key) = (fields.array()?, fields.varint()?);
            fields.varint()?;
            fields.varint()?;
            found.folds.push(Named { slots: from..=to, uuid, epoch, length, digest, data_key });
        }
        for _ in 0..fields.varint()? {
            fields.varint()?;
            fields.raw(1)?;
            for _ in 0..9 {
                fields.varint()?;
            }
        }
        from = to + 1;
    }
    // What follows is garbage. Each folded slot must be in one run.
    let ends = found.folds.last().map(|fold| *fold.slots.end());
    let begins = found.folds.first().map(|fold| *fold.slots.start());
    let touches =
        |pair: &[Named]| pair[0].slots == pair[1].slots || pair[0].slots.end() + 1 == *pair[1].slots.start();
    (begins == Some(1) && ends == Some(found.mark) && found.folds.windows(2).all(touches)).then_some(())
}

/// The end of what was folded, the clock, and points, live ones and then retired ones: as a catalogue says it, and the
/// last fold of a run.
fn mark_and_points(fields: &mut Fields<'_>, found: &mut Catalogue) -> Option<()> {
    (found.digest, found.epoch, _) = (fields.array()?, fields.varint()?, fields.varint()?);
    found.head = fields.head()?;
    for _ in 0..5 {
        fields.varint()?;
    }
    for _ in 0..2 {
        for _ in 0..fields.varint()? {
            let (slot, ordinal, _) = (fields.varint()?, fields.le(2)? as u16, fields.varint()?);
            found.points.push(fields.point(slot, ordinal)?);
        }
    }
    Some(())
}

/// Returns the newest catalogue that can be read; an empty one if there is none, as before anything is folded.
pub(crate) fn newest(objects: &dyn Objects, at: &Machine) -> Result<Catalogue, Fault> {
    for name in objects.list(&format!("g/{}/cat/", hex(&at.id))).map_err(Fault::Store)? {
        let inverted = name.rsplit('/').next().and_then(|text| u64::from_str_radix(text, 16).ok());
        let bytes = objects.get(&name).map_err(Fault::Store)?;
        let found = inverted.zip(bytes).and_then(|(inverted, bytes)| catalogue(at, !inverted, &bytes));
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Ok(Catalogue::default())
}

/// Reads the folds of each run, oldest first, up to a run of which one cannot be read.
pub(crate) fn layers(objects: &dyn Objects, at: &Machine, folds: &[Named]) -> (Vec<Layer>, Option<Fault>) {
    let mut layers: Vec<Layer> = Vec::new();
    for run in folds.chunk_by(|one, other| one.slots == other.slots) {
        let mut layer = Layer { slots: run[0].slots.clone(), ..Layer::default() };
        for named in run {
            if let Err(fault) = read(objects, at, named, &mut layer) {
                return (layers, Some(fault));
            }
        }
        layers.push(layer);
    }
    (layers, None)
}

fn read(objects: &dyn Objects, at: &Machine, named: &Named, layer: &mut Layer) -> Result<(), Fault> {
    let name = format!("g/{}/fold/{:08x}/{}", hex(&at.id), named.epoch, hex(&named.uuid));
    let bytes = fetch(objects, &name)?;
    let damage = |what| Fault::damage(&name, 0..bytes.len() as u64, what);
    if bytes.len() as u64 != named.length || *blake3::hash(&bytes).as_bytes() != named.digest {
        return Err(damage("its digest is not that of the catalogue"));
    }
    fold(at, named, &bytes, layer).ok_or_else(|| damage("it is no fold of this machine, or malformed"))
}

fn fold(at: &Machine, named: &Named, bytes: &[u8], layer: &mut Layer) -> Option<()> {
    let mut fields = Fields(bytes.get(..HEADER).filter(|header| has_crc(header))?);
    fields.is(b"DRFOLD1\0")?;
    let same_key = fields.le(4)? == named.data_key;
    let ours = fields.raw(16)? == at.vault && fields.raw(16)? == at.id;
    let same = fields.raw(16)? == named.uuid && fields.le(8)? == named.epoch;
    let lengths = [fields.le(4)? as u32, fields.le(4)? as u32];
    let plain = open(at, bytes, named.data_key, &named.uuid, b"drv1 fold", lengths);
    let plain = plain.filter(|_| same_key && ours && same)?;
    let mut fields = Fields(&plain);
    let slots = fields.varint()?..=fields.varint()?;
    let within = |version: u64| slots.contains(&(version >> 16));
    fields.raw(16)?;
    let (_, _) = (fields.varint()?, fields.varint()?);
    for _ in 0..fields.varint()? {
        let (uuid, epoch, data_key) = (fields.array()?, fields.varint()?, fields.varint()?);
        let holder = match (fields.varint()?, fields.varint()?) {
            (0, 0) => Holder::Own,
            (0, 1) => Holder::Packed,
            (slot, offset) => Holder::Slot(slot, offset as usize),
        };
        let (length, table, units) = (fields.varint()?, fields.varint()? as usize, fields.varint()? as usize);
        let (root, digest) = (fields.array()?, fields.array()?);
        let versions = match fields.varint()? {
            0 => Versions::Of(fields.varint()?),
            count => {
                let (mut all, mut last) = (Vec::new(), 0u64);
                for _ in 0..count {
                    last = last.checked_add(fields.varint()?)?;
                    all.push(last);
                }
                Versions::Each(all)
            }
        };
        let minor = None;
        let row =
            SegmentRow { uuid, epoch, data_key, minor, holder, length, table, units, root, digest, versions };
        row.version(0).filter(|version| within(*version))?;
        layer.segments.push(row);
    }
    let (mut end, mut last) = (0u64, 0u64);
    for _ in 0..fields.varint()? {
        let volume = fields.varint()? as u16;
        let first = fields.from(end)?;
        end = first.checked_add(fields.varint()?)?;
        last = fields.from(last)?;
        within(last).then_some(())?;
        layer.zeros.push((last, volume, first..end));
    }
    if fields.raw(1)? == [1] {
        mark_and_points(&mut fields, &mut Catalogue::default())?;
    }
    (fields.0.is_empty() && slots == layer.slots).then_some(())
}
