//! `run`, `replay`, `sweep`.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, runs on a real clock")]

use super::gather::Gather;
use super::report::Files;
use super::{complaint, files, paint, pool};
use crate::harness::{Outcome, Stats, Verdict};
use crate::plan;
use crate::scenario::{Scenario, Unit, parse_in};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

/// What the seeds of one scenario came to.
struct Line {
    runs: u64,
    verdict: Verdict,
    stats: Stats,
    marks: BTreeSet<&'static str>,
    seconds: f64,
}

impl Line {
    fn new() -> Line {
        Line {
            runs: 0,
            verdict: Verdict::Held,
            stats: Stats::default(),
            marks: BTreeSet::new(),
            seconds: 0.0,
        }
    }

    fn take(&mut self, outcome: &Outcome, seconds: f64) {
        self.runs += 1;
        self.verdict = self.verdict.max(outcome.verdict());
        self.stats += outcome.stats;
        self.marks.extend(&outcome.marks);
        self.seconds += seconds;
    }
}

/// What `run` and `sweep` are asked for.
pub(super) struct Wanted<'a> {
    /// Names or tags.
    pub(super) names: &'a [String],
    /// First seed.
    pub(super) from: u64,
    /// Runs at once.
    pub(super) jobs: usize,
    /// Files to write.
    pub(super) files: &'a Files,
}

impl Wanted<'_> {
    /// Begins a set of runs if a file is asked for. The command says what was played, not where files went.
    fn gather(&self, scenarios: &[Scenario], command: &str) -> Option<Gather> {
        let words = std::iter::once(command).chain(self.names.iter().map(String::as_str));
        let command = format!("cargo sim {}", words.collect::<Vec<_>>().join(" "));
        self.files.any().then(|| Gather::new(scenarios, command))
    }
}

/// `run`.
pub(super) fn run(directory: &Path, wanted: &Wanted<'_>, seeds: Option<u64>) -> Result<u8, u8> {
    let from = wanted.from;
    let scenarios = files::select(directory, wanted.names)?;
    let baseline = wanted.files.baseline()?;
    let mut tasks = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        tasks.extend((from..from + seeds.unwrap_or(scenario.seeds.pr)).map(|seed| (index, seed)));
    }
    let began = Instant::now();
    let seeds = seeds.map(|seeds| format!(" --seeds {seeds}")).unwrap_or_default();
    let first = if from == 1 { String::new() } else { format!(" --from {from}") };
    let mut gather = wanted.gather(&scenarios, &format!("run{seeds}{first}"));
    let lines = play(&scenarios, &tasks, wanted.jobs, None, gather.as_mut())?;
    let code = report(&scenarios, lines, began.elapsed().as_secs_f64());
    if let Some(gather) = gather {
        wanted.files.write(&gather.finish(&scenarios), baseline.as_ref())?;
    }
    Ok(code)
}

fn play(
    scenarios: &[Scenario],
    tasks: &[pool::Task],
    jobs: usize,
    until: Option<Instant>,
    mut gather: Option<&mut Gather>,
) -> Result<Vec<Line>, u8> {
    let mut lines: Vec<Line> = scenarios.iter().map(|_| Line::new()).collect();
    let mut explained = BTreeSet::new();
    pool::many(scenarios, tasks, jobs, |index, outcome, seconds| {
        let mut trace = Vec::new();
        if outcome.verdict() != Verdict::Held && explained.insert(index) {
            // The run again, with its trace: one per scenario is enough to read.
            trace = pool::one(&scenarios[index], outcome.seed, true).trace;
        }
        complaint::print(&outcome, &trace);
        if let Some(gather) = &mut gather {
            gather.take(index, &scenarios[index], &outcome);
        }
        lines[index].take(&outcome, seconds);
        until.is_none_or(|until| Instant::now() < until)
    })?;
    Ok(lines)
}

/// Scenarios in one report whose marks are listed.
const FEW: usize = 3;

fn report(scenarios: &[Scenario], mut lines: Vec<Line>, wall: f64) -> u8 {
    // Marks interest the author of a story, and make a long list unreadable.
    let few = lines.iter().filter(|line| line.runs > 0).count() <= FEW;
    let mut header = vec!["scenario", "seeds", "verdict", "guest ops", "points", "CPU"];
    header.extend(few.then_some("seen"));
    let mut table = paint::table(&header);
    let mut worst = Verdict::Held;
    let mut total = Line::new();
    for (scenario, line) in scenarios.iter().zip(&mut lines) {
        if line.runs == 0 {
            continue;
        }
        let missing: Vec<&str> = scenario
            .expect
            .sometimes
            .iter()
            .map(String::as_str)
            .filter(|mark| !line.marks.contains(mark))
            .collect();
        // Fewer seeds than the file asks for prove nothing about what is seldom.
        let is_judged = line.runs >= scenario.seeds.pr;
        if is_judged && !missing.is_empty() && line.verdict == Verdict::Held {
            line.verdict = Verdict::NeverSeen;
            println!("{}: never seen in {} seeds: {}", scenario.name, line.runs, missing.join(", "));
        }
        worst = worst.max(line.verdict);
        total.runs += line.runs;
        total.stats += line.stats;
        total.seconds += line.seconds;
        let mut row = vec![
            scenario.name.clone().into(),
            line.runs.into(),
            paint::verdict(line.verdict),
            line.stats.operations.into(),
            line.stats.points.into(),
            format!("{:.1} s", line.seconds).into(),
        ];
        if few {
            row.push(line.marks.iter().copied().collect::<Vec<_>>().join(" ").into());
        }
        table.add_row(row);
    }
    println!("{table}");
    let summary = format!(
        "{}: {} runs, {:.0} simulated seconds, {} guest operations, {} points restored, {wall:.1} s",
        worst.word(),
        total.runs,
        total.stats.simulated as f64 / 1000.0,
        total.stats.operations,
        total.stats.points,
    );
    println!("{}", paint::paint(&summary, worst));
    worst.code()
}

/// `replay`.
pub(super) fn replay(directory: &Path, run: &str, digest_only: bool) -> Result<u8, u8> {
    let (scenario, seed) = files::select_run(directory, run)?;
    let outcome = pool::one(&scenario, seed, !digest_only);
    if digest_only {
        println!("{} {}", outcome.verdict().code(), outcome.digest);
        return Ok(outcome.verdict().code());
    }
    print!("{}", plan::draw(&scenario, seed));
    for line in &outcome.trace {
        println!("{line}");
    }
    complaint::print(&outcome, &[]);
    let verdict = outcome.verdict();
    println!("{} digest {}", paint::paint(verdict.word(), verdict), outcome.digest);
    Ok(verdict.code())
}

/// `sweep`.
pub(super) fn sweep(directory: &Path, wanted: &Wanted<'_>, duration: &str) -> Result<u8, u8> {
    let text = duration.strip_suffix('m').map_or(duration.to_owned(), |minutes| format!("{minutes}min"));
    let milliseconds = parse_in(&text, Unit::Millis).map_err(|error| {
        eprintln!("{error}");
        2u8
    })?;
    let scenarios = files::select(directory, wanted.names)?;
    let baseline = wanted.files.baseline()?;
    let mut gather = wanted.gather(&scenarios, &format!("sweep --for {duration} --from {}", wanted.from));
    let began = Instant::now();
    let until = began + std::time::Duration::from_millis(milliseconds.low.max(0) as u64);
    /// More seeds than any sweep plays.
    const MANY: u64 = 1_000_000;
    let mut lines: Vec<Line> = scenarios.iter().map(|_| Line::new()).collect();
    let mut first = wanted.from;
    while Instant::now() < until && first < wanted.from + MANY {
        let tasks: Vec<_> = (first..first + 8)
            .flat_map(|seed| (0..scenarios.len()).map(move |index| (index, seed)))
            .collect();
        let played = play(&scenarios, &tasks, wanted.jobs, Some(until), gather.as_mut())?;
        for (line, new) in lines.iter_mut().zip(played) {
            line.runs += new.runs;
            line.verdict = line.verdict.max(new.verdict);
            line.stats += new.stats;
            line.marks.extend(new.marks);
            line.seconds += new.seconds;
        }
        first += 8;
    }
    let code = report(&scenarios, lines, began.elapsed().as_secs_f64());
    if let Some(gather) = gather {
        wanted.files.write(&gather.finish(&scenarios), baseline.as_ref())?;
    }
    Ok(code)
}
