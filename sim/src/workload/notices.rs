//! What a guest noticed of its disks that is worth judging: errors, and operations that took long.

use std::collections::BTreeMap;
use std::time::Duration;

/// Latency above which an operation is noted, for the guest-untouched oracle to judge.
pub const SLOW: Duration = Duration::from_millis(150);

/// Something worth judging that a guest noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Milliseconds of the run at the end of the operation.
    pub at: u64,
    /// Since when a fault of the disk may have made it fail: its begin. A flush answers for all that came since the
    /// flush before it: since that one's begin.
    pub since: u64,
    /// Volume.
    pub volume: u16,
    /// Kind of operation.
    pub what: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The device's answer, if it was an error.
    pub error: Option<String>,
}

/// What one machine's guest noticed, in the order of the ends of its operations.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    noted: Vec<Notice>,
    /// When the newest flush of a volume that ended began, in milliseconds of the run.
    flushes: BTreeMap<u16, u64>,
}

impl Notices {
    /// An operation ended: `"flush"` or another, at that time of the run.
    pub fn ended(
        &mut self,
        at: Duration,
        volume: u16,
        what: &'static str,
        took: Duration,
        error: Option<&str>,
    ) {
        let began = at.saturating_sub(took).as_millis() as u64;
        let mut since = began;
        if what == "flush" {
            let newest = self.flushes.entry(volume).or_default();
            since = *newest;
            *newest = began.max(since);
        }
        if error.is_some() || took > SLOW {
            let (at, error) = (at.as_millis() as u64, error.map(str::to_owned));
            self.noted.push(Notice { at, since, volume, what, took, error });
        }
    }

    /// Returns all of them.
    pub fn noted(&self) -> &[Notice] {
        &self.noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_answers_for_all_since_the_one_before_it() {
        let mut notices = Notices::default();
        let mut ended = |at, what, error| {
            notices.ended(Duration::from_millis(at), 1, what, Duration::from_millis(10), error);
        };
        ended(50, "flush", Some("EIO"));
        ended(100, "flush", None);
        ended(200, "write", Some("EIO"));
        ended(900, "flush", Some("EIO"));
        ended(950, "flush", Some("EIO"));
        let since: Vec<u64> = notices.noted().iter().map(|notice| notice.since).collect();
        assert_eq!(since, [0, 190, 90, 890]);
    }
}
