//! What the page, JUnit's file and the log say, and that they say the same each time.

mod common;
#[path = "common/capacity.rs"]
mod plan;

use redoubt_reports::model::{Finding, Verdict};
use redoubt_reports::{html, junit, read, write};

/// The part of a page from one section to the next.
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<section id=\"{id}\">")).unwrap();
    rest.split_once("</section>").unwrap().0
}

#[test]
fn equal_sets_give_equal_bytes_also_after_a_file_in_between() {
    let (set, baseline) = (common::broken(), common::held());
    let again = read("run.json", &write(&set)).unwrap();
    assert_eq!(html(&set, Some(&baseline)), html(&again, Some(&baseline)));
    assert_eq!(junit(&set), junit(&again));
    assert_eq!(redoubt_reports::hdr_log(&set), redoubt_reports::hdr_log(&again));
}

#[test]
fn a_small_page_is_what_a_person_looked_at() {
    let mut set = common::broken();
    set.scenarios.retain(|scenario| scenario.name == "rot-is-reported-not-served");
    let page = html(&set, None);
    let (_, body) = page.split_once("<header").unwrap();
    insta::assert_snapshot!(body);
}

#[test]
fn nothing_on_the_page_asks_for_anything() {
    let page = html(&common::broken(), Some(&common::held()));
    for word in ["<script", "http:", "https:", "@import", "url(", "<img", "<iframe", " on"] {
        let found = page.match_indices(word).find(|(at, _)| {
            // A handler would be ` onclick=`; words of people may begin with those letters.
            word != " on"
                || page[at + 3..].chars().take_while(|c| c.is_alphabetic()).count() > 0
                    && page[at + 3..].trim_start_matches(char::is_alphabetic).starts_with('=')
        });
        assert!(found.is_none(), "{word}: {found:?}");
    }
}

#[test]
fn words_of_a_run_are_never_markup() {
    let page = html(&common::broken(), None);
    assert!(!page.contains("<a write>") && page.contains("&lt;a write&gt;"));
}

#[test]
fn failures_stand_by_cause_with_their_replay_lines() {
    let page = html(&common::broken(), None);
    let failures = section(&page, "failures");
    assert_eq!(failures.matches("<article").count(), 3);
    for line in
        ["cargo sim replay swarm@20", "8\u{a0}runs of swarm", "and 3 more, on the seed map", "cut wan"]
    {
        assert!(failures.contains(line), "{line}");
    }
    assert!(!html(&common::held(), None).contains("<section id=\"failures\">"));
}

#[test]
fn a_failure_says_what_was_promised_and_what_its_story_is() {
    let page = html(&common::broken(), None);
    let failures = section(&page, "failures");
    for words in [
        "<dt>Promised</dt><dd>each recovery point equals the state after an exact prefix",
        "<dt>Promised</dt><dd>the engine watches invariants of its own",
        "<dt>Story</dt><dd>The way to the process server is cut; the agent spills and catches up. A cut must cost",
        "the same in other runs",
    ] {
        assert!(failures.contains(words), "{words}");
    }
    assert!(page.contains("did not hold, for 3 causes: "), "the first sentence tells who spoke");
}

#[test]
fn capacity_says_what_is_kept_which_link_would_do_and_at_what_scale() {
    let set = plan::capacity();
    let page = html(&read("run.json", &write(&set)).unwrap(), None);
    assert_eq!(page, html(&set, None));
    let page = page.replace('\u{a0}', " ").replace("&#x2f;", "/");
    let capacity = section(&page, "capacity");
    for words in [
        "The promise is not kept on 10.0 Mbit/s: lag.p99 &lt;= rpo (at most 60 s): 71.25 s of",
        "The smallest link that keeps it: 16.8 Mbit/s.",
        "It was played at 1/200",
        "class=\"n over\"",
        "sessions ended of silence",
    ] {
        assert!(capacity.contains(words), "{words}");
    }
    assert!(section(&page, "estates").contains("Played at 1/200: sizes of disks and bounds"));
    assert!(section(&page, "measured").contains("Promised: lag.p99 &lt;= rpo; each group is held"));
    assert!(!html(&common::held(), None).contains("id=\"capacity\""));
}

#[test]
fn what_was_never_reached_is_said_and_counts() {
    let mut set = common::broken();
    set.scenarios.retain(|scenario| scenario.name == "rot-is-reported-not-served");
    assert_eq!(redoubt_reports::of_set(&set), Verdict::NeverSeen);
    let page = html(&set, None);
    assert!(section(&page, "reached").contains("<code>bitmap-mode-left</code>"));
    assert!(junit(&set).contains("never seen in 4"));
}

#[test]
fn a_comparison_names_the_seeds_that_changed_and_what_is_not_reached_any_more() {
    let page = html(&common::broken(), Some(&common::held()));
    let text = section(&page, "comparison");
    for words in
        ["4\u{a0}scenarios worse, none better", "held → crashed: 6, 12", "bitmap-mode-left</code> in swarm"]
    {
        assert!(text.contains(words), "{words}");
    }
}

#[test]
fn junit_has_a_case_for_each_seed_and_is_xml_whatever_a_finding_says() {
    let mut set = common::broken();
    set.scenarios.retain(|scenario| scenario.name == "wan-cut-spills-and-points-survive");
    let what = "]]> \u{1}\u{1b}[31m <&\"'".to_owned();
    set.scenarios[0].runs[5].findings = vec![Finding { oracle: "prefix".into(), what }];
    let text = junit(&set);
    // A seed is a case, and so is each thing that must happen sometimes.
    assert_eq!(text.matches("<testcase ").count(), 12 + 2);
    assert_eq!((text.matches("<error").count(), text.matches("<failure").count()), (2, 1));
    assert!(text.contains("cargo sim replay wan-cut-spills-and-points-survive@12"));
    assert!(text.chars().all(|letter| letter == '\n' || letter >= ' '), "{text}");
}
