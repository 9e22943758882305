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
    let excused = |run: &&crate::model::Run| run.known.is_none();
    let worst = scenario.runs.iter().filter(excused).map(|run| run.verdict).max().unwrap_or_default();
    match worst {
        Verdict::Held if is_judged(scenario) && !never_seen(scenario).is_empty() => Verdict::NeverSeen,
        other => other,
    }
}

/// Returns the verdict of a set: that of its worst scenario.
pub fn of_set(set: &RunSet) -> Verdict {
    set.scenarios.iter().map(of_scenario).max().unwrap_or_default()
}

/// Returns how many runs failed in a way that is known.
pub(crate) fn known(set: &RunSet) -> u64 {
    set.scenarios.iter().flat_map(|scenario| &scenario.runs).filter(|run| run.known.is_some()).count() as u64
}

/// Returns the faults that plans had and nobody ever met, then those that no plan had.
pub(crate) fn unmet(set: &RunSet) -> (Vec<&str>, Vec<&str>) {
    let sum = |fault: &str, of: fn(&crate::model::Met) -> u64| -> u64 {
        set.scenarios.iter().filter_map(|scenario| scenario.faults.get(fault)).map(of).sum()
    };
    let faults = set.faults.iter().map(String::as_str);
    let unmet = faults.clone().filter(|fault| sum(fault, |met| met.bit) == 0);
    unmet.partition(|fault| sum(fault, |met| met.turned) > 0)
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

    #[test]
    fn a_known_failure_fails_nothing_and_counts() {
        let known = Run { verdict: Verdict::Broken, known: Some(Default::default()), ..Run::default() };
        let mut scenario = Scenario { runs: vec![known, Run::default()], ..Scenario::default() };
        assert_eq!(of_scenario(&scenario), Verdict::Held);
        scenario.runs.push(Run { verdict: Verdict::Missed, ..Run::default() });
        assert_eq!(of_scenario(&scenario), Verdict::Missed);
        let set = RunSet {
            format: 1,
            command: String::new(),
            build: Default::default(),
            marks: Default::default(),
            faults: Default::default(),
            oracles: Default::default(),
            scenarios: vec![scenario],
        };
        assert_eq!(super::known(&set), 1);
    }

    #[test]
    fn faults_that_nobody_met_are_parted_from_those_that_no_plan_had() {
        let met = |turned, bit| crate::model::Met { turned, bit };
        let faults = [("link.cut", met(3, 2)), ("disk.hang", met(2, 0))];
        let faults = faults.map(|(name, met)| (name.to_owned(), met)).into();
        let set = RunSet {
            format: 1,
            command: String::new(),
            build: Default::default(),
            marks: Default::default(),
            faults: ["disk.hang", "files.full", "link.cut"].map(str::to_owned).into(),
            oracles: Default::default(),
            scenarios: vec![Scenario { faults, ..Scenario::default() }],
        };
        assert_eq!(unmet(&set), (vec!["disk.hang"], vec!["files.full"]));
    }
}
