//! The timeline: steps, their labels, and their places in time.
//!
//! A time may refer to any other step; the steps come out in an order in which each time is known when it is
//! needed. What is *not* here: what a verb acts on (`targets`), and drawing.

use super::codes::Code;
use super::keys::{STEP, TIMELINE};
use super::problem::{Problem, advice};
use super::quantity::{Range, Unit, parse_range};
use super::read::is_misspelt;
use super::reader::Reader;
use super::targets::{self, Names, unknown_variable};
use super::tree::{Node, Span, Table};
use super::verbs::{ENDS_ITSELF, Ends, Verb};
use super::{Act, Deed, Step, Value, Vary, When};
use std::collections::BTreeMap;

/// What a timeline comes to.
#[derive(Default)]
pub(super) struct Timeline {
    pub(super) steps: Vec<Step>,
    /// Labels, for promises that refer to them.
    pub(super) labels: Vec<String>,
    /// Whether a site may be lost for good.
    pub(super) loses_site: bool,
    /// Whether it is measured how long a mount takes.
    pub(super) mounts: bool,
}

/// A label: where it stands, and what can be healed by it.
struct Label {
    span: Span,
    /// Number of the step among the items.
    item: usize,
}

/// What the walk through the steps needs.
struct Walk<'a> {
    names: &'a Names<'a>,
    labels: BTreeMap<String, Label>,
    /// For each item, the labels it waits for with the place that says so.
    waits: Vec<Vec<(String, Span)>>,
}

/// Reads `[timeline]`.
pub(super) fn read(reader: &mut Reader, node: &Node, names: &Names<'_>) -> Timeline {
    let Some(table) = reader.place(node, &TIMELINE) else { return Timeline::default() };
    if table.get("steps").is_none() {
        let help = "add steps = [{ at = \"60 s\", end = true }]";
        let problem = Problem::new(Code::MissingKey, node.span, "[timeline] needs \"steps\"");
        reader.problem(problem.help(help));
    }
    let mut items: Vec<&Node> = Vec::new();
    for key in ["steps", "also"] {
        items.extend(table.get(key).map(|node| reader.list(node, key)).unwrap_or_default());
    }
    let labels = labels(reader, &items);
    let mut walk = Walk { names, labels, waits: vec![Vec::new(); items.len()] };
    let steps: Vec<Option<Step>> =
        items.iter().enumerate().map(|(number, item)| walk.step(reader, number, item)).collect();
    walk.heals(reader, &items, &steps);
    ends(reader, node, &items, &steps);
    let order = walk.order(reader);
    let mut steps: Vec<Option<Step>> = steps;
    let steps: Vec<Step> = order.into_iter().filter_map(|number| steps[number].take()).collect();
    let does = |verb: (&str, &str)| {
        let is = |deed: &Deed| (deed.verb.key, deed.verb.name) == verb;
        steps.iter().any(|step| matches!(&step.act, Act::Verb(deeds) if deeds.iter().any(is)))
    };
    let (loses_site, mounts) = (does(("fault", "site.lost")), does(("check", "mounts")));
    Timeline { steps, labels: walk.labels.into_keys().collect(), loses_site, mounts }
}

/// Collects the labels of all steps; a second one of a name is told.
fn labels(reader: &mut Reader, items: &[&Node]) -> BTreeMap<String, Label> {
    let mut labels: BTreeMap<String, Label> = BTreeMap::new();
    for (item, node) in items.iter().enumerate() {
        let Some(id) = node.table().and_then(|table| table.get("id")) else { continue };
        let Some(text) = reader.text(id, "id") else { continue };
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || "+$.".contains(c)) {
            let what = format!("{text:?} cannot be used as a label: it would not be found again in a sum");
            reader.report(Code::NoTime, id.span, what);
        } else if let Some(first) = labels.get(text) {
            let what = format!("the label {text:?} is given twice");
            let problem = Problem::new(Code::Twice, id.span, what).note(first.span, "first given here");
            reader.problem(problem.help("give one of them another name"));
        } else {
            labels.insert(text.to_owned(), Label { span: id.span, item });
        }
    }
    labels
}

/// There is one end.
fn ends(reader: &mut Reader, node: &Node, items: &[&Node], steps: &[Option<Step>]) {
    let is_end = |number: &usize| matches!(&steps[*number], Some(Step { act: Act::End, .. }));
    let ends: Vec<usize> = (0..items.len()).filter(is_end).collect();
    // A step that could not be read may have been the end.
    let may_end = |node: &&Node| node.table().is_some_and(|table| table.get("end").is_some());
    if let [first, second, ..] = ends[..] {
        let problem = Problem::new(Code::NoEnd, items[second].span, "the story ends twice");
        reader.problem(problem.note(items[first].span, "it ends here"));
    } else if ends.is_empty() && !items.iter().any(may_end) {
        let problem = Problem::new(Code::NoEnd, node.span, "the timeline has no end");
        reader.problem(problem.help("add { at = \"60 s\", end = true }"));
    }
}

impl Walk<'_> {
    fn step(&mut self, reader: &mut Reader, number: usize, item: &Node) -> Option<Step> {
        let table = reader.table(item, "a step")?;
        let act = self.act(reader, number, item, table);
        let verbs: Vec<&'static Verb> = match &act {
            Some(Act::Verb(deeds)) => deeds.iter().map(|deed| deed.verb).collect(),
            _ => Vec::new(),
        };
        let mut known = STEP.names();
        known.extend(verbs.iter().flat_map(|verb| verb.takes).map(|take| take.0));
        if act.is_some() {
            reader.only_keys(table, STEP.name, &known);
        }
        let at = table.get("at").map(|node| self.when(reader, number, node));
        if at.is_none() && !(act.is_some() && is_misspelt(table, "at", &known)) {
            let problem = Problem::new(Code::MissingKey, item.span, "a step needs \"at\"");
            reader.problem(problem.help("write at = \"10 s\""));
        }
        let lasts = table.get("for").and_then(|node| lasts(reader, node, &verbs, self.names));
        let amounts = amounts(reader, item.span, table, &verbs, self.names);
        let chance = chance(reader, table);
        let id = table.get("id").and_then(Node::text).map(str::to_owned);
        Some(Step { at: at??, act: act?, lasts, chance, id, amounts })
    }

    fn act(&mut self, reader: &mut Reader, number: usize, item: &Node, table: &Table) -> Option<Act> {
        let keys = ["do", "fault", "heal", "check", "end"];
        let present: Vec<&str> = keys.into_iter().filter(|key| table.get(key).is_some()).collect();
        let [key] = present[..] else {
            let count = if present.is_empty() { "none".to_owned() } else { present.join(" and ") };
            let what = format!("a step has one of do, fault, heal, check, end; this one has {count}");
            let mut problem = Problem::new(Code::NotOneVerb, item.span, what);
            // A slip in the key itself is the usual reason.
            let mut known = STEP.names();
            known.extend(["rate", "speed", "count", "by"]);
            let strange = table.iter().find(|(key, _)| !known.contains(&key.name.as_str()));
            if let (true, Some((strange, _))) = (present.is_empty(), strange) {
                problem =
                    problem.note(strange.span, "nobody knows this key").help(advice(&strange.name, &keys));
            }
            reader.problem(problem);
            return None;
        };
        let node = table.get(key)?;
        match key {
            "end" => reader.flag(node, "end").then_some(Act::End),
            "heal" => {
                let text = reader.text(node, key)?;
                self.wait(reader, number, text, node.span);
                Some(Act::Heal(text.to_owned()))
            }
            _ => {
                let verbs = targets::verbs(reader, key, node);
                if verbs.is_empty() {
                    return None;
                }
                Some(Act::Verb(targets::deeds(reader, item.span, table, &verbs, self.names)))
            }
        }
    }

    /// Notes that a step waits for a label, if there is one of this name.
    fn wait(&mut self, reader: &mut Reader, number: usize, label: &str, span: Span) {
        if self.labels.contains_key(label) {
            self.waits[number].push((label.to_owned(), span));
            return;
        }
        let known: Vec<&str> = self.labels.keys().map(String::as_str).collect();
        let help = match known.is_empty() {
            true => format!("give the step that is meant id = {label:?}"),
            false => advice(label, &known),
        };
        let what = format!("no step has the label {label:?}");
        reader.problem(Problem::new(Code::UnknownLabel, span, what).help(help));
    }

    /// Reads `10 s`, `$cut`, `outage + 90 s`, `outage.start + $gap`.
    fn when(&mut self, reader: &mut Reader, number: usize, node: &Node) -> Option<When> {
        let text = reader.text(node, "at")?;
        let mut when = When { base: None, terms: Vec::new() };
        let told = reader.problems.len();
        for (index, part) in text.split('+').map(str::trim).enumerate() {
            let place = node.part(part);
            if let Some(name) = part.strip_prefix('$') {
                variable(reader, place, name, Unit::Millis, self.names);
                when.terms.push(Value::Var(name.to_owned()));
            } else if part.starts_with(|c: char| c.is_ascii_digit()) {
                match parse_range(part) {
                    Ok(range) if range.unit == Unit::Millis => when.terms.push(Value::Given(range)),
                    Ok(_) => {
                        let problem = Problem::new(Code::WrongUnit, place, format!("{part:?} is no time"));
                        reader.problem(problem.help(format!("this takes {}", Unit::Millis.words())));
                    }
                    Err(complaint) => reader.complain(place, complaint),
                }
            } else if index == 0 && !part.is_empty() {
                let (label, start) = part.strip_suffix(".start").map_or((part, false), |label| (label, true));
                self.wait(reader, number, label, node.part(label));
                when.base = Some((label.to_owned(), start));
            } else {
                let problem = Problem::new(Code::NoTime, place, format!("{part:?} is no time"));
                reader.problem(problem.help("a label stands first: \"label + 5 s\""));
            }
        }
        (reader.problems.len() == told).then_some(when)
    }

    /// What is healed must last, and not end by itself.
    fn heals(&self, reader: &mut Reader, items: &[&Node], steps: &[Option<Step>]) {
        for (number, step) in steps.iter().enumerate() {
            let Some(Step { act: Act::Heal(label), .. }) = step else { continue };
            let Some(place) = self.labels.get(label) else { continue };
            let Some(Some(healed)) = steps.get(place.item) else { continue };
            let heals = |deed: &Deed| deed.verb.ends == Ends::Lasts && !ENDS_ITSELF.contains(&deed.verb.name);
            if !matches!(&healed.act, Act::Verb(deeds) if deeds.iter().any(heals)) {
                let span = items[number].table().and_then(|table| table.get("heal")).map(|node| node.span);
                let what = format!("{label:?} needs no healing");
                let problem = Problem::new(Code::NothingLasts, span.unwrap_or(items[number].span), what);
                let help = "only a fault that lasts until somebody ends it can be healed";
                reader.problem(problem.note(place.span, "over at once, or by itself").help(help));
            }
        }
    }

    /// Returns the steps in an order in which each comes after those it waits for; a circle is told once.
    fn order(&self, reader: &mut Reader) -> Vec<usize> {
        let mut order = Vec::new();
        let mut left: Vec<usize> = (0..self.waits.len()).collect();
        while !left.is_empty() {
            let is_known = |label: &String| self.labels.get(label).is_none_or(|l| order.contains(&l.item));
            let next = left.iter().position(|number| self.waits[*number].iter().all(|(l, _)| is_known(l)));
            let Some(next) = next else {
                self.circle(reader, left[0], &order);
                return Vec::new();
            };
            order.push(left.remove(next));
        }
        order
    }

    fn circle(&self, reader: &mut Reader, from: usize, known: &[usize]) {
        let next = |number: usize| {
            let open = self.waits[number].iter().find(|(label, _)| !known.contains(&self.labels[label].item));
            open.map(|(label, span)| (label, *span, self.labels[label].item))
        };
        // After as many steps as there are, whoever follows the waits is inside the circle.
        let mut at = from;
        for _ in 0..self.waits.len() {
            at = next(at).map_or(at, |(_, _, to)| to);
        }
        let (first, mut ways) = (at, Vec::new());
        while let Some((label, span, to)) = next(at) {
            ways.push((label.clone(), span));
            at = to;
            if at == first {
                break;
            }
        }
        ways.sort_by_key(|(_, span)| *span);
        let Some((label, span)) = ways.first() else { return };
        let mut problem = Problem::new(Code::Circle, *span, "these steps wait for each other");
        for (other, place) in &ways[1..] {
            problem = problem.note(*place, format!("waits for {other:?}"));
        }
        let help = format!("give {label:?} a time that refers to no step of the circle");
        reader.problem(problem.help(help));
    }
}

fn lasts(reader: &mut Reader, node: &Node, verbs: &[&'static Verb], names: &Names<'_>) -> Option<Value> {
    if !verbs.is_empty() && verbs.iter().all(|verb| verb.ends == Ends::AtOnce) {
        let problem = Problem::new(Code::NothingLasts, node.span, "this is over at once");
        reader.problem(problem.help("leave \"for\" out"));
        return None;
    }
    value(reader, node, "for", Unit::Millis, names)
}

/// Reads `chance`, in parts per million.
pub(super) fn chance(reader: &mut Reader, table: &Table) -> u32 {
    let always = 1_000_000;
    let Some(node) = table.get("chance") else { return always };
    let Some(share) = reader.amount(node, Unit::Ppm, 0) else { return always };
    bounds(reader, node.span, "chance", Range { low: share, high: share, unit: Unit::Ppm });
    share.clamp(0, 1_000_000) as u32
}

/// Reads the quantities of a step; with several verbs, what is not given is drawn.
fn amounts(
    reader: &mut Reader,
    at: Span,
    table: &Table,
    verbs: &[&'static Verb],
    names: &Names<'_>,
) -> BTreeMap<String, Value> {
    let mut amounts = BTreeMap::new();
    let mut takes: Vec<&(&str, Unit)> = verbs.iter().flat_map(|verb| verb.takes).collect();
    takes.dedup();
    for (key, unit) in takes {
        match table.get(key) {
            Some(node) => {
                let value = value(reader, node, key, *unit, names);
                amounts.extend(value.map(|value| ((*key).to_owned(), value)));
            }
            None if verbs.len() > 1 => {}
            None => {
                let problem = Problem::new(Code::MissingAmount, at, format!("this step needs {key:?}"));
                reader.problem(problem.help(format!("add {key}: {}", unit.words())));
            }
        }
    }
    amounts
}

fn value(reader: &mut Reader, node: &Node, key: &str, unit: Unit, names: &Names<'_>) -> Option<Value> {
    if let Some(name) = node.text().and_then(|text| text.strip_prefix('$')) {
        let range = variable(reader, node.span, name, unit, names);
        range.into_iter().for_each(|range| bounds(reader, node.span, key, range));
        return Some(Value::Var(name.to_owned()));
    }
    let range = reader.quantity(node, unit)?;
    bounds(reader, node.span, key, range);
    Some(Value::Given(range))
}

/// Reports a quantity that makes no sense for its key.
pub(super) fn bounds(reader: &mut Reader, span: Span, key: &str, range: Range) {
    let (least, most, words) = match key {
        "rate" | "chance" => (0, 1_000_000, "a share lies between 0 % and 100 %"),
        "by" => return,
        "for" => (1, i64::MAX, "a fault lasts at least 1 ms"),
        _ => (1, i64::MAX, "this is at least 1"),
    };
    if range.low < least || range.high > most {
        reader.report(Code::OutOfBounds, span, format!("{range} is out of bounds: {words}"));
    }
}

/// Looks up a variable and insists on its unit.
fn variable(reader: &mut Reader, span: Span, name: &str, unit: Unit, names: &Names<'_>) -> Option<Range> {
    reader.used.insert(name.to_owned());
    match names.vary.get(name) {
        Some(Vary::Range(range)) if range.unit == unit => return Some(*range),
        Some(_) => {
            let problem = Problem::new(Code::WrongVariable, span, format!("${name} does not fit here"));
            reader.problem(problem.help(format!("this takes {}", unit.words())));
        }
        None => unknown_variable(reader, span, name, names),
    }
    None
}
