//! What a maintainer makes of a vault whose place an old copy took, and of a log that is shorter than it was told.

mod support;

use support::another_life::{
    a_copy_without_catalogues_is_read_from_its_first_slot, a_copy_without_its_claim_is_claimed_anew,
    a_log_that_ends_before_a_durable_slot_gets_no_version,
    a_stray_gives_its_number_and_its_claim_and_nothing_else, a_version_without_its_tables_is_not_built_upon,
};

#[test]
fn a_catalogue_of_another_life_gives_its_number_and_its_claim_and_nothing_else() {
    for seed in 0..3 {
        a_stray_gives_its_number_and_its_claim_and_nothing_else(seed, true);
        a_stray_gives_its_number_and_its_claim_and_nothing_else(seed, false);
    }
}

#[test]
fn a_version_is_built_upon_only_if_all_tables_that_it_names_are_there() {
    (0..6).for_each(a_version_without_its_tables_is_not_built_upon);
}

#[test]
fn a_maintainer_that_finds_the_log_ended_before_a_durable_slot_publishes_nothing() {
    // Within one stretch that is read at once, at its end, and behind it.
    for commits in [5, 30, 63, 64, 70] {
        for ahead in [1, 3, 200] {
            a_log_that_ends_before_a_durable_slot_gets_no_version(commits, ahead);
        }
    }
}

#[test]
fn a_maintainer_whose_claim_the_copy_lacks_claims_it_anew_and_goes_on() {
    (0..3).for_each(a_copy_without_its_claim_is_claimed_anew);
}

#[test]
fn a_catalogue_that_cannot_be_read_keeps_nobody_from_a_log_that_has_its_first_slot() {
    (0..3).for_each(a_copy_without_catalogues_is_read_from_its_first_slot);
}
