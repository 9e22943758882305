//! The summary of a list of steps: one line each, then the count.

use std::time::Duration;

/// How one step ended.
pub(crate) struct Outcome {
    /// Name of the step.
    pub(crate) name: &'static str,
    /// Wall time it took.
    pub(crate) took: Duration,
    /// What it has to say, or why it failed.
    pub(crate) result: Result<String, String>,
}

/// Prints the summary and returns the number of failed steps.
pub(crate) fn print(outcomes: &[Outcome]) -> usize {
    println!("\n{:<28} {:>8}  result", "step", "seconds");
    for outcome in outcomes {
        let result = match &outcome.result {
            Ok(said) if said.is_empty() => "ok",
            Ok(said) => &format!("ok, {said}"),
            Err(why) => why,
        };
        println!("{:<28} {:>8.1}  {result}", outcome.name, outcome.took.as_secs_f64());
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    println!("\n{} passed, {failed} failed", outcomes.len() - failed);
    failed
}
