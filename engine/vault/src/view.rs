//! A machine's volumes as they were at one point.

use crate::error::ReadError;
use crate::index::{Catalogue, Found, UnitPlace, Version};
use crate::log::Volumes;
use crate::near::{Near, Purpose, Reach, SealedCache};
use crate::pack::is_zero;
use crate::reader::Inner;
use crate::segment::{GRANULE_SECTORS, UNIT_BYTES};
use crate::units::Shelves;
use bytes::Bytes;
use redoubt_core::{Extent, SECTOR_BYTES, VolumeIndex};
use redoubt_ports::compute;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of one read at most; bounds what one request can make the reader hold.
pub const READ_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a block of [`PointView::hash_blocks`].
pub const BLOCK_BYTES: u64 = UNIT_BYTES as u64;
/// Blocks read by one request and hashed by one job: 1 MiB, where a request's own cost no longer counts.
const HASH_RUN_BLOCKS: u64 = 16;
/// Sectors looked up at once, 256 MiB of them: bounds what a question about a whole disk holds.
const LOOKUP_SECTORS: u64 = GRANULE_SECTORS << 12;

/// A read looks up again so often at most what a maintainer packs elsewhere while it is on its way. Each time needs
/// a newer catalogue, and once is usual.
const LOOKS_AGAIN_MAX: u32 = 8;

/// What holds an extent.
struct LookedUp {
    /// By unit.
    parts: Vec<Found>,
    /// Whether what was read for it is where the purpose wants it.
    is_kept: bool,
    /// The catalogue that said so.
    by: Arc<Catalogue>,
}

/// The machine's volumes as they were at one point. Reads may run concurrently.
#[derive(Clone)]
pub struct PointView {
    inner: Arc<Inner>,
    version: Version,
    volumes: Volumes,
    near: Near,
}

impl std::fmt::Debug for PointView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PointView({}, {:?})", self.inner.log.machine, self.version)
    }
}

impl PointView {
    pub(crate) fn new(inner: Arc<Inner>, version: Version, volumes: Volumes) -> PointView {
        PointView { inner, version, volumes, near: Near::default() }
    }

    /// Reads through a cache near by from now on.
    pub fn with_cache(mut self, cache: Arc<dyn SealedCache>) -> PointView {
        self.near = Near(Some(cache));
        self
    }

    /// Returns the volumes with their sizes at this point.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Reads an extent: zeros where nothing was written. Damage is an error that names object and range.
    pub async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, ReadError> {
        if extent.sectors.0 > READ_BYTES_MAX / SECTOR_BYTES {
            return Err(ReadError::TooLarge(READ_BYTES_MAX));
        }
        let looked_up = self.units(volume, extent, Purpose::Asked).await?;
        self.read_found(volume, extent, looked_up).await
    }

    /// Reads an extent that was looked up.
    async fn read_found(
        &self,
        volume: VolumeIndex,
        extent: Extent,
        looked_up: LookedUp,
    ) -> Result<Bytes, ReadError> {
        let mut image = vec![0; extent.bytes() as usize];
        self.load_found(volume, extent, Purpose::Asked, looked_up, |part, plain| {
            let (from, to) = (part.offset * SECTOR_BYTES, (part.offset + part.sectors) * SECTOR_BYTES);
            let at = ((part.first - extent.lba.0) * SECTOR_BYTES) as usize;
            image[at..at + (to - from) as usize].copy_from_slice(&plain[from as usize..to as usize]);
        })
        .await?;
        Ok(image.into())
    }

    /// Reads an extent without gathering it: hands the bytes of each part that holds data to `each`, with its first sector,
    /// as they lie in memory and in no order; some may come twice. The rest reads as zeros.
    pub async fn read_parts(
        &self,
        volume: VolumeIndex,
        extent: Extent,
        mut each: impl FnMut(u64, Bytes) + Send,
    ) -> Result<(), ReadError> {
        let hand_over = |part: &Found, plain: &Bytes| {
            let (from, to) = (part.offset * SECTOR_BYTES, (part.offset + part.sectors) * SECTOR_BYTES);
            each(part.first, plain.slice(from as usize..to as usize));
        };
        self.load(volume, extent, Purpose::Asked, hand_over).await.map(drop)
    }

    /// Brings an extent into memory that will probably be read soon.
    pub async fn read_ahead(&self, volume: VolumeIndex, extent: Extent) -> Result<(), ReadError> {
        self.load(volume, extent, Purpose::Ahead, |_, _| {}).await.map(drop)
    }

    /// Brings all that reading an extent needs into the cache near by, checked; false if it has no room.
    pub async fn hydrate(&self, volume: VolumeIndex, extent: Extent) -> Result<bool, ReadError> {
        self.load(volume, extent, Purpose::Hydrate, |_, _| {}).await
    }

    /// Looks an extent up and hands its content to `each`, part by part.
    async fn load(
        &self,
        volume: VolumeIndex,
        extent: Extent,
        purpose: Purpose,
        each: impl FnMut(&Found, &Bytes) + Send,
    ) -> Result<bool, ReadError> {
        let looked_up = self.units(volume, extent, purpose).await?;
        self.load_found(volume, extent, purpose, looked_up, each).await
    }

    /// Hands the content of an extent that was looked up to `each`, part by part. What is gone is looked up again: a
    /// maintainer may have packed it elsewhere since (RD-6).
    async fn load_found(
        &self,
        volume: VolumeIndex,
        extent: Extent,
        purpose: Purpose,
        mut looked_up: LookedUp,
        mut each: impl FnMut(&Found, &Bytes) + Send,
    ) -> Result<bool, ReadError> {
        let mut looks_left = LOOKS_AGAIN_MAX;
        loop {
            let LookedUp { parts, is_kept, by } = looked_up;
            let place = |unit: &UnitPlace, plain: &Bytes| {
                let from = parts.partition_point(|part| part.unit < *unit);
                parts[from..].iter().take_while(|part| part.unit == *unit).for_each(|part| each(part, plain));
            };
            let units = parts.chunk_by(|a, b| a.unit == b.unit).map(|parts| &parts[0].unit);
            match self.shelves().load(purpose, units, place).await {
                Err(damage @ ReadError::Damaged { .. }) => {
                    if looks_left == 0 || !self.inner.look_again(&by).await? {
                        return Err(damage);
                    }
                    looks_left -= 1;
                    looked_up = self.units(volume, extent, purpose).await?;
                }
                loaded => return Ok(is_kept & loaded?),
            }
        }
    }

    /// Looks up what holds an extent.
    async fn units(
        &self,
        volume: VolumeIndex,
        extent: Extent,
        purpose: Purpose,
    ) -> Result<LookedUp, ReadError> {
        self.check(volume, extent)?;
        let is_kept = AtomicBool::new(true);
        let reach = Reach::new(&self.near, purpose, &is_kept);
        let sectors = extent.lba.0..extent.end();
        let (mut parts, by) = self.inner.find_within(self.version, volume, sectors, reach).await?;
        parts.sort_by_key(|part| part.unit);
        Ok(LookedUp { parts, is_kept: is_kept.load(Ordering::Relaxed), by })
    }

    /// Looks up what somebody waits for.
    async fn find(&self, volume: VolumeIndex, sectors: Range<u64>) -> Result<Vec<Found>, ReadError> {
        let is_kept = AtomicBool::new(true);
        let reach = Reach::new(&self.near, Purpose::Asked, &is_kept);
        self.inner.find_within(self.version, volume, sectors, reach).await.map(|(parts, _)| parts)
    }

    fn shelves(&self) -> Shelves<'_> {
        Shelves { log: &self.inner.log, units: &self.inner.units, near: &self.near }
    }

    /// Returns the parts of the extent that hold data, in order; the rest reads as zeros.
    pub async fn data_extents(&self, volume: VolumeIndex, extent: Extent) -> Result<Vec<Extent>, ReadError> {
        self.check(volume, extent)?;
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = extent.lba.0;
        while at < extent.end() {
            let to = extent.end().min((at / LOOKUP_SECTORS + 1) * LOOKUP_SECTORS);
            for part in self.find(volume, at..to).await? {
                match extents.last_mut() {
                    Some(last) if last.end() == part.first => last.sectors.0 += part.sectors,
                    _ => extents.push(Extent::new(part.first, part.sectors)),
                }
            }
            at = to;
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
            let to = here.max(there).min(at + LOOKUP_SECTORS);
            let a = self.find(volume, at.min(here)..to.min(here)).await?;
            let b = other.find(volume, at.min(there)..to.min(there)).await?;
            crate::changed::compare(at..to, &a, &b, &mut changed);
            at = to;
        }
        Ok(changed)
    }

    /// Hashes blocks of [`BLOCK_BYTES`] from `first_block` on by BLAKE3; `None` for a block of zeros.
    /// The last block of a volume may be shorter; blocks behind the end are not returned. Damage anywhere among them
    /// is an error: ask for fewer to know which of them can be hashed.
    pub async fn hash_blocks(
        &self,
        volume: VolumeIndex,
        first_block: u64,
        count: u64,
    ) -> Result<Vec<Option<[u8; 32]>>, ReadError> {
        let size = self.size(volume)?;
        let grain = BLOCK_BYTES / SECTOR_BYTES;
        let end = first_block.saturating_add(count).min(size.div_ceil(grain));
        let (mut hashes, mut block) = (Vec::new(), first_block);
        while block < end {
            let to = end.min((block / HASH_RUN_BLOCKS + 1) * HASH_RUN_BLOCKS);
            let run = Extent::new(block * grain, (to * grain).min(size) - block * grain);
            let looked_up = self.units(volume, run, Purpose::Asked).await?;
            if looked_up.parts.is_empty() {
                hashes.extend((block..to).map(|_| None));
            } else {
                let bytes = self.read_found(volume, run, looked_up).await?;
                hashes.extend(compute(&*self.inner.log.vault.workers, move || digests(&bytes)).await);
            }
            block = to;
        }
        Ok(hashes)
    }

    fn size(&self, volume: VolumeIndex) -> Result<u64, ReadError> {
        Ok(self.volumes.get(&volume).ok_or(ReadError::NoVolume(volume))?.sectors.0)
    }

    fn check(&self, volume: VolumeIndex, extent: Extent) -> Result<(), ReadError> {
        let (size, end) = (self.size(volume)?, extent.lba.0.saturating_add(extent.sectors.0));
        if end > size { Err(ReadError::OutOfRange { end, size }) } else { Ok(()) }
    }
}

/// Hashes the blocks of a run; `None` for zeros.
fn digests(run: &[u8]) -> Vec<Option<[u8; 32]>> {
    let digest = |block: &[u8]| (!is_zero(block)).then(|| *blake3::hash(block).as_bytes());
    run.chunks(BLOCK_BYTES as usize).map(digest).collect()
}
