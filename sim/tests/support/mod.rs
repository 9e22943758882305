//! What tests share that start the tool: a directory of their own, the tool there, and what it printed.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a directory of a test's own with these files.
pub(crate) fn place(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    for (file, text) in files {
        std::fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        std::fs::write(path.join(file), text).unwrap();
    }
    path
}

pub(crate) fn read(place: &Path, file: &str) -> String {
    std::fs::read_to_string(place.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The tool, on the scenarios of a directory.
pub(crate) fn tool(scenarios: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redoubt-sim"));
    command.arg("--scenarios").arg(scenarios);
    command
}

/// Runs a command; returns its exit code and what it printed.
pub(crate) fn answer(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs the tool in a directory, on the scenarios there.
pub(crate) fn sim(place: &Path, arguments: &[&str]) -> (i32, String) {
    answer(tool(place).current_dir(place).args(arguments))
}

/// Types a line into a shell in a directory, where `cargo sim` is the tool.
pub(crate) fn type_in(place: &Path, line: &str) -> (i32, String) {
    let line = line.replace("cargo sim", env!("CARGO_BIN_EXE_redoubt-sim"));
    answer(Command::new("sh").args(["-c", &line]).current_dir(place))
}
