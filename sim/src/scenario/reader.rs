//! The reader's tools: each takes a node, reports what is wrong with it, and goes on.

use super::codes::Code;
use super::keys::Place;
use super::problem::{Problem, advice};
use super::quantity::{Complaint, Range as Quantity, Unit, parse_in};
use super::tree::{Node, Span, Table, Val};
use std::collections::BTreeSet;

/// Collects problems, and what was used.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    /// Variables that something refers to.
    pub(super) used: BTreeSet<String>,
    /// Variables that are there, and wrong.
    pub(super) broken: BTreeSet<String>,
    /// Some group promises an `rpo` that cannot be read.
    pub(super) is_rpo_broken: bool,
}

/// Texts of a list, each with its place.
pub(super) type Places<'a> = Vec<(&'a Node, &'a str)>;

impl Reader {
    pub(super) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub(super) fn report(&mut self, code: Code, span: Span, what: impl Into<String>) {
        self.problems.push(Problem::new(code, span, what));
    }

    /// Reports a word that is not among those known.
    pub(super) fn unknown(&mut self, code: Code, span: Span, what: String, word: &str, known: &[&str]) {
        self.problem(Problem::new(code, span, what).help(advice(word, known)));
    }

    /// Reports keys that are not in the list.
    pub(super) fn only_keys(&mut self, table: &Table, place: &str, known: &[&str]) {
        for (key, _) in table.iter() {
            let name = key.name.as_str();
            if !known.contains(&name) {
                let what = format!("unknown key {name:?} in {place}");
                self.unknown(Code::UnknownKey, key.span, what, name, known);
            }
        }
    }

    /// Returns the table of a place, with its keys looked at.
    pub(super) fn place<'a>(&mut self, node: &'a Node, place: &Place) -> Option<&'a Table> {
        let table = self.table(node, place.name)?;
        self.only_keys(table, place.name, &place.names());
        Some(table)
    }

    /// Reports that a value is of another kind.
    fn wrong_type(&mut self, node: &Node, what: &str, kind: &str, help: impl Into<String>) {
        let told = format!("{what} must be {kind}, not {}", node.kind());
        self.problem(Problem::new(Code::WrongType, node.span, told).help(help));
    }

    pub(super) fn table<'a>(&mut self, node: &'a Node, what: &str) -> Option<&'a Table> {
        if node.table().is_none() {
            self.wrong_type(node, what, "a table", "write { key = value }, or lines below a [header]");
        }
        node.table()
    }

    pub(super) fn text<'a>(&mut self, node: &'a Node, what: &str) -> Option<&'a str> {
        if node.text().is_none() {
            self.wrong_type(node, what, "a string", "write it in quotes");
        }
        node.text()
    }

    pub(super) fn list<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        if node.list().is_none() {
            let help =
                node.text().map_or("write [..] around it".to_owned(), |text| format!("write [{text:?}]"));
            self.wrong_type(node, what, "a list", help);
        }
        node.list().unwrap_or_default()
    }

    pub(super) fn texts<'a>(&mut self, node: &'a Node, what: &str) -> Places<'a> {
        self.list(node, what).iter().filter_map(|item| Some((item, self.text(item, what)?))).collect()
    }

    pub(super) fn word<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Option<&'a str> {
        let text = self.text(node, what)?;
        if known.contains(&text) {
            return Some(text);
        }
        self.unknown(Code::UnknownWord, node.span, format!("unknown {what} {text:?}"), text, known);
        None
    }

    pub(super) fn flag(&mut self, node: &Node, what: &str) -> bool {
        if node.value != Val::Bool(true) {
            self.problem(
                Problem::new(Code::WrongType, node.span, format!("{what} is true or not there at all"))
                    .help(format!("write {what} = true")),
            );
        }
        node.value == Val::Bool(true)
    }

    pub(super) fn count(
        &mut self,
        node: &Node,
        what: &str,
        bounds: std::ops::RangeInclusive<i64>,
    ) -> Option<u64> {
        let Val::Whole(number) = node.value else {
            let number = node.text().and_then(|text| text.trim().parse::<i64>().ok());
            let help =
                number.map_or("write digits, without quotes".to_owned(), |number| format!("write {number}"));
            self.wrong_type(node, what, "a whole number", help);
            return None;
        };
        if !bounds.contains(&number) {
            let what = format!("{what} lies between {} and {}", bounds.start(), bounds.end());
            self.report(Code::OutOfBounds, node.span, what);
            return None;
        }
        Some(number as u64)
    }

    /// Reads a quantity or a range of it.
    pub(super) fn quantity(&mut self, node: &Node, unit: Unit) -> Option<Quantity> {
        let number;
        let text = match &node.value {
            Val::Whole(value) if unit == Unit::Count => {
                number = value.to_string();
                number.as_str()
            }
            Val::Text(text) => text,
            _ => {
                self.wrong_type(node, "a quantity", "a string", format!("this takes {}", unit.words()));
                return None;
            }
        };
        match parse_in(text, unit) {
            Ok(range) => Some(range),
            Err(complaint) => {
                self.complain(node.span, complaint);
                None
            }
        }
    }

    /// Reads one quantity within bounds.
    pub(super) fn amount(&mut self, node: &Node, unit: Unit, least: i64) -> Option<i64> {
        let range = self.quantity(node, unit)?;
        if range.low != range.high {
            let what = "this is one quantity, not a range; only [vary], [load] and steps draw".to_owned();
            self.report(Code::OutOfBounds, node.span, what);
            return None;
        }
        if range.low < least {
            let least = Quantity { low: least, high: least, unit };
            self.report(Code::OutOfBounds, node.span, format!("this is at least {least}"));
            return None;
        }
        Some(range.low)
    }

    pub(super) fn complain(&mut self, span: Span, complaint: Complaint) {
        let problem = Problem::new(complaint.code, span, complaint.what);
        self.problem(match complaint.help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }
}

/// Tells whether a name matches a pattern in which `*` stands for any characters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` stands, and how much of the name it has taken.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[from] => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                Some((place, taken)) => {
                    *taken += 1;
                    (at, from) = (*place + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// Tells whether a word is a pattern.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_in_a_shell() {
        for (pattern, name, is_match) in [
            ("store.*", "store.late", true),
            ("store.*", "link.cut", false),
            ("*.cut", "link.cut", true),
            ("erp-?", "erp-1", true),
            ("erp-?", "erp-12", false),
            ("*a*b*", "xaybz", true),
            ("*a*b", "xaybz", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }
}
