//! `core`: scenarios at the core tier, where only the pure machines run.
#![expect(
    clippy::disallowed_methods,
    reason = "the tool, not the engine, runs on real threads and a real clock"
)]

use super::{call, files, interrupt, paint, pool, run};
use crate::codes::INTERRUPTED;
use crate::core_tier::{self, MARKS, Outcome, Steps, Trace};
use crate::cpu;
use crate::harness::Verdict;
use crate::plan;
use crate::scenario::Scenario;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

/// Seeds of each scenario if nothing is said.
const SEEDS: u64 = 50;
/// First seed of a search without an end, far from those that every change plays.
const FRESH_FROM: u64 = 1_000_000;
/// Seeds of each scenario that a search without an end takes at once.
const GROUP: u64 = 32;
/// More seeds than any search plays.
const SEEDS_MAX: u64 = 10_000_000;
/// Failures of one scenario that are told in full.
const TOLD: u64 = 2;

/// What `core` is asked for.
pub(super) struct Wanted<'a> {
    /// Names or tags, or one run.
    pub(super) names: &'a [String],
    /// Seeds of each scenario.
    pub(super) seeds: Option<u64>,
    /// How long.
    pub(super) duration: Option<&'a str>,
    /// First seed.
    pub(super) from: Option<u64>,
    /// Runs at once.
    pub(super) jobs: usize,
    /// Lines of the trace of a failure.
    pub(super) trace: usize,
    /// Whether the figures are JSON.
    pub(super) json: bool,
}

/// Plays one seed; a machine that panics is an outcome.
pub(super) fn play(scenario: &Scenario, seed: u64, trace: Option<&Trace>) -> Outcome {
    let plan = plan::draw(scenario, seed);
    pool::caught(|| core_tier::play(scenario, &plan, trace)).unwrap_or_else(|panic| Outcome {
        scenario: scenario.name.clone(),
        seed,
        panic: Some(panic),
        ..Outcome::default()
    })
}

/// Plays runs on all cores and hands the outcomes over as they come, until the consumer says `false`. Returns the
/// seconds of CPU that it took.
pub(super) fn each(
    scenarios: &[Scenario],
    tasks: impl Iterator<Item = pool::Task> + Send,
    jobs: usize,
    mut consume: impl FnMut(usize, Outcome) -> bool,
) -> f64 {
    let (tasks, stop, running) = (Mutex::new(tasks), AtomicBool::new(false), AtomicUsize::new(0));
    let cpu = Mutex::new(0.0);
    let (sender, receiver) = mpsc::sync_channel(64);
    let worker = |sender: mpsc::SyncSender<(usize, Outcome)>| {
        let before = cpu::seconds();
        running.fetch_add(1, Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) && !interrupt::came() {
            let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, seed)) = task else { break };
            if sender.send((index, play(&scenarios[index], seed, None))).is_err() {
                break;
            }
        }
        let spent = before.zip(cpu::seconds()).map_or(0.0, |(before, after)| after - before);
        *cpu.lock().unwrap_or_else(PoisonError::into_inner) += spent;
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            scope.spawn(|| worker(sender));
        }
        drop(sender);
        for (index, outcome) in &receiver {
            if !consume(index, outcome) {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        // Whoever waits for room in the queue is told.
        drop(receiver);
    });
    *cpu.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the seeds of one scenario came to.
#[derive(Default)]
struct Line {
    runs: u64,
    failed: u64,
    verdict: Option<Verdict>,
    steps: Steps,
    simulated: u64,
    operations: u64,
    judged: u64,
    marks: BTreeSet<&'static str>,
    /// Verbs that were not played.
    unplayed: BTreeSet<String>,
}

impl Line {
    fn take(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.failed += u64::from(outcome.verdict() != Verdict::Held);
        self.verdict = self.verdict.max(Some(outcome.verdict()));
        self.steps += outcome.steps;
        self.simulated += outcome.simulated;
        self.operations += outcome.operations;
        self.judged += outcome.judged;
        self.marks.extend(&outcome.marks);
        self.unplayed.extend(outcome.unplayed.iter().cloned());
    }

    /// What was to be seen sometimes, can be seen here and never was fails a line that held. Of a story that is played in
    /// part, what is seldom may have its cause in the rest.
    fn judge_what_is_seldom(&mut self, scenario: &Scenario) {
        let is_judged =
            self.runs >= scenario.seeds.pr && self.unplayed.iter().all(|what| what == "objectives");
        let marks = scenario.expect.sometimes.iter().map(String::as_str);
        let missing: Vec<&str> =
            marks.filter(|mark| MARKS.contains(mark) && !self.marks.contains(mark)).collect();
        if is_judged && !missing.is_empty() && self.verdict == Some(Verdict::Held) {
            self.verdict = Some(Verdict::NeverSeen);
            println!("{}: never seen in {} seeds: {}", scenario.name, self.runs, missing.join(", "));
        }
    }

    fn add(&mut self, other: &Line) {
        self.runs += other.runs;
        self.failed += other.failed;
        self.verdict = self.verdict.max(other.verdict);
        self.steps += other.steps;
        self.simulated += other.simulated;
        self.operations += other.operations;
        self.judged += other.judged;
    }
}

/// `core`.
pub(super) fn core(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    if let [run] = wanted.names
        && run.contains('@')
    {
        let (scenario, seed) = files::select_run(directory, run)?;
        return Ok(one(&scenario, seed, wanted.trace));
    }
    let budget = wanted.duration.map(run::budget).transpose()?;
    let scenarios = files::select(directory, wanted.names)?;
    let (count, from) = match budget {
        Some(_) => (SEEDS_MAX, wanted.from.unwrap_or(FRESH_FROM)),
        None => (wanted.seeds.unwrap_or(SEEDS), wanted.from.unwrap_or(1)),
    };
    let end = from.saturating_add(count);
    let all = scenarios.len();
    let tasks = (from..end).step_by(GROUP as usize).flat_map(move |first| {
        (0..all).flat_map(move |index| (first..end.min(first + GROUP)).map(move |seed| (index, seed)))
    });
    let began = Instant::now();
    let mut lines: Vec<Line> = scenarios.iter().map(|_| Line::default()).collect();
    let mut unplayed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let cpu = each(&scenarios, tasks, wanted.jobs, |index, outcome| {
        let line = &mut lines[index];
        line.take(&outcome);
        for verb in &outcome.unplayed {
            unplayed.entry(verb.clone()).or_default().insert(scenarios[index].name.clone());
        }
        if outcome.verdict() != Verdict::Held && line.failed <= TOLD {
            tell(&scenarios[index], &outcome, wanted.trace);
        }
        budget.is_none_or(|budget| began.elapsed() < budget)
    });
    if !interrupt::came() {
        lines.iter_mut().zip(&scenarios).for_each(|(line, scenario)| line.judge_what_is_seldom(scenario));
    }
    let mut total = Line::default();
    lines.iter().for_each(|line| total.add(line));
    if wanted.json {
        figures(&total, cpu);
    } else {
        report(&scenarios, &lines, &total, (cpu, began.elapsed().as_secs_f64()));
        explain(&unplayed);
    }
    let code = total.verdict.map_or(0, Verdict::code);
    Ok(if interrupt::came() && code == 0 { INTERRUPTED } else { code })
}

/// Plays one run and shows what happened.
fn one(scenario: &Scenario, seed: u64, lines: usize) -> u8 {
    let trace = Trace::default();
    let outcome = play(scenario, seed, Some(&trace));
    tail(&trace.take(), lines);
    complain(&outcome);
    println!(
        "{}@{seed}: {}, {:.1} simulated seconds, {} machine steps, {} markers judged, digest {:016x}",
        scenario.name,
        paint::paint(outcome.verdict().word(), outcome.verdict()),
        outcome.simulated as f64 / 1000.0,
        outcome.steps.machines(),
        outcome.judged,
        outcome.digest,
    );
    if !outcome.unplayed.is_empty() {
        let verbs: Vec<&str> = outcome.unplayed.iter().map(String::as_str).collect();
        println!("not played at this tier: {}", verbs.join(", "));
    }
    outcome.verdict().code()
}

fn tail(lines: &[String], count: usize) {
    let skipped = lines.len().saturating_sub(count);
    if skipped > 0 {
        println!("{}", paint::faint(&format!("    ({skipped} lines before)")));
    }
    lines[skipped..].iter().for_each(|line| println!("{line}"));
}

fn complain(outcome: &Outcome) {
    for finding in outcome.findings.iter().take(3) {
        println!("  {}: {}", finding.oracle, finding.what);
    }
    if let Some(panic) = &outcome.panic {
        println!("  assertion: {panic}");
    }
    if let Some(waiting) = outcome.waiting.as_ref().filter(|_| outcome.findings.is_empty()) {
        println!("  converges: everything waits\n    {}", waiting.replace('\n', "\n    "));
    }
}

/// Tells of a failure: what spoke, what happened before it, how to play it again.
fn tell(scenario: &Scenario, outcome: &Outcome, lines: usize) {
    println!("{}@{}: {}", outcome.scenario, outcome.seed, outcome.verdict().word());
    let trace = Trace::default();
    let again = play(scenario, outcome.seed, Some(&trace));
    tail(&trace.take(), lines);
    complain(outcome);
    if again.digest != outcome.digest {
        println!(
            "  played again it is another run: digests {:016x} and {:016x}",
            outcome.digest, again.digest
        );
    }
    let words = format!("core {}@{}{}", outcome.scenario, outcome.seed, pool::bug_words());
    println!("    {}", paint::faint(&call::line(&words)));
}

fn report(scenarios: &[Scenario], lines: &[Line], total: &Line, (cpu, wall): (f64, f64)) {
    let mut table =
        paint::table(&["scenario", "seeds", "failed", "verdict", "guest ops", "markers", "steps"]);
    for (scenario, line) in scenarios.iter().zip(lines) {
        let Some(verdict) = line.verdict else { continue };
        table.add_row(vec![
            scenario.name.clone().into(),
            line.runs.into(),
            line.failed.into(),
            paint::verdict(verdict),
            line.operations.into(),
            line.judged.into(),
            line.steps.machines().into(),
        ]);
    }
    println!("{table}");
    let verdict = total.verdict.unwrap_or(Verdict::Held);
    let summary = format!(
        "{}: {} runs, {:.0} simulated seconds, {} machine steps, {} markers judged, {wall:.1} s",
        verdict.word(),
        total.runs,
        total.simulated as f64 / 1000.0,
        total.steps.machines(),
        total.judged,
    );
    println!("{}", paint::paint(&summary, verdict));
    let per = |count: u64| count as f64 / cpu.max(1e-9);
    println!(
        "{:.2} M machine steps (and {:.2} M events of the heap) per CPU second, {:.0} simulated seconds, {:.0} runs",
        per(total.steps.machines()) / 1e6,
        per(total.steps.heap) / 1e6,
        per(total.simulated) / 1e3,
        per(total.runs),
    );
}

/// Says what plans had and this tier has no counterpart for.
fn explain(unplayed: &BTreeMap<String, BTreeSet<String>>) {
    for (verb, scenarios) in unplayed {
        let names: Vec<&str> = scenarios.iter().map(String::as_str).collect();
        println!("{}", paint::faint(&format!("not played at this tier: {verb} (of {})", names.join(", "))));
    }
}

fn figures(total: &Line, cpu: f64) {
    let figures = serde_json::json!({
        "verdict": total.verdict.unwrap_or(Verdict::Held).word(),
        "runs": total.runs,
        "cpu_seconds": cpu,
        "simulated_seconds": total.simulated as f64 / 1000.0,
        "machine_steps": total.steps.machines(),
        "agent_steps": total.steps.agent,
        "link_steps": total.steps.link,
        "receiver_steps": total.steps.receiver,
        "heap_events": total.steps.heap,
        "guest_operations": total.operations,
        "markers_judged": total.judged,
    });
    println!("{figures}");
}
