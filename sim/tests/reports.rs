//! Files of `cargo sim run` and `cargo sim report`: the same runs give the same bytes, whoever makes them. Only the
//! lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process and writes real files")]

mod support;

use std::path::PathBuf;
use support::{place, read, sim};

/// A story with two faults; the source is lost in none of its seeds.
const STORY: &str = r#"format = 1
title = "Cut and killed"
why = "To have something to draw."
tags = ["short"]
seeds = { pr = 3, nightly = 3 }
[vary]
away = "1..2 s"
[timeline]
steps = [
  { at = "1 s", fault = "link.cut", on = "wan", for = "$away" },
  { at = "2 s", fault = "process.kill", on = "machine1" },
  { at = "4 s", end = true },
]
[expect]
eventually = ["converges within 60 s"]
"#;

/// A directory of its own with the story and its machine.
fn directory(name: &str) -> PathBuf {
    let estate = "[estate]\nmachines = [{ name = \"machine1\", disks = [\"1 MiB\"] }]\n[load]\nmachine1 = { model = \
                  \"mixed\", rate = \"30 /s\", jobs = \"2\" }\n[timeline]";
    place(name, &[("short.toml", &STORY.replace("[timeline]", estate))])
}

#[test]
fn the_same_runs_give_the_same_bytes_on_any_number_of_cores_and_from_the_file() {
    let place = directory("report-bytes");
    let first = [
        "run",
        "--jobs",
        "1",
        "--report",
        "1.html",
        "--json",
        "1.json",
        "--junit",
        "1.xml",
        "--hdr",
        "1.hdr",
        "--summary",
        "1.md",
    ];
    let (code, text) = sim(&place, &first);
    assert_eq!(code, 0, "{text}");
    let (code, text) = sim(&place, &["run", "--jobs", "3", "--json", "2.json"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(read(&place, "1.json"), read(&place, "2.json"));
    let forms =
        ["report", "2.json", "--report", "2.html", "--junit", "2.xml", "--hdr", "2.hdr", "--summary", "2.md"];
    let (code, text) = sim(&place, &forms);
    assert_eq!(code, 0, "{text}");
    for kind in ["html", "xml", "hdr", "md"] {
        assert_eq!(read(&place, &format!("1.{kind}")), read(&place, &format!("2.{kind}")), "{kind}");
    }
}

#[test]
fn a_page_has_the_faults_as_drawn_and_every_measure_that_there_is() {
    let place = directory("report-page");
    let (code, text) = sim(&place, &["run", "--report", "page.html"]);
    assert_eq!(code, 0, "{text}");
    let page = read(&place, "page.html");
    for words in [
        "Every promise held in 3",
        "cut wan",
        "kill the process on machine1",
        "<h3>Lag</h3>",
        "<h3>Converged</h3>",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_file_that_is_no_set_is_refused_before_anything_is_played() {
    let place = directory("report-refused");
    std::fs::write(place.join("old.json"), r#"{"format": 0}"#).unwrap();
    for arguments in [&["report", "old.json"][..], &["run", "--report", "x.html", "--baseline", "old.json"]] {
        let (code, text) = sim(&place, arguments);
        assert_eq!(code, 10, "{text}");
        assert!(text.contains("old.json has format 0") && !text.contains("runs"), "{text}");
    }
    let (code, text) = sim(&place, &["report", "none.json"]);
    assert_eq!((code, text.contains("cannot read none.json")), (1, true), "{text}");
}
