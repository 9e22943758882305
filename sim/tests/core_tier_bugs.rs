//! The core tier notices each planted bug of the pure machines, by the oracle that stands for it.
//!
//! One test, because a planted bug is active for the whole process. Only the lab's build has them.
#![cfg(madsim)]

use redoubt_core::planted::activate;
use redoubt_sim::core_tier::{Outcome, play, prey};
use redoubt_sim::plan;
use redoubt_sim::scenario::{self, Directories, Scenario};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Most runs of the likely scenario. `cargo sim core --bugs` says how many each bug takes.
const RUNS: u64 = 60;

fn load(name: &str) -> Scenario {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let source = std::fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap();
    let library = Directories(vec![directory]);
    let mut found = scenario::load_scenarios(name, name, &source, &library)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    found.swap_remove(0)
}

fn run(scenario: &Scenario, seed: u64) -> Option<Outcome> {
    let plan = plan::draw(scenario, seed);
    catch_unwind(AssertUnwindSafe(|| play(scenario, &plan, None))).ok()
}

#[test]
fn each_planted_bug_of_the_machines_is_caught_and_its_run_holds_without_it() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for prey in prey::ALL {
        let scenario = load(prey.scenario);
        activate(Some(prey.bug));
        let speaks =
            |seed: &u64| run(&scenario, *seed).is_some_and(|outcome| outcome.oracle() == Some(prey.oracle));
        let caught = (1..=RUNS).find(speaks);
        activate(None);
        let name = prey.bug.name();
        match caught {
            None => missed.push(format!("{name} is not caught by {}", prey.oracle)),
            Some(seed) => {
                let oracle = run(&scenario, seed).map(|outcome| outcome.oracle().map(str::to_owned));
                if oracle != Some(None) {
                    missed.push(format!("{name}: {}@{seed} fails without it: {oracle:?}", scenario.name));
                }
            }
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "{missed:#?}");
}
