//! The exit codes of `cargo sim`, one by one, as a script sees them. Only the lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{answer, place, sim, tool};

/// Digest of no event at all.
const NOTHING_HAPPENED: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

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

fn short(name: &str) -> PathBuf {
    place(name, &[("short.toml", STORY)])
}

#[test]
fn a_run_that_holds_is_0() {
    let (code, text) = sim(&short("holds"), &["run", "short"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("held: 1 runs"), "{text}");
}

#[test]
fn a_tool_that_cannot_work_is_1() {
    let (code, text) = answer(tool(Path::new("/nowhere/at/all")).arg("list"));
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
    let scenarios = place("broken", &[("broken.toml", &broken), ("short.toml", STORY)]);
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
    assert_eq!(sim(&place("empty", &[]), &["run"]).0, 11);
}

#[test]
fn a_broken_invariant_is_20_and_names_oracle_events_and_replay() {
    let (code, text) = sim(&short("invariant"), &["run", "--bug", "plaintext-frame"]);
    assert_eq!(code, 20, "{text}");
    for part in [
        "BROKEN short@1",
        "secrets: ",
        "agent of erp-db runs",
        "cargo sim replay short@1#",
        " --bug plaintext-frame",
        "short@1+plaintext-frame.rdrun",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(sim(&short("again"), &["replay", "short@1", "--bug", "plaintext-frame"]).0, 20);
}

/// Runs a planted bug that fails; returns the place of the scenarios and the capsule.
fn failed(name: &str) -> (PathBuf, PathBuf) {
    let place = short(name);
    let out = place.join("runs");
    let (code, text) = sim(&place, &["run", "--bug", "plaintext-frame", "--out", out.to_str().unwrap()]);
    assert_eq!(code, 20, "{text}");
    (place, out.join("short@1+plaintext-frame.rdrun"))
}

#[test]
fn a_capsule_replays_anywhere_with_the_same_failure_at_the_same_event() {
    let (_, capsule) = failed("capsule");
    // The scenario is in the capsule: no other file is needed.
    let elsewhere = place("elsewhere", &[]);
    let (code, text) = sim(&elsewhere, &["replay", capsule.to_str().unwrap()]);
    assert_eq!(code, 20, "{text}");
    assert!(text.contains("secrets: ") && text.contains(", as recorded"), "{text}");
    let (code, text) = sim(&elsewhere, &["replay", "--until", "1.5", capsule.to_str().unwrap()]);
    assert!(text.contains("stopped digest") && !text.contains("converged"), "{code}: {text}");
}

#[test]
fn a_replay_that_is_not_the_recorded_run_is_26_and_says_where_they_part() {
    let (place, capsule) = failed("another-run");
    let recorded = std::fs::read_to_string(&capsule).unwrap();
    // The same plan under another seed of the simulator.
    std::fs::write(&capsule, recorded.replace("\"seed\":1,\"length\"", "\"seed\":2,\"length\"")).unwrap();
    let (code, text) = sim(&place, &["replay", capsule.to_str().unwrap()]);
    assert_eq!(code, 26, "{text}");
    assert!(text.contains("NOT THE RECORDED RUN: they part from the start and before 1.000 s"), "{text}");
    let (code, text) = sim(&place, &["replay", "short@1#0123"]);
    assert_eq!((code, text.contains("its digest began with 0123")), (26, true), "{text}");
    // And of another format, 10.
    std::fs::write(&capsule, recorded.replace("{\"format\":1,", "{\"format\":7,")).unwrap();
    let (code, text) = sim(&place, &["replay", capsule.to_str().unwrap()]);
    assert_eq!((code, text.contains("has format 7")), (10, true), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_1() {
    let place = short("unreadable");
    assert_eq!(answer(tool(&place.join("none")).arg("run")).0, 1);
    let (code, text) = sim(&place, &["replay", "none.rdrun"]);
    assert_eq!((code, text.contains("cannot read none.rdrun")), (1, true), "{text}");
}

#[test]
fn a_crash_is_23_and_is_proved_as_far_as_it_came() {
    let (place, capsule) = failed("crash");
    let text = std::fs::read_to_string(&capsule).unwrap();
    let mut broken: serde_json::Value = serde_json::from_str(&text).unwrap();
    // A machine without a guest is nothing that a seed draws: building the estate panics before the first event.
    broken["plan"]["guests"] = serde_json::json!({});
    broken["digest"] = NOTHING_HAPPENED.into();
    std::fs::write(&capsule, broken.to_string()).unwrap();
    let (code, text) = sim(&place, &["replay", capsule.to_str().unwrap()]);
    assert_eq!((code, text.contains(", as recorded")), (23, true), "{text}");
}

#[test]
fn a_budget_that_ends_early_is_30_and_says_how_far_it_came() {
    let (code, text) = sim(&short("budget"), &["run", "--seeds", "200", "--jobs", "1", "--within", "1ms"]);
    assert_eq!(code, 30, "{text}");
    assert!(text.contains("the budget ended: ") && text.contains(" of 200 runs were played"), "{text}");
}

#[test]
fn an_interrupt_is_130() {
    let mut child = tool(&short("interrupted"))
        .args(["bench", "short", "--seeds", "1000000", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first line says that it listens.
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.contains("simulated_seconds"), "{line}");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    output.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn the_help_shows_the_table() {
    let (code, text) = sim(&short("help"), &["--help"]);
    assert_eq!(code, 0, "{text}");
    for row in redoubt_sim::codes::CODES {
        assert!(text.contains(&format!("{:>3}  {}", row.number, row.means)), "{}", row.number);
    }
}

#[test]
fn no_convergence_is_22_and_says_what_each_role_waits_for() {
    let hurry = STORY.replace("within 60 s", "within 1 ms");
    let (code, text) = sim(&place("hurry", &[("short.toml", &hurry)]), &["run"]);
    assert_eq!(code, 22, "{text}");
    assert!(text.contains("no convergence within 0.001 s"), "{text}");
    for role in ["agent erp-db: ", "process server ps1: connected"] {
        assert!(text.contains(role), "{role} is not in {text}");
    }
}

#[test]
fn what_was_never_seen_is_25() {
    let vain = format!("{STORY}sometimes = [\"clock-stepped\"]\n");
    let (code, text) = sim(&place("vain", &[("short.toml", &vain)]), &["run"]);
    assert_eq!(code, 25, "{text}");
    assert!(text.contains("short: never seen in 1 seeds: clock-stepped"), "{text}");
}

#[test]
fn the_core_tier_ends_with_the_same_codes_and_hands_over_a_line() {
    let scenarios = short("core");
    let (code, text) = sim(&scenarios, &["core", "--seeds", "3"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("held: 3 runs") && text.contains("per CPU second"), "{text}");
    let (code, text) = sim(&scenarios, &["core", "short", "--seeds", "3", "--bug", "never-reconnect"]);
    assert_eq!(code, 0, "a link that never fails needs no second try: {text}");
    let (code, text) = sim(&scenarios, &["core", "short", "--seeds", "1", "--bug", "vaulted-before-commit"]);
    assert_eq!(code, 20, "{text}");
    let line = "cargo sim core short@1 --bug vaulted-before-commit";
    assert!(text.contains(line) && text.contains("loss-never-hidden"), "{text}");
    let (code, text) =
        sim(&scenarios, &["core", "short@1", "--bug", "vaulted-before-commit", "--trace", "3"]);
    assert_eq!(code, 20, "{text}");
    assert!(text.contains("lines before") && text.contains("digest"), "{text}");
    let vain = format!("{STORY}sometimes = [\"clock-stepped\", \"torn-tail-cut\"]\n");
    let (code, text) = sim(&place("core-vain", &[("short.toml", &vain)]), &["core", "--seeds", "3"]);
    assert_eq!(code, 25, "{text}");
    assert!(
        text.contains("short: never seen in 3 seeds: clock-stepped\n"),
        "only what this tier has: {text}"
    );
    assert_eq!(sim(&scenarios, &["core", "nobody"]).0, 11);
    assert_eq!(sim(&scenarios, &["core", "short", "--for", "soon"]).0, 2);
}

/// The signal of a pipe that nobody reads.
const SIGPIPE: i32 = 13;

#[test]
fn output_that_nobody_reads_ends_the_tool_as_it_ends_others() {
    let (place, capsule) = failed("pipe");
    let objective = STORY.replace("eventually", "objectives = [\"lag.max <= 60 s\"]\neventually");
    std::fs::write(place.join("short.toml"), objective).unwrap();
    let set = place.join("set.json");
    assert_eq!(sim(&place, &["run", "--json", set.to_str().unwrap()]).0, 0);
    let (capsule, set) = (capsule.to_str().unwrap(), set.to_str().unwrap());
    let page = place.join("page.html");
    for arguments in [
        &["--help"][..],
        &["list"],
        &["check"],
        &["explain"],
        &["explain", "short"],
        &["explain", "S002"],
        &["fmt", "--check"],
        &["schema"],
        &["plan", "short@1"],
        &["run"],
        &["sweep", "--for", "1m", "--runs", "1"],
        &["replay", "short@1"],
        &["trace", "short@1"],
        &["diff", "short@1"],
        &["fork", "short@1", "--at", "1", "--futures", "1"],
        &["cover", "--seeds", "1"],
        &["corpus"],
        &["shrink", capsule],
        &["core", "--seeds", "1"],
        &["capacity", "short", "--no-search"],
        &["report", set, "--report", page.to_str().unwrap()],
        &["meta", "--seeds", "1"],
        &["bugs", "plaintext-frame"],
        &["hw", "show"],
        &["bench", "short", "--seeds", "1"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = tool(&place);
        command.args(arguments).stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGPIPE), "{arguments:?}: {} {said}", output.status);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}
