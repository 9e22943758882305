//! Capsules on disk: one for each run that failed, and the proof of a replay.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, writes real files")]

use super::build;
use crate::capsule::{Capsule, EXTENSION, FORMAT, Parting, part};
use crate::codes::{INVALID, TOOL};
use crate::freeze::Frozen;
use crate::harness::Outcome;
use crate::plan::{self, Plan};
use crate::scenario::Scenario;
use std::path::{Path, PathBuf};

/// Capsules of one command at most: a broken build fails in every run, and nobody reads them all.
const CAPSULES_MAX: usize = 200;

/// Returns the names of a scenario's hosts.
pub(super) fn hosts(scenario: &Scenario) -> Vec<&str> {
    let machines = scenario.estate.machines.iter().map(|machine| machine.name.as_str());
    machines.chain(scenario.estate.servers.iter().map(|server| server.name.as_str())).collect()
}

/// Returns a run as a capsule.
pub(super) fn capsule(scenario: &Scenario, plan: Plan, outcome: &Outcome) -> Capsule {
    let build = build::build();
    Capsule {
        format: FORMAT,
        scenario: scenario.name.clone(),
        seed: plan.seed,
        version: build.version,
        commit: build.commit,
        bug: build.planted_bug,
        code: outcome.verdict().code(),
        signature: outcome.signature(&hosts(scenario)),
        said: outcome.cause().map(|(_, what)| what).unwrap_or_default(),
        found_ms: outcome.record.found_ms,
        digest: outcome.digest.clone(),
        beats: outcome.beats.clone(),
        text: Frozen::new(scenario, &plan).text(),
        plan,
    }
}

/// Where capsules go if nobody says: beside the build, which no repository keeps.
pub(super) fn usual_place() -> PathBuf {
    let program = std::env::current_exe().ok();
    let target = program.as_deref().and_then(Path::parent).and_then(Path::parent);
    target.unwrap_or(Path::new("target")).join("runs")
}

/// Writes the capsules of one command.
pub(super) struct Shelf {
    place: PathBuf,
    written: usize,
}

impl Shelf {
    /// Makes a shelf in a directory, or in the usual place.
    pub(super) fn new(place: Option<&Path>) -> Shelf {
        Shelf { place: place.map_or_else(usual_place, Path::to_path_buf), written: 0 }
    }

    /// Writes the capsule of a seed; returns where it is. What cannot be written is said, and costs only the file.
    pub(super) fn put(&mut self, scenario: &Scenario, outcome: &Outcome) -> Option<PathBuf> {
        if self.written >= CAPSULES_MAX {
            return None;
        }
        self.written += 1;
        let capsule = capsule(scenario, plan::draw(scenario, outcome.seed), outcome);
        match write(&self.place, &capsule) {
            Ok(path) => Some(path),
            Err(what) => {
                eprintln!("{what}");
                None
            }
        }
    }
}

/// Writes a capsule into a directory.
pub(super) fn write(place: &Path, capsule: &Capsule) -> Result<PathBuf, String> {
    let bug = capsule.bug.as_ref().map(|bug| format!("+{bug}")).unwrap_or_default();
    let name = capsule.scenario.replace('/', "-");
    let path = place.join(format!("{name}@{}{bug}.{EXTENSION}", capsule.seed));
    let text = capsule.write().map_err(|error| format!("cannot write a capsule: {error}"))?;
    std::fs::create_dir_all(place).and_then(|()| std::fs::write(&path, text)).map_err(|error| {
        format!("cannot write {}: {error}; choose another place with --out", path.display())
    })?;
    let here = std::env::current_dir().unwrap_or_default();
    Ok(path.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(path))
}

/// Reads a capsule.
pub(super) fn read(path: &Path) -> Result<Capsule, u8> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        eprintln!("cannot read {}: {error}", path.display());
        TOOL
    })?;
    Capsule::read(&text).map_err(|what| {
        eprintln!("{} {what}", path.display());
        INVALID
    })
}

/// Returns the scenario of a capsule.
pub(super) fn scenario(path: &Path, capsule: &Capsule) -> Result<Scenario, u8> {
    crate::scenario::load(&path.display().to_string(), &capsule.scenario, &capsule.text).map_err(|problems| {
        eprint!("{}", problems.render(super::paint::coloured()));
        eprintln!("the capsule was made by another lab ({})", of(capsule));
        INVALID
    })
}

/// Returns the words for what a capsule was made by.
pub(super) fn of(capsule: &Capsule) -> String {
    match &capsule.commit {
        Some(commit) => format!("version {}, commit {commit}", capsule.version),
        None => format!("version {}, no commit known", capsule.version),
    }
}

/// Returns why this lab may not be able to play a capsule's run; none if it was built from the same commit.
pub(super) fn doubt(capsule: &Capsule) -> Option<String> {
    let here = build::build().commit;
    if capsule.commit == here && !here.as_ref().is_some_and(|commit| commit.ends_with('+')) {
        return None;
    }
    let this = here.unwrap_or_else(|| "unknown".into());
    let clean = capsule.commit.as_deref().map(|commit| commit.trim_end_matches('+'));
    let advice =
        clean.map(|commit| format!("; to play the very run: git checkout {commit}")).unwrap_or_default();
    Some(format!("recorded by {}; this is commit {this}{advice}", of(capsule)))
}

/// Judges a replay: `None` if it is the recorded run, else where they part. A replay that was stopped on the way is
/// judged as far as it went.
pub(super) fn parted(capsule: &Capsule, outcome: &Outcome, is_whole: bool) -> Option<String> {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    match part(&capsule.beats, &outcome.beats) {
        Parting::Before { last_equal, recorded, replayed } => {
            let from = last_equal.map_or("from the start".to_owned(), |beat| {
                format!("after {:.3} s (event {})", seconds(beat.at_ms), beat.events)
            });
            Some(format!(
                "they part {from} and before {:.3} s: {} events with digest {} were recorded, {} with {} came",
                seconds(recorded.at_ms),
                recorded.events,
                recorded.digest,
                replayed.events,
                replayed.digest
            ))
        }
        Parting::Nowhere if is_whole && capsule.digest != outcome.digest => Some(format!(
            "they part after the last beat both have, at {:.3} s, or in what was judged at the end",
            seconds(capsule.beats.last().map_or(0, |beat| beat.at_ms))
        )),
        Parting::Nowhere => None,
    }
}
