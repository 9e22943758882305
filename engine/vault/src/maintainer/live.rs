//! Which units of which segments still show: what a fold keeps, and which segments it packs anew.
//!
//! Invariants
//! - LV-1 What shows of a segment is counted by sectors: each has its share of its unit's sealed bytes.
//! - LV-2 A segment is packed anew if less than half of its object shows, or if it is small; nothing else is.

use crate::fold::FoldRow;
use crate::index::{Held, SegmentPlace, UnitPlace};
use redoubt_core::SECTOR_BYTES;
use std::collections::{BTreeMap, BTreeSet};

/// Segments of which less shows are packed anew: to free a byte writes one at most. What shows is counted by sectors: of
/// a unit of 64 KiB that is kept for 4 KiB nearly all can be given back. What is written in all stays far below one and
/// a half times what changed (P6).
const LIVE_PERCENT_MIN: u64 = 50;
/// Smaller segments are packed anew in any case: their objects and names cost as much as that. Packing all that is small
/// for its kind would write the changes of a quiet machine twice.
const SMALL_BYTES: u64 = 4 << 10;

/// Units of one segment that show.
#[derive(Debug, Default)]
struct Units {
    /// One bit each, by number.
    seen: Vec<u64>,
    /// Their sealed bytes.
    sealed: u64,
    /// Sealed bytes of what shows of them, about: packed anew it would take these.
    worth: u64,
}

/// Some 100 bytes for each segment that anything of a stretch lies in, and a bit for each unit.
#[derive(Debug, Default)]
pub(super) struct Live {
    segments: BTreeMap<SegmentPlace, Units>,
}

impl Live {
    /// So many sectors of a unit show, which were not added before.
    pub(super) fn add(&mut self, unit: &UnitPlace, sectors: u8) {
        let units = self.segments.entry(unit.segment).or_default();
        let (word, bit) = (unit.number as usize / 64, 1 << (unit.number % 64));
        if units.seen.len() <= word {
            units.seen.resize(word + 1, 0);
        }
        if units.seen[word] & bit == 0 {
            units.seen[word] |= bit;
            units.sealed += u64::from(unit.sealed);
        }
        let plain = u64::from(unit.plain).max(1);
        units.worth += u64::from(sectors) * SECTOR_BYTES * u64::from(unit.sealed) / plain;
    }

    /// Tells whether anything of a segment shows.
    pub(super) fn has(&self, segment: &SegmentPlace) -> bool {
        self.segments.contains_key(segment)
    }

    /// Returns the sealed bytes of the units of a segment that show.
    pub(super) fn bytes(&self, segment: &SegmentPlace) -> u64 {
        self.segments.get(segment).map_or(0, |units| units.sealed)
    }

    /// Returns about the bytes that would be left of a segment if all of it that shows were packed anew (LV-1).
    fn worth(&self, segment: &SegmentPlace) -> u64 {
        self.segments.get(segment).map_or(0, |units| units.worth)
    }
}

/// Decides which segments are packed anew (LV-2). A single small one that was packed before has nothing to be packed with.
pub(super) fn to_pack(rows: &[FoldRow], live: &Live) -> BTreeSet<SegmentPlace> {
    let is_poor = |row: &FoldRow| live.worth(&row.place) * 100 < row.length * LIVE_PERCENT_MIN;
    let is_small = |row: &FoldRow| row.length < SMALL_BYTES;
    let chosen: Vec<&FoldRow> = rows.iter().filter(|row| is_poor(row) || is_small(row)).collect();
    match chosen[..] {
        [one] if one.place.held == Held::Packed && is_small(one) => BTreeSet::new(),
        _ => chosen.into_iter().map(|row| row.place).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Spans;
    use proptest::prelude::*;

    /// Plain bytes of a full unit, and the sectors in it.
    const PLAIN: u32 = 64 << 10;
    const SECTORS: u64 = 128;

    fn segment(uuid: u128, held: Held) -> SegmentPlace {
        SegmentPlace { uuid, epoch: 1, dek: 1, held }
    }

    fn row(place: SegmentPlace, length: u64) -> FoldRow {
        let spans = Spans::Each(vec![crate::index::Version::new(1, 0)]);
        FoldRow { place, length, tail: 0, units: 1, root: [0; 32], digest: [0; 32], spans }
    }

    fn unit(segment: SegmentPlace, number: u32, sealed: u32, plain: u32) -> UnitPlace {
        UnitPlace { segment, number, offset: 0, sealed, plain, codec: 0 }
    }

    /// Adds so many sectors of a segment whose units are full and sealed to `sealed` bytes each.
    fn show(live: &mut Live, segment: SegmentPlace, sealed: u32, sectors: u64) {
        for number in 0..sectors.div_ceil(SECTORS) {
            let some = (sectors - number * SECTORS).min(SECTORS);
            live.add(&unit(segment, number as u32, sealed, PLAIN), some as u8);
        }
    }

    #[test]
    fn one_sector_less_than_half_of_a_segment_is_packed_anew_and_half_of_it_is_not() {
        let place = segment(1, Held::Own);
        // Compressed to an eighth: a sector is worth 64 bytes. Two units make the object, as if it were all of it.
        let (sealed, length) = (PLAIN / 8, u64::from(PLAIN) / 4);
        for (sectors, is_packed) in [(1, true), (127, true), (128, false), (129, false), (256, false)] {
            let mut live = Live::default();
            show(&mut live, place, sealed, sectors);
            assert_eq!(live.worth(&place), sectors * 64);
            assert_eq!(!to_pack(&[row(place, length)], &live).is_empty(), is_packed, "{sectors} sectors");
        }
        // Half of an odd length is not enough.
        let mut live = Live::default();
        show(&mut live, place, sealed, 128);
        assert!(to_pack(&[row(place, length + 1)], &live).contains(&place));
    }

    #[test]
    fn sectors_spread_over_all_units_are_worth_no_more_than_together() {
        let place = segment(1, Held::Own);
        let (mut spread, mut together) = (Live::default(), Live::default());
        (0..16).for_each(|number| spread.add(&unit(place, number, PLAIN, PLAIN), 8));
        show(&mut together, place, PLAIN, SECTORS);
        assert_eq!((spread.worth(&place), together.worth(&place)), (64 << 10, 64 << 10));
        // Each of its units shows, and a sixteenth of it is all that is needed.
        assert_eq!(spread.bytes(&place), 16 * u64::from(PLAIN));
        assert!(to_pack(&[row(place, 16 * u64::from(PLAIN))], &spread).contains(&place));
    }

    #[test]
    fn a_segment_below_4_kib_is_packed_anew_however_much_of_it_shows() {
        let place = segment(1, Held::Inline { slot: 1, base: 200 });
        for (length, is_packed) in [(4095, true), (4096, false)] {
            let mut live = Live::default();
            live.add(&unit(place, 0, length, length.next_multiple_of(512)), 8);
            live.add(&unit(place, 1, length, 512), 1);
            assert!(live.worth(&place) > u64::from(length));
            assert_eq!(!to_pack(&[row(place, length.into())], &live).is_empty(), is_packed, "{length} bytes");
        }
    }

    #[test]
    fn a_single_small_segment_that_was_packed_before_stays_and_two_become_one() {
        let (a, b) = (segment(1, Held::Packed), segment(2, Held::Packed));
        let mut live = Live::default();
        [a, b].iter().for_each(|place| show(&mut live, *place, 3000, SECTORS));
        assert!(to_pack(&[row(a, 3000)], &live).is_empty());
        assert_eq!(to_pack(&[row(a, 3000), row(b, 3000)], &live), [a, b].into());
        // What a writer made has a slot to give back, and a poor one space.
        let own = segment(3, Held::Own);
        show(&mut live, own, 3000, SECTORS);
        assert_eq!(to_pack(&[row(own, 3000)], &live), [own].into());
        assert_eq!(to_pack(&[row(a, 8000)], &live), [a].into());
    }

    proptest! {
        #[test]
        fn the_worth_is_that_of_all_sectors_whatever_their_order(
            sealed in 17u32..70_000,
            mut parts in proptest::collection::vec((0u32..40, 1u8..=32), 1..200),
        ) {
            let place = segment(1, Held::Own);
            // No more sectors of a unit than there are.
            let mut shown = BTreeMap::new();
            parts.retain(|(number, sectors)| {
                let sum = shown.entry(*number).or_insert(0u64);
                let has_room = *sum + u64::from(*sectors) <= SECTORS;
                *sum += if has_room { u64::from(*sectors) } else { 0 };
                has_room
            });
            let add = |parts: &[(u32, u8)]| {
                let mut live = Live::default();
                parts.iter().for_each(|(number, sectors)| live.add(&unit(place, *number, sealed, PLAIN), *sectors));
                live
            };
            let live = add(&parts);
            let sectors: u64 = shown.values().sum();
            let exact = sectors * u64::from(sealed) / SECTORS;
            // A byte at most is lost for each part.
            prop_assert!(live.worth(&place) <= exact && live.worth(&place) + parts.len() as u64 >= exact);
            prop_assert!(live.worth(&place) <= live.bytes(&place));
            prop_assert_eq!(live.bytes(&place), shown.len() as u64 * u64::from(sealed));
            parts.reverse();
            prop_assert_eq!(add(&parts).worth(&place), live.worth(&place));
            // LV-2, said the other way round.
            let length = live.bytes(&place);
            let is_kept = 2 * live.worth(&place) >= length && length >= 4096;
            prop_assert_eq!(to_pack(&[row(place, length)], &live).is_empty(), is_kept);
        }
    }
}
