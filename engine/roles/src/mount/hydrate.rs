//! Hydration: brings a whole volume at its point into the local cache, behind everything that clients ask.
//!
//! - HY-1 A range counts as hydrated only when every part that reading it needs is in the cache and its seal opened.
//! - HY-2 An outage is waited out; damage is counted and passed over; a cache without room ends it, and says so.
//! - HY-3 While clients' reads are on the way the next step waits, but never for long.
//!
//! What is *not* here: where the parts go (`cache`), and how much of it is on the way at once (`redoubt-vault`).

use redoubt_core::{Extent, SECTOR_BYTES, VolumeIndex};
use redoubt_vault::{PointView, ReadError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Brought at once: two requests for most disks.
const STEP_SECTORS: u64 = (8 << 20) / SECTOR_BYTES;
/// Brought at once where a step holds damage: a granule of the index.
const SMALL_STEP_SECTORS: u64 = (64 << 10) / SECTOR_BYTES;
/// Asked for its data at once.
const LOOK_SECTORS: u64 = (256 << 20) / SECTOR_BYTES;
/// Pause of a step while clients wait, and how many such pauses: a busy client slows hydration to 80 MiB/s.
const GIVE_WAY: Duration = Duration::from_millis(5);
const GIVE_WAY_TIMES: usize = 20;
/// Pause before an outage is asked whether it is over.
const OUTAGE_PAUSE: Duration = Duration::from_secs(5);

/// How a hydration does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HydrationState {
    /// It goes on.
    Running,
    /// The vault does not answer; in its words.
    Waiting(String),
    /// Everything that can be had is in the cache.
    Complete,
    /// The cache has no room for more.
    NoRoom,
}

/// How far a hydration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HydrationStatus {
    /// What it does.
    pub state: HydrationState,
    /// Bytes of the volume that are settled: in the cache, without data, or damaged.
    pub done_bytes: u64,
    /// Bytes of the volume.
    pub total_bytes: u64,
    /// Bytes of data brought or found in the cache.
    pub data_bytes: u64,
    /// Bytes that cannot be had, and what is wrong with the first of them.
    pub damaged_bytes: u64,
    /// The first damage met.
    pub damage: Option<String>,
}

impl HydrationStatus {
    pub(super) fn new(total_bytes: u64) -> HydrationStatus {
        let state = HydrationState::Running;
        HydrationStatus { state, done_bytes: 0, total_bytes, data_bytes: 0, damaged_bytes: 0, damage: None }
    }
}

/// Reads that clients wait for.
#[derive(Debug, Default)]
pub(super) struct Asked(Arc<AtomicUsize>);

/// One of them; it ends when this is dropped.
pub(super) struct Asking(Arc<AtomicUsize>);

impl Asked {
    pub(super) fn begin(&self) -> Asking {
        self.0.fetch_add(1, Ordering::Relaxed);
        Asking(self.0.clone())
    }

    pub(super) fn share(&self) -> Asked {
        Asked(self.0.clone())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One hydration.
pub(super) struct Hydration {
    pub(super) view: PointView,
    pub(super) volume: VolumeIndex,
    pub(super) sectors: u64,
    pub(super) asked: Asked,
    pub(super) status: watch::Sender<HydrationStatus>,
}

impl Hydration {
    /// Runs to the end of the volume or of the cache.
    pub(super) async fn run(self) {
        let mut at = 0;
        while at < self.sectors {
            let to = self.sectors.min(at + LOOK_SECTORS);
            if !self.window(Extent::new(at, to - at)).await {
                return self.say(|status| status.state = HydrationState::NoRoom);
            }
            self.say(|status| status.done_bytes = to * SECTOR_BYTES);
            at = to;
        }
        self.say(|status| status.state = HydrationState::Complete);
    }

    async fn window(&self, window: Extent) -> bool {
        let parts = self.patiently(|| self.view.data_extents(self.volume, window)).await;
        let parts = parts.unwrap_or_else(|_| vec![window]);
        for part in parts {
            let mut at = part.lba.0;
            while at < part.end() {
                let step = Extent::new(at, (part.end() - at).min(STEP_SECTORS));
                if !self.step(step).await {
                    return false;
                }
                at = step.end();
                self.say(|status| status.done_bytes = at * SECTOR_BYTES);
            }
        }
        true
    }

    /// Brings one step; false if there is no room.
    async fn step(&self, step: Extent) -> bool {
        self.give_way().await;
        match self.patiently(|| self.view.hydrate(self.volume, step)).await {
            Ok(true) => {
                self.say(|status| status.data_bytes += step.bytes());
                true
            }
            Ok(false) => false,
            Err(_) if step.sectors.0 > SMALL_STEP_SECTORS => self.small_steps(step).await,
            Err(damage) => {
                self.say(|status| {
                    status.damaged_bytes += step.bytes();
                    status.damage.get_or_insert_with(|| damage.to_string());
                });
                true
            }
        }
    }

    /// Brings what is whole of a step with damage.
    async fn small_steps(&self, step: Extent) -> bool {
        let mut at = step.lba.0;
        while at < step.end() {
            let to = step.end().min((at / SMALL_STEP_SECTORS + 1) * SMALL_STEP_SECTORS);
            if !Box::pin(self.step(Extent::new(at, to - at))).await {
                return false;
            }
            at = to;
        }
        true
    }

    /// Repeats a call until the store answers it (HY-2).
    async fn patiently<T, F: Future<Output = Result<T, ReadError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, ReadError> {
        loop {
            match call().await {
                Err(ReadError::Store(failure)) => {
                    self.say(|status| status.state = HydrationState::Waiting(failure.to_string()));
                    sleep(OUTAGE_PAUSE).await;
                }
                answer => {
                    self.say(|status| status.state = HydrationState::Running);
                    return answer;
                }
            }
        }
    }

    /// HY-3.
    async fn give_way(&self) {
        for _ in 0..GIVE_WAY_TIMES {
            if self.asked.0.load(Ordering::Relaxed) == 0 {
                return;
            }
            sleep(GIVE_WAY).await;
        }
    }

    fn say(&self, change: impl FnOnce(&mut HydrationStatus)) {
        self.status.send_modify(change);
    }
}
