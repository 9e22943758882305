//! The whole stream, from the spool to the vault, against faults of every part. See `stream_world`.

mod stream_world;

use proptest::prelude::*;
use stream_world::{bounds, op, play};

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn the_vault_gets_exactly_the_sources_history_whatever_fails(
        bounds in bounds(), ops in prop::collection::vec(op(), 1..160)
    ) {
        play(bounds, &ops);
    }
}
