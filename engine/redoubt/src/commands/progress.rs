//! Progress on stderr, if that is a terminal; programs and pipes see none.

use crate::cli::Common;
use crate::output::Format;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

const BYTES: &str = "{msg} {wide_bar:.cyan/dim} {percent:>3} %  {bytes} of {total_bytes}  \
                     {binary_bytes_per_sec}  {eta} left";
const STEPS: &str = "{msg} {wide_bar:.cyan/dim} {percent:>3} %  {pos} of {len}  {eta} left";

/// Counts bytes.
pub(super) fn bytes(common: &Common, what: &str, total: u64) -> ProgressBar {
    bar(common, BYTES, what, total)
}

/// Counts steps.
pub(super) fn steps(common: &Common, what: &str, total: u64) -> ProgressBar {
    bar(common, STEPS, what, total)
}

fn bar(common: &Common, template: &str, what: &str, total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || common.format == Format::Json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let characters = if common.ascii { "=>-" } else { "━╸─" };
    ProgressBar::new(total).with_style(style.progress_chars(characters)).with_message(what.to_owned())
}
