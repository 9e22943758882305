//! Settings of the services: the command line over the settings file over the defaults.

mod diagnostics;
mod file;
pub(crate) mod keep;
pub(crate) mod plan;

pub(crate) use file::FileSettings;

use crate::failure::{Exit, Failure, Outcome};
use std::path::Path;

/// A settings file is written by hand; more than this is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the settings file, if one was named.
pub(crate) fn read(path: Option<&Path>) -> Outcome<FileSettings> {
    let Some(path) = path else { return Ok(FileSettings::default()) };
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::Unreachable, format!("cannot read settings file {}: {error}", path.display()))
            .hint("check the path given with --config")
    };
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} has {length} bytes; that is no settings file",
            path.display()
        )));
    }
    let source = std::fs::read_to_string(path).map_err(cannot)?;
    file::parse(&source).map_err(|mistakes| Failure::usage(diagnostics::render(path, &source, mistakes)))
}
