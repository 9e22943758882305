//! The walker: from the tree of a scenario and its files to [`Scenario`]s, collecting every problem on the way.
//!
//! It never stops at the first problem. A missing or wrong value is reported once and replaced by a
//! default, so that what follows can be judged too; a scenario with any problem is never returned.

use super::codes::Code;
use super::files::{Library, Nothing, Sources};
use super::keys::{Place, SCENARIO, SEEDS};
use super::problem::{Problem, Problems, nearest};
use super::quantity::parse_range;
use super::reader::Reader;
use super::targets::{self, Names};
use super::tree::{Node, Span, Table, Val};
use super::verbs::Verb;
use super::{Estate, Scenario, SeedCounts, Vary, Weather, estate, expect, matrix, scaled, timeline, weather};
use std::collections::BTreeMap;

/// Most runs of one scenario that make sense.
const SEEDS_MAX: i64 = 1_000_000;

/// The version of the language.
const FORMAT: i64 = 1;

/// Reads one scenario that stands on its own. `path` is used in messages only; `name` becomes its name.
pub fn load(path: &str, name: &str, source: &str) -> Result<Scenario, Box<Problems>> {
    load_scenarios(path, name, source, &Nothing).map(|mut all| all.swap_remove(0))
}

/// Reads a scenario file and what it stands on: one scenario, or one for each combination of its matrix.
pub fn load_scenarios(
    path: &str,
    name: &str,
    source: &str,
    library: &dyn Library,
) -> Result<Vec<Scenario>, Box<Problems>> {
    let mut sources = Sources::new(library, path, source);
    let root = sources.scenario();
    let weather = root.table().and_then(|table| table.get("weather")).cloned();
    let weather = weather.and_then(|name| sources.weather(&name));
    let mut problems = std::mem::take(&mut sources.problems);
    let cells = matrix::cells(&root, &mut problems);
    let mut scenarios = Vec::new();
    for cell in cells {
        let mut reader = Reader::default();
        let name = format!("{name}{}", cell.suffix);
        scenarios.push(read_root(&mut reader, &name, &cell.root, weather.as_ref()));
        let new: Vec<Problem> =
            reader.problems.into_iter().filter(|problem| !problems.contains(problem)).collect();
        problems.extend(new);
    }
    finish(sources, problems, scenarios)
}

/// Reads a file of `estates/`.
pub fn load_estate(path: &str, source: &str, library: &dyn Library) -> Result<Estate, Box<Problems>> {
    let mut sources = Sources::new(library, path, source);
    let root = sources.estate();
    let mut reader = Reader { problems: std::mem::take(&mut sources.problems), ..Reader::default() };
    format(&mut reader, root.table().unwrap_or(&Table::default()));
    let estate = estate::read(&mut reader, Some(&root), estate::SAYS);
    finish(sources, reader.problems, estate)
}

/// Reads a file of `weather/`; it must fit the estate that a scenario has without a word.
pub fn load_weather(path: &str, name: &str, source: &str) -> Result<Weather, Box<Problems>> {
    let mut sources = Sources::new(&Nothing, path, source);
    let root = sources.scenario();
    let mut reader = Reader { problems: std::mem::take(&mut sources.problems), ..Reader::default() };
    let estate = estate::read(&mut reader, None, &[]);
    let none = BTreeMap::new();
    let weather = weather::read(&mut reader, name, &root, &Names::of(&estate, &none));
    finish(sources, reader.problems, weather)
}

fn finish<T>(sources: Sources<'_>, problems: Vec<Problem>, good: T) -> Result<T, Box<Problems>> {
    if problems.is_empty() {
        return Ok(good);
    }
    let mut list: Vec<Problem> = problems.into_iter().map(|problem| sources.with_reason(problem)).collect();
    list.sort_by_key(|problem| problem.span);
    Err(Box::new(Problems { files: sources.files, list }))
}

/// Tells whether a key is there under a name that is only nearly its own: that was reported already.
pub(super) fn is_misspelt(table: &Table, key: &str, known: &[&str]) -> bool {
    let mut unknown = table.iter().map(|(key, _)| key.name.as_str()).filter(|name| !known.contains(name));
    unknown.any(|name| nearest(name, known.iter().copied()) == Some(key))
}

/// Reports keys that must be there and are not, at the end of the file's first line.
pub(super) fn required(reader: &mut Reader, at: Span, table: &Table, place: &Place) {
    let known = place.names();
    for key in place.keys.iter().filter(|key| key.default.is_none()) {
        if table.get(key.name).is_none() && !is_misspelt(table, key.name, &known) {
            let what = format!("{} needs {:?}", place.name, key.name);
            let help = match key.takes {
                super::keys::Takes::Table(_) => format!("add the table [{}]", key.name),
                _ => format!("add: {} = {}", key.name, key.example),
            };
            reader.problem(Problem::new(Code::MissingKey, at, what).help(help));
        }
    }
}

/// Reports a format that this lab does not read.
pub(super) fn format(reader: &mut Reader, table: &Table) {
    if let Some(node) = table.get("format")
        && node.value != Val::Whole(FORMAT)
    {
        reader.report(Code::Format, node.span, format!("this lab reads format {FORMAT}"));
    }
}

fn read_root(reader: &mut Reader, name: &str, root: &Node, weather: Option<&Node>) -> Scenario {
    let empty = Table::default();
    let table = reader.place(root, &SCENARIO).unwrap_or(&empty);
    required(reader, root.span, table, &SCENARIO);
    format(reader, table);
    let mut text =
        |key: &str| table.get(key).and_then(|node| reader.text(node, key)).unwrap_or_default().to_owned();
    let (title, why) = (text("title"), text("why"));
    let [tags, lessons] = ["tags", "lessons"].map(|key| words(reader, table, key));
    let seeds = read_seeds(reader, table.get("seeds"));
    let estate = estate::read(reader, table.get("estate"), &[]);
    let groups = estate::groups(reader, table.get("protect"), &estate);
    let loads = estate::loads(reader, table.get("load"), &estate);
    scaled::check_loads(reader, table.get("estate"), &estate, &loads);
    let vary = read_vary(reader, table.get("vary"));
    let names = Names::of(&estate, &vary);
    let weather = weather.map(|node| {
        let name = table.get("weather").and_then(Node::text).unwrap_or_default();
        weather::read(reader, name, node, &names)
    });
    let timeline = table.get("timeline").map(|node| timeline::read(reader, node, &names));
    let timeline = timeline.unwrap_or_default();
    let swarm = read_swarm(reader, table.get("swarm"));
    let expect = expect::read(reader, table.get("expect"), &groups, &timeline);
    unused(reader, table.get("vary"));
    Scenario {
        name: name.to_owned(),
        title,
        why,
        tags,
        lessons,
        seeds,
        estate,
        groups,
        loads,
        vary,
        steps: timeline.steps,
        swarm,
        weather,
        expect,
    }
}

fn words(reader: &mut Reader, table: &Table, key: &str) -> Vec<String> {
    let words = table.get(key).map(|node| reader.texts(node, key)).unwrap_or_default();
    words.into_iter().map(|(_, word)| word.to_owned()).collect()
}

fn read_seeds(reader: &mut Reader, node: Option<&Node>) -> SeedCounts {
    let mut counts = SeedCounts { from: 1, is_fixed: false, pr: 4, nightly: 500 };
    let Some(table) = node.and_then(|node| reader.place(node, &SEEDS)) else { return counts };
    if let Some(from) = table.get("from").and_then(|node| reader.count(node, "from", 0..=i64::MAX)) {
        (counts.from, counts.is_fixed) = (from, true);
    }
    for (key, slot) in [("pr", &mut counts.pr), ("nightly", &mut counts.nightly)] {
        if let Some(count) = table.get(key).and_then(|node| reader.count(node, key, 1..=SEEDS_MAX)) {
            *slot = count;
        }
    }
    counts
}

fn read_swarm(reader: &mut Reader, node: Option<&Node>) -> Vec<&'static Verb> {
    let Some(node) = node else { return Vec::new() };
    if node.list().is_none() {
        return if reader.flag(node, "swarm") { targets::drawable("*") } else { Vec::new() };
    }
    let mut verbs: Vec<&'static Verb> = Vec::new();
    for (node, text) in reader.texts(node, "swarm") {
        verbs.extend(targets::drawn_verbs(reader, node, text));
    }
    verbs.sort_by_key(|verb| verb.name);
    verbs.dedup_by_key(|verb| verb.name);
    verbs
}

fn read_vary(reader: &mut Reader, node: Option<&Node>) -> BTreeMap<String, Vary> {
    let mut vary = BTreeMap::new();
    let Some(table) = node.and_then(|node| reader.table(node, "[vary]")) else { return vary };
    for (key, node) in table.iter() {
        match read_variable(reader, node) {
            Some(entry) => {
                vary.insert(key.name.clone(), entry);
            }
            // What refers to it is not to blame.
            None => {
                reader.broken.insert(key.name.clone());
            }
        }
    }
    vary
}

fn read_variable(reader: &mut Reader, node: &Node) -> Option<Vary> {
    if node.list().is_some() {
        let names: Vec<String> =
            reader.texts(node, "a choice").into_iter().map(|(_, name)| name.to_owned()).collect();
        if names.is_empty() {
            reader.report(Code::OutOfBounds, node.span, "a choice needs at least one name");
            return None;
        }
        return Some(Vary::Choice(names));
    }
    match parse_range(reader.text(node, "a variable")?) {
        Ok(range) => Some(Vary::Range(range)),
        Err(complaint) => {
            reader.complain(node.span, complaint);
            None
        }
    }
}

fn unused(reader: &mut Reader, vary: Option<&Node>) {
    let Some(table) = vary.and_then(Node::table) else { return };
    for (key, _) in table.iter() {
        if !reader.used.contains(&key.name) && !reader.broken.contains(&key.name) {
            let what = format!("the variable {:?} is drawn and never used", key.name);
            let help = format!("use it as \"${}\", or delete it", key.name);
            reader.problem(Problem::new(Code::UnusedVariable, key.span, what).help(help));
        }
    }
}
