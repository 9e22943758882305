//! What a scrub notes of its way, for another that goes on when it was interrupted: segments that it found whole, a name
//! in each line behind a line that says of what.
//!
//! Lines are added at the end. A last line that is cut, because the process was killed over it, is none.
//!
//! What is *not* here: what may be left out because of it (`redoubt_vault::scrub`).

use crate::failure::{Exit, Failure, Outcome};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file, open at its end.
pub(crate) struct Notes {
    path: PathBuf,
    file: File,
}

impl Notes {
    /// Opens the notes of a scrub, or begins them, and returns what they hold. `of` says which vault it is of, and how it
    /// is read.
    pub(crate) fn open(path: &Path, of: &str) -> Outcome<(Notes, BTreeSet<StoreKey>)> {
        let begin = format!("redoubt scrub notes 1, {of}\n");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(|error| failed(path, &error))?;
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        if read.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidData)
            || !(text.starts_with(&begin) || begin.starts_with(&text))
        {
            let what = format!("{} holds something else than the notes of this scrub", path.display());
            return Err(Failure::new(Exit::Refused, what)
                .hint("name the file of the scrub that was interrupted, of this vault and with or without its key as before"));
        }
        read.map_err(|error| failed(path, &error))?;
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        let known = text[..whole].lines().skip(1).map(StoreKey::new).collect();
        let mut notes = Notes { path: path.to_owned(), file };
        let cut = notes.file.set_len(whole as u64).and_then(|()| notes.file.seek(SeekFrom::End(0)));
        cut.map_err(|error| failed(path, &error))?;
        if whole == 0 {
            notes.write(&begin)?;
        }
        Ok((notes, known))
    }

    /// Adds what was found whole.
    pub(crate) fn add(&mut self, names: &[StoreKey]) -> Outcome<()> {
        let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
        if lines.is_empty() { Ok(()) } else { self.write(&lines) }
    }

    /// Removes the file: there is nothing to go on from.
    pub(crate) fn remove(self) -> Outcome<()> {
        std::fs::remove_file(&self.path).map_err(|error| failed(&self.path, &error))
    }

    fn write(&mut self, text: &str) -> Outcome<()> {
        self.file.write_all(text.as_bytes()).map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("cannot keep notes in {}: {error}", path.display());
    Failure::new(Exit::Failed, what).hint("name a file that can be written, or leave out --resume")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_again_without_a_line_that_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        let names = |names: &[&str]| names.iter().map(|name| StoreKey::new(*name)).collect::<Vec<_>>();
        let (mut notes, known) = Notes::open(&path, "of a vault").unwrap();
        assert!(known.is_empty());
        notes.add(&names(&["g/1", "g/2"])).unwrap();
        drop(notes);
        let whole = std::fs::read_to_string(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut notes, known) = Notes::open(&path, "of a vault").unwrap();
            let expected = whole[..cut].matches("\n").count().saturating_sub(1);
            assert!(known.into_iter().eq(names(&["g/1", "g/2"][..expected])), "{cut}");
            notes.add(&names(&["g/3"])).unwrap();
            let again = Notes::open(&path, "of a vault").unwrap().1;
            assert_eq!(again.len(), expected + 1, "{cut}");
        }
        Notes::open(&path, "of a vault").unwrap().0.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_another_scrub_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        Notes::open(&path, "of a vault").unwrap();
        for other in ["of another", "of a vault, without its key"] {
            assert!(Notes::open(&path, other).is_err(), "{other}");
        }
        std::fs::write(&path, "my letters\n").unwrap();
        assert!(Notes::open(&path, "of a vault").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my letters\n");
    }
}
