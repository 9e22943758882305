//! The pace of a guest: when its next operation comes.

use crate::plan::GuestPlan;
use crate::scenario::{Day, PAGE_BYTES};
use std::time::Duration;

/// A guest whose disk cannot keep up makes up for so much of it.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// A guest that slept longer looks whether it is to stop before it does anything.
pub const LONG: Duration = Duration::from_secs(2);

/// How often a job of a guest does something, at the scale of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time from one operation to the next in the mean, in microseconds of its working hours.
    pub micros: u64,
    day: Option<Day>,
    /// Operations come at their times, however long those before them took.
    is_steady: bool,
    /// When the last one was due.
    due: Option<Duration>,
}

impl Pace {
    /// Returns the pace of one job.
    pub fn of(plan: &GuestPlan, scale: u64) -> Pace {
        let jobs = u128::from(plan.jobs.max(1));
        let (amount, rate) = match plan.writes {
            Some(bytes) => (u128::from(PAGE_BYTES), bytes),
            None => (1, u64::from(plan.rate)),
        };
        let micros = amount * 1_000_000 * jobs * u128::from(scale) / u128::from(rate.max(1));
        let micros = u64::try_from(micros).unwrap_or(u64::MAX / 4).max(1);
        Pace { micros, day: plan.day, is_steady: plan.writes.is_some(), due: None }
    }

    /// Returns how long a job waits, from half of the mean to once and a half; `draw` is any number.
    pub fn pause(&mut self, now: Duration, draw: u64) -> Duration {
        let work = self.micros / 2 + draw % self.micros;
        if !self.is_steady {
            return Duration::from_micros(work);
        }
        let begin = self.due.unwrap_or(now).max(now.saturating_sub(BEHIND_MAX)).as_micros() as u64;
        let end = self.day.map_or(begin.saturating_add(work), |day| day.done(begin, work));
        let due = Duration::from_micros(end);
        self.due = Some(due);
        due.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(writes: Option<u64>) -> GuestPlan {
        GuestPlan { model: "pages".into(), rate: 40, jobs: 4, seed: 1, writes, day: None, entropy: None }
    }

    #[test]
    fn a_scaled_guest_writes_its_bytes_divided_by_the_scale() {
        assert_eq!(Pace::of(&guest(None), 1).micros, 100_000);
        assert_eq!(Pace::of(&guest(None), 50).micros, 5_000_000);
        // 4 jobs write a page each 40 s: 409.6 B/s, of which each byte stands for 100.
        assert_eq!(Pace::of(&guest(Some(40_960)), 100).micros, 40_000_000);
        let mut pace = Pace::of(&guest(Some(40_960)), 100);
        assert_eq!(pace.pause(Duration::ZERO, 7), Duration::from_micros(20_000_007));
        let late = Duration::from_secs(25);
        assert_eq!(
            pace.pause(late, 0),
            Duration::from_micros(15_000_007),
            "a slow write delays none after it"
        );
        let stuck = Duration::from_secs(1000);
        assert_eq!(pace.pause(stuck, 0), Duration::ZERO, "what was missed is made up for, a minute of it");
        assert_eq!(pace.due, Some(stuck - BEHIND_MAX + Duration::from_secs(20)));
    }
}
