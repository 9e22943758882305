//! Scenario files on disk: finding and selecting.

use super::{INVALID, NOTHING, TOOL, paint};
use crate::plan::{self, Plan};
use crate::scenario::{self, Directories, Scenario, is_pattern, matches, nearest};
use redoubt_hw_models as hw;
use std::path::{Path, PathBuf};

/// Returns the directory of the repository's scenarios.
pub(super) fn default_directory() -> PathBuf {
    let here = PathBuf::from("scenarios");
    if here.is_dir() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios") }
}

/// Directory of frozen scenarios, below that of the others: each is the test for a defect that was found.
pub(super) const REGRESSIONS: &str = "regressions";

/// Directories below that of the scenarios whose files are played with the others.
pub(super) const PLAYED: [&str; 2] = ["", REGRESSIONS];

/// Directory of scenarios that take minutes, below that of the others: played only by whoever calls them by name.
const LARGE: &str = "large";

/// Returns the scenario files in some directories below that of the scenarios, by name; those that are not there
/// have none.
pub(super) fn paths(directory: &Path, below: &[&str]) -> Result<Vec<PathBuf>, u8> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for below in below {
        let place = if below.is_empty() { directory.to_path_buf() } else { directory.join(below) };
        if !below.is_empty() && !place.is_dir() {
            continue;
        }
        let entries = std::fs::read_dir(&place).map_err(|error| {
            eprintln!("cannot read {}: {error}", place.display());
            TOOL
        })?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .filter(|path| {
                path.file_name().is_some_and(|name| name != "Cargo.toml" && name != scenario::KNOWN_FILE)
            })
            .collect();
        found.sort();
        paths.extend(found);
    }
    Ok(paths)
}

/// Reads a file's text.
pub(super) fn read(path: &Path) -> Result<String, u8> {
    std::fs::read_to_string(path).map_err(|error| {
        eprintln!("cannot read {}: {error}", path.display());
        TOOL
    })
}

/// Returns where the files are looked for that a file names: beside it, then among the scenarios.
pub(super) fn library(directory: &Path, path: &Path) -> Directories {
    let own = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    Directories(vec![own, directory.to_path_buf()])
}

/// Returns a file's name without its extension.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The canary's story: built in, so that it sings beside anybody's scenarios.
const CANARY: (&str, &str) = ("canary", include_str!("../../../scenarios/canary.toml"));

fn load(directory: &Path, path: &Path) -> Result<Vec<Scenario>, u8> {
    let source = read(path)?;
    let library = library(directory, path);
    scenario::load_scenarios(&path.display().to_string(), &stem(path), &source, &library).map_err(
        |problems| {
            eprint!("{}", problems.render(paint::coloured()));
            INVALID
        },
    )
}

/// Tells whether a word selects a scenario: its name, that of its file, a tag of it, or a pattern of these.
pub(super) fn selects(word: &str, scenario: &Scenario) -> bool {
    let is_meant = |name: &str| name == word || is_pattern(word) && matches(word, name);
    let is_cell = || scenario.name.strip_prefix(word).is_some_and(|rest| rest.starts_with('.'));
    is_meant(&scenario.name) || is_cell() || scenario.tags.iter().any(|tag| is_meant(tag))
}

/// Loads the scenarios that one of the words selects; all if none is given.
pub(super) fn select(directory: &Path, words: &[String]) -> Result<Vec<Scenario>, u8> {
    let mut all = Vec::new();
    let mut failed = None;
    for path in paths(directory, &PLAYED)? {
        match load(directory, &path) {
            Ok(scenarios) => all.extend(scenarios),
            Err(code) => failed = Some(code),
        }
    }
    if let Some(code) = failed {
        return Err(code);
    }
    let is_asked = |name: &str| words.iter().any(|word| word == name);
    if is_asked(CANARY.0) && !all.iter().any(|scenario| scenario.name == CANARY.0) {
        all.extend(scenario::load("canary.toml", CANARY.0, CANARY.1).ok());
    }
    for path in if words.is_empty() { Vec::new() } else { paths(directory, &[LARGE])? } {
        let is_called = |scenario: &Scenario| words.contains(&scenario.name);
        all.extend(load(directory, &path)?.into_iter().filter(is_called));
    }
    for word in words {
        if !all.iter().any(|scenario| selects(word, scenario)) {
            let near = nearest(word, all.iter().map(|scenario| scenario.name.as_str()));
            let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            eprintln!("no scenario has the name or tag {word:?}{hint}");
            return Err(NOTHING);
        }
    }
    if !words.is_empty() {
        all.retain(|scenario| words.iter().any(|word| selects(word, scenario)));
    }
    if all.is_empty() {
        eprintln!("no scenario in {}", directory.display());
        return Err(NOTHING);
    }
    Ok(all)
}

/// Loads the scenario of `name@seed`.
pub(super) fn select_run(directory: &Path, run: &str) -> Result<(Scenario, u64), u8> {
    let Some((name, seed)) = run.split_once('@').and_then(|(name, seed)| Some((name, seed.parse().ok()?)))
    else {
        eprintln!("{run:?} is no run; write SCENARIO@SEED, such as steady-stream@1");
        return Err(2);
    };
    let mut found = select(directory, &[name.to_owned()])?;
    let exact = found.iter().position(|scenario| scenario.name == name);
    if exact.is_none() && found.len() > 1 {
        let names: Vec<&str> = found.iter().map(|scenario| scenario.name.as_str()).collect();
        eprintln!("{name:?} is more than one scenario: {}", names.join(", "));
        return Err(2);
    }
    Ok((found.swap_remove(exact.unwrap_or(0)), seed))
}

/// Says which hardware models a scenario runs on, and where their numbers come from.
fn hardware(scenario: &Scenario) -> String {
    let estate = &scenario.estate;
    let used = [
        ("disk", &estate.disk, &hw::DISKS[..]),
        ("link", &estate.link, &hw::LINKS),
        ("store", &estate.store, &hw::STORES),
    ];
    let mut text = String::new();
    for (kind, name, models) in used {
        let source =
            models.iter().find(|(known, _)| known == name).and_then(|(_, text)| hw::source(text).ok());
        if let Some(source) = source {
            text.push_str(&format!("  {kind} {name}: {} ({})\n", source.how, source.note));
        }
    }
    text
}

/// `plan`.
pub(super) fn plan(directory: &Path, run: &str, json: bool) -> Result<u8, u8> {
    let (scenario, seed) = select_run(directory, run)?;
    let plan: Plan = plan::draw(&scenario, seed);
    if json {
        let text = serde_json::to_string_pretty(&plan).map_err(|error| {
            eprintln!("cannot write the plan: {error}");
            TOOL
        })?;
        println!("{text}");
    } else {
        print!("{plan}");
        print!("{}", hardware(&scenario));
    }
    Ok(0)
}
