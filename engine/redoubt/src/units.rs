//! Durations, sizes and times as people write them: `15s`, `500ms`, `5m`, `64 MiB`, `2026-03-01 14:02`.

use std::time::Duration;

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            return Err(format!(
                "{text:?} is no duration; write a number and a unit, such as 500ms, 15s or 5m"
            ));
        }
    };
    let millis = number.and_then(|number| number.checked_mul(factor)).filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(|| {
        format!("{text:?} is no duration; write a number above zero and a unit, such as 500ms, 15s or 5m")
    })
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long before now.
    Age(Duration),
    /// Wall-clock milliseconds.
    Wall(u64),
}

impl Since {
    /// Returns the wall-clock milliseconds, if it is `now`.
    pub(crate) fn wall(self, now: u64) -> u64 {
        match self {
            Since::Age(age) => now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            Since::Wall(millis) => millis,
        }
    }
}

/// Reads an age, as [`duration`] does, or a time in UTC, as [`show_wall`] shows it or a beginning of that.
pub(crate) fn since(text: &str) -> Result<Since, String> {
    let wrong = || {
        format!(
            "{text:?} is no age and no time; write 90m, 2h or 3d, or 2026-03-01 or \"2026-03-01 14:02\" (UTC)"
        )
    };
    match text.contains('-') {
        true => wall(text.trim()).map(Since::Wall).ok_or_else(wrong),
        false => duration(text).map(Since::Age).map_err(|_| wrong()),
    }
}

fn wall(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = match time.len() {
        5 => numbers(&format!("{time}:00"), ':', [2, 2, 2])?,
        _ => numbers(time, ':', [2, 2, 2])?,
    };
    if !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // The other way round of `show_wall`.
    let (shifted, month_of_year) =
        if month > 2 { (year, month - 3) } else { (year - 1, month.checked_add(9)?) };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * month_of_year + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let millis = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000;
    // A day that no month has comes out as another one.
    show_wall(millis).starts_with(date).then_some(millis)
}

/// Reads numbers of so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let parts: Vec<&str> = text.split(between).collect();
    let is_number = |(part, digits): (&&str, &usize)| {
        part.len() == *digits && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if parts.len() != digits.len() || !parts.iter().zip(&digits).all(is_number) {
        return None;
    }
    let numbers: Vec<u64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    numbers.try_into().ok()
}

/// Reads a size: a whole number and nothing, `B`, `KiB`, `MiB`, `GiB` or `TiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => Some(0),
        "KiB" | "K" => Some(10),
        "MiB" | "M" => Some(20),
        "GiB" | "G" => Some(30),
        "TiB" | "T" => Some(40),
        _ => None,
    };
    let bytes = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("{text:?} is no size; write a number and a unit, such as 64MiB or 8GiB"))
}

fn split(text: &str) -> (Option<u64>, &str) {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    (text[..digits].parse().ok(), text[digits..].trim())
}

/// Shows a size with one decimal.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Shows a duration in its largest fitting unit, such as `1.2 s` or `5 min`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 120.0 => (s, "s"),
        s if s < 7_200.0 => (s / 60.0, "min"),
        s if s < 172_800.0 => (s / 3_600.0, "h"),
        s => (s / 86_400.0, "d"),
    };
    let text = format!("{value:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// Shows wall-clock milliseconds as UTC, such as `2026-03-01 14:02:11`.
pub(crate) fn show_wall(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days (proleptic Gregorian, eras of 400 years from 1 March 0000).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("500 ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("512"), Ok(512));
        for wrong in ["", "s", "15", "-1s", "0s", "1w", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(size("1 XB").is_err() && size("99999999 TiB").is_err());
    }

    #[test]
    fn a_time_is_an_age_or_what_is_shown() {
        assert_eq!(since("2h"), Ok(Since::Age(Duration::from_secs(7200))));
        assert_eq!(since("2h").unwrap().wall(7_200_500), 500);
        assert_eq!(since("3d").unwrap().wall(5), 0, "before there were clocks");
        for (text, shown) in [
            ("2026-03-01", "2026-03-01 00:00:00"),
            ("2026-03-01 14:02", "2026-03-01 14:02:00"),
            ("2026-03-01T14:02:11Z", "2026-03-01 14:02:11"),
            ("2000-02-29 23:59:59", "2000-02-29 23:59:59"),
            ("1970-01-01", "1970-01-01 00:00:00"),
        ] {
            let Ok(Since::Wall(millis)) = since(text) else { panic!("{text}") };
            assert_eq!(show_wall(millis), shown);
        }
        for days in (0..200_000).step_by(13) {
            let millis = days * 86_400_000 + 86_399_000;
            assert_eq!(since(&show_wall(millis)), Ok(Since::Wall(millis)));
        }
        for wrong in [
            "",
            "now",
            "15",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-00",
            "2026-1-1",
            "1969-12-31",
        ] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "2026-03-01 24:00",
            "2026-03-01 1:00",
            "2026-03-01 10",
            "2026-03-01 10:00:60",
            "-2h",
            "2026-04-31",
        ] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wall_time_is_shown_as_a_civil_date() {
        assert_eq!(show_wall(0), "1970-01-01 00:00:00");
        assert_eq!(show_wall(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(show_wall(1_772_373_731_000), "2026-03-01 14:02:11");
    }
}
