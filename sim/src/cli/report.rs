//! `report`, and the files that `run` and `sweep` write: one set of runs in five forms.

#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, writes real files")]

use super::{INVALID, TOOL};
use clap::Args;
use redoubt_reports::{RunSet, of_set};
use std::path::{Path, PathBuf};

/// Where a page goes if nobody says.
const PAGE: &str = "report.html";

/// Files to write.
#[derive(Args, Default)]
pub(super) struct Files {
    /// Writes the report as one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Writes the set of runs as JSON, from which reports are made later.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes what was measured as a log of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// Writes the summary in Markdown.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Compares the report with the set of runs in this JSON file.
    #[arg(long, value_name = "RUN.json")]
    baseline: Option<PathBuf>,
}

/// Files that `capacity` writes: its `--json` is for the terminal.
#[derive(Args, Default)]
pub(super) struct CapacityFiles {
    /// Writes the result and its runs as one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Writes the set of runs with the result as JSON, from which reports are made later.
    #[arg(long, value_name = "RUN.json")]
    set: Option<PathBuf>,
}

impl CapacityFiles {
    /// Tells whether anything is to be written.
    pub(super) fn any(&self) -> bool {
        self.report.is_some() || self.set.is_some()
    }

    /// Writes what was asked for; says so beside the output, which may be for a program.
    pub(super) fn write(&self, set: &RunSet) -> Result<(), u8> {
        let set_file = self.set.as_deref().map(|path| (path, redoubt_reports::write(set)));
        let page = self.report.as_deref().map(|path| (path, redoubt_reports::html(set, None)));
        for (path, text) in set_file.into_iter().chain(page) {
            write_file(path, &text)?;
            eprintln!("wrote {}", path.display());
        }
        Ok(())
    }
}

impl Files {
    /// Tells whether anything is to be written.
    pub(super) fn any(&self) -> bool {
        let files = [&self.report, &self.json, &self.junit, &self.hdr, &self.summary];
        files.iter().any(|file| file.is_some())
    }

    /// Reads the baseline: before anything is played, so that a wrong file is told at once.
    pub(super) fn baseline(&self) -> Result<Option<RunSet>, u8> {
        self.baseline.as_deref().map(read).transpose()
    }

    /// Writes what was asked for.
    pub(super) fn write(&self, set: &RunSet, baseline: Option<&RunSet>) -> Result<(), u8> {
        put(self.json.as_deref(), || redoubt_reports::write(set))?;
        put(self.junit.as_deref(), || redoubt_reports::junit(set))?;
        put(self.hdr.as_deref(), || redoubt_reports::hdr_log(set))?;
        put(self.summary.as_deref(), || redoubt_reports::summary(set, &[], usize::MAX))?;
        put(self.report.as_deref(), || redoubt_reports::html(set, baseline))
    }
}

fn put(path: Option<&Path>, text: impl FnOnce() -> String) -> Result<(), u8> {
    let Some(path) = path else { return Ok(()) };
    write_file(path, &text())?;
    println!("wrote {}", path.display());
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<(), u8> {
    std::fs::write(path, text).map_err(|error| {
        eprintln!("cannot write {}: {error}", path.display());
        TOOL
    })
}

fn read(path: &Path) -> Result<RunSet, u8> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        eprintln!("cannot read {}: {error}", path.display());
        TOOL
    })?;
    redoubt_reports::read(&path.display().to_string(), &text).map_err(invalid)
}

/// Reads earlier sets that need not be there yet; an empty name is none.
pub(super) fn earlier(paths: &[PathBuf]) -> Result<Vec<RunSet>, u8> {
    let mut sets = Vec::new();
    for path in paths.iter().filter(|path| !path.as_os_str().is_empty()) {
        match path.exists() {
            true => sets.push(read(path)?),
            false => println!("no earlier set at {} yet", path.display()),
        }
    }
    Ok(sets)
}

fn invalid(error: redoubt_reports::FileError) -> u8 {
    eprintln!("{error}");
    INVALID
}

/// `report`.
pub(super) fn report(sets: &[PathBuf], mut files: Files) -> Result<u8, u8> {
    let baseline = files.baseline()?;
    let named: Vec<(String, RunSet)> =
        sets.iter().map(|path| Ok((path.display().to_string(), read(path)?))).collect::<Result<_, u8>>()?;
    let Some(set) = redoubt_reports::merge(named).map_err(invalid)? else { return Err(super::NOTHING) };
    if !files.any() {
        files.report = Some(PathBuf::from(PAGE));
    }
    files.write(&set, baseline.as_ref())?;
    let runs: u64 = set.scenarios.iter().map(|scenario| scenario.totals.runs).sum();
    println!("{}: {runs} runs", of_set(&set).words());
    Ok(0)
}
