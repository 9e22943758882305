//! Plays the lab's set of a change three times, each time in a process of its own, and compares all that is made of it
//! byte for byte: equal verdicts, equal digests of every run, equal words.

use crate::command::{cargo, top};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::Path;

const PASSES: usize = 3;

/// What is made of a set, and the option that asks for it. The set itself holds the digest of every run.
const FORMS: [(&str, &str); 5] = [
    ("run.json", "--json"),
    ("summary.md", "--summary"),
    ("report.html", "--report"),
    ("junit.xml", "--junit"),
    ("measured.hdr", "--hdr"),
];

/// Characters that are shown of a difference.
const SHOWN: usize = 120;

/// Plays and compares; returns what was compared, in words.
pub(crate) fn play() -> Result<String> {
    let place = top().join("target/lab-passes");
    let pass = |number: usize| place.join(number.to_string());
    for number in 1..=PASSES {
        play_once(number, &pass(number))?;
        if number > 1 {
            compare(&pass(1), &pass(number)).with_context(|| format!("pass 1 and pass {number} differ"))?;
        }
    }
    let size = |(file, _): &(&str, &str)| Ok(fs::metadata(pass(1).join(file))?.len());
    let bytes: u64 = FORMS.iter().map(size).sum::<Result<u64>>()?;
    let runs = runs(&pass(1))?;
    let files = FORMS.map(|(file, _)| file).join(", ");
    Ok(format!("{PASSES} x {runs} runs equal to the byte: {files}, {:.1} MB", bytes as f64 / 1e6))
}

/// The first pass shows what it plays, the others keep it in a file. The last one plays one run more at once: other runs
/// share its process, and that is no matter.
fn play_once(number: usize, out: &Path) -> Result<()> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    fs::create_dir_all(out)?;
    let mut command = cargo(&["sim", "run"]);
    for (file, option) in FORMS {
        command.arg(option).arg(out.join(file));
    }
    if number == PASSES {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.args(["--jobs", &(cores + 1).to_string()]);
    }
    let printed = out.join("printed.txt");
    if number > 1 {
        command.stdout(File::create(&printed)?);
    }
    let status = command.status().context("cannot start cargo")?;
    match number {
        1 if !status.success() => bail!("{status}: {command:?}"),
        1 => {}
        _ if !status.success() => bail!("pass {number}: {status}, see {}", printed.display()),
        _ => {
            let text = fs::read_to_string(&printed)?;
            let verdict = text.lines().rfind(|line| line.contains(" runs, ")).unwrap_or_default();
            println!("pass {number}: {verdict}");
        }
    }
    Ok(())
}

fn runs(pass: &Path) -> Result<u64> {
    let set: serde_json::Value = serde_json::from_str(&fs::read_to_string(pass.join("run.json"))?)?;
    let scenarios = set["scenarios"].as_array().context("a set has scenarios")?;
    Ok(scenarios.iter().filter_map(|scenario| scenario["totals"]["runs"].as_u64()).sum())
}

fn compare(first: &Path, other: &Path) -> Result<()> {
    for (file, _) in FORMS {
        let [a, b] = [first, other].map(|pass| fs::read_to_string(pass.join(file)));
        if let Some(difference) = difference(&a?, &b?) {
            bail!("{file}, {difference}");
        }
    }
    Ok(())
}

/// Returns where two texts part, and how both go on.
fn difference(a: &str, b: &str) -> Option<String> {
    if a == b {
        return None;
    }
    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let at = (0..=at).rev().find(|at| a.is_char_boundary(*at) && b.is_char_boundary(*at)).unwrap_or(0);
    let line = a[..at].matches('\n').count() + 1;
    let from = a[..at].rfind('\n').map_or(0, |end| end + 1).max(at.saturating_sub(SHOWN));
    let from = (from..=at).find(|from| a.is_char_boundary(*from)).unwrap_or(at);
    let shown = |text: &str| {
        let line = text[from..].lines().next().unwrap_or_default();
        line.chars().take(2 * SHOWN).collect::<String>()
    };
    Some(format!("line {line}:\n  {}\n  {}", shown(a), shown(b)))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_is_shown_where_it_is_with_what_stands_before_it_in_its_line() {
        assert_eq!(difference("a\nb", "a\nb"), None);
        let shown = difference("one\ntwo ä: 1, more\nx", "one\ntwo ä: 2, more\nx").unwrap();
        assert_eq!(shown, "line 2:\n  two ä: 1, more\n  two ä: 2, more");
        assert_eq!(difference("a", "a\nb").unwrap(), "line 1:\n  a\n  a");
        assert_eq!(difference("a\n", "a\nb").unwrap(), "line 2:\n  \n  b");
        // Two letters that begin with the same byte.
        assert_eq!(difference("ä", "ö").unwrap(), "line 1:\n  ä\n  ö");
    }

    #[test]
    fn a_long_line_is_shown_around_its_difference() {
        let (a, b) = ("ä".repeat(5000) + "1", "ä".repeat(5000) + "2");
        let shown = difference(&a, &b).unwrap();
        assert!(shown.len() < 1000 && shown.contains("ä1\n") && shown.ends_with("ä2"), "{shown}");
    }
}
