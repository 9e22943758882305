//! Quantities of scenario files: durations, sizes, rates and ranges of them, each with its unit.
//!
//! A range `a..b unit` is drawn once per seed; nothing else in a scenario varies.

use std::fmt;

/// What a number of a scenario counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Bytes.
    Bytes,
    /// Parts per million.
    Ppm,
    /// A plain count.
    Count,
}

impl Unit {
    fn example(self) -> &'static str {
        match self {
            Unit::Millis => "a duration such as \"30 s\"",
            Unit::Bytes => "a size such as \"4 MiB\"",
            Unit::Ppm => "a share such as \"5 %\"",
            Unit::Count => "a plain number such as \"3\"",
        }
    }
}

/// A value that is fixed (`low == high`) or drawn from `low..=high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Smallest value, in units of `unit`; negative only for clock steps.
    pub low: i64,
    /// Largest value.
    pub high: i64,
    /// What is counted.
    pub unit: Unit,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: i64| match self.unit {
            Unit::Millis => format!("{} s", value as f64 / 1000.0),
            Unit::Bytes => format!("{value} B"),
            Unit::Ppm => format!("{} %", value as f64 / 10_000.0),
            Unit::Count => value.to_string(),
        };
        if self.low == self.high {
            f.write_str(&show(self.low))
        } else {
            write!(f, "{}..{}", show(self.low), show(self.high))
        }
    }
}

const UNITS: &[(&str, f64, Unit)] = &[
    ("ms", 1.0, Unit::Millis),
    ("s", 1_000.0, Unit::Millis),
    ("min", 60_000.0, Unit::Millis),
    ("h", 3_600_000.0, Unit::Millis),
    ("d", 86_400_000.0, Unit::Millis),
    ("B", 1.0, Unit::Bytes),
    ("KiB", 1024.0, Unit::Bytes),
    ("MiB", 1_048_576.0, Unit::Bytes),
    ("KiB/s", 1024.0, Unit::Bytes),
    ("MiB/s", 1_048_576.0, Unit::Bytes),
    ("%", 10_000.0, Unit::Ppm),
    ("/s", 1.0, Unit::Count),
    ("", 1.0, Unit::Count),
];

/// Reads `5 s`, `20..40 s`, `3 %`, `12`; the error is a sentence for the author.
pub fn parse_range(text: &str) -> Result<Range, String> {
    let wrong =
        || format!("{text:?} is no quantity; write a number and its unit, such as \"30 s\" or \"10..20 s\"");
    let text_trimmed = text.trim();
    let split = text_trimmed
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'))
        .unwrap_or(text_trimmed.len());
    let (numbers, suffix) = (text_trimmed[..split].trim(), text_trimmed[split..].trim());
    let (low, high) = numbers.split_once("..").unwrap_or((numbers, numbers));
    let low: f64 = low.parse().map_err(|_| wrong())?;
    let high: f64 = high.parse().map_err(|_| wrong())?;
    if low > high {
        return Err(format!("the range {text:?} is empty: its first number is the larger one"));
    }
    let known: Vec<&str> = UNITS.iter().map(|unit| unit.0).filter(|name| !name.is_empty()).collect();
    let Some((_, scale, unit)) = UNITS.iter().find(|unit| unit.0 == suffix) else {
        return Err(format!("unknown unit {suffix:?}; known are {}", known.join(", ")));
    };
    Ok(Range { low: (low * scale).round() as i64, high: (high * scale).round() as i64, unit: *unit })
}

/// Reads a range and insists on its unit.
pub fn parse_in(text: &str, unit: Unit) -> Result<Range, String> {
    let range = parse_range(text)?;
    if range.unit == unit {
        Ok(range)
    } else {
        Err(format!("{text:?} has the wrong unit here; this takes {}", unit.example()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_carry_their_unit() {
        assert_eq!(parse_range("20..40 s").unwrap(), Range { low: 20_000, high: 40_000, unit: Unit::Millis });
        assert_eq!(parse_range("1.5 MiB").unwrap().low, 1_572_864);
        assert_eq!(parse_range("0..3 %").unwrap().high, 30_000);
        assert_eq!(parse_range("-3 d").unwrap().low, -259_200_000);
        // Neither has an exact binary fraction.
        assert_eq!(parse_range("1.001 s").unwrap().low, 1001);
        assert_eq!(parse_range("12.3457 %").unwrap().low, 123_457);
        assert!(parse_range("40..20 s").unwrap_err().contains("empty"));
        assert!(parse_range("4 parsec").unwrap_err().contains("unknown unit"));
        assert!(parse_in("4 s", Unit::Bytes).unwrap_err().contains("4 MiB"));
    }
}
