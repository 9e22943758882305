//! What an old copy of a vault can lose that takes its place under a maintainer.

mod support;

use support::old_copy::an_old_copy_loses_no_more_than_is_on_its_way;

#[test]
fn an_old_copy_that_comes_at_any_deletion_loses_no_more_than_what_is_on_its_way() {
    let mut at = 1;
    while an_old_copy_loses_no_more_than_is_on_its_way(at) {
        at += 7;
    }
    assert!(at > 40, "only {at} names were deleted");
}
