//! Sets of sectors, kept as ranges that do not touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// Sectors of volumes, as (volume, first) to the sector after the last.
pub(crate) type Ranges = BTreeMap<(u16, u64), u64>;

/// Adds a range and returns the parts of it that were not there.
pub(crate) fn add(ranges: &mut Ranges, volume: u16, sectors: Range<u64>) -> Vec<Range<u64>> {
    let before = ranges.range((volume, 0)..(volume, sectors.start)).next_back();
    let begin =
        before.filter(|(_, end)| **end >= sectors.start).map_or(sectors.start, |((_, first), _)| *first);
    let touched = ranges.range((volume, begin)..=(volume, sectors.end)).map(|(key, end)| (key.1, *end));
    let (mut at, mut whole, mut gaps) = (sectors.start, sectors.clone(), Vec::new());
    for (first, end) in touched.collect::<Vec<_>>() {
        if first > at {
            gaps.push(at..first);
        }
        at = at.max(end);
        whole = whole.start.min(first)..whole.end.max(end);
        ranges.remove(&(volume, first));
    }
    if at < sectors.end {
        gaps.push(at..sectors.end);
    }
    ranges.insert((volume, whole.start), whole.end);
    gaps
}

/// Takes a range out.
pub(crate) fn cut(ranges: &mut Ranges, volume: u16, sectors: Range<u64>) {
    let overlapping =
        ranges.range((volume, 0)..(volume, sectors.end)).filter(|(_, end)| **end > sectors.start);
    for ((_, first), end) in overlapping.map(|(key, end)| (*key, *end)).collect::<Vec<_>>() {
        ranges.remove(&(volume, first));
        if first < sectors.start {
            ranges.insert((volume, first), sectors.start);
        }
        if end > sectors.end {
            ranges.insert((volume, sectors.end), end);
        }
    }
}
