//! The history of figures: rows in `reports/bench/history.csv`, the newest of each as a table in
//! `reports/bench/README.md`, and why a bar is missed (`missed.toml`, written by people).

use super::figure::{Figure, number, with_unit};
use super::machine;
use crate::command::{output, top};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const BEGIN: &str = "<!-- figures: written by `cargo xtask bench --record` -->";
const END: &str = "<!-- end of figures -->";
const COLUMNS: &str = "date,commit,bar,what,median,low,high,rounds,unit,goal,held,sides,load,machine";
const FIELDS: usize = 14;

/// Load average above which the table warns its readers.
const WORTH_QUOTING: f64 = 1.0;

/// Reasons and plans of missed bars, by bar.
pub(crate) type Reasons = BTreeMap<String, String>;

fn directory() -> PathBuf {
    top().join("reports/bench")
}

/// Reads why bars are missed.
pub(crate) fn reasons() -> Result<Reasons> {
    let path = directory().join("missed.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// Appends the figures to the history and renews the table.
pub(crate) fn record(figures: &[Figure], place: &Path, load: f64) -> Result<()> {
    let path = directory().join("history.csv");
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|_| format!("{COLUMNS}\n"));
    let (date, commit) = (today()?, commit()?);
    let machine = machine::shape(place);
    for figure in figures {
        let (low, high) = figure.spread();
        let row = [
            date.clone(),
            commit.clone(),
            figure.bar.to_owned(),
            figure.what.clone(),
            format!("{:.4}", figure.median()),
            format!("{low:.4}"),
            format!("{high:.4}"),
            figure.values.len().to_string(),
            figure.unit.to_owned(),
            figure.goal.to_string(),
            figure.verdict().to_owned(),
            figure.sides.clone(),
            format!("{load:.1}"),
            machine.clone(),
        ];
        text += &row.map(|field| quoted(&field)).join(",");
        text.push('\n');
    }
    std::fs::create_dir_all(directory())?;
    std::fs::write(&path, &text).with_context(|| path.display().to_string())?;
    let readme = directory().join("README.md");
    let old = std::fs::read_to_string(&readme).with_context(|| readme.display().to_string())?;
    std::fs::write(&readme, renewed(&old, &table(&text, &reasons()?)?)?)?;
    println!("recorded {} figures in {}", figures.len(), directory().display());
    Ok(())
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

/// Splits one row; the inverse of `quoted` fields joined by commas.
fn split(row: &str) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = row.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// Puts the table between the marks.
fn renewed(readme: &str, table: &str) -> Result<String> {
    match (readme.split_once(BEGIN), readme.split_once(END)) {
        (Some((head, _)), Some((_, tail))) => Ok(format!("{head}{BEGIN}\n\n{table}\n{END}{tail}")),
        _ => bail!("reports/bench/README.md has lost its marks: {BEGIN} and {END}"),
    }
}

/// The newest row of each figure, then the reasons of those that are missed.
fn table(history: &str, reasons: &Reasons) -> Result<String> {
    let mut newest: Vec<Vec<String>> = Vec::new();
    for line in history.lines().skip(1) {
        let row = split(line);
        if row.len() != FIELDS {
            bail!("a row of the history has {} fields, not {FIELDS}: {line}", row.len());
        }
        newest.retain(|known| known[2..4] != row[2..4]);
        newest.push(row);
    }
    newest.sort_by_key(|row| order(&row[2]));
    let mut text =
        "| bar | what | figure | lowest .. highest | goal | | both sides | commit | date |\n".to_owned();
    text += "|---|---|---:|---|---|---|---|---|---|\n";
    for row in &newest {
        let value = |at: usize| row[at].parse::<f64>().unwrap_or(f64::NAN);
        let verdict = if row[10] == "held" { "held" } else { "**missed**" };
        text += &format!(
            "| {} | {} | {} | {} .. {} ({}) | {} | {verdict} | {} | {} | {} |\n",
            row[2],
            row[3],
            with_unit(value(4), &row[8]),
            number(value(5)),
            number(value(6)),
            row[7],
            row[9],
            row[11],
            row[1],
            row[0],
        );
    }
    let mut machines: Vec<&str> = newest.iter().map(|row| row[13].as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    text += &format!("\nMeasured on: {}.\n", machines.join("; "));
    let loads: Vec<f64> = newest.iter().filter_map(|row| row[12].parse().ok()).collect();
    let busiest = loads.iter().copied().fold(0.0, f64::max);
    text += &format!("\nLoad average when a measurement began: at most {}.", number(busiest));
    text += if busiest > WORTH_QUOTING { " **A busy machine: ratios only, and with care.**\n" } else { "\n" };
    let mut missed: Vec<&str> =
        newest.iter().filter(|row| row[10] != "held").map(|row| row[2].as_str()).collect();
    missed.dedup();
    if !missed.is_empty() {
        text += "\n### Missed, why, and what is planned\n\n";
    }
    for bar in missed {
        let reason = reasons.get(bar).map_or("no reason is written down yet", String::as_str);
        text += &format!("- **{bar}**: {}\n", reason.trim());
    }
    Ok(text)
}

/// Orders bars as people do: P2 before P12, P before L.
fn order(bar: &str) -> (bool, u32) {
    (!bar.starts_with('P'), bar.get(1..).and_then(|number| number.parse().ok()).unwrap_or(u32::MAX))
}

fn commit() -> Result<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(top());
    Ok(output(git)?.trim().to_owned())
}

fn today() -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "+%Y-%m-%d"]);
    Ok(output(date)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(date: &str, bar: &str, what: &str, median: &str, held: &str) -> String {
        let fields = [
            date,
            "c0ffee",
            bar,
            what,
            median,
            "1",
            "2",
            "5",
            "",
            "<= 1.1",
            held,
            "ours 1, theirs 2",
            "0.1",
            "2 cores",
        ];
        fields.map(quoted).join(",")
    }

    #[test]
    fn a_row_reads_back_as_written() {
        let fields = ["a,b", "say \"so\"", "", "plain"];
        assert_eq!(split(&fields.map(quoted).join(",")), fields);
    }

    #[test]
    fn the_table_shows_the_newest_of_each_figure_and_the_reason_of_a_miss() {
        let rows = [
            row("2026-01-01", "P12", "copy", "0.5", "MISSED"),
            row("2026-01-01", "P1", "write, deep", "1.3", "MISSED"),
            row("2026-01-02", "P1", "write, deep", "1.05", "held"),
        ];
        let reasons = Reasons::from([("P12".to_owned(), "one core packs\n".to_owned())]);
        let table = table(&format!("{COLUMNS}\n{}\n", rows.join("\n")), &reasons).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].starts_with("| P1 | write, deep | 1.05x"), "{table}");
        assert!(lines[3].starts_with("| P12 | copy | 0.50x"), "{table}");
        assert!(!table.contains("1.3"), "{table}");
        assert!(table.contains("- **P12**: one core packs\n") && !table.contains("- **P1**:"), "{table}");
    }

    #[test]
    fn only_what_lies_between_the_marks_is_renewed() {
        let readme = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let text = renewed(&readme, "new\n").unwrap();
        assert_eq!(text, format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert!(renewed("no marks", "new").is_err());
    }
}
