//! Scenario files: every one in the repository is valid, plans are functions of the seed, and a broken
//! file yields all its problems at once.

use redoubt_sim::plan;
use redoubt_sim::scenario::{self, Directories, Scenario};
use std::path::Path;

fn all() -> Vec<Scenario> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut scenarios = Vec::new();
    let library = Directories(vec![directory.clone()]);
    let entries = [directory.join("bench"), directory.join("large"), directory]
        .map(|place| std::fs::read_dir(place).unwrap());
    for entry in entries.into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with("Cargo.toml") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let source = std::fs::read_to_string(&path).unwrap();
            let found = scenario::load_scenarios(&path.to_string_lossy(), &name, &source, &library);
            scenarios.extend(found.unwrap_or_else(|problems| panic!("{}", problems.render(false))));
        }
    }
    scenarios
}

#[test]
fn every_scenario_of_the_repository_is_valid_and_draws_equal_plans_from_equal_seeds() {
    let scenarios = all();
    assert!(scenarios.len() >= 14);
    for scenario in &scenarios {
        for seed in 0..20 {
            let plan = plan::draw(scenario, seed);
            assert_eq!(plan, plan::draw(scenario, seed));
            assert!(plan.events.windows(2).all(|pair| pair[0].at <= pair[1].at));
            assert!(plan.length > 0, "{}", scenario.name);
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<plan::Plan>(&json).unwrap(), plan);
        }
        assert_ne!(plan::draw(scenario, 1), plan::draw(scenario, 2));
    }
}

#[test]
fn a_broken_file_yields_all_its_problems_in_one_pass() {
    let source = r#"format = 1
title = "Broken"
why   = "To see every message."
taggs = ["x"]

[estate]
machines = [{ name = "db", disks = ["4 parsec", "5 B"] }]

[load]
bd = { model = "mixd" }

[vary]
cut  = "9..3 s"
size = "1..2 MiB"

[timeline]
steps = [
  { at = "$size", fault = "link.cutt", on = "wan" },
  { at = "2 s", fault = "host.power", on = "dbb", for = "3" },
  { at = "nowhere + 1 s", fault = "host.clock", on = "db" },
  { at = "3 s", do = "point", on = "db", for = "1 s" },
  { at = "4 s", fault = "link.cut", heal = "x", on = "wan" },
]

[expect]
always     = ["prefixx"]
eventually = ["soon"]
"#;
    let problems = scenario::load("broken.toml", "broken", source).unwrap_err();
    insta::assert_snapshot!(problems.render(false));
}
