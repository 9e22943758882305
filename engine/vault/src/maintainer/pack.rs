//! Packs what is left of nearly empty and of small segments into new ones, in the order of the run.
//!
//! Invariants
//! - RB-1 Items leave in the order in which they came: one whose unit is still open holds back those behind it.
//! - RB-2 A packed segment is read back before anybody names it: opened, it holds each extent that was put into it, as
//!   of its version, byte by byte.
//! - RB-3 Each segment has a fresh identity, so a key of its own (SG-1).
//!
//! What is *not* here: which segments are packed (`fold`), where their content is read.

use crate::codec::Malformed;
use crate::fold::{FoldRow, Spans};
use crate::index::{Held, Item, SegmentPlace, UnitPlace, Version};
use crate::key_ring::DataKey;
use crate::segment::{Builder, ExtentRow, SegmentId, Source, UnitRow, open_unit, parse_tail};
use crate::shrink::{Inflater, Shrinker};
use bytes::Bytes;
use redoubt_core::SECTOR_BYTES;
use std::collections::{BTreeMap, VecDeque};

/// Items that wait for an open unit at most; then it is closed as it is.
const WAITING_MAX: usize = 4096;
/// Versions of one segment at most: spans are numbers of 16 bits.
const VERSIONS_MAX: usize = 1 << 15;

/// A finished segment.
pub(super) struct Packed {
    pub(super) row: FoldRow,
    pub(super) bytes: Bytes,
    /// Of the extents that were put into it.
    content: [u8; 32],
}

/// An item; if it was packed, its unit and the sectors into it.
type Waiting = (Item, Option<(u32, u8)>);

/// A segment that is filled.
struct Open {
    id: SegmentId,
    builder: Builder,
    /// Versions by their order of coming.
    versions: BTreeMap<Version, u16>,
    content: blake3::Hasher,
}

pub(super) struct Packer<'a> {
    /// Of what it makes, but for the identity.
    id: SegmentId,
    key: &'a DataKey,
    open: Option<Open>,
    shrinker: Option<Shrinker>,
    waiting: VecDeque<Waiting>,
    ready: VecDeque<Item>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(id: SegmentId, key: &'a DataKey) -> Packer<'a> {
        let (waiting, ready) = (VecDeque::new(), VecDeque::new());
        Packer { id, key, open: None, shrinker: None, waiting, ready }
    }

    /// Passes an item on as it is, in its turn.
    pub(super) fn pass(&mut self, item: Item) {
        self.waiting.push_back((item, None));
        self.settle();
    }

    /// Puts an item's content into the open segment; `uuid` names one, should it begin. Returns a segment that is full.
    pub(super) fn put(&mut self, item: Item, content: &[u8], uuid: impl FnOnce() -> u128) -> Option<Packed> {
        let (id, key) = (self.id, &self.key.key);
        let shrinker = self.shrinker.take();
        let open = self.open.get_or_insert_with(|| {
            let id = SegmentId { uuid: uuid(), ..id };
            let builder = Builder::new(id, key, shrinker.unwrap_or_else(Shrinker::new));
            Open { id, builder, versions: BTreeMap::new(), content: blake3::Hasher::new() }
        });
        let next = open.versions.len() as u16;
        let span = *open.versions.entry(item.version).or_insert(next);
        let first = item.space.sectors(item.index).0 + u64::from(item.first);
        note(&mut open.content, item.version, first, content);
        let place = open.builder.data(item.space.volume, span, first, &[content]);
        self.waiting.push_back((item, Some(place)));
        if self.waiting.len() >= WAITING_MAX {
            open.builder.close_unit();
        }
        let is_full = open.builder.is_full() || open.versions.len() >= VERSIONS_MAX;
        self.settle();
        if is_full { self.finish() } else { None }
    }

    /// Closes the open segment, if there is one.
    pub(super) fn finish(&mut self) -> Option<Packed> {
        if let Some(open) = &mut self.open {
            open.builder.close_unit();
        }
        self.settle();
        let Open { id, mut builder, versions, content } = self.open.take()?;
        let sorted: Vec<Version> = versions.keys().copied().collect();
        let mut order = vec![0; sorted.len()];
        versions.values().enumerate().for_each(|(at, came)| order[usize::from(*came)] = at as u16);
        builder.rename_spans(&order);
        let (done, shrinker) = builder.finish();
        self.shrinker = Some(shrinker);
        let (length, tail, units) = (done.bytes.len() as u64, done.tail, done.units);
        let (root, digest, spans) = (done.root, done.digest, Spans::Each(sorted));
        let row = FoldRow { place: place(&id), length, tail, units, root, digest, spans };
        Some(Packed { row, bytes: done.bytes, content: *content.finalize().as_bytes() })
    }

    /// Returns the next item whose place is known.
    pub(super) fn pop(&mut self) -> Option<Item> {
        self.ready.pop_front()
    }

    fn settle(&mut self) {
        while let Some((item, packed)) = self.waiting.front() {
            let item = match (packed, &self.open) {
                (None, _) => *item,
                (Some((number, offset)), Some(open)) => {
                    let Some(row) = open.builder.unit(*number) else { return };
                    let unit = UnitPlace::new(place(&open.id), *number, row);
                    Item { unit: Some(unit), offset: *offset, ..*item }
                }
                // A segment is closed only when all that waits for it is settled.
                (Some(_), None) => unreachable!("RB-1: nothing waits for a segment that is closed"),
            };
            self.waiting.pop_front();
            self.ready.push_back(item);
        }
    }
}

fn place(id: &SegmentId) -> SegmentPlace {
    SegmentPlace { uuid: id.uuid, epoch: id.epoch, dek: id.dek, held: Held::Packed }
}

fn note(content: &mut blake3::Hasher, version: Version, first: u64, bytes: &[u8]) {
    for number in [version.0, first, bytes.len() as u64] {
        content.update(&number.to_le_bytes());
    }
    content.update(bytes);
}

impl Packed {
    /// Tells whether an object read back holds what was packed (RB-2).
    pub(super) fn is_as_packed(&self, id: &SegmentId, key: &DataKey, object: &[u8]) -> bool {
        self.content_of(id, key, object) == Ok(self.content)
    }

    fn content_of(&self, id: &SegmentId, key: &DataKey, object: &[u8]) -> Result<[u8; 32], Malformed> {
        let id = SegmentId { uuid: self.row.place.uuid, ..*id };
        let behind = object.get(self.row.tail as usize..).ok_or(Malformed("cut short"))?;
        let (units, extents) = parse_tail(&id, &key.key, self.row.tail, &self.row.root, behind)?;
        let Spans::Each(versions) = &self.row.spans else { return Err(Malformed("spans of one slot")) };
        let (mut content, mut opened) = (blake3::Hasher::new(), (u32::MAX, Bytes::new()));
        for ExtentRow { span, first, sectors, source, .. } in extents {
            let Source::Unit { unit, offset } = source else { return Err(Malformed("zeros were packed")) };
            if opened.0 != unit {
                opened = (unit, open(&id, key, &units, unit, object)?);
            }
            let (from, length) = (u64::from(offset) * SECTOR_BYTES, sectors * SECTOR_BYTES);
            let bytes = opened.1.get(from as usize..(from + length) as usize);
            let version = versions.get(usize::from(span)).ok_or(Malformed("an unknown span"))?;
            note(&mut content, *version, first, bytes.ok_or(Malformed("an extent leaves its unit"))?);
        }
        Ok(*content.finalize().as_bytes())
    }
}

fn open(
    id: &SegmentId,
    key: &DataKey,
    units: &[UnitRow],
    number: u32,
    object: &[u8],
) -> Result<Bytes, Malformed> {
    let row = units.get(number as usize).ok_or(Malformed("an extent names no unit"))?;
    let sealed = object.get(row.offset as usize..row.offset as usize + row.sealed as usize);
    let sealed = sealed.ok_or(Malformed("a unit is cut short"))?;
    open_unit(id, &id.opener(&key.key), &mut Inflater::new(), number, row, sealed)
}
