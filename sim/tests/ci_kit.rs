//! The CI kit as a job sees it: the same set and verdict whenever a commit is played, failures where people look, known
//! failures, nights, and the canary. Only the lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process and writes real files")]

mod support;

use std::path::{Path, PathBuf};
use support::{answer, read, tool};

const COMMIT: &str = "1a4a3fd80c1e1a4a3fd80c1e1a4a3fd80c1e1a4a";

/// A story of two seconds.
const STORY: &str = r#"format = 1
title = "Short"
why = "To see what a job shows."
tags = ["short"]
seeds = { pr = 3, nightly = 10 }
[vary]
cut = "1..2 s"
[timeline]
steps = [
  { at = "1 s", fault = "link.cut", on = "wan", for = "$cut" },
  { at = "3 s", end = true },
]
[expect]
eventually = ["converges within 60 s"]
"#;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A directory of its own with the story.
fn place(name: &str) -> PathBuf {
    support::place(name, &[("short.toml", STORY)])
}

/// Runs the tool in a directory as a job of GitHub's; returns its exit code and what it printed.
fn sim_on(scenarios: &Path, place: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = tool(scenarios);
    command.current_dir(place).args(arguments);
    command.env("GITHUB_WORKSPACE", scenarios).env("GITHUB_STEP_SUMMARY", place.join("step.md"));
    answer(command.env("GITHUB_ACTIONS", "true").env_remove("CI_PROJECT_DIR"))
}

fn sim(place: &Path, arguments: &[&str]) -> (i32, String) {
    sim_on(place, place, arguments)
}

/// Returns the first seed in which the canary's bug bites: about one of a hundred does.
fn bites(place: &Path) -> String {
    let words = ["run", "canary", "--bug", "canary", "--from", "1", "--seeds", "400", "--json", "all.json"];
    assert_eq!(sim(place, &words).0, 20);
    let set: serde_json::Value = serde_json::from_str(&read(place, "all.json")).unwrap();
    let runs = set["scenarios"][0]["runs"].as_array().unwrap();
    let broken: Vec<&serde_json::Value> = runs.iter().filter(|run| run["verdict"] == "broken").collect();
    assert!((1..=16).contains(&broken.len()), "{} of 400", broken.len());
    broken[0]["seed"].to_string()
}

#[test]
fn the_canarys_seed_fails_with_20_and_is_told_where_people_look() {
    let place = place("ci-canary");
    let bites = bites(&place);
    let words = [
        "run", "canary", "--bug", "canary", "--from", &bites, "--seeds", "1", "--ci", "auto", "--out", "job",
    ];
    let (code, text) = sim_on(&top().join("scenarios"), &place, &words);
    assert_eq!(code, 20, "{text}");
    // Whatever is printed about the run is no command: the first line stops commands, and the annotations come behind
    // the line that lets them be commands again.
    let word = text.lines().next().unwrap().strip_prefix("::stop-commands::").unwrap();
    let (before, after) = text.split_once(&format!("\n::{word}::\n")).unwrap();
    assert!(before.contains(&format!("BROKEN canary@{bites}")), "{text}");
    let annotation = after.lines().next().unwrap();
    assert!(
        annotation.starts_with("::error file=canary.toml,line=3,title=broken%3A secrets in canary::"),
        "{text}"
    );
    for file in ["job/summary.md", "step.md", "job/report.html", "job/junit.xml"] {
        assert!(read(&place, file).contains(&format!("cargo sim replay canary@{bites}#")), "{file}");
    }
    assert!(read(&place, "job/gl-code-quality-report.json").contains("\"path\": \"canary.toml\""));
    assert!(place.join(format!("job/capsules/canary@{bites}+canary.rdrun")).is_file());
    // The same seed without the bug, and another seed with it, hold; what the step has said already stays.
    let (code, text) =
        sim(&place, &["run", "canary", "--from", &bites, "--seeds", "1", "--ci", "github", "--out", "job"]);
    assert_eq!((code, text.contains("::error")), (0, false), "{text}");
    let step = read(&place, "step.md");
    assert!(step.contains("❌ Redoubt lab: broken") && step.contains("✅ Redoubt lab: held"), "{step}");
    let (code, text) = sim(&place, &["run", "canary", "--bug", "canary", "--from", "1", "--seeds", "1"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn the_canary_sings_beside_anybodys_scenarios() {
    let place = place("ci-canary-sings");
    let (code, text) = sim(&place, &["canary", "--seeds", "400"]);
    assert_eq!((code, text.contains("the canary sings")), (0, true), "{text}");
    assert_eq!(text.matches("held").count(), 9, "{text}");
    assert!(!place.join("step.md").exists(), "the job that asks has a summary of its own");
    assert_eq!(sim(&place, &["canary", "--seeds", "10"]).0, 2);
}

#[test]
fn a_part_of_the_set_of_a_change_played_three_times_is_the_same_to_the_byte() {
    let place = place("ci-thrice");
    let files = ["run.json", "summary.md", "report.html", "junit.xml", "gl-code-quality-report.json"];
    let scenarios = top().join("scenarios");
    let play = |out: &str, jobs: &str, more: &[&str]| {
        let words =
            ["--jobs", jobs, "run", "canary", "steady-stream", "--seeds", "2", "--ci", "plain", "--out", out];
        let (code, text) = sim_on(&scenarios, &place, &[&words[..], more].concat());
        let verdicts: Vec<String> =
            text.lines().filter(|line| line.contains('│')).map(without_time).collect();
        assert!(verdicts.len() >= 2, "{text}");
        (code, verdicts, files.map(|file| read(&place, &format!("{out}/{file}"))))
    };
    let first = play("1", "1", &["--seeds-of", COMMIT]);
    assert_eq!(first.0, 0);
    for (out, jobs) in [("2", "3"), ("3", "2")] {
        let again = play(out, jobs, &["--seeds-of", COMMIT]);
        assert_eq!((first.0, &first.1), (again.0, &again.1));
        for (file, (one, other)) in files.iter().zip(first.2.iter().zip(&again.2)) {
            assert!(one == other, "{file} of {out} differs");
        }
    }
    assert!(first.2[0].contains(COMMIT));
}

/// A row of the table of verdicts without its last column, the time it took.
fn without_time(line: &str) -> String {
    let cells: Vec<&str> = line.split('┆').collect();
    cells[..cells.len().saturating_sub(2)].join("|")
}

/// Seeds of a set, by scenario and in order.
fn seeds(place: &Path, file: &str) -> Vec<(String, u64)> {
    let set: serde_json::Value = serde_json::from_str(&read(place, file)).unwrap();
    let scenarios = set["scenarios"].as_array().unwrap().clone();
    let of = |scenario: &serde_json::Value| {
        let name = scenario["name"].as_str().unwrap().to_owned();
        let runs = scenario["runs"].as_array().unwrap().clone();
        runs.iter().map(|run| (name.clone(), run["seed"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    scenarios.iter().flat_map(of).collect()
}

#[test]
fn a_commit_adds_seeds_of_its_own_and_another_commit_others() {
    let place = place("ci-seeds");
    let list = |commit: &str| {
        let (code, text) = sim(&place, &["run", "--ci", "plain", "--seeds-of", commit, "--out", "job"]);
        assert_eq!(code, 0, "{text}");
        seeds(&place, "job/run.json").into_iter().map(|(_, seed)| seed).collect::<Vec<_>>()
    };
    let one = list(COMMIT);
    assert_eq!((&one[..3], one.len()), (&[1, 2, 3][..], 5));
    assert_ne!(one, list(&COMMIT.replace('1', "2")));
    let (code, text) = sim(&place, &["run", "--seeds-of", "no-such-commit"]);
    assert_eq!((code, text.contains("is no commit that git finds")), (2, true), "{text}");
}

/// A file that knows the failure of [`BUG`].
fn known(place: &Path, says: &str, expires: &str) {
    let text = format!(
        "format = 1\n[known.short]\nscenario = \"sh*\"\noracle = \"secrets\"\nsays = \"{says}\"\nissue = \
         \"https://example.org/issues/17\"\nsince = \"2026-11-01\"\nexpires = \"{expires}\"\nwhy = \"It is being mended.\"\n"
    );
    std::fs::write(place.join("known-failures.toml"), text).unwrap();
}

const BUG: [&str; 3] = ["run", "--bug", "plaintext-frame"];

#[test]
fn a_known_failure_fails_nothing_until_its_entry_expires() {
    let place = place("ci-known");
    let run = |today: &str| {
        let words =
            [&BUG[..], &["--seeds", "2", "--ci", "github", "--out", "job", "--today", today]].concat();
        sim(&place, &words)
    };
    known(&place, "*", "2026-12-15");
    let (code, text) = run("2026-12-15");
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("known short@1: BROKEN, until 2026-12-15; https://example.org/issues/17"),
        "{text}"
    );
    assert!(
        text.contains("3 of them fail in a known way") && text.contains("::warning file=short.toml"),
        "{text}"
    );
    assert!(read(&place, "job/junit.xml").contains("<skipped"));
    // The day after, the failure counts, and so does the entry, at its line.
    let (code, text) = run("2026-12-16");
    assert_eq!(code, 20, "{text}");
    assert!(
        text.contains("error[S080]") && text.contains("::error file=known-failures.toml,line=3,"),
        "{text}"
    );
    // An entry that has expired fails by itself.
    let (code, text) = sim(&place, &["run", "--seeds", "1", "--today", "2026-12-16"]);
    assert_eq!((code, text.contains("error[S080]")), (10, true), "{text}");
}

#[test]
fn an_entry_that_matches_nothing_is_told_and_a_broken_file_is_refused() {
    let place = place("ci-idle");
    known(&place, "something else", "2026-12-15");
    let today = ["--seeds", "1", "--today", "2026-12-01", "--ci", "github", "--out", "job"];
    let (code, text) = sim(&place, &[&BUG[..], &today].concat());
    assert_eq!((code, text.contains("warning[S081]")), (20, true), "{text}");
    assert!(text.contains("::warning file=known-failures.toml,line=3,"), "{text}");
    assert!(read(&place, "job/summary.md").contains("S081: nothing failed in this way"));
    known(&place, "*", "2026-12-32");
    for words in [&["run"][..], &["check"]] {
        let (code, text) = sim(&place, words);
        assert_eq!((code, text.contains("known-failures.toml:8:11")), (10, true), "{text}");
    }
}

#[test]
fn a_broken_file_of_known_failures_is_shown_at_its_lines_wherever_it_lies() {
    let workspace = place("ci-known-apart");
    let scenarios = workspace.join("tests/failures");
    std::fs::create_dir_all(&scenarios).unwrap();
    std::fs::rename(workspace.join("short.toml"), scenarios.join("short.toml")).unwrap();
    known(&workspace, "*", "2026-12-32");
    let (apart, beside) = (workspace.join("known-failures.toml"), scenarios.join("known-failures.toml"));
    let play = |known: &[&str]| {
        let mut command = tool(Path::new("tests/failures"));
        command.current_dir(&workspace).args(["run", "--ci", "github", "--out", "job"]).args(known);
        command.env("GITHUB_WORKSPACE", &workspace).env("GITHUB_STEP_SUMMARY", workspace.join("step.md"));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = play(&["--known", "known-failures.toml"]);
    assert_eq!((code, text.matches("::error file=").count()), (10, 1), "{text}");
    assert!(text.contains("::error file=known-failures.toml,line=8,title=S035%3A"), "{text}");
    assert!(read(&workspace, "step.md").contains("Nothing was played"));
    assert!(read(&workspace, "job/summary.md").contains("known-failures.toml:8: S035"));
    let quality = read(&workspace, "job/gl-code-quality-report.json");
    assert!(quality.contains("\"path\": \"known-failures.toml\""), "{quality}");
    // Beside the scenarios it is judged with them, and shown once.
    std::fs::copy(&apart, &beside).unwrap();
    let (code, text) = play(&["--known", "tests/../tests/failures/known-failures.toml"]);
    assert_eq!((code, text.matches("::error file=").count()), (10, 1), "{text}");
    assert!(text.contains("::error file=tests/failures/known-failures.toml,line=8,"), "{text}");
    let (code, text) = play(&[]);
    assert_eq!((code, text.matches("::error file=").count()), (10, 1), "{text}");
}

#[test]
fn files_that_are_invalid_are_shown_at_their_lines() {
    let place = place("ci-invalid");
    std::fs::write(
        place.join("broken.toml"),
        STORY.replace("title", "titel").replace("link.cut", "link.cutt"),
    )
    .unwrap();
    let (code, text) = sim(&place, &["run", "--ci", "github", "--out", "job"]);
    assert_eq!(code, 10, "{text}");
    for line in
        ["::error file=broken.toml,line=2,title=S002%3A", "::error file=broken.toml,line=10,title=S020%3A"]
    {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(read(&place, "step.md").contains("Nothing was played"));
}

#[test]
fn a_night_is_the_same_from_the_same_and_has_seeds_of_its_own() {
    let place = place("ci-night");
    std::fs::write(
        place.join("other.toml"),
        STORY.replace("link.cut", "host.freeze").replace("\"wan\"", "\"ps1\""),
    )
    .unwrap();
    let night = |out: &str, word: &str, weights: &str| {
        let words = [
            "sweep",
            "--for",
            "10m",
            "--runs",
            "6",
            "--night",
            word,
            "--weights",
            weights,
            "--ci",
            "plain",
            "--out",
            out,
        ];
        let (code, text) = sim(&place, &words);
        assert_eq!(
            (code, text.contains(&format!("night {word}, the largest shares: "))),
            (0, true),
            "{text}"
        );
        text
    };
    let text = night("1", "17", "none.json");
    assert!(text.contains("no earlier set at none.json yet"), "{text}");
    night("2", "17", "1/run.json");
    night("3", "17", "1/run.json");
    night("4", "18", "1/run.json");
    assert_eq!(read(&place, "2/run.json"), read(&place, "3/run.json"));
    let played = seeds(&place, "2/run.json");
    assert_eq!(played.len(), 6);
    assert!(played.iter().all(|(_, seed)| *seed >= 1_000_000_000));
    assert!(seeds(&place, "4/run.json").iter().all(|run| !played.contains(run)));
    std::fs::write(place.join("5.json"), "{}").unwrap();
    assert_eq!(sim(&place, &["sweep", "--weights", "5.json", "--runs", "1"]).0, 10);
}
