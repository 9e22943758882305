//! Oracle `guest-untouched`: replication never fails guest I/O and never holds it beyond a bound.
//!
//! The disk's own share is known from the plan: while a machine's disk, state directory or host is
//! faulted, slowness and errors there are the leaf's, not replication's; but a state directory that hangs may
//! cost a wait for a mark, once, and no more than that. A flush may fail by a fault since the flush before it, however
//! long ago that was: what the agent's own flush was told is owed to the guest's next one. Everything else (a cut link,
//! a dead process server, a throttled store, a full spool) must not be noticed by the guest.

use super::Finding;
use crate::workload::notices::Notice;
use std::time::Duration;

/// Longest operation that is not held against replication. The largest guest write is 1 MiB, at most
/// eight are under way per machine, and an overlapping one waits for those before it; on the slowest
/// disk model that is about a third of this.
pub const BOUND: Duration = Duration::from_millis(1_500);

/// Longest operation while the machine's state directory hangs: a first write into an extent waits up to 5 s
/// for its mark. That is promised whatever else is away.
pub const BOUND_OF_MARKS: Duration = Duration::from_millis(6_500);

/// How long after a fault of a leaf its slowness may last, in milliseconds.
const AFTERMATH: u64 = 3_000;

/// A time in which a machine's own disk, files or host are faulted, in milliseconds of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// Start.
    pub from: u64,
    /// End.
    pub to: u64,
    /// Whether errors are excused as well as slowness.
    pub errors: bool,
    /// Longest operation that is excused.
    pub longest: Duration,
}

impl Excuse {
    /// Disks of a scaled estate are slow, and blocks of a resync as large as ever: a guest that waits behind one says
    /// nothing of an estate of full size. Errors count.
    pub fn of_scale() -> Excuse {
        Excuse { from: 0, to: u64::MAX, errors: false, longest: Duration::MAX }
    }
}

/// Judges what the guest of one machine noticed.
pub fn judge(machine: &str, notices: &[Notice], excuses: &[Excuse]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for notice in notices {
        let began = notice.at.saturating_sub(notice.took.as_millis() as u64);
        let excused = |errors: bool| {
            let since = if errors { notice.since } else { began };
            excuses.iter().any(|excuse| {
                since <= excuse.to.saturating_add(AFTERMATH)
                    && notice.at >= excuse.from
                    && (!errors || excuse.errors)
                    && notice.took <= excuse.longest
            })
        };
        let at = notice.at as f64 / 1000.0;
        if let Some(error) = &notice.error
            && !excused(true)
        {
            let what = format!(
                "{machine}: {} on volume {} failed at {at:.3} s: {error}",
                notice.what, notice.volume
            );
            findings.push(Finding::new("guest-untouched", what));
        } else if notice.took > BOUND && !excused(false) {
            let what = format!(
                "{machine}: {} on volume {} took {} ms until {at:.3} s; the bound is {} ms",
                notice.what,
                notice.volume,
                notice.took.as_millis(),
                BOUND.as_millis()
            );
            findings.push(Finding::new("guest-untouched", what));
        }
    }
    findings.truncate(5);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_is_excused_only_while_the_machines_own_leaves_are_faulted() {
        let took = Duration::from_secs(4);
        let slow = Notice { at: 9_000, since: 5_000, volume: 0, what: "write", took, error: None };
        let failed = Notice { since: 9_000, took: Duration::ZERO, error: Some("EIO".into()), ..slow.clone() };
        let excuse = |errors| [Excuse { from: 5_000, to: 6_000, errors, longest: Duration::MAX }];
        assert_eq!(judge("m", std::slice::from_ref(&slow), &[]).len(), 1);
        assert_eq!(judge("m", std::slice::from_ref(&slow), &excuse(false)), vec![]);
        let [hung] = excuse(false).map(|excuse| Excuse { longest: BOUND_OF_MARKS, ..excuse });
        assert_eq!(judge("m", std::slice::from_ref(&slow), &[hung]), vec![]);
        let held = Notice { took: Duration::from_secs(7), ..slow.clone() };
        assert_eq!(judge("m", &[held], &[hung]).len(), 1, "nobody waits for ever");
        assert_eq!(judge("m", std::slice::from_ref(&failed), &excuse(false)).len(), 1);
        assert_eq!(judge("m", std::slice::from_ref(&failed), &excuse(true)), vec![]);
        let owed = |since| [Notice { at: 30_000, since, what: "flush", ..failed.clone() }];
        assert_eq!(
            judge("m", &owed(5_500), &excuse(true)),
            vec![],
            "the agent's flush failed, and the guest's comes late"
        );
        assert_eq!(judge("m", &owed(29_000), &excuse(true)).len(), 1, "another flush was told of it");
        let late = Notice { at: 20_000, ..slow };
        assert_eq!(judge("m", &[late], &excuse(true)).len(), 1);
    }
}
