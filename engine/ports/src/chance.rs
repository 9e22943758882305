//! Rare but legal behaviour on demand: the lab's way to what a run would meet once in a million.
//!
//! A place that may do something rare asks [`Chance::forces`] whether it does so now. In production the answer is a
//! constant no ([`Never`]). In the lab a plan enables some points for a time, each with a probability.
//!
//! - BG-1 Whatever is forced is legal at any time: no oracle and no promise makes an exception for it.
//! - BG-2 Pure machines have no points. What is rare for them comes as an event that is early or late, or as a
//!   setting.
//!
//! What is *not* here: faults of the world, which the leaves have; planted bugs, which are illegal.

/// A point at which something rare can be forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rare {
    /// The agent's beat comes at once: batches are sealed when they have hardly begun.
    EarlyBeat,
    /// The agent's beat comes late.
    LateBeat,
    /// The agent looks for extents that may cool at once.
    EarlyCooling,
    /// A read of the agent ends long after those that began behind it.
    SlowReader,
    /// An agent that starts has an eighth of its memory, and spills early.
    SmallMemory,
    /// A connection of the agent ends before a message that arrived is read.
    DroppedSession,
    /// A commit takes a single batch.
    SmallCommit,
    /// A commit that is prepared waits before it is published.
    LateCommit,
    /// A staged batch is read from the file although memory holds it.
    StageFromFile,
    /// A maintainer that starts finds a round worth its puts after each slot.
    IndexEachSlot,
    /// A creation that succeeded counts as one whose answer was lost: it is put again and read back.
    PutTwice,
    /// An object that was read is read again.
    ReadTwice,
    /// A listing is asked for in pages of very few names.
    ShortPages,
    /// A commit is cut into small segments.
    SmallSegments,
    /// A block of the index that a reader has in memory is forgotten.
    ForgottenBlock,
    /// A unit that a reader has in memory is forgotten.
    ForgottenUnit,
    /// What a reader fetches ahead of need, or to keep near by, comes late: who asks for it meanwhile waits as well.
    LateAhead,
}

impl Rare {
    /// Every point.
    pub const ALL: [Rare; 17] = [
        Rare::EarlyBeat,
        Rare::LateBeat,
        Rare::EarlyCooling,
        Rare::SlowReader,
        Rare::SmallMemory,
        Rare::DroppedSession,
        Rare::SmallCommit,
        Rare::LateCommit,
        Rare::StageFromFile,
        Rare::IndexEachSlot,
        Rare::PutTwice,
        Rare::ReadTwice,
        Rare::ShortPages,
        Rare::SmallSegments,
        Rare::ForgottenBlock,
        Rare::ForgottenUnit,
        Rare::LateAhead,
    ];

    /// Returns its name in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Rare::EarlyBeat => "early-beat",
            Rare::LateBeat => "late-beat",
            Rare::EarlyCooling => "early-cooling",
            Rare::SlowReader => "slow-reader",
            Rare::SmallMemory => "small-memory",
            Rare::DroppedSession => "dropped-session",
            Rare::SmallCommit => "small-commit",
            Rare::LateCommit => "late-commit",
            Rare::StageFromFile => "stage-from-file",
            Rare::IndexEachSlot => "index-each-slot",
            Rare::PutTwice => "put-twice",
            Rare::ReadTwice => "read-twice",
            Rare::ShortPages => "short-pages",
            Rare::SmallSegments => "small-segments",
            Rare::ForgottenBlock => "forgotten-block",
            Rare::ForgottenUnit => "forgotten-unit",
            Rare::LateAhead => "late-ahead",
        }
    }
}

/// Says whether something rare happens now.
pub trait Chance: Send + Sync {
    /// Asked each time the place is passed.
    fn forces(&self, rare: Rare) -> bool;
}

/// Nothing is forced: production.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl Chance for Never {
    fn forces(&self, _rare: Rare) -> bool {
        false
    }
}
