//! A day of a guest: hours in which it works, and the rest.
//!
//! What is *not* here: what it writes (`crate::workload`).

use super::keys::DAY;
use super::quantity::{Range, Unit};
use super::reader::Reader;
use super::tree::Node;
use super::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A day in milliseconds.
pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;

/// Parts per million of the whole.
const WHOLE: u64 = 1_000_000;

/// The hours of a guest. A run begins at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// When it begins to work, in milliseconds since midnight.
    pub from: u64,
    /// When it ends; before `from` it is the next day.
    pub until: u64,
    /// Share of its rate at all other hours, in parts per million.
    pub outside: u32,
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |ms: u64| Range { low: ms as i64, high: ms as i64, unit: Unit::Millis }.words();
        write!(
            f,
            "from {} until {}, else {} %",
            words(self.from),
            words(self.until),
            f64::from(self.outside) / 1e4
        )
    }
}

impl Day {
    /// Returns the share of the rate at a moment, in parts per million, and when it next changes.
    fn at(&self, ms: u64) -> (u64, u64) {
        let (midnight, time) = (ms / DAY_MS * DAY_MS, ms % DAY_MS);
        let is_open = match self.from < self.until {
            true => (self.from..self.until).contains(&time),
            false => time >= self.from || time < self.until,
        };
        let later = |edge: u64| if edge > time { midnight + edge } else { midnight + DAY_MS + edge };
        let share = if is_open { WHOLE } else { u64::from(self.outside) };
        (share, later(self.from).min(later(self.until)))
    }

    /// Returns when work is done that would take `micros` microseconds at the full rate and begins at a moment, in
    /// microseconds as well.
    pub fn done(&self, begun: u64, micros: u64) -> u64 {
        let (mut now, mut left) = (begun, u128::from(micros) * u128::from(WHOLE));
        loop {
            let (share, change) = self.at(now / 1000);
            let until = change * 1000;
            let room = u128::from(until - now) * u128::from(share);
            if room >= left {
                // There is no room where the share is nothing.
                return now + (left / u128::from(share.max(1))) as u64;
            }
            left -= room;
            now = until;
        }
    }

    /// Returns the share of a whole day's full rate, in parts per million.
    pub fn mean(&self) -> u64 {
        let open =
            if self.from < self.until { self.until - self.from } else { DAY_MS - self.from + self.until };
        (open * WHOLE + (DAY_MS - open) * u64::from(self.outside)) / DAY_MS
    }
}

/// Reads `day` of a load.
pub(super) fn read(reader: &mut Reader, node: &Node) -> Option<Day> {
    let table = reader.place(node, &DAY)?;
    super::read::required(reader, node.span, table, &DAY);
    let mut time = |key: &str| {
        let node = table.get(key)?;
        let ms = reader.amount(node, Unit::Millis, 0)? as u64;
        if ms > DAY_MS {
            reader.report(Code::OutOfBounds, node.span, "a day has 24 h");
            return None;
        }
        Some(ms)
    };
    let (from, until) = (time("from"), time("until"));
    let outside = table.get("outside").and_then(|node| super::scaled::share(reader, node)).unwrap_or(0);
    let (from, until) = (from?, until?);
    if from == until {
        let problem =
            Problem::new(Code::OutOfBounds, node.span, "this day has no hours: it begins when it ends");
        reader.problem(problem.help("leave `day` out if all hours are alike"));
        return None;
    }
    Some(Day { from, until, outside })
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: u64 = 3_600_000_000;

    #[test]
    fn work_waits_for_the_hours_in_which_it_is_done() {
        let office = Day { from: 8 * H / 1000, until: 18 * H / 1000, outside: 0 };
        assert_eq!(office.done(9 * H, H), 10 * H);
        assert_eq!(office.done(0, H), 9 * H);
        assert_eq!(office.done(17 * H, 2 * H), (24 + 9) * H, "the second hour is done next day");
        let slow = Day { outside: 500_000, ..office };
        assert_eq!(slow.done(0, H), 2 * H);
        assert_eq!(slow.done(7 * H, H), 8 * H + H / 2);
        assert_eq!(slow.mean(), (10 * 1_000_000 + 14 * 500_000) / 24);
    }

    #[test]
    fn a_night_goes_over_midnight() {
        let night = Day { from: 22 * H / 1000, until: 4 * H / 1000, outside: 0 };
        assert_eq!(night.done(0, H), H);
        assert_eq!(night.done(3 * H, 2 * H), 23 * H);
        assert_eq!(night.done(23 * H, 3 * H), 26 * H);
        assert_eq!(night.mean(), 250_000);
    }
}
