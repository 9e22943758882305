//! The summary of a list of steps: one line each, then the count.

use std::time::Duration;

/// How one step ended.
pub(crate) struct Outcome {
    /// Name of the step.
    pub(crate) name: &'static str,
    /// Wall time it took.
    pub(crate) took: Duration,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
}

/// Prints the summary and returns the number of failed steps.
pub(crate) fn print(outcomes: &[Outcome]) -> usize {
    println!("\n{:<28} {:>8}  result", "step", "seconds");
    for outcome in outcomes {
        let result = outcome.failure.as_deref().unwrap_or("ok");
        println!("{:<28} {:>8.1}  {result}", outcome.name, outcome.took.as_secs_f64());
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    println!("\n{} passed, {failed} failed", outcomes.len() - failed);
    failed
}
