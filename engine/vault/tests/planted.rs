//! Every planted bug of the vault is caught by the property that guards against it; the vault without
//! one passes the same schedules.

mod support;

use redoubt_core::planted::{Bug, activate};
use std::panic::{AssertUnwindSafe, catch_unwind};
use support::another_life::{
    a_log_that_ends_before_a_durable_slot_gets_no_version,
    a_stray_gives_its_number_and_its_claim_and_nothing_else, a_version_without_its_tables_is_not_built_upon,
};
use support::damage::flips_are_noticed;
use support::model::{Shape, folded_schedule, one_schedule};
use support::old_copy::an_old_copy_loses_no_more_than_is_on_its_way;
use support::replaced::nothing_is_put_that_needs_what_is_gone;
use support::replaced_store::Story;
use support::republished::{effects, nothing_is_published_that_needs_what_is_gone};
use support::run;

/// Schedules tried per bug, at most.
const SEEDS: u64 = 160;
/// Schedules played without a bug; `model.rs` plays more of them.
const CONTROL_SEEDS: u64 = 16;

const SHAPE: Shape = Shape { percent: 25, writers: 2, length: 60, wide: false };

/// Runs the property; returns what it complained about.
fn complaint(property: impl FnOnce()) -> Option<String> {
    let failed = catch_unwind(AssertUnwindSafe(property)).err()?;
    let text = failed.downcast_ref::<String>().cloned();
    Some(text.or_else(|| failed.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

fn model(seeds: u64) -> Option<String> {
    (0..seeds)
        .find_map(|seed| complaint(|| one_schedule(seed, SHAPE)).map(|what| format!("seed {seed}: {what}")))
}

fn folded(seeds: u64) -> Option<String> {
    let shape = Shape { percent: 0, writers: 1, length: 80, wide: false };
    (0..seeds).find_map(|seed| {
        complaint(|| folded_schedule(seed, shape, 3)).map(|what| format!("seed {seed}: {what}"))
    })
}

fn old_copy() -> Option<String> {
    (1..40).step_by(3).find_map(|at| {
        complaint(|| {
            an_old_copy_loses_no_more_than_is_on_its_way(at);
        })
    })
}

fn replaced() -> Option<String> {
    let stories =
        (60..).step_by(7).take(8).flat_map(|copied| (1..40).map(move |later| (copied, copied + later)));
    stories.into_iter().find_map(|(copied, back)| {
        let story = Story { copied, back, refused: 1, is_doubtful: true };
        nothing_is_put_that_needs_what_is_gone(story).err()
    })
}

fn republished() -> Option<String> {
    let copies =
        effects(1, true).into_iter().flat_map(|copied| (1..24).step_by(5).map(move |later| (copied, later)));
    copies.into_iter().find_map(|(copied, later)| {
        let story = Story { copied, back: copied + later, refused: 1, is_doubtful: true };
        nothing_is_published_that_needs_what_is_gone(story).err()
    })
}

/// Flips within the units of the segment object, where only opening them can tell.
fn damage() -> Option<String> {
    let in_a_unit = |name: &str, length: u64| match length {
        200_001.. if name.contains("/seg/") => vec![200_000],
        _ => Vec::new(),
    };
    complaint(|| run(flips_are_noticed(in_a_unit)))
}

// One test: the active bug belongs to the whole process.
#[test]
fn every_planted_bug_is_caught_and_nothing_else_is() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    activate(None);
    let mut outcomes = vec![(None, model(CONTROL_SEEDS).or_else(damage).or_else(|| folded(CONTROL_SEEDS)))];
    for bug in [
        Bug::PublishBeforeLastSegment,
        Bug::SkipClaimCheck,
        Bug::TrustAlreadyExists,
        Bug::PointInsideResync,
        Bug::ServeUnchecked,
        Bug::FoldForgetsTheEnd,
        Bug::FoldForgetsPoints,
        Bug::DeleteGarbageAtOnce,
        Bug::DeleteUnseen,
        Bug::TrustStray,
        Bug::BuildOnLostTables,
        Bug::TrustShortLog,
        Bug::SkipLookBack,
        Bug::PutAgainUnseen,
        Bug::PublishUnseen,
    ] {
        activate(Some(bug));
        let complaint = match bug {
            Bug::ServeUnchecked => damage(),
            Bug::FoldForgetsTheEnd | Bug::FoldForgetsPoints | Bug::DeleteGarbageAtOnce => folded(SEEDS),
            Bug::DeleteUnseen => old_copy(),
            Bug::TrustStray => complaint(|| a_stray_gives_its_number_and_its_claim_and_nothing_else(0, true)),
            Bug::BuildOnLostTables => {
                complaint(|| (0..6).for_each(a_version_without_its_tables_is_not_built_upon))
            }
            Bug::TrustShortLog => complaint(|| a_log_that_ends_before_a_durable_slot_gets_no_version(5, 1)),
            Bug::SkipLookBack | Bug::PutAgainUnseen => replaced(),
            Bug::PublishUnseen => republished(),
            _ => model(SEEDS),
        };
        outcomes.push((Some(bug), complaint));
    }
    activate(None);
    std::panic::set_hook(loud);
    for (bug, complaint) in outcomes {
        let symptom: &[&str] = match bug {
            None => {
                assert_eq!(complaint, None, "the vault without a bug fails");
                continue;
            }
            Some(Bug::PublishBeforeLastSegment) => &["segment is missing"],
            // An old writer acknowledges, goes on with a log that has grown behind its back, or misses what it put: it was
            // swept as what a dead writer left.
            Some(Bug::SkipClaimCheck) => &["I1", "I6", "not in the vault any more"],
            // Lost slots and segments, a slot of another, two writers with a data key each, or two in one epoch.
            Some(Bug::TrustAlreadyExists) => {
                &["I1", "I6", "missing", "not in the vault any more", "the seal is broken"]
            }
            Some(Bug::PointInsideResync) => &["exactly the exact markers"],
            // The proof of a fold knows the end of the stretch by itself, the points by the same list.
            Some(Bug::FoldForgetsTheEnd) => &["does not show what it replaces"],
            Some(Bug::FoldForgetsPoints) => &["I3"],
            Some(Bug::DeleteGarbageAtOnce) => &["without its newest version"],
            Some(Bug::DeleteUnseen) => &["GD-1"],
            Some(Bug::TrustStray) => &["MT-6"],
            // Tables that nobody has, and slots and segments that were given up.
            Some(Bug::BuildOnLostTables) => &["is missing", "the vault is whole"],
            Some(Bug::TrustShortLog) => &["MT-1"],
            Some(Bug::SkipLookBack | Bug::PutAgainUnseen) => &["missing"],
            Some(Bug::PublishUnseen) => &["PB-3"],
            Some(_) => &["I4"],
        };
        let text = complaint.unwrap_or_else(|| panic!("{bug:?} is not caught"));
        assert!(symptom.iter().any(|symptom| text.contains(symptom)), "{bug:?}: {text}");
    }
}
