//! What the repository of the scenarios knows: the commit, its day, its root. And the day on the real clock.
#![expect(clippy::disallowed_methods, reason = "the tool, not the engine, asks git and the clock")]

use crate::codes::USAGE;
use crate::date::Date;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who says which commit it is where git does not: jobs in containers often may not read the repository.
const COMMITS: [&str; 2] = ["GITHUB_SHA", "CI_COMMIT_SHA"];

/// Who says where the repository lies.
const ROOTS: [&str; 2] = ["GITHUB_WORKSPACE", "CI_PROJECT_DIR"];

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn variable(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Tells whether a text is the whole name of a commit.
fn is_whole(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the whole name of a commit. One that is given whole needs no repository.
pub(crate) fn commit(directory: &Path, name: &str) -> Result<String, u8> {
    if is_whole(name) {
        return Ok(name.to_ascii_lowercase());
    }
    git(directory, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")])
        .filter(|found| is_whole(found))
        .ok_or_else(|| {
            eprintln!(
                "{name:?} is no commit that git finds in {}; its whole name needs no git",
                directory.display()
            );
            USAGE
        })
}

/// Returns the commit that is checked out; says so if there is none.
pub(crate) fn head(directory: &Path) -> Option<String> {
    let found = git(directory, &["rev-parse", "HEAD"]).or_else(|| variable(&COMMITS));
    let found = found.filter(|name| is_whole(name));
    if found.is_none() {
        println!("no commit is known here: only the seeds of the files are played");
    }
    found
}

/// Returns the day of a commit, so that whoever plays it again judges by the same day; today's where git knows none.
pub(crate) fn day_of(directory: &Path, commit: Option<&str>) -> Date {
    let day = git(directory, &["show", "--no-patch", "--format=%cs", commit.unwrap_or("HEAD")]);
    day.and_then(|day| day.parse().ok()).unwrap_or_else(today)
}

/// Returns the day in UTC, by the real clock.
pub(crate) fn today() -> Date {
    Date::of_unix(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
}

/// Returns the root of the repository in which a directory lies; that of the job, of git, or where we are.
pub(crate) fn root(directory: &Path) -> PathBuf {
    let whole = |path: &Path| path.canonicalize().ok();
    let directory = whole(directory).unwrap_or_else(|| directory.to_path_buf());
    let job = variable(&ROOTS).and_then(|root| whole(Path::new(&root)));
    let job = job.filter(|root| directory.starts_with(root));
    let git = || git(&directory, &["rev-parse", "--show-toplevel"]).and_then(|root| whole(Path::new(&root)));
    job.or_else(git).or_else(|| whole(Path::new("."))).unwrap_or_default()
}

/// Returns a file's path from the root of its repository, as services name it.
pub(super) fn path_in(root: &Path, file: &Path) -> String {
    let whole = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let path = whole.strip_prefix(root).map_or(file, |inside| inside);
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "1A4a3fd80c1e1a4a3fd80c1e1a4a3fd80c1e1a4a";

    #[test]
    fn a_whole_name_needs_no_repository_and_another_one_does() {
        let nowhere = Path::new("/nowhere/at/all");
        assert_eq!(commit(nowhere, WHOLE), Ok(WHOLE.to_lowercase()));
        assert_eq!(commit(nowhere, "HEAD"), Err(USAGE));
        assert_eq!(commit(nowhere, &WHOLE[1..]), Err(USAGE));
    }

    #[test]
    fn a_path_is_that_from_the_root() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().unwrap().canonicalize().unwrap();
        assert_eq!(path_in(&root, &here.join("src/../Cargo.toml")), "sim/Cargo.toml");
        assert_eq!(path_in(&root, Path::new("/nowhere/x.toml")), "//nowhere/x.toml");
    }
}
