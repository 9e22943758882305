//! `check`, `explain`, `fmt`, `list`, `schema`: what the lab says about scenario files without playing them.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, writes real files")]

use super::TOOL;
use super::{INVALID, files, paint};
use crate::scenario::{self, Code, FileKind, Problems, Shown};
use clap::{Subcommand, ValueEnum};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Directories below that of the scenarios whose files are checked.
const CHECKED: [&str; 6] = ["", "regressions", "bench", "large", "estates", "weather"];

/// Commands about the language of scenarios.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Checks scenario files and reports every problem.
    Check {
        /// Files; everything under the directory of scenarios if none is given.
        files: Vec<PathBuf>,
    },
    /// Tells the story of a scenario and draws its estate, or explains the code of a problem.
    Explain {
        /// A scenario, or a code such as S022; all codes if nothing is given.
        what: Option<String>,
    },
    /// Lays scenario files out as everybody writes them; comments stay.
    Fmt {
        /// Files; everything under the directory of scenarios if none is given.
        files: Vec<PathBuf>,
        /// Changes nothing and fails if a file is laid out otherwise.
        #[arg(long)]
        check: bool,
    },
    /// Prints the JSON Schema of scenario files, for editors.
    Schema {
        /// Kind of file.
        #[arg(value_enum, default_value = "scenario")]
        kind: Kind,
    },
    /// Lists the scenarios.
    List {
        /// Names, tags or patterns such as 'old-*'; all if none is given.
        words: Vec<String>,
    },
}

/// Kinds of files.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// A scenario.
    Scenario,
    /// A file of `estates/`.
    Estate,
    /// A file of `weather/`.
    Weather,
    /// A file of known failures.
    Known,
}

/// Runs a command.
pub(super) fn run(directory: &Path, command: &Command) -> Result<u8, u8> {
    match command {
        Command::Check { files } => check(directory, files),
        Command::Explain { what } => explain(directory, what.as_deref()),
        Command::Fmt { files, check } => format(directory, files, *check),
        Command::Schema { kind } => schema(*kind),
        Command::List { words } => list(directory, words),
    }
}

/// Returns what a file is, by its directory.
fn kind(path: &Path) -> FileKind {
    let parent = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    match parent.as_deref() {
        _ if path.file_name().is_some_and(|name| name == scenario::KNOWN_FILE) => FileKind::Known,
        Some("estates") => FileKind::Estate,
        Some("weather") => FileKind::Weather,
        _ => FileKind::Scenario,
    }
}

/// Reads a file as what it is.
fn judge(directory: &Path, path: &Path) -> Result<Option<Box<Problems>>, u8> {
    let source = files::read(path)?;
    let (shown, name) = (path.display().to_string(), files::stem(path));
    let library = files::library(directory, path);
    let result = match kind(path) {
        FileKind::Estate => scenario::load_estate(&shown, &source, &library).map(drop),
        FileKind::Weather => scenario::load_weather(&shown, &name, &source).map(drop),
        FileKind::Known => scenario::load_known(&shown, &source).map(drop),
        FileKind::Scenario => scenario::load_scenarios(&shown, &name, &source, &library).map(drop),
    };
    Ok(result.err())
}

/// Returns every file under the directory of scenarios.
fn all(directory: &Path) -> Result<Vec<PathBuf>, u8> {
    let mut paths = files::paths(directory, &CHECKED)?;
    let known = directory.join(scenario::KNOWN_FILE);
    paths.extend(known.is_file().then_some(known));
    Ok(paths)
}

/// Judges every file; returns how many there are, and every problem.
pub(super) fn judge_all(directory: &Path) -> Result<(usize, Vec<Shown>), u8> {
    let paths = all(directory)?;
    let (_, found) = problems(directory, &paths, false)?;
    Ok((paths.len(), found))
}

/// Judges files; returns how many are good, and every problem once.
fn problems(directory: &Path, paths: &[PathBuf], is_coloured: bool) -> Result<(usize, Vec<Shown>), u8> {
    let mut good = 0;
    let mut found: Vec<Shown> = Vec::new();
    for path in paths {
        match judge(directory, path)? {
            None => good += 1,
            Some(problems) => found.extend(problems.shown(is_coloured)),
        }
    }
    // What a shared file has wrong is shown once, not with each file that stands on it.
    let mut places = BTreeSet::new();
    found.retain(|shown| places.insert((shown.path.clone(), shown.line, shown.column, shown.what.clone())));
    Ok((good, found))
}

fn check(directory: &Path, paths: &[PathBuf]) -> Result<u8, u8> {
    let paths = if paths.is_empty() { all(directory)? } else { paths.to_vec() };
    let (good, found) = problems(directory, &paths, paint::coloured())?;
    for shown in &found {
        eprintln!("{}\n", shown.text);
    }
    if let Some(first) = found.first() {
        let code = first.what.split(':').next().unwrap_or_default();
        eprintln!("{} problems; `cargo sim explain {code}` says more about one of them", found.len());
    }
    println!("{good} of {} scenario files are valid", paths.len());
    Ok(if good == paths.len() { 0 } else { INVALID })
}

fn explain(directory: &Path, what: Option<&str>) -> Result<u8, u8> {
    let Some(name) = what else {
        let mut table = paint::table(&["code", "what is wrong"]);
        for code in Code::ALL {
            table.add_row(vec![code.name(), code.title()]);
        }
        println!("{table}");
        return Ok(0);
    };
    if let Some(code) = Code::find(name) {
        println!("{}: {}\n\n{}", code.name(), code.title(), code.text());
        return Ok(0);
    }
    let stories: Vec<String> =
        files::select(directory, &[name.to_owned()])?.iter().map(scenario::tell).collect();
    print!("{}", stories.join("\n"));
    Ok(0)
}

fn format(directory: &Path, paths: &[PathBuf], is_check: bool) -> Result<u8, u8> {
    let paths = if paths.is_empty() { all(directory)? } else { paths.to_vec() };
    let (mut changed, mut code) = (0, 0);
    for path in &paths {
        let source = files::read(path)?;
        match scenario::layout(&source, kind(path)) {
            Ok(text) if text == source => {}
            Ok(_) if is_check => {
                println!("{} is laid out otherwise", path.display());
                (changed, code) = (changed + 1, INVALID);
            }
            Ok(text) => {
                std::fs::write(path, text).map_err(|error| {
                    eprintln!("cannot write {}: {error}", path.display());
                    TOOL
                })?;
                println!("{}", path.display());
                changed += 1;
            }
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                code = INVALID;
            }
        }
    }
    match is_check {
        true if changed > 0 => println!("{changed} of {} files; `cargo sim fmt` lays them out", paths.len()),
        true => println!("{} files are laid out well", paths.len()),
        false => println!("{changed} of {} files changed", paths.len()),
    }
    Ok(code)
}

fn schema(kind: Kind) -> Result<u8, u8> {
    let kind = match kind {
        Kind::Scenario => FileKind::Scenario,
        Kind::Estate => FileKind::Estate,
        Kind::Weather => FileKind::Weather,
        Kind::Known => FileKind::Known,
    };
    println!("{:#}", scenario::schema(kind));
    Ok(0)
}

fn list(directory: &Path, words: &[String]) -> Result<u8, u8> {
    let found = files::select(directory, words)?;
    // Two lines each: names and sentences are long, and in columns both would be broken.
    for scenario in &found {
        println!("{}  {}", paint::strong(&scenario.name), paint::faint(&scenario.tags.join(" ")));
        println!("    {}", scenario.title);
    }
    let seeds: u64 = found.iter().map(|scenario| scenario.seeds.pr).sum();
    println!("{} scenarios, {seeds} seeds in the set of a change", found.len());
    Ok(0)
}
