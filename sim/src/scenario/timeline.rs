//! The timeline: steps, their places in time and the names they act on.

use super::problem::advice;
use super::quantity::{Unit, parse_range};

use super::read::{Reader, get};
use super::verbs::{COMMON, Ends, Target, VERBS, Verb};
use super::{Act, Estate, Step, Value, Vary, When};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a timeline may refer to.
struct Names<'a> {
    machines: Vec<&'a str>,
    servers: Vec<&'a str>,
    hosts: Vec<&'a str>,
    vary: &'a BTreeMap<String, Vary>,
    labels: Vec<String>,
}

/// Reads `[timeline]`.
pub(super) fn read(
    reader: &mut Reader,
    value: &Spanned<DeValue<'_>>,
    estate: &Estate,
    vary: &BTreeMap<String, Vary>,
) -> Vec<Step> {
    let Some(table) = reader.table(value, "timeline") else { return Vec::new() };
    reader.only_keys(table, "[timeline]", &["steps"]);
    let Some(items) = get(table, "steps").and_then(|steps| steps.get_ref().as_array()) else {
        reader.problem(value.span(), "[timeline] needs steps = [ .. ]", None);
        return Vec::new();
    };
    let machines: Vec<&str> = estate.machines.iter().map(|machine| machine.name.as_str()).collect();
    let servers: Vec<&str> = estate.servers.iter().map(|server| server.name.as_str()).collect();
    let hosts = [machines.clone(), servers.clone()].concat();
    let mut names = Names { machines, servers, hosts, vary, labels: Vec::new() };
    let mut steps = Vec::new();
    for item in items.iter() {
        let Some(table) = reader.table(item, "a step") else { continue };
        let Some(step) = read_step(reader, item, table, &names) else { continue };
        names.labels.extend(step.id.clone());
        steps.push(step);
    }
    if !steps.iter().any(|step: &Step| matches!(step.act, Act::End)) {
        let help = "add { at = \"60 s\", end = true }".to_owned();
        reader.problem(value.span(), "the timeline has no end", Some(help));
    }
    steps
}

fn read_step(
    reader: &mut Reader,
    item: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    names: &Names<'_>,
) -> Option<Step> {
    let act = read_act(reader, item, table, names)?;
    let verb = if let Act::Verb(verb) = act { Some(verb) } else { None };
    let mut known = COMMON.to_vec();
    known.extend(verb.into_iter().flat_map(|verb| verb.takes).map(|take| take.0));
    reader.only_keys(table, "this step", &known);
    let at = match get(table, "at") {
        Some(value) => read_when(reader, value, names)?,
        None => {
            reader.problem(item.span(), "a step needs \"at\"", None);
            return None;
        }
    };
    let mut lasts = None;
    if let Some(value) = get(table, "for") {
        lasts = read_value(reader, value, Unit::Millis, names);
        if verb.is_some_and(|verb| verb.ends == Ends::AtOnce) {
            reader.problem(value.span(), "this happens at once; \"for\" has no meaning here", None);
        }
    }
    let mut amounts = BTreeMap::new();
    for (key, unit) in verb.into_iter().flat_map(|verb| verb.takes) {
        match get(table, key) {
            Some(value) => {
                amounts
                    .extend(read_value(reader, value, *unit, names).map(|value| ((*key).to_owned(), value)));
            }
            None => reader.problem(item.span(), format!("this step needs {key:?}"), None),
        }
    }
    let on = verb.map_or(String::new(), |verb| read_target(reader, item, table, verb, names));
    let id = get(table, "id").and_then(|value| reader.text(value, "id"));
    Some(Step { at, act, on, lasts, id, amounts })
}

fn read_act(
    reader: &mut Reader,
    item: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    names: &Names<'_>,
) -> Option<Act> {
    let keys = ["do", "fault", "heal", "check", "end"];
    let present: Vec<&str> = keys.into_iter().filter(|key| get(table, key).is_some()).collect();
    let [key] = present[..] else {
        let what =
            format!("a step has exactly one of do, fault, heal, check, end; this one has {}", present.len());
        reader.problem(item.span(), what, None);
        return None;
    };
    let value = get(table, key)?;
    if key == "end" {
        return Some(Act::End);
    }
    let text = reader.text(value, key)?;
    if key == "heal" {
        let labels: Vec<&str> = names.labels.iter().map(String::as_str).collect();
        if !labels.contains(&text.as_str()) {
            let what = format!("no earlier step has the id {text:?}");
            reader.problem(value.span(), what, Some(advice(&text, &labels)));
        }
        return Some(Act::Heal(text));
    }
    let found = VERBS.iter().find(|verb| verb.key == key && verb.name == text);
    if found.is_none() {
        let known: Vec<&str> = VERBS.iter().filter(|verb| verb.key == key).map(|verb| verb.name).collect();
        reader.problem(value.span(), format!("unknown {key} {text:?}"), Some(advice(&text, &known)));
    }
    found.map(Act::Verb)
}

fn read_target(
    reader: &mut Reader,
    item: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
    verb: &Verb,
    names: &Names<'_>,
) -> String {
    let Some(value) = get(table, "on") else {
        if verb.target != Target::None {
            reader.problem(item.span(), format!("{:?} needs \"on\"", verb.name), None);
        }
        return String::new();
    };
    let Some(text) = reader.text(value, "on") else { return String::new() };
    let sites = ["source", "target"];
    let known: Vec<&str> = match verb.target {
        Target::None => Vec::new(),
        Target::Host => names.hosts.clone(),
        Target::Machine => names.machines.clone(),
        Target::Server => names.servers.clone(),
        Target::Site => sites.to_vec(),
        Target::Link => names.hosts.iter().copied().chain(sites).collect(),
    };
    let parts: Vec<String> = match text.strip_prefix('$') {
        Some(name) => match names.vary.get(name) {
            Some(Vary::Choice(choices)) => choices.clone(),
            _ => {
                let what = format!("{text:?} must be a choice of [vary], such as [\"erp-db\", \"ps1\"]");
                reader.problem(value.span(), what, None);
                return text;
            }
        },
        None => vec![text.clone()],
    };
    for part in parts {
        let ends: Vec<&str> = if verb.target == Target::Link && part == "wan" {
            Vec::new()
        } else if verb.target == Target::Link {
            part.split("<->").flat_map(|side| side.split("->")).collect()
        } else {
            vec![part.as_str()]
        };
        for end in ends {
            if !known.contains(&end) {
                let what = format!("{end:?} is nothing that {:?} can act on", verb.name);
                reader.problem(value.span(), what, Some(advice(end, &known)));
            }
        }
    }
    text
}

fn read_value(
    reader: &mut Reader,
    value: &Spanned<DeValue<'_>>,
    unit: Unit,
    names: &Names<'_>,
) -> Option<Value> {
    if let DeValue::String(text) = value.get_ref()
        && let Some(name) = text.strip_prefix('$')
    {
        check_var(reader, value, name, unit, names);
        return Some(Value::Var(name.to_owned()));
    }
    reader.quantity(value, unit).map(Value::Given)
}

fn check_var(reader: &mut Reader, value: &Spanned<DeValue<'_>>, name: &str, unit: Unit, names: &Names<'_>) {
    match names.vary.get(name) {
        Some(Vary::Range(range)) if range.unit == unit => {}
        Some(_) => {
            reader.problem(value.span(), format!("the variable {name:?} has the wrong unit here"), None)
        }
        None => {
            let known: Vec<&str> = names.vary.keys().map(String::as_str).collect();
            reader.problem(
                value.span(),
                format!("no variable is called {name:?}"),
                Some(advice(name, &known)),
            );
        }
    }
}

/// Reads `10 s`, `$cut`, `outage + 90 s`, `outage.start + $gap`.
fn read_when(reader: &mut Reader, value: &Spanned<DeValue<'_>>, names: &Names<'_>) -> Option<When> {
    let text = reader.text(value, "at")?;
    let mut when = When { base: None, terms: Vec::new() };
    for (index, part) in text.split('+').map(str::trim).enumerate() {
        if let Some(name) = part.strip_prefix('$') {
            check_var(reader, value, name, Unit::Millis, names);
            when.terms.push(Value::Var(name.to_owned()));
        } else if part.starts_with(|c: char| c.is_ascii_digit()) {
            match parse_range(part) {
                Ok(range) if range.unit == Unit::Millis => when.terms.push(Value::Given(range)),
                Ok(_) => reader.problem(value.span(), format!("{part:?} is no time"), None),
                Err(what) => reader.problem(value.span(), what, None),
            }
        } else if index == 0 {
            let (label, start) = part.strip_suffix(".start").map_or((part, false), |label| (label, true));
            let labels: Vec<&str> = names.labels.iter().map(String::as_str).collect();
            if !labels.contains(&label) {
                let what = format!("no earlier step has the id {label:?}");
                reader.problem(value.span(), what, Some(advice(label, &labels)));
            }
            when.base = Some((label.to_owned(), start));
        } else {
            reader.problem(value.span(), format!("{part:?} is no time; write \"label + 5 s\""), None);
        }
    }
    Some(when)
}
