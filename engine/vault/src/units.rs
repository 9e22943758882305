//! Plain units by number: from memory, from a cache near by, or from the store; every seal checked.
//!
//! - UN-1 A unit is handed over only after its seal opened, wherever it came from.
//! - UN-2 A unit is on its way once: who wants it meanwhile waits for it.
//! - UN-3 What is on its way is bounded in bytes. What nobody waits for has a bound of its own, so that a read that
//!   was asked never queues behind it.
//!
//! What is *not* here: which units hold a range (`index`), and what is read ahead (the caller).

use crate::error::ReadError;
use crate::flights::Flights;
use crate::index::UnitPlace;
use crate::load::Log;
use crate::lru::Lru;
use crate::near::{Near, PartId, Purpose};
use crate::segment::{SegmentId, open_unit};
use crate::shrink::Inflater;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_ports::{Chance, Rare, StoreKey, compute};
use redoubt_wire::aead::Opener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

/// Plain bytes of units kept: what a booting guest touches in its first seconds.
const CACHE_BYTES: usize = 64 << 20;
/// Units closer than this in one segment are fetched by one request.
const MERGE_GAP: u64 = 256 << 10;
/// Bytes of one request at most.
const FETCH_BYTES_MAX: u64 = 4 << 20;
/// Units of one request at most: what compresses well must not fill the memory.
const FETCH_UNITS_MAX: usize = 128;
/// Requests of one read at once.
const FETCHES_AT_ONCE: usize = 8;
/// Bytes on the way at once for reads that somebody waits for, sealed and plain, in KiB.
const ASKED_KIB_MAX: u64 = 64 << 10;
/// The same for what nobody waits for: two full requests, which hide the round trip of a store far away.
const AHEAD_KIB_MAX: u64 = 24 << 10;
/// Units that are opened where they arrive: for fewer, a worker costs more than it saves.
const UNITS_IN_PLACE: usize = 3;

/// How late comes what is forced to be late.
const LATE_AHEAD: Duration = Duration::from_millis(400);

/// What is wrong with a segment whose header is not the one its commit record implies.
pub(crate) const HEADER_DIFFERS: &str = "the segment's header is not that of the commit record";

/// A unit: its segment and its number there.
pub(crate) type UnitId = (u128, u32);

/// Units in memory, least recently used, and those on their way.
pub(crate) struct Units {
    kept: Lru<UnitId, Bytes>,
    flights: Flights<UnitId>,
    asked: Semaphore,
    ahead: Semaphore,
}

/// Units that readers of one machine opened after one another remember together: a unit never changes, and what a reader
/// looks for it learns from its own index.
#[derive(Clone)]
pub struct UnitMemory(pub(crate) Arc<Units>);

impl Default for UnitMemory {
    fn default() -> UnitMemory {
        UnitMemory(Arc::new(Units::new()))
    }
}

impl std::fmt::Debug for UnitMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnitMemory")
    }
}

impl Units {
    pub(crate) fn new() -> Units {
        Units {
            kept: Lru::new(CACHE_BYTES),
            flights: Flights::default(),
            asked: Semaphore::new(ASKED_KIB_MAX as usize),
            ahead: Semaphore::new(AHEAD_KIB_MAX as usize),
        }
    }

    /// Waits until a fetch has room (UN-3). Nobody closes the semaphores, so there is room in the end.
    async fn room(&self, purpose: Purpose, fetch: &Fetch) -> Option<SemaphorePermit<'_>> {
        let (room, most) = match purpose {
            Purpose::Asked => (&self.asked, ASKED_KIB_MAX),
            _ => (&self.ahead, AHEAD_KIB_MAX),
        };
        let plain: u64 = fetch.units.iter().map(|unit| u64::from(unit.plain)).sum();
        let wanted = (plain + fetch.to - fetch.from).div_ceil(1 << 10).min(most);
        room.acquire_many(wanted as u32).await.ok()
    }

    fn get(&self, unit: &UnitPlace) -> Option<Bytes> {
        self.kept.get(&id(unit)).filter(|bytes| bytes.len() == unit.plain as usize)
    }
}

fn id(unit: &UnitPlace) -> UnitId {
    (unit.segment.uuid, unit.number)
}

/// Where units are read from.
#[derive(Clone, Copy)]
pub(crate) struct Shelves<'a> {
    pub(crate) log: &'a Log,
    pub(crate) units: &'a Units,
    pub(crate) near: &'a Near,
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

/// Units as they were opened.
type Opened = Vec<(UnitPlace, Bytes)>;

impl Shelves<'_> {
    /// Hands each wanted unit to `each`; fails rather than hand over one that did not check. Besides the
    /// caches it holds the bytes of a few fetches, however many units are wanted. True if everything is
    /// where the purpose wants it.
    pub(crate) async fn load(
        self,
        purpose: Purpose,
        wanted: impl Iterator<Item = &UnitPlace>,
        mut each: impl FnMut(&UnitPlace, &Bytes) + Send,
    ) -> Result<bool, ReadError> {
        let (mut missing, mut is_kept) = (Vec::new(), true);
        for unit in wanted {
            match self.present(unit, purpose) {
                Some(bytes) => each(unit, &bytes),
                None => missing.push(*unit),
            }
        }
        while !missing.is_empty() {
            let landing = self.units.flights.landing();
            let mut claim = self.units.flights.claim();
            let (mine, others): (Vec<_>, Vec<_>) = missing.into_iter().partition(|unit| claim.add(id(unit)));
            is_kept &= self.fetch(purpose, mine, &mut each).await?;
            drop(claim);
            if others.is_empty() {
                break;
            }
            landing.await;
            missing = others;
            missing.retain(|unit| match self.present(unit, purpose) {
                Some(bytes) => {
                    each(unit, &bytes);
                    false
                }
                None => true,
            });
        }
        Ok(is_kept)
    }

    /// Returns a unit that is where the purpose wants it; to hydrate, nobody looks at its bytes.
    fn present(&self, unit: &UnitPlace, purpose: Purpose) -> Option<Bytes> {
        match purpose {
            Purpose::Hydrate => self.near.has(self.part(unit)).then(Bytes::new),
            _ if self.chance().forces(Rare::ForgottenUnit) => None,
            _ => self.units.get(unit),
        }
    }

    fn chance(&self) -> &dyn Chance {
        &*self.log.vault.store.chance
    }

    /// Brings units from the cache near by or the store.
    async fn fetch(
        &self,
        purpose: Purpose,
        mut units: Vec<UnitPlace>,
        each: &mut (impl FnMut(&UnitPlace, &Bytes) + Send),
    ) -> Result<bool, ReadError> {
        if self.near.0.is_some() && purpose != Purpose::Hydrate {
            let all = futures::stream::iter(std::mem::take(&mut units));
            let mut found = all.map(|unit| self.open_near(unit)).buffered(FETCHES_AT_ONCE);
            while let Some((unit, plain)) = found.next().await {
                match plain {
                    Some(plain) => self.hand_over(purpose, &unit, plain, each),
                    None => units.push(unit),
                }
            }
        }
        if purpose != Purpose::Asked && !units.is_empty() && self.chance().forces(Rare::LateAhead) {
            sleep(LATE_AHEAD).await;
        }
        let mut fetches: Vec<Fetch> = Vec::new();
        units.iter().for_each(|unit| plan(self.log, *unit, &mut fetches));
        let reads = futures::stream::iter(fetches).map(|fetch| self.run(purpose, fetch));
        let mut reads = reads.buffer_unordered(FETCHES_AT_ONCE);
        let mut is_kept = true;
        while let Some((opened, was_kept)) = reads.try_next().await? {
            is_kept &= was_kept;
            opened.into_iter().for_each(|(unit, plain)| self.hand_over(purpose, &unit, plain, each));
        }
        Ok(is_kept)
    }

    fn hand_over(
        &self,
        purpose: Purpose,
        unit: &UnitPlace,
        plain: Bytes,
        each: &mut impl FnMut(&UnitPlace, &Bytes),
    ) {
        each(unit, &plain);
        if purpose != Purpose::Hydrate {
            let bytes = plain.len();
            self.units.kept.put(id(unit), plain, bytes);
        }
    }

    fn part(&self, unit: &UnitPlace) -> PartId {
        let (object, base) = unit.segment.object(self.log.machine);
        let from = base + u64::from(unit.offset);
        PartId::new(self.log.vault.uuid, &object, from, u64::from(unit.sealed))
    }

    /// Opens a unit of the cache near by; one that does not open is forgotten there (UN-1).
    async fn open_near(&self, unit: UnitPlace) -> (UnitPlace, Option<Bytes>) {
        let part = self.part(&unit);
        let Some(sealed) = self.near.get(part).await else { return (unit, None) };
        let segment = unit.segment.id(self.log.vault.uuid, self.log.machine);
        // Without the key nobody can tell; the store's answer will.
        let Ok(key) = self.log.keys.for_read(segment.dek).await else { return (unit, None) };
        let (opener, mut inflater) = (segment.opener(&key), Inflater::new());
        let opened = open_unit(&segment, &opener, &mut inflater, unit.number, &unit.row(), &sealed);
        if opened.is_err() {
            self.near.forget(part);
        }
        (unit, opened.ok())
    }

    /// Reads, opens and keeps what one request brings.
    async fn run(&self, purpose: Purpose, fetch: Fetch) -> Result<(Opened, bool), ReadError> {
        let _room = self.units.room(purpose, &fetch).await;
        let found = self.log.vault.store.get(&fetch.object, Some(fetch.from..fetch.to)).await?;
        let found = found.ok_or_else(|| fetch.damaged(fetch.from, fetch.to, "the object is missing"))?;
        let header = fetch.id.header();
        if fetch.from == fetch.base && found.get(..header.len()) != Some(&header[..]) {
            return Err(fetch.damaged(fetch.base, fetch.base + header.len() as u64, HEADER_DIFFERS));
        }
        let opener = fetch.id.opener(&self.log.keys.for_read(fetch.id.dek).await?);
        let fetch = Arc::new(fetch);
        let opened = if fetch.units.len() > UNITS_IN_PLACE {
            let (fetch, found) = (fetch.clone(), found.clone());
            compute(&*self.log.vault.workers, move || fetch.open_all(&opener, &found)).await?
        } else {
            fetch.open_all(&opener, &found)?
        };
        let is_kept = match &self.near.0 {
            Some(_) => self.near.keep(self.parts(&fetch, &found), purpose).await,
            None => purpose != Purpose::Hydrate,
        };
        Ok((opened, is_kept))
    }

    fn parts(&self, fetch: &Fetch, found: &Bytes) -> Vec<(PartId, Bytes)> {
        let whole = |unit: &&UnitPlace| fetch.range(unit).end <= found.len();
        let part = |unit: &UnitPlace| (self.part(unit), found.slice(fetch.range(unit)));
        fetch.units.iter().filter(whole).map(part).collect()
    }
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
                && to - last.from <= FETCH_BYTES_MAX
                && last.units.len() < FETCH_UNITS_MAX =>
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

impl Fetch {
    fn damaged(&self, from: u64, to: u64, what: &str) -> ReadError {
        ReadError::Damaged { object: self.object.to_string(), from, to, what: what.to_owned() }
    }

    /// Returns where a unit lies in what was fetched.
    fn range(&self, unit: &UnitPlace) -> std::ops::Range<usize> {
        let at = (self.base + u64::from(unit.offset) - self.from) as usize;
        at..at + unit.sealed as usize
    }

    fn open_all(&self, opener: &Opener, found: &[u8]) -> Result<Opened, ReadError> {
        let mut inflater = Inflater::new();
        let open = |unit: &UnitPlace| Ok((*unit, self.open(opener, &mut inflater, unit, found)?));
        self.units.iter().map(open).collect()
    }

    fn open(
        &self,
        opener: &Opener,
        inflater: &mut Inflater,
        unit: &UnitPlace,
        found: &[u8],
    ) -> Result<Bytes, ReadError> {
        let from = self.base + u64::from(unit.offset);
        let sealed = found.get(self.range(unit)).unwrap_or(&[]);
        open_unit(&self.id, opener, inflater, unit.number, &unit.row(), sealed)
            .map_err(|what| self.damaged(from, from + u64::from(unit.sealed), what.0))
    }
}
