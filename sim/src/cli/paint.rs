//! Colours and tables: on a terminal only, and never with NO_COLOR.

use crate::harness::Verdict;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table};
use std::io::IsTerminal;

/// Tells whether standard output takes colours.
pub(super) fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Makes an empty table with a header.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.force_no_tty();
        table.set_width(120);
    }
    table.set_header(header.iter().map(|title| Cell::new(*title)));
    // Names are for copying: the first column is never broken.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Makes a cell in a colour, if colours are taken.
pub(super) fn cell(text: impl ToString, colour: Color) -> Cell {
    let cell = Cell::new(text.to_string());
    if coloured() { cell.fg(colour) } else { cell }
}

/// Makes the cell of a verdict.
pub(super) fn verdict(verdict: Verdict) -> Cell {
    let colour = match verdict {
        Verdict::Held => Color::Green,
        Verdict::NeverSeen | Verdict::Missed | Verdict::NotConverged => Color::Yellow,
        _ => Color::Red,
    };
    cell(verdict.word(), colour)
}

/// Wraps text in a terminal colour, if colours are taken.
pub(super) fn paint(text: &str, verdict: Verdict) -> String {
    if !coloured() {
        return text.to_owned();
    }
    let code = match verdict {
        Verdict::Held => 32,
        Verdict::NeverSeen | Verdict::Missed | Verdict::NotConverged => 33,
        _ => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Makes text stand out, if colours are taken.
pub(super) fn strong(text: &str) -> String {
    if coloured() { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Draws text back, if colours are taken.
pub(super) fn faint(text: &str) -> String {
    if coloured() { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Columns of text that is no table.
const COLUMNS: usize = 100;

/// Returns names behind a title, as many on a line as fit; none of them is broken.
pub(super) fn named<'a>(title: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut text = format!("{title}:");
    let mut taken = text.chars().count();
    for name in names {
        if taken + 1 + name.len() > COLUMNS {
            text.push_str("\n   ");
            taken = 3;
        }
        text.push(' ');
        text.push_str(name);
        taken += 1 + name.len();
    }
    text
}

/// Returns the columns of the terminal; none if there is none.
pub(super) fn columns() -> Option<usize> {
    std::io::stdout().is_terminal().then(|| Table::new().width().map(usize::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_broken_and_lines_stay_short() {
        let names = ["point-outlived-an-outage"; 9];
        let text = named("wan saw", names.into_iter());
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert_eq!(text.split_whitespace().filter(|word| *word == names[0]).count(), names.len());
        assert_eq!(named("x", ["a", "b"].into_iter()), "x: a b");
    }
}
