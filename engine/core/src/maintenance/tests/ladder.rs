//! The ladder against the specification: the exact kept set after every point.

use super::{BEGIN, Catalogue, DAY, HOUR, MINUTE, point};
use crate::change::MarkerKind;
use crate::maintenance::{KeptPoint, Ladder, NewPoint, Rule, Which};
use proptest::prelude::*;
use std::time::Duration;

/// What the default ladder's words say, from the whole history: all points for 2 hours, the best of each hour for 24
/// hours, the best of each day for 15 days, and the newest.
fn specified(history: &[NewPoint<u64>]) -> Vec<u64> {
    let newest = history.last().expect("points").wall.0;
    let is_best = |point: &NewPoint<u64>, period: u64| {
        let same = history.iter().filter(|other| other.wall.0 / period == point.wall.0 / period);
        let (app, crash): (Vec<&NewPoint<u64>>, Vec<&NewPoint<u64>>) =
            same.partition(|other| other.kind != MarkerKind::Crash);
        app.last().or(crash.last()).expect("at least itself").id == point.id
    };
    let is_kept = |point: &&NewPoint<u64>| {
        let age = newest - point.wall.0;
        age < 2 * HOUR || (age < DAY && is_best(point, HOUR)) || (age < 15 * DAY && is_best(point, DAY))
    };
    history.iter().filter(is_kept).map(|point| point.id).collect()
}

fn kind(number: u8) -> MarkerKind {
    [MarkerKind::Crash, MarkerKind::Crash, MarkerKind::App, MarkerKind::Planned][usize::from(number % 4)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_default_ladder_keeps_exactly_what_its_words_say(
        steps in prop::collection::vec((1u64..400, any::<u8>()), 1..160), every in 1usize..4,
    ) {
        let (mut catalogue, mut history, mut fresh) = (Catalogue::default(), Vec::new(), Vec::new());
        let mut wall = BEGIN;
        for (id, (minutes, kind_of)) in steps.into_iter().enumerate() {
            // Mostly minutes, sometimes half a day.
            wall += if minutes > 390 { 12 * HOUR } else { minutes / 8 * MINUTE + 1 };
            let new = point(id as u64, kind(kind_of), wall);
            history.push(new);
            fresh.push(new);
            // The first publication has one point: earlier ones have only one clock that speaks for them.
            if id == 0 || id % every == 0 {
                catalogue.publish(&fresh, wall + 30_000, &Ladder::default());
                fresh.clear();
                prop_assert_eq!(catalogue.live(), specified(&history));
            }
        }
    }

    #[test]
    fn a_counting_ladder_keeps_exactly_its_counts(
        kinds in prop::collection::vec(any::<u8>(), 1..90), crash in 0u32..30, app in 0u32..6,
    ) {
        let ladder = Ladder::new(vec![
            Rule::Newest { count: crash, which: Which::Crash },
            Rule::Newest { count: app, which: Which::App },
        ]);
        let mut catalogue = Catalogue::default();
        let (mut crashes, mut apps) = (Vec::new(), Vec::new());
        for (id, number) in kinds.iter().enumerate() {
            let id = id as u64;
            let list = if kind(*number) == MarkerKind::Crash { &mut crashes } else { &mut apps };
            list.push(id);
            catalogue.publish(&[point(id, kind(*number), BEGIN)], BEGIN, &ladder);
            let newest = |list: &[u64], count: u32| list[list.len().saturating_sub(count as usize)..].to_vec();
            let mut expected = [newest(&crashes, crash), newest(&apps, app), vec![id]].concat();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(catalogue.live(), expected);
        }
    }
}

/// The fixed example: points each 5 minutes, application-consistent ones each hour, all kept for 2 hours.
#[test]
fn two_hours_of_five_minutes_are_24_crash_and_2_app_points() {
    let rules = vec![
        Rule::All { within: Duration::from_hours(2) },
        Rule::Best { period: Duration::from_hours(1), within: Duration::from_hours(24) },
    ];
    let (ladder, mut catalogue) = (Ladder::new(rules), Catalogue::default());
    let mut id = 0;
    for beat in 0..48 * 12 {
        let wall = BEGIN + beat * 5 * MINUTE;
        if beat % 12 == 6 {
            id += 1;
            catalogue.publish(&[point(id, MarkerKind::App, wall - MINUTE)], wall, &ladder);
        }
        id += 1;
        catalogue.publish(&[point(id, MarkerKind::Crash, wall)], wall, &ladder);
        let newest = catalogue.points.clock.now;
        let young = catalogue.points.live.iter().filter(|p| newest.since(p.at) < Duration::from_hours(2));
        let (crash, app): (Vec<&KeptPoint<u64>>, Vec<&KeptPoint<u64>>) =
            young.partition(|point| point.kind == MarkerKind::Crash);
        let old = catalogue.points.live.len() - crash.len() - app.len();
        if beat >= 24 * 12 {
            assert_eq!((crash.len(), app.len()), (24, 2), "beat {beat}");
            // One per hour, the application-consistent one, for the 22 hours beyond the first two.
            assert_eq!(old, 22, "beat {beat}");
            assert!(catalogue.points.live[..old].iter().all(|point| point.kind == MarkerKind::App));
        }
    }
}

#[test]
fn without_rules_only_the_newest_point_is_kept() {
    let (ladder, mut catalogue) = (Ladder::new(Vec::new()), Catalogue::default());
    for id in 1..20 {
        catalogue.publish(&[point(id, kind(id as u8), BEGIN + id * DAY)], BEGIN + id * DAY, &ladder);
        assert_eq!(catalogue.live(), [id]);
    }
    let later = catalogue.publish(&[], BEGIN + 900 * DAY, &ladder);
    assert_eq!((catalogue.live(), later.is_new), (vec![19], true), "18 goes, 19 stays whatever its age");
}

#[test]
fn no_point_ages_without_newer_ones() {
    let mut catalogue = Catalogue::default();
    let all: Vec<_> = (0..24).map(|id| point(id, MarkerKind::Crash, BEGIN + id * 5 * MINUTE)).collect();
    catalogue.publish(&all, BEGIN + 2 * HOUR, &Ladder::default());
    let turn = catalogue.publish(&[], BEGIN + 400 * DAY, &Ladder::default());
    assert_eq!((catalogue.live().len(), turn.is_new), (24, false));
}

#[test]
fn what_is_decided_is_what_no_rule_waits_for() {
    let mut catalogue = Catalogue::default();
    for id in 0..36 {
        catalogue.publish(
            &[point(id, MarkerKind::Crash, BEGIN + id * 5 * MINUTE)],
            BEGIN + id * 5 * MINUTE,
            &Ladder::default(),
        );
    }
    let live = &catalogue.points.live;
    let decided = Ladder::default().decided(live);
    assert_eq!(live[decided].id, 12, "the first that is younger than two hours");
    let counting = Ladder::new(vec![Rule::Newest { count: 3, which: Which::Any }]);
    assert_eq!(counting.decided(live), live.len() - 3);
    assert_eq!(Ladder::new(Vec::new()).decided(live), live.len() - 1);
    assert_eq!(Ladder::default().decided::<u64>(&[]), 0);
}

#[test]
fn the_most_a_ladder_keeps_bounds_what_it_keeps() {
    assert_eq!(Ladder::default().most(Duration::from_mins(5)), 1 + 25 + 25 + 16);
    assert_eq!(Ladder::new(Vec::new()).most(Duration::from_secs(1)), 1);
    let all = Ladder::new(vec![Rule::All { within: Duration::from_hours(360) }]);
    assert_eq!(all.most(Duration::from_secs(1)), 1 + 360 * 3600 + 1);
}
