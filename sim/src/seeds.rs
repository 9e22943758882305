//! Which seeds a set plays: those of a change, which are the same whenever they are played again, and those of a night,
//! which are fresh and go where an earlier set saw least.
//!
//! Everything here is a function of its input: no clock, no repository, no file.

use crate::scenario::Scenario;
use redoubt_reports::RunSet;
use std::collections::BTreeMap;

/// Drawn seeds lie above it, so that none is one of those that files name or sweeps count up from.
const DRAWN_FROM: u64 = 1_000_000_000;

/// How many different ones there are.
const DRAWN: u64 = 1_000_000_000;

/// Steps of a share.
const WHOLE: u64 = 1_000_000;

/// Seeds without an end, drawn from a key: other ones for each scenario and each key.
pub fn drawn(key: &str, scenario: &str) -> impl Iterator<Item = u64> + use<> {
    let mut hasher = blake3::Hasher::new();
    for word in ["seeds", key, scenario] {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
    }
    let mut bytes = hasher.finalize_xof();
    std::iter::repeat_with(move || {
        let mut word = [0; 8];
        bytes.fill(&mut word);
        DRAWN_FROM + u64::from_le_bytes(word) % DRAWN
    })
}

/// Returns a scenario's seeds for a commit: the fixed ones of its file, and half as many again that only this commit
/// plays. What is promised to happen sometimes is judged by all of them, so that a commit cannot draw them unseen. A
/// frozen scenario is one run, and stays so.
pub fn of_commit(commit: &str, scenario: &Scenario, count: Option<u64>) -> Vec<u64> {
    let fixed = count.unwrap_or(scenario.seeds.pr);
    let from = scenario.seeds.from;
    let mut seeds: Vec<u64> = (from..from.saturating_add(fixed)).collect();
    let own = if scenario.seeds.is_fixed { 0 } else { fixed.div_ceil(2) as usize };
    for seed in drawn(commit, &scenario.name) {
        if seeds.len() >= fixed as usize + own {
            break;
        }
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    seeds
}

/// The order of a night: scenarios take turns by their shares, each with fresh seeds of its own.
pub struct Night<'a> {
    scenarios: &'a [Scenario],
    shares: Vec<u64>,
    /// When each has its next turn; the lowest one has it, of equal ones the first.
    turns: Vec<u128>,
    seeds: Vec<Box<dyn Iterator<Item = u64> + 'a>>,
}

/// Begins a night. The key makes its seeds; the earlier sets say what was seen least.
pub fn night<'a>(key: &str, scenarios: &'a [Scenario], earlier: &[RunSet]) -> Night<'a> {
    let shares = shares(scenarios, earlier);
    let turns = shares.iter().map(|share| step(*share)).collect();
    let seeds = scenarios
        .iter()
        .map(|scenario| -> Box<dyn Iterator<Item = u64>> {
            match scenario.seeds.is_fixed {
                // One run: there is nothing fresh in it.
                true => Box::new(scenario.seeds.from..=scenario.seeds.from),
                false => Box::new(drawn(key, &scenario.name)),
            }
        })
        .collect();
    Night { scenarios, shares, turns, seeds }
}

fn step(share: u64) -> u128 {
    (1u128 << 64) / u128::from(share.max(1))
}

impl Night<'_> {
    /// Returns each scenario's share, in millionths, the largest first.
    pub fn shares(&self) -> Vec<(&str, u64)> {
        let names = self.scenarios.iter().map(|scenario| scenario.name.as_str());
        let mut shares: Vec<(&str, u64)> = names.zip(self.shares.iter().copied()).collect();
        shares.sort_by_key(|(_, share)| std::cmp::Reverse(*share));
        shares
    }
}

impl Iterator for Night<'_> {
    type Item = (usize, u64);

    fn next(&mut self) -> Option<(usize, u64)> {
        loop {
            let next = (0..self.turns.len()).min_by_key(|index| self.turns[*index])?;
            if self.turns[next] == u128::MAX {
                return None;
            }
            match self.seeds[next].next() {
                Some(seed) => {
                    self.turns[next] = self.turns[next].saturating_add(step(self.shares[next]));
                    return Some((next, seed));
                }
                None => self.turns[next] = u128::MAX,
            }
        }
    }
}

/// Returns each scenario's share in millionths: half of the night as the files ask, half where little was seen.
fn shares(scenarios: &[Scenario], earlier: &[RunSet]) -> Vec<u64> {
    let asked: Vec<u64> = scenarios.iter().map(|scenario| scenario.seeds.nightly).collect();
    let gains = gains(scenarios, earlier);
    let gains = if gains.iter().all(|gain| *gain == 0) { asked.clone() } else { gains };
    let part = |of: &[u64], index: usize| {
        let sum: u128 = of.iter().map(|part| u128::from(*part)).sum();
        (u128::from(of[index]) * u128::from(WHOLE / 2) / sum.max(1)) as u64
    };
    (0..scenarios.len()).map(|index| (part(&asked, index) + part(&gains, index)).max(1)).collect()
}

/// What one scenario reached: how many runs it had, and by mark or fault how many of them.
#[derive(Default)]
struct Seen<'a> {
    runs: u64,
    reached: BTreeMap<&'a str, u64>,
}

/// Returns how much a run of each scenario promises to see of what was seldom seen: over all marks and faults, how often
/// this scenario meets it, divided by how often anybody did.
fn gains(scenarios: &[Scenario], earlier: &[RunSet]) -> Vec<u64> {
    let mut seen: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    let mut by_all: BTreeMap<&str, u64> = BTreeMap::new();
    for set in earlier {
        for what in set.marks.iter().chain(&set.faults) {
            by_all.entry(what).or_default();
        }
        for scenario in &set.scenarios {
            let own = seen.entry(&scenario.name).or_default();
            own.runs += scenario.totals.runs;
            let bits = scenario.faults.iter().map(|(fault, met)| (fault, met.bit));
            for (what, runs) in scenario.reached.iter().map(|(mark, runs)| (mark, *runs)).chain(bits) {
                *own.reached.entry(what).or_default() += runs;
                *by_all.entry(what).or_default() += runs;
            }
        }
    }
    let none = Seen::default();
    let gain = |scenario: &Scenario| {
        let own = seen.get(scenario.name.as_str()).unwrap_or(&none);
        let of = |(what, all): (&&str, &u64)| {
            let reached = own.reached.get(what).copied().unwrap_or(0).min(own.runs);
            // Who promises it may reach it, who draws freely may reach anything: as if in a half, or a tenth, of one more run.
            let is_promised = scenario.expect.sometimes.iter().any(|mark| mark == what);
            let hope =
                if is_promised { WHOLE / 2 } else { (WHOLE / 10) * u64::from(!scenario.swarm.is_empty()) };
            (reached * WHOLE + hope) / (own.runs + 1) / (all + 1)
        };
        by_all.iter().map(of).sum()
    };
    scenarios.iter().map(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::load;
    use redoubt_reports::model::{self, Met, Totals};
    use std::collections::BTreeSet;

    fn scenario(name: &str, more: &str) -> Scenario {
        let text = format!(
            "format = 1\ntitle = \"x\"\nwhy = \"x\"\n{more}\n[timeline]\nsteps = [{{ at = \"9 s\", end = true }}]\n"
        );
        load("x.toml", name, &text).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    }

    const COMMIT: &str = "1a4a3fd80c1e1a4a3fd80c1e1a4a3fd80c1e1a4a";

    #[test]
    fn a_commit_has_one_list_and_another_commit_another() {
        let one = scenario("one", "seeds = { pr = 5 }");
        let seeds = of_commit(COMMIT, &one, None);
        assert_eq!(seeds, of_commit(COMMIT, &one, None));
        assert_eq!((&seeds[..5], seeds.len()), (&[1, 2, 3, 4, 5][..], 8));
        assert!(seeds[5..].iter().all(|seed| (DRAWN_FROM..DRAWN_FROM + DRAWN).contains(seed)));
        assert_ne!(seeds, of_commit("2", &one, None));
        assert_ne!(seeds, of_commit(COMMIT, &scenario("two", "seeds = { pr = 5 }"), None));
        // For ever: a list that changes with the tool would be no list of the commit.
        assert_eq!(seeds[5..], EXPECTED);
    }

    /// Written down when this was made.
    const EXPECTED: [u64; 3] = [1_663_095_368, 1_323_139_552, 1_985_994_820];

    #[test]
    fn a_frozen_scenario_stays_the_one_run_that_it_is() {
        let frozen = scenario("frozen", "seeds = { from = 1, pr = 1, nightly = 1 }");
        assert_eq!(of_commit(COMMIT, &frozen, None), [1]);
        let all = [frozen];
        assert_eq!(night("x", &all, &[]).take(9).collect::<Vec<_>>(), [(0, 1)]);
    }

    fn set(reached: &[(&str, &str, u64)]) -> RunSet {
        let scenarios: BTreeSet<&str> = reached.iter().map(|(name, ..)| *name).collect();
        let of = |name: &&str| {
            let own = reached.iter().filter(|(known, ..)| known == name);
            let own = own.map(|(_, what, runs)| ((*what).to_owned(), *runs));
            let (faults, marks): (Vec<_>, Vec<_>) = own.partition(|(what, _)| what.contains('.'));
            model::Scenario {
                name: (*name).to_owned(),
                totals: Totals { runs: 100, ..Totals::default() },
                reached: marks.into_iter().collect(),
                faults: faults.into_iter().map(|(what, bit)| (what, Met { turned: bit, bit })).collect(),
                ..model::Scenario::default()
            }
        };
        RunSet {
            format: 1,
            command: String::new(),
            build: Default::default(),
            marks: ["spilled", "resync-done", "clock-stepped"].map(str::to_owned).into(),
            faults: ["disk.hang"].map(str::to_owned).into(),
            oracles: Default::default(),
            scenarios: scenarios.iter().map(of).collect(),
        }
    }

    #[test]
    fn a_night_goes_where_little_was_seen_and_nobody_is_left_out() {
        let all = [
            scenario("common", ""),
            scenario("rare-mark", ""),
            scenario("rare-fault", ""),
            scenario("promises", "[expect]\nsometimes = [\"clock-stepped\"]"),
        ];
        let earlier = [set(&[
            ("common", "resync-done", 100),
            ("rare-mark", "resync-done", 100),
            ("rare-mark", "spilled", 2),
            ("rare-fault", "disk.hang", 1),
            ("promises", "resync-done", 100),
        ])];
        let played: Vec<(usize, u64)> = night("2026-11-30", &all, &earlier).take(4000).collect();
        let turns = |index: usize| played.iter().filter(|(of, _)| *of == index).count();
        assert!(turns(0) >= 400, "half of the night is as the files ask: {}", turns(0));
        assert!((1..4).all(|index| turns(index) > turns(0)), "{:?}", [0, 1, 2, 3].map(turns));
        let unlike: BTreeSet<_> = played.iter().collect();
        assert_eq!(unlike.len(), played.len(), "no run twice");
        // The same again from the same, and another night from another key.
        assert_eq!(played, night("2026-11-30", &all, &earlier).take(4000).collect::<Vec<_>>());
        assert_ne!(played, night("2026-12-01", &all, &earlier).take(4000).collect::<Vec<_>>());
    }

    #[test]
    fn without_an_earlier_set_everybody_has_what_the_files_ask() {
        let all = [scenario("a", "seeds = { nightly = 100 }"), scenario("b", "seeds = { nightly = 300 }")];
        let turns = |index| night("x", &all, &[]).take(400).filter(|(of, _)| *of == index).count();
        assert_eq!([turns(0), turns(1)], [100, 300]);
        assert_eq!(night("x", &all, &[]).shares()[0], ("b", 750_000));
    }
}
