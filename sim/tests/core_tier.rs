//! The core tier: every scenario holds, one seed is one run, and what cannot be played is told.

use redoubt_sim::core_tier::{self, Outcome, Trace};
use redoubt_sim::harness::Verdict;
use redoubt_sim::plan;
use redoubt_sim::scenario::{self, Directories, Scenario};
use std::collections::BTreeSet;
use std::path::Path;

fn all() -> Vec<Scenario> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let library = Directories(vec![directory.clone()]);
    let mut paths: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let files =
        paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let load = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        scenario::load_scenarios(&path.to_string_lossy(), &name, &source, &library)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    };
    files.flat_map(load).collect()
}

/// Stories that a build without optimisation plays: those of hours are for the lab's own build.
const LENGTH_MAX: Option<u64> = if cfg!(debug_assertions) { Some(120_000) } else { None };
/// Seeds of each.
const SEEDS: u64 = if cfg!(debug_assertions) { 1 } else { 3 };

/// Those at a scale are told and not played.
fn played() -> Vec<Scenario> {
    let is_short = |scenario: &Scenario| LENGTH_MAX.is_none_or(|most| plan::draw(scenario, 1).length <= most);
    all().into_iter().filter(|scenario| scenario.estate.scale == 1 && is_short(scenario)).collect()
}

fn play(scenario: &Scenario, seed: u64) -> Outcome {
    core_tier::play(scenario, &plan::draw(scenario, seed), None)
}

#[test]
fn every_scenario_holds_and_what_it_cannot_play_is_told() {
    let mut unplayed = BTreeSet::new();
    for scenario in all().into_iter().filter(|scenario| scenario.estate.scale > 1) {
        let outcome = play(&scenario, 1);
        assert!(outcome.judged == 0 && !outcome.unplayed.is_empty(), "{}", scenario.name);
        unplayed.extend(outcome.unplayed);
    }
    for scenario in played() {
        for seed in 1..=SEEDS {
            let outcome = play(&scenario, seed);
            let run = format!("cargo sim core {}@{seed}", scenario.name);
            assert_eq!(outcome.findings, [], "{run}");
            assert_eq!(outcome.waiting, None, "{run}");
            assert!(outcome.judged > 0 && outcome.operations > 0, "{run} judged nothing");
            unplayed.extend(outcome.unplayed);
        }
    }
    // The manual names exactly these: bytes and objects of the vault, mounts and keys.
    let manual = include_str!("../docs/tools.md");
    let told = manual.split("Not played there:").nth(1).and_then(|rest| rest.split("\n\n").next());
    let told: BTreeSet<String> =
        told.unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let is_told = |verb: &String| {
        let part = verb.split('.').next().unwrap_or_default();
        told.contains(verb) || told.contains(&format!("{part}.*"))
    };
    let silent: Vec<&String> = unplayed.iter().filter(|verb| !is_told(verb)).collect();
    assert!(silent.is_empty(), "sim/docs/tools.md does not say that these are not played: {silent:?}");
}

#[test]
fn one_seed_is_one_run_whoever_looks_at_it() {
    for scenario in played() {
        let first = play(&scenario, 11);
        let trace = Trace::default();
        let again = core_tier::play(&scenario, &plan::draw(&scenario, 11), Some(&trace));
        assert_eq!((first.digest, first.steps), (again.digest, again.steps), "{}", scenario.name);
        assert!(!trace.take().is_empty());
        let other = play(&scenario, 12);
        assert_ne!(first.digest, other.digest, "{}: another seed is another run", scenario.name);
    }
}

#[test]
fn a_run_reaches_what_its_story_is_about() {
    let scenarios = all();
    let marks = |name: &str| {
        let scenario = scenarios.iter().find(|scenario| scenario.name == name).unwrap();
        (1..=5).flat_map(|seed| play(scenario, seed).marks).collect::<BTreeSet<_>>()
    };
    let has = |name: &str, wanted: &[&str]| {
        let marks = marks(name);
        let missing: Vec<_> = wanted.iter().filter(|mark| !marks.contains(*mark)).collect();
        assert!(missing.is_empty(), "{name} never saw {missing:?}");
    };
    has("wan-cut-spills-and-points-survive", &["spilled", "session-lost", "point-published"]);
    has("long-cut-overflows-to-bitmap-then-catches-up", &["overflowed", "resync-done"]);
    has("agent-host-power-loss", &["unflushed-sectors-lost", "unclean-restart"]);
    has("stage-survives-every-power-loss", &["stage-recovered", "session-lost"]);
    has("state-directory-hangs", &["files-hung", "activity-log-given-up", "marks-disowned", "marks-void"]);
    has("two-process-servers-want-one-log", &["store-fault-hit", "session-lost"]);
    has("process-server-dies-with-each-effect", &["killed-at-effect"]);
    has("activity-log-cannot-be-written", &["file-fault-hit", "unclean-restart"]);
    has("server-that-opens-late-takes-the-log", &["writer-fenced"]);
    has("source-disk-errors", &["guest-saw-disk-error", "engine-read-failed"]);
}

#[test]
fn a_crash_counts_more_than_what_was_found_before_it() {
    let found = Outcome { waiting: Some("x".into()), ..Outcome::default() };
    assert_eq!(found.verdict(), Verdict::NotConverged);
    assert_eq!(found.oracle(), Some("converges"));
    let crashed = Outcome { panic: Some("x".into()), ..found };
    assert_eq!(crashed.verdict(), Verdict::Crashed);
}
