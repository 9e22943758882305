//! The volatile cache of a disk: which contents of a sector may survive a power loss.
//!
//! A sector keeps every content since its durable one, in the order in which they took effect. A flush
//! promises of each sector the newest content whose write had *returned* when the flush was asked for.
//! What was still under way then, or came later, stays volatile: on power loss any content from the
//! durable one on may be found, sector by sector. A flush that fails makes nothing durable, and what it
//! covered is forsaken: a page cache marks such pages clean, and no later flush writes them again.
//!
//! Invariants
//! - DC-1 A sector is listed only while it has a content that is not durable.
//! - DC-2 Nothing older than a promised content is ever found again.
//!
//! What is *not* here: what a read sees, time, errors.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// Names a write; later ones have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId(u64);

struct Version {
    write: WriteId,
    content: Bytes,
    has_returned: bool,
    /// A flush that covered it failed: no later flush makes it durable.
    is_forsaken: bool,
}

struct Cached {
    durable: Bytes,
    versions: Vec<Version>,
}

/// What a flush covers: per sector, the write that it makes durable.
pub(super) struct Promise(Vec<(u64, WriteId)>);

/// The sectors whose newest content is not durable.
#[derive(Default)]
pub(super) struct Cache {
    sectors: BTreeMap<u64, Cached>,
    writes: u64,
}

impl Cache {
    /// Returns the name of a new write.
    pub(super) fn begin(&mut self) -> WriteId {
        self.writes += 1;
        WriteId(self.writes)
    }

    /// A sector gets new content; `before` is what it held, durable if the sector is not listed.
    pub(super) fn put(&mut self, sector: u64, write: WriteId, before: Bytes, content: Bytes) {
        let cached =
            self.sectors.entry(sector).or_insert_with(|| Cached { durable: before, versions: Vec::new() });
        cached.versions.push(Version { write, content, has_returned: false, is_forsaken: false });
    }

    /// The write returned to its caller; `durable` if it was asked to be.
    pub(super) fn returned(&mut self, write: WriteId, sectors: Range<u64>, durable: bool) {
        let mut hardened = Vec::new();
        for (sector, cached) in self.sectors.range_mut(sectors) {
            for version in cached.versions.iter_mut().filter(|version| version.write == write) {
                version.has_returned = true;
                hardened.push((*sector, write));
            }
        }
        if durable {
            self.harden(&Promise(hardened));
        }
    }

    /// Returns what a flush that is asked for now covers.
    pub(super) fn promise(&self) -> Promise {
        let covers = |version: &&Version| version.has_returned && !version.is_forsaken;
        let newest = |cached: &Cached| Some(cached.versions.iter().rfind(covers)?.write);
        Promise(self.sectors.iter().filter_map(|(sector, c)| Some((*sector, newest(c)?))).collect())
    }

    /// The flush succeeded.
    pub(super) fn harden(&mut self, promise: &Promise) {
        for (sector, write) in &promise.0 {
            let Some(cached) = self.sectors.get_mut(sector) else { continue };
            // Another flush or a durable write may have gone further already (DC-2).
            let Some(at) = cached.versions.iter().position(|version| version.write == *write) else {
                continue;
            };
            cached.durable =
                cached.versions.drain(..=at).next_back().map_or(Bytes::new(), |last| last.content);
            if cached.versions.is_empty() {
                self.sectors.remove(sector);
            }
        }
    }

    /// The flush failed: the system forgets that what it covered is not durable. Reads go on to show it.
    pub(super) fn forsake(&mut self, promise: &Promise) {
        for (sector, write) in &promise.0 {
            let Some(cached) = self.sectors.get_mut(sector) else { continue };
            for version in cached.versions.iter_mut().filter(|version| version.write <= *write) {
                version.is_forsaken = true;
            }
        }
    }

    /// The power is gone. Returns the sectors of which `pick` chose another content than the newest:
    /// it is given how many there are, and 0 is the durable one.
    pub(super) fn power_loss(&mut self, mut pick: impl FnMut(u64) -> u64) -> Vec<(u64, Bytes)> {
        let mut found = Vec::new();
        for (sector, mut cached) in std::mem::take(&mut self.sectors) {
            let chosen = pick(cached.versions.len() as u64 + 1) as usize;
            if chosen == 0 {
                found.push((sector, cached.durable));
            } else if chosen < cached.versions.len() {
                found.push((sector, cached.versions.swap_remove(chosen - 1).content));
            }
        }
        found
    }

    /// These sectors are durable as they are shown.
    pub(super) fn settle(&mut self, sectors: Range<u64>) {
        self.sectors.retain(|sector, _| !sectors.contains(sector));
    }

    /// The disk ends before this sector now.
    pub(super) fn cut(&mut self, end: u64) {
        self.sectors.split_off(&end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURABLE: &[u8] = b"0";

    fn put(cache: &mut Cache, content: &'static [u8]) -> WriteId {
        let write = cache.begin();
        cache.put(7, write, Bytes::from_static(DURABLE), Bytes::from_static(content));
        write
    }

    /// Every content that a power loss may leave in the sector; the newest is none.
    fn may_be_found(make: impl Fn() -> Cache) -> Vec<Option<Bytes>> {
        let mut bound = 1;
        let mut found = Vec::new();
        let mut at = 0;
        while at < bound {
            let left = make().power_loss(|count| {
                bound = count;
                at
            });
            found.push(left.first().map(|(_, content)| content.clone()));
            at += 1;
        }
        found
    }

    #[test]
    fn without_a_flush_any_content_may_be_found() {
        let found = may_be_found(|| {
            let mut cache = Cache::default();
            put(&mut cache, b"1");
            put(&mut cache, b"2");
            cache
        });
        assert_eq!(found, [Some(Bytes::from_static(b"0")), Some(Bytes::from_static(b"1")), None]);
    }

    #[test]
    fn a_flush_promises_what_had_returned_and_nothing_younger() {
        let found = may_be_found(|| {
            let mut cache = Cache::default();
            let first = put(&mut cache, b"1");
            put(&mut cache, b"2");
            cache.returned(first, 0..8, false);
            let promise = cache.promise();
            put(&mut cache, b"3");
            cache.harden(&promise);
            cache
        });
        assert_eq!(found, [Some(Bytes::from_static(b"1")), Some(Bytes::from_static(b"2")), None]);
    }

    #[test]
    fn a_write_under_way_is_not_promised_until_it_returns() {
        let mut cache = Cache::default();
        let write = put(&mut cache, b"1");
        let promise = cache.promise();
        cache.returned(write, 7..8, false);
        cache.harden(&promise);
        assert_eq!(cache.sectors.len(), 1, "it returned after the flush was asked for");
        let promise = cache.promise();
        cache.harden(&promise);
        assert!(cache.sectors.is_empty());
    }

    #[test]
    fn after_a_failed_flush_a_later_one_proves_nothing() {
        let found = may_be_found(|| {
            let mut cache = Cache::default();
            let write = put(&mut cache, b"1");
            cache.returned(write, 7..8, false);
            let failed = cache.promise();
            cache.forsake(&failed);
            let later = cache.promise();
            cache.harden(&later);
            cache
        });
        assert_eq!(found, [Some(Bytes::from_static(b"0")), None], "the old content may still be found");
        let mut cache = Cache::default();
        let write = put(&mut cache, b"1");
        cache.returned(write, 7..8, false);
        let failed = cache.promise();
        cache.forsake(&failed);
        let again = put(&mut cache, b"1");
        cache.returned(again, 7..8, false);
        let flushed = cache.promise();
        cache.harden(&flushed);
        assert!(cache.sectors.is_empty(), "written again it can be flushed");
    }

    #[test]
    fn an_older_flush_that_ends_late_takes_nothing_back() {
        let mut cache = Cache::default();
        let first = put(&mut cache, b"1");
        cache.returned(first, 7..8, false);
        let older = cache.promise();
        let second = put(&mut cache, b"2");
        cache.returned(second, 7..8, true);
        assert!(cache.sectors.is_empty(), "a durable write hardens its sector on return");
        cache.harden(&older);
        assert!(cache.power_loss(|_| 0).is_empty());
    }
}
