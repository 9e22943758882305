//! Verdicts of scenarios and of whole sets, and what was never reached.

use crate::model::{RunSet, Scenario, Verdict};

/// Returns what a scenario asks for and no run reached.
pub fn never_seen(scenario: &Scenario) -> Vec<&str> {
    let marks = scenario.promises.sometimes.iter().map(String::as_str);
    marks.filter(|mark| !scenario.reached.contains_key(*mark)).collect()
}

/// Tells whether enough seeds were played to judge what is seldom.
pub(crate) fn is_judged(scenario: &Scenario) -> bool {
    scenario.totals.runs >= scenario.seeds_asked
}

/// Returns the verdict of a scenario.
pub fn of_scenario(scenario: &Scenario) -> Verdict {
    let worst = scenario.runs.iter().map(|run| run.verdict).max().unwrap_or_default();
    match worst {
        Verdict::Held if is_judged(scenario) && !never_seen(scenario).is_empty() => Verdict::NeverSeen,
        other => other,
    }
}

/// Returns the verdict of a set: that of its worst scenario.
pub fn of_set(set: &RunSet) -> Verdict {
    set.scenarios.iter().map(of_scenario).max().unwrap_or_default()
}

/// Returns what no run of the set reached, whether or not a scenario asks for it.
pub(crate) fn unreached(set: &RunSet) -> Vec<&str> {
    let is_reached = |mark: &&String| set.scenarios.iter().any(|s| s.reached.contains_key(mark.as_str()));
    set.marks.iter().filter(|mark| !is_reached(mark)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Promises, Run, Totals};

    #[test]
    fn what_is_seldom_is_judged_only_with_enough_seeds() {
        let promises = Promises { sometimes: vec!["spilled".into()], ..Promises::default() };
        let totals = Totals { runs: 3, ..Totals::default() };
        let mut scenario = Scenario { seeds_asked: 4, promises, totals, ..Scenario::default() };
        assert_eq!(of_scenario(&scenario), Verdict::Held);
        scenario.totals.runs = 4;
        assert_eq!(of_scenario(&scenario), Verdict::NeverSeen);
        scenario.reached.insert("spilled".into(), 1);
        assert_eq!(of_scenario(&scenario), Verdict::Held);
        scenario.runs.push(Run { verdict: Verdict::Broken, ..Run::default() });
        assert_eq!(of_scenario(&scenario), Verdict::Broken);
    }
}
