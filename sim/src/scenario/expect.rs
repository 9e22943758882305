//! `[expect]`: objectives, oracles, promises, marks.
//!
//! What is *not* here: measuring and judging (`crate::harness::record`).

use super::codes::Code;
use super::keys::{EXPECT, Takes};
use super::problem::{Problem, advice};
use super::quantity::{Unit, parse_in};
use super::reader::Reader;
use super::timeline::Timeline;
use super::tree::Node;
use super::verbs::ORACLES;
use super::{Expect, Group, Promise, Since};
use redoubt_reports::model::Measure;
use std::collections::BTreeMap;

/// Everything that is measured, by name.
pub const MEASURES: &[(&str, Measure, &str)] = &[
    (
        "lag",
        Measure::Lag,
        "age of the oldest write that no process server holds; each machine, each simulated second",
    ),
    (
        "point-age",
        Measure::PointAge,
        "age of the newest recovery point in the vault; each machine, each simulated second of load",
    ),
    (
        "loss",
        Measure::Loss,
        "from the newest point that restores to the end of a site that is lost; each machine of it",
    ),
    ("resync", Measure::Resync, "length of a resync, the first copy included; each machine"),
    ("converged", Measure::Converged, "from the end of all faults until everything is in the vault; once"),
    (
        "mount",
        Measure::Mount,
        "until the newest point shows its first block at the recovery site; each machine, each `check = \"mounts\"`",
    ),
];

/// Which of the measured values counts.
pub const STATISTICS: &[(&str, u64)] = &[("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("max", 100)];

/// What will be measured one day.
const LATER: &[&str] = &["downtime", "rto"];

/// A limit for some machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Machines; all if empty.
    pub machines: Vec<String>,
    /// Milliseconds.
    pub at_most: u64,
}

/// A promise in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objective {
    /// As it is written.
    pub text: String,
    /// What is measured.
    pub measure: Measure,
    /// Share of the samples that must keep the bound, in percent.
    pub percent: u64,
    /// One bound for everybody, or one for each group.
    pub bounds: Vec<Bound>,
}

/// Reads `[expect]`.
pub(super) fn read(
    reader: &mut Reader,
    node: Option<&Node>,
    groups: &BTreeMap<String, Group>,
    timeline: &Timeline,
) -> Expect {
    let all = || ORACLES.iter().map(|name| (*name).to_owned()).collect();
    let mut expect = Expect { always: all(), converges_within: 60_000, ..Expect::default() };
    let Some(table) = node.and_then(|node| reader.place(node, &EXPECT)) else { return expect };
    if let Some(node) = table.get("always") {
        expect.always = words(reader, node, "always", "oracle");
    }
    if let Some(node) = table.get("sometimes") {
        expect.sometimes = words(reader, node, "sometimes", "mark");
    }
    for (node, text) in
        table.get("objectives").map(|node| reader.texts(node, "objectives")).unwrap_or_default()
    {
        let objective = objective(reader, node, text, groups, timeline);
        expect.objectives.extend(objective);
    }
    for (node, text) in
        table.get("eventually").map(|node| reader.texts(node, "eventually")).unwrap_or_default()
    {
        if let Some(bound) = text.strip_prefix("converges within ") {
            match parse_in(bound, Unit::Millis) {
                Ok(range) => expect.converges_within = range.low.max(0) as u64,
                Err(complaint) => reader.complain(node.part(bound), complaint),
            }
        } else if text.starts_with("protected(") {
            expect.protected.extend(protected(reader, node, text, groups, timeline));
        } else {
            let problem = Problem::new(Code::UnknownPromise, node.span, format!("unknown promise {text:?}"));
            let help = "write \"converges within 60 s\" or \"protected(GROUP) within 30 s of LABEL\"";
            reader.problem(problem.help(help));
        }
    }
    expect
}

fn words(reader: &mut Reader, node: &Node, key: &str, what: &str) -> Vec<String> {
    let takes = EXPECT.keys.iter().find(|known| known.name == key).map(|key| key.takes);
    let known = if let Some(Takes::Words(known)) = takes { known() } else { Vec::new() };
    let items = reader.list(node, key);
    items.iter().filter_map(|item| reader.word(item, what, &known)).map(str::to_owned).collect()
}

/// Reads `lag.p99 <= rpo + 15 s`.
fn objective(
    reader: &mut Reader,
    node: &Node,
    text: &str,
    groups: &BTreeMap<String, Group>,
    timeline: &Timeline,
) -> Option<Objective> {
    let Some((left, right)) = text.split_once("<=") else {
        let problem = Problem::new(Code::NoObjective, node.span, format!("{text:?} is no objective"));
        reader.problem(problem.help("write METRIC.STATISTIC <= BOUND, such as \"lag.p99 <= 30 s\""));
        return None;
    };
    let measured = metric(reader, node, left.trim(), timeline);
    let bounds = bounds(reader, node, right, groups);
    let (measure, percent) = measured?;
    Some(Objective { text: text.to_owned(), measure, percent, bounds: bounds? })
}

fn metric(reader: &mut Reader, node: &Node, left: &str, timeline: &Timeline) -> Option<(Measure, u64)> {
    let (name, statistic) = left.split_once('.').unwrap_or((left, ""));
    let names: Vec<&str> = MEASURES.iter().map(|(name, ..)| *name).collect();
    if LATER.contains(&name) {
        let what = format!("{name:?} is not measured yet: the lab fails no machine over");
        reader.report(Code::NotYet, node.part(name), what);
        return None;
    }
    let Some((_, measure, _)) = MEASURES.iter().find(|(known, ..)| *known == name) else {
        let what = format!("nothing is measured under the name {name:?}");
        reader.unknown(Code::UnknownMetric, node.part(name), what, name, &names);
        return None;
    };
    let statistics: Vec<&str> = STATISTICS.iter().map(|(name, _)| *name).collect();
    let Some((_, percent)) = STATISTICS.iter().find(|(known, _)| *known == statistic) else {
        let what = match statistic {
            "" => format!("{name:?} needs a statistic"),
            _ => format!("unknown statistic {statistic:?}"),
        };
        let place = if statistic.is_empty() { node.part(name) } else { node.part(statistic) };
        let help = format!("write {name}.{}", statistics.join(&format!(", {name}.")));
        reader.problem(Problem::new(Code::UnknownMetric, place, what).help(help));
        return None;
    };
    let never = match measure {
        Measure::Loss if !timeline.loses_site => "no site is lost in this story, so no loss is ever measured",
        Measure::Converged if timeline.loses_site => {
            "a site is lost for good in this story, so nothing converges"
        }
        Measure::Mount if !timeline.mounts => "no step of this story is check = \"mounts\"",
        _ => return Some((*measure, *percent)),
    };
    reader.report(Code::NeverMeasured, node.part(name), never);
    None
}

/// Reads the right side: durations and `rpo`, which differs from group to group.
fn bounds(
    reader: &mut Reader,
    node: &Node,
    right: &str,
    groups: &BTreeMap<String, Group>,
) -> Option<Vec<Bound>> {
    let (mut sum, mut has_rpo, told) = (0, false, reader.problems.len());
    for part in right.split('+').map(str::trim) {
        if part == "rpo" && !has_rpo {
            has_rpo = true;
        } else if part == "rto" {
            reader.report(Code::NotYet, node.part(part), "\"rto\" is not there yet: nothing fails over");
        } else {
            match parse_in(part, Unit::Millis) {
                Ok(range) if range.low == range.high && range.low >= 0 => sum += range.low as u64,
                Ok(_) => reader.report(Code::OutOfBounds, node.part(part), "a bound is one duration"),
                Err(complaint) => {
                    let help = "a bound is a duration, rpo, or a sum of both: \"rpo + 15 s\"";
                    let problem = Problem::new(complaint.code, node.part(part), complaint.what);
                    reader.problem(problem.help(help));
                }
            }
        }
    }
    let promised = groups.values().filter_map(|group| Some((group, group.rpo?)));
    let by_group: Vec<Bound> =
        promised.map(|(group, rpo)| Bound { machines: group.machines.clone(), at_most: rpo + sum }).collect();
    if has_rpo && by_group.is_empty() && reader.is_rpo_broken {
        return None;
    }
    if has_rpo && by_group.is_empty() {
        let problem = Problem::new(Code::NeverMeasured, node.span, "no group of [protect] promises an rpo");
        reader.problem(problem.help("add [protect.NAME] with machines = [\"*\"] and rpo = \"30 s\""));
    }
    if reader.problems.len() > told {
        return None;
    }
    Some(if has_rpo { by_group } else { vec![Bound { machines: Vec::new(), at_most: sum }] })
}

/// Reads `protected(erp) within 30 s of back`.
fn protected(
    reader: &mut Reader,
    node: &Node,
    text: &str,
    groups: &BTreeMap<String, Group>,
    timeline: &Timeline,
) -> Option<Promise> {
    let parts = text.strip_prefix("protected(").and_then(|rest| rest.split_once(')'));
    let parts =
        parts.and_then(|(group, rest)| Some((group, rest.strip_prefix(" within ")?.split_once(" of ")?)));
    let Some((group, (bound, label))) = parts else {
        let problem = Problem::new(Code::UnknownPromise, node.span, format!("{text:?} cannot be read"));
        reader.problem(problem.help("write \"protected(GROUP) within 30 s of LABEL\""));
        return None;
    };
    let told = reader.problems.len();
    match groups.get(group) {
        Some(found) if found.rpo.is_none() && reader.is_rpo_broken => return None,
        Some(found) if found.rpo.is_none() => {
            let what = format!("the group {group:?} promises no rpo, so nothing says when it is protected");
            reader.report(Code::NeverMeasured, node.part(group), what);
        }
        Some(_) => {}
        None => {
            let known: Vec<&str> = groups.keys().map(String::as_str).collect();
            let problem =
                Problem::new(Code::UnknownTarget, node.part(group), format!("no group is called {group:?}"));
            reader.problem(problem.help(advice(group, &known)));
        }
    }
    let at = parse_in(label, Unit::Millis).ok().filter(|range| range.low == range.high && range.low >= 0);
    if at.is_none() && !timeline.labels.iter().any(|known| known == label) {
        let known: Vec<&str> = timeline.labels.iter().map(String::as_str).collect();
        let what = format!("no step has the label {label:?}");
        reader.unknown(Code::UnknownLabel, node.part(label), what, label, &known);
    }
    let within = match parse_in(bound, Unit::Millis) {
        Ok(range) => range.low.max(0) as u64,
        Err(complaint) => {
            reader.complain(node.part(bound), complaint);
            return None;
        }
    };
    let since = at.map_or_else(|| Since::Label(label.to_owned()), |at| Since::At(at.low as u64));
    let promise = Promise { text: text.to_owned(), group: group.to_owned(), within, since };
    (reader.problems.len() == told).then_some(promise)
}
