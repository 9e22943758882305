//! Opens a machine's log for reading: from its newest catalogue where there is one, else from its beginning.
//!
//! Invariants
//! - RD-1 A view never changes: what is loaded later has later versions.
//! - RD-2 Bytes are returned only if every unit they come from opened; damage is an error that names
//!   object and range, never zeros and never older content.
//! - RD-3 Damage in the log or in a segment's tables takes the points behind it, never one before it.
//! - RD-4 Damage in the index takes nothing: it is a finding, and an older catalogue or the log serves. Of what was
//!   folded there is no log: its folds say the same.
//! - RD-5 Of a folded stretch only the states of points that are kept are served: others would be mixtures.
//! - RD-6 What a point shows is found wherever a maintainer packed it meanwhile, however many reads meet on the way.

use crate::avoid::Avoid;
use crate::chain::{LogMark, LogTail};
use crate::claims;
use crate::error::{ReadError, StoreFailure, VaultError};
use crate::index::{Catalogue, Found, StoredIndex, Tail, Version, Wanted};
use crate::key_ring::KeyRing;
use crate::load::{Log, STRETCH_SLOTS, Stretch};
use crate::log::{HeadState, PointRow, Volumes};
use crate::maintainer::CATALOGUES_TRIED;
use crate::names;
use crate::near::{Near, Purpose, Reach};
use crate::segment::GRANULE_SECTORS;
use crate::units::Units;
use crate::vault::Vault;
use crate::view::PointView;
use redoubt_core::planted::{self, Bug};
use redoubt_core::{MachineId, Marker, Names, VolumeIndex, WriteSeq};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

mod begin;

/// Entries of the tail that make it worth to look for a newer catalogue: some 10 MiB.
const TAIL_ENTRIES: usize = 1 << 18;
/// Findings kept; more of them say nothing new.
const FINDINGS_MAX: usize = 64;

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

impl PointInfo {
    pub(crate) fn new(id: PointId, row: PointRow) -> PointInfo {
        let PointRow { marker, seq, exact, volumes } = row;
        PointInfo { id, marker, seq, exact, volumes }
    }

    pub(crate) fn row(&self) -> PointRow {
        let (marker, volumes) = (self.marker.clone(), self.volumes.clone());
        PointRow { marker, seq: self.seq, exact: self.exact, volumes }
    }
}

/// What was read so far. A state is replaced by one that says the same and more, but for points that a maintainer
/// has given up.
#[derive(Default)]
struct State {
    stored: Arc<Catalogue>,
    index: Tail,
    points: Vec<PointInfo>,
    tail: LogTail,
}

impl State {
    /// Begins with what a catalogue says.
    fn begin_at(&mut self, catalogue: Catalogue) {
        let Catalogue { slot, digest, epoch, ref head, ref live, .. } = catalogue;
        self.tail = LogMark { slot, digest, epoch }.tail(head.clone());
        self.points = live.iter().map(|point| point.info.clone()).collect();
        self.stored = Arc::new(catalogue);
    }
}

pub(crate) struct Inner {
    pub(crate) log: Log,
    pub(crate) units: Arc<Units>,
    state: RwLock<State>,
    stored: StoredIndex,
    findings: Mutex<Vec<VaultError>>,
    /// Held by the one task that replaces or extends the state; versions of the catalogue that are not to be used.
    loading: tokio::sync::Mutex<Avoid>,
}

impl Inner {
    /// Makes one that has read nothing.
    fn new(vault: &Vault, machine: MachineId) -> Inner {
        let log = Log { vault: vault.clone(), machine, keys: KeyRing::new(vault, machine) };
        let units = vault.memory.clone().unwrap_or_default().0;
        let (stored, state) = (StoredIndex::new(log.clone()), RwLock::default());
        let (findings, loading) = (Mutex::default(), tokio::sync::Mutex::default());
        Inner { log, units, state, stored, findings, loading }
    }

    /// Loads what is new, up to the first damage or other error: that is returned, and what lies before
    /// it is loaded (RD-3).
    async fn refresh(&self) -> Result<u64, VaultError> {
        let mut avoid = self.loading.lock().await;
        let mut new = 0;
        loop {
            let from = self.state().tail.clone();
            let before = from.slot;
            let stretch = self.log.stretch(from, STRETCH_SLOTS).await;
            let outcome = stretch.outcome.clone();
            new += stretch.tail.slot - before;
            self.append(stretch);
            match outcome {
                Ok(true) => break,
                Ok(false) => {}
                Err(damage @ VaultError::Damaged { .. }) => {
                    new += self.catch_up(&mut avoid, damage).await?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if self.state().index.entries() > TAIL_ENTRIES {
            self.shorten(&mut avoid).await;
        }
        Ok(new)
    }

    fn append(&self, stretch: Stretch) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State { index, points, tail, .. } = &mut *state;
        *tail = stretch.append(index, points);
    }

    /// What comes next cannot be read: if it was folded since, a newer catalogue says what it said. Returns how many
    /// slots more it shows.
    async fn catch_up(&self, avoid: &mut Avoid, damage: VaultError) -> Result<u64, VaultError> {
        let before = self.state().tail.slot;
        if !self.is_overtaken(before).await? {
            return Err(damage);
        }
        let (state, damaged) = self.load(avoid).await?;
        let after = state.tail.slot;
        match damaged {
            _ if !self.replace(state) => Err(damage),
            Some(damaged) => Err(damaged),
            None => Ok(after - before),
        }
    }

    /// Gives up the tail's memory if a newer catalogue covers it. Not doing so costs only that memory.
    async fn shorten(&self, avoid: &mut Avoid) {
        let version = self.state().stored.version;
        let newest = self.newest_version().await.unwrap_or(0);
        if newest > version
            && !avoid.knows(newest)
            && let Ok((state, None)) = self.load(avoid).await
        {
            self.replace(state);
        }
    }

    /// Returns the newest version of the catalogue in the store; 0: none.
    async fn newest_version(&self) -> Result<u64, StoreFailure> {
        let prefix = names::catalogues(self.log.machine);
        let newest = self.log.vault.store.page(&prefix, None, CATALOGUES_TRIED).await?;
        let version = newest.first().and_then(|(name, _)| names::catalogue_version(name, self.log.machine));
        Ok(version.unwrap_or(0))
    }

    /// Takes a state that shows at least as much as the present one; tells whether it did.
    fn replace(&self, new: State) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let shows_all = new.tail.slot >= state.tail.slot;
        if shows_all {
            *state = new;
        }
        shows_all
    }

    /// Serves from another catalogue or the log alone, after damage was met in what this version names: from
    /// a newer one if there is one, since a maintainer may have deleted what only the older one needs.
    async fn fall_back(&self, stored: &Arc<Catalogue>, damage: ReadError) -> Result<(), ReadError> {
        let mut avoid = self.loading.lock().await;
        if !Arc::ptr_eq(&self.state().stored, stored) {
            // Somebody did it meanwhile.
            return Ok(());
        }
        let version = stored.version;
        if version == 0 {
            return Err(damage);
        }
        let newest = self.newest_version().await?;
        if newest <= version || avoid.knows(newest) {
            self.tell(finding(&damage));
        }
        avoid.met(self.log.machine, stored, &damage);
        // A view may be at the newest slot: with less of the log it would show older content (RD-2).
        match self.load(&mut avoid).await.map(|(state, _)| self.replace(state)) {
            Ok(true) => Ok(()),
            Err(VaultError::Store(failure)) => Err(failure.into()),
            _ => Err(damage),
        }
    }

    /// Finds the content of `[first, end)` at a version, in address order; gaps are zeros.
    pub(crate) async fn find(
        &self,
        version: Version,
        volume: VolumeIndex,
        sectors: Range<u64>,
    ) -> Result<Vec<Found>, ReadError> {
        let (near, is_kept) = (Near::default(), AtomicBool::new(true));
        let reach = Reach::new(&near, Purpose::Asked, &is_kept);
        self.find_within(version, volume, sectors, reach).await.map(|(parts, _)| parts)
    }

    /// As [`Inner::find`], with a cache near by. Returns the catalogue that was asked as well.
    pub(crate) async fn find_within(
        &self,
        version: Version,
        volume: VolumeIndex,
        sectors: Range<u64>,
        reach: Reach<'_>,
    ) -> Result<(Vec<Found>, Arc<Catalogue>), ReadError> {
        if sectors.is_empty() {
            return Ok((Vec::new(), self.state().stored.clone()));
        }
        loop {
            let (stored, mut wanted, mut found) = self.find_in_tail(version, volume, &sectors);
            if !stored.shows(version) {
                // RD-5
                return Err(ReadError::GivenUp { slot: version.slot() });
            }
            match self.stored.find(&stored, version, volume, &mut wanted, &mut found, reach).await {
                Ok(()) => {
                    found.sort_by_key(|part| part.first);
                    return Ok((found, stored));
                }
                Err(damage @ ReadError::Damaged { .. }) => self.fall_back(&stored, damage).await?,
                Err(error) => return Err(error),
            }
        }
    }

    fn find_in_tail(
        &self,
        version: Version,
        volume: VolumeIndex,
        sectors: &Range<u64>,
    ) -> (Arc<Catalogue>, Vec<Wanted>, Vec<Found>) {
        let granules = sectors.start / GRANULE_SECTORS..sectors.end.div_ceil(GRANULE_SECTORS);
        let (state, mut found) = (self.state(), Vec::new());
        let touches = state.index.touches(volume, granules.start, granules.end)
            || state.stored.runs.iter().any(|run| run.touches(volume, granules.start, granules.end));
        let granules = if touches { granules } else { 0..0 };
        let mut wanted: Vec<Wanted> =
            granules.map(|granule| Wanted::new(granule, sectors.start, sectors.end)).collect();
        wanted.iter_mut().for_each(|granule| state.index.find(version, volume, granule, &mut found));
        (state.stored.clone(), wanted, found)
    }

    /// Something that was looked up in a catalogue is gone: a maintainer may have moved or given it up since. Takes a
    /// newer catalogue, if there is one; tells whether another one is to be asked now.
    pub(crate) async fn look_again(&self, by: &Arc<Catalogue>) -> Result<bool, ReadError> {
        let mut avoid = self.loading.lock().await;
        if !Arc::ptr_eq(&self.state().stored, by) {
            // RD-6: another read did it meanwhile.
            return Ok(!planted::active(Bug::LoseWhatMoved));
        }
        let version = by.version;
        let newest = self.newest_version().await?;
        if newest <= version || avoid.knows(newest) {
            return Ok(false);
        }
        match self.load(&mut avoid).await {
            Ok((state, _)) => Ok(state.stored.version > version && self.replace(state)),
            Err(VaultError::Store(failure)) => Err(failure.into()),
            Err(_) => Ok(false),
        }
    }

    fn tell(&self, finding: VaultError) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if !findings.contains(&finding) && findings.len() < FINDINGS_MAX {
            findings.push(finding);
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finding(damage: &ReadError) -> VaultError {
    match damage {
        ReadError::Damaged { object, what, .. } => VaultError::damaged(object, what),
        other => VaultError::damaged("the index", other),
    }
}

/// A machine's log, opened. Cheap to clone; clones share index and cache.
#[derive(Clone)]
pub struct MachineReader(Arc<Inner>);

impl std::fmt::Debug for MachineReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MachineReader({})", self.0.log.machine)
    }
}

impl MachineReader {
    /// Opens the log and verifies the chain of what its index does not cover. `UnknownMachine` if nobody
    /// ever wrote it here.
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
        let vault = &vault.hurried(machine).await;
        let opened = MachineReader::open_hurried(vault, machine, None).await;
        vault.store.settle();
        opened
    }

    async fn open_hurried(
        vault: &Vault,
        machine: MachineId,
        at: Option<PointId>,
    ) -> Result<(MachineReader, Option<VaultError>), VaultError> {
        let (mut inner, mut avoid) = (Inner::new(vault, machine), Avoid::default());
        let (state, damage) = inner.load_all(&mut avoid, at).await?;
        if state.tail.slot == 0 && damage.is_none() {
            // Nothing there: has it never been, or is it only empty?
            KeyRing::open(vault, machine).await?;
        }
        let epoch = state.tail.epoch;
        let is_early = at.is_some_and(|id| state.stored.has(id));
        (inner.state, inner.loading) = (RwLock::new(state), tokio::sync::Mutex::new(avoid));
        if is_early {
            return Ok((MachineReader(Arc::new(inner)), damage));
        }
        if let Some(finding) = claims::check_newest(vault, machine, epoch).await? {
            inner.tell(finding);
        }
        Ok((MachineReader(Arc::new(inner)), damage))
    }

    /// Opens a log to serve one point. If the newest catalogue has the point, nothing behind it is looked at:
    /// the reader shows what the catalogue says, and the first read is two round trips away.
    pub async fn open_at(
        vault: &Vault,
        machine: MachineId,
        id: PointId,
    ) -> Result<(MachineReader, Option<VaultError>), VaultError> {
        let vault = &vault.hurried(machine).await;
        let opened = MachineReader::open_hurried(vault, machine, Some(id)).await;
        vault.store.settle();
        opened
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Loads slots created since; returns how many. Views made before do not change. After an error
    /// the slots before it are loaded, and it may be repeated.
    pub async fn refresh(&self) -> Result<u64, VaultError> {
        self.0.refresh().await
    }

    /// Returns what was found damaged so far that costs no content: the newest writer claim, the index,
    /// what is stored twice.
    /// Show it to the user: without the claim the fence between writers is weaker until the next one,
    /// without the index opening takes longer.
    pub fn findings(&self) -> Vec<VaultError> {
        let mut all = self.0.findings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend(self.0.log.vault.mended());
        all
    }

    /// Returns the recovery points loaded so far, oldest first; not those that a maintainer has given up.
    pub fn points(&self) -> Vec<PointInfo> {
        self.0.state().points.clone()
    }

    /// Returns the points that a maintainer has given up and that are not gone yet, oldest first: nobody new can use
    /// them, who pinned one in time still does.
    pub fn retired(&self) -> Vec<PointInfo> {
        self.0.state().stored.retired.iter().map(|point| point.info.clone()).collect()
    }

    /// Returns the names of objects that retention does not need any more and that wait to be deleted, or are.
    pub fn given_up(&self) -> BTreeSet<StoreKey> {
        let stored = self.0.state().stored.clone();
        stored.garbage.keys().flat_map(|object| object.names(self.0.log.machine)).collect()
    }

    /// Returns the head as of the last refresh.
    pub fn head(&self) -> HeadState {
        self.0.state().tail.head.clone()
    }

    /// Returns what the machine and its volumes are called, as of the last refresh.
    pub fn names(&self) -> Names {
        self.0.state().tail.head.names.clone()
    }

    /// Returns the newest slot loaded.
    pub fn slot(&self) -> u64 {
        self.0.state().tail.slot
    }

    /// Returns the last slot that the newest catalogue loaded covers, 0 without one.
    pub fn covered(&self) -> u64 {
        self.0.state().stored.slot
    }

    /// Opens a recovery point.
    pub fn view(&self, id: PointId) -> Result<PointView, VaultError> {
        let state = self.0.state();
        let live = state.points.binary_search_by_key(&id, |point| point.id).map(|at| &state.points[at]);
        // Whoever pinned it in time still uses it.
        let retired = || state.stored.retired.iter().map(|point| &point.info).find(|point| point.id == id);
        let point = live.ok().or_else(retired);
        let point = point.ok_or(VaultError::NoPoint { slot: id.slot, ordinal: id.ordinal })?;
        let volumes = point.volumes.clone();
        Ok(PointView::new(self.0.clone(), Version::new(id.slot, id.ordinal), volumes))
    }

    /// Opens the newest state loaded, whether or not it is exact: what a resync compares with.
    pub fn head_view(&self) -> PointView {
        let state = self.0.state();
        let version = Version::new(state.tail.slot, u16::MAX);
        PointView::new(self.0.clone(), version, state.tail.head.volumes.clone())
    }
}
