//! Gathers outcomes into the set of runs that reports are made from.
//!
//! Memory is bounded however long a sweep goes on: of runs that held only figures are kept beyond [`RUNS_MAX`], and
//! courses of few runs. Which ones does not depend on the order in which runs end.

use super::capsules::hosts;
use super::{build, hardware, pool};
use crate::harness::{Outcome, Verdict};
use crate::lanes::split;
use crate::plan::{self, Plan};
use crate::scenario::verbs::{MARKS, VERBS};
use crate::scenario::{Load, ORACLE_WORDS, Objective, Scenario, carries, finest};
use redoubt_reports::model::{self, Course, Event, Finding, Known, Run, RunSet};
use std::collections::{BTreeMap, BTreeSet};

/// Runs of one scenario that are kept one by one; those that failed always are, up to twice as many.
const RUNS_MAX: usize = 2000;

/// Machines whose course is kept; of more, those with the longest lag.
const COURSES_MAX: usize = 24;

/// Causes of failure of which a run is kept with its course and events.
const CAUSES_MAX: usize = 20;

/// Events that are shown before a finding, and with it.
const EVENTS: usize = 12;

/// The oracle and its words, without what differs from run to run.
type Cause = (String, String);

/// A set of runs under way.
pub(super) struct Gather {
    set: RunSet,
    /// Of each scenario the run whose course is kept: the longest lag, then the lowest seed.
    longest: Vec<Option<(u64, u64)>>,
    /// Of each cause the first run, by scenario and seed.
    causes: BTreeMap<Cause, (usize, u64)>,
}

impl Gather {
    /// Begins a set that a command plays.
    pub(super) fn new(scenarios: &[Scenario], command: String) -> Gather {
        let set = RunSet {
            format: model::FORMAT,
            command,
            build: build::build(),
            marks: MARKS.iter().map(|mark| (*mark).to_owned()).collect(),
            faults: VERBS
                .iter()
                .filter(|verb| verb.key == "fault")
                .map(|verb| verb.name.to_owned())
                .collect(),
            oracles: ORACLE_WORDS.iter().map(|(name, says)| ((*name).into(), (*says).into())).collect(),
            scenarios: scenarios.iter().map(scenario).collect(),
        };
        Gather { set, longest: vec![None; scenarios.len()], causes: BTreeMap::new() }
    }

    /// Adds a run; one that failed may be known.
    pub(super) fn take(&mut self, index: usize, played: &Scenario, outcome: &Outcome, known: Option<Known>) {
        let scenario = &mut self.set.scenarios[index];
        let is_held = outcome.verdict() == Verdict::Held;
        let (totals, stats) = (&mut scenario.totals, &outcome.stats);
        totals.runs += 1;
        totals.held += u64::from(is_held);
        totals.simulated_ms += stats.simulated;
        totals.operations += stats.operations;
        totals.points += stats.points;
        for mark in &outcome.marks {
            *scenario.reached.entry((*mark).to_owned()).or_default() += 1;
        }
        let plan = plan::draw(played, outcome.seed);
        for fault in turned(&plan) {
            let met = scenario.faults.entry(fault.to_owned()).or_default();
            met.turned += 1;
            met.bit += u64::from(outcome.bites.contains_key(fault));
        }
        for (measure, samples) in outcome.record.measured() {
            scenario.measured.entry(measure).or_default().add(&samples);
        }
        let room = if is_held { RUNS_MAX } else { 2 * RUNS_MAX };
        if scenario.runs.len() < room {
            scenario.runs.push(Run { known, ..run(outcome) });
            self.keep_course(index, played, outcome);
        }
    }

    /// Keeps the course of a run if it is the one to be shown, and forgets the one before it.
    fn keep_course(&mut self, index: usize, played: &Scenario, outcome: &Outcome) {
        let seed = outcome.seed;
        let before = match outcome.cause() {
            None => {
                let lag = outcome.record.lag_max_ms();
                let is_longest = |(known, first): (u64, u64)| lag > known || lag == known && seed < first;
                if !self.longest[index].is_none_or(is_longest) {
                    return;
                }
                self.longest[index].replace((lag, seed)).map(|(_, seed)| (index, seed))
            }
            Some((oracle, what)) => {
                let hosts = hosts(played);
                let key = redoubt_reports::key(&Finding { oracle, what }, &hosts);
                let is_full = self.causes.len() >= CAUSES_MAX;
                match self.causes.get(&key) {
                    None if is_full => return,
                    Some(known) if *known <= (index, seed) => return,
                    _ => self.causes.insert(key, (index, seed)),
                }
            }
        };
        if let Some(run) = before.and_then(|(index, seed)| self.find(index, seed)) {
            run.course = None;
        }
        let course = course(played, outcome);
        if let Some(run) = self.find(index, seed) {
            run.course = Some(course);
        }
    }

    fn find(&mut self, index: usize, seed: u64) -> Option<&mut Run> {
        // Newest first: the one that is looked for most was added last.
        self.set.scenarios[index].runs.iter_mut().rev().find(|run| run.seed == seed)
    }

    /// Ends the set: a run of each cause is played again for its trace, runs are put in order.
    pub(super) fn finish(mut self, scenarios: &[Scenario]) -> RunSet {
        for (index, seed) in std::mem::take(&mut self.causes).into_values() {
            let trace = pool::one(&scenarios[index], seed, true).trace;
            if let Some(course) = self.find(index, seed).and_then(|run| run.course.as_mut()) {
                course.events = events(&trace);
                course.found_ms = course.found_ms.or(course.events.last().map(|event| event.at_ms));
            }
        }
        self.set.scenarios.retain(|scenario| scenario.totals.runs > 0);
        self.set.scenarios.iter_mut().for_each(|scenario| scenario.runs.sort_by_key(|run| run.seed));
        self.set
    }
}

fn load(load: &Load) -> String {
    let rate = match load.writes {
        Some(writes) => format!("{}/s", writes.words()),
        None => format!("{} op/s", between(load.rate)),
    };
    let day = load.day.map(|day| format!(", {day}")).unwrap_or_default();
    format!("{}, {rate}{day}, {} at once", load.model, between(load.jobs))
}

fn between(range: crate::scenario::Range) -> String {
    if range.low == range.high { range.low.to_string() } else { format!("{} to {}", range.low, range.high) }
}

fn scenario(scenario: &Scenario) -> model::Scenario {
    let estate = &scenario.estate;
    let machine = |alike: &crate::scenario::Alike<'_>| model::Machine {
        name: alike.name.clone(),
        disks: alike.machine.disks.clone(),
        load: scenario.loads.get(&alike.machine.name).map(load).unwrap_or_default(),
    };
    let server = |server: &crate::scenario::ServerSpec| model::Server {
        name: server.name.clone(),
        site: server.site.clone(),
    };
    let bounds = [("spool in memory", estate.spool_memory), ("spill", estate.spill), ("stage", estate.stage)];
    model::Scenario {
        name: scenario.name.clone(),
        title: scenario.title.clone(),
        why: scenario.why.clone(),
        tags: scenario.tags.clone(),
        seeds_asked: scenario.seeds.pr,
        promises: model::Promises {
            converges_ms: scenario.expect.converges_within,
            points_every_ms: estate.point_every,
            always: scenario.expect.always.clone(),
            sometimes: scenario.expect.sometimes.clone(),
            objectives: scenario.expect.objectives.iter().map(objective).collect(),
        },
        estate: model::Estate {
            machines: crate::scenario::alike(scenario).iter().map(machine).collect(),
            servers: estate.servers.iter().map(server).collect(),
            hardware: hardware::of(estate),
            bounds: bounds.map(|(name, size)| (name.to_owned(), size)).into(),
            scale: (estate.scale > 1)
                .then(|| model::Scale { by: estate.scale, finest_ms: finest(estate, carries(estate)) }),
        },
        ..model::Scenario::default()
    }
}

fn objective(objective: &Objective) -> model::Objective {
    model::Objective {
        text: objective.text.clone(),
        measure: objective.measure,
        at_most_ms: objective.bounds.iter().map(|bound| bound.at_most).collect(),
    }
}

fn run(outcome: &Outcome) -> Run {
    Run {
        seed: outcome.seed,
        verdict: match outcome.verdict() {
            Verdict::Held => model::Verdict::Held,
            Verdict::NeverSeen => model::Verdict::NeverSeen,
            Verdict::Missed => model::Verdict::Missed,
            Verdict::NotConverged => model::Verdict::NotConverged,
            Verdict::Broken | Verdict::NotDeterministic => model::Verdict::Broken,
            Verdict::Crashed => model::Verdict::Crashed,
        },
        digest: outcome.digest.clone(),
        replay: pool::replay_line(outcome),
        simulated_ms: outcome.stats.simulated,
        lag_max_ms: outcome.record.lag_max_ms(),
        findings: super::complaint::causes(outcome)
            .into_iter()
            .map(|(oracle, what)| Finding { oracle, what })
            .collect(),
        known: None,
        course: None,
    }
}

/// Returns the faults of a plan.
pub(super) fn turned(plan: &Plan) -> BTreeSet<&'static str> {
    plan::steps(plan).into_iter().filter(|step| step.key == "fault").map(|step| step.verb).collect()
}

fn course(scenario: &Scenario, outcome: &Outcome) -> Course {
    let plan = plan::draw(scenario, outcome.seed);
    let (mut machines, servers) = outcome.record.tracks();
    if machines.len() > COURSES_MAX {
        machines.sort_by_cached_key(|track| std::cmp::Reverse(track.lag_ms.iter().max().copied()));
        machines.truncate(COURSES_MAX);
        machines.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Course {
        faults: plan::faults(&plan),
        lifted_ms: outcome.record.lifted_ms.unwrap_or(plan.length),
        drawn: plan.drawn,
        machines,
        servers,
        events: Vec::new(),
        found_ms: outcome.record.found_ms,
    }
}

/// Returns the last lines of a trace up to the first finding, or up to its end; equal ones in a row are one.
fn events(trace: &[String]) -> Vec<Event> {
    let end =
        trace.iter().position(|line| line.contains(super::complaint::FOUND)).map_or(trace.len(), |at| at + 1);
    let mut events: Vec<Event> = Vec::new();
    for (at_ms, what) in trace[..end].iter().filter_map(|line| split(line)) {
        match events.last_mut() {
            Some(last) if last.what == what => last.times += 1,
            _ => events.push(Event { at_ms, what: what.to_owned(), times: 1 }),
        }
    }
    events.split_off(events.len().saturating_sub(EVENTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_before_a_finding_are_few_and_equal_ones_are_counted() {
        let mut trace: Vec<String> = (0..40).map(|n| format!("{n:>10}.250 s  event {n}")).collect();
        trace[19] = "    19.000 s  event 18".to_owned();
        trace[20] = "    20.000 s  found by prefix: x".to_owned();
        let events = events(&trace);
        assert_eq!(events.len(), EVENTS);
        let last = &events[EVENTS - 2..];
        assert_eq!((last[0].what.as_str(), last[0].times, last[0].at_ms), ("event 18", 2, 18_250));
        assert_eq!(last[1].what, "found by prefix: x");
    }
}
