//! Plain units by number, from a cache bounded by bytes or from the store, every seal checked.

use crate::error::ReadError;
use crate::segment::{Inflater, SegmentId, UnitRow, inflater, open_unit};
use crate::vault::Vault;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_ports::StoreKey;
use redoubt_wire::aead::{Key, Opener};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Plain bytes of units kept: what a booting guest touches in its first seconds.
const CACHE_BYTES: usize = 64 << 20;
/// Units closer than this in one segment are fetched by one request.
const MERGE_GAP: u64 = 256 << 10;
/// Bytes of one request at most.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// Requests of one read at once.
const FETCHES_AT_ONCE: usize = 8;

/// What is wrong with a segment whose header is not the one its commit record implies.
pub(crate) const HEADER_DIFFERS: &str = "the segment's header is not that of the commit record";

/// A segment whose tables were read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) id: SegmentId,
    pub(crate) object: StoreKey,
    /// Where the segment starts in the object: behind the record if inline.
    pub(crate) base: u64,
    pub(crate) rows: Arc<Vec<UnitRow>>,
}

/// A unit's place: segment ordinal of this reader, unit number.
pub(crate) type UnitId = (u32, u32);

#[derive(Debug, Default)]
struct Cached {
    bytes: usize,
    clock: u64,
    units: BTreeMap<UnitId, (Bytes, u64)>,
    by_age: BTreeMap<u64, UnitId>,
}

/// Least recently used units.
#[derive(Debug, Default)]
pub(crate) struct UnitCache(Mutex<Cached>);

impl UnitCache {
    fn get(&self, id: UnitId) -> Option<Bytes> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cached.clock + 1;
        let (bytes, age) = cached.units.get_mut(&id)?;
        let (bytes, old) = (bytes.clone(), std::mem::replace(age, now));
        cached.clock = now;
        cached.by_age.remove(&old);
        cached.by_age.insert(now, id);
        Some(bytes)
    }

    fn put(&self, id: UnitId, bytes: Bytes) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.clock += 1;
        let now = cached.clock;
        cached.bytes += bytes.len();
        if let Some((old, age)) = cached.units.insert(id, (bytes, now)) {
            cached.bytes -= old.len();
            cached.by_age.remove(&age);
        }
        cached.by_age.insert(now, id);
        while cached.bytes > CACHE_BYTES {
            let Some((_, oldest)) = cached.by_age.pop_first() else { return };
            if let Some((old, _)) = cached.units.remove(&oldest) {
                cached.bytes -= old.len();
            }
        }
    }
}

/// Neighbouring units of one segment, to be read by one request.
struct Fetch {
    segment: Loaded,
    ordinal: u32,
    units: Vec<u32>,
    from: u64,
    to: u64,
}

/// Hands each wanted unit to `each`; fails rather than hand over one that did not check. Besides the
/// cache it holds the sealed bytes of a few fetches and one plain unit, however many units are wanted.
pub(crate) async fn load(
    vault: &Vault,
    dek: &Key,
    cache: &UnitCache,
    wanted: impl Iterator<Item = UnitId>,
    segment: impl Fn(u32) -> Loaded,
    mut each: impl FnMut(UnitId, &[u8]) + Send,
) -> Result<(), ReadError> {
    let mut fetches: Vec<Fetch> = Vec::new();
    for (ordinal, unit) in wanted {
        if let Some(bytes) = cache.get((ordinal, unit)) {
            each((ordinal, unit), &bytes);
            continue;
        }
        let loaded = segment(ordinal);
        let row = loaded.rows[unit as usize];
        let (start, to) = (loaded.base + row.offset, loaded.base + row.offset + u64::from(row.sealed));
        // The first unit brings the segment's header along, to be compared.
        let from = if unit == 0 { loaded.base } else { start };
        match fetches.last_mut() {
            Some(last)
                if last.ordinal == ordinal
                    && from - last.to < MERGE_GAP
                    && to - last.from <= FETCH_BYTES_MAX =>
            {
                last.units.push(unit);
                last.to = to;
            }
            _ => fetches.push(Fetch { segment: loaded, ordinal, units: vec![unit], from, to }),
        }
    }
    let mut reads = Vec::with_capacity(fetches.len());
    for fetch in fetches {
        reads.push(run(vault, fetch));
    }
    let mut reads = futures::stream::iter(reads).buffer_unordered(FETCHES_AT_ONCE);
    while let Some((fetch, sealed)) = reads.try_next().await? {
        let opener = fetch.segment.id.opener(dek);
        let mut inflater = inflater().map_err(|what| fetch.damaged(fetch.from, fetch.to, what.0))?;
        for &unit in &fetch.units {
            let plain = fetch.open(&opener, &mut inflater, unit, &sealed)?;
            each((fetch.ordinal, unit), &plain);
            cache.put((fetch.ordinal, unit), plain);
        }
    }
    Ok(())
}

async fn run(vault: &Vault, fetch: Fetch) -> Result<(Fetch, Bytes), ReadError> {
    let Loaded { id, object, base, .. } = &fetch.segment;
    let found = vault.store.get(object, Some(fetch.from..fetch.to)).await?;
    let found = found.ok_or_else(|| fetch.damaged(fetch.from, fetch.to, "the object is missing"))?;
    let header = id.header();
    if fetch.from == *base && found.get(..header.len()) != Some(&header[..]) {
        return Err(fetch.damaged(*base, base + header.len() as u64, HEADER_DIFFERS));
    }
    Ok((fetch, found))
}

impl Fetch {
    fn damaged(&self, from: u64, to: u64, what: &str) -> ReadError {
        ReadError::Damaged { object: self.segment.object.to_string(), from, to, what: what.to_owned() }
    }

    fn open(
        &self,
        opener: &Opener,
        inflater: &mut Inflater,
        unit: u32,
        found: &[u8],
    ) -> Result<Bytes, ReadError> {
        let Loaded { id, base, rows, .. } = &self.segment;
        let row = &rows[unit as usize];
        let from = base + row.offset;
        let at = (from - self.from) as usize;
        let sealed = found.get(at..at + row.sealed as usize).unwrap_or(&[]);
        open_unit(id, opener, inflater, unit, row, sealed)
            .map_err(|what| self.damaged(from, from + u64::from(row.sealed), what.0))
    }
}
