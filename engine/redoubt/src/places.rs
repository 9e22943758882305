//! Damaged places as people read them: no line is wider than a terminal, and names are whole.
//!
//! Names of a machine's objects share a long beginning. It is said once, above them.

use crate::output::ROWS_MAX;
use std::fmt::Write;

/// Characters of a line.
const WIDTH: usize = 100;

/// What is wrong with an object, or with bytes of it.
pub(crate) struct Place<'a> {
    pub(crate) object: &'a str,
    /// None: all of it.
    pub(crate) bytes: Option<(u64, u64)>,
    pub(crate) what: &'a str,
    /// What that takes: a sentence each.
    pub(crate) takes: Vec<String>,
}

/// Shows places of a machine's objects, the first of them if there are many: a line each, and what they take below.
pub(crate) fn show(title: &str, machine: &str, places: &[Place<'_>]) -> String {
    let prefix = format!("g/{machine}/");
    let is_under = |place: &Place<'_>| place.object.starts_with(&prefix);
    let mut text = match places.iter().any(is_under) {
        true => format!(" {title}, names without {prefix}\n"),
        false => format!(" {title}\n"),
    };
    let mut left = ROWS_MAX;
    for (at, place) in places.iter().enumerate() {
        let rows = 1 + place.takes.len();
        if at > 0 && rows > left {
            let _ = writeln!(text, " and {} more; `--format json` lists all", places.len() - at);
            break;
        }
        left = left.saturating_sub(rows);
        let object = place.object.strip_prefix(&prefix).unwrap_or(place.object);
        let bytes = place.bytes.map(|(from, to)| format!(" bytes {from}..{to}")).unwrap_or_default();
        line(&mut text, 1, &format!("{object}{bytes}: {}", place.what));
        for (at, takes) in place.takes.iter().enumerate() {
            if at >= ROWS_MAX {
                let more = place.takes.len() - at;
                line(&mut text, 5, &format!("and {more} more; `--format json` lists all"));
                break;
            }
            line(&mut text, 5, takes);
        }
    }
    text + "\n"
}

/// Adds a line, and more of them if it is too wide: they are indented by two.
fn line(text: &mut String, indent: usize, words: &str) {
    let mut used = indent;
    let _ = write!(text, "{:indent$}", "");
    for (at, word) in words.split(' ').enumerate() {
        let length = word.chars().count();
        if at > 0 && used + 1 + length > WIDTH {
            used = indent + 2;
            let _ = write!(text, "\n{:used$}", "");
        } else if at > 0 {
            used += 1;
            text.push(' ');
        }
        used += length;
        text.push_str(word);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef";

    fn place<'a>(object: &'a str, takes: &[String]) -> Place<'a> {
        let what = "the checksum of a unit differs";
        Place { object, bytes: Some((16_777_216, 16_842_752)), what, takes: takes.to_vec() }
    }

    #[test]
    fn no_line_is_too_wide_and_no_word_is_lost() {
        let object = format!("g/{MACHINE}/seg/00000001/{MACHINE}");
        let ranges: Vec<String> = (0..40).map(|at| format!("64.0 KiB at {}", at << 30)).collect();
        let takes = format!("points 12345.0 to 23456.12 of erp: {}", ranges.join(", "));
        let text = show("damaged", MACHINE, &[place(&object, std::slice::from_ref(&takes))]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let taken: Vec<&str> = takes.split(' ').collect();
        assert!(words.ends_with(&taken), "{text}");
        assert!(text.contains(&format!("seg/00000001/{MACHINE} bytes 16777216..16842752: ")), "{text}");
    }

    #[test]
    fn of_many_the_first_are_shown_and_the_others_counted() {
        let one = vec!["point 1.0: all of it".to_owned()];
        let places: Vec<Place<'_>> = (0..30).map(|_| place("vault", &one)).collect();
        let text = show("damaged", MACHINE, &places);
        assert_eq!(text.matches("vault bytes").count(), ROWS_MAX / 2);
        assert!(text.contains(" and 20 more; `--format json` lists all\n"), "{text}");
        // What one place takes is bounded too, and the first place is always shown.
        let many = vec!["point 1.0: all of it".to_owned(); 50];
        let text = show("damaged", MACHINE, &[place("vault", &many), place("vault", &one)]);
        assert_eq!(text.matches("point 1.0").count(), ROWS_MAX);
        assert!(text.contains("     and 30 more;") && text.contains("\n and 1 more;"), "{text}");
    }
}
