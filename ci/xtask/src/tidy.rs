//! The house rules that no compiler knows.
//!
//! Rules: T-1 an edge between crates must be in the table; T-2 each Rust file starts with a `//!` header;
//! T-3 no file over 700 lines; T-4 no banned word of the glossary; T-5 `cfg(madsim)` only in the leaves;
//! T-6 no unfinished mark and no ignored test; T-7 an invariant's id is defined in one header only.

use crate::command::{cargo, output, top};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Which workspace crates a crate may import: the floors of ARCHITECTURE.md.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("redoubt-core", &[]),
    ("redoubt-wire", &["redoubt-core"]),
    ("redoubt-nbd", &[]),
    ("redoubt-ports", &["redoubt-core"]),
    // Shares no code with what it checks.
    ("redoubt-verifier", &[]),
    ("redoubt-vault", &["redoubt-core", "redoubt-ports", "redoubt-wire"]),
    ("redoubt-roles", &["redoubt-core", "redoubt-nbd", "redoubt-ports", "redoubt-vault", "redoubt-wire"]),
    ("redoubt-host", &["redoubt-core", "redoubt-ports"]),
    ("redoubt-hw-models", &[]),
    // Knows sets of runs, and nothing of what was run.
    ("redoubt-reports", &[]),
    (
        "redoubt",
        &[
            "redoubt-core",
            "redoubt-host",
            "redoubt-nbd",
            "redoubt-ports",
            "redoubt-roles",
            "redoubt-vault",
            "redoubt-verifier",
            "redoubt-wire",
        ],
    ),
    (
        "redoubt-sim",
        &[
            "redoubt-core",
            "redoubt-hw-models",
            "redoubt-nbd",
            "redoubt-ports",
            "redoubt-reports",
            "redoubt-roles",
            "redoubt-vault",
            "redoubt-wire",
        ],
    ),
    ("redoubt-e2e", &[]),
    ("xtask", &[]),
];

/// Above this a file holds more than one concept.
const FILE_LINES_MAX: usize = 700;

/// Crates that differ between the lab and production.
const LEAVES: [&str; 3] = ["engine/ports/", "engine/host/", "sim/"];

/// Words that the glossary replaces, in lower case, as whole words of public names.
const BANNED: [(&str, &str); 4] = [
    ("lsn", "WriteSeq"),
    ("checkpoint", "recovery point or marker"),
    ("failback_drill", "test failover"),
    ("migration", "planned failover"),
];

/// Runs all rules and prints each finding.
pub(crate) fn run() -> Result<ExitCode> {
    check()?;
    println!("tidy: nothing found");
    Ok(ExitCode::SUCCESS)
}

/// Fails with every finding, one a line.
pub(crate) fn check() -> Result<()> {
    let mut findings = Vec::new();
    edges(&mut findings)?;
    let mut defined = BTreeMap::new();
    for file in rust_files()? {
        let text = std::fs::read_to_string(top().join(&file))?;
        check_file(&file, &text, &mut findings);
        check_invariants(&file, &text, &mut defined, &mut findings);
    }
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    Ok(())
}

/// T-1.
fn edges(findings: &mut Vec<String>) -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let members = rust_manifests()?;
    for manifest in members {
        let text = std::fs::read_to_string(top().join(&manifest))?;
        let table: toml::Table = text.parse().with_context(|| manifest.display().to_string())?;
        let name = table["package"]["name"].as_str().unwrap_or_default().to_owned();
        let Some(may) = allowed.get(name.as_str()) else {
            findings.push(format!("{}: T-1 {name} is not in the table of floors", manifest.display()));
            continue;
        };
        for dependency in dependencies(&table) {
            let is_ours = dependency.starts_with("redoubt") || dependency == "xtask";
            if is_ours && !may.contains(&dependency.as_str()) {
                findings.push(format!("{}: T-1 {name} must not import {dependency}", manifest.display()));
            }
        }
    }
    Ok(())
}

/// Returns the names under `[dependencies]`, also those of one target; not dev-dependencies.
fn dependencies(table: &toml::Table) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |value: Option<&toml::Value>| {
        names.extend(
            value.and_then(|value| value.as_table()).into_iter().flat_map(|table| table.keys().cloned()),
        );
    };
    add(table.get("dependencies"));
    if let Some(targets) = table.get("target").and_then(|value| value.as_table()) {
        targets.values().for_each(|target| add(target.get("dependencies")));
    }
    names
}

fn check_file(file: &Path, text: &str, findings: &mut Vec<String>) {
    let name = file.display().to_string();
    let mut found = |rule: &str| findings.push(format!("{name}: {rule}"));
    if !text.lines().take(5).any(|line| line.starts_with("//!")) {
        found("T-2 no //! header");
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        found(&format!("T-3 {lines} lines; split it by concept (at most {FILE_LINES_MAX})"));
    }
    if !LEAVES.iter().any(|leaf| name.starts_with(leaf))
        && !name.starts_with("ci/")
        && text.contains("cfg(madsim)")
    {
        found("T-5 cfg(madsim) outside the leaves");
    }
    if name.starts_with("ci/xtask/src/tidy.rs") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (word, instead) in BANNED {
            if has_word(&lower, word) {
                found(&format!("T-4 line {}: {word:?}; say {instead}", number + 1));
            }
        }
        for mark in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "#[ignore"] {
            if line.contains(mark) {
                found(&format!("T-6 line {}: {mark}", number + 1));
            }
        }
    }
}

/// T-7: a line `//! - XY-1 ..` of a header defines the id that asserts, oracles and documents name.
fn check_invariants(
    file: &Path,
    text: &str,
    defined: &mut BTreeMap<String, String>,
    findings: &mut Vec<String>,
) {
    let definitions = text.lines().filter_map(|line| line.strip_prefix("//! - ")?.split(' ').next());
    for id in definitions.filter(|id| is_invariant(id)) {
        let name = file.display().to_string();
        if let Some(other) = defined.insert(id.to_owned(), name.clone()) {
            findings.push(format!("{name}: T-7 {id} is defined in {other} as well; rename one"));
        }
    }
}

fn is_invariant(id: &str) -> bool {
    id.split_once('-').is_some_and(|(letters, number)| {
        letters.len() == 2
            && letters.bytes().all(|byte| byte.is_ascii_uppercase())
            && number.parse::<u32>().is_ok()
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
        !inside(before) && !inside(after)
    })
}

fn tracked(pattern: &str) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard", pattern]).current_dir(top());
    let listing = output(command)?;
    Ok(listing.lines().map(PathBuf::from).filter(|file| top().join(file).exists()).collect())
}

fn rust_files() -> Result<Vec<PathBuf>> {
    tracked("*.rs")
}

fn rust_manifests() -> Result<Vec<PathBuf>> {
    // Asks cargo once, so that a broken manifest is cargo's error and not ours.
    output(cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(tracked("*Cargo.toml")?.into_iter().filter(|file| file.components().count() > 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check_file(Path::new(name), text, &mut findings);
        findings
    }

    #[test]
    fn a_tidy_file_has_no_finding() {
        assert!(findings("engine/core/src/a.rs", "//! Header.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_breach() {
        assert_eq!(findings("engine/core/src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(findings("engine/core/src/a.rs", "//! H.\n#[cfg(madsim)]\nfn a() {}\n").len(), 1);
        assert!(findings("sim/src/a.rs", "//! H.\n#[cfg(madsim)]\nfn a() {}\n").is_empty());
        assert_eq!(findings("sim/src/a.rs", "//! H.\nlet lsn = 1;\n").len(), 1);
        assert_eq!(findings("sim/src/a.rs", "//! H.\n// TODO\n").len(), 1);
        assert_eq!(findings("sim/src/a.rs", &format!("//! H.\n{}", "\n".repeat(800))).len(), 1);
    }

    #[test]
    fn an_invariant_is_defined_once() {
        let (mut defined, mut findings) = (BTreeMap::new(), Vec::new());
        let mut check = |name: &str, text: &str| {
            check_invariants(Path::new(name), text, &mut defined, &mut findings);
            findings.len()
        };
        assert_eq!(check("a.rs", "//! - AB-1 One.\n//! - AB-2 Two.\n//! - Not an id.\n"), 0);
        assert_eq!(check("b.rs", "//! As AB-1 says.\n// AB-2\n//! - AC-1 Three.\n"), 0);
        assert_eq!(check("c.rs", "//! - AB-2 Another.\n"), 1);
    }

    #[test]
    fn a_banned_word_counts_only_as_a_word() {
        assert!(has_word("the lsn of", "lsn"));
        assert!(!has_word("elsnore", "lsn"));
    }
}
