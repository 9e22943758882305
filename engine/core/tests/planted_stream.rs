//! The planted bugs of the stream machines: the model of `stream_world` must notice each of them.
//!
//! One test, because a planted bug is active for the whole process.

mod stream_world;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use redoubt_core::planted::{Bug, activate};
use std::panic::catch_unwind;
use stream_world::{bounds, op, play};

/// Runs tried at most before a bug counts as not noticed; without a bug all of them must pass.
const RUNS: usize = 300;

/// Returns what the model said first, if it said anything.
fn complaint(bug: Option<Bug>) -> Option<String> {
    activate(bug);
    let mut runner = TestRunner::deterministic();
    let runs = (bounds(), proptest::collection::vec(op(), 1..160));
    let said = (0..RUNS).find_map(|_| {
        let (bounds, ops) = runs.new_tree(&mut runner).expect("nothing is filtered").current();
        let panic = catch_unwind(|| play(bounds, &ops)).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    });
    activate(None);
    said
}

#[test]
fn the_model_notices_each_planted_bug_of_the_stream() {
    let expected = [
        (Bug::ForgetAfterSend, "O-3"),
        (Bug::AcceptOldGeneration, "O-5"),
        (Bug::DropLastSpillRecord, "O-6"),
        (Bug::AckBeforeStageSync, "O-2"),
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let clean = complaint(None);
    let said: Vec<_> = expected.iter().map(|(bug, oracle)| (bug, oracle, complaint(Some(*bug)))).collect();
    std::panic::set_hook(hook);
    assert_eq!(clean, None, "without a bug nothing is said");
    for (bug, oracle, said) in said {
        let said = said.unwrap_or_else(|| panic!("{} was not noticed", bug.name()));
        assert!(said.starts_with(oracle), "{} was noticed by another oracle: {said}", bug.name());
    }
}
