//! The figures of an estate as tables for a terminal.

use crate::cli::{call, paint};
use crate::harness::Verdict;
use crate::scenario::{Range, Unit};
use comfy_table::{Cell, CellAlignment, Color};
use redoubt_reports::capacity::{Capacity, Group, Link, Places};

/// Shows a rate as links are sold.
pub(super) fn rate(bytes: u64) -> String {
    plain(&redoubt_reports::rate(bytes))
}

/// A terminal has plain spaces.
fn plain(words: &str) -> String {
    words.replace('\u{a0}', " ")
}

/// Shows what is written per second.
fn written(bytes: u64) -> String {
    match bytes as f64 {
        b @ 1_048_576.0.. => format!("{} MiB/s", digits(b / 1_048_576.0)),
        b => format!("{} KiB/s", digits(b / 1024.0)),
    }
}

/// Three digits are all that is known.
fn digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Shows a duration.
fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..600_000 => format!("{} s", digits(ms as f64 / 1e3)),
        600_000..7_200_000 => format!("{} min", digits(ms as f64 / 6e4)),
        _ => format!("{} h", digits(ms as f64 / 3.6e6)),
    }
}

/// A promise is round.
fn promised(ms: u64) -> String {
    Range { low: ms as i64, high: ms as i64, unit: Unit::Millis }.words()
}

fn places(figures: Option<Places>, rpo_ms: Option<u64>) -> Vec<Cell> {
    let Some(Places { p50, p95, p99, max }) = figures else {
        return (0..4).map(|_| Cell::new("-").set_alignment(CellAlignment::Right)).collect();
    };
    let cell = |ms: u64| {
        let colour = match rpo_ms {
            Some(rpo) if ms > rpo => Color::Red,
            _ => Color::Reset,
        };
        paint::cell(time(ms), colour).set_alignment(CellAlignment::Right)
    };
    [p50, p95, p99, max].map(cell).to_vec()
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// One measure of every group.
fn table(title: &str, groups: &[Group], of: fn(&Group) -> Option<Places>, is_held: bool) {
    if groups.iter().all(|group| of(group).is_none()) {
        return;
    }
    println!("{title}");
    let mut table = paint::table(&["group", "machines", "writes", "rpo", "p50", "p95", "p99", "max"]);
    for group in groups {
        let mut row = vec![
            Cell::new(&group.name),
            right(group.machines.to_string()),
            right(written(group.writes)),
            right(group.rpo_ms.map_or_else(|| "-".to_owned(), promised)),
        ];
        row.extend(places(of(group), group.rpo_ms.filter(|_| is_held)));
        table.add_row(row);
    }
    println!("{table}\n");
}

/// Prints everything.
pub(super) fn print(capacity: &Capacity, verdict: Verdict) {
    let scale = match capacity.scale {
        1 => String::new(),
        by => format!(", played at 1/{by}; figures are no finer than {}", time(capacity.finest_ms)),
    };
    let seeds = match capacity.seeds {
        1 => "1 seed".to_owned(),
        many => format!("{many} seeds"),
    };
    println!("{}: link {}, {seeds}{scale}\n", capacity.scenario, rate(capacity.link));
    let groups = &capacity.groups;
    table("Lag: what no process server holds, each second", groups, |group| group.lag_ms, true);
    table(
        "Loss if the source were gone at a random second: age of the newest point",
        groups,
        |g| g.loss_ms,
        true,
    );
    table("Mount: until the newest point shows its first block", groups, |group| group.mount_ms, false);
    if !capacity.tried.is_empty() {
        println!("Links");
        let mut table = paint::table(&["link", "promise", "lag p99", "loss p99", "what was missed first"]);
        for tried in &capacity.tried {
            table.add_row(link(tried));
        }
        println!("{table}\n");
    }
    if verdict > Verdict::NotConverged {
        let what = capacity.given.missed.first().map_or("", String::as_str);
        let more = call::line(&format!("run {}", capacity.scenario));
        println!("{}", paint::paint(&format!("{}: {what}; `{more}` says more", verdict.word()), verdict));
        return;
    }
    for (number, words) in capacity.words().iter().enumerate() {
        let words = plain(words);
        println!("{}", if number == 0 { paint::paint(&words, verdict) } else { words });
    }
}

fn link(tried: &Link) -> Vec<Cell> {
    let colour = if tried.is_kept { Color::Green } else { Color::Yellow };
    let figure = |ms: Option<u64>| right(ms.map_or_else(|| "-".to_owned(), time));
    let word = if tried.is_kept { "kept" } else { tried.verdict.as_str() };
    vec![
        Cell::new(rate(tried.link)),
        paint::cell(word, colour),
        figure(tried.lag_p99_ms),
        figure(tried.loss_p99_ms),
        Cell::new(tried.missed.first().and_then(|missed| missed.lines().next()).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_the_unit_of_their_size() {
        assert_eq!([10_485_760, 12_500, 125_000_000].map(rate), ["83.9 Mbit/s", "100 kbit/s", "1.00 Gbit/s"]);
        assert_eq!([40_960, 10_485_760].map(written), ["40.0 KiB/s", "10.0 MiB/s"]);
        assert_eq!(
            [7, 1500, 300_000, 900_000, 86_400_000].map(time),
            ["7 ms", "1.50 s", "300 s", "15.0 min", "24.0 h"]
        );
    }
}
