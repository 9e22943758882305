//! `capacity`: what an estate with its guests and its link keeps of what is promised, by group, and the smallest link
//! that keeps all of it.
//!
//! A link keeps the promise if every seed holds on it. That is searched by halving, as many links at once as there
//! are cores for. All figures are those of the operator's estate, whatever its scale.

mod search;
mod show;

use super::gather::Gather;
use super::{files, pool, report};
use crate::codes::{self, USAGE};
use crate::harness::{Outcome, Record, Verdict, objectives};
use crate::plan;
use crate::scenario::{Scenario, carries, finest, slowest_link};
use redoubt_reports::capacity::{Capacity, Group, Link, Places};
use redoubt_reports::model::Measure;
use std::collections::BTreeMap;
use std::path::Path;

/// What is asked for.
pub(super) struct Wanted<'a> {
    /// Name of one scenario.
    pub(super) scenario: &'a str,
    /// Seeds; by default what its file says.
    pub(super) seeds: Option<u64>,
    /// Runs at once.
    pub(super) jobs: usize,
    /// Whether the smallest link is searched.
    pub(super) is_search: bool,
    /// How close, in percent.
    pub(super) within: u64,
    /// For programs.
    pub(super) json: bool,
    /// Files to write.
    pub(super) files: &'a report::CapacityFiles,
}

/// What one link came to.
pub(super) struct Played {
    tried: Link,
    verdict: Verdict,
    outcomes: Vec<Outcome>,
}

/// `capacity`.
pub(super) fn capacity(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    let mut found = files::select(directory, &[wanted.scenario.to_owned()])?;
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(|scenario| scenario.name.as_str()).collect();
        eprintln!("{:?} is more than one scenario: {}", wanted.scenario, names.join(", "));
        return Err(USAGE);
    }
    let scenario = found.swap_remove(0);
    if scenario.expect.objectives.is_empty() {
        eprintln!("{} promises nothing in figures; add objectives to its [expect]", scenario.name);
        return Err(USAGE);
    }
    let seeds = wanted.seeds.unwrap_or(scenario.seeds.pr).max(1);
    let estate = Estate { scenario: &scenario, seeds, jobs: wanted.jobs, is_quiet: wanted.json };
    let link = carries(&scenario.estate);
    let played = estate.play(&[link])?.swap_remove(0);
    let floor = slowest_link(&scenario.estate);
    // What is broken says nothing about capacity, on no link.
    let can_search = wanted.is_search && played.verdict <= Verdict::NotConverged;
    let search = if can_search {
        search::smallest(&estate, &played.tried, floor, wanted.within)?
    } else {
        search::Found::default()
    };
    let capacity = Capacity {
        scenario: scenario.name.clone(),
        seeds,
        scale: scenario.estate.scale,
        link,
        finest_ms: finest(&scenario.estate, link),
        simulated_s: played.outcomes.iter().map(|outcome| outcome.stats.simulated / 1000).sum(),
        groups: groups(&scenario, &played.outcomes),
        given: played.tried.clone(),
        tried: search.tried,
        smallest: search.smallest,
        is_bound_by_scale: search.is_bound_by_scale,
    };
    if wanted.json {
        println!("{}", serde_json::to_string_pretty(&capacity).unwrap_or_default());
    } else {
        show::print(&capacity, played.verdict);
    }
    if wanted.files.any() {
        let mut gather =
            Gather::new(std::slice::from_ref(&scenario), format!("cargo sim capacity {}", wanted.scenario));
        played.outcomes.iter().for_each(|outcome| gather.take(0, &scenario, outcome, None));
        let mut set = gather.finish(std::slice::from_ref(&scenario));
        set.scenarios.iter_mut().for_each(|own| own.capacity = Some(capacity.clone()));
        wanted.files.write(&set)?;
    }
    Ok(match played.verdict {
        // What a link is too small for does not converge in time: the promise is missed all the same.
        Verdict::NotConverged => codes::MISSED,
        verdict => verdict.code(),
    })
}

/// An estate that can be played on any link.
pub(super) struct Estate<'a> {
    scenario: &'a Scenario,
    seeds: u64,
    jobs: usize,
    is_quiet: bool,
}

impl search::Trial for Estate<'_> {
    fn at_once(&self) -> usize {
        (self.jobs / self.seeds.min(self.jobs as u64).max(1) as usize).max(1)
    }

    fn try_all(&self, links: &[u64]) -> Result<Vec<Link>, u8> {
        let played = self.play(links)?;
        // An invariant that breaks is no matter of capacity.
        if let Some(broken) = played.iter().find(|played| played.verdict > Verdict::NotConverged) {
            let what = broken.tried.missed.first().map_or("", String::as_str);
            eprintln!("{}: {what}", broken.verdict.word());
            return Err(broken.verdict.code());
        }
        Ok(played.into_iter().map(|played| played.tried).collect())
    }
}

impl Estate<'_> {
    /// Plays every seed on each of these links.
    fn play(&self, links: &[u64]) -> Result<Vec<Played>, u8> {
        let on = |link: u64| {
            let mut scenario = self.scenario.clone();
            scenario.estate.bandwidth = Some(link);
            scenario
        };
        let scenarios: Vec<Scenario> = links.iter().map(|link| on(*link)).collect();
        let from = self.scenario.seeds.from;
        let tasks: Vec<pool::Task> = (0..links.len())
            .flat_map(|index| (from..from + self.seeds).map(move |seed| (index, seed)))
            .collect();
        let mut outcomes: Vec<Vec<Outcome>> = links.iter().map(|_| Vec::new()).collect();
        pool::many(&scenarios, &tasks, self.jobs, |index, outcome, _| {
            outcomes[index].push(outcome);
            true
        })?;
        if outcomes.iter().any(|all| (all.len() as u64) < self.seeds) {
            return Err(codes::INTERRUPTED);
        }
        let played: Vec<Played> =
            links.iter().zip(outcomes).map(|(link, outcomes)| self.judged(*link, outcomes)).collect();
        if !self.is_quiet {
            for Played { tried, .. } in &played {
                eprintln!("{:>12}  {}", show::rate(tried.link), tried.verdict);
            }
        }
        Ok(played)
    }

    fn judged(&self, link: u64, mut outcomes: Vec<Outcome>) -> Played {
        outcomes.sort_by_key(|outcome| outcome.seed);
        let verdict = outcomes.iter().map(Outcome::verdict).max().unwrap_or(Verdict::Held);
        let worst = |measure| {
            let figures = outcomes
                .iter()
                .filter_map(|outcome| objectives::worst(&outcome.record, measure, 99, &[]).map(|(ms, _)| ms));
            figures.max()
        };
        let is_calm = |outcome: &&Outcome| {
            let plan = plan::draw(self.scenario, outcome.seed);
            !plan::faults(&plan).iter().any(|fault| !fault.is_operator)
        };
        let is_crowded = self.scenario.estate.scale > 1
            && outcomes.iter().filter(is_calm).any(|outcome| outcome.marks.contains("session-lost"));
        let missed = outcomes.iter().map(super::complaint::causes).find(|causes| !causes.is_empty());
        let tried = Link {
            link,
            verdict: verdict.word().to_owned(),
            is_kept: verdict == Verdict::Held,
            lag_p99_ms: worst(Measure::Lag),
            loss_p99_ms: worst(Measure::PointAge),
            is_crowded,
            missed: missed.unwrap_or_default().into_iter().map(|(_, what)| what).collect(),
        };
        Played { tried, verdict, outcomes }
    }
}

/// Returns the figures of each group of [protect], and of the machines that no group has.
fn groups(scenario: &Scenario, outcomes: &[Outcome]) -> Vec<Group> {
    let named = |name: &String| scenario.groups.values().any(|group| group.machines.contains(name));
    let all = scenario.estate.machines.iter().map(|machine| &machine.name);
    let others: Vec<String> = all.filter(|name| !named(name)).cloned().collect();
    let groups =
        scenario.groups.iter().map(|(name, group)| (name.as_str(), group.machines.as_slice(), group.rpo));
    let others = (!others.is_empty()).then_some(("others", others.as_slice(), None));
    groups.chain(others).map(|(name, machines, rpo)| figures(name, machines, rpo, outcomes)).collect()
}

fn figures(name: &str, machines: &[String], rpo_ms: Option<u64>, outcomes: &[Outcome]) -> Group {
    let records = || outcomes.iter().map(|outcome| &outcome.record);
    let seconds: u64 = outcomes.iter().filter_map(|outcome| outcome.record.lifted_ms).sum::<u64>() / 1000;
    let written =
        |record: &Record| -> u64 { machines.iter().filter_map(|name| record.written.get(name)).sum() };
    let written: u64 = records().map(written).sum();
    let measured = |measure| {
        places(records().flat_map(|record| machines.iter().map(move |name| record.of_machine(measure, name))))
    };
    Group {
        name: name.to_owned(),
        machines: machines.len() as u64,
        writes: written / seconds.max(1),
        rpo_ms,
        lag_ms: measured(Measure::Lag),
        loss_ms: measured(Measure::PointAge),
        mount_ms: measured(Measure::Mount),
    }
}

/// Returns the nearest ranks over all values; none if there are none.
fn places(values: impl Iterator<Item = Vec<u64>>) -> Option<Places> {
    let mut counted: BTreeMap<u64, u64> = BTreeMap::new();
    values.flatten().for_each(|ms| *counted.entry(ms).or_default() += 1);
    let count: u64 = counted.values().sum();
    let at = |percent: u64| {
        let (rank, mut seen) = ((count * percent).div_ceil(100).max(1), 0);
        let found = counted.iter().find(|(_, times)| {
            seen += **times;
            seen >= rank
        });
        found.map(|(ms, _)| *ms)
    };
    Some(Places { p50: at(50)?, p95: at(95)?, p99: at(99)?, max: at(100)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_nearest_ranks_over_all_machines() {
        let all = [(1..=50).collect(), (51..=100).collect()];
        assert_eq!(places(all.into_iter()), Some(Places { p50: 50, p95: 95, p99: 99, max: 100 }));
        assert_eq!(places(std::iter::once(Vec::new())), None);
    }
}
