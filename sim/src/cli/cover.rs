//! `cover`: what a set of runs reached. A knob that is turned again and again and never bites is dead: it fails.

use super::{files, paint, pool};
use crate::codes::{HELD, NEVER_SEEN, TOOL};
use crate::harness::{Outcome, Verdict};
use crate::plan;
use crate::scenario::verbs::{MARKS, VERBS};
use comfy_table::{Cell, Color};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A knob that was turned in fewer runs may have had no luck.
const TURNED_MIN: u64 = 5;

/// Crates whose warnings are counted.
const CRATES: [&str; 5] = ["core", "nbd", "roles", "vault", "wire"];

/// What was done with a fault.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Knob {
    /// Runs whose plan has it.
    turned: u64,
    /// Runs in which somebody met it.
    bit: u64,
    /// How often.
    times: u64,
}

/// What a set of runs reached.
#[derive(Debug, Default, Serialize)]
struct Cover {
    runs: u64,
    failed: u64,
    /// Whether all scenarios were played.
    is_whole: bool,
    knobs: BTreeMap<&'static str, Knob>,
    marks: BTreeMap<&'static str, u64>,
    /// Places of the engine that warn, and in how many runs they were reached.
    arms: BTreeMap<String, u64>,
    /// Changes of state, machines and process servers.
    changes: BTreeMap<String, u64>,
}

impl Cover {
    fn new() -> Cover {
        let faults = VERBS.iter().filter(|verb| verb.key == "fault");
        Cover {
            knobs: faults.map(|verb| (verb.name, Knob::default())).collect(),
            marks: MARKS.iter().map(|mark| (*mark, 0)).collect(),
            arms: places().into_iter().map(|place| (place, 0)).collect(),
            ..Cover::default()
        }
    }

    fn take(&mut self, turned: &BTreeSet<&'static str>, outcome: &Outcome) {
        self.runs += 1;
        self.failed += u64::from(outcome.verdict() != Verdict::Held);
        for verb in turned {
            self.knobs.entry(verb).or_default().turned += 1;
        }
        for (verb, times) in &outcome.bites {
            // What nobody turned is no fault of the plan: a cut link hits the store as well.
            if let Some(knob) = self.knobs.get_mut(verb).filter(|_| turned.contains(verb)) {
                knob.bit += 1;
                knob.times += times;
            }
        }
        for mark in &outcome.marks {
            *self.marks.entry(mark).or_default() += 1;
        }
        for (file, line) in &outcome.arms {
            *self.arms.entry(format!("{file}:{line}")).or_default() += 1;
        }
        let (machines, servers) = outcome.record.tracks();
        let changes: BTreeSet<String> = machines
            .iter()
            .chain(&servers)
            .flat_map(|track| track.states.windows(2))
            .map(|pair| format!("{:?} -> {:?}", pair[0].state, pair[1].state))
            .collect();
        changes.into_iter().for_each(|change| *self.changes.entry(change).or_default() += 1);
    }

    fn dead(&self) -> Vec<&'static str> {
        // What the engine may do at any time must be forced by some run of a whole set, if the set forces anything.
        let is_rare = |verb: &str| verb.starts_with("buggify.");
        let forces = self.is_whole && self.knobs.iter().any(|(verb, knob)| is_rare(verb) && knob.turned > 0);
        let is_due = |verb: &str, knob: &Knob| knob.turned >= TURNED_MIN || forces && is_rare(verb);
        let is_dead = |(verb, knob): &(&&'static str, &Knob)| knob.bit == 0 && is_due(verb, knob);
        self.knobs.iter().filter(is_dead).map(|(verb, _)| *verb).collect()
    }
}

/// Returns the places of the engine's sources that warn or tell of an error; none where there are no sources.
fn places() -> Vec<String> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine");
    let mut places = Vec::new();
    let mut open: Vec<_> = CRATES.iter().map(|name| engine.join(name).join("src")).collect();
    while let Some(directory) = open.pop() {
        for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let Ok(text) = std::fs::read_to_string(&path) else { continue };
                let shown = path.strip_prefix(engine.parent().unwrap_or(&engine)).unwrap_or(&path);
                places.extend(lines(&text).into_iter().map(|line| format!("{}:{line}", shown.display())));
            }
        }
    }
    places.sort();
    places
}

/// Returns the lines of a source that begin a warning or an error.
fn lines(text: &str) -> Vec<usize> {
    let begins = |line: &str| {
        let line = line.trim_start();
        ["warn!(", "error!("].iter().any(|word| {
            line.find(word).is_some_and(|at| {
                let before = line[..at].trim_end_matches("tracing::");
                !line.starts_with("//")
                    && before
                        .chars()
                        .next_back()
                        .is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
            })
        })
    };
    (1..).zip(text.lines()).filter(|(_, line)| begins(line)).map(|(number, _)| number).collect()
}

/// `cover`.
pub(super) fn cover(
    directory: &Path,
    names: &[String],
    seeds: Option<u64>,
    jobs: usize,
    json: bool,
) -> Result<u8, u8> {
    let scenarios = files::select(directory, names)?;
    let mut tasks = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        let from = scenario.seeds.from;
        tasks.extend((from..from + seeds.unwrap_or(scenario.seeds.pr)).map(|seed| (index, seed)));
    }
    let mut cover = Cover { is_whole: names.is_empty(), ..Cover::new() };
    let mut worst = Verdict::Held;
    pool::many(&scenarios, &tasks, jobs, |index, outcome, _| {
        let plan = plan::draw(&scenarios[index], outcome.seed);
        cover.take(&super::gather::turned(&plan), &outcome);
        worst = worst.max(outcome.verdict());
        true
    })?;
    if json {
        println!("{}", serde_json::to_string_pretty(&cover).map_err(|_| TOOL)?);
    } else {
        tell(&cover);
    }
    let dead = if cover.dead().is_empty() { HELD } else { NEVER_SEEN };
    Ok(if worst == Verdict::Held { dead } else { worst.code() })
}

fn tell(cover: &Cover) {
    let mut table = paint::table(&["fault", "runs with it", "bit in", "times"]);
    for (verb, knob) in &cover.knobs {
        let colour = match (knob.turned, knob.bit) {
            (0, _) => Color::DarkGrey,
            (turned, 0) if turned >= TURNED_MIN => Color::Red,
            (_, 0) => Color::Yellow,
            _ => Color::Green,
        };
        let numbers = [knob.turned, knob.bit, knob.times].map(|number| paint::cell(number, colour));
        table.add_row([vec![Cell::new(*verb)], numbers.into()].concat());
    }
    println!("{table}");
    let reached = cover.marks.values().filter(|runs| **runs > 0).count();
    println!("marks: {reached} of {} reached", cover.marks.len());
    list(cover.marks.iter().filter(|(_, runs)| **runs == 0).map(|(mark, _)| *mark));
    let reached = cover.arms.values().filter(|runs| **runs > 0).count();
    println!("places of the engine that warn: {reached} of {} reached", cover.arms.len());
    list(cover.arms.iter().filter(|(_, runs)| **runs == 0).map(|(place, _)| place.as_str()));
    let mut table = paint::table(&["change of state", "runs"]);
    for (change, runs) in &cover.changes {
        table.add_row(vec![change.clone(), runs.to_string()]);
    }
    println!("{table}");
    let dead = cover.dead();
    let (verdict, words) = match dead.is_empty() {
        true => (Verdict::Held, "no dead knob".to_owned()),
        false => (Verdict::Broken, format!("dead knobs, turned and never met: {}", dead.join(", "))),
    };
    println!("{}: {} runs, {} failed", paint::paint(&words, verdict), cover.runs, cover.failed);
}

fn list<'a>(words: impl Iterator<Item = &'a str>) {
    words.for_each(|word| println!("  {}", paint::faint(&format!("never: {word}"))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knob_that_was_turned_and_never_bit_is_dead() {
        let mut cover = Cover::new();
        let turned = BTreeSet::from(["link.cut", "store.late"]);
        for _ in 0..TURNED_MIN {
            assert!(cover.dead().is_empty());
            let bites = BTreeMap::from([("link.cut", 3), ("disk.hang", 1)]);
            cover.take(&turned, &Outcome { bites, ..Outcome::default() });
        }
        assert_eq!(cover.dead(), ["store.late"]);
        cover.is_whole = true;
        assert_eq!(cover.dead(), ["store.late"], "a set that forces nothing need not force this");
        cover.take(&BTreeSet::from(["buggify.early-beat"]), &Outcome::default());
        assert!(cover.dead().contains(&"buggify.put-twice"), "no run of a whole set forced it");
        assert_eq!((cover.knobs["link.cut"].times, cover.knobs["disk.hang"].times), (15, 0));
    }

    #[test]
    fn places_that_warn_are_found_in_the_sources() {
        let text =
            "fn a() {\n    // warn!(\"no\")\n    warn!(\"yes\");\n    tracing::error!(\n    my_warn!(x);\n}";
        assert_eq!(lines(text), [3, 4]);
        assert!(places().iter().any(|place| place.starts_with("engine/roles/src/")));
    }
}
