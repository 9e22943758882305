//! The two phases of a point's end, and the end of pins.

use super::{BEGIN, Catalogue, ids, point};
use crate::change::MarkerKind;
use crate::maintenance::{
    Ladder, PIN_DEAD_AFTER, PINS_WATCHED_MAX, POINTS_MAX, PinListing, PinWatch, Rule, Which,
};
use crate::time::{Instant, WallTime};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

fn newest(count: u32) -> Ladder {
    Ladder::new(vec![Rule::Newest { count, which: Which::Any }])
}

fn crash(id: u64) -> crate::maintenance::NewPoint<u64> {
    point(id, MarkerKind::Crash, BEGIN)
}

#[test]
fn a_point_is_retired_for_one_version_and_then_gone() {
    let mut catalogue = Catalogue::default();
    catalogue.publish(&[crash(1), crash(2)], BEGIN, &newest(9));
    let turn = catalogue.publish(&[], BEGIN, &newest(1));
    assert_eq!((ids(&turn.next.live), ids(&turn.next.retired), turn.gone), (vec![2], vec![1], vec![]));
    assert_eq!(catalogue.points.needed(), [1, 2]);
    let turn = catalogue.publish(&[], BEGIN, &newest(1));
    assert_eq!((ids(&turn.next.retired), turn.gone, turn.is_new), (vec![], vec![1], true));
    assert!(!catalogue.publish(&[], BEGIN, &newest(1)).is_new);
}

#[test]
fn a_listing_from_before_the_version_frees_nothing() {
    let mut catalogue = Catalogue::default();
    catalogue.publish(&[crash(1), crash(2)], BEGIN, &newest(1));
    let stale = PinListing { after: catalogue.version - 1, points: BTreeSet::new() };
    let turn = catalogue.points.next(catalogue.version, &stale, &[], WallTime(BEGIN), &newest(1));
    assert_eq!((ids(&turn.next.retired), turn.gone), (vec![1], vec![]));
}

#[test]
fn what_was_retired_never_lives_again() {
    let mut catalogue = Catalogue::default();
    catalogue.publish(&[crash(1), crash(2)], BEGIN, &newest(1));
    let turn = catalogue.publish(&[], BEGIN, &newest(9));
    assert_eq!((ids(&turn.next.live), turn.gone), (vec![2], vec![1]), "a pin may have been refused already");
}

proptest! {
    /// Against a history of every version: nothing goes that is pinned, newest, or was not retired before.
    #[test]
    fn pinned_points_stay(ops in prop::collection::vec((0u8..6, 0u64..40), 1..120), count in 0u32..4) {
        let (mut catalogue, mut next) = (Catalogue::default(), 1);
        for (op, number) in ops {
            let before = catalogue.points.clone();
            let at = (number as usize) % before.live.len().max(1);
            match op {
                0..=2 => {
                    let new = crash(next);
                    next += 1;
                    let turn = catalogue.publish(&[new], BEGIN, &newest(count));
                    for id in turn.gone {
                        prop_assert!(ids(&before.retired).contains(&id), "{} was not retired", id);
                        prop_assert!(!catalogue.pinned.contains(&id), "{} is pinned", id);
                    }
                    prop_assert_eq!(catalogue.live().last().copied(), Some(new.id));
                    for id in ids(&before.live) {
                        let kept = catalogue.points.needed().contains(&id);
                        prop_assert!(kept, "{} was live and is nowhere", id);
                        prop_assert!(!catalogue.pinned.contains(&id) || catalogue.live().contains(&id));
                    }
                }
                3 | 4 => catalogue.pinned.extend(before.live.get(at).map(|point| point.id)),
                _ => {
                    let pin = catalogue.pinned.iter().nth(at).copied();
                    catalogue.pinned.retain(|id| Some(*id) != pin);
                }
            }
        }
    }
}

fn names(list: &[u64]) -> BTreeSet<u64> {
    list.iter().copied().collect()
}

#[test]
fn a_pin_is_dead_once_it_was_watched_for_a_day() {
    let mut watch = PinWatch::default();
    let at = |hours: u64| Instant::default().after(Duration::from_hours(hours));
    assert_eq!(watch.listed(at(1), &names(&[1])), names(&[]));
    assert_eq!(watch.listed(at(20), &names(&[1, 2])), names(&[]));
    assert_eq!(watch.listed(Instant(at(25).0 - 1), &names(&[1, 2])), names(&[]));
    assert_eq!(watch.listed(at(25), &names(&[1, 2])), names(&[1]));
    // Gone and back: a delete that came undone, or a listing that missed it. It is watched anew.
    assert_eq!(watch.listed(at(26), &names(&[1])), names(&[1]));
    assert_eq!(watch.listed(at(27), &names(&[])), names(&[]));
    assert_eq!(watch.listed(at(28), &names(&[1, 2])), names(&[]));
    assert_eq!(watch.listed(at(28).after(PIN_DEAD_AFTER), &names(&[1, 2])), names(&[1, 2]));
}

#[test]
fn pins_beyond_the_bound_live() {
    let mut watch = PinWatch::default();
    let all: BTreeSet<u64> = (0..PINS_WATCHED_MAX as u64 + 10).collect();
    watch.listed(Instant(0), &all);
    let dead = watch.listed(Instant(0).after(PIN_DEAD_AFTER), &all);
    assert_eq!(dead.len(), PINS_WATCHED_MAX);
}

#[test]
fn rules_that_keep_more_than_the_bound_give_up_the_oldest_points_and_say_how_many() {
    let mut catalogue = Catalogue::default();
    let ladder = Ladder::new(vec![Rule::All { within: Duration::from_hours(24 * 365) }]);
    let bound = POINTS_MAX as u64;
    let of = |ids: std::ops::Range<u64>| -> Vec<_> {
        ids.map(|id| point(id, MarkerKind::Crash, BEGIN + id * 1000)).collect()
    };
    let turn = catalogue.publish(&of(0..bound), BEGIN + bound * 1000, &ladder);
    assert_eq!((turn.cut, turn.next.live.len()), (0, POINTS_MAX), "TW-4: as many as the bound stay");
    catalogue.pinned.insert(1);
    let turn = catalogue.publish(&of(bound..bound + 5), BEGIN + (bound + 5) * 1000, &ladder);
    assert_eq!(turn.cut, 4, "TW-4: it is told");
    assert_eq!(ids(&turn.next.retired), [0, 2, 3, 4], "TW-2: the oldest, in two phases, and none with a pin");
    assert_eq!(catalogue.live().len(), POINTS_MAX + 1, "a pin is beside the bound");
    let turn = catalogue.publish(&[], BEGIN + (bound + 6) * 1000, &ladder);
    assert_eq!((turn.cut, turn.gone), (0, vec![0, 2, 3, 4]));
}
