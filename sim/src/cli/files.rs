//! Scenario files on disk: finding, selecting, checking, listing.

use super::{INVALID, NOTHING, TOOL, paint};
use crate::plan::{self, Plan};
use crate::scenario::{self, Scenario, nearest};
use redoubt_hw_models as hw;
use std::path::{Path, PathBuf};

/// Returns the directory of the repository's scenarios.
pub(super) fn default_directory() -> PathBuf {
    let here = PathBuf::from("scenarios");
    if here.is_dir() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios") }
}

/// Directory of frozen scenarios, below that of the others: each is the test for a defect that was found.
const REGRESSIONS: &str = "regressions";

fn paths(directory: &Path) -> Result<Vec<PathBuf>, u8> {
    let mut paths = paths_in(directory)?;
    let own = directory.join(REGRESSIONS);
    if own.is_dir() {
        paths.extend(paths_in(&own)?);
    }
    Ok(paths)
}

fn paths_in(directory: &Path) -> Result<Vec<PathBuf>, u8> {
    let entries = std::fs::read_dir(directory).map_err(|error| {
        eprintln!("cannot read {}: {error}", directory.display());
        TOOL
    })?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| path.file_name().is_some_and(|name| name != "Cargo.toml"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn load(path: &Path) -> Result<Scenario, u8> {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let source = std::fs::read_to_string(path).map_err(|error| {
        eprintln!("cannot read {}: {error}", path.display());
        TOOL
    })?;
    scenario::load(&path.display().to_string(), &name, &source).map_err(|problems| {
        eprint!("{}", problems.render(paint::coloured()));
        INVALID
    })
}

/// Loads the scenarios with one of the names or tags; all if none is given.
pub(super) fn select(directory: &Path, names: &[String]) -> Result<Vec<Scenario>, u8> {
    let mut all = Vec::new();
    let mut failed = None;
    for path in paths(directory)? {
        match load(&path) {
            Ok(scenario) => all.push(scenario),
            Err(code) => failed = Some(code),
        }
    }
    if let Some(code) = failed {
        return Err(code);
    }
    for name in names {
        if !all.iter().any(|scenario| scenario.name == *name || scenario.tags.contains(name)) {
            let near = nearest(name, all.iter().map(|scenario| scenario.name.as_str()));
            let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            eprintln!("no scenario has the name or tag {name:?}{hint}");
            return Err(NOTHING);
        }
    }
    if !names.is_empty() {
        all.retain(|scenario| {
            names.iter().any(|name| scenario.name == *name || scenario.tags.contains(name))
        });
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
    Ok((found.swap_remove(0), seed))
}

/// `check`.
pub(super) fn check(directory: &Path, files: &[PathBuf]) -> Result<u8, u8> {
    let files = if files.is_empty() { paths(directory)? } else { files.to_vec() };
    let mut code = 0;
    let mut good = 0;
    for path in &files {
        match load(path) {
            Ok(_) => good += 1,
            Err(error) => code = error,
        }
    }
    println!("{good} of {} scenario files are valid", files.len());
    Ok(code)
}

/// `list`.
pub(super) fn list(directory: &Path) -> Result<u8, u8> {
    let mut table = paint::table(&["scenario", "story", "tags", "seeds"]);
    for scenario in select(directory, &[])? {
        let seeds = scenario.seeds.pr.to_string();
        table.add_row(vec![scenario.name, scenario.title, scenario.tags.join(" "), seeds]);
    }
    println!("{table}");
    Ok(0)
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
