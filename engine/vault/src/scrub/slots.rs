//! The log: every slot by itself, what follows what, and the segments that its records name.

use super::clear::{self, ClearSlot, Fault, Kind};
use super::hits::{Bad, Of, Which};
use super::open::{self, Opened};
use super::report::Takes;
use super::{Keys, Pending, Run};
use crate::error::StoreFailure;
use crate::fold::Spans;
use crate::log::{self, LogRecord, SegmentRow};
use crate::names;
use crate::reader::PointId;
use crate::segment::SegmentId;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;

/// Slots whose segments are checked before the next ones are read; bounds what their records hold.
pub(super) const STRETCH: usize = 64;
const VOID: Takes = Takes::Nothing("its record is a fenced writer's and counts for nothing");

/// A slot by itself.
struct Slot {
    clear: ClearSlot,
    length: u64,
    /// The number of its data key, if that is the one that is missing.
    no_key: Option<u32>,
    /// Without a key, or if it does not open, there is none.
    record: Option<LogRecord>,
    /// What is wrong with the body.
    body: Option<Fault>,
    /// The segment behind the record.
    inline: Option<Opened>,
    /// The same without a key.
    clear_inline: (Vec<Fault>, u64),
}

/// Where the chain is.
#[derive(Default)]
struct Link {
    slot: u64,
    /// Digest of the slot before, if it is known; what follows the body there.
    digest: Option<([u8; 32], u64)>,
    epoch: u64,
}

/// A segment that a record names and that is an object of its own, or one that a fold names.
pub(super) struct Named {
    pub(super) name: StoreKey,
    /// Where it begins in the object.
    pub(super) base: u64,
    pub(super) id: SegmentId,
    pub(super) row: SegmentRow,
    pub(super) spans: Spans,
    pub(super) is_void: bool,
    pub(super) is_folded: bool,
}

fn check(bytes: &[u8], vault: u128, machine: MachineId, slot: u64, keys: Option<&Keys>) -> Slot {
    let clear = clear::slot(bytes, vault, machine, slot);
    let (mut record, mut body, mut inline, mut clear_inline) = (None, None, None, (Vec::new(), 0));
    let behind = bytes.get(clear.inline_at..).unwrap_or_default();
    let named = log::peek(bytes).map_or(0, |(header, _)| header.dek);
    let dek = keys.and_then(|keys| keys.get(&named)).filter(|_| clear.faults.is_empty());
    match dek.map(|dek| (dek, log::decode(bytes, dek))) {
        None if keys.is_none() && clear.faults.is_empty() && !behind.is_empty() => {
            clear_inline = clear::segment(behind, clear.inline_at as u64, None);
        }
        None => {}
        Some((_, Err(what))) => {
            let (from, to) = (log::HEADER_BYTES as u64, clear.inline_at.min(bytes.len()) as u64);
            body = Some(Fault::new(from, to, what.0));
        }
        Some((dek, Ok(opened))) => {
            let row = opened.body.segments.iter().find(|row| row.inline);
            let base = clear.inline_at as u64;
            inline = row.map(|row| open::segment(behind, base, &opened.segment_id(row), row, dek));
            if row.is_none() && !behind.is_empty() {
                let what = "the object does not end where its record says";
                body = Some(Fault::new(base, bytes.len() as u64, what));
            }
            record = Some(opened);
        }
    }
    let no_key = (keys.is_some() && dek.is_none() && clear.faults.is_empty()).then_some(named);
    Slot { clear, length: bytes.len() as u64, no_key, record, body, inline, clear_inline }
}

impl Run<'_> {
    pub(super) async fn slots(&mut self) {
        let prefix = names::log(self.machine);
        let slots: Vec<(u64, StoreKey)> = self
            .inventory
            .keys()
            .filter_map(|name| Some((names::number(name, &prefix, 16)?, name.clone())))
            .filter(|(slot, _)| self.keys.is_none() || *slot > self.mark.slot)
            .collect();
        let mut link = Link::default();
        if self.keys.is_some() && self.mark.slot > 0 {
            // Of slots before it the folds say which segments still count.
            let digest = (self.mark.epoch > 0).then_some((self.mark.digest, 0));
            link = Link { slot: self.mark.slot, digest, epoch: self.mark.epoch };
        }
        for stretch in slots.chunks(STRETCH) {
            let numbers: Vec<u64> = stretch.iter().map(|(slot, _)| *slot).collect();
            let (vault, machine, keys) = (self.vault, self.machine, self.keys.clone());
            let names: Vec<StoreKey> = stretch.iter().map(|(_, name)| name.clone()).collect();
            let checked =
                self.each(names, move |at, bytes| check(bytes, vault, machine, numbers[at], keys.as_ref()));
            let checked = checked.await;
            let mut segments = Vec::new();
            for ((slot, name), read) in stretch.iter().zip(checked) {
                self.gap(&mut link, *slot).await;
                match self.note(name, read) {
                    Some(Some(found)) => self.slot(&mut link, *slot, name, found, &mut segments),
                    Some(None) => {
                        // A maintainer may have folded it since.
                        let is_folded = self.mark_now().await.map(|mark| *slot <= mark);
                        if !self.may_miss(name, is_folded) {
                            self.lost_slot(*slot);
                        }
                    }
                    None => {}
                }
                link.slot = *slot;
            }
            self.segments(segments).await;
        }
        if self.keys.is_none() {
            self.clear_segments().await;
        }
    }

    /// Slots behind the mark are dense: what is missing between two was there.
    async fn gap(&mut self, link: &mut Link, slot: u64) {
        if link.slot + 1 == slot {
            return;
        }
        link.digest = None;
        let mark_now = self.mark_now().await;
        let mark = self.mark.slot.max(*mark_now.as_ref().unwrap_or(&0));
        let first = link.slot.max(mark).saturating_add(1);
        if first < slot && !self.may_miss(&names::slot(self.machine, first), mark_now.map(|_| false)) {
            (first..slot).for_each(|missing| self.lost_slot(missing));
        }
    }

    fn lost_slot(&mut self, slot: u64) {
        let name = names::slot(self.machine, slot);
        let fault = Fault::new(0, 0, "the slot is missing, later ones exist");
        self.broken_slot(slot, &name, fault, Some(0));
    }

    /// A record cannot be used. Units behind it that end behind `length` are gone with it.
    fn broken_slot(&mut self, slot: u64, name: &StoreKey, fault: Fault, length: Option<u64>) {
        self.is_broken = true;
        let takes = self.unmapped();
        let damage = self.add(name, fault, takes);
        if let (Some(damage), Some(length)) = (damage, length) {
            let bad = Bad::in_slot(slot, Of::Slot(slot), Which::Behind(length));
            self.pending.push(Pending { damage, bad, rows: None });
        }
    }

    fn slot(&mut self, link: &mut Link, slot: u64, name: &StoreKey, found: Slot, segments: &mut Vec<Named>) {
        let before = std::mem::take(&mut link.digest);
        for fault in found.clear.faults {
            let is_cut = found.clear.inline_at as u64 > found.length;
            self.broken_slot(slot, name, fault, is_cut.then_some(found.length));
        }
        let Some((digest, prev, epoch)) = found.clear.links else { return };
        link.digest = Some((digest, found.clear.inline_at as u64));
        let is_void = epoch < link.epoch;
        link.epoch = link.epoch.max(epoch);
        if let Some((_, end)) = before.filter(|(digest, _)| !is_void && *digest != prev) {
            self.unlinked(slot, name, end, found.record.is_some());
        }
        if let Some(fault) = found.body {
            if found.record.is_some() {
                self.add(name, fault, Takes::Nothing("what lies behind a record's end is not read"));
            } else {
                self.broken_slot(slot, name, fault, None);
            }
        }
        if let Some(id) = found.no_key {
            self.no_key(id);
        }
        let (faults, units) = found.clear_inline;
        self.report.units += units;
        for fault in faults {
            self.add(name, fault, if is_void { VOID } else { Takes::Unknown });
        }
        let Some(record) = found.record else { return };
        if !is_void && slot > self.covered {
            let points = 0..record.body.points.len() as u16;
            self.points.extend(points.map(|ordinal| PointId { slot, ordinal }));
        }
        for row in record.body.segments.iter().filter(|row| !row.inline) {
            let (id, row) = (record.segment_id(row), *row);
            let name = names::segment(self.machine, id.epoch, row.uuid);
            let spans = Spans::Of(slot);
            segments.push(Named { name, base: 0, id, row, spans, is_void, is_folded: false });
        }
        if let (Some(opened), Some(row)) = (found.inline, record.body.segments.iter().find(|row| row.inline))
        {
            self.opened(name, (row.uuid, &Spans::Of(slot)), opened, is_void, found.length);
        }
    }

    /// A record does not name the digest of the one before it. Sealed ones prove themselves; else it is the
    /// body before that changed, since both headers have their checksums.
    fn unlinked(&mut self, slot: u64, name: &StoreKey, end: u64, is_opened: bool) {
        if is_opened || self.keys.is_some() {
            if is_opened && !self.is_broken {
                let fault = Fault::new(0, log::HEADER_BYTES as u64, "does not follow the slot before it");
                self.broken_slot(slot, name, fault, None);
            }
            return;
        }
        let fault = Fault::new(
            log::HEADER_BYTES as u64,
            end,
            "the next slot names another digest: the body has changed",
        );
        self.broken_slot(slot - 1, &names::slot(self.machine, slot - 1), fault, None);
    }

    /// Takes note of a segment that was opened with its key.
    fn opened(
        &mut self,
        name: &StoreKey,
        (uuid, spans): (u128, &Spans),
        opened: Opened,
        is_void: bool,
        length: u64,
    ) {
        self.report.units += opened.units;
        for fault in opened.faults {
            if is_void {
                self.add(name, fault, VOID);
                continue;
            }
            let takes = self.unmapped();
            let (unit, is_cut) = (fault.unit, fault.from >= length);
            let is_costly = unit.is_some() || opened.is_closed;
            let takes = if is_costly {
                takes
            } else {
                Takes::Nothing("what lies behind a segment's end is not read")
            };
            self.is_broken |= opened.is_closed;
            let Some(damage) = self.add(name, fault, takes) else { continue };
            let of = |unit| {
                let is_of = |row: &&crate::segment::ExtentRow| matches!(row.source, crate::segment::Source::Unit { unit: of, .. } if of == unit);
                let written = |row: &crate::segment::ExtentRow| {
                    Some((spans.version(row.span)?, row.volume, row.first..row.first + row.sectors))
                };
                opened.extents.iter().filter(is_of).filter_map(written).collect()
            };
            let which = unit.map(Which::Unit).or(is_cut.then_some(Which::Behind(length)));
            if let Some(which) = which {
                let bad = Bad::in_segment(uuid, spans, which);
                self.pending.push(Pending { damage, bad, rows: unit.map(of) });
            }
        }
    }

    /// Checks segments that records or folds name.
    pub(super) async fn segments(&mut self, segments: Vec<Named>) {
        let mut segments = segments.into_iter();
        loop {
            // A commit may have any number of them; what is whole is told after so many.
            let some: Vec<Named> = segments.by_ref().take(STRETCH).collect();
            if some.is_empty() {
                return;
            }
            self.some_segments(some).await;
        }
    }

    async fn some_segments(&mut self, mut segments: Vec<Named>) {
        segments.retain(|named| named.base > 0 || !self.resume(&named.name));
        let names = segments.iter().map(|named| named.name.clone()).collect();
        let rows: Vec<(u64, SegmentId, SegmentRow)> =
            segments.iter().map(|named| (named.base, named.id, named.row)).collect();
        let Some(keys) = self.keys.clone() else { return };
        let work = move |at: usize, bytes: &bytes::Bytes| {
            let (base, id, row) = &rows[at];
            let own = bytes.get(*base as usize..).unwrap_or_default();
            // A record that opened names its own data key for its segments as well.
            let opened = keys.get(&id.dek).map(|dek| open::segment(own, *base, id, row, dek));
            (opened, bytes.len() as u64)
        };
        let checked = self.each(names, work).await;
        for (named, read) in segments.into_iter().zip(checked) {
            let named_key = named.id.dek;
            let Named { name, base, row, spans, is_void, is_folded, .. } = named;
            match self.note(&name, read) {
                Some(Some((None, _))) => self.no_key(named_key),
                Some(Some((Some(opened), length))) => {
                    if base == 0 && opened.faults.is_empty() {
                        self.watch.is_whole(&name);
                    }
                    self.opened(&name, (row.uuid, &spans), opened, is_void, length)
                }
                // A fenced writer's may have been collected.
                Some(None) if is_void => {}
                Some(None) => {
                    // A maintainer may have packed it anew.
                    let is_given_up = match is_folded {
                        true => self.is_outdated().await,
                        false => self.is_given_up(&spans).await,
                    };
                    if self.may_miss(&name, is_given_up) {
                        continue;
                    }
                    self.is_broken = true;
                    let takes = self.unmapped();
                    let damage = self.add(&name, Fault::new(0, 0, "a committed segment is missing"), takes);
                    let bad = Bad::in_segment(row.uuid, &spans, Which::Behind(0));
                    self.pending.extend(damage.map(|damage| Pending { damage, bad, rows: None }));
                }
                None => {}
            }
        }
    }

    /// Tells whether a record's segments were folded since it was read.
    async fn is_given_up(&self, spans: &Spans) -> Result<bool, StoreFailure> {
        match spans {
            Spans::Of(slot) => Ok(*slot <= self.mark_now().await?),
            Spans::Each(_) => Ok(false),
        }
    }

    /// Checks all segments by what they say of themselves.
    async fn clear_segments(&mut self) {
        let machine = self.machine;
        let is_segment =
            |name: &&StoreKey| matches!(Kind::of(name, machine), Kind::Segment(..) | Kind::Packed(..));
        let names: Vec<StoreKey> = self.inventory.keys().filter(is_segment).cloned().collect();
        for group in names.chunks(STRETCH) {
            let mut group = group.to_vec();
            group.retain(|name| !self.resume(name));
            let (vault, of) = (self.vault, group.clone());
            let work = move |at: usize, bytes: &bytes::Bytes| {
                let (Kind::Segment(epoch, uuid) | Kind::Packed(epoch, uuid)) = Kind::of(&of[at], machine)
                else {
                    return (Vec::new(), 0);
                };
                clear::segment(bytes, 0, Some(SegmentId { vault, machine, epoch, uuid, dek: 0 }))
            };
            let checked = self.each(group.clone(), work).await;
            for (name, read) in group.iter().zip(checked) {
                // What vanished since the listing was an orphan.
                let Some(Some((faults, units))) = self.note(name, read) else { continue };
                self.report.units += units;
                if faults.is_empty() {
                    self.watch.is_whole(name);
                }
                for fault in faults {
                    self.add(name, fault, Takes::Unknown);
                }
            }
        }
    }
}
