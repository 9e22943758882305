//! Which verb a step means, and on what it acts: names, patterns, links, choices.
//!
//! A pattern stands for whatever it matches, of which the plan draws one. It never stands for what ends a story
//! or needs one before it (`verbs::NEVER_DRAWN`): such faults are called by their names.

use super::codes::Code;
use super::keys::{SITES, VERBS_LATER};
use super::problem::{Problem, advice};
use super::reader::{Reader, is_pattern, matches};
use super::tree::{Node, Span, Table};
use super::verbs::{NEVER_DRAWN, Target, VERBS, Verb};
use super::{Deed, Estate, On, Vary};
use std::collections::BTreeMap;

/// What steps may refer to.
pub(super) struct Names<'a> {
    pub(super) machines: Vec<&'a str>,
    pub(super) servers: Vec<&'a str>,
    pub(super) vary: &'a BTreeMap<String, Vary>,
}

impl<'a> Names<'a> {
    pub(super) fn of(estate: &'a Estate, vary: &'a BTreeMap<String, Vary>) -> Names<'a> {
        let machines = estate.machines.iter().map(|machine| machine.name.as_str()).collect();
        let servers = estate.servers.iter().map(|server| server.name.as_str()).collect();
        Names { machines, servers, vary }
    }

    /// Returns everything that a verb can act on; of links their ends.
    fn known(&self, target: Target) -> Vec<&'a str> {
        let hosts = || [self.machines.clone(), self.servers.clone()].concat();
        match target {
            Target::None => Vec::new(),
            Target::Host => hosts(),
            Target::Machine => self.machines.clone(),
            Target::Server => self.servers.clone(),
            Target::Site => SITES.to_vec(),
            Target::Link => hosts().into_iter().chain(SITES.iter().copied()).collect(),
        }
    }

    /// Returns what a pattern or a missing name may stand for.
    fn all(&self, target: Target) -> Vec<String> {
        if target == Target::Link {
            return ["wan", "source->target", "target->source"].map(str::to_owned).to_vec();
        }
        self.known(target).into_iter().map(str::to_owned).collect()
    }
}

/// Returns the faults that a pattern may stand for.
pub(super) fn drawable(pattern: &str) -> Vec<&'static Verb> {
    let drawn = |verb: &&Verb| verb.key == "fault" && !verb.is_damage() && !NEVER_DRAWN.contains(&verb.name);
    VERBS.iter().filter(drawn).filter(|verb| matches(pattern, verb.name)).collect()
}

/// Reads a name or a pattern of faults that are drawn; what may never be drawn is refused.
pub(super) fn drawn_verbs(reader: &mut Reader, node: &Node, text: &str) -> Vec<&'static Verb> {
    let found = drawable(text);
    if found.is_empty() {
        let known: Vec<&str> = drawable("*").iter().map(|verb| verb.name).collect();
        let is_beyond = VERBS.iter().any(|verb| verb.key == "fault" && matches(text, verb.name));
        let problem = match (is_pattern(text), is_beyond) {
            (_, true) => {
                let what = format!("{text:?} is never drawn: it ends a story, or needs one before it");
                Problem::new(Code::BeyondBudget, node.span, what).help("put it into the timeline")
            }
            (true, false) => {
                Problem::new(Code::NothingMatches, node.span, format!("no fault matches {text:?}"))
                    .help(format!("known here: {}", known.join(", ")))
            }
            (false, false) => Problem::new(Code::UnknownVerb, node.span, format!("unknown fault {text:?}"))
                .help(advice(text, &known)),
        };
        reader.problem(problem);
    }
    found
}

/// Reads the verb of a step; several if a pattern matches several.
pub(super) fn verbs(reader: &mut Reader, key: &str, node: &Node) -> Vec<&'static Verb> {
    let Some(text) = reader.text(node, key) else { return Vec::new() };
    if let Some(verb) = VERBS.iter().find(|verb| verb.key == key && verb.name == text) {
        return vec![verb];
    }
    if key == "fault" && is_pattern(text) {
        return drawn_verbs(reader, node, text);
    }
    if key == "do" && VERBS_LATER.contains(&text) {
        let what = format!("{text:?} is not there yet");
        let help = "the lab cannot fail machines over yet; what it can do stands in sim/docs/scenarios.md";
        reader.problem(Problem::new(Code::NotYet, node.span, what).help(help));
        return Vec::new();
    }
    let known: Vec<&str> = VERBS.iter().filter(|verb| verb.key == key).map(|verb| verb.name).collect();
    reader.unknown(Code::UnknownVerb, node.span, format!("unknown {key} {text:?}"), text, &known);
    Vec::new()
}

/// Reads `on` for one or several verbs. `at` is the place of the whole step.
pub(super) fn deeds(
    reader: &mut Reader,
    at: Span,
    table: &Table,
    verbs: &[&'static Verb],
    names: &Names<'_>,
) -> Vec<Deed> {
    let Some(node) = table.get("on") else {
        let is_drawn = verbs.len() > 1;
        if let [verb] = verbs
            && verb.target != Target::None
        {
            let known = names.all(verb.target);
            let what = format!("{:?} needs \"on\"", verb.name);
            let help = format!("known here: {}", known.join(", "));
            reader.problem(Problem::new(Code::MissingKey, at, what).help(help));
        }
        let all = |verb: &'static Verb| Deed {
            verb,
            on: On::Names(if is_drawn { names.all(verb.target) } else { Vec::new() }),
        };
        return verbs.iter().map(|verb| all(verb)).collect();
    };
    let Some(text) = reader.text(node, "on") else { return Vec::new() };
    if let Some(name) = text.strip_prefix('$') {
        return choice(reader, node, name, verbs, names);
    }
    let mut deeds = Vec::new();
    for verb in verbs {
        let found = if is_pattern(text) { pattern(text, verb.target, names) } else { vec![text.to_owned()] };
        // What acts on nothing needs no name, even if the others of the pattern do.
        let is_nothing = verb.target == Target::None && verbs.len() > 1;
        deeds.push(Deed { verb, on: On::Names(if is_nothing { Vec::new() } else { found }) });
    }
    judge(reader, node, text, &mut deeds, names);
    deeds
}

fn pattern(text: &str, target: Target, names: &Names<'_>) -> Vec<String> {
    names.all(target).into_iter().filter(|name| matches(text, name)).collect()
}

/// Reports names that a verb cannot act on; of several verbs, those that can are left.
fn judge(reader: &mut Reader, node: &Node, text: &str, deeds: &mut Vec<Deed>, names: &Names<'_>) {
    let problem = deeds.iter().find_map(|deed| wrong(node, text, deed, names));
    deeds.retain(|deed| wrong(node, text, deed, names).is_none());
    if let Some(problem) = problem
        && deeds.is_empty()
    {
        reader.problem(problem);
    }
}

fn wrong(node: &Node, text: &str, deed: &Deed, names: &Names<'_>) -> Option<Problem> {
    let On::Names(on) = &deed.on else { return None };
    let (verb, known) = (deed.verb, names.known(deed.verb.target));
    if on.is_empty() && is_pattern(text) {
        let what = format!("nothing that {:?} can act on matches {text:?}", verb.name);
        let help = format!("known here: {}", names.all(verb.target).join(", "));
        return Some(Problem::new(Code::NothingMatches, node.span, what).help(help));
    }
    if is_pattern(text) {
        return None;
    }
    on.iter().find_map(|name| stray(name, verb, &known)).map(|stray| {
        let place = text.find(stray).map_or(node.span, |at| node.part(&text[at..at + stray.len()]));
        let what = match verb.target {
            Target::None => format!("{:?} acts on nothing, so it takes no \"on\"", verb.name),
            _ => format!("{stray:?} is nothing that {:?} can act on", verb.name),
        };
        let problem = Problem::new(Code::UnknownTarget, place, what);
        let known = if verb.target == Target::Link { [known, vec!["wan"]].concat() } else { known };
        if known.is_empty() { problem } else { problem.help(advice(stray, &known)) }
    })
}

/// Returns the part of a target that is not known.
fn stray<'n>(name: &'n str, verb: &Verb, known: &[&str]) -> Option<&'n str> {
    if verb.target != Target::Link {
        return (!known.contains(&name)).then_some(name);
    }
    if name == "wan" {
        return None;
    }
    let mut ends = name.split("<->").flat_map(|side| side.split("->"));
    ends.find(|end| !known.contains(end))
}

/// Reads an `on` that is a choice of `[vary]`.
fn choice(
    reader: &mut Reader,
    node: &Node,
    name: &str,
    verbs: &[&'static Verb],
    names: &Names<'_>,
) -> Vec<Deed> {
    reader.used.insert(name.to_owned());
    let all = |on: On| verbs.iter().map(|verb| Deed { verb, on: on.clone() }).collect::<Vec<_>>();
    match names.vary.get(name) {
        Some(Vary::Choice(choices)) => {
            for choice in choices {
                let mut deeds = all(On::Names(vec![choice.clone()]));
                judge(reader, node, choice, &mut deeds, names);
            }
        }
        Some(Vary::Range(_)) => {
            let what = format!("${name} is a quantity, and \"on\" takes a name");
            let help = "a choice of names is a list: [\"erp-db\", \"ps1\"]";
            reader.problem(Problem::new(Code::WrongVariable, node.span, what).help(help));
        }
        None => unknown_variable(reader, node.span, name, names),
    }
    all(On::Var(name.to_owned()))
}

/// Reports a variable that is not there; one that is there and wrong was reported already.
pub(super) fn unknown_variable(reader: &mut Reader, span: Span, name: &str, names: &Names<'_>) {
    if reader.broken.contains(name) {
        return;
    }
    let broken = reader.broken.iter();
    let known: Vec<&str> = names.vary.keys().chain(broken).map(String::as_str).collect();
    let help = if known.is_empty() {
        format!("add the table [vary] with {name} = \"2..5 s\"")
    } else {
        advice(name, &known)
    };
    let what = format!("no variable is called {name:?}");
    reader.problem(Problem::new(Code::UnknownVariable, span, what).help(help));
}
