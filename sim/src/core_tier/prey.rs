//! What the core tier must do about each planted bug of the pure machines: which oracle notices it, and where first.
//!
//! Bugs of bytes, of the vault's format, of mounts and of the shells are not here: this tier has none of these. Their
//! oracles are in the full lab ([`crate::prey`]).

use redoubt_core::planted::Bug;

/// One planted bug as this tier sees it.
#[derive(Clone, Copy, Debug)]
pub struct Prey {
    /// The bug.
    pub bug: Bug,
    /// The oracle that must notice it; an assertion of a machine does not count.
    pub oracle: &'static str,
    /// The scenario that reaches it soonest.
    pub scenario: &'static str,
}

const fn prey(bug: Bug, oracle: &'static str, scenario: &'static str) -> Prey {
    Prey { bug, oracle, scenario }
}

/// Every planted bug that this tier must catch.
pub const ALL: &[Prey] = &[
    prey(Bug::AckBeforeOrder, "prefix", "steady-stream"),
    prey(Bug::OvertakeLargeWrites, "prefix", "steady-stream"),
    prey(Bug::LoseWriteZeroes, "prefix", "steady-stream"),
    prey(Bug::OverlapUnordered, "converges", "steady-stream"),
    prey(Bug::SkipActivityLogSync, "prefix", "clean-stop-continues-and-then-power-is-lost"),
    prey(Bug::ForgetAfterSend, "order-kept", "stage-survives-every-power-loss"),
    prey(Bug::AckBeforeStageSync, "order-kept", "stage-survives-every-power-loss"),
    prey(Bug::ReuseSequence, "order-kept", "agent-host-power-loss"),
    prey(Bug::AcceptOldGeneration, "single-writer", "old-copy-of-a-machine-is-refused"),
    prey(Bug::ClearBitmapOnReconnect, "prefix", "long-cut-overflows-to-bitmap-then-catches-up"),
    prey(Bug::PointInsideResync, "prefix", "long-cut-overflows-to-bitmap-then-catches-up"),
    prey(Bug::UnboundedSpill, "bounded", "long-cut-overflows-to-bitmap-then-catches-up"),
    prey(Bug::VaultedBeforeCommit, "loss-never-hidden", "steady-stream"),
    prey(Bug::NeverReconnect, "converges", "stage-survives-every-power-loss"),
    prey(Bug::TrustStoppedDisks, "prefix", "disk-is-written-while-the-agent-is-stopped"),
    prey(Bug::TrustDisownedMarks, "prefix", "state-directory-hangs"),
];
