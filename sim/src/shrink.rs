//! Shrinking: from a run that fails to the smallest one that fails alike.
//!
//! Everything here is a function of a frozen run and of the answers to one question: which of these smaller runs
//! fails with the same signature? Whoever plays them (`cli::shrink`) bounds the time. *Alike* is a matter of
//! [`crate::capsule::Signature`]: another failure met on the way is not followed.
//!
//! Order of the passes: what makes runs cheap comes first, then what makes them readable. A long run is first [hurried](hurry):
//! of forty minutes each answer would take as long as the whole search may.

use crate::freeze::Frozen;
use crate::plan::Fixed;
use crate::scenario::{Estate, default_estate};
use std::collections::{BTreeMap, BTreeSet};

/// Smallest disk that every guest can work on.
const DISK_MIN: u64 = 1 << 20;

/// A second, in milliseconds: times of a readable timeline are multiples of it.
const SECOND: u64 = 1000;

/// Shortest length of a run worth playing.
const LENGTH_MIN: u64 = 2 * SECOND;

/// Who plays.
pub trait Trial {
    /// Returns the first of these runs that fails alike; none if none does, or if the time is over.
    fn first(&mut self, pass: &'static str, candidates: Vec<Frozen>) -> Option<Frozen>;
    /// Tells whether the time is over.
    fn is_over(&self) -> bool;
}

/// One pass: all runs that are smaller in one respect, the smallest first.
type Pass = (&'static str, fn(&Frozen) -> Vec<Frozen>);

const PASSES: [Pass; 8] = [
    ("end", ends),
    ("machines", machines),
    ("process servers", servers),
    ("load", loads),
    ("estate", estates),
    ("durations", durations),
    ("pauses", pauses),
    ("figures", figures),
];

/// A run that is longer than this is hurried before anything else.
const LONG: u64 = 120 * SECOND;

/// Nothing happens for so long at most between two moments of a hurried run.
const PAUSES: [u64; 6] = [2 * SECOND, 5 * SECOND, 10 * SECOND, 20 * SECOND, 40 * SECOND, 80 * SECOND];

/// So much of what came before a finding is kept.
const BEFORE: [u64; 6] = [10 * SECOND, 30 * SECOND, 60 * SECOND, 120 * SECOND, 240 * SECOND, 480 * SECOND];

/// Time for a first copy in front of what is kept, and time for the finding behind it.
const AROUND: u64 = 5 * SECOND;

/// Returns a run in which less time passes and which fails alike; none if none is found, or if the run is short. Either
/// only the last things before the finding happen, or all of them, without the time between them.
pub fn hurry(frozen: &Frozen, found_ms: Option<u64>, trial: &mut dyn Trial) -> Option<Frozen> {
    if frozen.length <= LONG {
        return None;
    }
    let found = found_ms.unwrap_or(frozen.length).min(frozen.length);
    let windows = BEFORE.iter().map(|before| window(frozen, found.saturating_sub(*before), found));
    let mut all: Vec<Frozen> = windows.chain(PAUSES.iter().map(|pause| paced(frozen, *pause))).collect();
    all.retain(|hurried| hurried.length <= frozen.length / 2);
    all.sort_by_key(|hurried| hurried.length);
    // All of them together cost no more than the run that they may spare.
    let mut costs = 0;
    all.retain(|hurried| {
        costs += hurried.length;
        costs <= frozen.length
    });
    trial.first("time", all)
}

/// Only what happens between two moments; the first of them comes after a first copy.
fn window(frozen: &Frozen, from: u64, to: u64) -> Frozen {
    let mut smaller = frozen.clone();
    smaller
        .steps
        .retain(|step| step.at <= to && step.lasts.map_or(step.at >= from, |lasts| step.at + lasts > from));
    let end = (to + AROUND).min(frozen.length.max(to));
    let moved = |at: u64| at.max(from) - from + AROUND.min(from);
    // What lasts beyond the end is lifted with all other faults.
    let mut smaller = smaller.retimed(moved);
    smaller.length = whole_seconds(moved(end));
    smaller
}

/// Everything in its order, with shorter pauses between any two moments at which something begins or ends.
fn paced(frozen: &Frozen, pause: u64) -> Frozen {
    let steps = frozen.steps.iter().flat_map(|step| [step.at, step.at + step.lasts.unwrap_or(0)]);
    let moments: BTreeSet<u64> = steps.chain([0, frozen.length]).collect();
    let (mut moved, mut before, mut at) = (BTreeMap::new(), 0, 0);
    for moment in moments {
        at += (moment - before).min(pause);
        moved.insert(moment, at);
        before = moment;
    }
    let moved = |at: u64| {
        // A promise may be about a moment at which nothing happens: it stays as far behind the one before it as it can.
        let after = moved.range(at..).next().map(|(_, to)| *to);
        let (from, to) = moved.range(..=at).next_back().map_or((0, 0), |(from, to)| (*from, *to));
        after.map_or(to + at - from, |after| (to + at - from).min(after))
    };
    let mut smaller = frozen.retimed(moved);
    smaller.length = whole_seconds(smaller.length);
    smaller
}

fn whole_seconds(ms: u64) -> u64 {
    (ms.div_ceil(SECOND) * SECOND).max(LENGTH_MIN)
}

/// Shrinks a run until nothing smaller fails alike, or until the time is over.
pub fn shrink(mut frozen: Frozen, trial: &mut dyn Trial) -> Frozen {
    loop {
        let before = frozen.clone();
        repeat(&mut frozen, PASSES[0], trial);
        fewer_steps(&mut frozen, trial);
        for pass in &PASSES[1..] {
            repeat(&mut frozen, *pass, trial);
        }
        if frozen == before || trial.is_over() {
            return frozen;
        }
    }
}

/// Repeats a pass for as long as it makes the run smaller.
fn repeat(frozen: &mut Frozen, (name, candidates): Pass, trial: &mut dyn Trial) {
    while !trial.is_over() {
        let smaller: Vec<Frozen> = candidates(frozen).into_iter().filter(|other| other != frozen).collect();
        if smaller.is_empty() {
            return;
        }
        match trial.first(name, smaller) {
            Some(found) => *frozen = found,
            None => return,
        }
    }
}

/// Delta debugging over the steps: first all of them, then halves, quarters .. are left out.
fn fewer_steps(frozen: &mut Frozen, trial: &mut dyn Trial) {
    let mut size = frozen.steps.len();
    while size > 0 && !trial.is_over() {
        let starts = (0..frozen.steps.len()).step_by(size);
        // From the end: what came last is the least likely to be a cause.
        let candidates: Vec<Frozen> = starts.rev().map(|start| without_steps(frozen, start, size)).collect();
        if candidates.is_empty() {
            return;
        }
        match trial.first("steps", candidates) {
            Some(found) => {
                *frozen = found;
                size = size.min(frozen.steps.len());
            }
            None => size /= 2,
        }
    }
}

fn without_steps(frozen: &Frozen, start: usize, size: usize) -> Frozen {
    let mut smaller = frozen.clone();
    let end = (start + size).min(smaller.steps.len());
    smaller.steps.drain(start..end);
    smaller
}

/// The run ends earlier; what would begin later goes.
fn ends(frozen: &Frozen) -> Vec<Frozen> {
    let sixteenths = [1, 2, 4, 6, 8, 10, 12, 14, 15].map(|part| frozen.length * part / 16);
    let last = frozen.steps.iter().map(|step| step.at + step.lasts.unwrap_or(0)).max().unwrap_or(0);
    let lengths: BTreeSet<u64> = sixteenths
        .into_iter()
        .chain([last + SECOND])
        .map(|length| length.div_ceil(SECOND) * SECOND)
        .filter(|length| *length >= LENGTH_MIN && *length < frozen.length)
        .collect();
    let ending = |length: u64| {
        let mut smaller = frozen.clone();
        smaller.length = length;
        smaller.steps.retain(|step| step.at < length);
        smaller
    };
    lengths.into_iter().map(ending).collect()
}

/// Tells whether a step needs a host, as itself or as one end of a link.
fn names(step: &Fixed, host: &str) -> bool {
    step.on.split("<->").flat_map(|side| side.split("->")).any(|side| side == host)
}

fn without_host(frozen: &Frozen, host: &str) -> Frozen {
    let mut smaller = frozen.clone();
    smaller.estate.machines.retain(|machine| machine.name != host);
    smaller.estate.servers.retain(|server| server.name != host);
    smaller.guests.remove(host);
    // A promise about a group that is gone makes the file invalid, and the candidate is not played.
    smaller.groups.values_mut().for_each(|group| group.machines.retain(|machine| machine != host));
    smaller.groups.retain(|_, group| !group.machines.is_empty());
    smaller.steps.retain(|step| !names(step, host));
    smaller
}

/// A machine less, a disk less, a smaller disk.
fn machines(frozen: &Frozen) -> Vec<Frozen> {
    let machines = &frozen.estate.machines;
    let mut all = Vec::new();
    if machines.len() > 1 {
        all.extend(machines.iter().rev().map(|machine| without_host(frozen, &machine.name)));
    }
    for (index, machine) in machines.iter().enumerate() {
        for disk in (0..machine.disks.len()).rev() {
            let mut smaller = frozen.clone();
            let disks = &mut smaller.estate.machines[index].disks;
            if disks.len() > 1 {
                disks.remove(disk);
                all.push(smaller.clone());
                smaller = frozen.clone();
            }
            let size = &mut smaller.estate.machines[index].disks[disk];
            if *size > DISK_MIN {
                *size = DISK_MIN;
                all.push(smaller);
            }
        }
    }
    all
}

fn servers(frozen: &Frozen) -> Vec<Frozen> {
    let servers = &frozen.estate.servers;
    if servers.len() < 2 {
        return Vec::new();
    }
    servers.iter().rev().map(|server| without_host(frozen, &server.name)).collect()
}

/// Guests that do less.
fn loads(frozen: &Frozen) -> Vec<Frozen> {
    let mut all = Vec::new();
    for (name, guest) in &frozen.guests {
        for part in [8, 2] {
            let mut smaller = frozen.clone();
            let slower = smaller.guests.get_mut(name).and_then(|guest| guest.writes.as_mut());
            if let Some(writes) = slower.filter(|writes| **writes >= part) {
                *writes /= part;
                all.push(smaller);
            }
        }
        for (rate, jobs) in [
            (1, 1),
            (guest.rate / 4, 1),
            (guest.rate / 2, 1),
            (guest.rate, 1),
            (guest.rate / 2, guest.jobs),
            (guest.rate, guest.jobs / 2),
        ] {
            let mut smaller = frozen.clone();
            let (rate, jobs) = (rate.max(1), jobs.max(1));
            if (rate, jobs) != (guest.rate, guest.jobs)
                && let Some(guest) = smaller.guests.get_mut(name)
            {
                (guest.rate, guest.jobs) = (rate, jobs);
                all.push(smaller);
            }
        }
    }
    all
}

/// Each value of the estate as it is without a word.
fn estates(frozen: &Frozen) -> Vec<Frozen> {
    let usual = default_estate();
    let plain: [fn(&mut Estate, &Estate); 7] = [
        |own, usual| own.disk.clone_from(&usual.disk),
        |own, usual| own.link.clone_from(&usual.link),
        |own, usual| own.store.clone_from(&usual.store),
        |own, usual| own.spool_memory = usual.spool_memory,
        |own, usual| own.spill = usual.spill,
        |own, usual| own.stage = usual.stage,
        |own, usual| own.point_every = usual.point_every,
    ];
    let mut all_plain = frozen.clone();
    plain.iter().for_each(|make| make(&mut all_plain.estate, &usual));
    let each = plain.iter().map(|make| {
        let mut smaller = frozen.clone();
        make(&mut smaller.estate, &usual);
        smaller
    });
    std::iter::once(all_plain).chain(each).collect()
}

/// Faults that last less long.
fn durations(frozen: &Frozen) -> Vec<Frozen> {
    let mut all = Vec::new();
    for (index, step) in frozen.steps.iter().enumerate() {
        let Some(lasts) = step.lasts.filter(|lasts| *lasts > SECOND) else { continue };
        for part in [8, 2] {
            let mut smaller = frozen.clone();
            smaller.steps[index].lasts = Some((lasts / part).div_ceil(SECOND) * SECOND);
            all.push(smaller);
        }
    }
    all
}

/// Steps that come sooner after the one before them, with everything behind them.
fn pauses(frozen: &Frozen) -> Vec<Frozen> {
    let mut all = Vec::new();
    for index in 0..frozen.steps.len() {
        let before = if index == 0 { 0 } else { frozen.steps[index - 1].at };
        let pause = frozen.steps[index].at - before;
        for shorter in [pause / 8, pause / 2] {
            let less = (pause - shorter) / SECOND * SECOND;
            if less == 0 {
                continue;
            }
            let mut smaller = frozen.clone();
            smaller.steps[index..].iter_mut().for_each(|step| step.at -= less);
            smaller.length = smaller.length.saturating_sub(less).max(LENGTH_MIN);
            all.push(smaller);
        }
    }
    all
}

/// Figures that a person would have written: whole seconds, always or one in two.
fn figures(frozen: &Frozen) -> Vec<Frozen> {
    let whole = |ms: u64| ((ms + SECOND / 2) / SECOND * SECOND).max(SECOND);
    let plain = |step: &Fixed| {
        let mut step = step.clone();
        step.at = whole(step.at);
        step.lasts = step.lasts.map(whole);
        step
    };
    let mut all_plain = frozen.clone();
    all_plain.steps = frozen.steps.iter().map(plain).collect();
    let mut all = vec![all_plain];
    for (index, step) in frozen.steps.iter().enumerate() {
        let mut smaller = frozen.clone();
        smaller.steps[index] = plain(step);
        let is_in_order = smaller.steps.windows(2).all(|pair| pair[0].at <= pair[1].at);
        all.extend(is_in_order.then_some(smaller));
        for figure in [1_000_000, 500_000] {
            if step.amounts.get("rate").is_some_and(|rate| *rate % 500_000 != 0) {
                let mut smaller = frozen.clone();
                smaller.steps[index].amounts.insert("rate", figure);
                all.push(smaller);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{self, GuestPlan};
    use crate::scenario;

    /// Fails alike if some steps are there, on a machine, late enough; counts the questions.
    struct Judge {
        asked: usize,
        most: usize,
    }

    fn fails(frozen: &Frozen) -> bool {
        let has = |verb: &str| frozen.steps.iter().find(|step| step.verb == verb);
        let cut = has("link.cut").filter(|cut| cut.lasts.is_some_and(|lasts| lasts >= 3000));
        let killed = has("process.kill").filter(|killed| killed.on == "b");
        let is_in_order = cut.zip(killed).is_some_and(|(cut, killed)| cut.at < killed.at);
        is_in_order && frozen.length > 3000 && frozen.guests.contains_key("b")
    }

    impl Trial for Judge {
        fn first(&mut self, _: &'static str, candidates: Vec<Frozen>) -> Option<Frozen> {
            self.asked += candidates.len();
            // Whatever is asked can be written and read.
            candidates.iter().for_each(|frozen| {
                let read = frozen
                    .scenario("candidate")
                    .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
                assert_eq!(plan::steps(&plan::draw(&read, frozen.seed)).len(), frozen.steps.len());
            });
            candidates.into_iter().find(fails)
        }

        fn is_over(&self) -> bool {
            self.asked > self.most
        }
    }

    fn long() -> Frozen {
        let mut estate = default_estate();
        estate.machines = ["a", "b", "c"]
            .map(|name| scenario::MachineSpec { name: name.into(), disks: vec![4 << 20, 2 << 20] })
            .into();
        estate.spill = 5 << 20;
        let step = |at: u64, verb: &'static str, on: &str, lasts: Option<u64>| Fixed {
            at,
            key: "fault",
            verb,
            on: on.into(),
            lasts,
            amounts: Default::default(),
        };
        let mut steps: Vec<Fixed> = (1..60)
            .map(|index| step(index * 40_000, "host.power", ["a", "b", "c"][index as usize % 3], Some(7_000)))
            .collect();
        steps.push(step(1_111_111, "link.cut", "wan", Some(400_123)));
        steps.push(step(1_222_222, "process.kill", "b", Some(900)));
        steps.sort_by_key(|step| step.at);
        let guest = GuestPlan {
            model: "mixed".into(),
            rate: 40,
            jobs: 4,
            seed: 9,
            writes: None,
            day: None,
            entropy: None,
        };
        Frozen {
            title: "x".into(),
            why: "x".into(),
            tags: Vec::new(),
            story: Vec::new(),
            seed: 3,
            estate,
            groups: Default::default(),
            guests: ["a", "b", "c"].map(|name| (name.to_owned(), guest.clone())).into(),
            steps,
            length: 2_400_000,
            expect: scenario::Expect { always: vec!["prefix".into()], ..Default::default() },
        }
    }

    #[test]
    fn a_run_of_forty_minutes_becomes_its_two_steps() {
        let mut judge = Judge { asked: 0, most: 5000 };
        let small = shrink(long(), &mut judge);
        assert!(fails(&small));
        assert_eq!(small.steps.len(), 2, "{}", small.text());
        assert_eq!(small.estate.machines.len(), 1);
        assert_eq!(small.estate.spill, default_estate().spill);
        assert!(small.length <= 8_000 && small.guests["b"].rate == 1, "{}", small.text());
        assert!(small.steps.iter().all(|step| step.at % 1000 == 0), "{}", small.text());
        assert!(judge.asked < 600, "{} runs", judge.asked);
    }

    #[test]
    fn a_long_run_is_hurried_to_what_came_before_its_finding_or_to_its_order() {
        let mut judge = Judge { asked: 0, most: 5000 };
        let near = hurry(&long(), Some(1_222_222), &mut judge).unwrap();
        assert!(fails(&near) && near.length == 20_000, "{}", near.text());
        assert!(near.steps.len() <= 3, "{}", near.text());
        // Found at the end, long after its causes: their order is kept, and hardly any time.
        let far = hurry(&long(), None, &mut judge).unwrap();
        assert!(fails(&far) && far.steps.len() == long().steps.len(), "{}", far.text());
        assert!(far.length <= long().length / 4, "{}", far.text());
        assert!(judge.asked <= 24, "{} runs", judge.asked);
        // What is short already needs no hurry.
        assert_eq!(hurry(&near, None, &mut judge), None);
    }

    #[test]
    fn what_there_is_when_the_time_is_over_fails_alike() {
        let mut judge = Judge { asked: 0, most: 30 };
        let small = shrink(long(), &mut judge);
        assert!(fails(&small) && small != long());
    }
}
