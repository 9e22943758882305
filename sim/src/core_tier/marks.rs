//! What this tier can see happen, by the names used in `[expect] sometimes`.

use std::collections::BTreeSet;

/// Every mark that this tier has. Others are of bytes and shells, and are not judged here.
pub const MARKS: &[&str] = &[
    "activity-log-failed",
    "activity-log-given-up",
    "clock-stepped",
    "disk-edited",
    "engine-read-failed",
    "file-fault-hit",
    "files-hung",
    "flush-failed",
    "guest-saw-disk-error",
    "killed-at-effect",
    "marks-disowned",
    "marks-void",
    "old-copy-started",
    "overflowed",
    "point-published",
    "power-lost-at-effect",
    "resync-done",
    "session-lost",
    "spill-recovered",
    "spilled",
    "stage-failed",
    "stage-met-full-disk",
    "stage-recovered",
    "store-fault-hit",
    "sync-failed",
    "unclean-restart",
    "unflushed-sectors-lost",
    "vault-restored",
    "vault-went-back-told",
    "writer-fenced",
];

/// The marks of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeSet<&'static str>);

impl Marks {
    pub(super) fn insert(&mut self, mark: &'static str) {
        debug_assert!(MARKS.contains(&mark), "{mark} is none of this tier's marks");
        self.0.insert(mark);
    }

    pub(super) fn take(&mut self) -> BTreeSet<&'static str> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::MARKS;
    use crate::scenario::verbs;

    #[test]
    fn marks_of_this_tier_are_marks_of_the_lab() {
        let unknown: Vec<_> = MARKS.iter().filter(|mark| !verbs::MARKS.contains(mark)).collect();
        assert!(unknown.is_empty() && MARKS.is_sorted(), "{unknown:?}");
    }
}
