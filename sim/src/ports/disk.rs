//! A disk with a volatile cache: what was not flushed survives a power loss by chance, sector by sector.

use super::{Shared, lock};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::{Extent, SECTOR_BYTES, Sectors};
use redoubt_ports::{Disk, DiskInfo, IoError, IoKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

const SECTOR: usize = SECTOR_BYTES as usize;

/// Bytes per microsecond: 200 MiB/s, a plain SSD.
const SPEED: u64 = 210;

#[derive(Default)]
struct State {
    content: Vec<u8>,
    /// Durable content of sectors whose newest content is only in the cache.
    unflushed: BTreeMap<u64, Vec<u8>>,
    /// Grows with each power loss: operations of an older one are torn.
    power: u64,
    read_errors: u32,
    write_errors: u32,
    errors_met: u64,
    writer: Weak<()>,
    readers: Weak<()>,
}

impl State {
    fn put(&mut self, sector: u64, content: &[u8], durable: bool) {
        let at = sector as usize * SECTOR;
        let Some(place) = self.content.get_mut(at..at + SECTOR) else { return };
        if durable {
            self.unflushed.remove(&sector);
        } else {
            self.unflushed.entry(sector).or_insert_with(|| place.to_vec());
        }
        place.copy_from_slice(content);
    }
}

/// A simulated disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Shared,
    name: String,
    state: Arc<Mutex<State>>,
}

/// An opened disk; closed on drop.
struct Opened {
    disk: SimDisk,
    read_only: bool,
    _hold: Arc<()>,
}

impl SimDisk {
    pub(super) fn new(shared: Shared, name: &str, bytes: u64) -> SimDisk {
        let state = State { content: vec![0; bytes as usize], ..State::default() };
        SimDisk { shared, name: name.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn open(&self, read_only: bool) -> Result<Arc<dyn Disk>, IoError> {
        let mut state = lock(&self.state);
        let readers = state.readers.upgrade();
        if state.writer.upgrade().is_some() || (!read_only && readers.is_some()) {
            return Err(IoError::new(
                IoKind::Busy,
                format!("open {}", self.name),
                "another process holds it",
            ));
        }
        let hold = readers.unwrap_or_default();
        let place = if read_only { &mut state.readers } else { &mut state.writer };
        *place = Arc::downgrade(&hold);
        drop(state);
        Ok(Arc::new(Opened { disk: self.clone(), read_only, _hold: hold }))
    }

    /// Returns the truth: what a read would see now.
    pub fn truth(&self) -> Vec<u8> {
        lock(&self.state).content.clone()
    }

    /// Puts content on a disk of the same size.
    pub(super) fn fill(&self, content: &[u8]) {
        lock(&self.state).content.copy_from_slice(content);
    }

    /// Sets the chance of read and write errors in parts per million.
    pub fn set_errors(&self, read: u32, write: u32) {
        let mut state = lock(&self.state);
        (state.read_errors, state.write_errors) = (read, write);
    }

    /// Returns the chances of read and write errors.
    pub fn errors(&self) -> (u32, u32) {
        let state = lock(&self.state);
        (state.read_errors, state.write_errors)
    }

    /// Returns how many errors callers met.
    pub fn errors_met(&self) -> u64 {
        lock(&self.state).errors_met
    }

    /// The process that held the disk is gone, and its handles with it.
    pub(super) fn release(&self) {
        let mut state = lock(&self.state);
        (state.writer, state.readers) = (Weak::new(), Weak::new());
    }

    pub(super) fn power_loss(&self) {
        let mut state = lock(&self.state);
        state.power += 1;
        for (sector, old) in std::mem::take(&mut state.unflushed) {
            if self.shared.below(2) == 0 {
                let at = sector as usize * SECTOR;
                if let Some(place) = state.content.get_mut(at..at + SECTOR) {
                    place.copy_from_slice(&old);
                }
            }
        }
    }

    fn check(&self, what: &str, extent: Extent) -> Result<(), IoError> {
        let size = lock(&self.state).content.len() as u64 / SECTOR_BYTES;
        if extent.lba.0.checked_add(extent.sectors.0).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(IoError::new(IoKind::OutOfRange, format!("{what} {} {extent}", self.name), "beyond the end"))
    }

    fn latency(&self, bytes: u64) -> Duration {
        self.shared.micros(80, 600) + Duration::from_micros(bytes / SPEED)
    }

    /// Takes effect; tells whether the operation failed.
    fn apply(&self, what: &str, extent: Extent, payload: Option<&Bytes>, durable: bool, power: u64) -> bool {
        let mut state = lock(&self.state);
        let failed = self.shared.chance(state.write_errors);
        let torn = failed || state.power != power;
        for index in 0..extent.sectors.0 {
            if torn && self.shared.below(2) == 0 {
                continue;
            }
            let at = index as usize * SECTOR;
            let sector = payload.map_or(&[0; SECTOR][..], |payload| &payload[at..at + SECTOR]);
            state.put(extent.lba.0 + index, sector, durable && !torn);
        }
        state.errors_met += u64::from(failed);
        self.shared.trace.event(self.shared.now(), what, &extent.lba.0.to_le_bytes());
        failed
    }

    /// Changes sectors on the hardware. After a power loss or an error each sector keeps its old or
    /// gets its new content by chance.
    async fn change(
        &self,
        what: &'static str,
        extent: Extent,
        payload: Option<Bytes>,
        durable: bool,
    ) -> Result<(), IoError> {
        self.check(what, extent)?;
        let disk = self.clone();
        let power = lock(&self.state).power;
        let latency = self.latency(if payload.is_some() { extent.bytes() } else { 4096 });
        // Two operations may complete in another order than they took effect.
        let completion = self.shared.micros(0, 4_000);
        let work = async move {
            tokio::time::sleep(latency).await;
            let failed = disk.apply(what, extent, payload.as_ref(), durable, power);
            tokio::time::sleep(completion).await;
            if failed {
                return Err(IoError::new(
                    IoKind::Device,
                    format!("{what} {} {extent}", disk.name),
                    "injected",
                ));
            }
            Ok(())
        };
        self.shared.on_hardware(work).await
    }
}

impl Opened {
    fn check_writable(&self, what: &str) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::new(
                IoKind::Denied,
                format!("{what} {}", self.disk.name),
                "opened read-only",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Disk for Opened {
    fn info(&self) -> DiskInfo {
        let sectors = Sectors(lock(&self.disk.state).content.len() as u64 / SECTOR_BYTES);
        DiskInfo { sectors, physical_sector_bytes: 512, can_trim: true }
    }

    async fn read(&self, extent: Extent) -> Result<Bytes, IoError> {
        self.disk.check("read", extent)?;
        tokio::time::sleep(self.disk.latency(extent.bytes())).await;
        // Another task may have shrunk the disk meanwhile.
        self.disk.check("read", extent)?;
        let mut state = lock(&self.disk.state);
        if self.disk.shared.chance(state.read_errors) {
            state.errors_met += 1;
            let what = format!("read {} {extent}", self.disk.name);
            return Err(IoError::new(IoKind::Device, what, "injected"));
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
        let disk = self.disk.clone();
        let power = lock(&disk.state).power;
        let latency = disk.shared.micros(500, 3_000);
        let covered: Vec<u64> = lock(&disk.state).unflushed.keys().copied().collect();
        let work = async move {
            tokio::time::sleep(latency).await;
            let mut state = lock(&disk.state);
            if state.power == power {
                covered.iter().for_each(|sector| {
                    state.unflushed.remove(sector);
                });
            }
        };
        self.disk.shared.on_hardware(work).await;
        Ok(())
    }

    async fn resize(&self, sectors: Sectors) -> Result<(), IoError> {
        self.check_writable("resize")?;
        tokio::time::sleep(self.disk.latency(4096)).await;
        let mut state = lock(&self.disk.state);
        state.content.resize(sectors.bytes() as usize, 0);
        state.unflushed.retain(|sector, _| *sector < sectors.0);
        Ok(())
    }
}
