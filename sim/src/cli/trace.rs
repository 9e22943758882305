//! `trace`: a run as swim lanes on the terminal, as JSON, or for Perfetto.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, writes real files")]

use super::{paint, pool, replay};
use crate::codes::TOOL;
use crate::harness::{Manner, Outcome};
use crate::lanes::{self, Event, Level};
use crate::plan::{self, Plan};
use crate::scenario::Scenario;
use redoubt_reports::model::{State, Track};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What is shown before and behind the time somebody asks for, in milliseconds.
const AROUND: u64 = 5_000;

/// Columns of a terminal that is none.
const COLUMNS: usize = 150;

/// What `trace` is asked for.
pub(super) struct Wanted<'a> {
    /// The run.
    pub(super) run: &'a str,
    /// Planted bug.
    pub(super) bug: Option<&'a str>,
    /// Shows what is near this time.
    pub(super) around: Option<&'a str>,
    /// Shows the events of this actor.
    pub(super) actor: Option<&'a str>,
    /// Prints JSON.
    pub(super) json: bool,
    /// Writes a file for Perfetto.
    pub(super) perfetto: Option<PathBuf>,
}

/// A run with its events.
pub(super) struct Told {
    pub(super) scenario: Scenario,
    pub(super) plan: Plan,
    pub(super) outcome: Outcome,
    pub(super) events: Vec<Event>,
}

/// Plays a run for its events.
pub(super) fn tell(directory: &Path, run: &str, bug: Option<&str>) -> Result<Told, u8> {
    let named = replay::find(directory, run, bug)?;
    pool::activate(named.bug);
    let work =
        pool::Work { manner: Manner::TRACED, ..pool::Work::planned(&named.scenario, named.plan.clone()) };
    let (outcome, _) = pool::play_one(&work);
    let events = lanes::events(&named.scenario, &outcome.trace);
    Ok(Told { scenario: named.scenario, plan: named.plan, outcome, events })
}

/// `trace`.
pub(super) fn trace(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    let around = wanted.around.map(replay::time).transpose()?;
    let told = tell(directory, wanted.run, wanted.bug)?;
    let lanes = lanes::lanes(&told.scenario);
    if let Some(actor) = wanted.actor
        && !lanes.iter().any(|lane| lane == actor)
    {
        let known: Vec<&str> = lanes.iter().map(String::as_str).collect();
        eprintln!("no actor is called {actor:?}; {}", crate::scenario::advice(actor, &known));
        return Err(crate::codes::USAGE);
    }
    let is_near = |event: &&Event| around.is_none_or(|at| event.at_ms.abs_diff(at) <= AROUND);
    let is_own = |event: &&Event| wanted.actor.is_none_or(|actor| event.actor == actor);
    let shown: Vec<&Event> = told.events.iter().filter(is_near).filter(is_own).collect();
    if let Some(path) = &wanted.perfetto {
        std::fs::write(path, perfetto(&told)).map_err(|error| {
            eprintln!("cannot write {}: {error}", path.display());
            TOOL
        })?;
        println!("wrote {}; open it in https://ui.perfetto.dev", path.display());
    } else if wanted.json {
        for event in shown {
            println!("{}", serde_json::to_string(event).unwrap_or_default());
        }
    } else {
        draw(&told, &lanes, &shown);
    }
    Ok(told.outcome.verdict().code())
}

/// The state of a host at a time, as the line of its lane.
fn line(tracks: &[&Track], lane: &str, at_ms: u64) -> char {
    let track = tracks.iter().find(|track| track.name == lane);
    let span =
        track.and_then(|track| track.states.iter().find(|span| at_ms < span.to_ms).or(track.states.last()));
    match span.map(|span| span.state) {
        Some(State::Exact | State::Writes) => '┃',
        Some(State::Spilling) => '┇',
        Some(State::Bitmap) => '░',
        Some(State::Resync) => '▒',
        Some(State::Down) => ' ',
        Some(State::Fenced) => '╳',
        _ => '│',
    }
}

fn sign(level: Level) -> char {
    match level {
        Level::Info => '○',
        Level::Deed => '◆',
        Level::Warn => '▲',
        Level::Error => '✖',
        Level::Found => '●',
    }
}

fn draw(told: &Told, lanes: &[String], shown: &[&Event]) {
    let (machines, servers) = told.outcome.record.tracks();
    let tracks: Vec<&Track> = machines.iter().chain(&servers).collect();
    let verdict = told.outcome.verdict();
    println!(
        "{}@{}  {}  {:.1} s",
        told.scenario.name,
        told.plan.seed,
        paint::paint(verdict.word(), verdict),
        told.outcome.stats.simulated as f64 / 1000.0
    );
    println!(
        "{}",
        paint::faint(
            "◆ the lab acts  ○ told  ▲ warned  ✖ error  ● found   ┃ in order  ┇ spills  ░ bitmap  ▒ resync  ╳ fenced  │ idle"
        )
    );
    // Only lanes in which something is shown.
    let lanes: Vec<&String> = lanes
        .iter()
        .filter(|lane| {
            tracks.iter().any(|track| track.name == **lane) || shown.iter().any(|event| event.actor == **lane)
        })
        .collect();
    let head: Vec<String> = lanes.iter().map(|lane| format!("{lane}  ")).collect();
    println!("{:>12}  {}", "", head.concat());
    let width = lanes.iter().map(|lane| lane.chars().count() + 2).sum::<usize>() + 14;
    let room = paint::columns().unwrap_or(COLUMNS).saturating_sub(width).max(20);
    let (mut last, mut times) = (None, 0u64);
    for (index, event) in shown.iter().enumerate() {
        let key = (&event.actor, &event.what);
        times = if last == Some(key) { times + 1 } else { 1 };
        last = Some(key);
        let is_repeated = shown.get(index + 1).is_some_and(|next| (&next.actor, &next.what) == key);
        if is_repeated {
            continue;
        }
        let cells: Vec<String> = lanes
            .iter()
            .map(|lane| {
                let mark =
                    if **lane == event.actor { sign(event.level) } else { line(&tracks, lane, event.at_ms) };
                format!("{mark}{}", " ".repeat(lane.chars().count() + 1))
            })
            .collect();
        let words = if times > 1 { format!("{} ({times} times)", event.what) } else { event.what.clone() };
        let is_long = words.chars().count() > room;
        let words = if is_long { words.chars().take(room - 1).chain(['…']).collect() } else { words };
        let words = match event.level {
            Level::Found => paint::paint(&words, crate::harness::Verdict::Broken),
            Level::Warn | Level::Error => paint::paint(&words, crate::harness::Verdict::NotConverged),
            Level::Info => paint::faint(&words),
            Level::Deed => words,
        };
        println!("{:>10.3} s  {}{words}", event.at_ms as f64 / 1000.0, cells.concat());
    }
}

/// Returns the run in the format of trace viewers: lanes are threads, faults and states last, lag is a counter.
fn perfetto(told: &Told) -> String {
    let lanes = lanes::lanes(&told.scenario);
    let thread = |lane: &str| lanes.iter().position(|known| known == lane).unwrap_or(0) + 1;
    let mut events: Vec<serde_json::Value> = lanes
        .iter()
        .map(|lane| {
            json!({"ph": "M", "pid": 1, "tid": thread(lane), "name": "thread_name", "args": {"name": lane}})
        })
        .collect();
    let name = format!("{}@{}", told.scenario.name, told.plan.seed);
    events.push(json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}}));
    let span = |tid: usize, name: &str, from: u64, to: u64| {
        let length = to.saturating_sub(from).max(1) * 1000;
        json!({"ph": "X", "pid": 1, "tid": tid, "name": name, "ts": from * 1000, "dur": length})
    };
    for fault in plan::faults(&told.plan) {
        events.push(span(thread(lanes::PLAN), &fault.what, fault.from_ms, fault.to_ms));
    }
    let (machines, servers) = told.outcome.record.tracks();
    for track in machines.iter().chain(&servers) {
        let states = track.states.iter();
        events.extend(states.map(|state| {
            span(thread(&track.name), &format!("{:?}", state.state), state.from_ms, state.to_ms)
        }));
        for (second, lag) in (1u64..).zip(&track.lag_ms) {
            let name = format!("lag of {} (ms)", track.name);
            events.push(
                json!({"ph": "C", "pid": 1, "name": name, "ts": second * 1_000_000, "args": {"ms": lag}}),
            );
        }
    }
    for event in told.events.iter().filter(|event| event.actor != lanes::PLAN) {
        let (tid, at) = (thread(&event.actor), event.at_ms * 1000);
        events.push(json!({"ph": "i", "s": "t", "pid": 1, "tid": tid, "name": event.what, "ts": at}));
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
}
