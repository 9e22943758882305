//! Oracles: what must hold, judged from the guest's side and from the truth of the simulated leaves.
//!
//! Written from the specification, not from the engine. Each file is one oracle; each returns
//! [`Finding`]s and never stops a run by itself.

pub mod database;
pub mod guest_untouched;
pub mod history;
pub mod leftovers;
pub mod maintainers;
pub mod order_kept;
pub mod prefix;
pub mod scrubbed;
pub mod seals;
pub mod secrets;
pub mod writers;

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the oracle, as in `[expect] always`.
    pub oracle: &'static str,
    /// What was found, with enough detail to start looking.
    pub what: String,
}

impl Finding {
    /// Makes a finding.
    pub fn new(oracle: &'static str, what: impl Into<String>) -> Finding {
        Finding { oracle, what: what.into() }
    }
}
