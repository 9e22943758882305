//! `run`, `sweep`: which seeds are played, and for how long.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, runs on a real clock")]

use super::capsules::Shelf;
use super::ci::{self, Ci};
use super::gather::Gather;
use super::report::Files;
use super::set::{self, Playing};
use super::{files, interrupt, pool};
use crate::codes::{BUDGET, INTERRUPTED, INVALID, USAGE};
use crate::scenario::{Scenario, Unit, parse_in};
use crate::seeds;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// Where capsules of failed runs go, and all of a job's files.
    pub(super) out: Option<PathBuf>,
    /// What a job of a CI service is to be shown.
    pub(super) ci: &'a ci::Flags,
}

/// Which seeds `run` plays.
#[derive(Args, Default)]
pub(super) struct Seeds {
    /// Seeds of each scenario; by default what its file says.
    #[arg(long)]
    pub(super) seeds: Option<u64>,
    /// Adds seeds drawn from this commit, half as many again: the same list whenever it is played. `--ci` does so with
    /// the commit that is checked out.
    #[arg(long, value_name = "COMMIT", conflicts_with = "from")]
    pub(super) seeds_of: Option<String>,
    /// Longest time on a real clock, such as 10m; what is not played then ends with code 30.
    #[arg(long)]
    pub(super) within: Option<String>,
}

/// Which seeds `sweep` plays.
#[derive(Args, Default)]
pub(super) struct Night {
    /// Draws the seeds from this word, such as a date or the number of a job. `--ci` does so with the day.
    #[arg(long, value_name = "WORD", conflicts_with = "from")]
    pub(super) night: Option<String>,
    /// Gives more turns to scenarios that reach what was seldom reached in this earlier set; one that is not there yet
    /// is told. May be given several times.
    #[arg(long, value_name = "RUN.json")]
    pub(super) weights: Vec<PathBuf>,
    /// Ends after so many runs.
    #[arg(long)]
    pub(super) runs: Option<usize>,
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

/// A set that is about to be played.
struct Set<'a> {
    scenarios: &'a [Scenario],
    tasks: &'a [pool::Task],
    /// The command says what was played, not where files went.
    command: String,
    until: Option<Instant>,
    ci: Ci,
}

impl Wanted<'_> {
    /// Selects scenarios; a job shows what is wrong with their files.
    fn select(&self, directory: &Path, ci: &mut Ci) -> Result<Vec<Scenario>, u8> {
        let selected = files::select(directory, self.names);
        if selected.as_ref().err() == Some(&INVALID) {
            ci.write_invalid(Vec::new())?;
        }
        selected
    }

    fn command(&self, words: &[String]) -> String {
        let words = words.iter().chain(self.names).map(String::as_str);
        ["cargo", "sim"].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Plays a set, says what it came to and writes what was asked for; returns the exit code and the number of runs.
    fn play(&self, set: Set<'_>) -> Result<(u8, u64), u8> {
        let Set { scenarios, tasks, command, until, mut ci } = set;
        let baseline = self.files.baseline()?;
        let began = Instant::now();
        let is_gathered = self.files.any() || ci.is_asked();
        let mut gather = is_gathered.then(|| Gather::new(scenarios, command));
        let shelf = Shelf::new(ci.capsules().as_deref().or(self.out.as_deref()));
        let excuses = &mut ci.excuses;
        let playing = Playing { jobs: self.jobs, until, gather: gather.as_mut(), shelf, excuses };
        let lines = set::play(scenarios, tasks, playing)?;
        let played: u64 = lines.iter().map(|line| line.runs).sum();
        let code = set::report(scenarios, lines, began.elapsed().as_secs_f64());
        let code = ci.excuses.judge(scenarios, code);
        if let Some(gather) = gather {
            let set = gather.finish(scenarios);
            self.files.write(&set, baseline.as_ref())?;
            ci.write(&set, baseline.as_ref())?;
        }
        Ok((code, played))
    }
}

/// `run`.
pub(super) fn run(directory: &Path, wanted: &Wanted<'_>, which: &Seeds) -> Result<u8, u8> {
    let within = which.within.as_deref().filter(|text| !text.is_empty()).map(budget).transpose()?;
    let commit = match (&which.seeds_of, wanted.from) {
        (Some(name), _) => Some(ci::commit(directory, name)?),
        (None, None) if wanted.ci.is_asked() => ci::head(directory),
        _ => None,
    };
    let day = ci::day_of(directory, commit.as_deref());
    let mut ci = Ci::begin(wanted.ci, directory, wanted.out.as_deref(), day)?;
    let scenarios = wanted.select(directory, &mut ci)?;
    let mut tasks = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        let from = wanted.from.unwrap_or(scenario.seeds.from);
        let count = which.seeds.unwrap_or(scenario.seeds.pr);
        let seeds = match &commit {
            Some(commit) => seeds::of_commit(commit, scenario, which.seeds),
            None => (from..from.saturating_add(count)).collect(),
        };
        tasks.extend(seeds.into_iter().map(|seed| (index, seed)));
    }
    let mut words = vec!["run".to_owned()];
    words.extend(which.seeds.map(|seeds| format!("--seeds {seeds}")));
    words.extend(wanted.from.map(|from| format!("--from {from}")));
    words.extend(commit.map(|commit| format!("--seeds-of {commit}")));
    let command = wanted.command(&words);
    let until = within.map(|within| Instant::now() + within);
    let set = Set { scenarios: &scenarios, tasks: &tasks, command, until, ci };
    let (code, played) = wanted.play(set)?;
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

/// First seed of a sweep: far from those that every change plays.
const SWEEP_FROM: u64 = 1_000_000;

/// Seeds of each scenario that a sweep takes at once.
const SWEEP_GROUP: u64 = 8;

/// More runs than any night plays.
const NIGHT_MAX: usize = 1_000_000;

/// More seeds than any sweep plays.
const SWEEP_MAX: u64 = 1_000_000;

/// Scenarios whose shares of a night are told.
const SHARES: usize = 5;

/// `sweep`.
pub(super) fn sweep(directory: &Path, wanted: &Wanted<'_>, duration: &str, night: &Night) -> Result<u8, u8> {
    let budget = budget(duration)?;
    let today = ci::today();
    let word = night.night.clone().filter(|word| !word.is_empty());
    let is_night = !night.weights.is_empty() || wanted.ci.is_asked() && wanted.from.is_none();
    let word = word.or(is_night.then(|| today.to_string()));
    let mut ci = Ci::begin(wanted.ci, directory, wanted.out.as_deref(), today)?;
    let scenarios = wanted.select(directory, &mut ci)?;
    let from = wanted.from.unwrap_or(SWEEP_FROM);
    let mut tasks = match &word {
        Some(word) => fresh(word, &scenarios, night)?,
        None => groups(from, scenarios.len()),
    };
    tasks.truncate(night.runs.unwrap_or(usize::MAX));
    let mut words = vec!["sweep".to_owned(), format!("--for {duration}")];
    words.push(word.map_or(format!("--from {from}"), |word| format!("--night {word}")));
    words.extend(night.runs.map(|runs| format!("--runs {runs}")));
    let until = Some(Instant::now() + budget);
    let set = Set { scenarios: &scenarios, tasks: &tasks, command: wanted.command(&words), until, ci };
    let (code, _) = wanted.play(set)?;
    Ok(if interrupt::came() && code == 0 { INTERRUPTED } else { code })
}

/// Seeds from a number on, some of each scenario in turn.
fn groups(from: u64, scenarios: usize) -> Vec<pool::Task> {
    let groups = (from..from.saturating_add(SWEEP_MAX)).step_by(SWEEP_GROUP as usize);
    let tasks = groups.flat_map(|first| {
        (0..scenarios).flat_map(move |index| (first..first + SWEEP_GROUP).map(move |seed| (index, seed)))
    });
    tasks.collect()
}

/// Fresh seeds of a night, in its order; says who has the largest shares.
fn fresh(word: &str, scenarios: &[Scenario], night: &Night) -> Result<Vec<pool::Task>, u8> {
    let earlier = super::report::earlier(&night.weights)?;
    let order = seeds::night(word, scenarios, &earlier);
    let all: u64 = order.shares().iter().map(|(_, share)| share).sum();
    let shown = order.shares().into_iter().take(SHARES);
    let shown: Vec<String> = shown
        .map(|(name, share)| format!("{name} {:.1} %", share as f64 * 100.0 / all.max(1) as f64))
        .collect();
    println!("night {word}, the largest shares: {}", shown.join(", "));
    Ok(order.take(night.runs.unwrap_or(NIGHT_MAX)).collect())
}
