//! `fork`: one past, many futures. When did a failure become inevitable?
//!
//! A fork keeps the plan and everything that happened up to a time; from there on all that is left to chance comes
//! out otherwise: latencies, the dice of every fault, the order in which tasks run. A failure that all futures
//! share was inevitable by then, as far as so many futures can tell.

use super::{call, capsules, interrupt, paint, pool, replay};
use crate::capsule::{Parting, Signature, part};
use crate::codes::{INTERRUPTED, NOT_DETERMINISTIC, NOTHING};
use crate::harness::{Fork, Manner, Outcome, Verdict};
use crate::plan::Plan;
use crate::scenario::Scenario;
use std::collections::BTreeMap;
use std::path::Path;

/// The search ends when it knows the time to this, in milliseconds: so often the harness looks.
const NEAR: u64 = 500;

/// Width of a bar.
const BAR: usize = 24;

/// What `fork` is asked for.
pub(super) struct Wanted<'a> {
    /// The run.
    pub(super) run: &'a str,
    /// Planted bug.
    pub(super) bug: Option<&'a str>,
    /// When; without it, the time from which on the failure was inevitable is searched.
    pub(super) at: Option<&'a str>,
    /// Futures of each time.
    pub(super) futures: u64,
    /// Runs at once.
    pub(super) jobs: usize,
}

struct Forking<'a> {
    /// The run and its planted bug, in the words of whoever asked.
    words: String,
    scenario: &'a Scenario,
    plan: &'a Plan,
    real: &'a Outcome,
    signature: Option<Signature>,
    futures: u64,
    jobs: usize,
}

/// What the futures of one time came to.
struct Futures {
    at_ms: u64,
    alike: u64,
    others: BTreeMap<String, u64>,
}

impl Forking<'_> {
    /// Plays the futures of a time.
    fn play(&self, at_ms: u64) -> Result<Futures, u8> {
        let work = |index: usize| pool::Work {
            manner: Manner { fork: Some(Fork { at_ms, future: index as u64 + 1 }), ..Manner::default() },
            ..pool::Work::planned(self.scenario, self.plan.clone())
        };
        let hosts = capsules::hosts(self.scenario);
        let mut futures = Futures { at_ms, alike: 0, others: BTreeMap::new() };
        let (mut played, mut has_other_past) = (0, false);
        pool::each(self.futures as usize, self.jobs, work, |_, outcome, _| {
            played += 1;
            has_other_past |= self.has_other_past(at_ms, &outcome);
            let signature = outcome.signature(&hosts);
            if signature == self.signature {
                futures.alike += 1;
            } else {
                let words = signature.map_or("held".to_owned(), |signature| signature.oracle);
                *futures.others.entry(words).or_default() += 1;
            }
            true
        })?;
        if interrupt::came() || played < self.futures {
            return Err(INTERRUPTED);
        }
        if has_other_past {
            println!(
                "{}",
                paint::paint("a fork has another past: the lab is not deterministic", Verdict::Broken)
            );
            return Err(NOT_DETERMINISTIC);
        }
        Ok(futures)
    }

    /// Tells whether a future differs from the real run before it forks.
    fn has_other_past(&self, at_ms: u64, outcome: &Outcome) -> bool {
        match part(&self.real.beats, &outcome.beats) {
            Parting::Before { recorded, .. } => recorded.at_ms <= at_ms,
            Parting::Nowhere => false,
        }
    }

    fn tell(&self, futures: &Futures) {
        let filled = (futures.alike as usize * BAR).div_ceil(self.futures.max(1) as usize);
        let bar = format!("{}{}", "█".repeat(filled), "·".repeat(BAR - filled));
        let verdict = match futures.alike {
            0 => Verdict::Held,
            all if all == self.futures => Verdict::Broken,
            _ => Verdict::NotConverged,
        };
        let others: Vec<String> =
            futures.others.iter().map(|(what, count)| format!("{count} {what}")).collect();
        println!(
            "  {:>10.3} s  {} {:>3} of {}  {}",
            futures.at_ms as f64 / 1000.0,
            paint::paint(&bar, verdict),
            futures.alike,
            self.futures,
            paint::faint(&others.join(", "))
        );
    }
}

/// `fork`.
pub(super) fn fork(directory: &Path, wanted: &Wanted<'_>) -> Result<u8, u8> {
    let named = replay::find(directory, wanted.run, wanted.bug)?;
    let at = wanted.at.map(replay::time).transpose()?;
    pool::activate(named.bug);
    let (real, _) = pool::play_one(&pool::Work::planned(&named.scenario, named.plan.clone()));
    let signature = real.signature(&capsules::hosts(&named.scenario));
    let bug = wanted.bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
    let forking = Forking {
        words: format!("{}{bug}", wanted.run),
        scenario: &named.scenario,
        plan: &named.plan,
        real: &real,
        futures: wanted.futures.max(1),
        jobs: wanted.jobs,
        signature: signature.clone(),
    };
    let verdict = real.verdict();
    let what =
        signature.map(|signature| format!(" {}: {}", signature.oracle, signature.hits)).unwrap_or_default();
    println!("{}{what}", paint::paint(verdict.word(), verdict));
    println!("  forked at     futures with the same end");
    if let Some(at) = at {
        forking.tell(&forking.play(at)?);
        return Ok(0);
    }
    if verdict == Verdict::Held {
        eprintln!("{} holds: nothing became inevitable; say --at to see its futures", wanted.run);
        return Err(NOTHING);
    }
    search(&forking)
}

/// Searches the time from which on all futures fail alike.
fn search(forking: &Forking<'_>) -> Result<u8, u8> {
    let end = forking
        .real
        .record
        .found_ms
        .unwrap_or(forking.real.stats.simulated)
        .max(forking.plan.length.min(NEAR));
    let all = |futures: &Futures| futures.alike == forking.futures;
    let first = forking.play(0)?;
    forking.tell(&first);
    if all(&first) {
        println!(
            "inevitable from the start: the plan alone decides, as far as {} futures can tell",
            forking.futures
        );
        return Ok(0);
    }
    let (mut open, mut decided) = (0, end);
    while decided - open > NEAR {
        let middle = open.midpoint(decided);
        let futures = forking.play(middle)?;
        forking.tell(&futures);
        if all(&futures) {
            decided = middle;
        } else {
            open = middle;
        }
    }
    println!(
        "{} between {:.3} s and {:.3} s: forked earlier some of {} futures end otherwise, forked later none does",
        paint::paint("inevitable", Verdict::Broken),
        open as f64 / 1000.0,
        decided as f64 / 1000.0,
        forking.futures
    );
    let words = format!("trace {} --around {:.3}", forking.words, decided as f64 / 1000.0);
    println!("  what happened then: {}", call::line(&words));
    Ok(0)
}
