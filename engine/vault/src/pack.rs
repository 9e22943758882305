//! From ordered records to versions: what each recovery point of a commit must show.
//!
//! Invariants
//! - PK-1 Between two points only the last content of a sector counts; each point keeps its own.
//! - PK-2 A marker inside a resync ends no span and is no point.
//! - PK-3 What a shrink cuts off becomes zeros in that span, so that growing again shows zeros.

use crate::error::CommitError;
use crate::log::{HeadState, POINTS_MAX, PointRow, SEGMENTS_MAX, VOLUMES_MAX, VolumeInfo};
use crate::segment::{Builder, EXTENTS_MAX, Encoded, GRANULE_SECTORS, SegmentId, UNIT_BYTES};
use crate::shrink::Shrinker;
use bytes::Bytes;
use redoubt_core::change::RECORD_BYTES_MAX;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{Change, Extent, Record, SECTOR_BYTES, Sectors, VolumeIndex, WriteSeq};
use redoubt_wire::aead::Key;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;

/// Rows of the extent table that one extent may take: one for each granule that its record can touch.
const ROWS_OF_EXTENT_MAX: usize = RECORD_BYTES_MAX / UNIT_BYTES + 2;

/// Where an extent begins: volume and sector.
type Place = (VolumeIndex, u64);

/// The last content of each sector within one span; `None` is zeros.
#[derive(Debug, Default)]
struct Span {
    extents: BTreeMap<Place, (u64, Option<Bytes>)>,
}

impl Span {
    /// Puts content over whatever was there.
    fn put(&mut self, volume: VolumeIndex, first: u64, end: u64, content: Option<Bytes>) {
        let before = self.extents.range(..(volume, first)).next_back();
        let mut from = (volume, first);
        if let Some((key, (key_end, _))) = before
            && key.0 == volume
            && *key_end > first
        {
            from = *key;
        }
        let cut: Vec<_> = self.extents.range(from..(volume, end)).map(|(key, _)| *key).collect();
        for key in cut {
            let Some((old_end, old)) = self.extents.remove(&key) else { continue };
            if key.1 < first {
                let part = old.as_ref().map(|bytes| sectors_of(bytes, 0, first - key.1));
                self.extents.insert(key, (first, part));
            }
            if old_end > end {
                let part = old.as_ref().map(|bytes| sectors_of(bytes, end - key.1, old_end - key.1));
                self.extents.insert((volume, end), (old_end, part));
            }
        }
        self.extents.insert((volume, first), (end, content));
    }
}

fn sectors_of(bytes: &Bytes, from: u64, to: u64) -> Bytes {
    bytes.slice((from * SECTOR_BYTES) as usize..(to * SECTOR_BYTES) as usize)
}

/// Records turned into spans, points and the head after them.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) head: HeadState,
    pub(crate) points: Vec<PointRow>,
    spans: Vec<Span>,
}

impl Packed {
    /// Applies records to the head. They must be contiguous with it.
    pub(crate) fn new(head: &HeadState, records: &[Record]) -> Result<Packed, CommitError> {
        let mut packed = Packed { head: head.clone(), points: Vec::new(), spans: vec![Span::default()] };
        for record in records {
            packed.apply(record).map_err(|why| CommitError::BadRecord { seq: record.seq, why })?;
            if packed.points.len() > POINTS_MAX {
                return Err(CommitError::TooLarge { what: "recovery points", limit: POINTS_MAX });
            }
        }
        Ok(packed)
    }

    fn apply(&mut self, record: &Record) -> Result<(), &'static str> {
        if let Some((volume, extent)) = record.change.touched() {
            return self.content(volume, extent, record.change.payload());
        }
        match &record.change {
            Change::Attach { volume, id, sectors } => {
                let info = VolumeInfo { id: *id, sectors: Sectors(0) };
                let known = self.head.volumes.insert(*volume, info);
                if self.head.volumes.len() > VOLUMES_MAX {
                    return Err("the machine has too many volumes");
                }
                if let Some(known) = known {
                    // The same volume announced again keeps its content; another one does not.
                    let kept = if known.id == *id { known.sectors } else { Sectors(0) };
                    self.cut(*volume, kept.0, known.sectors.0);
                    self.head.volumes.insert(*volume, VolumeInfo { id: *id, sectors: kept });
                }
                self.resize(*volume, *sectors)
            }
            Change::Resize { volume, sectors } => self.resize(*volume, *sectors),
            Change::Marker(marker) => {
                let exact = self.head.exact;
                if exact || planted::active(Bug::PointInsideResync) {
                    let (marker, volumes) = (marker.clone(), self.head.volumes.clone());
                    self.points.push(PointRow { marker, seq: record.seq, exact, volumes });
                    self.spans.push(Span::default());
                }
                Ok(())
            }
            Change::ResyncBegin { reason } => {
                self.head.exact = false;
                self.head.resync = Some(*reason);
                Ok(())
            }
            Change::ResyncEnd => {
                self.head.exact = true;
                self.head.resync = None;
                Ok(())
            }
            _ => Err("a write without content"),
        }
    }

    fn content(
        &mut self,
        volume: VolumeIndex,
        extent: Extent,
        payload: Option<&Bytes>,
    ) -> Result<(), &'static str> {
        let info = self.head.volumes.get(&volume).ok_or("the volume was never attached")?;
        let end = extent.lba.0.checked_add(extent.sectors.0).ok_or("the extent overflows")?;
        if end > info.sectors.0 {
            return Err("the extent ends behind the volume");
        }
        if payload.is_some_and(|payload| payload.len() as u64 != extent.bytes()) {
            return Err("the payload is not a whole number of sectors");
        }
        // A copy would only matter if the payload kept a much larger receive buffer alive.
        self.span().put(volume, extent.lba.0, end, payload.cloned());
        Ok(())
    }

    fn resize(&mut self, volume: VolumeIndex, sectors: Sectors) -> Result<(), &'static str> {
        let info = self.head.volumes.get_mut(&volume).ok_or("the volume was never attached")?;
        let old = std::mem::replace(&mut info.sectors, sectors);
        self.cut(volume, sectors.0, old.0);
        Ok(())
    }

    fn cut(&mut self, volume: VolumeIndex, from: u64, to: u64) {
        if from < to {
            self.span().put(volume, from, to, None);
        }
    }

    fn span(&mut self) -> &mut Span {
        let last = self.spans.len() - 1;
        &mut self.spans[last]
    }

    /// Cuts the spans, sorted by address, into portions of some `target` bytes of content each.
    pub(crate) fn portions(&self, target: usize) -> Result<Vec<Portion>, CommitError> {
        let mut done = Vec::new();
        let mut open = Portion::default();
        for (number, span) in self.spans.iter().enumerate() {
            for (key, (end, content)) in &span.extents {
                if open.is_full(target) {
                    done.push(std::mem::take(&mut open));
                }
                open.add(number as u16, *key, *end, content.is_some());
            }
        }
        if !open.parts.is_empty() {
            done.push(open);
        }
        if done.len() > SEGMENTS_MAX {
            return Err(CommitError::TooLarge { what: "segments", limit: SEGMENTS_MAX });
        }
        Ok(done)
    }

    /// Encodes one portion.
    pub(crate) fn encode(
        &self,
        portion: &Portion,
        id: SegmentId,
        dek: &Key,
        shrinker: Shrinker,
    ) -> (Encoded, Shrinker) {
        let mut segment = Builder::new(id, dek, shrinker);
        for (number, first, last) in &portion.parts {
            let extents = self.spans[usize::from(*number)].extents.range(*first..=*last);
            Runs::new(extents).for_each(|run| run.put(&mut segment, *number));
        }
        segment.finish()
    }
}

/// What goes into one segment: the first and the last extent of each span that has some in it.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    parts: Vec<(u16, Place, Place)>,
    bytes: usize,
    /// Rows of the extent table at most.
    rows: usize,
}

impl Portion {
    fn is_full(&self, target: usize) -> bool {
        self.bytes >= target || self.rows >= EXTENTS_MAX - ROWS_OF_EXTENT_MAX
    }

    fn add(&mut self, span: u16, key: Place, end: u64, has_content: bool) {
        let sectors = end - key.1;
        if has_content {
            self.bytes += (sectors * SECTOR_BYTES) as usize;
            self.rows += (sectors / GRANULE_SECTORS) as usize + 2;
        } else {
            self.rows += 1;
        }
        match self.parts.last_mut() {
            Some((number, _, last)) if *number == span => *last = key,
            _ => self.parts.push((span, key, key)),
        }
    }
}

/// Part of an extent: zeros of any length, or content within one granule.
struct Piece<'a> {
    volume: VolumeIndex,
    first: u64,
    end: u64,
    content: Option<&'a [u8]>,
}

/// What is left of an extent, cut at granules.
type Pieces<'a> = Piece<'a>;

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.first >= self.end {
            return None;
        }
        let (volume, first) = (self.volume, self.first);
        let Some(content) = self.content else {
            self.first = self.end;
            return Some(Piece { volume, first, end: self.end, content: None });
        };
        let end = self.end.min((first / GRANULE_SECTORS + 1) * GRANULE_SECTORS);
        let (piece, rest) = content.split_at(((end - first) * SECTOR_BYTES) as usize);
        (self.first, self.content) = (end, Some(rest));
        Some(Piece { volume, first, end, content: (!is_zero(piece)).then_some(piece) })
    }
}

/// Most content shows in its first bytes; only zeros are read to the end.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Neighbouring pieces of one granule, gathered so that they share an entry and a unit.
struct Run<'a> {
    volume: VolumeIndex,
    first: u64,
    end: u64,
    /// Empty: zeros.
    content: Vec<&'a [u8]>,
}

impl<'a> Run<'a> {
    fn new(piece: Piece<'a>) -> Run<'a> {
        let content = piece.content.into_iter().collect();
        Run { volume: piece.volume, first: piece.first, end: piece.end, content }
    }

    fn join(&mut self, piece: &Piece<'a>) -> bool {
        let adjacent = self.volume == piece.volume && self.end == piece.first;
        match (self.content.is_empty(), piece.content) {
            (true, None) if adjacent => {}
            (false, Some(more))
                if adjacent && self.first / GRANULE_SECTORS == (piece.end - 1) / GRANULE_SECTORS =>
            {
                self.content.push(more);
            }
            _ => return false,
        }
        self.end = piece.end;
        true
    }

    fn put(&self, segment: &mut Builder, span: u16) {
        match &self.content[..] {
            [] => segment.zero(self.volume, span, self.first, self.end - self.first),
            content => _ = segment.data(self.volume, span, self.first, content),
        }
    }
}

/// The runs of part of a span, by address.
struct Runs<'a> {
    extents: Range<'a, Place, (u64, Option<Bytes>)>,
    pieces: Option<Pieces<'a>>,
    run: Option<Run<'a>>,
}

impl<'a> Runs<'a> {
    fn new(extents: Range<'a, Place, (u64, Option<Bytes>)>) -> Runs<'a> {
        Runs { extents, pieces: None, run: None }
    }

    fn piece(&mut self) -> Option<Piece<'a>> {
        loop {
            if let Some(piece) = self.pieces.as_mut().and_then(Iterator::next) {
                return Some(piece);
            }
            let (&(volume, first), (end, content)) = self.extents.next()?;
            let content = content.as_ref().map(|bytes| &bytes[..]);
            self.pieces = Some(Pieces { volume, first, end: *end, content });
        }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        while let Some(piece) = self.piece() {
            let joined = self.run.as_mut().is_some_and(|run| run.join(&piece));
            if !joined && let Some(whole) = self.run.replace(Run::new(piece)) {
                return Some(whole);
            }
        }
        self.run.take()
    }
}

/// Tells whether the records open a resync: `ResyncBegin`, perhaps behind volumes being attached.
fn opens_resync(records: &[Record]) -> bool {
    let first = records.iter().find(|record| !matches!(record.change, Change::Attach { .. }));
    first.is_some_and(|record| matches!(record.change, Change::ResyncBegin { .. }))
}

/// Checks that records follow `after` and are contiguous; a resync may jump forward (CH-2).
pub(crate) fn check_order(after: WriteSeq, records: &[Record]) -> Result<(), CommitError> {
    let mut last = after;
    for (index, record) in records.iter().enumerate() {
        let jump = || record.seq > last && opens_resync(&records[index..]);
        if record.seq != last.next() && !jump() {
            return Err(CommitError::Gap { after: last, found: record.seq });
        }
        last = record.seq;
    }
    Ok(())
}
