//! Days of the calendar, for entries that end on one. No clock is read here.

use std::fmt;
use std::str::FromStr;

/// A day, as days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(i64);

const DAYS_OF_400_YEARS: i64 = 146_097;
const SECONDS_OF_A_DAY: u64 = 86_400;

/// The text is no day, such as `2026-12-15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a day is written as 2026-12-15")]
pub struct NoDate;

impl Date {
    /// Returns the day of a moment in UTC.
    pub fn of_unix(seconds: u64) -> Date {
        Date((seconds / SECONDS_OF_A_DAY) as i64)
    }

    /// Returns the days from another day to this one.
    pub fn days_since(self, other: Date) -> i64 {
        self.0 - other.0
    }

    /// Years are counted from March, so that a leap day is the last one of its year.
    fn of(year: i64, month: i64, day: i64) -> Date {
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
        let days = year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1;
        Date(era * DAYS_OF_400_YEARS + days - 719_468)
    }

    fn parts(self) -> (i64, i64, i64) {
        let days = self.0 + 719_468;
        let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        (era * 400 + year, month, day)
    }
}

impl FromStr for Date {
    type Err = NoDate;

    fn from_str(text: &str) -> Result<Date, NoDate> {
        let parts: Vec<i64> = text
            .split('-')
            .map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { part.parse() } else { Ok(-1) })
            .collect::<Result<_, _>>()
            .map_err(|_| NoDate)?;
        let [year, month, day] = parts[..] else { return Err(NoDate) };
        let date = Date::of(year, month.clamp(1, 12), day.clamp(1, 31));
        // A day that there is not would be shown as another one.
        if text.len() == 10 && date.to_string() == text { Ok(date) } else { Err(NoDate) }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.parts();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_written() {
        let mut day = Date::of_unix(0);
        assert_eq!(day.to_string(), "1970-01-01");
        for _ in 0..60_000 {
            let text = day.to_string();
            assert_eq!(text.parse(), Ok(day));
            day = Date(day.0 + 1);
            assert!(day.to_string() > text);
        }
        assert_eq!(Date::of_unix(1_795_996_800).to_string(), "2026-11-30");
        let days = |text: &str| text.parse::<Date>().unwrap();
        assert_eq!(days("2028-03-01").days_since(days("2028-02-28")), 2);
    }

    #[test]
    fn a_day_that_there_is_not_is_none() {
        for text in [
            "",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "26-01-01",
            "2026-01-01 ",
            "2026-01--1",
        ] {
            assert_eq!(text.parse::<Date>(), Err(NoDate), "{text}");
        }
    }
}
