//! A disk: service times of a hardware model, a volatile cache, errors, and requests that hang.
//!
//! What is *not* here: what survives a power loss ([`cache`]).

mod cache;

use super::{Shared, lock};
use async_trait::async_trait;
use bytes::Bytes;
use cache::{Cache, Promise, WriteId};
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use redoubt_hw_models::{DiskClock, DiskModel, Operation, Service};
use redoubt_ports::{Disk, DiskInfo, IoError, IoKind, pause};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

const SECTOR: usize = SECTOR_BYTES as usize;

/// A sector of zeros.
const ZEROS: Bytes = Bytes::from_static(&[0; SECTOR]);

/// What an injected error says of itself.
const INJECTED: &str = "injected";

/// Chances of errors per kind of request, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskErrors {
    /// Of reads.
    pub read: u32,
    /// Of writes and zeroing.
    pub write: u32,
    /// Of flushes.
    pub flush: u32,
}

#[derive(Default)]
struct State {
    /// What a read sees.
    content: Vec<u8>,
    cache: Cache,
    /// When its parts are free.
    clock: DiskClock,
    /// Grows with each power loss: a flush of an older one proves nothing.
    power: u64,
    /// Changes that have not taken effect yet, by number, whether or not somebody still waits for them.
    in_flight: BTreeMap<u64, Change>,
    changes: u64,
    /// When it was changed last, whoever did it, as the clock of a file system tells: by ticks.
    changed: u128,
    errors: DiskErrors,
    /// No request ends before then.
    stuck_until: Duration,
    writer: Weak<()>,
    readers: Weak<()>,
}

/// A simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Shared,
    name: String,
    model: Arc<DiskModel>,
    state: Arc<Mutex<State>>,
}

/// An opened disk; closed on drop.
struct Opened {
    disk: SimDisk,
    read_only: bool,
    _hold: Arc<()>,
}

/// Milliseconds of a file system's clock.
const TICK_MILLIS: u128 = 4;

/// How soon a hang that was lifted early is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A change of sectors on its way through the hardware.
#[derive(Clone)]
struct Change {
    what: &'static str,
    extent: Extent,
    /// None writes zeros.
    payload: Option<Bytes>,
    durable: bool,
}

impl SimDisk {
    pub(super) fn new(shared: Shared, name: &str, bytes: u64, model: &DiskModel) -> SimDisk {
        let state = State { content: vec![0; bytes as usize], ..State::default() };
        let (name, model) = (name.to_owned(), Arc::new(model.clone()));
        SimDisk { shared, name, model, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn open(&self, read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        let mut state = lock(&self.state);
        let readers = state.readers.upgrade();
        if state.writer.upgrade().is_some() || (!read_only && readers.is_some()) {
            return Err(self.error(IoKind::Busy, "open", "another process holds it"));
        }
        if !state.in_flight.is_empty() {
            return Err(self.error(IoKind::Busy, "open", "a process that was killed has not ended yet"));
        }
        let hold = readers.unwrap_or_default();
        let place = if read_only { &mut state.readers } else { &mut state.writer };
        *place = Arc::downgrade(&hold);
        drop(state);
        Ok(Arc::new(Opened { disk: self.clone(), read_only, _hold: hold }))
    }

    /// Tells whether changes are under way. Their process holds the disk until they end, killed or not.
    pub fn is_busy(&self) -> bool {
        !lock(&self.state).in_flight.is_empty()
    }

    /// Returns the truth: what a read would see now.
    pub fn truth(&self) -> Vec<u8> {
        lock(&self.state).content.clone()
    }

    /// Puts content on a disk of the same size, durably.
    pub(super) fn fill(&self, content: &[u8]) {
        let mut state = lock(&self.state);
        state.content.copy_from_slice(content);
        state.cache = Cache::default();
        state.changed = self.tick();
    }

    /// Tells whether a process holds it.
    pub fn is_held(&self) -> bool {
        let state = lock(&self.state);
        state.writer.upgrade().is_some() || state.readers.upgrade().is_some()
    }

    /// Returns its size.
    pub fn sectors(&self) -> u64 {
        lock(&self.state).content.len() as u64 / SECTOR_BYTES
    }

    /// Somebody changes sectors past the process that may hold it, durably.
    pub fn edit(&self, extent: Extent, payload: &[u8]) {
        let (mut state, from) = (lock(&self.state), extent.lba.bytes() as usize);
        if let Some(place) = state.content.get_mut(from..from + payload.len()) {
            place.copy_from_slice(payload);
            state.changed = self.tick();
            state.cache.settle(extent.lba.0..extent.end());
        }
    }

    /// Sets the chance of errors in parts per million.
    pub fn set_errors(&self, errors: DiskErrors) {
        lock(&self.state).errors = errors;
    }

    /// Returns the chances of errors.
    pub fn errors(&self) -> DiskErrors {
        lock(&self.state).errors
    }

    /// Lets nothing end before this time of the run.
    pub fn hang_until(&self, until: Duration) {
        lock(&self.state).stuck_until = until;
    }

    fn tick(&self) -> u128 {
        self.shared.now().as_millis() / TICK_MILLIS
    }

    /// The process that held the disk is gone, and its handles with it.
    pub(super) fn release(&self) {
        let mut state = lock(&self.state);
        (state.writer, state.readers) = (Weak::new(), Weak::new());
    }

    pub(super) fn power_loss(&self) {
        let mut state = lock(&self.state);
        state.power += 1;
        if self.model.volatile_cache {
            let found = state.cache.power_loss(|count| self.shared.below(count));
            if !found.is_empty() {
                self.shared.trace.mark("unflushed-sectors-lost");
            }
            for (sector, found) in found {
                let at = sector as usize * SECTOR;
                if let Some(place) = state.content.get_mut(at..at + SECTOR) {
                    place.copy_from_slice(&found);
                }
            }
        } else {
            // What it has taken, it keeps.
            state.cache = Cache::default();
        }
        // What is under way is torn now: nothing of it comes when the power is back.
        for change in std::mem::take(&mut state.in_flight).into_values() {
            self.put(&mut state, &change, None);
        }
    }

    fn error(&self, kind: IoKind, what: &str, detail: &str) -> IoError {
        IoError::new(kind, format!("{what} {}", self.name), detail)
    }

    fn check(&self, what: &str, extent: Extent) -> Result<(), IoError> {
        let size = lock(&self.state).content.len() as u64 / SECTOR_BYTES;
        if extent.lba.0.checked_add(extent.sectors.0).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(self.error(IoKind::OutOfRange, &format!("{what} {extent} of"), "beyond the end"))
    }

    /// Takes a request that comes now.
    fn begin(&self, what: Operation) -> Service {
        let chance = self.shared.luck();
        lock(&self.state).clock.serve(&self.model, self.shared.now(), what, chance)
    }

    /// Waits until a time of the run, and as long as the disk hangs. The hang's end may be moved meanwhile, both ways.
    async fn reach(&self, until: Duration) {
        pause(until.saturating_sub(self.shared.now())).await;
        loop {
            let left = lock(&self.state).stuck_until.saturating_sub(self.shared.now());
            if left.is_zero() {
                return;
            }
            self.shared.trace.bite("disk.hang");
            self.shared.trace.mark("disk-hung");
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Waits until a request is served.
    async fn serve(&self, what: Operation) {
        let end = self.begin(what).end;
        self.reach(end).await;
    }

    /// Takes effect: as a whole under the name of a write, or torn, each sector by chance, in an error or without power. What
    /// is torn without a name is durable as it is.
    fn put(&self, state: &mut State, change: &Change, write: Option<(WriteId, bool)>) {
        state.changed = self.tick();
        let is_torn = write.is_none_or(|(_, failed)| failed);
        let from = (change.extent.lba.bytes() as usize).min(state.content.len());
        let to = (from + change.extent.bytes() as usize).min(state.content.len());
        // Copied once for all sectors.
        let before = Bytes::copy_from_slice(&state.content[from..to]);
        for index in 0..change.extent.sectors.0 {
            if is_torn && self.shared.below(2) == 0 {
                continue;
            }
            let (sector, at) = (change.extent.lba.0 + index, index as usize * SECTOR);
            let content = change.payload.as_ref().map_or(ZEROS, |payload| payload.slice(at..at + SECTOR));
            let place = sector as usize * SECTOR;
            let Some(place) = state.content.get_mut(place..place + SECTOR) else { continue };
            if let Some((write, _)) = write {
                state.cache.put(sector, write, before.slice(at..at + SECTOR), content.clone());
            }
            place.copy_from_slice(&content);
        }
        self.shared.trace.event(self.shared.now(), change.what, &change.extent.lba.0.to_le_bytes());
    }

    /// A change reaches the medium, if it is still under way. Tells whether it failed, under which name a flush may
    /// cover it, and how often the power was lost until then.
    fn apply(&self, number: u64) -> Option<(bool, WriteId, u64)> {
        let mut state = lock(&self.state);
        let change = state.in_flight.remove(&number)?;
        let failed = self.shared.bites("disk.write-errors", state.errors.write);
        let write = state.cache.begin();
        self.put(&mut state, &change, Some((write, failed)));
        Some((failed, write, state.power))
    }

    /// Changes sectors on the hardware.
    async fn change(
        &self,
        what: &'static str,
        extent: Extent,
        payload: Option<Bytes>,
        durable: bool,
    ) -> Result<(), IoError> {
        self.check(what, extent)?;
        let change = Change { what, extent, payload, durable };
        let number = {
            let mut state = lock(&self.state);
            state.changes += 1;
            let number = state.changes;
            state.in_flight.insert(number, change.clone());
            number
        };
        let disk = self.clone();
        self.shared.on_hardware(async move { disk.perform(number, change).await }).await
    }

    async fn perform(&self, number: u64, change: Change) -> Result<(), IoError> {
        let bytes = if change.payload.is_some() { change.extent.bytes() } else { 0 };
        let what = if change.durable { Operation::DurableWrite(bytes) } else { Operation::Write(bytes) };
        let Service { begin, end } = self.begin(what);
        // Two operations may return in another order than they took effect.
        let taking = (end - begin).as_micros() as u64;
        self.reach(begin + self.shared.micros(0, taking)).await;
        // Without power nobody waits for an answer.
        let Some((failed, write, power)) = self.apply(number) else { return Ok(()) };
        self.reach(end).await;
        let sectors = change.extent.lba.0..change.extent.end();
        let mut state = lock(&self.state);
        if state.power == power {
            state.cache.returned(write, sectors, change.durable && !failed);
        }
        drop(state);
        if failed {
            return Err(self.error(
                IoKind::Device,
                &format!("{} {} of", change.what, change.extent),
                INJECTED,
            ));
        }
        Ok(())
    }

    /// What it covers is fixed now, not when the hardware gets to it.
    fn flush(self) -> impl Future<Output = Result<(), IoError>> + Send {
        let (power, promise) = {
            let state = lock(&self.state);
            (state.power, state.cache.promise())
        };
        async move { self.finish_flush(power, promise).await }
    }

    async fn finish_flush(&self, power: u64, promise: Promise) -> Result<(), IoError> {
        self.serve(Operation::Flush).await;
        let mut state = lock(&self.state);
        if state.power != power {
            return Ok(());
        }
        if self.shared.bites("disk.flush-errors", state.errors.flush) {
            self.shared.trace.mark("flush-failed");
            state.cache.forsake(&promise);
            return Err(self.error(IoKind::Device, "flush", INJECTED));
        }
        state.cache.harden(&promise);
        Ok(())
    }
}

impl Opened {
    fn check_writable(&self, what: &str) -> Result<(), IoError> {
        if self.read_only {
            return Err(self.disk.error(IoKind::Denied, what, "opened read-only"));
        }
        Ok(())
    }
}

#[async_trait]
impl Disk for Opened {
    fn info(&self) -> DiskInfo {
        let sectors = Sectors(lock(&self.disk.state).content.len() as u64 / SECTOR_BYTES);
        let physical_sector_bytes = self.disk.model.physical_sector_bytes;
        DiskInfo { sectors, physical_sector_bytes, can_trim: true }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.disk.check("read", extent)?;
        self.disk.serve(Operation::Read(extent.bytes())).await;
        // Another task may have shrunk the disk meanwhile.
        self.disk.check("read", extent)?;
        let state = lock(&self.disk.state);
        if self.disk.shared.bites("disk.read-errors", state.errors.read) {
            return Err(self.disk.error(IoKind::Device, &format!("read {extent} of"), INJECTED));
        }
        let from = extent.lba.bytes() as usize;
        Ok(Bytes::copy_from_slice(&state.content[from..from + extent.bytes() as usize]))
    }

    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), IoError> {
        self.check_writable("write")?;
        self.disk.change("write", extent, Some(payload), durable).await
    }

    async fn write_zeroes(&self, extent: Extent, _unmap: bool, durable: bool) -> Result<(), IoError> {
        self.check_writable("zero")?;
        self.disk.change("zero", extent, None, durable).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.disk.shared.on_hardware(self.disk.clone().flush()).await
    }

    async fn stamp(&self) -> Result<Option<u128>, IoError> {
        Ok(Some(lock(&self.disk.state).changed))
    }

    async fn resize(&self, sectors: Sectors) -> Result<(), IoError> {
        self.check_writable("resize")?;
        self.disk.serve(Operation::Write(0)).await;
        let mut state = lock(&self.disk.state);
        state.changed = self.disk.tick();
        state.content.resize(sectors.bytes() as usize, 0);
        state.cache.cut(sectors.0);
        Ok(())
    }
}
