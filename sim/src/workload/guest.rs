//! The guest's hand on its disks, as an NBD client has it, and the recorder in front of it.

use super::log::{MachineLog, OpKind};
use super::notices::Notices;
use super::stamp::{self, Density, Stamp};
use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::Extent;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Why a guest's operation did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestError {
    /// The device said so.
    Io(String),
    /// The machine or its agent went away.
    Gone,
}

/// One volume as a guest sees it.
#[async_trait]
pub trait GuestDisk: Send + Sync {
    /// Reads.
    async fn read(&self, extent: Extent) -> Result<Bytes, GuestError>;
    /// Writes; durable on return only if `durable`.
    async fn write(&self, extent: Extent, payload: Bytes, durable: bool) -> Result<(), GuestError>;
    /// Zeros, by discard if `trim`.
    async fn zero(&self, extent: Extent, trim: bool, durable: bool) -> Result<(), GuestError>;
    /// Makes acknowledged writes durable.
    async fn flush(&self) -> Result<(), GuestError>;
}

/// Clock of a run for latencies.
pub type RunClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A machine's disks with everything done to them recorded.
#[derive(Clone)]
pub struct Recorder {
    /// The reference model.
    pub log: Arc<Mutex<MachineLog>>,
    /// What is long and what fails.
    pub notices: Arc<Mutex<Notices>>,
    /// Number of the machine.
    pub machine: u16,
    /// How well what it writes compresses.
    pub density: Density,
    /// Simulated time.
    pub clock: RunClock,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    async fn timed<T, F>(&self, volume: u16, what: &'static str, work: F) -> Result<T, GuestError>
    where
        F: Future<Output = Result<T, GuestError>>,
    {
        let began = (self.clock)();
        let result = work.await;
        let ended = (self.clock)();
        let took = ended.saturating_sub(began);
        let error = match &result {
            Err(GuestError::Io(error)) => Some(error.as_str()),
            _ => None,
        };
        lock(&self.notices).ended(ended, volume, what, took, error);
        result
    }

    async fn recorded<F>(&self, id: u64, volume: u16, what: &'static str, work: F) -> Result<(), GuestError>
    where
        F: Future<Output = Result<(), GuestError>>,
    {
        let result = self.timed(volume, what, work).await;
        if result.is_ok() {
            lock(&self.log).acknowledge(id);
        }
        result
    }

    /// Writes stamped content with a note of the application.
    pub async fn write(
        &self,
        disk: &dyn GuestDisk,
        volume: u16,
        extent: Extent,
        note: u64,
        durable: bool,
    ) -> Result<(), GuestError> {
        let op = lock(&self.log).submit(volume, OpKind::Write, Some(extent));
        let payload =
            stamp::content(Stamp { machine: self.machine, volume, op, note, density: self.density }, extent);
        self.recorded(op, volume, "write", disk.write(extent, payload, durable)).await
    }

    /// Zeros an extent.
    pub async fn zero(
        &self,
        disk: &dyn GuestDisk,
        volume: u16,
        extent: Extent,
        trim: bool,
    ) -> Result<(), GuestError> {
        let op = lock(&self.log).submit(volume, OpKind::Zero, Some(extent));
        let what = if trim { "trim" } else { "zero" };
        self.recorded(op, volume, what, disk.zero(extent, trim, false)).await
    }

    /// Reads.
    pub async fn read(&self, disk: &dyn GuestDisk, volume: u16, extent: Extent) -> Result<Bytes, GuestError> {
        self.timed(volume, "read", disk.read(extent)).await
    }

    /// Flushes.
    pub async fn flush(&self, disk: &dyn GuestDisk, volume: u16) -> Result<(), GuestError> {
        self.timed(volume, "flush", disk.flush()).await
    }
}
