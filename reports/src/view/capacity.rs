//! Capacity: of each group what was measured against what is promised, and the links that were tried.

use super::axis::{Axis, Tick};
use crate::capacity::{Capacity, Group, Link, Places};
use crate::model::{RunSet, Scenario};
use crate::svg::{Plane, WIDTH};
use crate::text;
use serde::Serialize;

/// Height of a bar.
const HEIGHT: f64 = 10.0;
/// Most ticks under the bars.
const TICKS: u64 = 4;
/// A promise so many times the longest duration is told and not drawn: it would leave no room for the bars.
const FAR: u64 = 20;

#[derive(Serialize)]
pub(super) struct CapacityView {
    scenario: String,
    class: &'static str,
    headline: String,
    others: Vec<String>,
    how: String,
    promised: Vec<String>,
    measures: Vec<Distribution>,
    links: Vec<LinkView>,
}

/// One measure of all groups.
#[derive(Serialize)]
struct Distribution {
    name: &'static str,
    what: &'static str,
    rows: Vec<Row>,
    ticks: Vec<Tick>,
}

#[derive(Serialize)]
struct Row {
    group: String,
    who: String,
    promised: String,
    svg: String,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    words: String,
    /// Whether it is longer than what is promised.
    is_over: bool,
}

#[derive(Serialize)]
struct LinkView {
    rate: String,
    class: &'static str,
    verdict: String,
    lag: String,
    loss: String,
    missed: String,
    notes: Vec<&'static str>,
}

/// A measure: its name, what it is, where it stands, and whether `rpo` bounds it.
type Kind = (&'static str, &'static str, fn(&Group) -> Option<Places>, bool);

const KINDS: [Kind; 3] = [
    ("Lag", "What no process server holds; each machine, each second.", |group| group.lag_ms, true),
    (
        "Loss",
        "What a disaster at a random second would lose: the age of the newest point in the vault. Each machine, each second.",
        |group| group.loss_ms,
        true,
    ),
    (
        "Mount",
        "Until the newest point shows its first block at the recovery site. Nothing fails over yet, so this is all that \
         is known of downtime.",
        |group| group.mount_ms,
        false,
    ),
];

pub(super) fn capacities(set: &RunSet) -> Vec<CapacityView> {
    set.scenarios.iter().filter_map(|scenario| Some(view(scenario, scenario.capacity.as_ref()?))).collect()
}

fn view(scenario: &Scenario, capacity: &Capacity) -> CapacityView {
    let mut words = capacity.words().into_iter().map(sentence);
    let headline = words.next().unwrap_or_default();
    CapacityView {
        scenario: capacity.scenario.clone(),
        class: if capacity.given.is_kept { "held" } else { "missed" },
        headline,
        others: words.collect(),
        how: how(capacity),
        promised: scenario.promises.objectives.iter().map(|objective| objective.text.clone()).collect(),
        measures: KINDS.iter().filter_map(|kind| distribution(capacity, kind)).collect(),
        links: capacity.tried.iter().map(|link| link_view(capacity, link)).collect(),
    }
}

fn sentence(words: String) -> String {
    format!("{}.", super::capital(&words))
}

fn how(capacity: &Capacity) -> String {
    let simulated = text::duration(capacity.simulated_s * 1000);
    let seeds = text::of(capacity.seeds, "seed");
    let scale = match capacity.scale {
        0 | 1 => String::new(),
        by => format!(
            " It was played at 1/{by}: sizes and rates were divided by {by}, and all of them are shown here as they are in the \
             whole estate. Lag, loss and mount are times, which no scale changes; they are no finer than {}.",
            text::duration(capacity.finest_ms)
        ),
    };
    format!("{simulated} of {}, {seeds} on each link.{scale}", capacity.scenario)
}

fn distribution(capacity: &Capacity, (name, what, of, is_held): &Kind) -> Option<Distribution> {
    let groups: Vec<(&Group, Places)> =
        capacity.groups.iter().filter_map(|group| Some((group, of(group)?))).collect();
    let longest = groups.iter().map(|(_, places)| places.max).max()?;
    let promised = |group: &Group| group.rpo_ms.filter(|_| *is_held);
    let drawn = groups.iter().filter_map(|(group, _)| promised(group)).filter(|rpo| *rpo / FAR <= longest);
    let axis = Axis::rounded(longest.max(drawn.max().unwrap_or(0)), TICKS);
    let rows = groups.iter().map(|(group, places)| row(&axis, group, *places, promised(group)));
    Some(Distribution { name, what, rows: rows.collect(), ticks: axis.ticks() })
}

fn row(axis: &Axis, group: &Group, places: Places, promised: Option<u64>) -> Row {
    let x = |ms: u64| axis.share(ms) * WIDTH;
    let shown = [("p50", places.p50), ("p95", places.p95), ("p99", places.p99), ("max", places.max)];
    let mut plane = Plane::new(HEIGHT);
    // The widest first: each part lies on the ones that it is a part of.
    for (name, ms) in shown.iter().rev() {
        plane.bar(0.0, x(*ms), name, &format!("{name} {}", text::duration(*ms)));
    }
    if let Some(rpo) = promised.filter(|rpo| *rpo <= axis.top) {
        plane.upright(x(rpo).min(WIDTH - 1.0), "promise");
    }
    let figure = |(name, ms): (&'static str, u64)| Figure {
        name,
        words: text::duration(ms),
        is_over: promised.is_some_and(|rpo| ms > rpo),
    };
    let machines = text::of(group.machines, "machine");
    Row {
        group: group.name.clone(),
        who: format!("{machines}, {}/s written", text::bytes(group.writes)),
        promised: promised.map_or_else(|| "–".to_owned(), |rpo| text::tick(rpo, rpo)),
        svg: plane.finish("lane span"),
        figures: shown.map(figure).into(),
    }
}

fn link_view(capacity: &Capacity, link: &Link) -> LinkView {
    let figure = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), text::duration);
    let mut notes = Vec::new();
    notes.extend((capacity.smallest == Some(link.link)).then_some("the smallest that keeps it"));
    notes.extend((capacity.link == link.link).then_some("as it is"));
    notes.extend(link.is_crowded.then_some("sessions ended of silence"));
    LinkView {
        rate: text::rate(link.link),
        class: if link.is_kept { "held" } else { "missed" },
        verdict: if link.is_kept { "kept".to_owned() } else { link.verdict.clone() },
        lag: figure(link.lag_p99_ms),
        loss: figure(link.loss_p99_ms),
        missed: link.missed.first().and_then(|missed| missed.lines().next()).unwrap_or("–").to_owned(),
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_promised_is_marked_and_a_far_promise_leaves_room() {
        let places = Places { p50: 100, p95: 2000, p99: 31_000, max: 90_000 };
        let axis = Axis::rounded(90_000, TICKS);
        let row = row(&axis, &Group::default(), places, Some(30_000));
        assert_eq!(
            row.figures.iter().map(|figure| figure.is_over).collect::<Vec<_>>(),
            [false, false, true, true]
        );
        assert!(row.svg.contains("class=\"promise\""), "{}", row.svg);
        let group = Group { rpo_ms: Some(86_400_000), lag_ms: Some(places), ..Group::default() };
        let capacity = Capacity { groups: vec![group], ..Capacity::default() };
        let far = distribution(&capacity, &KINDS[0]).unwrap();
        assert!(!far.rows[0].svg.contains("promise"), "{}", far.rows[0].svg);
        assert_eq!(far.rows[0].promised, "24\u{a0}h");
        assert!(distribution(&capacity, &KINDS[1]).is_none(), "nothing was measured");
    }
}
