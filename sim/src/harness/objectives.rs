//! Objectives and promises with a time, judged from the record of a run.
//!
//! Each machine is judged by itself and the worst one decides: a fast machine does not pay for a slow one. The
//! figures are those of every simulated second, also of those in which nobody could be asked.

use super::record::Record;
use crate::plan::Due;
use crate::scenario::{Bound, Objective};
use redoubt_reports::model::Measure;

/// Returns each objective that was missed, with what was measured instead.
pub fn missed(record: &Record, objectives: &[Objective]) -> Vec<String> {
    let each =
        objectives.iter().flat_map(|objective| objective.bounds.iter().map(move |bound| (objective, bound)));
    each.filter_map(|(objective, bound)| judge(record, objective, bound)).collect()
}

/// Returns what the worst machine of some came to, and its name: the nearest rank at `percent`. None if nothing was
/// measured.
pub fn worst<'a>(
    record: &'a Record,
    measure: Measure,
    percent: u64,
    machines: &[String],
) -> Option<(u64, &'a str)> {
    let names = record.names().filter(|name| machines.is_empty() || machines.iter().any(|own| own == name));
    names.filter_map(|name| Some((rank(record.of_machine(measure, name), percent)?, name))).max()
}

fn judge(record: &Record, objective: &Objective, bound: &Bound) -> Option<String> {
    let text = &objective.text;
    let figure = match objective.measure {
        Measure::Converged => record.converged().map(|ms| (ms, "everything")),
        measure => worst(record, measure, objective.percent, &bound.machines),
    };
    let Some((worst, name)) = figure else {
        return Some(format!("{text}: it was never measured"));
    };
    let seconds = |ms: u64| format!("{} s", ms as f64 / 1000.0);
    let is_named = objective.text.contains("rpo");
    let limit = if is_named { format!(" (at most {})", seconds(bound.at_most)) } else { String::new() };
    (worst > bound.at_most).then(|| format!("{text}{limit}: {} of {name}", seconds(worst)))
}

/// Returns the value that this share of the values does not exceed: the nearest rank.
fn rank(mut values: Vec<u64>, percent: u64) -> Option<u64> {
    values.sort_unstable();
    let at = (values.len() as u64 * percent).div_ceil(100).max(1) as usize;
    values.get(at - 1).copied()
}

/// Returns the promises with a time that were not kept. A time behind the end of the record is not judged against:
/// what could not be seen counts as not kept.
pub fn overdue(record: &Record, due: &[Due]) -> Vec<String> {
    let mut lines = Vec::new();
    for due in due {
        let is_kept = |name: &String| record.is_protected(name, due.lag_at_most, due.from, due.until);
        let late: Vec<&str> = due.machines.iter().filter(|name| !is_kept(name)).map(String::as_str).collect();
        if !late.is_empty() {
            let (from, until) = (due.from as f64 / 1000.0, due.until as f64 / 1000.0);
            lines.push(format!("{}: not {} between {from} s and {until} s", due.text, late.join(", ")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::record::Seen;
    use super::*;
    use redoubt_reports::model::State;

    fn record(lags: &[(&str, &[u64])]) -> Record {
        let mut record = Record::default();
        for (name, lags) in lags {
            for (second, lag) in (1u64..).zip(*lags) {
                let state = if *lag > 5000 { State::Bitmap } else { State::Exact };
                let seen = Seen { state, lag_ms: Some(*lag), operations: 0, vaulted: 0, newest_cut: None };
                record.machine(name, second * 1000, Some(seen));
            }
        }
        record
    }

    fn objective(percent: u64, bounds: Vec<Bound>) -> Objective {
        Objective { text: "lag <= x".into(), measure: Measure::Lag, percent, bounds }
    }

    #[test]
    fn the_worst_machine_decides_and_is_named() {
        let record = record(&[("a", &[1, 2, 3, 4]), ("b", &[1, 1, 1, 900])]);
        let all = |at_most| vec![Bound { machines: Vec::new(), at_most }];
        assert_eq!(missed(&record, &[objective(100, all(899))]), ["lag <= x: 0.9 s of b"]);
        assert!(missed(&record, &[objective(100, all(900))]).is_empty());
        assert!(missed(&record, &[objective(50, all(2))]).is_empty(), "half of the seconds");
        let only = vec![Bound { machines: vec!["a".into()], at_most: 4 }];
        assert!(missed(&record, &[objective(100, only)]).is_empty(), "a group is judged by its own machines");
    }

    #[test]
    fn what_was_never_measured_is_no_success() {
        let none = objective(100, vec![Bound { machines: Vec::new(), at_most: 1 }]);
        assert_eq!(missed(&Record::default(), &[none]), ["lag <= x: it was never measured"]);
    }

    #[test]
    fn a_promise_with_a_time_is_kept_by_every_machine_of_the_group_or_not_at_all() {
        let record = record(&[("a", &[9000, 9000, 100]), ("b", &[100, 9000, 9000])]);
        let due = |machines: &[&str], from, until| Due {
            text: "protected(x)".into(),
            machines: machines.iter().map(|name| (*name).to_owned()).collect(),
            lag_at_most: 1000,
            from,
            until,
        };
        assert!(overdue(&record, &[due(&["a"], 1000, 3000)]).is_empty());
        assert_eq!(
            overdue(&record, &[due(&["a", "b"], 1000, 3000)]),
            ["protected(x): not b between 1 s and 3 s"]
        );
        assert!(overdue(&record, &[due(&["b"], 0, 1000)]).is_empty());
        assert!(!overdue(&record, &[due(&["a"], 3000, 9000)]).is_empty(), "nobody saw it");
    }
}
