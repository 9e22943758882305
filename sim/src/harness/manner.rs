//! How a plan is played: nothing here changes what happens before it says so.

/// How a plan is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Keeps the lines of the trace.
    pub is_traced: bool,
    /// Stops when the harness first looks at or after this time, in milliseconds; nothing is judged then.
    pub until_ms: Option<u64>,
    /// Throws other dice from some time on.
    pub fork: Option<Fork>,
}

/// Another future of a run: the same plan and the same past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// When the dice change, in milliseconds: at the first look of the harness at or after it.
    pub at_ms: u64,
    /// Which future.
    pub future: u64,
}

impl Manner {
    /// With the lines of the trace.
    pub const TRACED: Manner = Manner { is_traced: true, until_ms: None, fork: None };
}
