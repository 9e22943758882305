//! Reads a machine's log and serves any recovery point by address.
//!
//! Invariants
//! - RD-1 A view never changes: what is loaded later has later versions.
//! - RD-2 Bytes are returned only if every unit they come from opened; damage is an error that names
//!   object and range, never zeros and never older content.
//! - RD-3 Damage in the log or in a segment's tables takes the points behind it, never one before it.

use crate::chain::{LogMark, LogTail};
use crate::claims;
use crate::error::{ReadError, VaultError};
use crate::index::{Found, Index, Version};
use crate::log::{HeadState, LogRecord, SegmentRow, Volumes};
use crate::names;
use crate::segment::{ExtentRow, UNIT_BYTES, parse_tail};
use crate::units::{HEADER_DIFFERS, Loaded, UnitCache, UnitId, load};
use crate::vault::Vault;
use bytes::Bytes;
use futures::StreamExt;
use redoubt_core::{Extent, MachineId, Marker, SECTOR_BYTES, VolumeIndex, WriteSeq};
use redoubt_ports::StoreKey;
use redoubt_wire::aead::Key;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Bytes of one read at most; bounds what one request can make the reader hold.
pub const READ_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a block of [`PointView::hash_blocks`].
pub const BLOCK_BYTES: u64 = UNIT_BYTES as u64;
/// Sectors compared at once, 256 MiB of them: bounds what a comparison of two points holds.
const COMPARE_SECTORS: u64 = 1 << 19;
/// Segment tables read at once while the log is loaded.
const TABLES_AT_ONCE: usize = 16;

/// Identity of a recovery point: log slot and ordinal of the marker in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId {
    /// Log slot.
    pub slot: u64,
    /// Ordinal within the slot.
    pub ordinal: u16,
}

/// A recovery point of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointInfo {
    /// Identity within this vault.
    pub id: PointId,
    /// The marker that made it; its id is shared by all members of a group point.
    pub marker: Marker,
    /// The marker's place in the stream.
    pub seq: WriteSeq,
    /// Whether the stream was exact there; true for every point a correct writer makes.
    pub exact: bool,
    /// Volumes with their sizes at the point.
    pub volumes: Volumes,
}

#[derive(Default)]
struct State {
    index: Index,
    segments: Vec<Loaded>,
    points: Vec<PointInfo>,
    tail: LogTail,
}

/// A record being loaded.
struct Step {
    record: LogRecord,
    /// The tables of its inline segment, if it has one.
    inline: Option<Result<Tables, VaultError>>,
    /// The log's end before it.
    before: LogMark,
}

impl State {
    fn append(&mut self, steps: Vec<Step>, tables: Vec<Tables>, tail: LogTail) {
        for (loaded, slot, extents) in tables {
            let ordinal = self.segments.len() as u32;
            self.segments.push(loaded);
            for row in &extents {
                self.index.add(Version::new(slot, row.span), ordinal, row);
            }
        }
        for Step { record, .. } in steps {
            let slot = record.header.slot;
            self.points.extend(record.body.points.into_iter().enumerate().map(|(at, point)| PointInfo {
                id: PointId { slot, ordinal: at as u16 },
                marker: point.marker,
                seq: point.seq,
                exact: point.exact,
                volumes: point.volumes,
            }));
        }
        self.tail = tail;
    }
}

struct Inner {
    vault: Vault,
    machine: MachineId,
    dek: Key,
    state: RwLock<State>,
    cache: UnitCache,
    findings: Vec<VaultError>,
    /// Held by the one refresh at work, with the tail it has read.
    refreshing: tokio::sync::Mutex<()>,
}

/// A segment's tables, with the slot that names it.
type Tables = (Loaded, u64, Vec<ExtentRow>);

impl Inner {
    /// Loads what is new, up to the first damage or other error: that is returned, and what lies before
    /// it is loaded (RD-3).
    async fn refresh(&self) -> Result<u64, VaultError> {
        let _one = self.refreshing.lock().await;
        let mut tail = self.state().tail.clone();
        let before = tail.slot;
        let mut steps = Vec::new();
        let each = |record: LogRecord, slot: &Bytes, before: LogMark| {
            // An inline segment came along with its record.
            let inline = record.body.segments.iter().find(|row| row.inline);
            let inline = inline.map(|row| {
                let from = record.inline_at + self.skip(row);
                self.check(&record, row, slot.get(from as usize..).unwrap_or(&[]))
            });
            steps.push(Step { record, inline, before });
        };
        let mut outcome = tail.load(&self.vault, self.machine, &self.dek, each).await;
        let tables = match self.all_tables(&mut steps).await {
            (tables, None) => tables,
            (tables, Some((at, error))) => {
                outcome = Err(error);
                let mark = steps[at].before;
                steps.truncate(at);
                let newest = steps.last().map(|step| &step.record.body.head);
                tail = mark.tail(newest.unwrap_or(&self.state().tail.head).clone());
                tables
            }
        };
        let new = tail.slot - before;
        self.state.write().unwrap_or_else(PoisonError::into_inner).append(steps, tables, tail);
        outcome.map(|()| new)
    }

    /// Reads the tables of all segments, in order, up to the first that fails: its step and the error.
    async fn all_tables(&self, steps: &mut [Step]) -> (Vec<Tables>, Option<(usize, VaultError)>) {
        let mut reads = Vec::new();
        for (at, step) in steps.iter_mut().enumerate() {
            for row in &step.record.body.segments {
                let known = if row.inline { step.inline.take() } else { None };
                let read = self.tables(&step.record, row, known);
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
                    done.retain(|(_, of, _)| *of < slot);
                    return (done, Some((at, error)));
                }
            }
        }
        (done, None)
    }

    /// Where reading a segment begins. Without units nobody would ever read its header; with them
    /// unit 0 brings it along.
    fn skip(&self, row: &SegmentRow) -> u64 {
        if row.units == 0 { 0 } else { row.tail }
    }

    /// Reads and checks one segment's tables, unless they are `known`.
    async fn tables(
        &self,
        record: &LogRecord,
        row: &SegmentRow,
        known: Option<Result<Tables, VaultError>>,
    ) -> Result<Tables, VaultError> {
        if let Some(known) = known {
            return known;
        }
        let (object, base) = self.place(record, row);
        let range = base + self.skip(row)..base + row.length;
        let bytes = self.vault.store.get(&object, Some(range)).await?;
        let bytes = bytes.ok_or_else(|| VaultError::damaged(&object, "a committed segment is missing"))?;
        self.check(record, row, &bytes)
    }

    /// Returns the object that holds the segment, and where in it the segment starts.
    fn place(&self, record: &LogRecord, row: &SegmentRow) -> (StoreKey, u64) {
        if row.inline {
            (names::slot(self.machine, record.header.slot), record.inline_at)
        } else {
            (names::segment(self.machine, record.header.epoch, row.uuid), 0)
        }
    }

    /// Checks a segment's tables; `bytes` are those of the segment from [`Inner::skip`] on.
    fn check(&self, record: &LogRecord, row: &SegmentRow, bytes: &[u8]) -> Result<Tables, VaultError> {
        let (id, (object, base)) = (record.segment_id(row), self.place(record, row));
        let damaged = |what: &str| VaultError::damaged(&object, what);
        let split = bytes.split_at_checked((row.tail - self.skip(row)) as usize);
        let (header, bytes) = split.ok_or_else(|| damaged("the segment is cut short"))?;
        if row.units == 0 && header != id.header() {
            return Err(damaged(HEADER_DIFFERS));
        }
        let parsed = parse_tail(&id, &self.dek, row.tail, &row.root, bytes);
        let (rows, extents) = parsed.map_err(|what| damaged(what.0))?;
        if rows.len() != row.units as usize
            || extents.iter().any(|extent| usize::from(extent.span) > record.body.points.len())
        {
            return Err(damaged("the tables disagree with the record"));
        }
        Ok((Loaded { id, object, base, rows: Arc::new(rows) }, record.header.slot, extents))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine's log, loaded. Cheap to clone; clones share index and cache.
#[derive(Clone)]
pub struct MachineReader(Arc<Inner>);

impl std::fmt::Debug for MachineReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MachineReader({})", self.0.machine)
    }
}

impl MachineReader {
    /// Loads the log and verifies its chain. `UnknownMachine` if nobody ever wrote it here.
    pub async fn open(vault: &Vault, machine: MachineId) -> Result<MachineReader, VaultError> {
        match MachineReader::open_damaged(vault, machine).await? {
            (reader, None) => Ok(reader),
            (_, Some(damage)) => Err(damage),
        }
    }

    /// Opens what can be read of a log, for a recovery: with damage, returned beside it, the points that
    /// lie before it (RD-3). Its head is then not what was acknowledged last.
    pub async fn open_damaged(
        vault: &Vault,
        machine: MachineId,
    ) -> Result<(MachineReader, Option<VaultError>), VaultError> {
        let dek = vault.data_key(machine).await?.ok_or(VaultError::UnknownMachine(machine))?;
        let (state, cache, findings) = (RwLock::default(), UnitCache::default(), Vec::new());
        let (vault, refreshing) = (vault.clone(), tokio::sync::Mutex::new(()));
        let mut inner = Inner { vault, machine, dek, state, cache, findings, refreshing };
        let damage = match inner.refresh().await {
            Ok(_) => None,
            Err(damage @ VaultError::Damaged { .. }) => Some(damage),
            Err(other) => return Err(other),
        };
        inner.state.write().unwrap_or_else(PoisonError::into_inner).index.settle();
        let epoch = inner.state().tail.epoch;
        inner.findings.extend(claims::check_newest(&inner.vault, machine, epoch).await?);
        Ok((MachineReader(Arc::new(inner)), damage))
    }

    /// Loads slots created since; returns how many. Views made before do not change. After an error
    /// the slots before it are loaded, and it may be repeated.
    pub async fn refresh(&self) -> Result<u64, VaultError> {
        self.0.refresh().await
    }

    /// Returns what `open` found damaged that costs no content: the newest writer claim. Show it to the
    /// user; without it the fence between writers is weaker until the next claim.
    pub fn findings(&self) -> &[VaultError] {
        &self.0.findings
    }

    /// Returns the recovery points loaded so far, oldest first.
    pub fn points(&self) -> Vec<PointInfo> {
        self.state().points.clone()
    }

    /// Returns the head as of the last refresh.
    pub fn head(&self) -> HeadState {
        self.state().tail.head.clone()
    }

    /// Returns the newest slot loaded.
    pub fn slot(&self) -> u64 {
        self.state().tail.slot
    }

    /// Opens a recovery point.
    pub fn view(&self, id: PointId) -> Result<PointView, VaultError> {
        let state = self.state();
        let at = state.points.binary_search_by_key(&id, |point| point.id);
        let at = at.map_err(|_| VaultError::NoPoint { slot: id.slot, ordinal: id.ordinal })?;
        let (inner, volumes) = (self.0.clone(), state.points[at].volumes.clone());
        Ok(PointView { inner, version: Version::new(id.slot, id.ordinal), volumes })
    }

    /// Opens the newest state loaded, whether or not it is exact: what a resync compares with.
    pub fn head_view(&self) -> PointView {
        let state = self.state();
        let version = Version::new(state.tail.slot, u16::MAX);
        PointView { inner: self.0.clone(), version, volumes: state.tail.head.volumes.clone() }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.state()
    }
}

/// The machine's volumes as they were at one point. Reads may run concurrently.
#[derive(Clone)]
pub struct PointView {
    inner: Arc<Inner>,
    version: Version,
    volumes: Volumes,
}

impl std::fmt::Debug for PointView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PointView({}, {:?})", self.inner.machine, self.version)
    }
}

impl PointView {
    /// Returns the volumes with their sizes at this point.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Reads an extent: zeros where nothing was written. See RD-2 for damage.
    pub async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, ReadError> {
        if extent.sectors.0 > READ_BYTES_MAX / SECTOR_BYTES {
            return Err(ReadError::TooLarge(READ_BYTES_MAX));
        }
        let found = self.find(volume, extent)?;
        let mut parts: BTreeMap<UnitId, Vec<Found>> = BTreeMap::new();
        for part in found {
            parts.entry((part.segment, part.unit)).or_default().push(part);
        }
        let inner = &self.inner;
        let segment = |ordinal: u32| {
            let state = inner.state.read().unwrap_or_else(PoisonError::into_inner);
            state.segments[ordinal as usize].clone()
        };
        let mut image = vec![0; extent.bytes() as usize];
        let place = |id: UnitId, unit: &[u8]| {
            for part in parts.get(&id).into_iter().flatten() {
                let (from, to) = (part.offset * SECTOR_BYTES, (part.offset + part.sectors) * SECTOR_BYTES);
                let at = ((part.first - extent.lba.0) * SECTOR_BYTES) as usize;
                image[at..at + (to - from) as usize].copy_from_slice(&unit[from as usize..to as usize]);
            }
        };
        load(&inner.vault, &inner.dek, &inner.cache, parts.keys().copied(), segment, place).await?;
        Ok(image.into())
    }

    /// Returns the parts of the extent that hold data, in order; the rest reads as zeros.
    pub fn data_extents(&self, volume: VolumeIndex, extent: Extent) -> Result<Vec<Extent>, ReadError> {
        let mut extents: Vec<Extent> = Vec::new();
        for part in self.find(volume, extent)? {
            match extents.last_mut() {
                Some(last) if last.end() == part.first => last.sectors.0 += part.sectors,
                _ => extents.push(Extent::new(part.first, part.sectors)),
            }
        }
        Ok(extents)
    }

    /// Returns the parts of a volume that may differ from what it was at another point, in order and merged
    /// where they touch. Beyond the end of a volume counts as zeros.
    pub async fn changed(&self, volume: VolumeIndex, other: &PointView) -> Result<Vec<Extent>, ReadError> {
        let size = |view: &PointView| view.volumes.get(&volume).map_or(0, |info| info.sectors.0);
        let (here, there) = (size(self), size(other));
        let (mut changed, mut at) = (Vec::new(), 0);
        while at < here.max(there) {
            let to = here.max(there).min(at + COMPARE_SECTORS);
            let find = |view: &PointView, size: u64| match at.min(size)..to.min(size) {
                part if part.is_empty() => Ok(Vec::new()),
                part => view.find(volume, Extent::new(part.start, part.end - part.start)),
            };
            crate::changed::compare(at..to, &find(self, here)?, &find(other, there)?, &mut changed);
            at = to;
        }
        Ok(changed)
    }

    /// Hashes blocks of [`BLOCK_BYTES`] from `first_block` on by BLAKE3; `None` for a block of zeros.
    /// The last block of a volume may be shorter; blocks behind the end are not returned.
    pub async fn hash_blocks(
        &self,
        volume: VolumeIndex,
        first_block: u64,
        count: u64,
    ) -> Result<Vec<Option<[u8; 32]>>, ReadError> {
        let size = self.volumes.get(&volume).ok_or(ReadError::NoVolume(volume))?.sectors.0;
        let grain = BLOCK_BYTES / SECTOR_BYTES;
        let end = first_block.saturating_add(count).min(size.div_ceil(grain));
        let mut hashes = Vec::new();
        for block in first_block..end {
            let extent = Extent::new(block * grain, grain.min(size - block * grain));
            if self.find(volume, extent)?.is_empty() {
                hashes.push(None);
                continue;
            }
            let bytes = self.read(volume, extent).await?;
            let data = bytes.iter().any(|byte| *byte != 0);
            hashes.push(data.then(|| *blake3::hash(&bytes).as_bytes()));
        }
        Ok(hashes)
    }

    fn find(&self, volume: VolumeIndex, extent: Extent) -> Result<Vec<Found>, ReadError> {
        let size = self.volumes.get(&volume).ok_or(ReadError::NoVolume(volume))?.sectors.0;
        let end = extent.lba.0.saturating_add(extent.sectors.0);
        if end > size {
            return Err(ReadError::OutOfRange { end, size });
        }
        let state = self.inner.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok(state.index.find(self.version, volume, extent.lba.0, end))
    }
}
