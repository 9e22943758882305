//! Failures by cause, each with the line that plays it again and what happened before it.

use super::course::{self, CourseView};
use crate::causes::{Case, Cause, causes};
use crate::judge;
use crate::model::RunSet;
use crate::text;
use serde::Serialize;

/// Replay lines shown of one cause; the seed map has the others.
const REPLAYS: usize = 5;

#[derive(Serialize)]
pub(super) struct CauseView {
    class: &'static str,
    verdict: &'static str,
    oracle: String,
    /// Its first sentence in the run that is shown.
    first: String,
    /// What was promised.
    promise: String,
    /// What the story of that run is about.
    story: String,
    /// How many runs of which scenarios.
    spread: String,
    /// What the first finding says beyond its first sentence.
    more: String,
    /// Scenario and seed of that.
    run: String,
    /// What else spoke in that run.
    others: Vec<(String, String)>,
    /// Until when it is excused, where it is mended, and why.
    known: Option<[String; 3]>,
    replay: String,
    /// Those of other seeds.
    replays: Vec<String>,
    more_replays: usize,
    events: Vec<EventView>,
    course: Option<CourseView>,
}

#[derive(Serialize)]
struct EventView {
    at: String,
    what: String,
    times: u64,
    is_finding: bool,
}

/// A scenario that tests less than it says.
#[derive(Serialize)]
pub(super) struct Vacuous {
    scenario: String,
    marks: Vec<String>,
    runs: String,
    /// Whether enough seeds were played for it to count.
    is_judged: bool,
}

pub(super) fn failures(set: &RunSet) -> Vec<CauseView> {
    causes(set).iter().map(|cause| view(set, cause)).collect()
}

/// Returns what was promised where an oracle spoke; an objective says it by itself.
fn promise(set: &RunSet, oracle: &str) -> String {
    let assertion = "the engine watches invariants of its own, and stops rather than go on without one";
    let found = set.oracles.get(oracle).map(String::as_str);
    found.or((oracle == "assertion").then_some(assertion)).unwrap_or_default().to_owned()
}

fn view(set: &RunSet, cause: &Cause<'_>) -> CauseView {
    // The case to read is one whose course was kept; failing that, any.
    let case = cause.cases.iter().find(|case| case.run.course.is_some()).unwrap_or(&cause.cases[0]);
    let findings = case.run.findings.iter().skip(1);
    let (first, more) = case.finding.what.split_once('\n').unwrap_or((case.finding.what.as_str(), ""));
    CauseView {
        class: cause.verdict.class(),
        verdict: cause.verdict.words(),
        oracle: cause.oracle.clone(),
        first: first.to_owned(),
        promise: promise(set, &cause.oracle),
        story: format!("{}. {}", case.scenario.title.trim_end_matches('.'), case.scenario.why),
        spread: spread(&cause.cases),
        more: more.to_owned(),
        run: format!("{}@{}", case.scenario.name, case.run.seed),
        others: findings.map(|finding| (finding.oracle.clone(), finding.what.clone())).collect(),
        known: cause.known.map(|known| [known.expires.clone(), known.issue.clone(), known.why.clone()]),
        replay: case.run.replay.clone(),
        replays: replays(case, &cause.cases),
        more_replays: cause.cases.len().saturating_sub(REPLAYS),
        events: events(case),
        course: case.run.course.as_ref().map(course::view),
    }
}

/// Returns the lines of other seeds than the one that is shown.
fn replays(shown: &Case<'_>, cases: &[Case<'_>]) -> Vec<String> {
    let others = cases.iter().map(|case| &case.run.replay).filter(|line| **line != shown.run.replay);
    others.take(REPLAYS - 1).cloned().collect()
}

fn spread(cases: &[Case<'_>]) -> String {
    let mut names: Vec<&str> = cases.iter().map(|case| case.scenario.name.as_str()).collect();
    names.dedup();
    let runs = text::of(cases.len() as u64, "run");
    match &names[..] {
        [one] => format!("{runs} of {one}"),
        many => format!("{runs} of {} scenarios: {}", many.len(), many.join(", ")),
    }
}

fn events(case: &Case<'_>) -> Vec<EventView> {
    let Some(course) = &case.run.course else { return Vec::new() };
    let line = |event: &crate::model::Event| EventView {
        at: text::moment(event.at_ms),
        what: event.what.clone(),
        times: event.times,
        is_finding: event.what.starts_with("found by "),
    };
    course.events.iter().map(line).collect()
}

pub(super) fn vacuous(set: &RunSet) -> Vec<Vacuous> {
    let scenarios = set.scenarios.iter().filter(|scenario| scenario.totals.runs > 0);
    let views = scenarios.map(|scenario| Vacuous {
        scenario: scenario.name.clone(),
        marks: judge::never_seen(scenario).into_iter().map(str::to_owned).collect(),
        runs: text::of(scenario.totals.runs, "run"),
        is_judged: judge::is_judged(scenario),
    });
    views.filter(|view| !view.marks.is_empty()).collect()
}
