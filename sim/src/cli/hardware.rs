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

/// Reads the numbers of a model's file, in its order. Tables of limits come after them.
fn numbers(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().take_while(|line| !line.starts_with('['));
    let number = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        match key.strip_suffix("_us") {
            Some(name) => Some((name.replace('_', " "), times(&format!("times = {value}"))?)),
            None => Some(words(key, value.replace('_', "").parse().ok()?)),
        }
    };
    lines.filter_map(number).collect()
}

/// Shows the middle of a distribution and its end.
fn times(table: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Times {
        times: hw::Quantiles,
    }
    let hw::Quantiles { p50, p99, max, .. } = hw::parse::<Times>(table).ok()?.times;
    let [p50, p99, max] = [p50, p99, max].map(hw::show::time);
    Some(format!("{p50}, p99 {p99}, max {max}"))
}

/// The unit is part of each key's name.
fn words(key: &str, value: u64) -> (String, String) {
    let (name, value) = match key {
        "bytes_per_second" => ("rate", hw::show::rate(value as f64)),
        _ => match (key.strip_suffix("_bytes_per_second"), key.strip_suffix("_bytes")) {
            (Some(name), _) => {
                return (format!("{} rate", name.replace('_', " ")), hw::show::rate(value as f64));
            }
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
        let (_, lan) = hw::LINKS.iter().find(|(name, _)| *name == "lan").unwrap();
        let numbers = numbers(lan);
        let words: Vec<String> = numbers.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(
            words,
            ["rate 120 MB/s", "queue 1 MiB", "loss ppm 0", "delay 200 µs, p99 600 µs, max 5 ms"]
        );
        assert_eq!(scaled(1536, &[(1 << 10, "KiB"), (1, "B")]), "1.5 KiB");
    }
}
