//! Wrong clocks: whichever of the two is wrong, by years and either way, nothing is pruned early.

use super::{BEGIN, Catalogue, DAY, HOUR, MINUTE, point};
use crate::change::MarkerKind;
use crate::maintenance::{CREDIT, Ladder};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A clock that is right but for its error, which changes now and then: none, or days to decades either way.
fn wrong_clock() -> impl Strategy<Value = Vec<(u64, i64)>> {
    let error = prop_oneof![Just(0i64), -9000i64..-1, 1i64..20_000];
    prop::collection::vec((0u64..120, error), 0..6)
}

fn read(clock: &[(u64, i64)], begin: u64, now: u64) -> u64 {
    let hour = (now - begin) / HOUR;
    let days = clock.iter().rfind(|(from, _)| *from <= hour).map_or(0, |(_, days)| *days);
    now.saturating_add_signed(days * DAY as i64)
}

/// Plays three days in points each 20 minutes, published every few of them. `times` are true ones.
fn play(source: &[(u64, i64)], maintainer: &[(u64, i64)], every: usize) -> Result<(), TestCaseError> {
    let (mut catalogue, mut fresh, mut times) = (Catalogue::default(), Vec::new(), Vec::new());
    let mut gone: BTreeSet<u64> = BTreeSet::new();
    for id in 0..160u64 {
        let now = BEGIN + id * 20 * MINUTE;
        times.push(now);
        fresh.push(point(id, MarkerKind::Crash, read(source, BEGIN, now)));
        if !(id as usize).is_multiple_of(every) {
            continue;
        }
        catalogue.publish(&fresh, read(maintainer, BEGIN, now + MINUTE), &Ladder::default());
        fresh.clear();
        let live: BTreeSet<u64> = catalogue.live().into_iter().collect();
        let fallen: Vec<u64> = (0..=id).filter(|id| !live.contains(id) && !gone.contains(id)).collect();
        for point in fallen {
            let age = now - times[point as usize] + CREDIT.as_millis() as u64;
            let stays_near = |within: u64| {
                live.iter().any(|other| times[*other as usize].abs_diff(times[point as usize]) < within)
            };
            prop_assert!(age >= 2 * HOUR, "point {} fell in its first two hours", point);
            prop_assert!(age >= DAY || stays_near(HOUR), "the hour of point {} is empty", point);
            prop_assert!(stays_near(DAY), "the day of point {} is empty", point);
            gone.insert(point);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_wrong_clock_of_the_source_prunes_nothing_early(clock in sorted(), every in 1usize..8) {
        play(&clock, &[], every)?;
    }

    #[test]
    fn a_wrong_clock_of_the_maintainer_prunes_nothing_early(clock in sorted(), every in 1usize..8) {
        play(&[], &clock, every)?;
    }
}

fn sorted() -> impl Strategy<Value = Vec<(u64, i64)>> {
    wrong_clock().prop_map(|mut clock| {
        clock.sort_unstable();
        clock
    })
}

/// Within one round's points the source's clock steps back three days, then forward four: what the step back hid must not
/// be made up for at the expense of the points between the two.
#[test]
fn a_clock_that_steps_back_and_forth_between_two_rounds_ages_no_point() {
    play(&[(17, -3), (18, 1)], &[], 7).expect("nothing is pruned early");
}

/// A machine that starts with the clock of its dead battery, until it is told the time.
#[test]
fn points_of_a_clock_from_1970_do_not_vanish_when_it_is_set() {
    let mut catalogue = Catalogue::default();
    for id in 0..48 {
        let now = BEGIN + id * 5 * MINUTE;
        let source = if id < 12 { id * 5 * MINUTE } else { now };
        catalogue.publish(&[point(id, MarkerKind::Crash, source)], now, &Ladder::default());
        if id < 24 {
            assert_eq!(catalogue.live().len() as u64, id + 1);
        }
    }
    assert!(catalogue.live().len() < 30, "they age all the same");
}

/// A maintainer that was away comes back to a day of points: they have the ages that they would have had.
#[test]
fn a_maintainer_that_was_away_finds_the_same_points() {
    let (mut often, mut seldom) = (Catalogue::default(), Catalogue::default());
    let all: Vec<_> = (0..600).map(|id| point(id, MarkerKind::Crash, BEGIN + id * 5 * MINUTE)).collect();
    for new in &all {
        often.publish(&[*new], new.wall.0, &Ladder::default());
    }
    seldom.publish(&all[..1], all[0].wall.0, &Ladder::default());
    seldom.publish(&all[1..], all[599].wall.0, &Ladder::default());
    assert_eq!(often.live(), seldom.live());
}
