//! From ordered records to versions: what each recovery point of a commit must show.
//!
//! Invariants
//! - PK-1 Between two points only the last content of a sector counts; each point keeps its own.
//! - PK-2 A marker inside a resync ends no span and is no point.
//! - PK-3 What a shrink cuts off becomes zeros in that span, so that growing again shows zeros.

use crate::error::CommitError;
use crate::log::{HeadState, POINTS_MAX, PointRow, SEGMENTS_MAX, VOLUMES_MAX, VolumeInfo};
use crate::segment::{Builder, Encoded, GRANULE_SECTORS, SegmentId};
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{Change, Extent, Record, SECTOR_BYTES, Sectors, VolumeIndex, WriteSeq};
use redoubt_wire::aead::Key;
use std::collections::BTreeMap;

/// The last content of each sector within one span; `None` is zeros.
#[derive(Debug, Default)]
struct Span {
    extents: BTreeMap<(VolumeIndex, u64), (u64, Option<Bytes>)>,
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

    /// Encodes the spans, sorted by address, into segments of `target` bytes. `uuid` gives a new identity each time.
    pub(crate) fn encode(
        &self,
        id: SegmentId,
        dek: &Key,
        target: usize,
        mut uuid: impl FnMut() -> u128,
    ) -> Result<Vec<Encoded>, CommitError> {
        let mut done = Vec::new();
        let mut open = Builder::new(SegmentId { uuid: uuid(), ..id }, dek, target);
        for (number, span) in self.spans.iter().enumerate() {
            let mut run: Option<Run> = None;
            for ((volume, first), (end, content)) in &span.extents {
                let content = content.as_ref().map(|bytes| &bytes[..]);
                for piece in (Pieces { volume: *volume, first: *first, end: *end, content }) {
                    if let Some(run) = &mut run
                        && run.join(&piece)
                    {
                        continue;
                    }
                    if let Some(run) = run.replace(Run::new(&piece)) {
                        run.put(&mut open, number as u16);
                    }
                    if open.is_full() {
                        let next = Builder::new(SegmentId { uuid: uuid(), ..id }, dek, target);
                        done.push(std::mem::replace(&mut open, next).finish());
                    }
                }
            }
            if let Some(run) = run {
                run.put(&mut open, number as u16);
            }
        }
        if !open.is_empty() {
            done.push(open.finish());
        }
        if done.len() > SEGMENTS_MAX {
            return Err(CommitError::TooLarge { what: "segments", limit: SEGMENTS_MAX });
        }
        Ok(done)
    }
}

/// Part of an extent: zeros of any length, or content within one granule.
struct Piece<'a> {
    volume: VolumeIndex,
    first: u64,
    end: u64,
    content: Option<&'a [u8]>,
}

struct Pieces<'a> {
    volume: VolumeIndex,
    first: u64,
    end: u64,
    content: Option<&'a [u8]>,
}

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
        let piece = piece.iter().any(|byte| *byte != 0).then_some(piece);
        Some(Piece { volume, first, end, content: piece })
    }
}

/// Neighbouring pieces of one granule, gathered so that they share an entry and a unit.
struct Run {
    volume: VolumeIndex,
    first: u64,
    end: u64,
    content: Option<Vec<u8>>,
}

impl Run {
    fn new(piece: &Piece<'_>) -> Run {
        let content = piece.content.map(<[u8]>::to_vec);
        Run { volume: piece.volume, first: piece.first, end: piece.end, content }
    }

    fn join(&mut self, piece: &Piece<'_>) -> bool {
        let adjacent = self.volume == piece.volume && self.end == piece.first;
        match (&mut self.content, piece.content) {
            (None, None) if adjacent => {}
            (Some(content), Some(more))
                if adjacent && self.first / GRANULE_SECTORS == (piece.end - 1) / GRANULE_SECTORS =>
            {
                content.extend_from_slice(more);
            }
            _ => return false,
        }
        self.end = piece.end;
        true
    }

    fn put(self, segment: &mut Builder, span: u16) {
        match self.content {
            None => segment.zero(self.volume, span, self.first, self.end - self.first),
            Some(content) => segment.data(self.volume, span, self.first, &content),
        }
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
