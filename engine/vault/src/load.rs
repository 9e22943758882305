//! Loads stretches of a machine's log with the tables of their segments: what both reader and maintainer index.

use crate::chain::{LogMark, LogTail};
use crate::error::VaultError;
use crate::fold::{FoldRow, Spans};
use crate::index::{Held, SegmentPlace, Tail};
use crate::key_ring::KeyRing;
use crate::log::{LogRecord, SegmentRow};
use crate::reader::{PointId, PointInfo};
use crate::segment::{ExtentRow, SegmentId, UnitRow, parse_tail};
use crate::units::HEADER_DIFFERS;
use crate::vault::Vault;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_core::MachineId;
use redoubt_ports::compute;
use redoubt_wire::aead::Key;

/// Slots of one stretch at most; bounds what is held before it is indexed.
pub(crate) const STRETCH_SLOTS: usize = 64;
/// Segment tables read at once.
const TABLES_AT_ONCE: usize = 16;

/// A machine's log, to be read.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) vault: Vault,
    pub(crate) machine: MachineId,
    pub(crate) keys: KeyRing,
}

/// A segment's tables, with the slot that names it.
struct Tables {
    slot: u64,
    place: SegmentPlace,
    units: Vec<UnitRow>,
    extents: Vec<ExtentRow>,
}

/// A segment that a fold names, with its tables.
pub(crate) struct FoldedTables {
    pub(crate) row: FoldRow,
    pub(crate) units: Vec<UnitRow>,
    pub(crate) extents: Vec<ExtentRow>,
}

/// A record being loaded.
struct Step {
    record: LogRecord,
    /// The tables of its inline segment, if it has one, and the key of the record.
    inline: Option<(Bytes, Key)>,
    /// The log's end before it.
    before: LogMark,
}

/// Slots that follow one another, up to the first damage.
pub(crate) struct Stretch {
    steps: Vec<Step>,
    tables: Vec<Tables>,
    pub(crate) tail: LogTail,
    /// Whether it came to the end of the log, or what stopped it.
    pub(crate) outcome: Result<bool, VaultError>,
}

impl Stretch {
    /// Adds what it holds to an index and a list of points.
    pub(crate) fn append(self, index: &mut Tail, points: &mut Vec<PointInfo>) -> LogTail {
        for Tables { slot, place, units, extents } in &self.tables {
            index.add(*slot, *place, units, extents);
        }
        for Step { record, .. } in self.steps {
            let slot = record.header.slot;
            points.extend(
                record
                    .body
                    .points
                    .into_iter()
                    .enumerate()
                    .map(|(at, point)| PointInfo::new(PointId { slot, ordinal: at as u16 }, point)),
            );
        }
        self.tail
    }
}

impl Log {
    /// Loads at most `limit` slots behind `tail`, up to the first damage or other error: that is its
    /// outcome, and what lies before it is loaded.
    pub(crate) async fn stretch(&self, mut tail: LogTail, limit: usize) -> Stretch {
        let head = tail.head.clone();
        let mut steps = Vec::new();
        let each = |record: LogRecord, key: &Key, slot: &Bytes, before: LogMark| {
            // An inline segment came along with its record.
            let inline = record.body.segments.iter().find(|row| row.inline);
            let inline = inline.map(|row| {
                let (from, to) = (record.inline_at + skip(row), record.inline_at + row.length);
                // A copy: the slot is much larger, and not kept.
                let tables = slot.get(from as usize..to as usize).unwrap_or(&[]);
                (Bytes::copy_from_slice(tables), key.clone())
            });
            steps.push(Step { record, inline, before });
        };
        let mut outcome = tail.load(self, limit, each).await;
        let (tables, damage) = self.all_tables(&mut steps).await;
        if let Some((at, error)) = damage {
            outcome = Err(error);
            let mark = steps[at].before;
            steps.truncate(at);
            tail = mark.tail(steps.last().map_or(head, |step| step.record.body.head.clone()));
        }
        Stretch { steps, tables, tail, outcome }
    }

    /// Reads the tables of all segments, in order, up to the first that fails: its step and the error.
    async fn all_tables(&self, steps: &mut [Step]) -> (Vec<Tables>, Option<(usize, VaultError)>) {
        let mut reads = Vec::new();
        for (at, step) in steps.iter_mut().enumerate() {
            for row in &step.record.body.segments {
                let inline = if row.inline { step.inline.take() } else { None };
                let read = self.tables(&step.record, row, inline);
                reads.push(async move { (at, read.await) });
            }
        }
        let mut reads = futures::stream::iter(reads).buffered(TABLES_AT_ONCE);
        let mut done: Vec<Tables> = Vec::new();
        while let Some((at, read)) = reads.next().await {
            match read {
                Ok(tables) => done.push(tables),
                Err(error) => {
                    drop(reads);
                    let slot = steps[at].record.header.slot;
                    done.retain(|tables| tables.slot < slot);
                    return (done, Some((at, error)));
                }
            }
        }
        (done, None)
    }

    /// Reads one segment's tables, unless they came along `inline`, and opens them.
    async fn tables(
        &self,
        record: &LogRecord,
        row: &SegmentRow,
        inline: Option<(Bytes, Key)>,
    ) -> Result<Tables, VaultError> {
        let (bytes, key) = match inline {
            Some(inline) => inline,
            None => {
                let (object, base) = place(record, row).object(self.machine);
                let range = base + skip(row)..base + row.length;
                let bytes = self.vault.store.get(&object, Some(range)).await?;
                let bytes =
                    bytes.ok_or_else(|| VaultError::damaged(&object, "a committed segment is missing"))?;
                (bytes, self.keys.get(record.header.dek).await?)
            }
        };
        let (machine, place) = (self.machine, place(record, row));
        let (id, last_span) = (record.segment_id(row), record.body.points.len());
        let sealed = SealedTables { machine, place, id, row: *row, last_span, bytes };
        // An opening waits for the tables of all segments behind the index: every core opens some.
        let (units, extents) = compute(&*self.vault.workers, move || sealed.open(&key)).await?;
        Ok(Tables { slot: record.header.slot, place, units, extents })
    }

    /// Reads the tables of segments that a fold names, in order, up to the first that fails.
    pub(crate) async fn folded_tables(&self, rows: Vec<FoldRow>) -> Result<Vec<FoldedTables>, VaultError> {
        let mut reads = Vec::with_capacity(rows.len());
        for row in rows {
            reads.push(self.folded_table(row));
        }
        futures::stream::iter(reads).buffered(TABLES_AT_ONCE).try_collect().await
    }

    async fn folded_table(&self, fold_row: FoldRow) -> Result<FoldedTables, VaultError> {
        let FoldRow { place, length, tail, units, root, digest, ref spans } = fold_row;
        let (object, base) = place.object(self.machine);
        let row = SegmentRow { uuid: place.uuid, length, tail, units, root, digest, inline: base > 0 };
        let last_span = match spans {
            Spans::Of(_) => usize::from(u16::MAX),
            Spans::Each(versions) => versions.len() - 1,
        };
        let bytes = self.vault.store.get(&object, Some(base + skip(&row)..base + length)).await?;
        let bytes = bytes.ok_or_else(|| VaultError::damaged(&object, "a segment of a fold is missing"))?;
        let key = self.keys.get(place.dek).await?;
        let (machine, id) = (self.machine, place.id(self.vault.uuid, self.machine));
        let sealed = SealedTables { machine, place, id, row, last_span, bytes };
        let (units, extents) = compute(&*self.vault.workers, move || sealed.open(&key)).await?;
        Ok(FoldedTables { row: fold_row, units, extents })
    }
}

/// The tables of one segment as they were read.
struct SealedTables {
    machine: MachineId,
    place: SegmentPlace,
    id: SegmentId,
    row: SegmentRow,
    /// Spans have numbers up to this one.
    last_span: usize,
    /// Those of the segment from [`skip`] on.
    bytes: Bytes,
}

impl SealedTables {
    /// Opens and checks them.
    fn open(self, key: &Key) -> Result<(Vec<UnitRow>, Vec<ExtentRow>), VaultError> {
        let SealedTables { machine, place, id, row, last_span, bytes } = self;
        let damaged = |what: &str| VaultError::damaged(place.object(machine).0, what);
        let split = bytes.split_at_checked((row.tail - skip(&row)) as usize);
        let (header, bytes) = split.ok_or_else(|| damaged("the segment is cut short"))?;
        if row.units == 0 && header != id.header() {
            return Err(damaged(HEADER_DIFFERS));
        }
        let parsed = parse_tail(&id, key, row.tail, &row.root, bytes);
        let (units, extents) = parsed.map_err(|what| damaged(what.0))?;
        let is_strange = |extent: &ExtentRow| usize::from(extent.span) > last_span;
        if units.len() != row.units as usize || extents.iter().any(is_strange) {
            return Err(damaged("the tables disagree with what names the segment"));
        }
        Ok((units, extents))
    }
}

/// Where reading a segment begins. Without units nobody would ever read its header; with them unit 0
/// brings it along.
fn skip(row: &SegmentRow) -> u64 {
    if row.units == 0 { 0 } else { row.tail }
}

pub(crate) fn place(record: &LogRecord, row: &SegmentRow) -> SegmentPlace {
    let (epoch, dek) = (record.header.epoch, record.header.dek);
    let held = match row.inline {
        true => Held::Inline { slot: record.header.slot, base: record.inline_at },
        false => Held::Own,
    };
    SegmentPlace { uuid: row.uuid, epoch, dek, held }
}
