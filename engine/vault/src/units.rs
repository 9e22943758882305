//! Plain units by number, from a cache bounded by bytes or from the store, every seal checked.

use crate::error::ReadError;
use crate::index::UnitPlace;
use crate::load::Log;
use crate::lru::Lru;
use crate::segment::{Inflater, SegmentId, inflater, open_unit};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_ports::StoreKey;
use redoubt_wire::aead::Opener;

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

/// A unit: its segment and its number there.
pub(crate) type UnitId = (u128, u32);

/// Least recently used units.
pub(crate) type UnitCache = Lru<UnitId, Bytes>;

pub(crate) fn unit_cache() -> UnitCache {
    Lru::new(CACHE_BYTES)
}

/// Neighbouring units of one segment, to be read by one request.
struct Fetch {
    object: StoreKey,
    id: SegmentId,
    /// Where the segment starts in the object: behind the record if inline.
    base: u64,
    units: Vec<UnitPlace>,
    from: u64,
    to: u64,
}

/// Hands each wanted unit to `each`; fails rather than hand over one that did not check. Besides the
/// cache it holds the sealed bytes of a few fetches and one plain unit, however many units are wanted.
pub(crate) async fn load(
    log: &Log,
    cache: &UnitCache,
    wanted: impl Iterator<Item = &UnitPlace>,
    mut each: impl FnMut(&UnitPlace, &[u8]) + Send,
) -> Result<(), ReadError> {
    let mut fetches: Vec<Fetch> = Vec::new();
    for unit in wanted {
        let id = (unit.segment.uuid, unit.number);
        match cache.get(&id) {
            Some(bytes) if bytes.len() == unit.plain as usize => each(unit, &bytes),
            _ => plan(log, *unit, &mut fetches),
        }
    }
    let mut reads = Vec::with_capacity(fetches.len());
    for fetch in fetches {
        reads.push(run(log, fetch));
    }
    let mut reads = futures::stream::iter(reads).buffer_unordered(FETCHES_AT_ONCE);
    while let Some((fetch, sealed)) = reads.try_next().await? {
        let opener = fetch.id.opener(&log.keys.for_read(fetch.id.dek).await?);
        let mut inflater = inflater().map_err(|what| fetch.damaged(fetch.from, fetch.to, what.0))?;
        for unit in &fetch.units {
            let plain = fetch.open(&opener, &mut inflater, unit, &sealed)?;
            each(unit, &plain);
            let bytes = plain.len();
            cache.put((unit.segment.uuid, unit.number), plain, bytes);
        }
    }
    Ok(())
}

/// Adds a unit to the fetch before, if it is a neighbour, or to one of its own.
fn plan(log: &Log, unit: UnitPlace, fetches: &mut Vec<Fetch>) {
    let (object, base) = unit.segment.object(log.machine);
    let start = base + u64::from(unit.offset);
    let to = start + u64::from(unit.sealed);
    // The first unit brings the segment's header along, to be compared.
    let from = if unit.number == 0 { base } else { start };
    match fetches.last_mut() {
        Some(last)
            if last.id.uuid == unit.segment.uuid
                && from >= last.to
                && from - last.to < MERGE_GAP
                && to - last.from <= FETCH_BYTES_MAX =>
        {
            last.units.push(unit);
            last.to = to;
        }
        _ => {
            let id = unit.segment.id(log.vault.uuid, log.machine);
            fetches.push(Fetch { object, id, base, units: vec![unit], from, to });
        }
    }
}

async fn run(log: &Log, fetch: Fetch) -> Result<(Fetch, Bytes), ReadError> {
    let found = log.vault.store.get(&fetch.object, Some(fetch.from..fetch.to)).await?;
    let found = found.ok_or_else(|| fetch.damaged(fetch.from, fetch.to, "the object is missing"))?;
    let header = fetch.id.header();
    if fetch.from == fetch.base && found.get(..header.len()) != Some(&header[..]) {
        return Err(fetch.damaged(fetch.base, fetch.base + header.len() as u64, HEADER_DIFFERS));
    }
    Ok((fetch, found))
}

impl Fetch {
    fn damaged(&self, from: u64, to: u64, what: &str) -> ReadError {
        ReadError::Damaged { object: self.object.to_string(), from, to, what: what.to_owned() }
    }

    fn open(
        &self,
        opener: &Opener,
        inflater: &mut Inflater,
        unit: &UnitPlace,
        found: &[u8],
    ) -> Result<Bytes, ReadError> {
        let from = self.base + u64::from(unit.offset);
        let at = (from - self.from) as usize;
        let sealed = found.get(at..at + unit.sealed as usize).unwrap_or(&[]);
        open_unit(&self.id, opener, inflater, unit.number, &unit.row(), sealed)
            .map_err(|what| self.damaged(from, from + u64::from(unit.sealed), what.0))
    }
}
