//! Scenarios with their seed maps, and the courses that are worth a look.

use super::course::{self, CourseView};
use crate::judge;
use crate::model::{Run, RunSet, Scenario, Verdict};
use crate::text;
use serde::Serialize;

/// Most seeds on one map. Those that failed are shown before others.
const SEEDS: usize = 400;

#[derive(Serialize)]
pub(super) struct ScenarioView {
    name: String,
    title: String,
    scale: String,
    why: String,
    verdict: &'static str,
    class: &'static str,
    failed: u64,
    runs: String,
    operations: String,
    points: String,
    simulated: String,
    seeds: Vec<SeedView>,
    not_shown: String,
}

/// One square of a map.
#[derive(Serialize)]
struct SeedView {
    class: &'static str,
    title: String,
}

/// The course of a run that held.
#[derive(Serialize)]
pub(super) struct HeldCourse {
    run: String,
    title: String,
    replay: String,
    course: CourseView,
}

pub(super) fn scenarios(set: &RunSet) -> Vec<ScenarioView> {
    set.scenarios.iter().map(view).collect()
}

fn view(scenario: &Scenario) -> ScenarioView {
    let verdict = judge::of_scenario(scenario);
    let totals = &scenario.totals;
    let shown = shown(&scenario.runs);
    let hidden = totals.runs - shown.len() as u64;
    ScenarioView {
        name: scenario.name.clone(),
        title: scenario.title.clone(),
        scale: scenario.estate.scale.map(|scale| format!("played at 1/{}", scale.by)).unwrap_or_default(),
        why: scenario.why.clone(),
        verdict: verdict.words(),
        class: verdict.class(),
        failed: totals.runs - totals.held,
        runs: text::count(totals.runs),
        operations: text::count(totals.operations),
        points: text::count(totals.points),
        simulated: text::duration(totals.simulated_ms),
        seeds: shown.into_iter().map(seed).collect(),
        not_shown: if hidden > 0 { format!("and {} more", text::of(hidden, "run")) } else { String::new() },
    }
}

/// Chooses the runs of a map, by seed.
fn shown(runs: &[Run]) -> Vec<&Run> {
    let (held, failed): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| run.verdict == Verdict::Held);
    let mut shown: Vec<&Run> = failed.into_iter().chain(held).take(SEEDS).collect();
    shown.sort_by_key(|run| run.seed);
    shown
}

fn seed(run: &Run) -> SeedView {
    let cause = run.findings.first().map(|finding| format!(" ({})", finding.oracle)).unwrap_or_default();
    SeedView {
        class: run.verdict.class(),
        title: format!(
            "seed {}: {}{cause}{}",
            run.seed,
            run.verdict.words(),
            if run.known.is_some() { ", known" } else { "" }
        ),
    }
}

/// Returns the courses of runs that held; those of failures stand beside their cause.
pub(super) fn held_courses(set: &RunSet) -> Vec<HeldCourse> {
    let runs = set.scenarios.iter().flat_map(|scenario| scenario.runs.iter().map(move |run| (scenario, run)));
    let held = runs.filter(|(_, run)| run.verdict == Verdict::Held);
    let views = held.filter_map(|(scenario, run)| {
        Some(HeldCourse {
            run: format!("{}@{}", scenario.name, run.seed),
            title: scenario.title.clone(),
            replay: run.replay.clone(),
            course: course::view(run.course.as_ref()?),
        })
    });
    views.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_too_small_shows_what_failed() {
        let run = |seed| Run {
            seed,
            verdict: if seed == 900 { Verdict::Broken } else { Verdict::Held },
            ..Run::default()
        };
        let runs: Vec<Run> = (0..1000).map(run).collect();
        let map = shown(&runs);
        assert_eq!((map.len(), map.last().map(|run| run.seed)), (SEEDS, Some(900)));
    }
}
