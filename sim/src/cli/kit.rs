//! The templates of the CI kit, read as their services read them: every call of the tool is one that this tool takes, every
//! file that is named is one that it writes, and nothing that a stranger may choose becomes part of a script.

use super::Arguments;
use clap::Parser;
use saphyr::{LoadableYamlNode, Yaml};
use std::collections::BTreeSet;

const ACTION: &str = include_str!("../../../ci/github/action.yml");
const TEMPLATE: &str = include_str!("../../../ci/gitlab/redoubt-lab.yml");
const README: &str = include_str!("../../../ci/README.md");

fn read(text: &str) -> Yaml<'_> {
    let mut documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// Hands every text to `take`, with the keys above it.
fn walk<'a>(node: &'a Yaml<'a>, trail: &mut Vec<String>, take: &mut dyn FnMut(&[String], &str)) {
    if let Some(entries) = node.as_mapping() {
        for (key, value) in entries {
            trail.push(key.as_str().unwrap_or("?").to_owned());
            walk(value, trail, take);
            trail.pop();
        }
    } else if let Some(items) = node.as_sequence() {
        items.iter().for_each(|item| walk(item, trail, take));
    } else if let Some(text) = node.as_str() {
        take(trail, text);
    }
}

/// Returns the lines of all scripts.
fn scripts(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    walk(&read(text), &mut Vec::new(), &mut |trail, text| {
        let is_script = |key: &str| matches!(key, "run" | "script" | "before_script" | "after_script");
        if trail.last().is_some_and(|key| is_script(key)) {
            lines.extend(text.lines().map(str::to_owned));
        }
    });
    lines
}

/// Parts a line as a shell does that knows no more than double quotes; a variable stands for some word.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    for letter in line.chars() {
        match letter {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    assert!(!is_quoted, "{line}");
    words.extend(word);
    words
}

/// Returns what clap makes of a call of the tool; none if the line is no call.
fn call(line: &str) -> Option<Result<Arguments, clap::Error>> {
    let rest = line.trim().strip_prefix("cargo sim ")?;
    Some(Arguments::try_parse_from([vec!["cargo sim".to_owned()], words(rest)].concat()))
}

/// Returns what is wrong with the calls of some scripts.
fn wrong_calls(lines: &[String]) -> Vec<String> {
    let wrong = lines.iter().filter_map(|line| match call(line)? {
        Err(error) if error.use_stderr() => Some(format!("{line}\n{error}")),
        _ => None,
    });
    wrong.collect()
}

/// Blocks of a document in a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    document.split(begin.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_call_in_the_templates_is_one_that_the_tool_takes() {
    for text in [ACTION, TEMPLATE] {
        let lines = scripts(text);
        assert_eq!(wrong_calls(&lines), Vec::<String>::new());
        let calls = lines.iter().filter(|line| call(line).is_some()).count();
        assert!(calls >= 3, "{calls} calls");
        // Nothing else is done there: what a template decides is decided once for each service.
        let others = lines.iter().filter(|line| call(line).is_none() && !line.is_empty());
        let others: BTreeSet<&str> = others.map(|line| line.trim()).collect();
        assert!(
            others.iter().all(|line| matches!(*line, "set -f" | "cd \"$REDOUBT_DIRECTORY\"")),
            "{others:?}"
        );
    }
    let lines = blocks(README, "console").concat();
    let lines: Vec<String> =
        lines.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect();
    assert!(lines.len() >= 3);
    assert_eq!(wrong_calls(&lines), Vec::<String>::new());
}

#[test]
fn a_flag_that_there_is_not_is_found() {
    let line = |text: &str| vec![text.to_owned()];
    assert_eq!(wrong_calls(&line("cargo sim run --ci github --jnuit x")).len(), 1);
    assert_eq!(wrong_calls(&line("cargo sim run --ci circle")).len(), 1);
    assert_eq!(wrong_calls(&line("cargo sim swep")).len(), 1);
    assert_eq!(
        wrong_calls(&line("cargo sim run --ci github --out \"$OUT a\" -- $NAMES")),
        Vec::<String>::new()
    );
    assert_eq!(wrong_calls(&line("cd x")), Vec::<String>::new());
}

#[test]
fn nothing_that_a_stranger_chooses_is_part_of_a_script() {
    for text in [ACTION, TEMPLATE] {
        for line in scripts(text) {
            // GitHub puts expressions into the text of a script before a shell reads it.
            assert!(!line.contains("${{"), "{line}");
            // Only the list of names falls into words, and with `set -f` no pattern of it becomes files.
            let mut outside = line.split('"').step_by(2);
            assert!(
                outside.all(|part| !part.contains('$')
                    || part.ends_with("-- $NAMES")
                    || part.ends_with("-- $REDOUBT_NAMES")),
                "{line}"
            );
        }
        let lines = scripts(text);
        let splits = lines.iter().filter(|line| line.contains("NAMES")).count();
        assert_eq!(lines.iter().filter(|line| line.trim() == "set -f").count(), splits);
    }
}

#[test]
fn every_input_of_the_action_is_used_and_every_one_that_is_used_is_there() {
    let action = read(ACTION);
    let inputs = action.as_mapping_get("inputs").and_then(Yaml::as_mapping).unwrap();
    let declared: BTreeSet<&str> = inputs.iter().filter_map(|(key, _)| key.as_str()).collect();
    let mut used: BTreeSet<String> = BTreeSet::new();
    walk(action.as_mapping_get("runs").unwrap(), &mut Vec::new(), &mut |_, text| {
        for part in text.split("inputs.").skip(1) {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
            used.insert(part.chars().take_while(|letter| is_name(*letter)).collect());
        }
    });
    assert_eq!(used.iter().map(String::as_str).collect::<BTreeSet<_>>(), declared);
    // What others call is what is there.
    for block in blocks(README, "yaml") {
        walk(&read(block), &mut Vec::new(), &mut |trail, text| {
            if let [.., with, key] = trail
                && with == "with"
                && block.contains("ci/github")
                && !["key", "path", "repository", "fetch-depth"].contains(&key.as_str())
            {
                assert!(declared.contains(key.as_str()), "{key}: {text}");
            }
        });
    }
}

#[test]
fn every_file_that_a_template_names_is_written() {
    let written = ["summary.md", "report.html", "run.json", "junit.xml", "gl-code-quality-report.json"];
    let is_file = |text: &str| [".json", ".xml", ".html", ".md"].iter().any(|end| text.ends_with(end));
    let mut named = BTreeSet::new();
    for text in [ACTION, TEMPLATE] {
        walk(&read(text), &mut Vec::new(), &mut |trail, text| {
            if is_file(text) && trail.last().is_some_and(|key| key != "description") {
                named.insert(text.rsplit('/').next().unwrap_or_default().to_owned());
            }
        });
    }
    assert!(named.len() >= 3 && named.iter().all(|name| written.contains(&name.as_str())), "{named:?}");
    let source = include_str!("ci/mod.rs");
    assert!(written.iter().all(|name| source.contains(&format!("\"{name}\""))));
    assert!(written.iter().all(|name| README.contains(&format!("`{name}`"))), "ci/README.md names each file");
}
