//! Who may publish and delete, which uploads are orphans, which runs are folded.

use crate::maintenance::{CATALOGUES_KEPT, Garbage, RunShape, Tenure, Work, next_work, orphans};
use proptest::prelude::*;

fn garbage(rows: &[(&'static str, u64)]) -> Vec<Garbage<&'static str>> {
    rows.iter().map(|(name, since)| Garbage { name: *name, since: *since }).collect()
}

#[test]
fn garbage_waits_until_the_last_three_versions_do_without_it() {
    let list = garbage(&[("a", 3), ("b", 4), ("c", 5)]);
    let mut tenure = Tenure::new(7);
    assert!(tenure.found(4, 6));
    assert!(tenure.deletable(&list).is_empty(), "nothing was published here");
    assert_eq!(tenure.next_version(), Some(5));
    tenure.published();
    assert!(tenure.deletable(&list).is_empty(), "nobody looked for a newer claim since");
    tenure.checked(false);
    // Versions 3, 4 and 5 stay readable: "b" is still needed by 3.
    assert_eq!(tenure.deletable(&list), [&"a"]);
    assert!(tenure.is_old(2) && !tenure.is_old(3));
    tenure.published();
    assert!(tenure.deletable(&list).is_empty());
    tenure.checked(false);
    assert_eq!(tenure.deletable(&list), [&"a", &"b"]);
    assert!(tenure.is_old(3) && !tenure.is_old(6 + 1 - CATALOGUES_KEPT));
}

#[test]
fn who_is_overtaken_neither_publishes_nor_deletes() {
    let list = garbage(&[("a", 1)]);
    let mut overtaken = Tenure::new(2);
    assert!(!overtaken.found(9, 3), "a higher epoch published");
    assert_eq!((overtaken.next_version(), overtaken.found(9, 1)), (None, false));

    let ready = || {
        let mut tenure = Tenure::new(2);
        tenure.found(5, 2);
        tenure.published();
        tenure.checked(false);
        tenure
    };
    assert_eq!(ready().deletable(&list).len(), 1);
    let mut lost = ready();
    lost.lost();
    assert!(lost.is_over() && lost.deletable(&list).is_empty() && !lost.is_old(1));
    let mut fenced = ready();
    fenced.published();
    fenced.checked(true);
    assert!(fenced.is_over() && fenced.deletable(&list).is_empty() && fenced.next_version().is_none());
}

#[test]
fn only_what_a_later_epoch_sealed_and_nobody_names_is_an_orphan() {
    let listed = [("used", 1), ("left", 1), ("left-too", 2), ("own", 3), ("newer", 4)];
    assert_eq!(orphans(listed, 3, |name| *name == "used"), ["left", "left-too"]);
    assert!(orphans(listed, 0, |_| false).is_empty() && orphans(listed, 1, |_| false).is_empty());
}

fn run(last: u64, entries: u64, is_folded: bool) -> RunShape {
    RunShape { last, entries, is_folded }
}

#[test]
fn decided_stretches_are_folded_and_the_last_record_stays() {
    let runs = [run(64, 100, false), run(128, 100, false), run(192, 100, false)];
    assert_eq!(next_work(&runs, 0, 500), None);
    assert_eq!(next_work(&runs, 64, 500), None, "slot 64 has an undecided point");
    assert_eq!(next_work(&runs, 130, 500), Some(Work::Fold(0..2)));
    assert_eq!(next_work(&runs, 900, 192), Some(Work::Fold(0..2)), "slot 192 is the log's last");
    assert_eq!(next_work(&runs[..1], 900, 64), None);
}

#[test]
fn a_folded_run_is_folded_again_when_a_quarter_came() {
    let base = 1 << 20;
    let runs = |new| [run(64, base, true), run(128, base / 8, true), run(192, new, false)];
    assert_eq!(next_work(&runs(4000), 900, 900), Some(Work::Fold(2..3)));
    assert_eq!(next_work(&runs(base / 32), 900, 900), Some(Work::Fold(1..3)));
    assert_eq!(next_work(&runs(base / 8), 900, 900), Some(Work::Fold(0..3)));
}

#[test]
fn unfolded_runs_of_one_size_are_merged() {
    let runs: Vec<_> = (1..5).map(|at| run(at * 64, 100, false)).collect();
    assert_eq!(next_work(&runs[..3], 0, 900), None);
    assert_eq!(next_work(&runs, 0, 900), Some(Work::Merge(0..4)));
    let folded = [vec![run(32, 100, true)], runs].concat();
    assert_eq!(next_work(&folded, 0, 900), Some(Work::Merge(1..5)), "a folded run is no part of it");
}

/// A quiet machine: each round brings few entries, and its points are not decided for long.
#[test]
fn an_entry_of_a_quiet_machine_is_written_a_few_times() {
    let (rounds, each) = (1000, 20);
    let (mut runs, mut written, mut most) = (Vec::new(), 0, 0);
    for at in 1..=rounds {
        runs.push(run(at * 64, each, false));
        let merged = match next_work(&runs, 0, at * 64) {
            Some(Work::Merge(range)) => range,
            None => runs.len() - 1..runs.len(),
            Some(Work::Fold(range)) => panic!("nothing is decided, and {range:?} is folded"),
        };
        let entries = runs[merged.clone()].iter().map(|run| run.entries).sum();
        written += entries;
        runs.splice(merged, [run(at * 64, entries, false)]);
        most = most.max(runs.len());
    }
    let times = written / (rounds * each);
    assert!(times <= 7 && most <= 15, "each entry is written {times} times, in {most} runs at most");
}

/// A quiet machine whose points are decided: each round folds the few entries that it brings, on a disk that was
/// filled long ago.
#[test]
fn a_fold_of_few_entries_writes_few_again() {
    let (rounds, each) = (1000, 20);
    let mut runs = vec![run(1, 1 << 20, true)];
    let mut written = 0;
    for at in 1..=rounds {
        runs.push(run(at * 64, each, false));
        let Some(Work::Fold(range)) = next_work(&runs, u64::MAX, u64::MAX) else {
            panic!("all of it is decided")
        };
        let entries = runs[range.clone()].iter().map(|run| run.entries).sum();
        written += entries;
        runs.splice(range, [run(at * 64, entries, true)]);
        assert!(runs.len() <= 8, "{} runs", runs.len());
    }
    let times = written / (rounds * each);
    assert!(times <= 48, "each entry is written {times} times");
}

proptest! {
    /// Plays a log that grows and whose points are decided some slots behind: runs stay few and in their order, and
    /// each entry is written a number of times that grows with the logarithm.
    #[test]
    fn runs_stay_few(rounds in prop::collection::vec((1u64..20_000, 0u64..8), 1..200)) {
        let (mut runs, mut written, mut total) = (Vec::<RunShape>::new(), 0u64, 0u64);
        let mut decided = 0;
        for (at, (entries, behind)) in rounds.into_iter().enumerate() {
            let tail = (at as u64 + 1) * 64;
            runs.push(run(tail, entries, false));
            total += entries;
            decided = (tail + 1).saturating_sub(behind * 64).max(decided);
            while let Some(work) = next_work(&runs, decided, tail) {
                let (range, is_folded) = match work {
                    Work::Fold(range) => (range, true),
                    Work::Merge(range) => (range, false),
                };
                prop_assert!(is_folded || range.len() > 1);
                prop_assert!(!is_folded || runs[range.end - 1].last < decided.min(tail));
                let entries = runs[range.clone()].iter().map(|run| run.entries).sum();
                written += entries;
                let last = runs[range.end - 1].last;
                runs.splice(range, [run(last, entries, is_folded)]);
            }
            prop_assert!(runs.len() <= 32, "{} runs", runs.len());
        }
        let levels = u64::from((total / 256).max(1).ilog(4)) + 2;
        prop_assert!(written <= total * 6 * levels, "{} written of {}", written, total);
    }
}
