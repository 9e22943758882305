//! The mixed guest: overlapping writes of all sizes, zeros, trims and flushes, several at once.

use super::guest::{GuestDisk, GuestError, Recorder};
use super::pace::{LONG, Pace};
use crate::plan::GuestPlan;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redoubt_core::{Extent, SECTOR_BYTES};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Largest write of the mixed models: one full record, so that splitting at the bound is exercised.
const LARGEST_SECTORS: u64 = (1 << 20) / SECTOR_BYTES;

/// Sectors at the start of a volume that take half of all writes, so that writes overlap.
const HOT_SECTORS: u64 = 128;

/// One volume shared by the jobs of a guest.
pub struct Volume {
    /// Ordinal.
    pub index: u16,
    /// The disk.
    pub disk: Arc<dyn GuestDisk>,
    /// Size in sectors.
    pub sectors: u64,
}

/// Some operations wait for the next multiple of this, in microseconds, so that jobs meet on the disk.
const MEETING: u64 = 40_000;

/// Sectors on which they meet.
const MEETING_SECTORS: u64 = 12;

/// Sectors of a page.
const PAGE_SECTORS: u64 = 4096 / SECTOR_BYTES;

/// Runs one job until `stop`, or until the disk is gone.
pub async fn job(
    recorder: Recorder,
    volumes: Arc<Vec<Volume>>,
    plan: GuestPlan,
    mut pace: Pace,
    number: u32,
    stop: Arc<AtomicBool>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed ^ (u64::from(number) << 48));
    while !stop.load(Ordering::Relaxed) {
        let pause = pace.pause((recorder.clock)(), rng.next_u64());
        tokio::time::sleep(pause).await;
        if pause > LONG && stop.load(Ordering::Relaxed) {
            return;
        }
        let together = rng.next_u64().is_multiple_of(3);
        if together {
            let past = (recorder.clock)().as_micros() as u64 % MEETING;
            tokio::time::sleep(Duration::from_micros(MEETING - past)).await;
        }
        let volume = &volumes[(rng.next_u64() % volumes.len() as u64) as usize];
        let acted = match plan.model.as_str() {
            "pages" => page(&recorder, volume, &mut rng).await,
            model => act(&recorder, volume, model, together, &mut rng).await,
        };
        if acted == Err(GuestError::Gone) {
            return;
        }
    }
}

/// Writes one aligned page anywhere: the plainest load, for measuring the lab itself.
async fn page(recorder: &Recorder, volume: &Volume, rng: &mut ChaCha8Rng) -> Result<(), GuestError> {
    let pages = (volume.sectors / PAGE_SECTORS).max(1);
    let extent = Extent::new(rng.next_u64() % pages * PAGE_SECTORS, PAGE_SECTORS);
    recorder.write(volume.disk.as_ref(), volume.index, extent, 0, false).await
}

fn extent_in(rng: &mut ChaCha8Rng, volume: &Volume, model: &str) -> Extent {
    let room = volume.sectors;
    let largest = LARGEST_SECTORS.min(room / 2).max(1);
    let class = rng.next_u64() % 100;
    let bound = match (model, class) {
        ("trickle", _) => 8,
        ("large", 0..60) => largest,
        (_, 0..30) => 1,
        (_, 30..75) => 16,
        (_, 75..95) => 128,
        (_, 95..98) => 512,
        _ => largest,
    };
    let sectors = 1 + rng.next_u64() % bound.min(largest);
    let span = if rng.next_u64().is_multiple_of(2) { HOT_SECTORS.min(room) } else { room };
    let first = (rng.next_u64() % span).min(room - sectors);
    Extent::new(first, sectors)
}

async fn act(
    recorder: &Recorder,
    volume: &Volume,
    model: &str,
    together: bool,
    rng: &mut ChaCha8Rng,
) -> Result<(), GuestError> {
    let disk = volume.disk.as_ref();
    let extent = if together {
        let first = rng.next_u64() % MEETING_SECTORS;
        Extent::new(first, 1 + rng.next_u64() % (MEETING_SECTORS - first))
    } else {
        extent_in(rng, volume, model)
    };
    match rng.next_u64() % 200 {
        0..10 => recorder.flush(disk, volume.index).await,
        10..20 => recorder.zero(disk, volume.index, extent, false).await,
        20..28 => recorder.zero(disk, volume.index, extent, true).await,
        28..36 => recorder.read(disk, volume.index, extent).await.map(drop),
        draw => recorder.write(disk, volume.index, extent, 0, draw < 56).await,
    }
}
