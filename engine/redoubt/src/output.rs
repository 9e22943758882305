//! What commands print: data to stdout as a table or JSON, talk and errors to stderr.
//!
//! Colour is a help, never the message: everything is said in words too. It is used only on a terminal
//! that has it, and never with `NO_COLOR`.

use crate::failure::{Exit, Failure, Outcome};
use comfy_table::{Attribute, CellAlignment, Color};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// Rows of a table's beginning: what fits on a screen.
pub(crate) const ROWS_MAX: usize = 20;

/// Why data could not be printed, the first time.
static LOST: OnceLock<String> = OnceLock::new();

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON value a line, for programs
    Json,
}

/// Prints data: as one line of JSON, or as `table` makes it.
pub(crate) fn data<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T) -> String) {
    let text = match format {
        Format::Json => {
            serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        }
        Format::Table => table(value),
    };
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        // A closed pipe (`| head`) is the reader's choice, not an error.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => _ = LOST.set(error.to_string()),
        _ => {}
    }
}

/// Fails if some of the data did not get to where stdout goes: a script must not take the half for the whole.
pub(crate) fn is_complete() -> Outcome<()> {
    LOST.get().map_or(Ok(()), |why| {
        Err(Failure::new(Exit::Failed, format!("cannot write all of the output: {why}"))
            .hint("look at where the output goes, then ask again"))
    })
}

/// Says something to the person in front of the terminal.
pub(crate) fn say(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Tells whether the stream is a terminal that moves its cursor and shows colour.
fn is_rich(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Tells whether stdout is a screen that can be redrawn.
pub(crate) fn is_screen() -> bool {
    is_rich(std::io::stdout().is_terminal())
}

fn has_colour(is_terminal: bool) -> bool {
    is_rich(is_terminal) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Clears the screen, for a view that is shown again and again.
pub(crate) fn clear_screen() {
    // Home, then erase what is below: no flicker.
    let _ = write!(std::io::stdout().lock(), "\x1b[H\x1b[J");
}

#[derive(Serialize)]
struct FailureJson<'a> {
    error: &'a str,
    hint: Option<&'a str>,
    exit: u8,
}

/// Reports a failed command on stderr.
pub(crate) fn failure(format: Format, failure: &Failure) {
    match format {
        Format::Table => {
            let is_warning = failure.exit == Exit::Warned;
            let (error, help) = match (has_colour(std::io::stderr().is_terminal()), is_warning) {
                (true, false) => ("\x1b[1;31merror:\x1b[0m", "\x1b[1;36mhelp:\x1b[0m"),
                (true, true) => ("\x1b[1;33mwarning:\x1b[0m", "\x1b[1;36mhelp:\x1b[0m"),
                (false, false) => ("error:", "help:"),
                (false, true) => ("warning:", "help:"),
            };
            match failure.what.strip_prefix("error:") {
                // Several, each with its place.
                Some(_) => say(&failure.what),
                None => say(format!("{error} {}", failure.what)),
            }
            if let Some(hint) = &failure.hint {
                say(format!("  {help} {hint}"));
            }
        }
        Format::Json => {
            let value =
                FailureJson { error: &failure.what, hint: failure.hint.as_deref(), exit: failure.exit as u8 };
            say(serde_json::to_string(&value).unwrap_or_default());
        }
    }
}

/// What a cell means, shown in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
}

/// One cell of a table.
pub(crate) struct Cell(String, Tone);

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell(text.into(), tone)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell(text.into(), Tone::Plain)
    }
}

/// Makes a plain table: columns aligned, no frame, so that `awk` reads it as well. The header `>SIZE`
/// sets its column to the right.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::TableStyle::default());
    if has_colour(std::io::stdout().is_terminal()) {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let heads = header
        .iter()
        .map(|name| comfy_table::Cell::new(name.trim_start_matches('>')).add_attribute(Attribute::Bold));
    table.set_header(heads.collect::<Vec<_>>());
    for row in rows {
        let cells = row.into_iter().map(|Cell(text, tone)| match tone {
            Tone::Plain => comfy_table::Cell::new(text),
            Tone::Good => comfy_table::Cell::new(text).fg(Color::Green),
            Tone::Warning => comfy_table::Cell::new(text).fg(Color::Yellow).add_attribute(Attribute::Bold),
            Tone::Bad => comfy_table::Cell::new(text).fg(Color::Red).add_attribute(Attribute::Bold),
        });
        table.add_row(cells.collect::<Vec<_>>());
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A table of which people are shown the beginning, so that what matters is not scrolled away.
pub(crate) fn beginning(header: &[&str], mut rows: Vec<Vec<Cell>>) -> String {
    let more = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    let mut text = table(header, rows);
    if more > 0 {
        text += &format!("\n and {more} more; `--format json` lists all");
    }
    text + "\n\n"
}
