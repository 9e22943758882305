//! The record of a run: how each host fared, second by second, for those who draw it.
//!
//! Nothing here judges or touches the run: the record is no part of the digest. What the roles do not say counts
//! against them: while no agent runs or no order is promised, lag goes on growing.

use redoubt_reports::Samples;
use redoubt_reports::model::{Measure, Span, State, Track};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds that are drawn: four hours, many times the longest run of a common estate.
const SECONDS_MAX: u64 = 4 * 3600;

/// Seconds that are measured: eight days.
const MEASURED_MAX: u64 = 8 * 24 * 3600;

/// What a machine's agent says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is in.
    pub state: State,
    /// Its lag, if it promises order.
    pub lag_ms: Option<u64>,
    /// Operations of the guest so far.
    pub operations: u64,
    /// Everything up to here is in the vault.
    pub vaulted: u64,
    /// When its newest point was cut, as its agent tells it; only of a scaled estate, whose points are not all
    /// restored. None: there is none yet.
    pub newest_cut: Option<u64>,
}

/// A machine so far.
#[derive(Clone, Debug, Default)]
struct MachineRecord {
    track: Track,
    /// The last lag that is known, and when it was.
    known: (u64, u64),
    operations: u64,
    /// When its newest point was cut.
    cut: Option<u64>,
    /// Seconds before the first one that is measured.
    skipped: u64,
    /// The lag at the end of each second, in milliseconds.
    lags: Vec<u32>,
    /// Vaulted at the end of each second, while guests worked.
    vaulted: Vec<u64>,
    /// The age of its newest point likewise, of a scaled estate.
    ages: Vec<u32>,
}

/// What was recorded of a run.
#[derive(Clone, Debug, Default)]
pub struct Record {
    machines: BTreeMap<String, MachineRecord>,
    servers: BTreeMap<String, Track>,
    /// Points in the vault: machine, sequence, and when it was cut.
    points: BTreeSet<(String, u64, u64)>,
    /// When the faults were lifted; none before, and if the source was lost.
    pub lifted_ms: Option<u64>,
    /// When everything had converged.
    pub converged_ms: Option<u64>,
    /// When the first finding was made.
    pub found_ms: Option<u64>,
    /// Machines that were lost for good, and when.
    pub lost: BTreeMap<String, u64>,
    /// Bytes that each machine's guest wrote, in the units of the operator.
    pub written: BTreeMap<String, u64>,
    /// How long mounts took, in milliseconds.
    pub mounts: BTreeMap<String, Vec<u64>>,
    /// Ages of points are as agents tell them.
    is_scaled: bool,
}

/// Notes a state since the last sample.
fn note(track: &mut Track, now: u64, state: State) {
    let from_ms = track.states.last().map_or(0, |span| span.to_ms);
    match track.states.last_mut() {
        Some(last) if last.state == state => last.to_ms = now,
        _ => track.states.push(Span { state, from_ms, to_ms: now }),
    }
}

impl Record {
    /// Makes an empty record of an estate, which may be scaled.
    pub fn of_estate(is_scaled: bool) -> Record {
        Record { is_scaled, ..Record::default() }
    }

    /// Notes how a machine is; none if its agent does not run.
    pub fn machine(&mut self, name: &str, now: u64, seen: Option<Seen>) {
        if now / 1000 > MEASURED_MAX {
            return;
        }
        let is_working = self.lifted_ms.is_none() && !self.lost.contains_key(name);
        let machine = match self.machines.get_mut(name) {
            Some(machine) => machine,
            None => self.machines.entry(name.to_owned()).or_default(),
        };
        note(&mut machine.track, now, seen.map_or(State::Down, |seen| seen.state));
        let lag = match seen.and_then(|seen| seen.lag_ms) {
            Some(lag) => {
                machine.known = (lag, now);
                lag
            }
            None => machine.known.0 + now.saturating_sub(machine.known.1),
        };
        let (operations, vaulted) = match seen {
            Some(seen) => (seen.operations, seen.vaulted),
            None => (machine.operations, machine.vaulted.last().copied().unwrap_or(0)),
        };
        machine.cut = seen.and_then(|seen| seen.newest_cut).or(machine.cut);
        let done = machine.skipped + machine.lags.len() as u64;
        if self.is_scaled && machine.lags.is_empty() && seen.and_then(|seen| seen.lag_ms).is_none() {
            // How long a first copy takes says nothing at a scale: figures begin behind it.
            machine.skipped = now / 1000;
            return;
        }
        // Seconds in which nobody could be asked count like the one that ends them.
        for second in done..now / 1000 {
            let new = if second == done { operations.saturating_sub(machine.operations) } else { 0 };
            machine.lags.push(u32::try_from(lag).unwrap_or(u32::MAX));
            if second < SECONDS_MAX {
                machine.track.lag_ms.push(lag);
                machine.track.operations.push(new);
            }
            if is_working && self.is_scaled {
                let age = (second + 1) * 1000 - machine.cut.unwrap_or(0).min((second + 1) * 1000);
                machine.ages.push(u32::try_from(age).unwrap_or(u32::MAX));
            } else if is_working {
                machine.vaulted.push(vaulted);
            }
        }
        if now / 1000 > done {
            machine.operations = operations;
        }
    }

    /// Notes how a process server is.
    pub fn server(&mut self, name: &str, now: u64, state: State) {
        if now / 1000 <= SECONDS_MAX {
            note(self.servers.entry(name.to_owned()).or_default(), now, state);
        }
    }

    /// Notes a point that restores.
    pub fn point(&mut self, machine: &str, sequence: u64, cut_ms: u64) {
        self.points.insert((machine.to_owned(), sequence, cut_ms));
    }

    /// Notes that something was found.
    pub fn found(&mut self, now: u64) {
        self.found_ms.get_or_insert(now);
    }

    fn points_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u64, u64)> + 'a {
        let own = self.points.iter().filter(move |(machine, ..)| machine == name);
        own.map(|(_, sequence, cut_ms)| (*sequence, *cut_ms))
    }

    /// Returns the machines and the process servers.
    pub fn tracks(&self) -> (Vec<Track>, Vec<Track>) {
        let machine = |(name, machine): (&String, &MachineRecord)| {
            let mut points_ms: Vec<u64> = self.points_of(name).map(|(_, cut_ms)| cut_ms).collect();
            points_ms.sort_unstable();
            Track { name: name.clone(), points_ms, ..machine.track.clone() }
        };
        let server = |(name, track): (&String, &Track)| Track { name: name.clone(), ..track.clone() };
        (self.machines.iter().map(machine).collect(), self.servers.iter().map(server).collect())
    }

    /// Returns the longest lag.
    pub fn lag_max_ms(&self) -> u64 {
        u64::from(self.machines.values().flat_map(|machine| &machine.lags).copied().max().unwrap_or(0))
    }

    /// Returns everything that was measured.
    pub fn measured(&self) -> BTreeMap<Measure, Samples> {
        let mut measured: BTreeMap<Measure, Samples> = BTreeMap::new();
        let mut record = |measure, ms| measured.entry(measure).or_default().record(ms);
        for name in self.machines.keys() {
            for measure in [Measure::Lag, Measure::PointAge, Measure::Resync, Measure::Loss, Measure::Mount] {
                self.of_machine(measure, name).into_iter().for_each(|ms| record(measure, ms));
            }
        }
        self.converged().into_iter().for_each(|ms| record(Measure::Converged, ms));
        measured
    }

    /// Returns what was measured of one machine.
    pub fn of_machine(&self, measure: Measure, name: &str) -> Vec<u64> {
        let Some(machine) = self.machines.get(name) else { return Vec::new() };
        match measure {
            Measure::Lag => {
                // A machine that is gone for good has no lag any more; it has a loss.
                let there = self
                    .lost
                    .get(name)
                    .map_or(usize::MAX, |lost_ms| (lost_ms / 1000).saturating_sub(machine.skipped) as usize);
                machine.lags.iter().take(there).map(|lag| u64::from(*lag)).collect()
            }
            Measure::PointAge if self.is_scaled => machine.ages.iter().map(|age| u64::from(*age)).collect(),
            Measure::PointAge => self.ages(name, machine),
            Measure::Mount => self.mounts.get(name).cloned().unwrap_or_default(),
            Measure::Resync => {
                let resyncs = machine.track.states.iter().filter(|span| span.state == State::Resync);
                resyncs.map(|span| span.to_ms - span.from_ms).collect()
            }
            Measure::Loss => {
                let newest = self.points_of(name).map(|(_, cut_ms)| cut_ms).max().unwrap_or(0);
                self.lost.get(name).map(|lost_ms| lost_ms.saturating_sub(newest)).into_iter().collect()
            }
            Measure::Converged => Vec::new(),
        }
    }

    /// Returns how long everything took to converge, if it did.
    pub(super) fn converged(&self) -> Option<u64> {
        Some(self.converged_ms?.saturating_sub(self.lifted_ms?))
    }

    /// Returns the names of the machines.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.machines.keys().map(String::as_str)
    }

    /// Tells whether a machine keeps order with at most this lag at the end of one of these seconds.
    pub(super) fn is_protected(&self, name: &str, lag_at_most: u64, from: u64, until: u64) -> bool {
        let Some(machine) = self.machines.get(name) else { return false };
        let in_order = |at: u64| {
            let state = machine.track.states.iter().find(|span| span.from_ms < at && at <= span.to_ms);
            state.is_some_and(|span| span.state == State::Exact)
        };
        let mut seconds = (machine.skipped + 1..).map(|second| second * 1000).zip(&machine.lags);
        seconds.any(|(at, lag)| at > from && at <= until && u64::from(*lag) <= lag_at_most && in_order(at))
    }

    /// Returns the age of the newest point that was in the vault, at the end of each second; before the first one, the
    /// time since the begin.
    fn ages(&self, name: &str, machine: &MachineRecord) -> Vec<u64> {
        let points: Vec<(u64, u64)> = self.points_of(name).collect();
        let age = |(second, vaulted): (u64, &u64)| {
            let now = (second + 1) * 1000;
            let there = points.iter().filter(|(sequence, cut_ms)| sequence <= vaulted && *cut_ms <= now);
            now - there.map(|(_, cut_ms)| *cut_ms).max().unwrap_or(0)
        };
        (0u64..).zip(&machine.vaulted).map(age).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lag_ms: Option<u64>, operations: u64, vaulted: u64) -> Option<Seen> {
        Some(Seen { state: State::Exact, lag_ms, operations, vaulted, newest_cut: None })
    }

    #[test]
    fn what_is_not_said_counts_against_the_agent() {
        let mut record = Record::default();
        record.machine("a", 1000, seen(Some(200), 10, 0));
        record.machine("a", 2000, None);
        record.machine("a", 4000, seen(None, 10, 0));
        record.machine("a", 5000, seen(Some(0), 30, 0));
        let (machines, _) = record.tracks();
        assert_eq!(machines[0].lag_ms, [200, 1200, 3200, 3200, 0]);
        assert_eq!(machines[0].operations, [10, 0, 0, 0, 20]);
        assert_eq!(record.lag_max_ms(), 3200);
        let states: Vec<_> = machines[0].states.iter().map(|span| (span.state, span.to_ms)).collect();
        assert_eq!(states, [(State::Exact, 1000), (State::Down, 2000), (State::Exact, 5000)]);
    }

    #[test]
    fn a_point_counts_from_when_it_is_in_the_vault_and_ages_from_its_cut() {
        let mut record = Record::default();
        record.point("a", 5, 1500);
        (1..=3).for_each(|second| record.machine("a", second * 1000, seen(Some(0), 0, 2 * second)));
        record.lost.insert("a".into(), 3100);
        assert_eq!(
            record.measured()[&Measure::PointAge],
            Samples::from(vec![(1000, 1), (2000, 1), (1500, 1)])
        );
        assert_eq!(record.measured()[&Measure::Loss], Samples::from(vec![(1600, 1)]));
    }

    #[test]
    fn points_of_a_scaled_estate_age_from_the_cut_that_their_agent_tells() {
        let mut record = Record::of_estate(true);
        let told = |newest_cut| seen(Some(0), 0, 0).map(|seen| Seen { newest_cut, ..seen });
        record.machine("a", 1000, seen(None, 0, 0));
        record.machine("a", 1500, told(None));
        record.machine("a", 2000, told(Some(1500)));
        record.machine("a", 4000, None);
        record.machine("a", 5000, told(Some(4800)));
        assert_eq!(
            record.of_machine(Measure::PointAge, "a"),
            [500, 1500, 2500, 200],
            "behind the first copy"
        );
        assert_eq!(record.of_machine(Measure::Lag, "a"), [0, 2000, 2000, 0]);
    }
}
