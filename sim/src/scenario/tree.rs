//! A spanned tree of values that may come from several files: what the walker reads.
//!
//! TOML's own tree borrows one source text. Here every value knows its file and its place in it, so that a
//! scenario can be put together from several files and an error still stands under the text that caused it.
//!
//! What is *not* here: what any key means.

use super::codes::Code;
use super::problem::Problem;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A place in a file: bytes `start..end` of the file with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Which of the files that were read.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// Byte behind the last one.
    pub end: usize,
}

impl Span {
    /// The place of what stands in no file.
    pub(super) const NOWHERE: Span = Span { file: usize::MAX, start: 0, end: 0 };
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Val,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Val {
    Text(String),
    Whole(i64),
    Bool(bool),
    List(Vec<Node>),
    Table(Table),
    /// A kind of value that no key takes.
    Other(&'static str),
}

/// A key and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) span: Span,
}

/// Keys and values in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table(pub(super) Vec<(Key, Node)>);

impl Table {
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<(Key, Node)> {
        let at = self.0.iter().position(|(key, _)| key.name == name)?;
        Some(self.0.remove(at))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Node)> {
        self.0.iter().map(|(key, node)| (key, node))
    }
}

impl Node {
    /// Names its type, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Val::Text(_) => "a string",
            Val::Whole(_) => "a whole number",
            Val::Bool(_) => "true or false",
            Val::List(_) => "a list",
            Val::Table(_) => "a table",
            Val::Other(kind) => kind,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Val::Text(text) = &self.value { Some(text) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Node]> {
        if let Val::List(items) = &self.value { Some(items) } else { None }
    }

    pub(super) fn table(&self) -> Option<&Table> {
        if let Val::Table(table) = &self.value { Some(table) } else { None }
    }

    /// Returns the place of a part of its text; of all of it if the text is written with escapes.
    pub(super) fn part(&self, part: &str) -> Span {
        let Some(text) = self.text() else { return self.span };
        let at = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let is_inside = at <= text.len() && at + part.len() <= text.len();
        if !is_inside || part.is_empty() || self.span.end - self.span.start != text.len() + 2 {
            return self.span;
        }
        let start = self.span.start + 1 + at;
        Span { file: self.span.file, start, end: start + part.len() }
    }
}

/// Reads a file's text; what TOML refuses becomes problems, and the rest is read all the same.
pub(super) fn parse(file: usize, source: &str, problems: &mut Vec<Problem>) -> Node {
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        let range = error.span().unwrap_or(0..0);
        let span = Span { file, start: range.start, end: range.end };
        problems.push(Problem::new(Code::Syntax, span, format!("this is no TOML: {}", error.message())));
    }
    Node { span: Span { file, start: 0, end: 0 }, value: Val::Table(table(file, root.get_ref())) }
}

fn table(file: usize, table: &DeTable<'_>) -> Table {
    let mut entries: Vec<(Key, Node)> = table
        .iter()
        .map(|(key, value)| {
            let span = Span { file, start: key.span().start, end: key.span().end };
            (Key { name: key.get_ref().to_string(), span }, node(file, value))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.span);
    Table(entries)
}

fn node(file: usize, value: &Spanned<DeValue<'_>>) -> Node {
    let span = Span { file, start: value.span().start, end: value.span().end };
    let value = match value.get_ref() {
        DeValue::String(text) => Val::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Val::Whole(number),
            Err(_) => Val::Other("a number beyond 64 bits"),
        },
        DeValue::Boolean(value) => Val::Bool(*value),
        DeValue::Array(items) => Val::List(items.iter().map(|item| node(file, item)).collect()),
        DeValue::Table(entries) => Val::Table(self::table(file, entries)),
        DeValue::Float(_) => Val::Other("a number with a point"),
        DeValue::Datetime(_) => Val::Other("a date"),
    };
    Node { span, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_has_its_own_place_unless_the_text_is_written_with_escapes() {
        let mut problems = Vec::new();
        let root = parse(3, "at = \"cut + 5 s\"\nto = \"a\\tb\"", &mut problems);
        let root = root.table().unwrap();
        let at = root.get("at").unwrap();
        let part = &at.text().unwrap()[6..];
        assert_eq!(at.part(part), Span { file: 3, start: 12, end: 15 });
        let escaped = root.get("to").unwrap();
        assert_eq!(escaped.part(&escaped.text().unwrap()[2..]), escaped.span);
        assert_eq!(problems, []);
    }
}
