//! What commands print: data to stdout as a table or JSON, talk and errors to stderr.

use crate::failure::Failure;
use serde::Serialize;
use std::io::Write;

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
    // A closed pipe (`| head`) is the reader's choice, not an error.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush());
}

/// Says something to the person in front of the terminal.
pub(crate) fn say(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
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
            say(if failure.what.starts_with("error") {
                failure.what.clone()
            } else {
                format!("error: {}", failure.what)
            });
            if let Some(hint) = &failure.hint {
                say(format!("  help: {hint}"));
            }
        }
        Format::Json => {
            let value =
                FailureJson { error: &failure.what, hint: failure.hint.as_deref(), exit: failure.exit as u8 };
            say(serde_json::to_string(&value).unwrap_or_default());
        }
    }
}

/// Makes a plain table: columns aligned, no frame, so that `awk` reads it as well.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::TableStyle::default());
    table.set_header(header.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    table.add_rows(rows);
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
