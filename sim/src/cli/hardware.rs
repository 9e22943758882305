//! Hardware models as a report shows them: each number with its unit, and where it comes from.

use crate::scenario::Estate;
use redoubt_hw_models as hw;
use redoubt_reports::model::Hardware;

/// Returns the models that an estate stands on.
pub(super) fn of(estate: &Estate) -> Vec<Hardware> {
    let used = [
        ("disk", estate.disk.as_str(), &hw::DISKS[..]),
        ("lan", "lan", &hw::LINKS),
        ("wan", &estate.link, &hw::LINKS),
        ("store", &estate.store, &hw::STORES),
    ];
    let model = |(part, name, models): (&str, &str, &[(&str, &str)])| {
        let (_, text) = models.iter().find(|(known, _)| *known == name)?;
        let source = hw::source(text).ok()?;
        Some(Hardware {
            part: part.to_owned(),
            model: name.to_owned(),
            how: source.how.to_string(),
            note: source.note,
            numbers: numbers(text),
        })
    };
    used.into_iter().filter_map(model).collect()
}

/// Reads the numbers of a model's file, in its order.
fn numbers(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().take_while(|line| !line.starts_with('['));
    let number = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some(words(key.trim(), value.trim().replace('_', "").parse().ok()?))
    };
    lines.filter_map(number).collect()
}

/// The unit is part of each key's name.
fn words(key: &str, value: u64) -> (String, String) {
    let (name, value) = match key {
        "bytes_per_second" => ("rate", scaled(value, &[(1_000_000, "MB/s"), (1000, "kB/s"), (1, "B/s")])),
        _ => match (key.strip_suffix("_us"), key.strip_suffix("_bytes")) {
            (Some(name), _) => (name, scaled(value, &[(1_000_000, "s"), (1000, "ms"), (1, "µs")])),
            (_, Some(name)) => (name, scaled(value, &[(1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")])),
            _ => (key, value.to_string()),
        },
    };
    (name.replace('_', " "), value)
}

/// Writes a value in the largest unit that is not larger than it.
fn scaled(value: u64, units: &[(u64, &str)]) -> String {
    let fits = units.iter().find(|(unit, _)| value >= *unit);
    match fits.or(units.last()) {
        Some((unit, name)) if value.is_multiple_of(*unit) => format!("{} {name}", value / unit),
        Some((unit, name)) => format!("{:.1} {name}", value as f64 / *unit as f64),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_model_is_shown_with_its_unit() {
        let numbers = numbers(hw::LINKS[0].1);
        let words: Vec<String> = numbers.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(words, ["delay 200 µs", "jitter 300 µs", "rate 120 MB/s", "queue 1 MiB"]);
        assert_eq!(scaled(12_500_000, &[(1_000_000, "MB/s"), (1, "B/s")]), "12.5 MB/s");
    }
}
