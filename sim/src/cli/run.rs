//! `run`, `sweep`.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, runs on a real clock")]

use super::capsules::Shelf;
use super::gather::Gather;
use super::report::Files;
use super::{complaint, files, interrupt, paint, pool};
use crate::codes::{BUDGET, INTERRUPTED, USAGE};
use crate::harness::{Outcome, Stats, Verdict};
use crate::scenario::{Scenario, Unit, parse_in};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// First seed; by default what each file says.
    pub(super) from: Option<u64>,
    /// Runs at once.
    pub(super) jobs: usize,
    /// Files to write.
    pub(super) files: &'a Files,
    /// Where capsules of failed runs go.
    pub(super) out: Option<PathBuf>,
}

/// Reads a length of time on a real clock, such as `10m` or `90s`.
pub(super) fn budget(text: &str) -> Result<Duration, u8> {
    let long = text.strip_suffix('m').map_or(text.to_owned(), |minutes| format!("{minutes}min"));
    let range = parse_in(&long, Unit::Millis).map_err(|error| {
        eprintln!("{error}");
        USAGE
    })?;
    Ok(Duration::from_millis(range.low.max(0) as u64))
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
pub(super) fn run(
    directory: &Path,
    wanted: &Wanted<'_>,
    seeds: Option<u64>,
    within: Option<&str>,
) -> Result<u8, u8> {
    let within = within.map(budget).transpose()?;
    let scenarios = files::select(directory, wanted.names)?;
    let baseline = wanted.files.baseline()?;
    let mut tasks = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        let from = wanted.from.unwrap_or(scenario.seeds.from);
        let count = seeds.unwrap_or(scenario.seeds.pr);
        tasks.extend((from..from.saturating_add(count)).map(|seed| (index, seed)));
    }
    let began = Instant::now();
    let seeds = seeds.map(|seeds| format!(" --seeds {seeds}")).unwrap_or_default();
    let first = wanted.from.map(|from| format!(" --from {from}")).unwrap_or_default();
    let mut gather = wanted.gather(&scenarios, &format!("run{seeds}{first}"));
    let until = within.map(|within| began + within);
    let shelf = Shelf::new(wanted.out.as_deref());
    let lines = play(&scenarios, &tasks, wanted.jobs, until, gather.as_mut(), shelf)?;
    let played: u64 = lines.iter().map(|line| line.runs).sum();
    let code = report(&scenarios, lines, began.elapsed().as_secs_f64());
    if let Some(gather) = gather {
        wanted.files.write(&gather.finish(&scenarios), baseline.as_ref())?;
    }
    Ok(early(code, played, tasks.len() as u64))
}

/// Returns the exit code if not everything was played: what failed counts more than what is missing.
fn early(code: u8, played: u64, wanted: u64) -> u8 {
    if played == wanted {
        return code;
    }
    let (why, early) =
        if interrupt::came() { ("interrupted", INTERRUPTED) } else { ("the budget ended", BUDGET) };
    println!("{why}: {played} of {wanted} runs were played");
    if code == 0 { early } else { code }
}

fn play(
    scenarios: &[Scenario],
    tasks: &[pool::Task],
    jobs: usize,
    until: Option<Instant>,
    mut gather: Option<&mut Gather>,
    mut shelf: Shelf,
) -> Result<Vec<Line>, u8> {
    let mut lines: Vec<Line> = scenarios.iter().map(|_| Line::new()).collect();
    let mut explained = BTreeSet::new();
    pool::many(scenarios, tasks, jobs, |index, outcome, seconds| {
        let mut trace = Vec::new();
        if outcome.verdict() != Verdict::Held && explained.insert(index) {
            // The run again, with its trace: one per scenario is enough to read.
            trace = pool::one(&scenarios[index], outcome.seed, true).trace;
        }
        let is_failed = outcome.verdict() != Verdict::Held;
        let capsule = is_failed.then(|| shelf.put(&scenarios[index], &outcome)).flatten();
        complaint::print(&outcome, &trace, capsule.as_deref());
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

/// First seed of a sweep: far from those that every change plays.
const SWEEP_FROM: u64 = 1_000_000;

/// Seeds of each scenario that a sweep takes at once.
const SWEEP_GROUP: u64 = 8;

/// More seeds than any sweep plays.
const SWEEP_MAX: u64 = 1_000_000;

/// `sweep`.
pub(super) fn sweep(directory: &Path, wanted: &Wanted<'_>, duration: &str) -> Result<u8, u8> {
    let budget = budget(duration)?;
    let from = wanted.from.unwrap_or(SWEEP_FROM);
    let scenarios = files::select(directory, wanted.names)?;
    let baseline = wanted.files.baseline()?;
    let mut gather = wanted.gather(&scenarios, &format!("sweep --for {duration} --from {from}"));
    let began = Instant::now();
    let until = began + budget;
    let groups = (from..from.saturating_add(SWEEP_MAX)).step_by(SWEEP_GROUP as usize);
    let tasks = groups.flat_map(|first| {
        (0..scenarios.len())
            .flat_map(move |index| (first..first + SWEEP_GROUP).map(move |seed| (index, seed)))
    });
    let shelf = Shelf::new(wanted.out.as_deref());
    let tasks: Vec<pool::Task> = tasks.collect();
    let lines = play(&scenarios, &tasks, wanted.jobs, Some(until), gather.as_mut(), shelf)?;
    let code = report(&scenarios, lines, began.elapsed().as_secs_f64());
    if let Some(gather) = gather {
        wanted.files.write(&gather.finish(&scenarios), baseline.as_ref())?;
    }
    Ok(if interrupt::came() && code == 0 { INTERRUPTED } else { code })
}
