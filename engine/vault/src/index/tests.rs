//! The index against a list of everything that was ever added.

use super::*;
use proptest::prelude::*;

/// One addition: version, volume, first sector, end, content.
type Added = (Version, VolumeIndex, u64, u64, Option<(u32, u32, u8)>);

/// The border between two partitions, so that both and their ends are met.
const BORDER: u64 = PARTITION_SECTORS;
/// How far from the border content is put: a few granules, so that versions meet.
const NEAR: u64 = 4 * GRANULE_SECTORS;
/// How far zeros reach: further than is kept by granule.
const FAR: u64 = 2 * WIDE_GRANULES * GRANULE_SECTORS;

/// What one sector shows, by the slowest and plainest way.
fn truth(added: &[Added], version: Version, volume: VolumeIndex, sector: u64) -> Option<(u32, u32, u64)> {
    let covers = |(at, of, first, end, _): &&Added| {
        *at <= version && *of == volume && *first <= sector && sector < *end
    };
    let (_, _, first, _, content) = added.iter().rev().find(covers)?;
    content.map(|(segment, unit, offset)| (segment, unit, u64::from(offset) + sector - first))
}

/// What one version adds.
#[derive(Clone, Debug)]
enum Change {
    /// Step from the end of the one before, length, and whether it is content.
    Near(Vec<(u64, u64, bool)>),
    /// Zeros from this far before the border to this far behind it.
    Far(u64, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let near = prop::collection::vec((0..60u64, 1..200u64, any::<bool>()), 1..12);
    let far = prop_oneof![Just(0), Just(FAR), 1..FAR];
    prop_oneof![4 => near.prop_map(Change::Near), 1 => (far.clone(), far).prop_map(|(a, b)| Change::Far(a, b))]
}

/// The extents of a version, none over another: first sector, end, whether it is content.
fn extents(change: &Change) -> Vec<(u64, u64, bool)> {
    match change {
        Change::Far(before, behind) => vec![(BORDER - before, BORDER + behind, false)],
        Change::Near(steps) => {
            let mut at = BORDER - NEAR;
            let extent = |(step, length, is_content): &(u64, u64, bool)| {
                let first = at + step;
                // Content stays within its granule.
                let space = if *is_content { GRANULE_SECTORS - first % GRANULE_SECTORS } else { u64::MAX };
                at = first + (*length).min(space);
                (first, at, *is_content)
            };
            steps.iter().map(extent).collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_shows_what_was_added_up_to_it(
        changes in prop::collection::vec(change(), 1..10),
        merge_min in prop::sample::select(vec![1usize, 3, 20, 10_000]),
        places in prop::collection::vec((0..2 * NEAR, 1..300u64), 9),
    ) {
        let mut index = Index { merge_min, ..Index::default() };
        let mut added: Vec<Added> = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let version = Version::new(number as u64 / 2 + 1, number as u16 % 2);
            let volume = VolumeIndex(u16::from(number % 4 == 3));
            for (unit, (first, end, is_content)) in extents(change).into_iter().enumerate() {
                let content = is_content.then_some((number as u32, unit as u32, (unit % 3) as u8));
                let source =
                    content.map_or(Source::Zero, |(_, unit, offset)| Source::Unit { unit, offset });
                if first < end {
                    let row = ExtentRow { volume, span: 0, first, sectors: end - first, source };
                    index.add(version, number as u32, &row);
                    added.push((version, volume, first, end, content));
                }
            }
        }
        if changes.len() % 2 == 0 {
            index.partitions.values_mut().for_each(Partition::merge);
        }
        for (at, (first, sectors)) in places.iter().enumerate() {
            let version = Version::new(at as u64 / 2 + 1, at as u16 % 2);
            let (first, end) = (BORDER - NEAR + first, BORDER - NEAR + first + sectors);
            for volume in [VolumeIndex(0), VolumeIndex(1)] {
                let found = index.find(version, volume, first, end);
                let mut shown = BTreeMap::new();
                for part in &found {
                    for sector in 0..part.sectors {
                        let content = (part.segment, part.unit, part.offset + sector);
                        prop_assert!(shown.insert(part.first + sector, content).is_none(), "found twice");
                    }
                }
                prop_assert!(found.is_sorted_by_key(|part| part.first), "in address order");
                for sector in first..end {
                    let wanted = truth(&added, version, volume, sector);
                    prop_assert_eq!(shown.remove(&sector), wanted, "sector {}", sector);
                }
                prop_assert!(shown.is_empty(), "nothing outside the range");
            }
        }
    }
}
