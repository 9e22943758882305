//! Weather: background faults that come and go through the whole story.

use super::codes::Code;
use super::keys::{GUST, WEATHER};
use super::problem::Problem;
use super::quantity::Unit;
use super::reader::Reader;
use super::targets::{self, Names};
use super::timeline::{bounds, chance};
use super::tree::{Node, Table};
use super::{Gust, Weather};
use std::collections::BTreeMap;

/// Shortest time between two faults: shorter is one fault that lasts.
const EVERY_MIN_MS: i64 = 100;

/// Faults that weather leaves to the timeline and the swarm: a directory that hangs while the vault may be out of reach
/// is beyond the fault budget if the machine dies as well, and weather knows nothing of the rest of the story.
const LEFT_OUT: &[&str] = &["files.hang"];

/// Reads a file of `weather/`.
pub(super) fn read(reader: &mut Reader, name: &str, root: &Node, names: &Names<'_>) -> Weather {
    let mut weather = Weather { name: name.to_owned(), ..Weather::default() };
    let Some(table) = reader.place(root, &WEATHER) else { return weather };
    super::read::required(reader, root.span, table, &WEATHER);
    super::read::format(reader, table);
    let title = table.get("title").and_then(|node| reader.text(node, "title"));
    weather.title = title.unwrap_or_default().to_owned();
    let items = table.get("faults").map(|node| reader.list(node, "faults")).unwrap_or_default();
    weather.gusts = items.iter().filter_map(|item| gust(reader, item, names)).collect();
    weather
}

fn gust(reader: &mut Reader, item: &Node, names: &Names<'_>) -> Option<Gust> {
    let table = reader.table(item, GUST.name)?;
    super::read::required(reader, item.span, table, &GUST);
    let node = table.get("fault")?;
    let text = reader.text(node, "fault")?;
    let mut verbs = targets::drawn_verbs(reader, node, text);
    verbs.retain(|verb| !LEFT_OUT.contains(&verb.name));
    if LEFT_OUT.contains(&text) {
        let problem = Problem::new(Code::BeyondBudget, node.span, format!("{text:?} cannot be weather"));
        reader.problem(problem.help("put it into the timeline"));
    }
    if verbs.is_empty() {
        return None;
    }
    let mut known = GUST.names();
    known.extend(verbs.iter().flat_map(|verb| verb.takes).map(|take| take.0));
    reader.only_keys(table, GUST.name, &known);
    let every = drawn(reader, table, "every", Unit::Millis);
    let lasts = drawn(reader, table, "for", Unit::Millis);
    if let (Some(every), Some(node)) = (every, table.get("every"))
        && every.low < EVERY_MIN_MS
    {
        reader.report(
            Code::OutOfBounds,
            node.span,
            format!("weather changes at most every {EVERY_MIN_MS} ms"),
        );
    }
    let deeds = targets::deeds(reader, item.span, table, &verbs, names);
    let mut amounts = BTreeMap::new();
    for (key, unit) in verbs.iter().flat_map(|verb| verb.takes) {
        amounts.extend(drawn(reader, table, key, *unit).map(|range| ((*key).to_owned(), range)));
    }
    let chance = chance(reader, table);
    Some(Gust { deeds, every: every?, lasts: lasts?, chance, amounts })
}

fn drawn(reader: &mut Reader, table: &Table, key: &str, unit: Unit) -> Option<super::Range> {
    let node = table.get(key)?;
    let range = reader.quantity(node, unit)?;
    bounds(reader, node.span, key, range);
    Some(range)
}
