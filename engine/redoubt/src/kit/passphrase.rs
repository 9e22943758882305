//! A passphrase from a file, from the environment or from the terminal; never from the command line.

use crate::failure::{Exit, Failure, Outcome};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
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
            let mut terminal = Terminal::open()?;
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
struct Terminal(BufReader<File>);

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
        opened.map(|file| Terminal(BufReader::new(file))).map_err(|_| {
            let hint = format!("write it to a file and name that with --passphrase-file, or set {VARIABLE}");
            Failure::usage("there is no terminal to ask for the passphrase").hint(hint)
        })
    }

    fn ask(&mut self, question: &str) -> Outcome<Passphrase> {
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Unreachable, format!("cannot use the terminal: {error}"))
        };
        let mut line = Zeroizing::new(String::new());
        self.0.get_mut().write_all(question.as_bytes()).map_err(cannot)?;
        let shown = tcgetattr(self.0.get_ref()).map_err(|error| cannot(error.into()))?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(self.0.get_ref(), OptionalActions::Flush, &hidden).map_err(|error| cannot(error.into()))?;
        let (read, mut screen) = {
            let file = self.0.get_ref().try_clone().map_err(cannot)?;
            let _quiet = Quiet(&file, shown);
            (self.0.read_line(&mut line), file.try_clone().map_err(cannot)?)
        };
        read.map_err(cannot)?;
        screen.write_all(b"\n").map_err(cannot)?;
        Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
