//! The scale of an estate: everything that is counted in bytes, and every rate, is divided by one factor before it
//! is played. Times stay as they are, and so does every figure that is a time: lag, loss, mount (decision 0030).
//!
//! This is the only place where an operator's units become those of a run. Reports show the operator's units.

use crate::plan::{Action, Plan};
use crate::scenario::{Estate, Scenario};

/// Disks are cut into pages of this size.
const PAGE: u64 = 4096;

/// Returns an estate and a plan in the units of the run.
pub fn played(scenario: &Scenario, plan: &Plan) -> (Scenario, Plan) {
    let by = scenario.estate.scale;
    let (mut scenario, mut plan) = (scenario.clone(), plan.clone());
    if by > 1 {
        divide(&mut scenario.estate, by);
        for event in &mut plan.events {
            if let Action::Slow(_, speed) = &mut event.action {
                *speed = part(*speed, by);
            }
        }
    }
    (scenario, plan)
}

/// Divides a size or a rate; what is there stays there.
fn part(value: u64, by: u64) -> u64 {
    (value / by).max(1)
}

fn divide(estate: &mut Estate, by: u64) {
    for disk in estate.machines.iter_mut().flat_map(|machine| &mut machine.disks) {
        *disk = part(*disk, by).next_multiple_of(PAGE);
    }
    for size in [&mut estate.spool_memory, &mut estate.spill, &mut estate.stage] {
        *size = part(*size, by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::scenario;

    const FILE: &str = r#"format = 1
title = "x"
why = "x"
[estate]
scale = 100
machines = [{ name = "web-*", count = 3, disks = ["1 GiB"] }]
bandwidth = "100 Mbit/s"
spool-memory = "64 MiB"
spill = "1 GiB"
stage = "2 GiB"
[load]
"web-*" = { writes = "1 MiB/s" }
[timeline]
steps = [
  { at = "1 s", fault = "link.slow", on = "wan", speed = "1 MiB/s" },
  { at = "9 s", end = true },
]
"#;

    #[test]
    fn sizes_and_rates_are_divided_and_times_are_not() {
        let scenario = scenario::load("x.toml", "x", FILE).unwrap_or_else(|p| panic!("{}", p.render(false)));
        let plan = plan::draw(&scenario, 1);
        let (small, drawn) = played(&scenario, &plan);
        assert_eq!(small.estate.machines[2].disks, [10_739_712]);
        let bounds = [small.estate.spool_memory, small.estate.spill, small.estate.stage];
        assert_eq!(bounds, [671_088, 10_737_418, 21_474_836]);
        assert_eq!(drawn.events[0].action, Action::Slow("wan".into(), 10_485));
        assert_eq!((drawn.length, drawn.events[0].at), (plan.length, plan.events[0].at));
        assert_eq!(small.estate.point_every, scenario.estate.point_every);
        let whole = Scenario { estate: Estate { scale: 1, ..scenario.estate.clone() }, ..scenario.clone() };
        assert_eq!(played(&whole, &plan).0.estate, whole.estate);
    }
}
