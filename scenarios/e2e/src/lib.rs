//! Parts of the end-to-end tests: the built binary, a place to work in, a small NBD client of our
//! own, and a writer whose every block tells when it was written.
//!
//! The tests import no crate of the engine: they see what a user sees.
//! What is *not* here: the cases (`tests`), and the installation of other programs (`cargo xtask tools`).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the tests are the real world")]

pub mod filesystem;
pub mod nbd;
pub mod pair;
pub mod servers;
pub mod service;
pub mod stamps;

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Returns the binary under test: `REDOUBT_BIN`, or the one of the same build directory.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("REDOUBT_BIN") {
        return PathBuf::from(path);
    }
    let own = std::env::current_exe().expect("the test knows its own path");
    let build = own.ancestors().nth(2).expect("tests run in TARGET/PROFILE/deps");
    let path = build.join("redoubt");
    assert!(path.exists(), "{} does not exist: run `cargo build -p redoubt` first", path.display());
    path
}

/// Returns a number from the environment, or the default.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => default,
    }
}

/// An empty directory, removed at the end.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Makes the directory; its path is short because socket paths are.
    pub fn new() -> Place {
        let directory = tempfile::Builder::new().prefix("rdbt-").tempdir().expect("a temporary directory");
        Place { directory }
    }

    /// Returns a path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a sparse image.
    pub fn image(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("an image");
        path
    }

    /// Returns every name below it with a digest of what it holds: two equal answers, nothing changed.
    pub fn contents(&self) -> BTreeMap<PathBuf, String> {
        fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                let kind = entry.file_type().expect("a type");
                let content = if kind.is_file() {
                    blake3::hash(&std::fs::read(entry.path()).expect("a file")).to_string()
                } else {
                    format!("{kind:?}")
                };
                found.insert(entry.path(), content);
                if kind.is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.directory.path(), &mut found);
        found
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

/// Runs a program to its end and returns what it printed; an error carries its stderr.
pub fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<String> {
    let output = try_run(program.as_ref(), arguments, None)?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{} {}: {}\n{out}{err}", program.as_ref().display(), arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program in a directory and returns how it ended, whatever that is.
pub fn try_run(program: &std::ffi::OsStr, arguments: &[&str], directory: Option<&Path>) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    command.output().with_context(|| format!("run {}; `cargo xtask tools` installs it", program.display()))
}

/// Returns the text of a path; test paths are plain.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
