//! Known failures: a file of what is being mended. A failure that an entry describes fails nothing until the entry
//! expires; an expired entry fails by itself, and one that described nothing is told.
//!
//! What is *not* here: the day it is. Who asks says so.

use super::codes::Code;
use super::keys::{Key, Place, Takes};
use super::problem::{Problem, Problems, SourceFile};
use super::read;
use super::reader::{Reader, matches};
use super::tree::{self, Node, Span, Table};
use super::verbs::ORACLES;
use crate::capsule::Signature;
use crate::date::Date;
use std::collections::BTreeSet;

/// What such a file is called, beside the scenarios.
pub const KNOWN_FILE: &str = "known-failures.toml";

/// Longest time for which a failure is excused: what nobody mends in half a year is not being mended.
const DAYS_MAX: i64 = 184;

/// Who finds what no oracle does: a crash, an objective.
const OTHERS: [&str; 2] = ["assertion", "objective"];

fn oracles() -> Vec<&'static str> {
    ORACLES.iter().copied().chain(OTHERS).collect()
}

const fn key(
    name: &'static str,
    takes: Takes,
    default: Option<&'static str>,
    about: &'static str,
    example: &'static str,
) -> Key {
    Key { name, takes, default, about, example }
}

/// The file.
pub static KNOWN_FILE_KEYS: Place = Place {
    name: "a file of known failures",
    keys: &[
        key("format", Takes::Format, None, "version of this language", "1"),
        key(
            "known",
            Takes::Named(&KNOWN),
            Some("none"),
            "the known failures, each under a name of its own",
            "{}",
        ),
    ],
};

/// One entry of it.
pub static KNOWN: Place = Place {
    name: "a known failure",
    keys: &[
        key("scenario", Takes::Text, None, "where it fails: a name or a pattern", "\"mount-*\""),
        key("oracle", Takes::Word(oracles), None, "who finds it; `assertion` for a crash", "\"mount-holds\""),
        key(
            "says",
            Takes::Text,
            None,
            "what is found, as a report shows its cause; a pattern",
            "\"‹host›: *\"",
        ),
        key("issue", Takes::Text, None, "where it is being mended", "\"https://example.org/issues/17\""),
        key("since", Takes::Text, None, "when it was entered", "\"2026-11-30\""),
        key(
            "expires",
            Takes::Text,
            None,
            "the last day on which it is excused, half a year later at most",
            "\"2026-12-15\"",
        ),
        key("why", Takes::Text, None, "why it is excused meanwhile", "\"The timer is being rewritten.\""),
    ],
};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFailure {
    /// Name or pattern of scenarios.
    pub scenario: String,
    /// Who finds it.
    pub oracle: String,
    /// Pattern of what is found.
    pub says: String,
    /// Where it is being mended.
    pub issue: String,
    /// The last day on which it is excused.
    pub expires: Date,
    /// Why.
    pub why: String,
    span: Span,
}

/// The entries of a file.
#[derive(Clone, Debug)]
pub struct KnownFailures {
    file: SourceFile,
    /// In the order of the file.
    pub entries: Vec<KnownFailure>,
}

/// Reads a file of known failures; `path` is for messages.
pub fn load_known(path: &str, source: &str) -> Result<KnownFailures, Box<Problems>> {
    let file = SourceFile { path: path.to_owned(), text: source.to_owned() };
    let mut problems = Vec::new();
    let root = tree::parse(0, source, &mut problems);
    let mut reader = Reader { problems, ..Reader::default() };
    let empty = Table::default();
    let table = reader.place(&root, &KNOWN_FILE_KEYS).unwrap_or(&empty);
    read::required(&mut reader, root.span, table, &KNOWN_FILE_KEYS);
    read::format(&mut reader, table);
    let named = table.get("known").and_then(|node| reader.table(node, "known"));
    let items = named.into_iter().flat_map(Table::iter);
    let entries = items.filter_map(|(_, item)| entry(&mut reader, item)).collect();
    let mut list = reader.problems;
    if list.is_empty() {
        return Ok(KnownFailures { file, entries });
    }
    list.sort_by_key(|problem| problem.span);
    Err(Box::new(Problems { files: vec![file], list }))
}

fn entry(reader: &mut Reader, item: &Node) -> Option<KnownFailure> {
    let table = reader.place(item, &KNOWN)?;
    read::required(reader, item.span, table, &KNOWN);
    let mut text = |key: &str| {
        let node = table.get(key)?;
        let text = reader.text(node, key)?;
        if text.trim().is_empty() {
            reader.report(Code::WrongType, node.span, format!("{key} says nothing"));
        }
        Some(text.to_owned())
    };
    let (scenario, says) = (text("scenario"), text("says"));
    let (issue, why) = (text("issue"), text("why"));
    let oracle = table.get("oracle").and_then(|node| reader.word(node, "oracle", &oracles()));
    let oracle = oracle.map(str::to_owned);
    let since = table.get("since").and_then(|node| date(reader, node, "since"));
    let expires = table.get("expires").and_then(|node| date(reader, node, "expires"));
    let (since, expires) = (since?, expires?);
    let span = table.get("expires").map_or(item.span, |node| node.span);
    if !(0..=DAYS_MAX).contains(&expires.days_since(since)) {
        let what =
            format!("an entry expires on or after the day it was entered, and {DAYS_MAX} days later at most");
        reader.report(Code::OutOfBounds, span, what);
    }
    let span = table.iter().find(|(key, _)| key.name == "scenario").map_or(item.span, |(_, node)| node.span);
    Some(KnownFailure {
        scenario: scenario?,
        oracle: oracle?,
        says: says?,
        issue: issue?,
        expires,
        why: why?,
        span,
    })
}

fn date(reader: &mut Reader, node: &Node, what: &str) -> Option<Date> {
    let text = reader.text(node, what)?;
    let date = text.parse().ok();
    if date.is_none() {
        let problem = Problem::new(Code::NoDate, node.span, format!("{text:?} is no day"));
        reader.problem(problem.help("write the day as \"2026-12-15\""));
    }
    date
}

impl KnownFailure {
    /// Tells whether it describes a failure.
    pub fn describes(&self, scenario: &str, failure: &Signature) -> bool {
        matches(&self.scenario, scenario)
            && self.oracle == failure.oracle
            && matches(&self.says, &failure.hits)
    }
}

impl KnownFailures {
    /// Returns the number of the first entry that describes a failure and is in force.
    pub fn find(&self, scenario: &str, failure: &Signature, today: Date) -> Option<usize> {
        self.entries.iter().position(|entry| today <= entry.expires && entry.describes(scenario, failure))
    }

    /// Returns the entries that have expired, as problems.
    pub fn expired(&self, today: Date) -> Problems {
        self.problems(|entry| {
            if today <= entry.expires {
                return None;
            }
            let what = format!("this known failure expired on {}: today is {today}", entry.expires);
            let problem = Problem::new(Code::Expired, entry.span, what);
            Some(problem.help(format!("mend it ({}), or enter it anew with a reason", entry.issue)))
        })
    }

    /// Returns the entries in force that described nothing, as warnings. `met` has those that did; only where all was
    /// played that an entry is about is silence a sign.
    pub fn idle(&self, today: Date, met: &BTreeSet<usize>, is_played: impl Fn(&str) -> bool) -> Problems {
        let mut number = 0;
        self.problems(|entry| {
            let is_met = met.contains(&number);
            number += 1;
            if is_met || entry.expires < today || !is_played(&entry.scenario) {
                return None;
            }
            let problem = Problem::new(Code::NothingFails, entry.span, "nothing failed in this way");
            Some(problem.help(format!("if it is mended ({}), delete the entry", entry.issue)))
        })
    }

    fn problems(&self, of: impl FnMut(&KnownFailure) -> Option<Problem>) -> Problems {
        Problems { files: vec![self.file.clone()], list: self.entries.iter().filter_map(of).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "format = 1\n\n[known.zeros]\nscenario = \"mount-*\"\noracle = \"mount-holds\"\nsays = \"‹host›: point # *\"\n\
        issue = \"https://example.org/issues/17\"\nsince = \"2026-11-01\"\nexpires = \"2026-12-15\"\nwhy = \"It is being mended.\"\n";

    fn known() -> KnownFailures {
        load_known("known.toml", ENTRY).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    }

    fn failure(oracle: &str, hits: &str) -> Signature {
        Signature { oracle: oracle.into(), hits: hits.into() }
    }

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn a_failure_is_known_by_scenario_oracle_and_words_until_the_entry_expires() {
        let (known, today) = (known(), day("2026-12-15"));
        let alike = failure("mount-holds", "‹host›: point # shows zeros");
        assert_eq!(known.find("mount-outlives-an-outage", &alike, today), Some(0));
        assert_eq!(known.find("mount-outlives-an-outage", &alike, day("2026-12-16")), None);
        assert_eq!(known.find("steady-stream", &alike, today), None);
        for other in
            [failure("prefix", "‹host›: point # shows zeros"), failure("mount-holds", "‹host›: late")]
        {
            assert_eq!(known.find("mount-outlives-an-outage", &other, today), None);
        }
    }

    #[test]
    fn an_expired_entry_and_an_idle_one_are_shown_at_their_place() {
        let known = known();
        assert!(known.expired(day("2026-12-15")).list.is_empty());
        let expired = known.expired(day("2026-12-16")).shown(false);
        assert_eq!((expired[0].line, expired[0].column), (4, 12));
        assert!(
            expired[0].text.starts_with("error[S080]") && expired[0].text.contains("issues/17"),
            "{}",
            expired[0].text
        );
        let idle = |met: &[usize], today: &str, is_played: bool| {
            known.idle(day(today), &met.iter().copied().collect(), |_| is_played).shown(false)
        };
        assert!(idle(&[], "2026-12-01", true)[0].text.starts_with("warning[S081]"));
        for quiet in
            [idle(&[0], "2026-12-01", true), idle(&[], "2026-12-01", false), idle(&[], "2026-12-16", true)]
        {
            assert_eq!(quiet, []);
        }
    }

    #[test]
    fn every_mistake_is_reported_at_its_place_in_one_pass() {
        let broken = ENTRY
            .replace("format = 1", "format = 2")
            .replace("mount-holds", "mount-hold")
            .replace("issue =", "isue =")
            .replace("2026-11-01", "2026-11-31")
            .replace("\"It is being mended.\"", "7");
        let problems = load_known("known.toml", &broken).unwrap_err();
        let shown: Vec<(usize, String)> = problems
            .shown(false)
            .into_iter()
            .map(|shown| (shown.line, shown.what.split(':').next().unwrap().to_owned()))
            .collect();
        let wanted = [(1, "S005"), (5, "S050"), (7, "S002"), (8, "S035"), (10, "S004")];
        assert_eq!(shown, wanted.map(|(line, code)| (line, code.to_owned())));
        let endless = ENTRY.replace("2026-12-15", "2036-12-15");
        assert_eq!(load_known("known.toml", &endless).unwrap_err().list[0].code, Code::OutOfBounds);
    }
}
