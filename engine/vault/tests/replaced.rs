//! What a writer puts into an old copy that takes the vault's place under it.

mod support;

use support::replaced::{Story, nothing_is_put_that_needs_what_is_gone};

/// Requests between the stories that are told, of those at which the copy is made, and comes.
const COPIED_EVERY: usize = 9;
const BACK_EVERY: usize = 4;

/// The copy is made at any request, and comes at any later one.
fn at_any_request(refused: usize, is_doubtful: bool) {
    let (mut stories, mut wrong) = (0, Vec::new());
    for copied in (1..).step_by(COPIED_EVERY) {
        let first = copied + 1 + copied % BACK_EVERY;
        for back in (first..).step_by(BACK_EVERY) {
            match nothing_is_put_that_needs_what_is_gone(Story { copied, back, refused, is_doubtful }) {
                Ok(false) if back == first => {
                    assert!(
                        wrong.is_empty(),
                        "{} of {stories} stories: {:#?}",
                        wrong.len(),
                        &wrong[..wrong.len().min(8)]
                    );
                    assert!(stories > 100, "only {stories} stories");
                    return;
                }
                Ok(false) => break,
                Ok(true) => {}
                Err(what) => wrong.push(what),
            }
            stories += 1;
        }
    }
}

#[test]
fn nothing_is_put_behind_an_old_copy_that_it_cannot_follow() {
    at_any_request(0, false);
}

#[test]
fn nothing_is_put_behind_an_old_copy_by_a_writer_whose_store_refuses_first() {
    at_any_request(1, false);
}

#[test]
fn nothing_is_put_behind_an_old_copy_by_a_writer_that_is_left_in_doubt() {
    at_any_request(1, true);
}
