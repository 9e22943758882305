//! Failures at their place in scenario files, for services that show them beside the text: as commands of GitHub's
//! workflows, and as GitLab's report of code quality.
//!
//! What is *not* here: where a promise stands in a file (`Places` comes from whoever read it).

use crate::causes::{Cause, causes};
use crate::judge;
use crate::markdown::{clean, line};
use crate::model::{RunSet, Scenario, Verdict};
use crate::text;
use serde::Serialize;
use std::collections::BTreeMap;

/// Most annotations of one step that GitHub shows.
pub const MOST: usize = 10;

/// Most entries of a report of code quality.
const ENTRIES: usize = 500;

/// Longest text of an annotation, in letters.
const LONGEST: usize = 1500;

/// Where a scenario's sentences stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its file, as the repository names it.
    pub file: String,
    /// The line that says what it is about.
    pub line: u64,
    /// Lines of promises: by oracle, `converges`, `objective` and `sometimes`; those of one by its own words behind it,
    /// such as `sometimes spilled`.
    pub promises: BTreeMap<String, u64>,
}

/// Places by the name of the scenario.
pub type Places = BTreeMap<String, Place>;

/// How loud an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It fails the set.
    Error,
    /// It is told.
    Warning,
}

/// Something to show at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// How loud.
    pub level: Level,
    /// File and line, if it has a place.
    pub at: Option<(String, u64)>,
    /// A few words.
    pub title: String,
    /// The whole.
    pub text: String,
    /// What it is called across sets: the same for the same failure of other seeds.
    pub key: String,
}

/// Returns what a set has to show, the worst first: each cause in one of its scenarios, then in the others of them.
pub fn annotations(set: &RunSet, places: &Places) -> Vec<Annotation> {
    let causes = causes(set);
    let by_cause: Vec<Vec<Annotation>> = causes.iter().map(|cause| of_cause(cause, places)).collect();
    let most = by_cause.iter().map(Vec::len).max().unwrap_or(0);
    let mut all: Vec<Annotation> = Vec::new();
    for round in 0..most {
        all.extend(by_cause.iter().filter_map(|list| list.get(round)).cloned());
    }
    all.extend(set.scenarios.iter().flat_map(|scenario| vacuous(scenario, places)));
    // Stable: the order within a level stays.
    all.sort_by_key(|annotation| annotation.level == Level::Warning);
    all
}

/// Returns where a promise stands: the one whose own words are quoted, else the first of its kind.
fn at(places: &Places, scenario: &str, promise: &str, what: &str) -> Option<(String, u64)> {
    let place = places.get(scenario)?;
    let quoted = place.promises.iter().find(|(key, _)| {
        key.strip_prefix(promise)
            .and_then(|rest| rest.strip_prefix(' '))
            .is_some_and(|own| what.starts_with(own))
    });
    let line = quoted.map(|(_, line)| line).or_else(|| place.promises.get(promise));
    Some((place.file.clone(), line.copied().unwrap_or(place.line)))
}

/// Returns a cause in each of its scenarios.
fn of_cause(cause: &Cause<'_>, places: &Places) -> Vec<Annotation> {
    let mut by_scenario: BTreeMap<&str, Annotation> = BTreeMap::new();
    for case in &cause.cases {
        let name = case.scenario.name.as_str();
        if by_scenario.contains_key(name) {
            continue;
        }
        let runs = cause.cases.iter().filter(|other| other.scenario.name == name).count();
        let known = cause.known.map(|known| format!(" (known until {}: {})", known.expires, known.issue));
        let first = case.finding.what.lines().next().unwrap_or_default();
        by_scenario.insert(
            name,
            Annotation {
                level: if known.is_some() { Level::Warning } else { Level::Error },
                at: at(places, name, &cause.oracle, first),
                title: format!("{}: {} in {name}", cause.verdict.words(), cause.oracle),
                text: format!(
                    "{first}{}\n{} of {} of {name}\n{}",
                    known.unwrap_or_default(),
                    text::count(runs as u64),
                    text::of(case.scenario.totals.runs, "run"),
                    case.run.replay
                ),
                key: format!("{name} {} {}", cause.oracle, cause.pattern),
            },
        );
    }
    by_scenario.into_values().collect()
}

/// Returns what a scenario was to see and did not.
fn vacuous(scenario: &Scenario, places: &Places) -> Vec<Annotation> {
    if judge::of_scenario(scenario) != Verdict::NeverSeen {
        return Vec::new();
    }
    let never = |mark: &str| Annotation {
        level: Level::Error,
        at: at(places, &scenario.name, "sometimes", mark),
        title: format!("never seen: {mark}"),
        text: format!("no run of {} reached it, of {}", scenario.name, text::of(scenario.totals.runs, "run")),
        key: format!("{} sometimes {mark}", scenario.name),
    };
    judge::never_seen(scenario).into_iter().map(never).collect()
}

/// Returns annotations as commands of GitHub's workflows, one a line; of more than [`MOST`] the last one counts the
/// others.
pub fn github(annotations: &[Annotation]) -> String {
    let shown = if annotations.len() > MOST { MOST - 1 } else { annotations.len() };
    let mut out: String = annotations[..shown].iter().map(command).collect();
    if shown < annotations.len() {
        let left = &annotations[shown..];
        let is_error = left.iter().any(|annotation| annotation.level == Level::Error);
        out.push_str(&command(&Annotation {
            level: if is_error { Level::Error } else { Level::Warning },
            at: None,
            title: format!("{} more", left.len()),
            text: "the summary and the report have all of them".into(),
            key: String::new(),
        }));
    }
    out
}

fn command(annotation: &Annotation) -> String {
    let word = match annotation.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    let mut properties: Vec<String> = Vec::new();
    if let Some((file, line)) = &annotation.at {
        properties.push(format!("file={}", property(file)));
        properties.push(format!("line={line}"));
    }
    properties.push(format!("title={}", property(&line(&annotation.title, LONGEST))));
    format!("::{word} {}::{}\n", properties.join(","), data(&clean(&annotation.text, LONGEST)))
}

/// Escapes the text of a command, as GitHub's runner reads it.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a command: it ends at a comma or a colon as well.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[derive(Serialize)]
struct Entry {
    description: String,
    check_name: String,
    fingerprint: String,
    severity: &'static str,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    path: String,
    lines: Lines,
}

#[derive(Serialize)]
struct Lines {
    begin: u64,
}

/// Returns annotations as GitLab's report of code quality. What has no place is left out: GitLab shows it nowhere.
pub fn code_quality(annotations: &[Annotation]) -> String {
    let entry = |annotation: &Annotation| {
        let (path, begin) = annotation.at.clone()?;
        let text = line(&annotation.text, LONGEST);
        Some(Entry {
            description: format!("{}: {text}", line(&annotation.title, LONGEST)),
            check_name: "redoubt-lab".into(),
            fingerprint: fingerprint(&annotation.key),
            severity: match annotation.level {
                Level::Error => "critical",
                Level::Warning => "minor",
            },
            location: Location { path, lines: Lines { begin } },
        })
    };
    let entries: Vec<Entry> = annotations.iter().filter_map(entry).take(ENTRIES).collect();
    // Nothing in it can fail to be written.
    let mut text = serde_json::to_string_pretty(&entries).expect("entries have a text");
    text.push('\n');
    text
}

/// Returns a name for a failure that stays the same from set to set: 128 bits of FNV-1a. Nobody attacks it: two
/// failures with one name would be shown as one.
fn fingerprint(key: &str) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let hash = key.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(title: &str, text: &str) -> Annotation {
        let at = Some(("scenarios/a,b:c.toml".to_owned(), 7));
        Annotation { level: Level::Error, at, title: title.into(), text: text.into(), key: "k".into() }
    }

    #[test]
    fn no_word_of_a_run_is_a_command_or_a_property() {
        let text = github(&[annotation("a::b,file=c", "100 %\r\n::error::x\n\u{1b}[0m")]);
        assert_eq!(
            text,
            "::error file=scenarios/a%2Cb%3Ac.toml,line=7,title=a%3A%3Ab%2Cfile=c::100 %25\\u{d}%0A::error::x%0A\\u{1b}[0m\n"
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn of_many_annotations_ten_are_shown_and_the_last_counts_the_others() {
        let all: Vec<Annotation> = (0..23).map(|n| annotation(&n.to_string(), "x")).collect();
        let text = github(&all);
        assert_eq!(text.lines().count(), MOST);
        assert!(text.lines().last().unwrap().starts_with("::error title=14 more::"), "{text}");
        assert_eq!(github(&all[..MOST]).lines().count(), MOST);
        assert!(!github(&all[..MOST]).contains("more"));
        assert_eq!(github(&[]), "");
    }

    #[test]
    fn fingerprints_are_those_of_the_hash() {
        // The published value for an empty text.
        assert_eq!(fingerprint(""), "6c62272e07bb014262b821756295c58d");
        assert_ne!(fingerprint("a"), fingerprint("b"));
    }
}
