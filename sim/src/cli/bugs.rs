//! `bugs`: the lab judges its oracles. Each planted bug must be caught by the oracle that stands for it,
//! and the runs that caught it must hold without it.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, runs on a real clock")]

use super::hunt::{Caught, Hunt};
use super::{TOOL, call, files, interrupt, paint, pool};
use crate::codes::INTERRUPTED;
use crate::harness::Verdict;
use crate::prey::prey;
use crate::scenario::Scenario;
use crate::scenario::verbs::ORACLES;
use redoubt_core::planted::Bug;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

/// `bugs`; as JSON it prints one line per bug, and what the control run complains of goes to stderr.
pub(super) fn bugs(
    directory: &Path,
    names: &[String],
    seeds: u64,
    jobs: usize,
    json: bool,
) -> Result<u8, u8> {
    let scenarios = files::select(directory, &[])?;
    let mut chosen = Vec::new();
    for name in names {
        let bug = pool::find_bug(name).ok_or(2u8)?;
        if !Bug::ALL.contains(&bug) {
            eprintln!("{name} is no bug that the oracles are judged by; `cargo sim canary` plays the canary");
            return Err(2);
        }
        chosen.push(bug);
    }
    if chosen.is_empty() {
        chosen.extend(Bug::ALL);
    }
    let began = Instant::now();
    if !json {
        println!("{:<28} {:<18} {:>5} {:>8}", "planted bug", "caught by", "runs", "time");
    }
    let told = |bug: Bug, hunt: &Hunt, seconds: f64| match json {
        true => println!("{}", serde_json::to_string(hunt).unwrap_or_default()),
        false => row(bug, hunt, seconds),
    };
    let hunts = hunt_all(directory, &chosen, seeds, jobs, told)?;
    if interrupt::came() {
        // A search that was cut short missed nothing.
        return Err(INTERRUPTED);
    }
    let caught: Vec<(&Hunt, &Caught)> =
        hunts.iter().filter_map(|hunt| Some((hunt, hunt.caught.as_ref()?))).collect();
    let control = control(&scenarios, &caught, jobs, json)?;
    let by_oracle = oracles(&caught);
    let idle = by_oracle.values().filter(|bugs| bugs.is_empty()).count();
    let missed = hunts.len() - caught.len();
    let all = chosen.len() == Bug::ALL.len();
    let verdict = if missed > 0 || all && idle > 0 { control.max(Verdict::Broken) } else { control };
    if json {
        return Ok(verdict.code());
    }
    let mut table = paint::table(&["oracle", "bugs in which it spoke"]);
    for (oracle, bugs) in &by_oracle {
        table.add_row(vec![(*oracle).to_owned(), bugs.join(", ")]);
    }
    println!("{table}");
    let summary = format!(
        "{} planted bugs caught, {missed} missed, {:.0} s",
        caught.len(),
        began.elapsed().as_secs_f64()
    );
    println!("{}", paint::paint(&summary, verdict));
    Ok(verdict.code())
}

/// Searches for all bugs, `jobs` at once, each in a process of its own; tells each when it is decided.
fn hunt_all(
    directory: &Path,
    bugs: &[Bug],
    seeds: u64,
    jobs: usize,
    told: impl Fn(Bug, &Hunt, f64),
) -> Result<Vec<Hunt>, u8> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed))
                    && !interrupt::came()
                {
                    let began = Instant::now();
                    let hunt = search(directory, *bug, seeds);
                    if sender.send((*bug, hunt, began.elapsed().as_secs_f64())).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut hunts = Vec::new();
        for (bug, hunt, seconds) in receiver {
            let hunt = hunt?;
            told(bug, &hunt, seconds);
            hunts.push(hunt);
        }
        Ok(hunts)
    })
}

/// Runs `hunt` in a process of its own.
fn search(directory: &Path, bug: Bug, seeds: u64) -> Result<Hunt, u8> {
    let name = bug.name();
    let failed = |error: &dyn std::fmt::Display| {
        eprintln!("the search for {name} failed: {error}");
        TOOL
    };
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let output = Command::new(program)
        .arg("--scenarios")
        .arg(directory)
        .args(["hunt", &name, "--seeds", &seeds.to_string()])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed(&error))?;
    serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))
}

fn row(bug: Bug, hunt: &Hunt, seconds: f64) {
    let oracle = prey(bug).oracle;
    let others: Vec<String> = hunt.others.iter().map(|(voice, count)| format!("{voice} ({count})")).collect();
    let (word, verdict) = match &hunt.caught {
        Some(_) => (oracle, Verdict::Held),
        None => ("MISSED", Verdict::Broken),
    };
    let word = paint::paint(&format!("{word:<18}"), verdict);
    println!("{:<28} {word} {:>5} {seconds:>6.1} s", hunt.bug, hunt.runs);
    match &hunt.caught {
        Some(caught) => {
            let run = call::line(&format!("replay {}@{} --bug {}", caught.scenario, caught.seed, hunt.bug));
            println!("    {}", paint::faint(&run));
        }
        None if others.is_empty() => println!("    {oracle} should have spoken, and nothing did"),
        None => println!("    {oracle} should have spoken; others did: {}", others.join(", ")),
    }
}

/// Plays the runs that caught something without any bug: they must hold, or "caught" means nothing.
fn control(
    scenarios: &[Scenario],
    caught: &[(&Hunt, &Caught)],
    jobs: usize,
    json: bool,
) -> Result<Verdict, u8> {
    let began = Instant::now();
    let index = |name: &str| scenarios.iter().position(|scenario| scenario.name == name);
    let tasks: BTreeSet<pool::Task> =
        caught.iter().filter_map(|(_, caught)| Some((index(&caught.scenario)?, caught.seed))).collect();
    let tasks: Vec<pool::Task> = tasks.into_iter().collect();
    let mut worst = Verdict::Held;
    let mut complaints = Vec::new();
    pool::many(scenarios, &tasks, jobs, |_, outcome, _| {
        worst = worst.max(outcome.verdict());
        if let Some((oracle, _)) = outcome.cause() {
            complaints.push(format!("{oracle} speaks without any bug: {}", pool::replay_line(&outcome)));
        }
        true
    })?;
    if json {
        complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
        return Ok(worst);
    }
    let word = paint::paint(&format!("{:<18}", worst.word()), worst);
    let seconds = began.elapsed().as_secs_f64();
    println!("{:<28} {word} {:>5} {seconds:>6.1} s", "control: no bug", tasks.len());
    complaints.iter().for_each(|complaint| println!("    {complaint}"));
    Ok(worst)
}

/// Returns what each oracle caught.
fn oracles<'a>(caught: &[(&'a Hunt, &Caught)]) -> BTreeMap<&'static str, Vec<&'a str>> {
    let mut by_oracle: BTreeMap<&str, Vec<&str>> =
        ORACLES.iter().map(|oracle| (*oracle, Vec::new())).collect();
    for (hunt, caught) in caught {
        for oracle in &caught.oracles {
            if let Some(bugs) = by_oracle.get_mut(oracle.as_str()) {
                bugs.push(&hunt.bug);
            }
        }
    }
    by_oracle
}
