//! Loads stretches of a machine's log with the tables of their segments: what both reader and maintainer index.

use crate::chain::{LogMark, LogTail};
use crate::error::VaultError;
use crate::index::{Held, SegmentPlace, Tail};
use crate::key_ring::KeyRing;
use crate::log::{LogRecord, SegmentRow};
use crate::reader::{PointId, PointInfo};
use crate::segment::{ExtentRow, SegmentId, UnitRow, parse_tail};
use crate::units::HEADER_DIFFERS;
use crate::vault::Vault;
use bytes::Bytes;
use futures::StreamExt;
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
        let sealed = SealedTables {
            machine: self.machine,
            slot: record.header.slot,
            place: place(record, row),
            id: record.segment_id(row),
            row: *row,
            points: record.body.points.len(),
            bytes,
        };
        // An opening waits for the tables of all segments behind the index: every core opens some.
        compute(&*self.vault.workers, move || sealed.open(&key)).await
    }
}

/// The tables of one segment as they were read.
struct SealedTables {
    machine: MachineId,
    slot: u64,
    place: SegmentPlace,
    id: SegmentId,
    row: SegmentRow,
    /// Points of the record that names it.
    points: usize,
    /// Those of the segment from [`skip`] on.
    bytes: Bytes,
}

impl SealedTables {
    /// Opens and checks them.
    fn open(self, key: &Key) -> Result<Tables, VaultError> {
        let SealedTables { machine, slot, place, id, row, points, bytes } = self;
        let damaged = |what: &str| VaultError::damaged(place.object(machine).0, what);
        let split = bytes.split_at_checked((row.tail - skip(&row)) as usize);
        let (header, bytes) = split.ok_or_else(|| damaged("the segment is cut short"))?;
        if row.units == 0 && header != id.header() {
            return Err(damaged(HEADER_DIFFERS));
        }
        let parsed = parse_tail(&id, key, row.tail, &row.root, bytes);
        let (units, extents) = parsed.map_err(|what| damaged(what.0))?;
        if units.len() != row.units as usize || extents.iter().any(|extent| usize::from(extent.span) > points)
        {
            return Err(damaged("the tables disagree with the record"));
        }
        Ok(Tables { slot, place, units, extents })
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
