//! The summary of a job and the annotations, with friendly words, hostile ones and far too many.

mod common;

use redoubt_reports::model::{Finding, Known, RunSet, Verdict};
use redoubt_reports::{Place, Places, annotations, code_quality, github, junit, of_set, summary};
use std::collections::BTreeMap;

/// What GitHub takes for one step.
const MIB: usize = 1 << 20;

/// Words that mean something to a shell, a workflow, Markdown, HTML, a terminal or a reader's eye.
const HOSTILE: &str = "a|b `c` ``` <script>alert(1)</script> </details> | x\n::error file=a::b%0A 100 %\n##[error]x\n\
                       ::stop-commands::x\r\u{1b}[31mred\u{202e}dlrow @everyone #1 [x](javascript:y) ]]>";

fn places(set: &RunSet) -> Places {
    let place = |name: &str| Place {
        file: format!("scenarios/{name}.toml"),
        line: 3,
        promises: BTreeMap::from([
            ("converges".to_owned(), 21),
            ("prefix".to_owned(), 20),
            ("sometimes bitmap-mode-left".to_owned(), 22),
        ]),
    };
    set.scenarios.iter().map(|scenario| (scenario.name.clone(), place(&scenario.name))).collect()
}

/// A set with failures, and one of its causes is known.
fn known() -> RunSet {
    let mut set = common::broken();
    let runs = set.scenarios.iter_mut().flat_map(|scenario| &mut scenario.runs);
    for run in runs.filter(|run| run.verdict == Verdict::NotConverged) {
        run.known = Some(Known {
            issue: "https://example.org/issues/17".into(),
            expires: "2026-12-15".into(),
            why: "The link's timer is being rewritten.".into(),
        });
    }
    set
}

/// A set in which everything that a run or a scenario can say is hostile.
fn hostile() -> RunSet {
    let mut set = common::broken();
    set.command = format!("cargo sim run {HOSTILE}");
    set.scenarios.truncate(3);
    for scenario in &mut set.scenarios {
        scenario.name = format!("{}{HOSTILE}", scenario.name);
        scenario.title = HOSTILE.into();
        for run in scenario.runs.iter_mut().filter(|run| run.seed % 2 == 0) {
            run.verdict = Verdict::Broken;
            run.findings = vec![Finding { oracle: HOSTILE.into(), what: format!("{HOSTILE}\n{HOSTILE}") }];
            run.replay = format!("cargo sim replay {HOSTILE}");
            if let Some(course) = &mut run.course {
                course.events.iter_mut().for_each(|event| event.what = HOSTILE.into());
            }
        }
        scenario.runs[0].verdict = Verdict::Missed;
        scenario.runs[0].findings = vec![Finding { oracle: "objective".into(), what: HOSTILE.into() }];
        let [issue, expires, why] = [HOSTILE, "2026-12-15", HOSTILE].map(str::to_owned);
        scenario.runs[0].known = Some(Known { issue, expires, why });
    }
    set
}

#[test]
fn a_summary_is_what_a_person_looked_at() {
    insta::assert_snapshot!(summary(&known(), &["an entry matches nothing".into()], MIB));
}

#[test]
fn the_summary_of_a_set_that_held_is_short() {
    let text = summary(&common::held(), &[], MIB);
    assert!(
        text.starts_with("## ✅ Redoubt lab: held\n\n**Every promise held in 242\u{a0}runs.**"),
        "{text}"
    );
    assert!(!text.contains("### Failures") && !text.contains("Known"), "{text}");
}

#[test]
fn hostile_words_stay_words() {
    let set = hostile();
    let text = summary(&set, &[HOSTILE.into()], MIB);
    insta::assert_snapshot!("hostile_summary", text);
    // Outside of code there is no letter that anybody but us has written.
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let ticks = line.len() - line.trim_start_matches('`').len();
        match fence {
            Some(open) if line == open => fence = None,
            Some(_) => {}
            None if ticks >= 3 && line.ends_with("text") => fence = Some(&line[..ticks]),
            None => {
                let bare = without_code(line);
                for word in ["<script", "::", "everyone", "javascript", "##["] {
                    assert!(!bare.contains(word), "{word} in {line}");
                }
            }
        }
    }
    assert_eq!(fence, None, "a block is open at the end");
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control() && letter != '\u{202e}'));
}

/// Takes code out of a line, as CommonMark reads it: a run of ticks ends at the next one of equal length.
fn without_code(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(at) = rest.find('`') {
        out.push_str(&rest[..at]);
        let ticks = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        let (fence, after) = rest[at..].split_at(ticks);
        let mut from = 0;
        let end = loop {
            let Some(found) = after[from..].find(fence) else { break None };
            let start = from + found;
            let run = after[start..].len() - after[start..].trim_start_matches('`').len();
            if run == ticks {
                break Some(start + ticks);
            }
            from = start + run;
        };
        rest = &after[end.unwrap_or(0)..];
    }
    out + rest
}

#[test]
fn two_mebibytes_of_failures_are_cut_to_the_room_with_a_note() {
    let mut set = common::broken();
    let scenario = &mut set.scenarios[0];
    let run = scenario.runs[0].clone();
    scenario.runs = (1..=4000)
        .map(|seed| {
            let mut run = run.clone();
            let what = format!("{}: {}", "x".repeat(seed % 191), "y\n".repeat(300));
            run.findings = vec![Finding { oracle: format!("oracle-{}", "z".repeat(seed % 41)), what }];
            (run.seed, run.verdict) = (seed as u64, Verdict::Broken);
            run
        })
        .collect();
    assert!(summary(&set, &[], usize::MAX).len() > MIB);
    for room in [MIB, MIB / 2, 60_000] {
        let text = summary(&set, &[], room);
        assert!(text.len() <= room && text.len() > room / 2, "{} of {room}", text.len());
        assert!(text.contains("more found no room here.") && text.contains("report.html"));
        assert!(text.contains("| verdict |") && text.trim_end().ends_with("</details>"));
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }
    for room in [0, 1, 50, 300] {
        assert!(summary(&set, &[], room).len() <= room);
    }
}

#[test]
fn a_known_failure_fails_nothing_and_is_told_everywhere() {
    let mut set = known();
    set.scenarios.retain(|scenario| scenario.name == common::LONG);
    set.scenarios[0].reached.insert("bitmap-mode-left".into(), 1);
    assert_eq!(of_set(&set), Verdict::Held);
    let text = summary(&set, &[], MIB);
    assert!(
        text.contains("54\u{a0}runs.") && text.contains("6\u{a0}runs failed in a way that is known"),
        "{text}"
    );
    assert!(text.contains("### Known failures") && !text.contains("### Failures by cause"));
    let page = redoubt_reports::html(&set, None);
    assert!(page.contains("Known until 2026-12-15") && page.contains("timer is being rewritten"));
    let junit = junit(&set);
    assert_eq!((junit.matches("<skipped").count(), junit.matches("<failure").count()), (6, 0));
    let commands = github(&annotations(&set, &places(&set)));
    assert!(commands.starts_with("::warning ") && commands.contains("known until 2026-12-15"), "{commands}");
}

#[test]
fn annotations_stand_on_the_lines_of_the_promises() {
    let set = common::broken();
    let all = annotations(&set, &places(&set));
    insta::assert_snapshot!(github(&all));
    insta::assert_snapshot!("code_quality", code_quality(&all));
    let lines: Vec<u64> = all.iter().filter_map(|annotation| Some(annotation.at.as_ref()?.1)).collect();
    // A crash has no promise of its own; the others have theirs.
    assert_eq!(lines, [3, 20, 21, 22]);
}

#[test]
fn hostile_words_are_no_commands() {
    let set = hostile();
    let all = annotations(&set, &places(&set));
    let text = github(&all);
    assert!(text.lines().count() <= redoubt_reports::MOST);
    for line in text.lines() {
        assert!(line.starts_with("::error ") || line.starts_with("::warning "), "{line}");
        let (properties, _) = line[2..].split_once("::").unwrap();
        assert!(!properties.contains(':') && properties.matches(',').count() == 2, "{line}");
    }
    let report: serde_json::Value = serde_json::from_str(&code_quality(&all)).unwrap();
    assert_eq!(report.as_array().unwrap().len(), all.len());
}
