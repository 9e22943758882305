//! Figures as people read them: three digits, a unit, a narrow space between thousands.

/// Keeps a figure and its unit on one line.
const SPACE: char = '\u{a0}';

/// Returns a whole number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Returns a number and its noun, which takes an `s` unless there is one.
pub(crate) fn of(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{}{SPACE}{noun}{ending}", count(number))
}

/// Returns a duration.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1000 => format!("{ms}{SPACE}ms"),
        1000..10_000 => format!("{}.{:02}{SPACE}s", seconds, ms % 1000 / 10),
        10_000..100_000 => format!("{}.{}{SPACE}s", seconds, ms % 1000 / 100),
        100_000..6_000_000 => format!("{}{SPACE}min{SPACE}{:02}{SPACE}s", seconds / 60, seconds % 60),
        _ => format!("{}{SPACE}h{SPACE}{:02}{SPACE}min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Returns a round duration in the largest unit of which `step` is a multiple: ticks of one axis share a unit.
pub(crate) fn tick(ms: u64, step: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];
    let fits = UNITS.into_iter().find(|(unit, _)| step.is_multiple_of(*unit));
    match (ms, fits) {
        (0, _) | (_, None) => "0".to_owned(),
        // Seconds with a part read better than thousands of milliseconds.
        (_, Some((1, _))) if ms >= 1000 => {
            format!(
                "{}{SPACE}s",
                format!("{:.3}", ms as f64 / 1000.0).trim_end_matches('0').trim_end_matches('.')
            )
        }
        (_, Some((unit, name))) => format!("{}{SPACE}{name}", ms / unit),
    }
}

/// Returns a moment of a run, to the millisecond.
pub(crate) fn moment(ms: u64) -> String {
    format!("{}.{:03}{SPACE}s", ms / 1000, ms % 1000)
}

/// Returns what a link carries, in bits per second, in which links are sold: three digits are all that is known.
pub fn rate(bytes_per_second: u64) -> String {
    let bits = bytes_per_second as f64 * 8.0;
    let (value, unit) = match bits {
        1e9.. => (bits / 1e9, "Gbit/s"),
        1e6.. => (bits / 1e6, "Mbit/s"),
        _ => (bits / 1e3, "kbit/s"),
    };
    let digits = match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    format!("{digits}{SPACE}{unit}")
}

/// Returns an amount of bytes.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths % 10 {
        0 => format!("{}{SPACE}{}", tenths / 10, UNITS[unit]),
        part => format!("{}.{part}{SPACE}{}", tenths / 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_a_unit_and_about_three_digits() {
        let shown = [0, 999, 1000, 9990, 45_678, 125_000, 7_200_000].map(duration);
        let wanted = ["0 ms", "999 ms", "1.00 s", "9.99 s", "45.6 s", "2 min 05 s", "2 h 00 min"];
        assert_eq!(shown, wanted.map(|text| text.replace(' ', "\u{a0}")));
        assert_eq!([7, 1234, 1_234_567].map(count), ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]);
        let sizes = [512, 2 << 20, 3 << 29].map(bytes);
        assert_eq!(sizes, ["512 B", "2 MiB", "1.5 GiB"].map(|text| text.replace(' ', "\u{a0}")));
        assert_eq!(of(1, "run"), "1\u{a0}run");
    }

    #[test]
    fn links_have_three_digits_and_the_unit_of_their_size() {
        let shown = [10_485_760, 12_500, 125_000_000].map(rate);
        assert_eq!(
            shown,
            ["83.9 Mbit/s", "100 kbit/s", "1.00 Gbit/s"].map(|text| text.replace(' ', "\u{a0}"))
        );
    }

    #[test]
    fn ticks_of_an_axis_share_a_unit() {
        let shown = [0, 20, 1500].map(|ms| tick(ms, 10));
        assert_eq!(shown, ["0", "20 ms", "1.5 s"].map(|text| text.replace(' ', "\u{a0}")));
        let shown = [60_000, 100_000].map(|ms| tick(ms, 20_000));
        let wanted = ["60 s", "100 s"];
        assert_eq!(shown, wanted.map(|text| text.replace(' ', "\u{a0}")));
    }
}
