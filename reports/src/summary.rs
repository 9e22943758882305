//! The summary of a job: a set of runs as Markdown, never longer than the place it is shown in.
//!
//! What comes first is what decides: the verdict, then failures by cause, the worst first. What finds no room is
//! counted, and stands in the page.
//!
//! What is *not* here: how words are made harmless (`markdown`), where failures are shown in files (`annotations`).

use crate::causes::{Case, Cause, causes};
use crate::file;
use crate::judge;
use crate::markdown::{block, cell, code, line, link};
use crate::model::{Run, RunSet, Scenario, Verdict};
use crate::text;
use crate::view;
use std::fmt::Write;

/// Longest name of anything.
const NAME: usize = 160;

/// Longest finding.
const FOUND: usize = 3000;

/// Longest line.
const LINE: usize = 400;

/// Replay lines of one cause.
const REPLAYS: usize = 5;

/// Names of one list.
const LIST: usize = 120;

/// Scenarios of the table.
const ROWS: usize = 300;

/// Causes that are open; more are folded, so that one sees how many there are.
const OPEN: usize = 3;

/// Makes the summary of a set in at most `room` bytes; `notes` are sentences about the set that come with it, such as
/// entries of the known failures that nothing matches.
pub fn summary(set: &RunSet, notes: &[String], room: usize) -> String {
    let verdict = judge::of_set(set);
    let mut out = head(set, verdict);
    let rest = notes_of(notes) + &never(set) + &table(set);
    // Each part is bounded; failures take what the others leave.
    let left = room.saturating_sub(out.len() + rest.len() + NOTE);
    out.push_str(&failures(set, left));
    out.push_str(&rest);
    if out.len() > room {
        // Only where there was next to no room to begin with.
        let end = (0..=room).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
    }
    out
}

/// Makes the summary of a job that played nothing because files are invalid: every problem, as far as there is room.
pub fn invalid_summary(problems: &[String], room: usize) -> String {
    let mut out = format!(
        "## ❌ Redoubt lab: files are invalid\n\n**Nothing was played: {}.**\n\n",
        text::of(problems.len() as u64, "problem")
    );
    for (at, problem) in problems.iter().enumerate() {
        let part = format!("- {}\n", code(problem, LINE));
        if out.len() + part.len() + NOTE > room {
            let _ = write!(out, "\n> **and {} more.** `cargo sim check` shows all.\n", problems.len() - at);
            break;
        }
        out.push_str(&part);
    }
    out
}

/// Bytes of the sentence that says what found no room.
const NOTE: usize = 240;

fn head(set: &RunSet, verdict: Verdict) -> String {
    let sums: Vec<String> = view::sums(set).iter().map(|(figure, what)| format!("{figure} {what}")).collect();
    let sign = if verdict == Verdict::Held { "✅" } else { "❌" };
    let planted = match &set.build.planted_bug {
        Some(_) => "\n\n**A bug was planted: this set judges the oracles, not the engine.**",
        None => "",
    };
    format!(
        "## {sign} Redoubt lab: {}\n\n**{}**\n\n{}\n\n{}, {}{planted}\n",
        verdict.words(),
        view::headline(set, verdict, |name| code(name, NAME)),
        sums.join(" · "),
        code(&set.command, LINE),
        file::source(set),
    )
}

/// Returns failures by cause, as many as find room.
fn failures(set: &RunSet, room: usize) -> String {
    let causes = causes(set);
    let mut out = String::new();
    let mut known = false;
    for (at, cause) in causes.iter().enumerate() {
        let mut part = String::new();
        if at == 0 && cause.known.is_none() {
            part.push_str("\n### Failures by cause\n");
        }
        if cause.known.is_some() && !known {
            known = true;
            part.push_str("\n### Known failures\n");
        }
        part.push_str(&of_cause(cause, at < OPEN && cause.known.is_none()));
        if out.len() + part.len() > room {
            let left = text::of((causes.len() - at) as u64, "cause");
            let _ = write!(
                out,
                "\n> **{left} more found no room here.** All of them are in the report, `report.html`.\n"
            );
            break;
        }
        out.push_str(&part);
    }
    out
}

fn of_cause(cause: &Cause<'_>, is_open: bool) -> String {
    // The case to read is one whose course was kept; failing that, any.
    let case = cause.cases.iter().find(|case| case.run.course.is_some()).unwrap_or(&cause.cases[0]);
    let mut out = String::new();
    let title =
        format!("**{}** {} in {}", cause.verdict.words(), code(&cause.oracle, NAME), spread(&cause.cases));
    let _ = match is_open {
        true => writeln!(out, "\n#### {title}\n"),
        // Markdown within the fold needs an empty line before it.
        false => writeln!(
            out,
            "\n<details><summary>{} in {}</summary>\n\n{title}\n",
            cause.verdict.words(),
            text::of(cause.cases.len() as u64, "run")
        ),
    };
    if let Some(known) = cause.known {
        let (until, issue) = (code(&known.expires, NAME), link(&known.issue, LINE));
        let _ = writeln!(out, "Known until {until}, {issue}: {}\n", code(&known.why, LINE));
    }
    let _ = writeln!(out, "{}:\n", code(&format!("{}@{}", case.scenario.name, case.run.seed), NAME));
    out.push_str(&block(&case.finding.what, FOUND));
    out.push_str("\nTo play it again:\n\n");
    out.push_str(&block(&replays(case, &cause.cases), REPLAYS * LINE));
    let events = events(case.run);
    if !events.is_empty() {
        let _ = write!(
            out,
            "\n<details><summary>What happened before it</summary>\n\n{}\n</details>\n",
            block(&events, FOUND)
        );
    }
    // As an entry of the known failures takes it.
    let signature = format!("oracle = {:?}\nsays   = {:?}", cause.oracle, cause.pattern);
    let _ = write!(
        out,
        "\n<details><summary>Its signature</summary>\n\n{}\n</details>\n",
        block(&signature, FOUND)
    );
    if !is_open {
        out.push_str("\n</details>\n");
    }
    out
}

/// Lines to copy: that of the case which is shown comes first.
fn replays(shown: &Case<'_>, cases: &[Case<'_>]) -> String {
    let others = cases.iter().map(|case| &case.run.replay).filter(|line| **line != shown.run.replay);
    let all = std::iter::once(&shown.run.replay).chain(others);
    let mut lines: Vec<String> = all.take(REPLAYS).map(|replay| line(replay, LINE)).collect();
    if cases.len() > REPLAYS {
        lines.push(format!("# and {} more", cases.len() - REPLAYS));
    }
    lines.join("\n")
}

fn spread(cases: &[Case<'_>]) -> String {
    let mut names: Vec<&str> = cases.iter().map(|case| case.scenario.name.as_str()).collect();
    names.dedup();
    let runs = text::of(cases.len() as u64, "run");
    match &names[..] {
        [one] => format!("{runs} of {}", code(one, NAME)),
        many => format!("{runs} of {} scenarios", many.len()),
    }
}

fn events(run: &Run) -> String {
    let events = run.course.iter().flat_map(|course| &course.events);
    let lines = events.map(|event| {
        let times = if event.times > 1 { format!(" ×{}", event.times) } else { String::new() };
        format!("{:>12}  {}{times}", text::moment(event.at_ms), line(&event.what, LINE))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn notes_of(notes: &[String]) -> String {
    let mut out = String::new();
    if !notes.is_empty() {
        out.push_str("\n### About the known failures\n\n");
    }
    for note in notes.iter().take(LIST) {
        let _ = writeln!(out, "- {}", code(note, LINE));
    }
    out
}

fn names(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(LIST).map(|name| code(name, NAME)).collect();
    if names.len() > LIST {
        shown.push(format!("and {} more", names.len() - LIST));
    }
    shown.join(", ")
}

/// What a set that holds may hide.
fn never(set: &RunSet) -> String {
    let mut out = String::new();
    for scenario in &set.scenarios {
        let never = judge::never_seen(scenario);
        if !never.is_empty() && judge::is_judged(scenario) {
            let runs = text::of(scenario.totals.runs, "run");
            let _ = writeln!(out, "- {}, in {runs}: {}", code(&scenario.name, NAME), names(&never));
        }
        if out.len() > LIST * LINE {
            out.push_str("- and more\n");
            break;
        }
    }
    if !out.is_empty() {
        out = format!("\n### Promised to happen sometimes, and never seen\n\n{out}");
    }
    let (unmet, unplanned) = judge::unmet(set);
    let unreached = judge::unreached(set);
    let lists = [
        ("Faults that plans had and nobody met", &unmet),
        ("Faults that no plan had", &unplanned),
        ("Marks that no run reached", &unreached),
    ];
    if lists.iter().any(|(_, list)| !list.is_empty()) {
        out.push_str("\n<details><summary>What was never reached</summary>\n\n");
        for (what, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            let _ = writeln!(out, "{what}: {}\n", names(list));
        }
        out.push_str("</details>\n");
    }
    out
}

fn table(set: &RunSet) -> String {
    let mut rows: Vec<(&Scenario, Verdict)> =
        set.scenarios.iter().map(|scenario| (scenario, judge::of_scenario(scenario))).collect();
    rows.sort_by_key(|(_, verdict)| std::cmp::Reverse(*verdict));
    let mut out = String::from("\n<details><summary>Scenarios</summary>\n\n");
    out.push_str("| scenario | verdict | held | runs | simulated |\n|---|---|---:|---:|---:|\n");
    for (scenario, verdict) in rows.iter().take(ROWS) {
        let totals = &scenario.totals;
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            cell(&scenario.name, NAME),
            verdict.words(),
            text::count(totals.held),
            text::count(totals.runs),
            text::duration(totals.simulated_ms),
        );
    }
    if rows.len() > ROWS {
        let _ = writeln!(out, "\nand {} more", rows.len() - ROWS);
    }
    out.push_str("\n</details>\n");
    out
}
