//! `--ci`: everything that a job of a CI service shows, in one directory. Templates of the services only call the tool
//! and upload (`ci/README.md`).
#![expect(
    clippy::disallowed_methods,
    reason = "the tool, not the engine, writes real files and asks for the day"
)]

mod excuses;
mod places;
mod repository;

pub(super) use excuses::Excuses;
pub(super) use repository::{commit, day_of, head, root, today};

use super::{INVALID, TOOL, capsules, language};
use crate::date::Date;
use crate::scenario::Shown;
use clap::{Args, ValueEnum};
use redoubt_reports::{Annotation, Level, RunSet, annotations, code_quality, github, summary};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What GitHub takes as the summary of one step, less what other lines may need.
const ROOM: usize = (1 << 20) - 4096;

/// For whom files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Service {
    /// The one whose job this is, by its environment; else plain.
    Auto,
    /// Also annotations, as commands on the standard output, and the summary of the step.
    Github,
    /// Files only; GitLab reads them as reports of the job.
    Gitlab,
    /// Files only.
    Plain,
}

/// What a job is to show, and what it excuses.
#[derive(Args, Default)]
pub(super) struct Flags {
    /// Writes what a job of a CI service shows into the directory of `--out`: summary, report, JUnit, code quality, the
    /// set of runs and capsules. Seeds then come from the commit.
    #[arg(long, value_enum, value_name = "SERVICE")]
    ci: Option<Service>,
    /// Failures that are known; by default `known-failures.toml` beside the scenarios, if it is there.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// The day by which known failures expire; by default that of the commit, of a sweep the real one.
    #[arg(long, value_name = "DATE")]
    today: Option<Date>,
}

impl Flags {
    /// Tells whether a job's files are asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.ci.is_some()
    }
}

/// A job under way.
pub(super) struct Ci {
    /// Failures that are known.
    pub(super) excuses: Excuses,
    directory: PathBuf,
    /// Where its files go; none if nobody asked for them.
    out: Option<PathBuf>,
    /// As long as it lives, nothing that is printed is a command.
    hush: Option<Hush>,
}

/// On GitHub each line of a job may be a command. What runs and scenarios say is none: commands are stopped before the
/// first of it, with a word that nobody else knows.
struct Hush(String);

impl Hush {
    fn new() -> Hush {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let word = blake3::hash(format!("{} {}", now.as_nanos(), std::process::id()).as_bytes()).to_hex();
        println!("::stop-commands::{word}");
        Hush(word.to_string())
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        println!("::{}::", self.0);
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "true")
}

fn service(asked: Service) -> Service {
    match asked {
        Service::Auto if is_set("GITHUB_ACTIONS") => Service::Github,
        Service::Auto if is_set("GITLAB_CI") => Service::Gitlab,
        Service::Auto => Service::Plain,
        other => other,
    }
}

impl Ci {
    /// Begins a job. `day` is the day if nobody says another one. A file of known failures that is invalid is shown as
    /// invalid scenarios are, wherever it lies.
    pub(super) fn begin(flags: &Flags, directory: &Path, out: Option<&Path>, day: Date) -> Result<Ci, u8> {
        let hush = flags.ci.filter(|asked| service(*asked) == Service::Github).map(|_| Hush::new());
        let out = flags.ci.map(|_| out.map_or_else(|| capsules::usual_place().join("ci"), Path::to_path_buf));
        let excuses = Excuses::none(flags.today.unwrap_or(day));
        let mut ci = Ci { excuses, directory: directory.to_path_buf(), out, hush };
        let wrong = ci.excuses.read(flags.known.as_deref(), directory)?;
        if !wrong.is_empty() {
            ci.write_invalid(wrong)?;
            return Err(INVALID);
        }
        Ok(ci)
    }

    /// Tells whether a job's files are asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.out.is_some()
    }

    /// Returns where the capsules of a job go.
    pub(super) fn capsules(&self) -> Option<PathBuf> {
        self.out.as_ref().map(|out| out.join("capsules"))
    }

    /// Writes everything about a set.
    pub(super) fn write(&mut self, set: &RunSet, baseline: Option<&RunSet>) -> Result<(), u8> {
        let Some(out) = self.out.clone() else { return Ok(()) };
        let root = repository::root(&self.directory);
        let names = set.scenarios.iter().map(|scenario| scenario.name.as_str());
        let mut all = self.shown(&self.excuses.expired, Level::Error, &root);
        all.extend(annotations(set, &places::of(&self.directory, &root, names)?));
        all.extend(self.shown(&self.excuses.idle, Level::Warning, &root));
        let notes: Vec<String> = self.excuses.expired.iter().chain(&self.excuses.idle).map(note).collect();
        put(&out, "run.json", &redoubt_reports::write(set))?;
        put(&out, "report.html", &redoubt_reports::html(set, baseline))?;
        put(&out, "junit.xml", &redoubt_reports::junit(set))?;
        self.tell(&out, &all, &|room| summary(set, &notes, room))
    }

    /// Writes that files are invalid, each problem at its place: nothing was played. `wrong` is what is known already;
    /// files beside the scenarios are judged here.
    pub(super) fn write_invalid(&mut self, wrong: Vec<Shown>) -> Result<(), u8> {
        let Some(out) = self.out.clone() else { return Ok(()) };
        let root = repository::root(&self.directory);
        let (_, mut found) = language::judge_all(&self.directory)?;
        let file = |shown: &Shown| repository::path_in(&root, Path::new(&shown.path));
        let judged: BTreeSet<String> = found.iter().map(file).collect();
        found.extend(wrong.into_iter().filter(|shown| !judged.contains(&file(shown))));
        let all = self.shown(&found, Level::Error, &root);
        let sentences: Vec<String> = found.iter().map(note).collect();
        self.tell(&out, &all, &|room| redoubt_reports::invalid_summary(&sentences, room))
    }

    fn shown(&self, list: &[Shown], level: Level, root: &Path) -> Vec<Annotation> {
        let of = |shown: &Shown| Annotation {
            level,
            at: Some((repository::path_in(root, Path::new(&shown.path)), shown.line as u64)),
            title: shown.what.clone(),
            text: shown.text.clone(),
            key: format!("{} {} {}", shown.path, shown.line, shown.what),
        };
        list.iter().map(of).collect()
    }

    /// Writes summary and annotations.
    fn tell(&mut self, out: &Path, all: &[Annotation], summary: &dyn Fn(usize) -> String) -> Result<(), u8> {
        put(out, "summary.md", &summary(ROOM))?;
        put(out, "gl-code-quality-report.json", &code_quality(all))?;
        println!("wrote {}", out.display());
        if let Some(hush) = self.hush.take() {
            append_to_step(summary)?;
            drop(hush);
            print!("{}", github(all));
        }
        Ok(())
    }
}

fn note(shown: &Shown) -> String {
    format!("{}:{}: {}", shown.path, shown.line, shown.what)
}

/// Appends the summary to that of GitHub's step, which may have words of other calls already.
fn append_to_step(summary: &dyn Fn(usize) -> String) -> Result<(), u8> {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let path = PathBuf::from(path);
    let failed = |error: std::io::Error| {
        eprintln!("cannot write the summary of the step, {}: {error}", path.display());
        TOOL
    };
    let taken = std::fs::metadata(&path).map_or(0, |data| data.len() as usize);
    let text = format!("{}\n", summary(ROOM.saturating_sub(taken)));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

fn put(out: &Path, name: &str, text: &str) -> Result<(), u8> {
    let path = out.join(name);
    std::fs::create_dir_all(out).and_then(|()| std::fs::write(&path, text)).map_err(|error| {
        eprintln!("cannot write {}: {error}", path.display());
        TOOL
    })
}
