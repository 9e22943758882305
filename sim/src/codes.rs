//! Exit codes of the lab: the one table of them. The help and `sim/docs/tools.md` show it, tests play each.
//!
//! What is *not* here: which run deserves which verdict (`harness::outcome`).

/// One exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// What the process ends with.
    pub number: u8,
    /// What it says.
    pub means: &'static str,
}

/// Everything held.
pub const HELD: u8 = 0;
/// The tool itself failed.
pub const TOOL: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// A file is invalid.
pub const INVALID: u8 = 10;
/// Nothing was selected.
pub const NOTHING: u8 = 11;
/// An invariant is broken.
pub const BROKEN: u8 = 20;
/// An objective is missed.
pub const MISSED: u8 = 21;
/// No convergence.
pub const NOT_CONVERGED: u8 = 22;
/// The engine crashed.
pub const CRASHED: u8 = 23;
/// One seed, two outcomes.
pub const NOT_DETERMINISTIC: u8 = 24;
/// A `sometimes` was never seen.
pub const NEVER_SEEN: u8 = 25;
/// A replay is not the recorded run.
pub const NOT_THE_RUN: u8 = 26;
/// The budget ended before everything was played.
pub const BUDGET: u8 = 30;
/// Interrupted.
pub const INTERRUPTED: u8 = 130;

const fn code(number: u8, means: &'static str) -> Code {
    Code { number, means }
}

/// Every exit code, in the order of its number.
pub const CODES: [Code; 14] = [
    code(HELD, "held: everything that was played, and enough of it"),
    code(TOOL, "the tool itself failed: a file cannot be read or written, a process cannot be started"),
    code(USAGE, "the command line is wrong"),
    code(INVALID, "a file is invalid: a scenario, a capsule, a set of runs"),
    code(NOTHING, "nothing was selected"),
    code(BROKEN, "an invariant is broken"),
    code(MISSED, "an objective is missed"),
    code(NOT_CONVERGED, "no convergence within the bound after the faults were lifted"),
    code(CRASHED, "the engine crashed"),
    code(NOT_DETERMINISTIC, "not deterministic: one seed, two outcomes"),
    code(NEVER_SEEN, "a `sometimes` was never seen, or a knob never bit"),
    code(NOT_THE_RUN, "the replay is not the recorded run"),
    code(BUDGET, "the budget ended before everything was played; what was played held"),
    code(INTERRUPTED, "interrupted; what was played held"),
];

/// Of several findings the first of these decides.
pub const WORST_FIRST: [u8; 6] = [NOT_DETERMINISTIC, CRASHED, BROKEN, NOT_CONVERGED, MISSED, NEVER_SEEN];

/// Returns the table as text, for the help.
pub fn table() -> String {
    let mut text = String::from("Exit codes:\n");
    for code in CODES {
        text.push_str(&format!("  {:>3}  {}\n", code.number, code.means));
    }
    let order: Vec<String> = WORST_FIRST.iter().map(u8::to_string).collect();
    text.push_str(&format!("Several at once: {}.", order.join(" > ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_shows_the_table_as_it_is() {
        let document = include_str!("../docs/tools.md");
        for code in CODES {
            let row = format!("| {} | {} |", code.number, code.means);
            assert!(document.contains(&row), "sim/docs/tools.md lacks: {row}");
        }
        let order: Vec<String> = WORST_FIRST.iter().map(u8::to_string).collect();
        assert!(document.contains(&order.join(" > ")));
    }

    #[test]
    fn numbers_are_unique_and_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].number < pair[1].number));
    }
}
