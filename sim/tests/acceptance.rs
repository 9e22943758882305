//! A stranger's first evening with the lab, as far as a machine can walk it: a failure is handed over as one line, and
//! forty minutes of trouble become a few lines. Errors of files are in `scenario_language.rs`, pages in `reports.rs`,
//! equal bytes in `ci_kit.rs`. Only the lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process and writes real files")]

mod support;

use std::path::PathBuf;
use support::{place, type_in};

/// A shop behind a line that is cut.
const SHOP: &str = r#"format = 1
title = "The line of a shop is cut"
why = "What was sold meanwhile must not get lost."
tags = ["shop"]
seeds = { pr = 2, nightly = 2 }
[estate]
machines = [{ name = "shop-db", disks = ["2 MiB"] }]
[vary]
cut = "2..4 s"
[timeline]
steps = [
  { at = "$cut", fault = "link.cut", on = "wan", for = "3 s" },
  { at = "8 s", end = true },
]
[expect]
eventually = ["converges within 60 s"]
"#;

/// Forty minutes, of which the bug needs one cut and one killed agent.
const EVENING: &str = r#"format = 1
title = "Forty minutes in which everything happens"
why = "Nobody can read forty minutes of events."
tags = ["long"]
seeds = { pr = 1, nightly = 1 }
[estate]
machines = [{ name = "erp-db", disks = ["2 MiB", "1 MiB"] }, { name = "erp-app", disks = ["1 MiB"] }]
process-servers = [{ name = "ps1", site = "target" }, { name = "ps2", site = "target" }]
points = "60 s"
[load]
erp-db = { model = "mixed", rate = "5 /s", jobs = "2" }
erp-app = { model = "trickle", rate = "1 /s", jobs = "1" }
[timeline]
steps = [
  { at = "1 min", fault = "store.late", rate = "5 %", for = "2..4 min" },
  { at = "3 min", fault = "process.kill", on = "ps2" },
  { at = "5 min", fault = "link.loss", on = "wan", rate = "1..3 %", for = "3 min" },
  { at = "7 min", fault = "host.clock", on = "erp-app", by = "3..9 min" },
  { at = "9 min", fault = "link.cut", on = "wan", for = "20..40 s" },
  { at = "11 min", fault = "process.kill", on = "erp-app" },
  { at = "13 min", fault = "host.freeze", on = "ps2", for = "5 s" },
  { at = "15 min", fault = "store.throttle", rate = "10 %", for = "1 min" },
  { at = "17 min", fault = "host.power", on = "erp-app", for = "10 s" },
  { at = "19 min", fault = "store.lost-replies", rate = "10 %", for = "1 min" },
  { at = "21 min", fault = "link.slow", on = "wan", speed = "512 KiB/s", for = "2 min" },
  { at = "23 min", fault = "process.kill", on = "ps1" },
  { at = "25 min", fault = "host.freeze", on = "erp-db", for = "3 s" },
  { at = "27 min", fault = "link.cut", on = "wan", for = "30..60 s" },
  { at = "29 min", fault = "host.power", on = "ps1", for = "15 s" },
  { at = "31 min", fault = "store.late", rate = "10 %", for = "1 min" },
  { at = "34 min", fault = "link.cut", on = "wan", for = "50..70 s", id = "last" },
  { at = "last.start + 40 s", fault = "process.kill", on = "erp-db" },
  { at = "38 min", fault = "process.kill", on = "ps2" },
  { at = "40 min", end = true },
]
[expect]
eventually = ["converges within 120 s"]
"#;

/// Makes what a clone of a repository has of a story: the file in this directory.
fn clone(name: &str, directory: &str, file: &str, story: &str) -> PathBuf {
    place(name, &[(&format!("{directory}/{file}"), story)])
}

/// Returns the one line that a failure hands over.
fn handed_over(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| line.starts_with("cargo sim replay "));
    lines.next().unwrap_or_else(|| panic!("no line is handed over: {text}")).to_owned()
}

#[test]
fn one_line_plays_the_same_failure_in_another_clone_at_the_same_event() {
    let mine = clone("mine", "scenarios", "shop.toml", SHOP);
    assert_eq!(type_in(&mine, "cargo sim run shop").0, 0);
    let (code, text) = type_in(&mine, "cargo sim run shop --bug unbounded-spill --out runs");
    assert_eq!(code, 0, "a spill that needs no bound holds: {text}");
    let (code, text) = type_in(&mine, "cargo sim run shop --bug forget-after-send --out runs");
    assert_eq!(code, 0, "an agent whose server lives may forget: {text}");
    let (code, text) = type_in(&mine, "cargo sim run shop --bug plaintext-frame --out runs");
    assert_eq!(code, 20, "{text}");
    let line = handed_over(&text);
    let (code, here) = type_in(&mine, &line);
    assert_eq!((code, here.contains(", as recorded")), (20, true), "{here}");
    let (code, there) = type_in(&clone("theirs", "scenarios", "shop.toml", SHOP), &line);
    assert_eq!((code, there.contains(", as recorded")), (20, true), "{there}");
    // Every line of both, and so the event at which it was found.
    assert_eq!(here, there);
    let other = SHOP.replace("for = \"3 s\"", "for = \"4 s\"");
    let (code, text) = type_in(&clone("others", "scenarios", "shop.toml", &other), &line);
    assert_eq!(code, 26, "another story is another run: {text}");
}

#[test]
fn a_line_about_scenarios_elsewhere_says_where_they_are() {
    let mine = clone("elsewhere-mine", "my tests", "shop.toml", SHOP);
    let call =
        "cargo sim --scenarios 'my tests' run shop --seeds 1 --bug plaintext-frame --out runs --json a.json";
    let (code, text) = type_in(&mine, call);
    assert_eq!(code, 20, "{text}");
    let line = handed_over(&text);
    assert!(line.ends_with(" --bug plaintext-frame --scenarios 'my tests'"), "{line}");
    assert!(std::fs::read_to_string(mine.join("a.json")).unwrap().contains(&line), "{line}");
    let theirs = clone("elsewhere-theirs", "my tests", "shop.toml", SHOP);
    let (code, text) = type_in(&theirs, &line);
    assert_eq!((code, text.contains(", as recorded")), (20, true), "{text}");
}

#[test]
fn a_failure_of_forty_minutes_becomes_a_few_lines_in_few_runs() {
    let mine = clone("evening", "scenarios", "evening.toml", EVENING);
    let (code, text) = type_in(&mine, "cargo sim run evening --bug reuse-sequence --out runs");
    assert_eq!(code, 23, "{text}");
    assert!(text.contains("assertion: SP-1"), "{text}");
    let call = "cargo sim shrink runs/evening@1+reuse-sequence.rdrun --keep evening-small";
    let (code, text) = type_in(&mine, call);
    assert_eq!(code, 0, "{text}");
    let file = std::fs::read_to_string(mine.join("scenarios/regressions/evening-small.toml")).unwrap();
    let lines = file.lines().filter(|line| line.trim_start().starts_with("{ at = ")).count();
    assert!((2..=15).contains(&lines), "{lines} lines: {file}");
    // The whole is never played: a part of it failed alike, and the last line says after how many runs it was small.
    assert!(!text.contains("runs  whole"), "{text}");
    let line = text.lines().find(|line| line.starts_with("smaller after ")).unwrap();
    let runs: u64 = line.split(' ').nth(2).unwrap().parse().unwrap();
    assert!(runs < 300, "{line}");
    let (again, text) = type_in(&mine, "cargo sim run evening-small --bug reuse-sequence --out runs");
    assert_eq!((again, text.contains("assertion: SP-1")), (23, true), "{text}");
    // Played again it says the same, and the fork finds when it came: the harness looks every half second.
    let (code, text) = type_in(&mine, &handed_over(&text));
    assert_eq!(
        (code, text.contains("assertion: SP-1"), text.contains(", as recorded")),
        (23, true, true),
        "{text}"
    );
    let (code, text) = type_in(&mine, "cargo sim fork runs/evening-small@1+reuse-sequence.rdrun --futures 2");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("CRASHED assertion: SP-1") && text.contains("inevitable"), "{text}");
}
