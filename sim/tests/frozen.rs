//! Frozen scenarios: what is written reads back as the same plan, for every scenario of the repository.

use redoubt_sim::freeze::Frozen;
use redoubt_sim::plan::{self, Action, Event, Plan};
use redoubt_sim::scenario::{self, Directories, Scenario};
use std::path::Path;

fn all() -> Vec<Scenario> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let library = Directories(vec![directory.clone()]);
    let paths = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let files = files.filter(|path| !path.ends_with("Cargo.toml"));
    let load = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        scenario::load_scenarios(&path.to_string_lossy(), &name, &source, &library)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    };
    files.flat_map(load).collect()
}

/// The events without their order at one and the same millisecond. That a directory answers again is an event of
/// its own, so it is no matter whether the hang names its length too.
fn unordered(plan: &Plan) -> Vec<String> {
    let words = |event: &Event| match &event.action {
        Action::FilesHang(host, _) => format!("{:>12} {host} hangs", event.at),
        action => format!("{:>12} {action:?}", event.at),
    };
    let mut events: Vec<String> = plan.events.iter().map(words).collect();
    events.sort();
    events
}

#[test]
fn a_frozen_run_draws_what_the_seed_drew() {
    let scenarios = all();
    assert!(scenarios.len() >= 14);
    for scenario in &scenarios {
        for seed in 1..=20 {
            let plan = plan::draw(scenario, seed);
            let frozen = Frozen::new(scenario, &plan);
            let read =
                frozen.scenario("frozen").unwrap_or_else(|problems| panic!("{}", problems.render(false)));
            assert_eq!(read.estate, scenario.estate, "{}@{seed}", scenario.name);
            assert_eq!(read.expect.always, scenario.expect.always);
            assert_eq!(read.expect.converges_within, scenario.expect.converges_within);
            let again = plan::draw(&read, read.seeds.from);
            assert_eq!((again.seed, again.length), (plan.seed, plan.length));
            assert_eq!(again.guests, plan.guests, "{}@{seed}", scenario.name);
            assert_eq!(again.due, plan.due, "{}@{seed}", scenario.name);
            assert_eq!(read.expect.objectives, scenario.expect.objectives);
            let (was, is) = (unordered(&plan), unordered(&again));
            // The end of something that never began is left out; nothing is added.
            let missing: Vec<&String> = was.iter().filter(|event| !is.contains(event)).collect();
            assert!(is.iter().all(|event| was.contains(event)), "{}@{seed}: {is:#?}", scenario.name);
            assert!(missing.len() <= 4, "{}@{seed} lost {missing:#?}", scenario.name);
            assert_eq!(Frozen::new(&read, &again).steps, frozen.steps);
        }
    }
}

/// Draws of each kind, and of nothing that grows when the lab learns a new fault.
const STORY: &str = r#"
format = 1
title  = "A cut, then a slow way"
why    = "Every quantity is drawn."
tags   = ["link"]
seeds  = { pr = 2, nightly = 20 }

[estate]
machines = [{ name = "erp-db", disks = ["1 MiB"] }]
points   = "1 s"

[load]
erp-db = { model = "mixed", rate = "20..60 /s", jobs = "2..4" }

[vary]
cut   = "2..5 s"
speed = "64..256 KiB/s"

[timeline]
steps = [
  { at = "$cut",        fault = "link.cut",  on = "wan", for = "3..6 s", id = "cut" },
  { at = "cut + 2 s",   fault = "link.slow", on = "wan", speed = "$speed", for = "4 s", id = "slow" },
  { at = "slow + 10 s", end = true },
]

[expect]
eventually = ["converges within 60 s"]
"#;

#[test]
fn a_frozen_scenario_is_a_file_that_a_person_reads() {
    let read = scenario::load_scenarios("story.toml", "story", STORY, &Directories(Vec::new()));
    let story = read.unwrap_or_else(|problems| panic!("{}", problems.render(false))).remove(0);
    let mut frozen = Frozen::new(&story, &plan::draw(&story, 7));
    frozen.story = vec!["What happened.".into()];
    insta::assert_snapshot!(frozen.text());
}
