//! A cache bounded by bytes that forgets what was used least recently.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
struct Kept<V> {
    value: V,
    bytes: usize,
    /// When it was used last.
    used: u64,
}

#[derive(Debug)]
struct Cached<K, V> {
    bytes: usize,
    clock: u64,
    kept: BTreeMap<K, Kept<V>>,
    /// Each key once, with a time at or before its last use. A use costs no move here: whoever comes to the
    /// front and was used since goes back to the end.
    queue: VecDeque<(u64, K)>,
}

/// Least recently used values, `limit` bytes of them.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    limit: usize,
    cached: Mutex<Cached<K, V>>,
}

impl<K: Ord + Copy, V: Clone> Lru<K, V> {
    pub(crate) fn new(limit: usize) -> Lru<K, V> {
        let cached = Cached { bytes: 0, clock: 0, kept: BTreeMap::new(), queue: VecDeque::new() };
        Lru { limit, cached: Mutex::new(cached) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.clock += 1;
        let now = cached.clock;
        let kept = cached.kept.get_mut(key)?;
        kept.used = now;
        Some(kept.value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V, bytes: usize) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.clock += 1;
        let used = cached.clock;
        cached.bytes += bytes;
        match cached.kept.insert(key, Kept { value, bytes, used }) {
            Some(old) => cached.bytes -= old.bytes,
            None => cached.queue.push_back((used, key)),
        }
        cached.shrink(self.limit);
    }
}

impl<K: Ord + Copy, V> Cached<K, V> {
    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some((seen, key)) = self.queue.pop_front() else { return };
            match self.kept.get(&key).map(|kept| kept.used) {
                Some(used) if used != seen => self.queue.push_back((used, key)),
                _ => self.bytes -= self.kept.remove(&key).map_or(0, |kept| kept.bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_first_and_the_bound_holds() {
        let lru = Lru::new(30);
        (0..3).for_each(|key| lru.put(key, key, 10));
        assert_eq!(lru.get(&0), Some(0));
        lru.put(3, 3, 10);
        assert_eq!((0..4).map(|key| lru.get(&key)).collect::<Vec<_>>(), [Some(0), None, Some(2), Some(3)]);
        lru.put(0, 9, 20);
        assert_eq!((lru.get(&0), lru.get(&2), lru.get(&3)), (Some(9), None, Some(3)), "replaced and counted");
        lru.put(4, 4, 31);
        assert_eq!(lru.get(&4), None, "too large to keep");
    }
}
