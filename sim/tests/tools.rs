//! What one does with a run that failed, as a person does it: shrink, trace, diff, fork, cover. Only the lab's
//! build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process and writes real files")]

mod support;

use std::path::PathBuf;
use support::sim;

/// Two minutes with many faults; the bug needs a cut link and none of the others.
const STORY: &str = r#"format = 1
title = "Two minutes of trouble"
why = "To be shrunk."
tags = ["trouble"]
seeds = { pr = 1, nightly = 1 }
[estate]
machines = [{ name = "erp-db", disks = ["2 MiB", "1 MiB"] }, { name = "erp-app", disks = ["1 MiB"] }]
process-servers = [{ name = "ps1", site = "target" }, { name = "ps2", site = "target" }]
spool-memory = "256 KiB"
spill = "1 MiB"
[load]
erp-db = { model = "mixed", rate = "30 /s", jobs = "3" }
erp-app = { model = "mixed", rate = "10 /s", jobs = "2" }
[timeline]
steps = [
  { at = "5 s", fault = "store.late", rate = "5 %", for = "4..9 s" },
  { at = "12 s", fault = "process.kill", on = "ps2" },
  { at = "18 s", fault = "host.clock", on = "erp-app", by = "3..9 min" },
  { at = "25 s", fault = "link.cut", on = "wan", for = "20..30 s", id = "cut" },
  { at = "80 s", fault = "store.throttle", rate = "10 %", for = "5 s" },
  { at = "40 s", fault = "host.freeze", on = "ps2", for = "2 s" },
  { at = "cut + 10 s", fault = "store.lost-replies", rate = "10 %", for = "5 s" },
  { at = "cut + 20 s", fault = "process.kill", on = "erp-app" },
  { at = "120 s", end = true },
]
[expect]
eventually = ["converges within 60 s"]
"#;

/// A spill without its bound: the cut makes it grow.
const BUG: &str = "unbounded-spill";

fn place(name: &str) -> PathBuf {
    support::place(name, &[("trouble.toml", STORY)])
}

#[test]
fn a_failure_is_shrunk_to_a_frozen_scenario_that_fails_alike() {
    let place = place("shrink");
    let (code, text) = sim(&place, &["run", "--bug", BUG, "--out", "runs"]);
    assert_eq!(code, 20, "{text}");
    let arguments = ["shrink", "runs/trouble@1+unbounded-spill.rdrun", "--keep", "spill-grows"];
    let (code, text) = sim(&place, &arguments);
    assert_eq!(code, 0, "{text}");
    let file = std::fs::read_to_string(place.join("regressions/spill-grows.toml")).unwrap();
    let steps = file.lines().filter(|line| line.trim_start().starts_with("{ at = ")).count();
    // A cut and the end.
    assert!(steps <= 3, "{file}");
    assert!(!file.contains("erp-app =") || !file.contains("erp-db  ="), "{file}");
    assert!(
        file.starts_with("# Shrunk from trouble@1") && file.contains("planted bug unbounded-spill"),
        "{file}"
    );
    let (code, text) = sim(&place, &["run", "spill-grows", "--bug", BUG]);
    assert_eq!((code, text.contains("bounded: ")), (20, true), "{text}");
    // Without the bug it is a scenario that holds, and its story is told.
    let (code, text) = sim(&place, &["corpus"]);
    assert_eq!((code, text.contains("Shrunk from trouble@1")), (0, true), "{text}");
}

#[test]
fn a_run_that_holds_cannot_be_shrunk() {
    let (code, text) = sim(&place("shrink-nothing"), &["shrink", "trouble@1"]);
    assert_eq!((code, text.contains("there is nothing to shrink")), (11, true), "{text}");
}

#[test]
fn a_trace_shows_each_actor_in_its_lane() {
    let place = place("trace");
    let (code, text) = sim(&place, &["trace", "trouble@1", "--around", "25"]);
    assert_eq!(code, 0, "{text}");
    for words in ["plan  erp-db  erp-app  ps1  ps2", "25.000 s  ◆", "cut wan"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    assert!(!text.contains("step the clock"), "{text}");
    let (_, text) = sim(&place, &["trace", "trouble@1", "--actor", "erp-db", "--json"]);
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["actor"], "erp-db");
    let (code, text) = sim(&place, &["trace", "trouble@1", "--actor", "erp-bd"]);
    assert_eq!((code, text.contains("did you mean \"erp-db\"?")), (2, true), "{text}");
    let (_, text) = sim(&place, &["trace", "trouble@1", "--perfetto", "trace.json"]);
    assert!(text.contains("wrote trace.json"), "{text}");
    let file = std::fs::read_to_string(place.join("trace.json")).unwrap();
    let viewer: serde_json::Value = serde_json::from_str(&file).unwrap();
    let events = viewer["traceEvents"].as_array().unwrap();
    assert!(events.iter().any(|event| event["ph"] == "X" && event["name"] == "cut wan"), "{file}");
}

#[test]
fn a_difference_is_shown_at_the_first_event_and_equal_runs_have_none() {
    let place = place("diff");
    let (code, text) = sim(&place, &["diff", "trouble@1"]);
    assert_eq!((code, text.contains("no difference")), (0, true), "{text}");
    let (code, text) = sim(&place, &["diff", "trouble@1", "--other-bug", BUG]);
    assert_eq!(code, 0, "{text}");
    for words in ["one plan: seed 1", "they part at ", "\n- ", "\n+ ", "the other BROKEN"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let (code, text) = sim(&place, &["diff", "trouble@1", "trouble@2", "--plans"]);
    assert_eq!((code, text.contains("plans: seed 1 and seed 2")), (0, true), "{text}");
    // The same lab as another build.
    let (code, text) = sim(&place, &["diff", "trouble@1", "--build", env!("CARGO_BIN_EXE_redoubt-sim")]);
    assert_eq!((code, text.contains("no difference")), (0, true), "{text}");
}

#[test]
fn a_fork_shares_the_past_and_tells_when_a_failure_was_inevitable() {
    let place = place("fork");
    let (code, text) = sim(&place, &["fork", "trouble@1", "--bug", BUG, "--at", "20", "--futures", "3"]);
    assert_eq!((code, text.contains("  3 of 3")), (0, true), "{text}");
    let (code, text) = sim(&place, &["fork", "trouble@1", "--bug", BUG, "--futures", "2"]);
    assert_eq!(code, 0, "{text}");
    // The cut is in the plan, and no chance saves a spill without a bound.
    assert!(text.contains("inevitable from the start"), "{text}");
    let (code, text) = sim(&place, &["fork", "trouble@1"]);
    assert_eq!((code, text.contains("nothing became inevitable")), (11, true), "{text}");
}

#[test]
fn what_a_set_of_runs_reached_is_told_with_what_it_did_not() {
    let place = place("cover");
    let (code, text) = sim(&place, &["cover", "--seeds", "5"]);
    assert_eq!(code, 0, "{text}");
    for words in ["no dead knob: 5 runs, 0 failed", "never: ghost-left", "Exact -> Spilling", "link.cut"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    // A clock of a machine that is away for good is stepped, but a disk that nobody reads never fails a read.
    let idle = STORY.replace(
        "{ at = \"12 s\", fault = \"process.kill\", on = \"ps2\" }",
        "{ at = \"119900 ms\", fault = \"disk.flush-errors\", on = \"erp-app\", rate = \"0.0001 %\", for = \"10 ms\" }",
    );
    std::fs::write(place.join("trouble.toml"), idle).unwrap();
    let (code, text) = sim(&place, &["cover", "--seeds", "5"]);
    assert_eq!((code, text.contains("never met: disk.flush-errors")), (25, true), "{text}");
}
