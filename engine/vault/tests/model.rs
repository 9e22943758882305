//! Random histories through racing, restarting writers over a lying store, against whole images.

mod support;

use proptest::prelude::*;
use support::model::{Shape, folded_schedule, one_schedule};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_point_reads_as_the_images_say(seed: u64) {
        one_schedule(seed, Shape { percent: 0, writers: 1, length: 50, wide: false });
    }

    #[test]
    fn racing_writers_over_a_lying_store_lose_nothing(seed: u64) {
        one_schedule(seed, Shape { percent: 25, writers: 2, length: 60, wide: false });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zeros_over_most_of_a_volume_read_as_zeros(seed: u64) {
        one_schedule(seed, Shape { percent: 5, writers: 1, length: 60, wide: true });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_folded_reads_at_the_points_that_are_kept(seed: u64, keeps in 0u32..6) {
        folded_schedule(seed, Shape { percent: 0, writers: 1, length: 80, wide: false }, keeps);
    }

    #[test]
    fn racing_maintainers_that_fold_over_a_lying_store_lose_nothing(seed: u64, keeps in 0u32..6) {
        folded_schedule(seed, Shape { percent: 20, writers: 2, length: 70, wide: false }, keeps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zeros_over_most_of_a_volume_are_folded_as_zeros(seed: u64, keeps in 0u32..4) {
        folded_schedule(seed, Shape { percent: 5, writers: 1, length: 80, wide: true }, keeps);
    }
}
