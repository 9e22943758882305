//! A scenario told to a person: its picture, its story in sentences, its promises.
//!
//! What is *not* here: colours and where it is printed.

use super::catalogue;
use super::keys::SITES;
use super::verbs::{ENDS_ITSELF, Ends, MARKS, ORACLES};
use super::{Act, Deed, On, Range, Scenario, Step, Unit, Value, Vary, When};
use std::fmt::Write;

/// Width of the text.
const WIDTH: usize = 100;

/// Tells a scenario.
pub fn tell(scenario: &Scenario) -> String {
    let mut out = format!("{}\n{}\n\n", scenario.name, scenario.title);
    paragraph(&mut out, "why", &scenario.why);
    out.push('\n');
    out.push_str(&super::picture::draw(scenario));
    out.push_str("\nThe story\n");
    for (number, line) in (1..).zip(sentences(scenario)) {
        wrapped(&mut out, &format!("{number:>4}. "), &line);
    }
    out.push_str("\nWhat must hold\n");
    promises(scenario, &mut out);
    let (pr, nightly) = (scenario.seeds.pr, scenario.seeds.nightly);
    let tags = if scenario.tags.is_empty() {
        String::new()
    } else {
        format!("; tags: {}", scenario.tags.join(", "))
    };
    if !scenario.lessons.is_empty() {
        let _ = writeln!(out, "\nBroke elsewhere: {}", scenario.lessons.join("; "));
    }
    let _ = writeln!(out, "\nPlayed with {pr} seeds on each change and {nightly} each night{tags}");
    out
}

fn paragraph(out: &mut String, head: &str, text: &str) {
    wrapped(out, &format!("{head:<5} "), text);
}

/// Writes a text in lines behind a head, the next lines below its begin.
fn wrapped(out: &mut String, head: &str, text: &str) {
    let indent = head.chars().count();
    out.push_str(head);
    let mut column = indent;
    for (number, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if number > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if number > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

/// Returns the story, one sentence a step.
pub fn sentences(scenario: &Scenario) -> Vec<String> {
    let mut lines: Vec<String> = scenario.steps.iter().map(|step| sentence(scenario, step)).collect();
    if let Some(weather) = &scenario.weather {
        let kinds: Vec<&str> =
            weather.gusts.iter().flat_map(|gust| &gust.deeds).map(|deed| deed.verb.name).collect();
        lines.push(format!(
            "All the time the weather is {:?} ({}): {}.",
            weather.name,
            weather.title,
            few(&kinds)
        ));
    }
    if !scenario.swarm.is_empty() {
        let kinds = scenario.swarm.len();
        lines.push(format!("Besides, up to 8 faults are drawn freely from a random part of {kinds} kinds."));
    }
    lines
}

/// Names a few of many.
fn few(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.dedup();
    match names.len() {
        0..=6 => names.join(", "),
        more => format!("{} and {} more", names[..5].join(", "), more - 5),
    }
}

fn sentence(scenario: &Scenario, step: &Step) -> String {
    let what = match &step.act {
        Act::End => "all faults are lifted and the guests stop".to_owned(),
        Act::Heal(label) => format!("\"{label}\" is over"),
        Act::Verb(deeds) => deed(scenario, step, deeds),
    };
    let chance = match step.chance {
        1_000_000.. => String::new(),
        chance => format!(", in {} % of the seeds", f64::from(chance) / 10_000.0),
    };
    let label = step.id.as_ref().map(|id| format!(" [{id}]")).unwrap_or_default();
    capital(&format!("{}{what}{chance}.{label}", when(scenario, &step.at)))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn deed(scenario: &Scenario, step: &Step, deeds: &[Deed]) -> String {
    let [Deed { verb, on }] = deeds else {
        let names: Vec<&str> = deeds.iter().map(|deed| deed.verb.name).collect();
        return format!("one of {} befalls the estate{}", few(&names), lasts(scenario, step, true));
    };
    let on = match on {
        On::Names(names) => either(names),
        On::Var(name) => match scenario.vary.get(name) {
            Some(Vary::Choice(choices)) => either(choices),
            _ => format!("${name}"),
        },
    };
    let mut text = catalogue::of(verb).says.replace("{on}", &on);
    for (key, _) in verb.takes {
        let words = step.amounts.get(*key).map_or("some".to_owned(), |value| value_words(scenario, value));
        // A speed is written as a size.
        let words = if *key == "speed" { format!("{words}/s") } else { words };
        text = text.replace(&format!("{{{key}}}"), &words);
    }
    let is_lasting = verb.ends == Ends::Lasts && !ENDS_ITSELF.contains(&verb.name);
    text + &lasts(scenario, step, is_lasting)
}

fn either(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn lasts(scenario: &Scenario, step: &Step, is_lasting: bool) -> String {
    match &step.lasts {
        Some(value) => format!(" for {}", value_words(scenario, value)),
        None if is_lasting && is_healed(scenario, step) => " until it is healed".to_owned(),
        None => String::new(),
    }
}

fn is_healed(scenario: &Scenario, step: &Step) -> bool {
    let heals = |other: &Step| matches!((&other.act, &step.id), (Act::Heal(label), Some(id)) if label == id);
    scenario.steps.iter().any(heals)
}

fn value_words(scenario: &Scenario, value: &Value) -> String {
    range_of(scenario, value).map_or_else(|| "some".to_owned(), |range| range.words())
}

fn range_of(scenario: &Scenario, value: &Value) -> Option<Range> {
    match value {
        Value::Given(range) => Some(*range),
        Value::Var(name) => match scenario.vary.get(name)? {
            Vary::Range(range) => Some(*range),
            Vary::Choice(_) => None,
        },
    }
}

/// Returns the time of a step as the begin of a sentence.
fn when(scenario: &Scenario, when: &When) -> String {
    let mut sum = Range { low: 0, high: 0, unit: Unit::Millis };
    for range in when.terms.iter().filter_map(|term| range_of(scenario, term)) {
        (sum.low, sum.high) = (sum.low + range.low, sum.high + range.high);
    }
    let gap = if sum.high == 0 { String::new() } else { sum.words() };
    match (&when.base, gap.as_str()) {
        (None, "") => "At once ".to_owned(),
        (None, gap) => format!("After {gap} "),
        (Some((label, true)), "") => format!("As \"{label}\" begins, "),
        (Some((label, true)), gap) => format!("{gap} after \"{label}\" began, "),
        (Some((label, false)), "") => format!("As \"{label}\" ends, "),
        (Some((label, false)), gap) => format!("{gap} after the end of \"{label}\", "),
    }
}

fn promises(scenario: &Scenario, out: &mut String) {
    let expect = &scenario.expect;
    for objective in &expect.objectives {
        wrapped(out, "  in figures     ", &objective.text);
    }
    let always = match expect.always.len() {
        count if count == ORACLES.len() => format!("all {count} oracles: {}", expect.always.join(", ")),
        _ => expect.always.join(", "),
    };
    wrapped(out, "  in every run   ", &always);
    let bound = Range {
        low: expect.converges_within as i64,
        high: expect.converges_within as i64,
        unit: Unit::Millis,
    };
    let is_lost = scenario.steps.iter().any(|step| match &step.act {
        Act::Verb(deeds) => deeds.iter().any(|deed| deed.verb.name == "site.lost"),
        _ => false,
    });
    if !is_lost {
        let words = format!("everything has converged {} after all faults are lifted", bound.words());
        wrapped(out, "  in the end     ", &words);
    }
    for promise in &expect.protected {
        wrapped(out, "  on the way     ", &promise.text);
    }
    if !expect.sometimes.is_empty() {
        let known = expect.sometimes.iter().filter(|mark| MARKS.contains(&mark.as_str()));
        let marks: Vec<&str> = known.map(String::as_str).collect();
        wrapped(out, "  in some seed   ", &marks.join(", "));
    }
}

/// Returns the sites of an estate in the order of the picture.
pub(super) fn sites() -> [&'static str; 2] {
    [SITES[0], SITES[1]]
}
