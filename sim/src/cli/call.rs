//! Commands for copying: what is printed as `cargo sim ...` plays the same thing for whoever pastes it, in this clone or
//! in another one. So it says where the scenarios are, unless they are where the tool looks by itself.

use super::ci;
use super::files;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static PLACE: OnceLock<String> = OnceLock::new();

/// Remembers the directory of scenarios that somebody named.
pub(super) fn remember(directory: &Path) {
    let _ = PLACE.set(words(directory));
}

/// Returns a command for copying.
pub(super) fn line(words: &str) -> String {
    let place = PLACE.get().map(String::as_str).unwrap_or_default();
    format!("cargo sim {words}{place}")
}

/// Returns a command for copying about scenarios in another directory.
pub(super) fn line_in(directory: &Path, words: &str) -> String {
    format!("cargo sim {words}{}", self::words(directory))
}

fn words(directory: &Path) -> String {
    place(directory).map(|path| format!(" --scenarios {}", quoted(&path))).unwrap_or_default()
}

/// Returns how another person names a directory: from where we stand, else from the root of its repository. None if the
/// tool looks there by itself.
fn place(directory: &Path) -> Option<String> {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let (directory, usual) = (whole(directory), whole(&files::default_directory()));
    if directory == usual {
        return None;
    }
    let here = std::env::current_dir().map(|here| whole(&here)).unwrap_or_default();
    let inside = |root: &Path| directory.strip_prefix(root).map(Path::to_path_buf).ok();
    let path = inside(&here).or_else(|| inside(&ci::root(&directory))).unwrap_or_else(|| directory.clone());
    let path = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
    Some(path.display().to_string())
}

/// Returns a word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./@%+=:,".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_from_here_or_not_at_all() {
        // Tests stand in the directory of their crate.
        assert_eq!(place(Path::new("src/cli")), Some("src/cli".into()));
        assert_eq!(place(Path::new(".")), Some(".".into()));
        assert_eq!(place(Path::new("../reports/docs")), Some("reports/docs".into()));
        assert_eq!(place(&files::default_directory()), None);
        assert_eq!(place(Path::new("/nowhere/at/all")), Some("/nowhere/at/all".into()));
    }

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        for (word, shell) in [
            ("tests/failures", "tests/failures"),
            ("my tests", "'my tests'"),
            ("it's", r"'it'\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(word), shell);
        }
    }
}
