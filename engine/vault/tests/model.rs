//! Random histories through racing, restarting writers over a lying store, against whole images.

mod support;

use proptest::prelude::*;
use support::model::one_schedule;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_point_reads_as_the_images_say(seed: u64) {
        one_schedule(seed, 0, 1, 120);
    }

    #[test]
    fn racing_writers_over_a_lying_store_lose_nothing(seed: u64) {
        one_schedule(seed, 25, 2, 60);
    }
}
