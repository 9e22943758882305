//! Where two points differ, by where their content lies: the same place in the same unit is the same content.
//!
//! What is *not* here: bytes. A write of what was there already counts as a change.

use crate::index::Found;
use redoubt_core::Extent;
use std::ops::Range;

/// Where a sector's content lies: segment, unit, sector in it. Zeros lie nowhere.
type Place = Option<(u128, u32, u64)>;

/// One side of a comparison, asked from the front to the back.
struct Side<'a>(&'a [Found]);

impl Side<'_> {
    /// Returns the place of sector `at`, and up to where what follows is one piece with it.
    fn at(&mut self, at: u64, end: u64) -> (Place, u64) {
        while let [first, rest @ ..] = self.0 {
            if first.first + first.sectors > at {
                break;
            }
            self.0 = rest;
        }
        match self.0 {
            [] => (None, end),
            [next, ..] if next.first > at => (None, next.first.min(end)),
            [here, ..] => {
                let place = (here.unit.segment.uuid, here.unit.number, here.offset + at - here.first);
                (Some(place), (here.first + here.sectors).min(end))
            }
        }
    }
}

/// Adds the parts of `sectors` that differ, merged where they touch.
pub(crate) fn compare(sectors: Range<u64>, a: &[Found], b: &[Found], changed: &mut Vec<Extent>) {
    let (mut a, mut b, mut at) = (Side(a), Side(b), sectors.start);
    while at < sectors.end {
        let ((of_a, end_a), (of_b, end_b)) = (a.at(at, sectors.end), b.at(at, sectors.end));
        let end = end_a.min(end_b);
        if of_a != of_b {
            match changed.last_mut() {
                Some(last) if last.end() == at => last.sectors.0 += end - at,
                _ => changed.push(Extent::new(at, end - at)),
            }
        }
        at = end;
    }
}
