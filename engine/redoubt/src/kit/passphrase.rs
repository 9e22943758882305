//! A passphrase from a file, from the environment or from the terminal; never from the command line.

use crate::failure::{Exit, Failure, Outcome};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Holds a passphrase where a program starts this one.
const VARIABLE: &str = "REDOUBT_PASSPHRASE";
/// A new one must be worth a key: five words or so.
const CHARACTERS_MIN: usize = 12;
/// Longer is another kind of file.
const BYTES_MAX: u64 = 1024;

pub(crate) type Passphrase = Zeroizing<String>;

/// Reads the passphrase of a kit.
pub(crate) fn existing(file: Option<&Path>, kit: &Path) -> Outcome<Passphrase> {
    match given(file)? {
        Some(passphrase) => Ok(passphrase),
        None => Terminal::open()?.ask(&format!("passphrase of {}: ", kit.display())),
    }
}

/// Reads a passphrase for a new kit; one that is typed is asked for twice.
pub(crate) fn fresh(file: Option<&Path>) -> Outcome<Passphrase> {
    let passphrase = match given(file)? {
        Some(passphrase) => passphrase,
        None => {
            let terminal = Terminal::open()?;
            let first = terminal.ask("passphrase for the kit: ")?;
            if *terminal.ask("once more: ")? != *first {
                return Err(Failure::usage("the two passphrases differ").hint("try again"));
            }
            first
        }
    };
    if passphrase.chars().count() < CHARACTERS_MIN {
        let what = format!("a passphrase for a kit has at least {CHARACTERS_MIN} characters");
        return Err(
            Failure::usage(what).hint("take five random words: they are easy to type and hard to guess")
        );
    }
    Ok(passphrase)
}

fn given(file: Option<&Path>) -> Outcome<Option<Passphrase>> {
    if let Some(path) = file {
        let cannot = |error: std::io::Error| {
            let what = format!("cannot read passphrase file {}: {error}", path.display());
            Failure::new(Exit::Unreachable, what).hint("check the path given with --passphrase-file")
        };
        let mut text = Zeroizing::new(String::new());
        File::open(path).map_err(cannot)?.take(BYTES_MAX).read_to_string(&mut text).map_err(cannot)?;
        return Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())));
    }
    Ok(std::env::var(VARIABLE).ok().map(Zeroizing::new))
}

/// The terminal, whatever stdin and stdout are.
struct Terminal(File);

/// Shows again what is typed, however asking ends.
struct Quiet<'a>(&'a File, Termios);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

impl Terminal {
    fn open() -> Outcome<Terminal> {
        let opened = File::options().read(true).write(true).open("/dev/tty");
        opened.map(Terminal).map_err(|_| {
            let hint = format!("write it to a file and name that with --passphrase-file, or set {VARIABLE}");
            Failure::usage("there is no terminal to ask for the passphrase").hint(hint)
        })
    }

    fn ask(&self, question: &str) -> Outcome<Passphrase> {
        let typed = self
            .typed(question)
            .map_err(|error| Failure::new(Exit::Unreachable, format!("cannot use the terminal: {error}")))?;
        match typed {
            Some(line) => Ok(line),
            None => Err(Failure::new(Exit::Failed, "interrupted; nothing was touched")),
        }
    }

    /// Reads a line that nobody sees; none if it was interrupted. The keys are ours meanwhile: a signal would end the
    /// process before the terminal shows again what is typed, or not at all where signals are caught.
    fn typed(&self, question: &str) -> std::io::Result<Option<Passphrase>> {
        let shown = tcgetattr(&self.0)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.0, OptionalActions::Flush, &hidden)?;
        let _quiet = Quiet(&self.0, shown);
        // Only now: what is typed before the terminal is quiet is thrown away.
        (&self.0).write_all(question.as_bytes())?;
        let (mut line, mut byte) = (Zeroizing::new(Vec::new()), [0]);
        let is_whole = loop {
            if (&self.0).read(&mut byte)? == 0 {
                break false;
            }
            match take(&mut line, byte[0]) {
                Key::Typed => {}
                Key::Enter => break true,
                Key::Interrupt => break false,
            }
        };
        (&self.0).write_all(b"\n")?;
        let text = std::str::from_utf8(&line).map_err(|_| std::io::Error::other("that is no UTF-8"))?;
        Ok(is_whole.then(|| Zeroizing::new(text.to_owned())))
    }
}

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    /// It changed the line, or nothing.
    Typed,
    Enter,
    Interrupt,
}

/// Takes one byte of what is typed, as a terminal does that is not asked to be quiet.
fn take(line: &mut Vec<u8>, byte: u8) -> Key {
    match byte {
        b'\n' | b'\r' => return Key::Enter,
        // Ctrl-D.
        4 if !line.is_empty() => return Key::Enter,
        // Ctrl-C, Ctrl-D, Ctrl-backslash.
        3 | 4 | 28 => return Key::Interrupt,
        // Ctrl-U.
        21 => line.clear(),
        // Backspace: a character may have several bytes, all but the first of this form.
        8 | 127 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
        _ if line.len() < BYTES_MAX as usize => line.push(byte),
        _ => {}
    }
    Key::Typed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> (String, Option<Key>) {
        let mut line = Vec::new();
        let end = bytes.iter().map(|byte| take(&mut line, *byte)).find(|key| *key != Key::Typed);
        (String::from_utf8(line).unwrap(), end)
    }

    #[test]
    fn a_line_is_typed_and_mended_as_on_any_terminal() {
        assert_eq!(typed(b"tulip\nmore"), ("tulip".into(), Some(Key::Enter)));
        assert_eq!(typed(b"tulo\x7fip\r"), ("tulip".into(), Some(Key::Enter)));
        assert_eq!(typed("gr\u{fc}\u{df}\x7f\x08un\n".as_bytes()), ("grun".into(), Some(Key::Enter)));
        assert_eq!(typed(b"wrong\x15\x7fright\x04"), ("right".into(), Some(Key::Enter)));
        assert_eq!(typed(b"wal\x03"), ("wal".into(), Some(Key::Interrupt)));
        assert_eq!(typed(b"\x04"), (String::new(), Some(Key::Interrupt)));
    }
}
