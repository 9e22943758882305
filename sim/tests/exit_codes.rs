//! The exit codes of `cargo sim`, one by one, as a script sees them. Only the lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A story of two seconds; `{}` is replaced by more promises.
const STORY: &str = r#"format = 1
title = "Short"
why = "To see how the tool ends."
tags = ["short"]
seeds = { pr = 1, nightly = 1 }
[timeline]
steps = [{ at = "2 s", end = true }]
[expect]
eventually = ["converges within 60 s"]
"#;

/// A directory of its own with these scenario files.
fn directory(name: &str, files: &[(&str, String)]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    for (file, content) in files {
        std::fs::write(path.join(file), content).unwrap();
    }
    path
}

fn short(name: &str) -> PathBuf {
    directory(name, &[("short.toml", STORY.to_owned())])
}

/// Runs the tool; returns its exit code and what it printed.
fn sim(scenarios: &Path, arguments: &[&str]) -> (i32, String) {
    let tool = env!("CARGO_BIN_EXE_redoubt-sim");
    let output = Command::new(tool).arg("--scenarios").arg(scenarios).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_run_that_holds_is_0() {
    let (code, text) = sim(&short("holds"), &["run", "short"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("held: 1 runs"), "{text}");
}

#[test]
fn a_tool_that_cannot_work_is_1() {
    let (code, text) = sim(Path::new("/nowhere/at/all"), &["list"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("cannot read /nowhere/at/all"), "{text}");
}

#[test]
fn wrong_usage_is_2_and_says_what_is_near() {
    let scenarios = short("usage");
    for arguments in [&["replay", "short"][..], &["sweep", "--for", "soon"], &["rum"]] {
        let (code, text) = sim(&scenarios, arguments);
        assert_eq!(code, 2, "{text}");
    }
    let (code, text) = sim(&scenarios, &["run", "--bug", "plaintext-frames"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("did you mean \"plaintext-frame\"?"), "{text}");
}

#[test]
fn a_broken_file_is_10_with_every_problem_at_its_place() {
    let broken = STORY.replace("title", "titel").replace("[\"short\"]", "3");
    let scenarios = directory("broken", &[("broken.toml", broken), ("short.toml", STORY.to_owned())]);
    let (code, text) = sim(&scenarios, &["check"]);
    assert_eq!(code, 10, "{text}");
    for part in
        ["broken.toml:2:1", "did you mean \"title\"?", "broken.toml:4:8", "1 of 2 scenario files are valid"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(sim(&scenarios, &["run"]).0, 10);
}

#[test]
fn nothing_selected_is_11() {
    let (code, text) = sim(&short("nothing"), &["run", "shirt"]);
    assert_eq!(code, 11, "{text}");
    assert!(text.contains("did you mean \"short\"?"), "{text}");
    assert_eq!(sim(&directory("empty", &[]), &["run"]).0, 11);
}

#[test]
fn a_broken_invariant_is_20_and_names_oracle_events_and_replay() {
    let (code, text) = sim(&short("invariant"), &["run", "--bug", "plaintext-frame"]);
    assert_eq!(code, 20, "{text}");
    for part in [
        "BROKEN short@1",
        "secrets: ",
        "agent of erp-db runs",
        "cargo sim replay short@1 --bug plaintext-frame",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(sim(&short("again"), &["replay", "short@1", "--bug", "plaintext-frame"]).0, 20);
}

#[test]
fn no_convergence_is_22_and_says_what_each_role_waits_for() {
    let hurry = STORY.replace("within 60 s", "within 1 ms");
    let (code, text) = sim(&directory("hurry", &[("short.toml", hurry)]), &["run"]);
    assert_eq!(code, 22, "{text}");
    assert!(text.contains("no convergence within 0.001 s"), "{text}");
    for role in ["agent erp-db: ", "process server ps1: connected"] {
        assert!(text.contains(role), "{role} is not in {text}");
    }
}

#[test]
fn what_was_never_seen_is_25() {
    let vain = format!("{STORY}sometimes = [\"clock-stepped\"]\n");
    let (code, text) = sim(&directory("vain", &[("short.toml", vain)]), &["run"]);
    assert_eq!(code, 25, "{text}");
    assert!(text.contains("short: never seen in 1 seeds: clock-stepped"), "{text}");
}
