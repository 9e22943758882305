//! Plays a set of runs and says what it came to: one line for each scenario, one verdict for all.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, runs on a real clock")]

use super::capsules::Shelf;
use super::ci::Excuses;
use super::gather::Gather;
use super::memory::Memory;
use super::{complaint, paint, pool};
use crate::harness::{Outcome, Stats, Verdict};
use crate::scenario::Scenario;
use std::collections::BTreeSet;
use std::time::Instant;

/// What the seeds of one scenario came to.
pub(super) struct Line {
    pub(super) runs: u64,
    /// Those that failed in a way that is known.
    known: u64,
    verdict: Verdict,
    stats: Stats,
    marks: BTreeSet<&'static str>,
    seconds: f64,
}

impl Line {
    fn new() -> Line {
        Line {
            runs: 0,
            known: 0,
            verdict: Verdict::Held,
            stats: Stats::default(),
            marks: BTreeSet::new(),
            seconds: 0.0,
        }
    }

    fn take(&mut self, outcome: &Outcome, seconds: f64, is_known: bool) {
        self.runs += 1;
        if is_known {
            self.known += 1;
        } else {
            self.verdict = self.verdict.max(outcome.verdict());
        }
        self.stats += outcome.stats;
        self.marks.extend(&outcome.marks);
        self.seconds += seconds;
    }
}

impl Line {
    /// What was to be seen sometimes and never was fails a line that held.
    fn judge_what_is_seldom(&mut self, scenario: &Scenario) {
        let marks = scenario.expect.sometimes.iter().map(String::as_str);
        let missing: Vec<&str> = marks.filter(|mark| !self.marks.contains(mark)).collect();
        // Fewer seeds than the file asks for prove nothing about what is seldom.
        let is_judged = self.runs >= scenario.seeds.pr;
        if is_judged && !missing.is_empty() && self.verdict == Verdict::Held {
            self.verdict = Verdict::NeverSeen;
            println!("{}: never seen in {} seeds: {}", scenario.name, self.runs, missing.join(", "));
        }
    }
}

/// How a set is played.
pub(super) struct Playing<'a> {
    /// Runs at once.
    pub(super) jobs: usize,
    /// When no other run is begun.
    pub(super) until: Option<Instant>,
    /// What is made of the outcomes.
    pub(super) gather: Option<&'a mut Gather>,
    /// Where capsules go.
    pub(super) shelf: Shelf,
    /// Failures that are known.
    pub(super) excuses: &'a mut Excuses,
}

/// Plays all tasks.
pub(super) fn play(
    scenarios: &[Scenario],
    tasks: &[pool::Task],
    playing: Playing<'_>,
) -> Result<Vec<Line>, u8> {
    let Playing { jobs, until, mut gather, mut shelf, excuses } = playing;
    let mut lines: Vec<Line> = scenarios.iter().map(|_| Line::new()).collect();
    let mut explained = BTreeSet::new();
    let mut memory = Memory::default();
    pool::many(scenarios, tasks, jobs, |index, outcome, seconds| {
        memory.look();
        let scenario = &scenarios[index];
        let is_failed = outcome.verdict() != Verdict::Held;
        let known = is_failed.then(|| excuses.of(scenario, &outcome)).flatten();
        let mut trace = Vec::new();
        if is_failed && known.is_none() && explained.insert(index) {
            // The run again, with its trace: one per scenario is enough to read.
            trace = pool::one(scenario, outcome.seed, true).trace;
        }
        let capsule = is_failed.then(|| shelf.put(scenario, &outcome)).flatten();
        complaint::print(&outcome, &trace, capsule.as_deref(), known.as_ref());
        if let Some(gather) = &mut gather {
            gather.take(index, scenario, &outcome, known.clone());
        }
        lines[index].take(&outcome, seconds, known.is_some());
        until.is_none_or(|until| Instant::now() < until)
    })?;
    memory.tell();
    Ok(lines)
}

/// Scenarios in one report whose marks are listed.
const FEW: usize = 3;

/// Prints what each scenario came to; returns the exit code of the worst.
pub(super) fn report(scenarios: &[Scenario], mut lines: Vec<Line>, wall: f64) -> u8 {
    // Marks interest the author of a story, and make a long list unreadable.
    let few = lines.iter().filter(|line| line.runs > 0).count() <= FEW;
    let mut table = paint::table(&["scenario", "seeds", "verdict", "guest ops", "points", "CPU"]);
    let mut seen = Vec::new();
    let mut worst = Verdict::Held;
    let mut total = Line::new();
    for (scenario, line) in scenarios.iter().zip(&mut lines) {
        if line.runs == 0 {
            continue;
        }
        line.judge_what_is_seldom(scenario);
        worst = worst.max(line.verdict);
        total.runs += line.runs;
        total.known += line.known;
        total.stats += line.stats;
        total.seconds += line.seconds;
        table.add_row(vec![
            scenario.name.clone().into(),
            line.runs.into(),
            paint::verdict(line.verdict),
            line.stats.operations.into(),
            line.stats.points.into(),
            format!("{:.1} s", line.seconds).into(),
        ]);
        if few && !line.marks.is_empty() {
            seen.push(paint::named(&format!("{} saw", scenario.name), line.marks.iter().copied()));
        }
    }
    println!("{table}");
    seen.iter().for_each(|line| println!("{line}"));
    let known = if total.known > 0 {
        format!("{} of them fail in a known way, ", total.known)
    } else {
        String::new()
    };
    let summary = format!(
        "{}: {} runs, {known}{:.0} simulated seconds, {} guest operations, {} points restored, {wall:.1} s",
        worst.word(),
        total.runs,
        total.stats.simulated as f64 / 1000.0,
        total.stats.operations,
        total.stats.points,
    );
    println!("{}", paint::paint(&summary, worst));
    worst.code()
}
