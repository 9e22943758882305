//! Maps damaged units to the points and ranges that need them, by asking the index at as few points as will do.
//!
//! Behind its own slot a segment only ever loses: what is visible of it at one point is a superset of what is
//! visible at a later one. So two points that see the same have nothing between them to ask.

use super::report::Hit;
use crate::error::ReadError;
use crate::fold::Spans;
use crate::index::{UnitPlace, Version};
use crate::log::Volumes;
use crate::reader::{Inner, PointId};
use redoubt_core::VolumeIndex;
use redoubt_core::planted::{self, Bug};
use std::ops::Range;

/// Sectors looked up at once, 256 MiB of them: bounds what a question about a whole disk holds.
const LOOKUP_SECTORS: u64 = 1 << 19;

/// Sectors of volumes, sorted, none touching the next.
pub(super) type Ranges = Vec<(VolumeIndex, Range<u64>)>;

/// A version at which somebody looks: a point, or the newest state.
pub(super) struct Sight {
    pub(super) id: PointId,
    pub(super) volumes: Volumes,
}

impl Sight {
    fn version(&self) -> Version {
        Version::new(self.id.slot, self.id.ordinal)
    }
}

/// Units that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bad {
    /// Between the first of these versions and the last their segment was written; behind it only ever loses.
    pub(super) first: Version,
    pub(super) last: Version,
    pub(super) of: Of,
    pub(super) which: Which,
}

/// What holds the units.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Segment(u128),
    /// Whatever lies behind the record of this slot.
    Slot(u64),
}

/// Where a segment wrote something, and the version of it.
pub(super) type Written = (Version, VolumeIndex, Range<u64>);

impl Bad {
    /// Units that one slot wrote.
    pub(super) fn in_slot(slot: u64, of: Of, which: Which) -> Bad {
        Bad { first: Version::new(slot, 0), last: Version::new(slot, u16::MAX), of, which }
    }

    /// Units of a segment whose spans have these versions.
    pub(super) fn in_segment(uuid: u128, spans: &Spans, which: Which) -> Bad {
        let of = Of::Segment(uuid);
        match spans {
            Spans::Of(slot) => Bad::in_slot(*slot, of, which),
            Spans::Each(versions) => {
                let first = versions.first().copied().unwrap_or_default();
                Bad { first, last: versions.last().copied().unwrap_or(first), of, which }
            }
        }
    }
}

/// Which units of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Unit(u32),
    /// Those that end behind this byte of the object.
    Behind(u64),
}

impl Bad {
    fn holds(&self, unit: &UnitPlace) -> bool {
        let base = unit.segment.inline().map_or(0, |(_, base)| base);
        let is_there = match self.of {
            Of::Segment(uuid) => unit.segment.uuid == uuid,
            Of::Slot(of) => unit.segment.inline().is_some_and(|(slot, _)| slot == of),
        };
        is_there
            && match self.which {
                Which::Unit(number) => unit.number == number,
                Which::Behind(length) => base + u64::from(unit.offset) + u64::from(unit.sealed) > length,
            }
    }
}

/// What a damaged place takes.
#[derive(Default)]
pub(super) struct Mapped {
    pub(super) hits: Vec<Hit>,
    pub(super) newest: Ranges,
}

/// Maps one damaged place. `rows` are what its segment wrote with it; none if that is not known. The last of
/// `sights` is the newest state.
pub(super) async fn map(
    inner: &Inner,
    sights: &[Sight],
    bad: Bad,
    rows: Option<&[Written]>,
) -> Result<Mapped, ReadError> {
    let from = sights.partition_point(|sight| sight.version() < bad.first);
    let own = sights.partition_point(|sight| sight.version() < bad.last);
    let mut seen: Vec<(usize, Ranges)> = Vec::new();
    // Its own versions first, point by point: there each one sees more of the segment than the one before.
    // Then the first behind them, which sees all that the segment wrote.
    for (at, sight) in sights.iter().enumerate().take(own + 1).skip(from) {
        let candidates = match rows {
            Some(rows) => rows_until(rows, sight.version()),
            None => everything(&sight.volumes),
        };
        seen.push((at, look(inner, sight, bad, &candidates).await?));
    }
    let Some((first, begin)) = seen.last().cloned() else { return Ok(Mapped::default()) };
    let last = sights.len() - 1;
    if first < last {
        let end = look(inner, &sights[last], bad, &begin).await?;
        seen.push((last, end.clone()));
        let mut open = vec![(first, begin, last, end)];
        while let Some((low, above, high, below)) = open.pop() {
            if high - low < 2 || above == below || planted::active(Bug::ScrubGuessesBetween) {
                continue;
            }
            let middle = low + (high - low) / 2;
            let between = look(inner, &sights[middle], bad, &above).await?;
            seen.push((middle, between.clone()));
            open.push((low, above, middle, between.clone()));
            open.push((middle, between, high, below));
        }
    }
    seen.sort_by_key(|(at, _)| *at);
    Ok(tell(sights, &seen))
}

/// Joins neighbours that miss the same; between two that were asked all miss what both miss.
fn tell(sights: &[Sight], seen: &[(usize, Ranges)]) -> Mapped {
    let newest_state = sights.len() - 1;
    let mut mapped = Mapped::default();
    let mut at = 0;
    while at < seen.len() {
        let (first, ranges) = &seen[at];
        let same = seen[at..].iter().take_while(|(_, other)| other == ranges).count();
        at += same;
        let last = seen[at - 1].0;
        if last == newest_state {
            mapped.newest.clone_from(ranges);
        }
        let last = last.min(newest_state.saturating_sub(1));
        if ranges.is_empty() || *first > last || *first == newest_state {
            continue;
        }
        for volume in volumes_of(ranges) {
            let of = |(index, range): &(VolumeIndex, Range<u64>)| (*index == volume).then(|| range.clone());
            let lost = Some((volume, ranges.iter().filter_map(of).collect()));
            mapped.hits.push(Hit { first: sights[*first].id, last: sights[last].id, lost });
        }
    }
    mapped
}

fn volumes_of(ranges: &Ranges) -> Vec<VolumeIndex> {
    let mut volumes: Vec<_> = ranges.iter().map(|(volume, _)| *volume).collect();
    volumes.dedup();
    volumes
}

fn rows_until(rows: &[Written], version: Version) -> Ranges {
    let until = rows.iter().filter(|(of, ..)| *of <= version);
    joined(until.map(|(_, volume, sectors)| (*volume, sectors.clone())).collect())
}

fn everything(volumes: &Volumes) -> Ranges {
    volumes.iter().map(|(volume, info)| (*volume, 0..info.sectors.0)).collect()
}

/// Sorts ranges and joins those that touch.
fn joined(mut ranges: Ranges) -> Ranges {
    ranges.sort_by_key(|(volume, range)| (*volume, range.start));
    let mut joined: Ranges = Vec::new();
    for (volume, range) in ranges {
        match joined.last_mut() {
            Some((of, last)) if *of == volume && last.end >= range.start => {
                last.end = last.end.max(range.end)
            }
            _ => joined.push((volume, range)),
        }
    }
    joined
}

/// Returns which of the candidates come from the damaged place, as one point sees them.
async fn look(inner: &Inner, sight: &Sight, bad: Bad, candidates: &Ranges) -> Result<Ranges, ReadError> {
    let version = sight.version();
    let mut hit = Vec::new();
    for (volume, range) in candidates {
        let size = sight.volumes.get(volume).map_or(0, |info| info.sectors.0);
        let (mut from, end) = (range.start, range.end.min(size));
        while from < end {
            let to = end.min(from + LOOKUP_SECTORS);
            let found = inner.find(version, *volume, from..to).await?;
            let parts = found.iter().filter(|part| bad.holds(&part.unit));
            hit.extend(parts.map(|part| (*volume, part.first..part.first + part.sectors)));
            from = to;
        }
    }
    Ok(joined(hit))
}
