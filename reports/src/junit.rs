//! JUnit's XML, for systems that show tests: a suite for each scenario, a case for each seed.
//!
//! No times and no stamps: simulated time is no running time, and equal sets give equal bytes.

use crate::judge;
use crate::model::{Run, RunSet, Scenario, Verdict};
use crate::text;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// Makes the file of a set. Of runs that only count in the totals there are no cases.
pub fn junit(set: &RunSet) -> String {
    let mut report = Report::new("cargo sim");
    report.add_test_suites(set.scenarios.iter().map(suite));
    // Writing to memory fails only for names that are no XML; those are escaped.
    report.to_string().expect("a report has a text")
}

fn suite(scenario: &Scenario) -> TestSuite {
    let mut suite = TestSuite::new(scenario.name.as_str());
    suite.add_property(("title", scenario.title.as_str()));
    suite.add_test_cases(scenario.runs.iter().map(|run| case(scenario, run)));
    if judge::is_judged(scenario) {
        let never = judge::never_seen(scenario);
        suite.add_test_cases(scenario.promises.sometimes.iter().map(|mark| seen(scenario, mark, &never)));
    }
    suite
}

fn case(scenario: &Scenario, run: &Run) -> TestCase {
    let status = match run.verdict {
        Verdict::Held => TestCaseStatus::success(),
        _ if run.known.is_some() => known(run),
        verdict => failure(run, verdict),
    };
    let mut case = TestCase::new(format!("{}@{}", scenario.name, run.seed), status);
    case.set_classname(scenario.name.as_str());
    case
}

fn failure(run: &Run, verdict: Verdict) -> TestCaseStatus {
    let kind = if verdict == Verdict::Crashed { NonSuccessKind::Error } else { NonSuccessKind::Failure };
    let mut status = TestCaseStatus::non_success(kind);
    let mut lines = vec![run.replay.clone()];
    if let Some(first) = run.findings.first() {
        status.set_type(first.oracle.as_str());
        status.set_message(first.what.lines().next().unwrap_or_default());
    }
    lines.extend(run.findings.iter().map(|finding| format!("{}: {}", finding.oracle, finding.what)));
    let events = run.course.iter().flat_map(|course| &course.events);
    lines.extend(events.map(|event| format!("{:>14}  {}", text::moment(event.at_ms), event.what)));
    status.set_description(lines.join("\n"));
    status
}

/// A known failure is shown as skipped: it is told, and fails nothing.
fn known(run: &Run) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    if let Some(known) = &run.known {
        status.set_message(format!("known until {}: {}", known.expires, known.issue));
    }
    status.set_description(run.replay.clone());
    status
}

fn seen(scenario: &Scenario, mark: &str, never: &[&str]) -> TestCase {
    let mut status = TestCaseStatus::success();
    if never.contains(&mark) {
        status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type("sometimes");
        status.set_message(format!("never seen in {}", text::of(scenario.totals.runs, "run")));
    }
    let mut case = TestCase::new(format!("sometimes {mark}"), status);
    case.set_classname(scenario.name.as_str());
    case
}
