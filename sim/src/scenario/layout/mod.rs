//! The canonical layout of scenario files: keys in the order of the key table, equals signs in one column, one
//! step a line with its time and its verb in columns, comments where they belong.
//!
//! What is laid out means the same: the result is read again and compared before anybody sees it. What is *not*
//! here: judging what a file says; a file with unknown keys is laid out as well.

mod comments;

use super::keys::{DAY, ESTATE, GROUP, GUST, MACHINE, Place, SCENARIO, SEEDS, SERVER, STEP, Takes, WEATHER};
use super::known::{KNOWN, KNOWN_FILE_KEYS};
use super::tree::{self, Key, Node, Table, Val};
use comments::{Around, Attached, Line};

/// Longest line of a list that is not broken.
const WIDTH: usize = 110;

/// Longest line for whose sake columns are kept.
const COLUMNS_WIDTH: usize = 130;

/// What kind of file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A scenario.
    Scenario,
    /// A file of `estates/`.
    Estate,
    /// A file of `weather/`.
    Weather,
    /// A file of known failures.
    Known,
}

/// Why a file is not laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It is no TOML.
    #[error("it is no TOML; `check` says where")]
    Syntax,
    /// The result would not mean the same: a mistake of the layout, which is told instead of made.
    #[error(
        "its layout would change what it says; that is a mistake of this tool, and the file stays as it is"
    )]
    Changed,
}

/// Lays a file out.
pub fn layout(source: &str, kind: FileKind) -> Result<String, LayoutError> {
    let (root, is_good) = parse(source);
    let Val::Table(table) = &root.value else { return Err(LayoutError::Syntax) };
    if !is_good {
        return Err(LayoutError::Syntax);
    }
    let place = match kind {
        FileKind::Scenario => &SCENARIO,
        FileKind::Estate => &ESTATE,
        FileKind::Weather => &WEATHER,
        FileKind::Known => &KNOWN_FILE_KEYS,
    };
    let (mut lines, mut lists) = (Vec::new(), Vec::new());
    spots(table, &mut lines, &mut lists);
    let writer = Writer { source, attached: Attached::new(source, &lines, &lists) };
    let text = writer.file(table, place);
    let (again, _) = parse(&text);
    let words = |source: &str| {
        let mut words: Vec<String> = comments::find(source).into_iter().map(|comment| comment.text).collect();
        words.sort();
        words
    };
    if same(&root, &again) && words(source) == words(&text) { Ok(text) } else { Err(LayoutError::Changed) }
}

fn parse(source: &str) -> (Node, bool) {
    let mut problems = Vec::new();
    let root = tree::parse(0, source, &mut problems);
    (root, problems.is_empty())
}

/// Tells whether two values are equal, wherever they stand.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Val::List(a), Val::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Val::Table(a), Val::Table(b)) => {
            let found = |(key, node): (&Key, &Node)| b.get(&key.name).is_some_and(|other| same(node, other));
            a.0.len() == b.0.len() && a.iter().all(found)
        }
        (a, b) => a == b,
    }
}

/// Tells whether each entry of a table of the root gets a header of its own.
fn is_named(key: &str) -> bool {
    let is_long = |place: &Place| std::ptr::eq(place, &GROUP) || std::ptr::eq(place, &KNOWN);
    let keys = SCENARIO.keys.iter().chain(KNOWN_FILE_KEYS.keys);
    keys.filter(|known| known.name == key)
        .any(|known| matches!(known.takes, Takes::Named(place) if is_long(place)))
}

/// Tells whether a table of the root gets a header.
fn is_section(key: &Key, node: &Node) -> bool {
    node.table().is_some() && key.name != "seeds"
}

/// Collects what may get a line of its own, and the lists whose items may.
fn spots(table: &Table, lines: &mut Vec<Line>, lists: &mut Vec<Line>) {
    for (key, node) in table.iter() {
        let start = key.span.start.min(node.span.start);
        lines.push(Line { start, end: node.span.end.max(key.span.end) });
        match &node.value {
            Val::Table(inner) if is_section(key, node) => spots(inner, lines, lists),
            Val::List(items) => {
                lists.push(Line { start: node.span.start, end: node.span.end });
                lines.extend(items.iter().map(|item| Line { start: item.span.start, end: item.span.end }));
            }
            _ => {}
        }
    }
    lines.sort_by_key(|line| line.start);
    lines.dedup_by_key(|line| line.start);
}

struct Writer<'a> {
    source: &'a str,
    attached: Attached,
}

impl Writer<'_> {
    fn file(&self, table: &Table, place: &Place) -> String {
        let entries = ordered(table, place);
        let (sections, plain): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(key, node)| is_section(key, node));
        let mut out = String::new();
        self.entries(&mut out, &plain);
        for (key, node) in sections {
            let Val::Table(inner) = &node.value else { continue };
            if is_named(&key.name) && inner.iter().all(|(_, node)| node.table().is_some()) {
                for (name, group) in inner.iter() {
                    let Val::Table(group_table) = &group.value else { continue };
                    let header = format!("{}.{}", self.key(key), self.key(name));
                    let starts = [key.span.start, name.span.start].map(|at| at.min(group.span.start));
                    self.section(&mut out, &header, starts, group_table, Some(&GROUP));
                }
                continue;
            }
            let below = place_of(place, &key.name);
            let start = key.span.start.min(node.span.start);
            self.section(&mut out, &self.key(key), [start, start], inner, below);
        }
        let tail = self.attached.tail(usize::MAX);
        if !tail.is_empty() {
            out.push('\n');
            tail.iter().for_each(|comment| push_line(&mut out, "", comment));
        }
        out
    }

    fn section(
        &self,
        out: &mut String,
        header: &str,
        starts: [usize; 2],
        table: &Table,
        place: Option<&Place>,
    ) {
        if !out.is_empty() {
            out.push('\n');
        }
        let mut around = self.attached.around(starts[0]);
        if starts[1] != starts[0] {
            let more = self.attached.around(starts[1]);
            around.before.extend(more.before);
            around.behind.extend(more.behind);
        }
        around.before.iter().for_each(|comment| push_line(out, "", comment));
        push_line(out, "", &with_behind(format!("[{header}]"), &around));
        let entries = match place {
            Some(place) => ordered(table, place),
            None => table.iter().collect(),
        };
        self.entries(out, &entries);
    }

    /// Writes keys with their values, the equals signs in one column.
    fn entries(&self, out: &mut String, entries: &[(&Key, &Node)]) {
        let width = entries.iter().map(|(key, _)| self.key(key).chars().count()).max().unwrap_or(0);
        for (number, (key, node)) in entries.iter().enumerate() {
            let around = self.attached.around(key.span.start.min(node.span.start));
            if around.is_apart && number > 0 {
                out.push('\n');
            }
            around.before.iter().for_each(|comment| push_line(out, "", comment));
            let head = format!("{:width$} = ", self.key(key));
            push_line(out, "", &with_behind(self.value(&head, key, node), &around));
        }
    }

    fn key(&self, key: &Key) -> String {
        let written = &self.source[key.span.start..key.span.end];
        if written.is_empty() { key.name.clone() } else { written.to_owned() }
    }

    /// Writes a value behind its key: on one line if it fits, else a list with one item a line.
    fn value(&self, head: &str, key: &Key, node: &Node) -> String {
        let Val::List(items) = &node.value else {
            return format!("{head}{}", self.inline(node, place_of_item(&key.name)));
        };
        let place = place_of_item(&key.name);
        let flat = format!("{head}{}", self.inline(node, place));
        let has_words = items.iter().any(|item| {
            let around = self.attached.around(item.span.start);
            !around.before.is_empty() || !around.behind.is_empty()
        });
        let tail = self.attached.tail(node.span.start);
        let is_story = ["steps", "also", "faults"].contains(&key.name.as_str()) && items.len() > 1;
        if flat.chars().count() <= WIDTH && !has_words && tail.is_empty() && !is_story {
            return flat;
        }
        let mut out = format!("{head}[\n");
        for (number, (item, text)) in items.iter().zip(self.items(items, place)).enumerate() {
            let around = self.attached.around(item.span.start);
            if around.is_apart && number > 0 {
                out.push('\n');
            }
            around.before.iter().for_each(|comment| push_line(&mut out, "  ", comment));
            push_line(&mut out, "  ", &with_behind(format!("{text},"), &around));
        }
        tail.iter().for_each(|comment| push_line(&mut out, "  ", comment));
        out.push(']');
        out
    }

    /// Writes the items of a list, steps with their time and their verb in columns.
    fn items(&self, items: &[Node], place: Option<&Place>) -> Vec<String> {
        let flat = || items.iter().map(|item| self.inline(item, place)).collect::<Vec<_>>();
        let is_story = place.is_some_and(|place| std::ptr::eq(place, &STEP) || std::ptr::eq(place, &GUST));
        if !is_story {
            return flat();
        }
        let rows: Vec<Vec<String>> = items.iter().map(|item| self.cells(item, place)).collect();
        let verbs = rows.iter().filter_map(|row| row.get(1)?.split_once(" = "));
        let verb = verbs.map(|(key, _)| key.len()).max().unwrap_or(0);
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| wide_verb(row, verb)).collect();
        let mut lines = vec![String::from("{ "); rows.len()];
        for column in 0..2 {
            let follows = |row: &&Vec<String>| row.len() > column + 1;
            let width = rows.iter().filter(follows).map(|row| row[column].chars().count()).max().unwrap_or(0);
            for (line, row) in lines.iter_mut().zip(&rows).filter(|(_, row)| row.len() > column) {
                match row.len() > column + 1 {
                    true => line.push_str(&format!("{:1$}", format!("{},", row[column]), width + 2)),
                    false => line.push_str(&row[column]),
                }
            }
        }
        for (line, row) in lines.iter_mut().zip(&rows) {
            line.push_str(&row.iter().skip(2).cloned().collect::<Vec<_>>().join(", "));
            line.push_str(" }");
        }
        if lines.iter().all(|line| line.chars().count() <= COLUMNS_WIDTH) { lines } else { flat() }
    }

    /// Returns the entries of a table, `key = value` each.
    fn cells(&self, node: &Node, place: Option<&Place>) -> Vec<String> {
        let Val::Table(table) = &node.value else { return vec![self.inline(node, place)] };
        let entries = match place {
            Some(place) => ordered(table, place),
            None => table.iter().collect(),
        };
        let cell = |(key, node): &(&Key, &Node)| {
            format!("{} = {}", self.key(key), self.inline(node, place_of_item(&key.name)))
        };
        entries.iter().map(cell).collect()
    }

    fn inline(&self, node: &Node, place: Option<&Place>) -> String {
        match &node.value {
            Val::Table(table) if table.0.is_empty() => "{}".to_owned(),
            Val::Table(_) => format!("{{ {} }}", self.cells(node, place).join(", ")),
            Val::List(items) => {
                let items: Vec<String> = items.iter().map(|item| self.inline(item, place)).collect();
                format!("[{}]", items.join(", "))
            }
            _ => self.source[node.span.start..node.span.end].to_owned(),
        }
    }
}

/// Pads the verb's key, so that what it does stands in a column.
fn wide_verb(mut row: Vec<String>, width: usize) -> Vec<String> {
    if let Some(cell) = row.get_mut(1)
        && let Some((key, value)) = cell.split_once(" = ")
    {
        *cell = format!("{key:width$} = {value}");
    }
    row
}

fn push_line(out: &mut String, indent: &str, line: &str) {
    out.push_str(indent);
    out.push_str(line);
    out.push('\n');
}

fn with_behind(text: String, around: &Around) -> String {
    match around.behind.is_empty() {
        true => text,
        false => format!("{text}  {}", around.behind.join("  ")),
    }
}

/// Returns entries in the order of a place; of others, quantities stand before `for`, the rest at the end.
fn ordered<'t>(table: &'t Table, place: &Place) -> Vec<(&'t Key, &'t Node)> {
    let names = place.names();
    let stranger = names.iter().position(|name| *name == "for").map_or(names.len() * 2, |at| at * 2 - 1);
    let rank = |key: &Key| names.iter().position(|name| *name == key.name).map_or(stranger, |at| at * 2);
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| rank(key));
    entries
}

/// Returns the place of a table of the root.
fn place_of(root: &Place, key: &str) -> Option<&'static Place> {
    root.keys.iter().find(|known| known.name == key).and_then(|key| match key.takes {
        Takes::Table(place) | Takes::FileOrTable(place) => Some(place),
        _ => None,
    })
}

/// Returns the place of a table in braces, or of each item of a list of them.
fn place_of_item(key: &str) -> Option<&'static Place> {
    match key {
        "steps" | "also" => Some(&STEP),
        "faults" => Some(&GUST),
        "machines" => Some(&MACHINE),
        "process-servers" => Some(&SERVER),
        "seeds" => Some(&SEEDS),
        "day" => Some(&DAY),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
