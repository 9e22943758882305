//! A block of a stored index: neighbouring cells of one space with all their versions, in memory and in bytes.
//!
//! A block stands alone: it names its versions, segments and units itself. If it begins within the versions
//! of a cell, it begins with those older entries of that cell that still show (*carried*), so that a lookup
//! reads one block per space, however often a cell was written.

use super::entry::{Entry, ZERO};
use super::key::{Space, Version};
use super::place::{Held, SegmentPlace, Tables, UnitPlace};
use super::run::Item;
use crate::codec::{Malformed, Put, Take};
use crate::segment::{GRANULE_SECTORS, UNIT_BYTES};
use redoubt_core::SECTOR_BYTES;
use redoubt_wire::aead::TAG_BYTES;

/// Entries that close a block: about 100 KiB in memory, read and decoded in a millisecond.
pub(crate) const BLOCK_ENTRIES: usize = 4096;
/// Entries of a block at most: the carried ones of one cell come on top.
const ENTRIES_MAX: usize = BLOCK_ENTRIES + GRANULE_SECTORS as usize;
/// Plain bytes of a block at most: an entry, its unit, its segment and its version, all of their own.
pub(crate) const PLAIN_MAX: usize = ENTRIES_MAX * 128;
/// What an item and a unit take in a block, mostly: room for them is made once.
const ITEM_BYTES: usize = 12;
const UNIT_ROW_BYTES: usize = 24;
/// Segments are at most this long, so units lie before it.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) tables: Tables,
    entries: Vec<Entry>,
    /// So many entries at the beginning are repeated from the block before.
    carried: usize,
}

impl Block {
    /// Returns the cell's entries up to a version, newest first.
    pub(crate) fn newest_first(&self, index: u32, version: Version) -> impl Iterator<Item = &Entry> {
        let key = |entry: &Entry| (entry.index, self.tables.versions[entry.version as usize]);
        let until = self.entries.partition_point(|entry| key(entry) <= (index, version));
        self.entries[..until].iter().rev().take_while(move |entry| entry.index == index)
    }

    /// Bytes it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.tables.bytes() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Returns the entry at a place, carried ones left out.
    pub(crate) fn item(&self, space: Space, at: usize) -> Option<Item> {
        self.entries.get(self.carried + at).map(|entry| Item::new(space, entry, &self.tables))
    }
}

fn zigzag(from: u64, to: u64) -> u64 {
    let delta = to.wrapping_sub(from) as i64;
    ((delta << 1) ^ (delta >> 63)) as u64
}

fn unzigzag(from: u64, code: u64) -> u64 {
    from.wrapping_add(((code >> 1) as i64 ^ -((code & 1) as i64)) as u64)
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all.dedup();
    all
}

fn place_of<T: Ord>(all: &[T], one: &T) -> u64 {
    all.binary_search(one).unwrap_or_default() as u64
}

/// Encodes items of one space, in order; the first `carried` are repeated from the block before.
pub(crate) fn encode(items: &[Item], carried: usize) -> Vec<u8> {
    let versions = sorted(items.iter().map(|item| item.version).collect());
    let units = sorted(items.iter().filter_map(|item| item.unit).collect());
    let segments = sorted(units.iter().map(|unit| unit.segment).collect());
    let mut out = Vec::with_capacity(items.len() * ITEM_BYTES + units.len() * UNIT_ROW_BYTES);
    for count in [versions.len(), segments.len(), units.len(), items.len(), carried] {
        out.put_varint(count as u64);
    }
    let mut last = 0;
    for version in &versions {
        out.put_varint(version.0 - last);
        last = version.0;
    }
    segments.iter().for_each(|segment| put_segment(&mut out, segment));
    put_units(&mut out, &units, &segments);
    let mut last = 0;
    for item in items {
        out.put_varint(u64::from(item.index - last));
        last = item.index;
    }
    let version = |item: &Item| place_of(&versions, &item.version);
    put_deltas(&mut out, items.iter().map(version));
    let unit = |item: &Item| item.unit.map_or(0, |unit| place_of(&units, &unit) + 1);
    put_deltas(&mut out, items.iter().map(unit));
    items.iter().for_each(|item| out.put_u8(item.first));
    items.iter().for_each(|item| out.put_u8(item.sectors));
    items.iter().for_each(|item| out.put_u8(item.offset));
    out
}

fn put_deltas(out: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) {
    let mut last = 0;
    for number in numbers {
        out.put_varint(zigzag(last, number));
        last = number;
    }
}

fn put_segment(out: &mut Vec<u8>, segment: &SegmentPlace) {
    out.put_u128(segment.uuid);
    out.put_varint(segment.epoch);
    out.put_u32(segment.dek);
    put_held(out, segment.held);
}

/// Slots count from 1: 0 says that the segment has an object of its own.
pub(crate) fn put_held(out: &mut Vec<u8>, held: Held) {
    let (slot, base) = match held {
        Held::Own => (0, 0),
        Held::Packed => (0, 1),
        Held::Inline { slot, base } => (slot, base),
    };
    out.put_varint(slot);
    out.put_varint(base);
}

pub(crate) fn take_held(take: &mut Take<'_>) -> Result<Held, Malformed> {
    match (take.varint()?, take.varint()?) {
        (0, 0) => Ok(Held::Own),
        (0, 1) => Ok(Held::Packed),
        (0, _) => Err(Malformed("a segment in an unknown kind of object")),
        (slot, base) => Ok(Held::Inline { slot, base }),
    }
}

fn put_units(out: &mut Vec<u8>, units: &[UnitPlace], segments: &[SegmentPlace]) {
    put_deltas(out, units.iter().map(|unit| place_of(segments, &unit.segment)));
    put_deltas(out, units.iter().map(|unit| u64::from(unit.number)));
    // Units lie back to back, so what follows the one before needs one byte.
    let mut last = 0;
    for unit in units {
        out.put_varint(zigzag(last, u64::from(unit.offset)));
        last = u64::from(unit.offset) + u64::from(unit.sealed);
    }
    units.iter().for_each(|unit| out.put_varint(u64::from(unit.sealed)));
    units.iter().for_each(|unit| out.put_varint(u64::from(unit.plain) << 1 | u64::from(unit.codec)));
}

/// Decodes and checks a block. Nothing is reserved that the bytes do not pay for.
pub(crate) fn decode(bytes: &[u8]) -> Result<Block, Malformed> {
    let mut take = Take::new(bytes);
    let mut counts = [0; 5];
    for count in &mut counts {
        *count = usize::try_from(take.varint()?).unwrap_or(usize::MAX);
    }
    let [versions, segments, units, entries, carried] = counts;
    if entries > ENTRIES_MAX || versions.max(units) > entries || segments > units || carried > entries {
        return Err(Malformed("a count of an index block is over its limit"));
    }
    let mut tables = Tables { versions: Vec::with_capacity(versions), ..Tables::default() };
    let mut last = 0u64;
    for _ in 0..versions {
        last = last.checked_add(take.varint()?).ok_or(Malformed("a version overflows"))?;
        tables.versions.push(Version(last));
    }
    let places = (0..segments).map(|_| take_segment(&mut take)).collect::<Result<Vec<_>, _>>()?;
    take_units(&mut take, &mut tables, &places, units)?;
    let entries = take_entries(&mut take, &tables, entries)?;
    take.finish()?;
    Ok(Block { tables, entries, carried })
}

fn take_segment(take: &mut Take<'_>) -> Result<SegmentPlace, Malformed> {
    let (uuid, epoch, dek) = (take.u128()?, take.varint()?, take.u32()?);
    Ok(SegmentPlace { uuid, epoch, dek, held: take_held(take)? })
}

fn take_deltas(take: &mut Take<'_>, count: usize, limit: usize) -> Result<Vec<u32>, Malformed> {
    let mut last = 0;
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        last = unzigzag(last, take.varint()?);
        if last >= limit as u64 {
            return Err(Malformed("an index block names what it does not hold"));
        }
        numbers.push(last as u32);
    }
    Ok(numbers)
}

fn take_units(
    take: &mut Take<'_>,
    tables: &mut Tables,
    segments: &[SegmentPlace],
    count: usize,
) -> Result<(), Malformed> {
    let of = take_deltas(take, count, segments.len())?;
    let numbers = take_deltas(take, count, u32::MAX as usize)?;
    let codes = (0..count).map(|_| take.varint()).collect::<Result<Vec<_>, _>>()?;
    let sealed = (0..count).map(|_| take.varint()).collect::<Result<Vec<_>, _>>()?;
    let (mut end, mut open) = (0, None);
    for at in 0..count {
        let (offset, sealed, packed) = (unzigzag(end, codes[at]), sealed[at], take.varint()?);
        let plain = packed >> 1;
        let possible = sealed <= (UNIT_BYTES + TAG_BYTES) as u64 && plain <= UNIT_BYTES as u64;
        end = offset.saturating_add(sealed);
        if !possible || !plain.is_multiple_of(SECTOR_BYTES) || end > SEGMENT_BYTES_MAX {
            return Err(Malformed("a unit has an impossible place"));
        }
        if open.is_some_and(|open| open > of[at]) {
            return Err(Malformed("the units of an index block are out of order"));
        }
        if open != Some(of[at]) {
            // Segments without a unit here are not kept by a writer, so ordinals stay as they are.
            if of[at] != open.map_or(0, |open| open + 1) {
                return Err(Malformed("a segment of an index block has no unit"));
            }
            tables.add_segment(segments[of[at] as usize]);
            open = Some(of[at]);
        }
        let (segment, number) = (segments[of[at] as usize], numbers[at]);
        let (offset, sealed, plain) = (offset as u32, sealed as u32, plain as u32);
        tables.add_unit(&UnitPlace { segment, number, offset, sealed, plain, codec: (packed & 1) as u8 });
    }
    Ok(())
}

fn take_entries(take: &mut Take<'_>, tables: &Tables, count: usize) -> Result<Vec<Entry>, Malformed> {
    let mut indexes = Vec::with_capacity(count);
    let mut last = 0u64;
    for _ in 0..count {
        last =
            last.checked_add(take.varint()?).filter(|last| *last <= u64::from(u32::MAX)).unwrap_or(u64::MAX);
        indexes.push(u32::try_from(last).map_err(|_| Malformed("a cell's number overflows"))?);
    }
    let versions = take_deltas(take, count, tables.versions.len())?;
    let units = take_deltas(take, count, tables.units() as usize + 1)?;
    let (firsts, lengths, offsets) = (take.bytes(count)?, take.bytes(count)?, take.bytes(count)?);
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for at in 0..count {
        let (index, version, first, sectors) = (indexes[at], versions[at], firsts[at], lengths[at]);
        let unit = units[at].checked_sub(1).unwrap_or(ZERO);
        let entry = Entry { index, version, unit, first, sectors, offset: offsets[at] };
        let ends = u64::from(first) + u64::from(sectors) <= GRANULE_SECTORS && sectors > 0;
        let inside = unit == ZERO || {
            let plain = u64::from(tables.unit(unit).plain) / SECTOR_BYTES;
            u64::from(entry.offset) + u64::from(sectors) <= plain
        };
        let sorted = entries.last().is_none_or(|last| (last.index, last.version) <= (index, version));
        if !ends || !inside || !sorted {
            return Err(Malformed("an entry of an index block is out of order or leaves its cell or unit"));
        }
        entries.push(entry);
    }
    Ok(entries)
}
