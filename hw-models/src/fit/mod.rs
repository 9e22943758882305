//! Makes a model of what a benchmark measured, and says how far the model is from it.
//!
//! The error is not that of the numbers which were taken over, but of what the lab makes of them: the jobs that were
//! measured are played on the model, and more is compared than was fitted.

mod disk;
mod fio;
mod link;

pub use disk::{JOBS, disk};
pub use link::link;

use std::fmt;

/// Why no model can be made of a measurement. Says what is missing and how to get it.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// The text is not what the benchmark writes.
    #[error("not the JSON that {tool} writes: {error}")]
    Json {
        /// The benchmark.
        tool: &'static str,
        /// Where it goes wrong.
        error: serde_json::Error,
    },
    /// A number that the model needs was not measured.
    #[error("{what} was not measured; {remedy}")]
    Missing {
        /// What a job has to measure.
        what: String,
        /// How to measure it.
        remedy: &'static str,
    },
}

/// A model and how far it is from what was measured.
#[derive(Clone, Debug)]
pub struct Fit<M> {
    /// The model.
    pub model: M,
    /// What was measured beside what the model does.
    pub checks: Vec<Check>,
}

/// One figure, measured and as the model has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The job.
    pub job: String,
    /// The figure.
    pub figure: String,
    /// Unit of both numbers.
    pub unit: &'static str,
    /// What was measured.
    pub measured: f64,
    /// What the model does.
    pub model: f64,
}

impl Check {
    /// Returns how far the model is off, as a part of what was measured; above zero if it is too much.
    pub fn error(&self) -> f64 {
        (self.model - self.measured) / self.measured.abs().max(f64::MIN_POSITIVE)
    }
}

impl<M> Fit<M> {
    /// Returns the median of the errors without their signs, and the check that is furthest off.
    pub fn error(&self) -> Option<(f64, &Check)> {
        let mut by_error: Vec<&Check> = self.checks.iter().collect();
        by_error.sort_by(|a, b| a.error().abs().total_cmp(&b.error().abs()));
        let median = by_error.get(by_error.len() / 2)?.error().abs();
        Some((median, by_error.last()?))
    }
}

/// A line of a table: what, measured, model, error.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        write!(
            f,
            "{:<22} {:<6} {:>9} {:>9} {:<4} {:>+6.0} %",
            self.job,
            self.figure,
            number(self.measured),
            number(self.model),
            self.unit,
            self.error() * 100.0
        )
    }
}
