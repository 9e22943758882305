//! What the lab must do about each planted bug: which oracle has to notice it, and where to look first.
//!
//! An oracle that no bug of this list needs could be deleted without anybody noticing; a test keeps
//! that from happening. The order of scenarios is only a hint that saves time: after it all others
//! are tried.

use redoubt_core::planted::Bug;

/// One planted bug as the lab sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prey {
    /// The bug.
    pub bug: Bug,
    /// The oracle that must notice it; an assertion of the engine or another oracle does not count.
    pub oracle: &'static str,
    /// Scenarios that reach the dangerous line soonest.
    pub scenarios: &'static [&'static str],
}

const MIXED: &[&str] = &["agent-process-crash"];
const STAGE: &[&str] = &["stage-survives-every-power-loss"];
const CLEAN: &[&str] = &["clean-stop-continues-and-then-power-is-lost"];
const FOLDING: &[&str] = &["maintainer-dies-with-each-effect-of-folding"];
const OVERFLOW: &[&str] = &["long-cut-overflows-to-bitmap-then-catches-up"];

/// Returns what the lab must do about a bug.
pub fn prey(bug: Bug) -> Prey {
    let (oracle, scenarios) = match bug {
        Bug::AckBeforeOrder => ("database", &["site-lost-every-point-mounts"][..]),
        Bug::LoseWriteZeroes => ("prefix", MIXED),
        // Both orders of writes under way together are legal; that the source took the other one shows at rest.
        Bug::OverlapUnordered => ("converges", &["steady-stream"][..]),
        Bug::OvertakeLargeWrites => ("prefix", &["steady-stream"][..]),
        Bug::SkipActivityLogSync => ("converges", CLEAN),
        Bug::ForgetAfterSend => ("order-kept", STAGE),
        Bug::AckBeforeStageSync => ("order-kept", &["power-is-lost-with-each-write-of-a-stage"][..]),
        Bug::ReuseSequence => ("order-kept", &["agent-host-power-loss"][..]),
        Bug::AcceptOldGeneration => ("single-writer", &["old-copy-of-a-machine-is-refused"][..]),
        Bug::SkipClaimCheck => ("single-writer", &["newer-writer-is-slow-to-seal"][..]),
        Bug::ClearBitmapOnReconnect => ("converges", OVERFLOW),
        Bug::PointInsideResync => ("prefix", OVERFLOW),
        Bug::DropLastSpillRecord => ("order-kept", CLEAN),
        Bug::PublishBeforeLastSegment => ("points-restorable", &["process-server-dies-with-staged-data"][..]),
        Bug::TrustAlreadyExists => ("loss-never-hidden", &["conflicts-that-are-none"][..]),
        Bug::ServeUnchecked => ("no-silent-damage", &["rot-is-reported-not-served"][..]),
        Bug::LostIndexIsEmpty => ("index-never-needed", &["damage-of-the-index-costs-nothing"][..]),
        Bug::PlaintextFrame => ("secrets", MIXED),
        // Of `Bug::OF_CI`: its story is built in.
        Bug::Canary => ("secrets", &["canary"][..]),
        Bug::GuestWaitsForSpool => ("guest-untouched", OVERFLOW),
        Bug::UnboundedSpill => ("bounded", OVERFLOW),
        Bug::VaultedBeforeCommit => ("loss-never-hidden", &["site-lost-every-point-mounts"][..]),
        Bug::NeverReconnect => ("converges", STAGE),
        Bug::SkipLookBack => {
            ("points-restorable", &["old-copy-of-the-vault-under-a-running-process-server"][..])
        }
        Bug::PutAgainUnseen => {
            ("points-restorable", &["old-copy-takes-the-place-while-the-store-throttles"][..])
        }
        Bug::PublishUnseen => ("single-writer", &["old-copy-takes-the-place-while-the-store-throttles"][..]),
        Bug::ScrubGuessesBetween => ("scrub-exact", &["scrub-finds-exactly-the-damage"][..]),
        // Of `Bug::OF_THE_MAINTAINER`: what guards against them leaves the lab nothing, or too little, to see.
        Bug::FoldForgetsTheEnd | Bug::DeleteGarbageAtOnce => ("points-restorable", &[][..]),
        Bug::FoldForgetsPoints => ("prefix", &["mounts-race-with-retention"][..]),
        Bug::KeepGarbage => ("nothing-left-behind", &["what-is-given-up-is-deleted"][..]),
        Bug::DeleteUnseen => ("points-restorable", &["old-copy-takes-the-place-while-the-log-is-folded"][..]),
        Bug::TrustStray | Bug::BuildOnLostTables | Bug::TrustShortLog => {
            ("points-restorable", &["old-copy-of-the-vault-under-a-running-process-server"][..])
        }
        Bug::LeaveOrphans => ("nothing-left-behind", FOLDING),
        Bug::DeleteBeforePublish => ("scrub-exact", &["process-server-dies-with-each-effect"][..]),
        Bug::TrustWallClock => ("points-restorable", &["retention-with-a-clock-years-off"][..]),
        Bug::IgnorePins => ("mount-holds", &["mounts-race-with-retention"][..]),
        Bug::SealTwiceAlike => ("secrets", &["two-process-servers-want-one-log"][..]),
        Bug::ZerosForUnread => ("mount-holds", &["mount-outlives-an-outage"][..]),
        Bug::LoseWhatMoved => ("mount-holds", &["readers-forget-under-mounts"][..]),
        Bug::BelieveNotThere => ("points-restorable", &["scrub-beside-everything"][..]),
        Bug::TrustStoppedDisks => ("prefix", &["disk-is-written-while-the-agent-is-stopped"][..]),
        Bug::TrustFoundStage => ("order-kept", &["process-server-dies-in-syncs-that-fail"][..]),
        Bug::KeepSpillOfOtherKey => ("converges", &["services-get-a-new-vault-key-during-a-cut"][..]),
        Bug::KeysStoredOnce => ("points-restorable", &["damage-of-a-key-costs-nothing"][..]),
        Bug::TrustDisownedMarks => ("converges", &["state-directory-hangs"][..]),
    };
    Prey { bug, oracle, scenarios }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::verbs::ORACLES;

    #[test]
    fn each_oracle_is_needed_by_a_planted_bug_and_each_bug_needs_a_known_oracle() {
        let needed: std::collections::BTreeSet<_> =
            Bug::ALL.into_iter().map(|bug| prey(bug).oracle).collect();
        let known: std::collections::BTreeSet<_> = ORACLES.iter().copied().collect();
        assert_eq!(needed, known);
    }
}
