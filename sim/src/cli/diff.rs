//! `diff`: where two runs part. Two seeds, a run and a capsule, or one run in two builds.

use super::trace::{Told, tell};
use super::{paint, replay};
use crate::codes::{NOT_DETERMINISTIC, TOOL, USAGE};
use crate::harness::Verdict;
use crate::lanes::{self, Event, Level};
use crate::plan::{self, Fixed, Plan};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Events of each actor that are shown before the parting.
const CONTEXT: usize = 2;

/// Events of each side that are shown from the parting on.
const AFTER: usize = 3;

/// What `diff` is asked for.
pub(super) struct Wanted<'a> {
    /// The one run.
    pub(super) left: &'a str,
    /// The other one; the same if none is given.
    pub(super) right: Option<&'a str>,
    /// Planted bug of the one.
    pub(super) bug: Option<&'a str>,
    /// Planted bug of the other.
    pub(super) other_bug: Option<&'a str>,
    /// Another build of the lab, which plays the other run.
    pub(super) build: Option<&'a Path>,
    /// Compares the plans only; nothing is played.
    pub(super) plans: bool,
}

/// `diff`.
pub(super) fn diff(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    let right = wanted.right.unwrap_or(wanted.left);
    let plans = [(wanted.left, wanted.bug), (right, wanted.other_bug)]
        .map(|(run, bug)| replay::find(directory, run, bug).map(|named| named.plan));
    let [one, other] = plans;
    let (one, other) = (one?, other?);
    let is_one_plan = tell_plans(&one, &other);
    if wanted.plans {
        return Ok(0);
    }
    let told = tell(directory, wanted.left, wanted.bug)?;
    let (others, verdict) = match wanted.build {
        Some(program) => (elsewhere(program, directory, right, wanted.other_bug)?, None),
        None => {
            let told = tell(directory, right, wanted.other_bug)?;
            let verdict = told.outcome.verdict();
            (told.events, Some(verdict))
        }
    };
    let is_one_run = is_one_plan && wanted.build.is_none() && wanted.bug == wanted.other_bug;
    let Some(at) = parting(&told.events, &others) else {
        println!("{}: {} events are equal", paint::paint("no difference", Verdict::Held), told.events.len());
        return Ok(0);
    };
    show(&told, &others, at);
    let words = |verdict: Verdict| paint::paint(verdict.word(), verdict);
    let end = verdict.map(|verdict| format!(", the other {}", words(verdict))).unwrap_or_default();
    println!("the one ended {}{end}", words(told.outcome.verdict()));
    if is_one_run {
        println!("{}", paint::paint("one plan, one build, two runs: not deterministic", Verdict::Broken));
        return Ok(NOT_DETERMINISTIC);
    }
    Ok(0)
}

/// Returns the first event in which two runs differ.
fn parting(one: &[Event], other: &[Event]) -> Option<usize> {
    let common = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (common < one.len().max(other.len())).then_some(common)
}

/// Prints what only one of two plans has; returns whether they are equal but for their names.
fn tell_plans(one: &Plan, other: &Plan) -> bool {
    let words = |plan: &Plan| -> Vec<String> {
        let guests = plan.guests.iter().map(|(name, guest)| {
            format!(
                "{name}: {} at {}/s, {} at once, seed {:x}",
                guest.model, guest.rate, guest.jobs, guest.seed
            )
        });
        let steps = plan::steps(plan);
        guests.chain(steps.iter().map(step)).chain([format!("{} s long", seconds(plan.length))]).collect()
    };
    let (ones, others) = (words(one), words(other));
    if one.seed == other.seed && ones == others {
        println!("one plan: seed {}, {} steps", one.seed, ones.len());
        return true;
    }
    println!("plans: seed {} and seed {}", one.seed, other.seed);
    for (sign, side, against, verdict) in
        [('-', &ones, &others, Verdict::Broken), ('+', &others, &ones, Verdict::Held)]
    {
        for line in side.iter().filter(|line| !against.contains(line)) {
            println!("  {}", paint::paint(&format!("{sign} {line}"), verdict));
        }
    }
    false
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn step(step: &Fixed) -> String {
    let lasts = step.lasts.map(|lasts| format!(" for {} s", seconds(lasts))).unwrap_or_default();
    let amounts: String = step.amounts.iter().map(|(name, value)| format!(" {name} {value}")).collect();
    format!("{:>9.3} s  {} {}{amounts}{lasts}", seconds(step.at), step.verb, step.on)
}

/// Prints the parting, with what each actor did last before it.
fn show(told: &Told, others: &[Event], at: usize) {
    let before = &told.events[..at];
    let when = told.events.get(at).or(others.get(at)).map_or(0, |event| event.at_ms);
    println!("they part at {:.3} s, after {at} equal events; before that", seconds(when));
    let mut by_actor: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    before.iter().for_each(|event| by_actor.entry(&event.actor).or_default().push(event));
    for lane in lanes::lanes(&told.scenario) {
        let Some(events) = by_actor.get(lane.as_str()) else { continue };
        for event in &events[events.len().saturating_sub(CONTEXT)..] {
            println!("  {}", paint::faint(&words(event)));
        }
    }
    for (sign, side, verdict) in [('-', &told.events[..], Verdict::Broken), ('+', others, Verdict::Held)] {
        let from = at.min(side.len());
        let shown = &side[from..side.len().min(from + AFTER)];
        shown
            .iter()
            .for_each(|event| println!("{}", paint::paint(&format!("{sign} {}", words(event)), verdict)));
        if shown.is_empty() {
            println!("{}", paint::paint(&format!("{sign} nothing more"), verdict));
        }
    }
}

fn words(event: &Event) -> String {
    format!("{:>10.3} s  {:<12} {}", seconds(event.at_ms), event.actor, event.what)
}

/// Lets another build play a run.
fn elsewhere(program: &Path, directory: &Path, run: &str, bug: Option<&str>) -> Result<Vec<Event>, u8> {
    let mut command = Command::new(program);
    command.arg("--scenarios").arg(directory).args(["trace", run, "--json"]);
    command.args(bug.map(|bug| ["--bug", bug]).into_iter().flatten());
    let output = command.output().map_err(|error| {
        eprintln!("cannot start {}: {error}", program.display());
        TOOL
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Event> = text.lines().filter_map(read).collect();
    if events.is_empty() {
        eprintln!(
            "{} told nothing of {run}:\n{}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        return Err(USAGE);
    }
    Ok(events)
}

/// Reads an event as `trace --json` writes it.
fn read(line: &str) -> Option<Event> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let level = match value["level"].as_str()? {
        "info" => Level::Info,
        "deed" => Level::Deed,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => Level::Found,
    };
    Some(Event {
        at_ms: value["at_ms"].as_u64()?,
        actor: value["actor"].as_str()?.to_owned(),
        level,
        what: value["what"].as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, what: &str) -> Event {
        Event { at_ms, actor: "a".into(), level: Level::Warn, what: what.into() }
    }

    #[test]
    fn runs_part_at_the_first_event_that_differs_or_where_one_ends() {
        let one = [event(1, "x"), event(2, "y")];
        assert_eq!(parting(&one, &one), None);
        assert_eq!(parting(&one, &[event(1, "x"), event(3, "y")]), Some(1));
        assert_eq!(parting(&one, &one[..1]), Some(1));
    }

    #[test]
    fn an_event_of_another_build_reads_back() {
        let event = event(7, "lost \"it\"");
        assert_eq!(read(&serde_json::to_string(&event).unwrap()), Some(event));
    }
}
