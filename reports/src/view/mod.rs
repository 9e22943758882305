//! The page: everything that is shown, in words and drawings, and the template that orders it.

mod axis;
mod capacity;
mod compare;
mod course;
mod estates;
mod failures;
mod measures;
mod scenarios;

use crate::causes::causes;
use crate::file;
use crate::judge;
use crate::model::{RunSet, Verdict};
use crate::text;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

const PAGE: &str = include_str!("../../templates/report.html");
const STYLE: &str = include_str!("../../templates/style.css");

#[derive(Serialize)]
struct Page {
    style: &'static str,
    title: String,
    verdict: String,
    class: &'static str,
    headline: String,
    source: String,
    command: String,
    is_planted: bool,
    sums: Vec<(String, &'static str)>,
    capacities: Vec<capacity::CapacityView>,
    failures: Vec<failures::CauseView>,
    vacuous: Vec<failures::Vacuous>,
    scenarios: Vec<scenarios::ScenarioView>,
    measures: Vec<measures::MeasureView>,
    unmeasured: Vec<&'static str>,
    table: measures::Table,
    held: Vec<scenarios::HeldCourse>,
    estates: Vec<estates::EstateView>,
    hardware: Vec<estates::HardwareView>,
    unreached: Vec<String>,
    unmet: Vec<String>,
    comparison: Option<compare::Comparison>,
}

/// Makes the report of a set: one HTML file that asks for nothing else. Equal sets give equal bytes.
pub fn html(set: &RunSet, baseline: Option<&RunSet>) -> String {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // What follows can fail only by a mistake in the template, which every test would meet.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual marks do not clash"));
    environment.add_template("report.html", PAGE).expect("the template is valid");
    let page = page(set, baseline);
    environment
        .get_template("report.html")
        .and_then(|template| template.render(Serde(page)))
        .expect("it renders")
}

fn page(set: &RunSet, baseline: Option<&RunSet>) -> Page {
    let verdict = judge::of_set(set);
    Page {
        style: STYLE,
        title: format!("Redoubt lab: {}", verdict.words()),
        verdict: capital(verdict.words()),
        class: verdict.class(),
        headline: headline(set, verdict, str::to_owned),
        source: file::source(set),
        command: set.command.clone(),
        is_planted: set.build.planted_bug.is_some(),
        sums: sums(set),
        capacities: capacity::capacities(set),
        failures: failures::failures(set),
        vacuous: failures::vacuous(set),
        scenarios: scenarios::scenarios(set),
        measures: measures::measures(set, baseline),
        unmeasured: measures::unmeasured(set),
        table: measures::table(set),
        held: scenarios::held_courses(set),
        estates: estates::estates(set),
        hardware: estates::hardware(set),
        unreached: judge::unreached(set).into_iter().map(str::to_owned).collect(),
        unmet: judge::unmet(set).0.into_iter().map(str::to_owned).collect(),
        comparison: baseline.map(|baseline| compare::compare(set, baseline)),
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn sum(set: &RunSet, of: fn(&crate::model::Totals) -> u64) -> u64 {
    set.scenarios.iter().map(|scenario| of(&scenario.totals)).sum()
}

/// Returns the set in one sentence, in which `name` shows a name that somebody else gave.
pub(crate) fn headline(set: &RunSet, verdict: Verdict, name: fn(&str) -> String) -> String {
    let runs = sum(set, |totals| totals.runs);
    let known = judge::known(set);
    let failed = (runs - sum(set, |totals| totals.held)).saturating_sub(known);
    let but = match known {
        0 => String::new(),
        _ => format!(" {} failed in a way that is known.", text::of(known, "run")),
    };
    match verdict {
        Verdict::Held if runs == 0 => "Nothing was played.".into(),
        Verdict::Held => format!("Every promise held in {}.{but}", text::of(runs - known, "run")),
        Verdict::NeverSeen => {
            format!("Every run held, but not everything that was to be tried was ever reached.{but}")
        }
        _ => format!(
            "{} of {} did not hold{}.{but}",
            text::count(failed),
            text::of(runs, "run"),
            why(set, name)
        ),
    }
}

/// Returns how many causes failures have, and who spoke.
fn why(set: &RunSet, name: fn(&str) -> String) -> String {
    let causes = causes(set);
    let unknown = causes.iter().filter(|cause| cause.known.is_none());
    let mut oracles: Vec<String> = unknown.map(|cause| name(&cause.oracle)).collect();
    let many = oracles.len();
    oracles.dedup();
    match many {
        0 => String::new(),
        1 => format!(", for one cause: {}", oracles[0]),
        many => format!(", for {many} causes: {}", oracles.join(", ")),
    }
}

/// Returns what was played, as figures and their nouns.
pub(crate) fn sums(set: &RunSet) -> Vec<(String, &'static str)> {
    let simulated = sum(set, |totals| totals.simulated_ms);
    vec![
        (text::count(set.scenarios.len() as u64), "scenarios"),
        (text::count(sum(set, |totals| totals.runs)), "runs"),
        (text::duration(simulated), "simulated"),
        (text::count(sum(set, |totals| totals.operations)), "guest operations"),
        (text::count(sum(set, |totals| totals.points)), "recovery points restored and judged"),
    ]
}
