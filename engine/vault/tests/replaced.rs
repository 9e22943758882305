//! What a writer and a maintainer put into an old copy that takes the vault's place under them.

mod support;

use support::replaced::nothing_is_put_that_needs_what_is_gone;
use support::replaced_store::Story;
use support::republished::{effects, nothing_is_published_that_needs_what_is_gone};

/// Requests between the stories that are told, of those at which the copy is made, and comes.
const COPIED_EVERY: usize = 9;
const BACK_EVERY: usize = 4;
/// The same of requests at which a maintainer's copy comes, and how long after it was made it comes at most: by then what
/// it lacks is the work of several versions.
const PUBLISHED_EVERY: usize = 2;
const PUBLISHED_WITHIN: usize = 24;

/// The copy is made at any request, and comes at any later one.
fn by_a_writer(refused: usize, is_doubtful: bool) {
    let (mut stories, mut wrong) = (0, Vec::new());
    for copied in (1..).step_by(COPIED_EVERY) {
        let first = copied + 1 + copied % BACK_EVERY;
        for back in (first..).step_by(BACK_EVERY) {
            match nothing_is_put_that_needs_what_is_gone(Story { copied, back, refused, is_doubtful }) {
                Ok(false) if back == first => return conclude(stories, &wrong),
                Ok(false) => break,
                Ok(true) => {}
                Err(what) => wrong.push(what),
            }
            stories += 1;
        }
    }
}

/// The copy is made right before anything is put by the maintainer or a writer, so that it lacks only what comes later, and
/// comes at any request soon after it.
fn by_a_maintainer(refused: usize, is_doubtful: bool) {
    let effects = effects(refused, is_doubtful);
    let last = effects[effects.len() - 1];
    let (mut stories, mut wrong) = (0, Vec::new());
    for copied in effects {
        let soon = (copied + 1..=last).take(PUBLISHED_WITHIN).step_by(PUBLISHED_EVERY);
        for back in soon {
            let story = Story { copied, back, refused, is_doubtful };
            wrong.extend(nothing_is_published_that_needs_what_is_gone(story).err());
            stories += 1;
        }
    }
    conclude(stories, &wrong);
}

fn conclude(stories: usize, wrong: &[String]) {
    let shown = &wrong[..wrong.len().min(8)];
    assert!(wrong.is_empty(), "{} of {stories} stories: {shown:#?}", wrong.len());
    assert!(stories > 100, "only {stories} stories");
}

#[test]
fn nothing_is_put_behind_an_old_copy_that_it_cannot_follow() {
    by_a_writer(0, false);
}

#[test]
fn nothing_is_put_behind_an_old_copy_by_a_writer_whose_store_refuses_first() {
    by_a_writer(1, false);
}

#[test]
fn nothing_is_put_behind_an_old_copy_by_a_writer_that_is_left_in_doubt() {
    by_a_writer(1, true);
}

#[test]
fn nothing_is_published_into_an_old_copy_that_rests_on_what_it_lacks() {
    by_a_maintainer(0, false);
}

#[test]
fn nothing_is_published_into_an_old_copy_by_a_maintainer_that_is_refused_and_left_in_doubt() {
    by_a_maintainer(1, true);
}
