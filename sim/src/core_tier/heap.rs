//! The event heap: what is due next, in virtual time. Equal times come in the order in which they were asked for.
//!
//! Nearly everything is due within a second, so near times lie in a wheel of slots, each sorted when its time comes;
//! only what is farther away lies in a heap proper.
//!
//! Invariants
//! - EH-1 Events come in the order of their times, those of one time in the order in which they were asked for.
//! - EH-2 What is far lies behind all slots of the wheel.
//!
//! What is *not* here: what an event means ([`super::world`]).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Nanoseconds of a slot, as a power of two: about 1 ms.
const SHIFT: u32 = 20;
/// Slots of the wheel, a quarter of a second: few, so that all of them stay in the nearest cache.
const SLOTS: u64 = 1 << 8;

/// One entry: when, which one of equal times, what.
struct Due<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Due<E> {
    fn slot(&self) -> u64 {
        self.at >> SHIFT
    }
}

impl<E> Ord for Due<E> {
    /// The earliest is the greatest: a heap hands out the greatest first, and a sorted slot its last.
    fn cmp(&self, other: &Due<E>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Due<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Due<E>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Due<E> {}

/// Events by time, in nanoseconds.
pub(super) struct Heap<E> {
    /// The slot whose time it is, the earliest event last.
    current: Vec<Due<E>>,
    at_slot: u64,
    slots: Vec<Vec<Due<E>>>,
    /// One bit for each slot that has events.
    filled: Vec<u64>,
    far: BinaryHeap<Due<E>>,
    numbers: u64,
}

impl<E> Heap<E> {
    pub(super) fn new() -> Heap<E> {
        Heap {
            current: Vec::new(),
            at_slot: 0,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            filled: vec![0; SLOTS as usize / 64],
            far: BinaryHeap::new(),
            numbers: 0,
        }
    }

    /// Asks for an event at a time.
    pub(super) fn push(&mut self, at: u64, event: E) {
        self.numbers += 1;
        self.put(Due { at, number: self.numbers, event });
    }

    fn put(&mut self, due: Due<E>) {
        let slot = due.slot();
        if slot <= self.at_slot {
            let at = self.current.partition_point(|other| *other < due);
            self.current.insert(at, due);
        } else if slot < self.at_slot + SLOTS {
            let place = (slot % SLOTS) as usize;
            self.filled[place / 64] |= 1 << (place % 64);
            self.slots[place].push(due);
        } else {
            self.far.push(due);
        }
    }

    /// Takes the earliest event.
    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        while self.current.is_empty() {
            self.at_slot = self.next_filled().or_else(|| self.far.peek().map(Due::slot))?;
            let place = (self.at_slot % SLOTS) as usize;
            self.filled[place / 64] &= !(1 << (place % 64));
            std::mem::swap(&mut self.current, &mut self.slots[place]);
            self.current.sort_unstable();
            while self.far.peek().is_some_and(|due| due.slot() < self.at_slot + SLOTS) {
                self.far.pop().into_iter().for_each(|due| self.put(due));
            }
        }
        self.current.pop().map(|due| (due.at, due.event))
    }

    /// Returns the next slot of the wheel that has events.
    fn next_filled(&self) -> Option<u64> {
        let from = self.at_slot + 1;
        let (words, first) = (self.filled.len(), (from % SLOTS) as usize);
        let ahead = self.filled[first / 64] >> (first % 64);
        if ahead != 0 {
            return Some(from + u64::from(ahead.trailing_zeros()));
        }
        // Once around; the last word is the first one again, for the bits below the begin.
        let mut distance = 64 - first as u64 % 64;
        for step in 1..=words {
            let word = self.filled[(first / 64 + step) % words];
            if word != 0 {
                return Some(from + distance + u64::from(word.trailing_zeros()));
            }
            distance += 64;
        }
        None
    }

    /// Brings some events forward to a time, in their order.
    pub(super) fn hurry(&mut self, at: u64, is_meant: impl Fn(&E) -> bool) {
        let mut all = std::mem::take(&mut self.current);
        all.extend(self.slots.iter_mut().flat_map(std::mem::take));
        all.extend(std::mem::take(&mut self.far));
        self.filled.fill(0);
        for mut due in all {
            if is_meant(&due.event) {
                due.at = due.at.min(at);
            }
            self.put(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_come_by_time_and_those_of_one_time_as_they_were_asked_for() {
        let mut heap = Heap::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b'), (5, 'e')] {
            heap.push(at, event);
        }
        let order: Vec<char> = std::iter::from_fn(|| heap.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd', 'e']);
        [(9, 'y'), (u64::MAX, 'x'), (8, 'z')].into_iter().for_each(|(at, event)| heap.push(at, event));
        heap.hurry(6, |event| *event != 'x');
        let order: Vec<char> = std::iter::from_fn(|| heap.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, ['y', 'z', 'x']);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_heap_whatever_the_distances(
            steps in prop::collection::vec((0u32..36, any::<u64>(), 0usize..3), 1..300)
        ) {
            let (mut heap, mut model) = (Heap::new(), std::collections::BTreeMap::new());
            let (mut now, mut number) = (0u64, 0u64);
            for (bits, distance, pops) in steps {
                number += 1;
                let at = now + (distance & ((1 << bits) - 1));
                heap.push(at, number);
                model.insert((at, number), ());
                for _ in 0..pops {
                    let expected = model.pop_first().map(|((at, number), ())| (at, number));
                    prop_assert_eq!(heap.pop(), expected);
                    now = expected.map_or(now, |(at, _)| at);
                }
            }
            let rest: Vec<_> = std::iter::from_fn(|| heap.pop()).collect();
            prop_assert_eq!(rest, model.into_keys().collect::<Vec<_>>());
        }
    }
}
