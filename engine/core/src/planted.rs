//! Planted bugs: known mistakes, compiled in by name, that the lab must catch.
//!
//! A dangerous line asks `planted::active(Bug::X)`. Without the feature `planted-bugs` the answer is
//! a constant `false` and the branch disappears; only the lab's build sets the feature. One bug is
//! active per process at most.

use crate::splitter::Op;

/// The catalogue. Each entry names the mistake, not the symptom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bug {
    /// The guest is acknowledged before the write has its place in the order.
    AckBeforeOrder = 1,
    /// An extent counts as hot although the activity log was not synced.
    SkipActivityLogSync,
    /// The spool forgets a batch when it was sent, not when it was staged durably.
    ForgetAfterSend,
    /// Sequence numbers restart from the last used one after a crash.
    ReuseSequence,
    /// The process server accepts a session of an older generation.
    AcceptOldGeneration,
    /// Writes of zeros reach the disk but not the stream.
    LoseWriteZeroes,
    /// The bitmap of dirty ranges is cleared when the link comes back.
    ClearBitmapOnReconnect,
    /// Recovery of a spill file drops its last intact record without a word.
    DropLastSpillRecord,
    /// Large writes go to the stream on a second path and are overtaken.
    OvertakeLargeWrites,
    /// A recovery point is published before its last segment is in the store.
    PublishBeforeLastSegment,
    /// A unit read from the store is served without checking it.
    ServeUnchecked,
    /// A frame carries the payload in the clear.
    PlaintextFrame,
    /// The process server acknowledges a batch before it is durable in the stage.
    AckBeforeStageSync,
    /// The writer does not look for a newer claim before it acknowledges.
    SkipClaimCheck,
    /// "Already exists" from the store is taken as a lost race without reading back, or as won.
    TrustAlreadyExists,
    /// A marker inside a resync becomes a recovery point.
    PointInsideResync,
    /// Overlapping writes are not serialised.
    OverlapUnordered,
    /// The guest waits for room in the spool.
    GuestWaitsForSpool,
    /// The spill grows beyond its bound.
    UnboundedSpill,
    /// A batch is reported as vaulted when its commit begins.
    VaultedBeforeCommit,
    /// A part of the vault's index that is damaged or lost counts as one that says nothing.
    LostIndexIsEmpty,
    /// A link that failed once is not tried again: nobody armed the timer.
    NeverReconnect,
    /// The writer does not look whether its newest slot is still there.
    SkipLookBack,
    /// What is put again after a refusal or in doubt is put without another look at what it rests on.
    PutAgainUnseen,
    /// A version of the catalogue is put without a look at what it rests on.
    PublishUnseen,
    /// A scrub takes what it learnt at two points for what lies between them.
    ScrubGuessesBetween,
    /// A fold drops what only the end of its stretch shows.
    FoldForgetsTheEnd,
    /// A fold drops what only points within its stretch show.
    FoldForgetsPoints,
    /// What a version of the catalogue does not need is deleted as soon as that is published.
    DeleteGarbageAtOnce,
    /// The maintainer deletes what its next catalogue does not name before that is published.
    DeleteBeforePublish,
    /// Points age by the maintainer's clock alone.
    TrustWallClock,
    /// The maintainer looks for no pins.
    IgnorePins,
    /// Every writer of a log seals under the same identity, so that one key seals two records.
    SealTwiceAlike,
    /// A mount shows zeros where the vault gives no answer.
    ZerosForUnread,
    /// An opening believes that a slot is not there because it was not when it was asked for unasked.
    BelieveNotThere,
    /// A read gives up what was packed elsewhere if another read has taken the newer catalogue already.
    LoseWhatMoved,
    /// Marks that were disowned while the state directory hung are trusted by the next start.
    TrustDisownedMarks,
    /// What was spilled under another vault key is kept and sent.
    KeepSpillOfOtherKey,
    /// A start after a clean stop does not look whether somebody wrote to the disks meanwhile.
    TrustStoppedDisks,
    /// A start of a process server syncs what it finds staged and does not write it again.
    TrustFoundStage,
    /// Vault object and data keys have no twin.
    KeysStoredOnce,
    /// The canary of the CI kit: after an unclean start batches go out in the clear.
    Canary,
    /// What no version of the catalogue needs is named as garbage for ever and never deleted.
    KeepGarbage,
    /// A maintainer deletes without a look whether the vault is still the one in which it is garbage.
    DeleteUnseen,
    /// Nobody looks for what dead writers and maintainers left.
    LeaveOrphans,
    /// A catalogue of another life of the vault counts as one of this one.
    TrustStray,
    /// A version of the catalogue is built upon although tables that it names are gone.
    BuildOnLostTables,
    /// A maintainer that is told of a durable slot takes a log that ended before it for all there is.
    TrustShortLog,
}

/// From this size on, a write counts as large for [`Bug::OvertakeLargeWrites`].
pub const LARGE_WRITE_BYTES: u64 = 256 << 10;

/// Tells whether a planted bug gives this write its place only after the guest was told that it is done:
/// a durable one, because it is safe on the disk already, or a large one, on its second path.
pub fn is_order_late(op: &Op) -> bool {
    match op {
        Op::Write { fua: true, .. } if active(Bug::AckBeforeOrder) => true,
        Op::Write { extent, .. } if extent.bytes() >= LARGE_WRITE_BYTES => active(Bug::OvertakeLargeWrites),
        _ => false,
    }
}

impl Bug {
    /// Every planted bug that the lab must catch.
    pub const ALL: [Bug; 39] = [
        Bug::AckBeforeOrder,
        Bug::SkipActivityLogSync,
        Bug::ForgetAfterSend,
        Bug::ReuseSequence,
        Bug::AcceptOldGeneration,
        Bug::LoseWriteZeroes,
        Bug::ClearBitmapOnReconnect,
        Bug::DropLastSpillRecord,
        Bug::OvertakeLargeWrites,
        Bug::PublishBeforeLastSegment,
        Bug::ServeUnchecked,
        Bug::PlaintextFrame,
        Bug::AckBeforeStageSync,
        Bug::SkipClaimCheck,
        Bug::TrustAlreadyExists,
        Bug::PointInsideResync,
        Bug::OverlapUnordered,
        Bug::GuestWaitsForSpool,
        Bug::UnboundedSpill,
        Bug::VaultedBeforeCommit,
        Bug::LostIndexIsEmpty,
        Bug::NeverReconnect,
        Bug::SkipLookBack,
        Bug::PutAgainUnseen,
        Bug::ScrubGuessesBetween,
        Bug::DeleteBeforePublish,
        Bug::TrustWallClock,
        Bug::IgnorePins,
        Bug::SealTwiceAlike,
        Bug::ZerosForUnread,
        Bug::LoseWhatMoved,
        Bug::BelieveNotThere,
        Bug::TrustDisownedMarks,
        Bug::KeepSpillOfOtherKey,
        Bug::TrustStoppedDisks,
        Bug::TrustFoundStage,
        Bug::KeysStoredOnce,
        Bug::KeepGarbage,
        Bug::LeaveOrphans,
    ];

    /// Bugs of the maintainer that the vault's own tests catch: the proof of a fold before anybody names it, and folds that
    /// say what deleted tables said, leave nothing of two of them to be seen in the lab, and of points within a folded
    /// stretch one run in a hundred has any. Nor has one in a hundred an old copy that comes while much is deleted or while a
    /// version is put, or in which a catalogue arrives that fits.
    pub const OF_THE_MAINTAINER: [Bug; 8] = [
        Bug::FoldForgetsTheEnd,
        Bug::FoldForgetsPoints,
        Bug::DeleteGarbageAtOnce,
        Bug::DeleteUnseen,
        Bug::PublishUnseen,
        Bug::TrustStray,
        Bug::BuildOnLostTables,
        Bug::TrustShortLog,
    ];

    /// Bugs that prove a chain rather than an oracle: `cargo sim canary` plays it. Its story meets it in one seed of a
    /// hundred.
    pub const OF_CI: [Bug; 1] = [Bug::Canary];

    /// Returns every bug that the lab's build has, by all lists.
    pub fn known() -> impl Iterator<Item = Bug> {
        Bug::ALL.into_iter().chain(Bug::OF_THE_MAINTAINER).chain(Bug::OF_CI)
    }

    /// Returns the name used on the command line: the variant in kebab case.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }
}

#[cfg(feature = "planted-bugs")]
mod state {
    use std::sync::atomic::{AtomicU8, Ordering};

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Activates one bug for the whole process, or none.
    pub fn activate(bug: Option<super::Bug>) {
        ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }

    /// Tells whether the bug is active.
    pub fn active(bug: super::Bug) -> bool {
        ACTIVE.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(feature = "planted-bugs")]
pub use state::{activate, active};

/// Tells whether the bug is active: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn active(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::Bug;

    #[test]
    fn names_are_kebab_case_and_unique() {
        let names: std::collections::BTreeSet<_> = Bug::known().map(Bug::name).collect();
        assert_eq!(names.len(), Bug::known().count());
        assert!(names.contains("ack-before-order"));
    }
}
