//! Quantities of scenario files: durations, sizes, rates and ranges of them, each with its unit.
//!
//! A range `a..b unit` is drawn once per seed; nothing else in a scenario varies.

use super::codes::Code;
use super::problem::nearest;
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
    /// Every unit.
    pub const ALL: [Unit; 4] = [Unit::Millis, Unit::Bytes, Unit::Ppm, Unit::Count];

    /// Returns what it is called, with an example.
    pub fn words(self) -> &'static str {
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

impl Range {
    /// Returns it as a person says it, in the largest unit that fits both ends: `2 to 6 s`.
    pub fn words(&self) -> String {
        let units = UNITS.iter().filter(|(name, _, unit)| *unit == self.unit && !name.ends_with("/s"));
        let most = self.low.abs().max(self.high.abs()) as f64;
        let fits = |scale: f64| {
            scale <= most && [self.low, self.high].iter().all(|v| (*v as f64 / scale).fract() == 0.0)
        };
        let largest = units.filter(|(_, scale, _)| fits(*scale)).max_by(|a, b| a.1.total_cmp(&b.1));
        let (name, scale) = match (largest, self.unit) {
            (_, Unit::Ppm) => ("%", 10_000.0),
            (Some((name, scale, _)), _) => (*name, *scale),
            (None, Unit::Millis) => ("ms", 1.0),
            (None, _) => ("", 1.0),
        };
        let show = |value: i64| (value as f64 / scale).to_string();
        let number = if self.low == self.high {
            show(self.low)
        } else {
            format!("{} to {}", show(self.low), show(self.high))
        };
        if name.is_empty() { number } else { format!("{number} {name}") }
    }
}

/// Units by name, with what one of them is worth.
pub const UNITS: &[(&str, f64, Unit)] = &[
    ("ms", 1.0, Unit::Millis),
    ("s", 1_000.0, Unit::Millis),
    ("min", 60_000.0, Unit::Millis),
    ("h", 3_600_000.0, Unit::Millis),
    ("d", 86_400_000.0, Unit::Millis),
    ("B", 1.0, Unit::Bytes),
    ("KiB", 1024.0, Unit::Bytes),
    ("MiB", 1_048_576.0, Unit::Bytes),
    ("GiB", 1_073_741_824.0, Unit::Bytes),
    ("TiB", 1_099_511_627_776.0, Unit::Bytes),
    ("KiB/s", 1024.0, Unit::Bytes),
    ("MiB/s", 1_048_576.0, Unit::Bytes),
    ("Mbit/s", 125_000.0, Unit::Bytes),
    ("Gbit/s", 125_000_000.0, Unit::Bytes),
    ("%", 10_000.0, Unit::Ppm),
    ("/s", 1.0, Unit::Count),
    ("", 1.0, Unit::Count),
];

/// Units that people write and this language spells otherwise.
const SPELT: &[(&str, &str)] = &[
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("m", "min"),
    ("minute", "min"),
    ("minutes", "min"),
    ("hour", "h"),
    ("hours", "h"),
    ("hr", "h"),
    ("day", "d"),
    ("days", "d"),
    ("msec", "ms"),
    ("KB", "KiB"),
    ("kB", "KiB"),
    ("K", "KiB"),
    ("MB", "MiB"),
    ("M", "MiB"),
    ("MB/s", "MiB/s"),
    ("kB/s", "KiB/s"),
    ("percent", "%"),
    ("GB", "GiB"),
    ("TB", "TiB"),
    ("Mbps", "Mbit/s"),
    ("Mb/s", "Mbit/s"),
    ("Gbps", "Gbit/s"),
    ("Gb/s", "Gbit/s"),
];

/// Largest value of a quantity, so that sums of them stay far from overflow.
const LARGEST: f64 = 1e15;

/// What is wrong with a quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Kind.
    pub code: Code,
    /// The sentence.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.help {
            Some(help) => write!(f, "{}; {help}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

fn complaint(code: Code, what: String, help: Option<String>) -> Complaint {
    Complaint { code, what, help }
}

/// Reads `5 s`, `20..40 s`, `3 %`, `12`.
pub fn parse_range(text: &str) -> Result<Range, Complaint> {
    let wrong = || {
        let help = "write a number and its unit, such as \"30 s\" or \"10..20 s\"".to_owned();
        complaint(Code::NoQuantity, format!("{text:?} is no quantity"), Some(help))
    };
    let trimmed = text.trim();
    let split =
        trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(trimmed.len());
    let (numbers, suffix) = (trimmed[..split].trim(), trimmed[split..].trim());
    let (low, high) = numbers.split_once("..").unwrap_or((numbers, numbers));
    let low: f64 = low.parse().map_err(|_| wrong())?;
    let high: f64 = high.parse().map_err(|_| wrong())?;
    if low > high {
        let turned = format!("{high}..{low} {suffix}");
        let help = format!("write {:?}", turned.trim_end());
        let what = format!("the range {text:?} is empty: its first number is the larger one");
        return Err(complaint(Code::EmptyRange, what, Some(help)));
    }
    let Some((_, scale, unit)) = UNITS.iter().find(|unit| unit.0 == suffix) else {
        return Err(unknown_unit(suffix));
    };
    if (low * scale).abs() > LARGEST || (high * scale).abs() > LARGEST {
        return Err(complaint(Code::OutOfBounds, format!("{text:?} is too large"), None));
    }
    Ok(Range { low: (low * scale).round() as i64, high: (high * scale).round() as i64, unit: *unit })
}

fn unknown_unit(suffix: &str) -> Complaint {
    let known: Vec<&str> = UNITS.iter().map(|unit| unit.0).filter(|name| !name.is_empty()).collect();
    let spelt = SPELT.iter().find(|(spelt, _)| *spelt == suffix).map(|(_, name)| *name);
    let help = match spelt.or_else(|| nearest(suffix, known.iter().copied())) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known units: {}", known.join(", ")),
    };
    complaint(Code::NoQuantity, format!("unknown unit {suffix:?}"), Some(help))
}

/// Reads a range and insists on its unit.
pub fn parse_in(text: &str, unit: Unit) -> Result<Range, Complaint> {
    let range = parse_range(text)?;
    if range.unit == unit {
        Ok(range)
    } else {
        let help = format!("this takes {}", unit.words());
        Err(complaint(Code::WrongUnit, format!("{text:?} has the wrong unit here"), Some(help)))
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
        let wrong = |text: &str| parse_range(text).unwrap_err().code;
        assert_eq!(wrong("40..20 s"), Code::EmptyRange);
        assert_eq!(wrong("4 parsec"), Code::NoQuantity);
        assert_eq!(wrong("99999999999999999 d"), Code::OutOfBounds);
        assert_eq!(parse_range("5 sec").unwrap_err().help.unwrap(), "did you mean \"s\"?");
        assert!(parse_in("4 s", Unit::Bytes).unwrap_err().help.unwrap().contains("4 MiB"));
    }

    #[test]
    fn quantities_are_said_in_the_largest_unit_that_fits() {
        let words = |text: &str| parse_range(text).unwrap().words();
        assert_eq!(words("500..6000 ms"), "500 to 6000 ms");
        assert_eq!(words("2000..6000 ms"), "2 to 6 s");
        assert_eq!(words("3072 KiB"), "3 MiB");
        assert_eq!(words("12.5 %"), "12.5 %");
        assert_eq!(words("3..4"), "3 to 4");
        assert_eq!(words("-1 d"), "-1 d");
    }
}
