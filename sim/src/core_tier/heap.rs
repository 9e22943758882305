//! The event heap: what is due next, in virtual time. Equal times come in the order in which they were asked for.
//!
//! What is *not* here: what an event means ([`super::world`]).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One entry: when, which one of equal times, what.
struct Due<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Ord for Due<E> {
    /// The earliest is the greatest: the heap hands out the greatest first.
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
    due: BinaryHeap<Due<E>>,
    numbers: u64,
}

impl<E> Heap<E> {
    pub(super) fn new() -> Heap<E> {
        Heap { due: BinaryHeap::with_capacity(256), numbers: 0 }
    }

    /// Asks for an event at a time.
    pub(super) fn push(&mut self, at: u64, event: E) {
        self.numbers += 1;
        self.due.push(Due { at, number: self.numbers, event });
    }

    /// Brings some events forward to a time, in their order.
    pub(super) fn hurry(&mut self, at: u64, is_meant: impl Fn(&E) -> bool) {
        let mut all = std::mem::take(&mut self.due).into_vec();
        all.iter_mut().filter(|due| is_meant(&due.event)).for_each(|due| due.at = due.at.min(at));
        self.due = all.into();
    }

    /// Takes the earliest event.
    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        self.due.pop().map(|due| (due.at, due.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_those_of_one_time_as_they_were_asked_for() {
        let mut heap = Heap::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b'), (5, 'e')] {
            heap.push(at, event);
        }
        let order: Vec<char> = std::iter::from_fn(|| heap.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd', 'e']);
        [(9, 'y'), (7, 'x'), (8, 'z')].into_iter().for_each(|(at, event)| heap.push(at, event));
        heap.hurry(6, |event| *event != 'x');
        let order: Vec<char> = std::iter::from_fn(|| heap.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, ['y', 'z', 'x']);
    }
}
