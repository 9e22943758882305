//! What was measured, as curves over percentiles and as a table by scenario.

use super::axis::{Axis, Tick, percent};
use crate::model::{Measure, RunSet, Scenario};
use crate::samples::Samples;
use crate::svg::{Plane, WIDTH};
use crate::text;
use serde::Serialize;
use std::collections::BTreeSet;

/// Every measure, its name and what it is.
pub(super) const MEASURES: [(Measure, &str, &str); 6] = [
    (
        Measure::Lag,
        "Lag",
        "Age of the oldest write that no process server holds. Each machine, each simulated second; it goes on \
         growing while no agent runs or no order is promised.",
    ),
    (
        Measure::PointAge,
        "Age of the newest point",
        "What would be lost if the source were gone at that moment. Each machine, each simulated second.",
    ),
    (
        Measure::Loss,
        "Loss",
        "Of sites that were lost for good: from the newest recovery point that restores to the end of the site.",
    ),
    (Measure::Resync, "Resync", "Length of each resync, the first copy included."),
    (
        Measure::Converged,
        "Converged",
        "From the end of all faults until the vault has every machine to its last write. Each run.",
    ),
    (
        Measure::Mount,
        "Mount",
        "Until the newest recovery point shows its first block at the recovery site. Each machine, each time a \
         scenario asks for it; nothing fails over yet, so this is no downtime.",
    ),
];

/// Height of a plot.
const HEIGHT: f64 = 400.0;
/// The curve ends at this many nines.
const NINES: f64 = 3.0;
/// Places at which a curve is taken.
const PLACES: u32 = 60;
/// Percentiles with a tick.
const TICKS: [(f64, &str); 5] = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9 %")];
/// Objectives that are quoted.
const OBJECTIVES: usize = 3;
/// A promise so many times the longest duration would flatten the curve.
const FAR: u64 = 8;

#[derive(Serialize)]
pub(super) struct MeasureView {
    name: &'static str,
    what: &'static str,
    svg: String,
    ys: Vec<Tick>,
    xs: Vec<Tick>,
    rows: Vec<Figures>,
    promise: Option<(f64, String)>,
    /// What is to be known about the promise beside the line.
    promised: String,
    /// The scenario with the longest duration.
    worst: Option<(String, String)>,
    has_many: bool,
    has_baseline: bool,
}

/// A row of figures.
#[derive(Serialize)]
pub(super) struct Figures {
    label: String,
    samples: String,
    p50: String,
    p90: String,
    p99: String,
    max: String,
}

/// Figures of a scenario, one cell for each measure that any scenario has.
#[derive(Serialize)]
pub(super) struct Row {
    scenario: String,
    cells: Vec<Option<(String, String)>>,
    /// Bound of the time to converge: the only promise of this kind.
    promise: String,
}

#[derive(Serialize)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Row>,
}

/// Adds up a measure over all scenarios.
pub(super) fn pooled(set: &RunSet, measure: Measure) -> Samples {
    let mut all = Samples::default();
    set.scenarios.iter().filter_map(|scenario| scenario.measured.get(&measure)).for_each(|one| all.add(one));
    all
}

pub(super) fn measures(set: &RunSet, baseline: Option<&RunSet>) -> Vec<MeasureView> {
    let views = MEASURES.iter().map(|(measure, name, what)| {
        let all = pooled(set, *measure);
        let before = baseline.map(|set| pooled(set, *measure)).filter(|all| all.count() > 0);
        (all.count() > 0).then(|| view(set, (*measure, name, what), &all, before.as_ref()))
    });
    views.flatten().collect()
}

/// Returns the names of what no run measured.
pub(super) fn unmeasured(set: &RunSet) -> Vec<&'static str> {
    let is_empty = |measure: Measure| pooled(set, measure).count() == 0;
    MEASURES.iter().filter(|(measure, ..)| is_empty(*measure)).map(|(_, name, _)| *name).collect()
}

fn view(
    set: &RunSet,
    (measure, name, what): (Measure, &'static str, &'static str),
    all: &Samples,
    before: Option<&Samples>,
) -> MeasureView {
    let max = all.max().max(before.and_then(Samples::max)).unwrap_or(0);
    let (promise, promised) = promise(set, measure);
    let drawn = promise.filter(|promise| *promise <= max.saturating_mul(FAR));
    let axis = Axis::rounded(max.max(drawn.unwrap_or(0)), 5);
    let mut plane = Plane::new(HEIGHT);
    for tick in axis.ticks() {
        let y = HEIGHT * (1.0 - tick.at / 100.0);
        plane.line(&[(0.0, y), (WIDTH, y)], "grid");
    }
    let own: Vec<(&Scenario, &Samples)> =
        set.scenarios.iter().filter_map(|one| Some((one, one.measured.get(&measure)?))).collect();
    if own.len() > 1 {
        own.iter().for_each(|(_, samples)| plane.line(&curve(&axis, samples), "one"));
    }
    if let Some(before) = before {
        plane.line(&curve(&axis, before), "before");
    }
    plane.line(&curve(&axis, all), "all");
    if let Some(promise) = drawn {
        let y = HEIGHT * (1.0 - axis.share(promise));
        plane.line(&[(0.0, y), (WIDTH, y)], "promise");
    }
    let worst = own.iter().max_by_key(|(_, samples)| samples.max());
    let rows = [Some(figures("this set", all)), before.map(|before| figures("baseline", before))];
    MeasureView {
        name,
        what,
        svg: plane.finish("curve"),
        ys: axis.ticks(),
        xs: TICKS.map(|(share, label)| Tick { at: percent(place(share)), label: label.into() }).into(),
        rows: rows.into_iter().flatten().collect(),
        promise: drawn.map(|promise| (percent(axis.share(promise)), round(promise))),
        promised,
        worst: worst
            .filter(|_| own.len() > 1)
            .map(|(scenario, samples)| (scenario.name.clone(), text::duration(samples.max().unwrap_or(0)))),
        has_many: own.len() > 1,
        has_baseline: before.is_some(),
    }
}

/// Returns the promise if all scenarios have the same, and what to say of it.
fn promise(set: &RunSet, measure: Measure) -> (Option<u64>, String) {
    if measure != Measure::Converged {
        return objective(set, measure);
    }
    let promises = set.scenarios.iter().map(|scenario| scenario.promises.converges_ms);
    match (promises.clone().min(), promises.max()) {
        (Some(low), Some(high)) if low == high => (Some(low), format!("Promised within {}.", round(low))),
        (Some(low), Some(high)) => {
            let (low, high) = (round(low), round(high));
            (None, format!("Promised within {low} to {high}: each scenario is held to its own."))
        }
        _ => (None, String::new()),
    }
}

/// Returns the bound of the objectives about a measure if there is only one, and what to say of them.
fn objective(set: &RunSet, measure: Measure) -> (Option<u64>, String) {
    let all = set.scenarios.iter().flat_map(|scenario| &scenario.promises.objectives);
    let own: Vec<_> = all.filter(|objective| objective.measure == measure).collect();
    let texts: BTreeSet<&str> = own.iter().map(|objective| objective.text.as_str()).collect();
    let bounds: BTreeSet<u64> = own.iter().flat_map(|objective| &objective.at_most_ms).copied().collect();
    let all = texts.iter().take(OBJECTIVES).copied().collect::<Vec<_>>().join(", ");
    match (texts.len(), bounds.first().filter(|_| bounds.len() == 1)) {
        (0, _) => (None, "No scenario of this set promises a bound for it.".into()),
        (1, Some(bound)) => (Some(*bound), format!("Promised: {all}.")),
        (1, None) => (None, format!("Promised: {all}; each group is held to its own bound.")),
        (..=OBJECTIVES, bound) => {
            (bound.copied(), format!("Promised: {all}; each scenario is held to its own."))
        }
        (many, _) => (
            None,
            format!("Promised: {all} and {} more; each scenario is held to its own.", many - OBJECTIVES),
        ),
    }
}

/// Promises are round.
fn round(ms: u64) -> String {
    text::tick(ms, ms)
}

/// Returns where a share of samples stands: each nine takes the same room.
fn place(share: f64) -> f64 {
    ((1.0 / (1.0 - share)).log10() / NINES).min(1.0)
}

fn curve(axis: &Axis, samples: &Samples) -> Vec<(f64, f64)> {
    let at = |place: u32| {
        let x = f64::from(place) / f64::from(PLACES);
        let share = 1.0 - 10f64.powf(-x * NINES);
        let value = samples.quantile(share).unwrap_or(0);
        (x * WIDTH, HEIGHT * (1.0 - axis.share(value)))
    };
    (0..=PLACES).map(at).collect()
}

pub(super) fn figures(label: &str, samples: &Samples) -> Figures {
    let at = |share| samples.quantile(share).map_or_else(|| "–".to_owned(), text::duration);
    Figures {
        label: label.to_owned(),
        samples: text::count(samples.count()),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        max: at(1.0),
    }
}

pub(super) fn table(set: &RunSet) -> Table {
    let present: Vec<(Measure, &'static str)> = MEASURES
        .iter()
        .filter(|(measure, ..)| pooled(set, *measure).count() > 0)
        .map(|(measure, name, _)| (*measure, *name))
        .collect();
    let cell = |scenario: &Scenario, measure| {
        let samples = scenario.measured.get(&measure).filter(|samples| samples.count() > 0)?;
        Some((text::duration(samples.quantile(0.99)?), text::duration(samples.max()?)))
    };
    let rows = set.scenarios.iter().map(|scenario| Row {
        scenario: scenario.name.clone(),
        cells: present.iter().map(|(measure, _)| cell(scenario, *measure)).collect(),
        promise: round(scenario.promises.converges_ms),
    });
    Table { rows: rows.collect(), header: present.into_iter().map(|(_, name)| name).collect() }
}
