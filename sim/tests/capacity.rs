//! Planning capacity, as an operator does it: figures scale back, and the smallest link is where it must be. Only the
//! lab's build runs anything.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "the tool is started as a process and reads real files")]

mod support;

use serde_json::Value;
use support::{place, read, sim, tool};

/// A machine whose link is away for a while and then hardly faster than what is written; `{}` is the scale. Its guest
/// begins behind the first copy.
const BACKLOG: &str = r#"format = 1
title = "A backlog drains slowly"
why = "Its lag is a matter of rates, not of sizes."
seeds = { pr = 2, nightly = 2 }
[estate]
scale = {}
machines = [{ name = "one", disks = ["16 MiB"] }]
process-servers = [{ name = "ps1", site = "target" }]
bandwidth = "1 MiB/s"
spool-memory = "2 MiB"
spill = "256 MiB"
stage = "64 MiB"
points = "10 s"
[protect.all]
machines = ["one"]
rpo = "30 s"
[load]
one = { writes = "512 KiB/s", day = { from = "10 s", until = "24 h" } }
[timeline]
steps = [
  { at = "20 s", fault = "link.cut", on = "wan", for = "15 s" },
  { at = "78 s", check = "mounts" },
  { at = "80 s", end = true },
]
[expect]
objectives = ["lag.max <= rpo", "mount.max <= 5 s"]
"#;

/// A machine that writes 10 MiB/s of noise, to a process server beyond the link: the link must carry that.
const NOISE: &str = r#"format = 1
title = "Ten MiB a second that nothing compresses"
why = "It needs a link of about that."
seeds = { pr = 2, nightly = 2 }
[estate]
scale = 100
machines = [{ name = "one", disks = ["64 MiB"] }]
process-servers = [{ name = "ps1", site = "target" }]
bandwidth = "{}"
spool-memory = "64 MiB"
spill = "4 GiB"
stage = "4 GiB"
points = "10 s"
[protect.all]
machines = ["one"]
rpo = "20 s"
[load]
one = { writes = "10 MiB/s", entropy = "100 %", day = { from = "10 s", until = "24 h" } }
[timeline]
steps = [{ at = "150 s", end = true }]
[expect]
objectives = ["lag.p95 <= 5 s", "point-age.p95 <= rpo"]
eventually = ["converges within 600 s"]
"#;

/// Runs `capacity` on a story of its own; returns its exit code and what it printed.
fn capacity(name: &str, story: &str, arguments: &[&str]) -> (i32, String) {
    let place = place(&format!("capacity-{name}"), &[("story.toml", story)]);
    let mut command = tool(&place);
    command.args(["capacity", "story"]).args(arguments);
    let output = command.output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = if output.status.code() == Some(2) { error } else { out };
    (output.status.code().unwrap(), text.into_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn lag_of_a_scaled_estate_is_that_of_the_whole_one() {
    let figures = |scale: &str| {
        let story = BACKLOG.replace("{}", scale);
        let (code, text) = capacity(&format!("scale-{scale}"), &story, &["--no-search", "--json"]);
        assert_eq!(code, 0, "{text}");
        json(&text)
    };
    let (whole, scaled) = (figures("1"), figures("10"));
    assert_eq!((whole["scale"].as_u64(), scaled["scale"].as_u64()), (Some(1), Some(10)));
    // A page has the link of the scaled estate for 39 ms, a handful of them are on their way: half a second.
    let coarse = 500 + 10 * scaled["finest_ms"].as_u64().unwrap();
    for measure in ["lag_ms", "loss_ms"] {
        for place in ["p50", "p95", "p99", "max"] {
            let of = |all: &Value| all["groups"][0][measure][place].as_u64().unwrap();
            let (one, ten) = (of(&whole), of(&scaled));
            assert!(one.abs_diff(ten) <= coarse + one.max(ten) / 10, "{measure}.{place}: {one} and {ten} ms");
        }
    }
    let written = |all: &Value| all["groups"][0]["writes"].as_u64().unwrap();
    for all in [&whole, &scaled] {
        // 70 of 80 seconds.
        assert!(written(all).abs_diff((512 << 10) * 7 / 8) < 32 << 10, "{} B/s", written(all));
    }
    assert!(whole["groups"][0]["lag_ms"]["max"].as_u64().unwrap() > 10_000, "the cut is seen");
}

#[test]
fn the_smallest_link_for_noise_is_what_is_written() {
    let (code, text) = capacity("noise", &NOISE.replace("{}", "400 Mbit/s"), &["--json", "--within", "8"]);
    assert_eq!(code, 0, "{text}");
    let smallest = json(&text)["smallest"].as_u64().unwrap();
    let written = 10 << 20;
    // What waits at the end of the run may still be within the promise, so a little less does as well.
    let likely = written - written / 10..written + written / 4;
    assert!(likely.contains(&smallest), "{smallest} B/s for {written} B/s");
}

#[test]
fn a_link_that_is_too_small_is_21_and_the_one_that_would_do_is_named() {
    let place = place("narrow", &[]);
    let (page, set) = (place.join("narrow.html"), place.join("narrow.json"));
    let files = ["--report", page.to_str().unwrap(), "--set", set.to_str().unwrap()];
    let story = NOISE.replace("{}", "40 Mbit/s");
    let (code, text) = capacity("narrow", &story, &[&["--within", "40"], &files[..]].concat());
    assert_eq!(code, 21, "{text}");
    assert!(text.contains("the promise is not kept on 40.0 Mbit/s: lag.p95 <= 5 s"), "{text}");
    assert!(text.contains("the smallest link that keeps it: "), "{text}");
    let page = read(&place, "narrow.html").replace('\u{a0}', " ");
    for words in [
        "<section id=\"capacity\">",
        "The promise is not kept on 40.0 Mbit/s: lag.p95 &lt;= 5 s",
        "the smallest that keeps it",
        "Played at 1/100: sizes of disks and bounds",
        "<h4>Loss</h4>",
        "Promised: <code>lag.p95 &lt;= 5 s</code>, <code>point-age.p95 &lt;= rpo</code>",
    ] {
        assert!(page.replace("&#x2f;", "/").contains(words), "{words} is not on the page");
    }
    // Made again from the set, it is the same page.
    let arguments = ["report", "narrow.json", "--report", "again.html"];
    assert_eq!(sim(&place, &arguments).0, 0);
    assert_eq!(read(&place, "again.html"), read(&place, "narrow.html"));
}

#[test]
fn a_scenario_without_a_promise_in_figures_is_2() {
    let story = NOISE.replace("{}", "40 Mbit/s");
    let silent: String =
        story.lines().filter(|line| !line.starts_with("objectives")).map(|l| format!("{l}\n")).collect();
    let (code, text) = capacity("silent", &silent, &[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("add objectives"), "{text}");
}
