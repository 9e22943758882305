//! One measured figure: its values, its bar, and the words around them.

/// Which side of the bar is good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// The figure must not exceed the bar.
    AtMost(f64),
    /// The figure must reach the bar.
    AtLeast(f64),
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Goal::AtMost(bar) => write!(f, "<= {bar}"),
            Goal::AtLeast(bar) => write!(f, ">= {bar}"),
        }
    }
}

/// One measured figure of a bar.
pub(crate) struct Figure {
    /// Name of the bar, such as `P1`.
    pub(crate) bar: &'static str,
    /// What was measured against what.
    pub(crate) what: String,
    /// Unit of the values; empty for a ratio.
    pub(crate) unit: &'static str,
    /// One value per round.
    pub(crate) values: Vec<f64>,
    /// What is good.
    pub(crate) goal: Goal,
    /// Both sides in their own units, ours first, as medians.
    pub(crate) sides: String,
}

/// Returns the middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the value that this share (0 to 1) of all values does not exceed.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

impl Figure {
    /// Returns the middle of the rounds: the figure itself.
    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    /// Returns the smallest and the largest round.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        self.values.iter().fold(ends, |(low, high), value| (low.min(*value), high.max(*value)))
    }

    /// Tells whether the bar is held; no value holds nothing.
    pub(crate) fn is_held(&self) -> bool {
        match self.goal {
            Goal::AtMost(bar) => self.median() <= bar,
            Goal::AtLeast(bar) => self.median() >= bar,
        }
    }

    /// Returns the word for the table.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.is_held() { "held" } else { "MISSED" }
    }

    /// Returns the figure with its unit.
    pub(crate) fn shown(&self) -> String {
        with_unit(self.median(), self.unit)
    }

    /// Returns the spread for the table.
    pub(crate) fn shown_spread(&self) -> String {
        let (low, high) = self.spread();
        format!("{} .. {}", number(low), number(high))
    }
}

/// Shows a number with about three digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Shows a number with its unit; a ratio is marked as one.
pub(crate) fn with_unit(value: f64, unit: &str) -> String {
    if unit.is_empty() { format!("{}x", number(value)) } else { format!("{} {unit}", number(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: Vec<f64>, goal: Goal) -> Figure {
        Figure { bar: "P1", what: "x".into(), unit: "", values, goal, sides: String::new() }
    }

    #[test]
    fn the_median_decides_and_the_goal_has_a_direction() {
        let mut figure = figure(vec![3.0, 1.0, 1.05], Goal::AtMost(1.1));
        assert!(figure.is_held());
        assert_eq!(figure.spread(), (1.0, 3.0));
        figure.goal = Goal::AtLeast(1.1);
        assert!(!figure.is_held());
    }

    #[test]
    fn a_bar_without_a_value_is_not_held() {
        assert!(!figure(Vec::new(), Goal::AtLeast(0.0)).is_held());
        assert!(!figure(Vec::new(), Goal::AtMost(1.0)).is_held());
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (quantile(&values, 0.99), quantile(&values, 0.5), quantile(&[7.0], 0.99)),
            (99.0, 50.0, 7.0)
        );
    }
}
