//! What is other than in an earlier set: verdicts, figures, what is reached, and whether equal seeds still
//! are equal runs.

use super::measures::{MEASURES, pooled};
use crate::file;
use crate::judge;
use crate::model::{RunSet, Scenario, Verdict};
use crate::text;
use serde::Serialize;
use std::collections::BTreeMap;

/// Seeds named one by one.
const NAMED: usize = 12;

#[derive(Serialize)]
pub(super) struct Comparison {
    source: String,
    command: String,
    /// One sentence.
    summary: String,
    class: &'static str,
    verdicts: Vec<Change>,
    figures: Vec<Figure>,
    lost_marks: Vec<(String, String)>,
    only_here: Vec<String>,
    only_there: Vec<String>,
    /// How many runs are in both, and how many of them are the same to the last event.
    same: String,
}

/// A scenario that came to something else.
#[derive(Serialize)]
struct Change {
    scenario: String,
    before: &'static str,
    before_class: &'static str,
    after: &'static str,
    after_class: &'static str,
    seeds: String,
}

/// A measure then and now.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    p99: [String; 2],
    max: [String; 2],
    change: String,
    class: &'static str,
}

pub(super) fn compare(set: &RunSet, baseline: &RunSet) -> Comparison {
    let before: BTreeMap<&str, &Scenario> = by_name(baseline);
    let after = by_name(set);
    let both: Vec<(&Scenario, &Scenario)> =
        after.iter().filter_map(|(name, now)| Some((*before.get(name)?, *now))).collect();
    let verdicts: Vec<Change> = both.iter().filter_map(|(then, now)| change(then, now)).collect();
    let (worse, better) = both.iter().fold((0, 0), |(worse, better), (then, now)| {
        let (then, now) = (judge::of_scenario(then), judge::of_scenario(now));
        (worse + u64::from(now > then), better + u64::from(now < then))
    });
    let missing = |these: &BTreeMap<&str, &Scenario>, there: &BTreeMap<&str, &Scenario>| {
        these.keys().filter(|name| !there.contains_key(*name)).map(|name| (*name).to_owned()).collect()
    };
    Comparison {
        source: file::source(baseline),
        command: baseline.command.clone(),
        summary: summary(worse, better),
        class: if worse > 0 { "broken" } else { "held" },
        verdicts,
        figures: MEASURES
            .iter()
            .filter_map(|(measure, name, _)| {
                figure(name, &pooled(baseline, *measure), &pooled(set, *measure))
            })
            .collect(),
        lost_marks: both.iter().flat_map(|(then, now)| lost_marks(then, now)).collect(),
        only_here: missing(&after, &before),
        only_there: missing(&before, &after),
        same: same(&both),
    }
}

fn by_name(set: &RunSet) -> BTreeMap<&str, &Scenario> {
    set.scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario)).collect()
}

fn summary(worse: u64, better: u64) -> String {
    match (worse, better) {
        (0, 0) => "No scenario came to another verdict.".into(),
        (0, better) => format!("{} better, none worse.", text::of(better, "scenario")),
        (worse, 0) => format!("{} worse, none better.", text::of(worse, "scenario")),
        (worse, better) => format!("{} worse, {better} better.", text::of(worse, "scenario")),
    }
}

fn change(then: &Scenario, now: &Scenario) -> Option<Change> {
    let (before, after) = (judge::of_scenario(then), judge::of_scenario(now));
    let seeds = seeds(then, now);
    (before != after || !seeds.is_empty()).then(|| Change {
        scenario: now.name.clone(),
        before: before.words(),
        before_class: before.class(),
        after: after.words(),
        after_class: after.class(),
        seeds,
    })
}

/// Names the seeds in both sets that came to another verdict, by what they came to.
fn seeds(then: &Scenario, now: &Scenario) -> String {
    let before: BTreeMap<u64, Verdict> = then.runs.iter().map(|run| (run.seed, run.verdict)).collect();
    let mut changes: BTreeMap<(Verdict, Verdict), Vec<String>> = BTreeMap::new();
    for run in &now.runs {
        if let Some(verdict) = before.get(&run.seed).filter(|verdict| **verdict != run.verdict) {
            changes.entry((*verdict, run.verdict)).or_default().push(run.seed.to_string());
        }
    }
    let words = changes.into_iter().map(|((before, after), seeds)| {
        let more = seeds.len().saturating_sub(NAMED);
        let named = seeds[..seeds.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{} → {}: {named}{more}", before.words(), after.words())
    });
    words.collect::<Vec<_>>().join("; ")
}

fn figure(name: &'static str, then: &crate::Samples, now: &crate::Samples) -> Option<Figure> {
    let at = |samples: &crate::Samples, share| samples.quantile(share);
    let (before, after) = (at(then, 0.99)?, at(now, 0.99)?);
    let percent = (after as f64 - before as f64) / before.max(1) as f64 * 100.0;
    let (change, class) = match (before == after, percent.round() as i64) {
        (true, _) => ("equal".to_owned(), "same"),
        (false, percent) if percent > 0 => (format!("+{percent}\u{a0}%"), "worse"),
        (false, percent) => (format!("−{}\u{a0}%", percent.abs()), "better"),
    };
    let words = |share| [then, now].map(|s| at(s, share).map(text::duration).unwrap_or_default());
    Some(Figure { name, p99: words(0.99), max: words(1.0), change, class })
}

/// Returns what a scenario reached then and does not now.
fn lost_marks(then: &Scenario, now: &Scenario) -> Vec<(String, String)> {
    let lost = then.reached.keys().filter(|mark| !now.reached.contains_key(*mark));
    lost.map(|mark| (now.name.clone(), mark.clone())).collect()
}

fn same(both: &[(&Scenario, &Scenario)]) -> String {
    let (mut shared, mut equal) = (0, 0);
    for (then, now) in both {
        let before: BTreeMap<u64, &str> = then.runs.iter().map(|run| (run.seed, &*run.digest)).collect();
        for run in &now.runs {
            if let Some(digest) = before.get(&run.seed) {
                shared += 1;
                equal += u64::from(*digest == run.digest);
            }
        }
    }
    format!("{} in both sets; {} equal to the last event.", text::of(shared, "run"), text::count(equal))
}
