//! One run: build, play the plan, let it settle (`liveness`), restore all points (`finale`), judge.

use super::actions::{self, Account};
use super::ear::Ear;
use super::estate::Estate;
use super::manner::Manner;
use super::mounts;
use super::objectives;
use super::outcome::{Outcome, Stats};
use super::probe::Probe;
use super::record::Record;
use super::restore::{Health, Restored};
use super::watch::{self, Watch};
use crate::cpu::{Spent, Stopwatch};
use crate::oracles::{Finding, guest_untouched, maintainers, writers};
use crate::plan::{self, Action, Plan};
use crate::ports::{Hardware, SimWorld, Trace, Traced, lock};
use crate::scale;
use crate::scenario::Scenario;
use madsim::Config;
use madsim::runtime::Runtime;
use redoubt_core::MarkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

/// Step of the safety phase: the roles are asked this often.
const SAMPLE: u64 = 500;

/// The same of a scaled estate, which has many of them and lasts long.
const SAMPLE_SCALED: u64 = 1000;

/// Plays one plan. Runs on the calling thread, which should be a fresh one.
pub fn play(scenario: &Scenario, plan: &Plan, manner: &Manner) -> Outcome {
    let (scenario, plan) = &scale::played(scenario, plan);
    let runtime = Runtime::with_seed_and_config(plan.seed, Config::default());
    let world = runtime.block_on(async { make_world(scenario, plan, manner.is_traced) });
    let ear = Ear(world.shared.clone());
    tracing::subscriber::with_default(ear, || {
        runtime.block_on(async {
            let stop = Arc::new(Notify::new());
            let steer = Steer { manner: *manner, has_forked: false, stop: Arc::clone(&stop) };
            let outcome = tokio::select! {
                biased;
                outcome = run(scenario, plan, world.clone(), steer) => outcome,
                () = stop.notified() => stopped(plan, &world),
            };
            world.end().await;
            outcome
        })
    })
}

/// Forks and stops a run, at times when the harness looks at it anyway: one more timer would change the order of
/// those that are due together, and with it the past.
struct Steer {
    manner: Manner,
    has_forked: bool,
    stop: Arc<Notify>,
}

impl Steer {
    fn look(&mut self, world: &SimWorld) {
        let now = world.shared.now().as_millis() as u64;
        if let Some(fork) = self.manner.fork.filter(|fork| !self.has_forked && now >= fork.at_ms) {
            self.has_forked = true;
            world.shared.throw_other_dice(fork.future);
        }
        if self.manner.until_ms.is_some_and(|until| now >= until) {
            self.stop.notify_one();
        }
    }
}

/// Returns what there is of a run that was stopped: nothing was judged yet.
fn stopped(plan: &Plan, world: &SimWorld) -> Outcome {
    let marks = world.shared.trace.marks();
    let Traced { digest, events, beats, lines, findings, .. } = world.shared.trace.finish();
    let simulated = world.shared.now().as_millis() as u64;
    Outcome {
        scenario: plan.scenario.clone(),
        seed: plan.seed,
        stats: Stats { simulated, events, ..Stats::default() },
        marks,
        digest,
        beats,
        trace: lines,
        findings,
        ..Outcome::default()
    }
}

fn make_world(scenario: &Scenario, plan: &Plan, trace: bool) -> SimWorld {
    let estate = &scenario.estate;
    let hardware = Hardware::of(&estate.disk, &estate.link, &estate.store)
        .expect("the reader of scenario files knows all models")
        .scaled(estate.scale, estate.bandwidth);
    SimWorld::new(plan.seed, trace, &hardware)
}

async fn run(scenario: &Scenario, plan: &Plan, world: SimWorld, steer: Steer) -> Outcome {
    let mut outcome = Outcome { scenario: plan.scenario.clone(), seed: plan.seed, ..Outcome::default() };
    let (mut watch, mut spent) = (Stopwatch::start(), Spent::default());
    let estate = match Estate::build(scenario, plan, world.clone()).await {
        Ok(estate) => Arc::new(estate),
        Err(error) => {
            outcome
                .findings
                .push(Finding::new("points-restorable", format!("no vault can be made: {error}")));
            return outcome;
        }
    };
    let mut run = Run {
        estate,
        plan,
        steer,
        account: Account::default(),
        watch: Watch::default(),
        record: Record::of_estate(scenario.estate.scale > 1),
        total: Restored::default(),
        readable: Vec::new(),
    };
    for host in run.estate.servers.keys().chain(run.estate.machines.keys()) {
        run.estate.start(host);
    }
    run.safety().await;
    spent.load = watch.lap();
    let settled = match plan.loses_source() {
        true => None,
        false => Some(run.liveness(scenario.expect.converges_within).await),
    };
    spent.settling = watch.lap();
    match settled {
        Some(Ok(last)) => run.finale(&last).await,
        unsettled => {
            outcome.waiting = unsettled.and_then(Result::err);
            run.check_points(&BTreeMap::new(), Health::Whole).await;
        }
    }
    run.judge(scenario, &mut outcome);
    spent.judging = watch.lap();
    outcome.spent = spent;
    outcome
}

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) estate: Arc<Estate>,
    pub(super) plan: &'a Plan,
    steer: Steer,
    pub(super) account: Account,
    pub(super) watch: Watch,
    pub(super) record: Record,
    pub(super) total: Restored,
    /// Which points could be read, and when.
    pub(super) readable: Vec<(Duration, BTreeSet<Readable>)>,
}

/// A point of a machine.
pub(super) type Readable = (String, MarkerId);

impl Run<'_> {
    pub(super) fn now(&self) -> u64 {
        self.estate.world.shared.now().as_millis() as u64
    }

    pub(super) async fn until(&mut self, at: u64) {
        let sample = if self.estate.scale > 1 { SAMPLE_SCALED } else { SAMPLE };
        while self.now() < at {
            let account = &self.account;
            let due = account
                .frozen
                .values()
                .chain(account.restarts.values())
                .chain(&account.mend_at)
                .copied()
                .min();
            let next = at.min(due.unwrap_or(u64::MAX)).min(self.now() / sample * sample + sample);
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(next.saturating_sub(self.now()).max(1))) => {}
                () = self.estate.world.shared.tripping() => {}
            }
            let now = self.now();
            actions::end_tripped(&self.estate, &mut self.account, now);
            actions::restart(&self.estate, &mut self.account, now);
            actions::thaw(&self.estate, &mut self.account, now);
            actions::mend(&self.estate, &mut self.account, now);
            self.sample();
        }
    }

    pub(super) fn sample(&mut self) {
        self.steer.look(&self.estate.world);
        let told = self.watch.findings.len();
        self.watch.sample(&self.estate);
        watch::record(&self.estate, &mut self.record);
        if self.watch.findings.len() > told {
            self.record.found(self.now());
        }
        self.tell(&self.watch.findings[told..]);
    }

    /// Puts what an oracle found into the trace, at its place in time.
    pub(super) fn tell(&self, findings: &[Finding]) {
        let shared = &self.estate.world.shared;
        for finding in findings {
            shared
                .trace
                .line(shared.now(), || format!("{}{}: {}", Trace::FOUND, finding.oracle, finding.what));
        }
    }

    /// Load and faults.
    async fn safety(&mut self) {
        for event in &self.plan.events {
            self.until(event.at).await;
            if event.action == Action::CheckPoints {
                self.check_points(&BTreeMap::new(), Health::Whole).await;
            }
            let now = self.now();
            actions::perform(&self.estate, &mut self.account, now, &event.action);
            if event.action == Action::RestoreVault {
                // What could be read then was written after the copy, perhaps.
                self.readable.clear();
            }
        }
        self.until(self.plan.length).await;
    }

    fn judge(mut self, scenario: &Scenario, outcome: &mut Outcome) {
        outcome.marks.extend(self.estate.world.shared.trace.marks());
        outcome.bites = self.estate.world.shared.trace.bites();
        outcome.arms = self.estate.world.shared.trace.arms();
        let Traced { digest, events, beats, lines, findings: seen, .. } =
            self.estate.world.shared.trace.finish();
        let mut findings = seen;
        findings.extend(self.watch.findings);
        findings.extend(self.total.findings);
        let mut operations = 0;
        for (name, machine) in &self.estate.machines {
            let mut excuses = self.account.excuses.get(name).cloned().unwrap_or_default();
            excuses.extend((self.estate.scale > 1).then(guest_untouched::Excuse::of_scale));
            findings.extend(guest_untouched::judge(name, lock(&machine.recorder.notices).noted(), &excuses));
            operations += lock(&machine.recorder.log).len() as u64;
            let written = lock(&machine.recorder.log).written_bytes() * self.estate.scale;
            self.record.written.insert(name.clone(), written);
            if machine.spilled_at_start.load(Ordering::Relaxed) > 0 {
                outcome.marks.insert("spill-recovered");
            }
        }
        let faults = plan::faults(self.plan);
        let is_faulty = |from: Duration, to: Duration| {
            let (from, to) = (from.as_millis() as u64, to.as_millis() as u64);
            faults.iter().any(|fault| !fault.is_operator && fault.from_ms <= to && from <= fault.to_ms)
        };
        findings.extend(mounts::judge(&self.estate, is_faulty));
        let effects = self.estate.world.store.effects();
        outcome.marks.extend(maintainers::marks(&effects));
        findings.extend(writers::judge(&effects));
        findings.extend(maintainers::judge(&effects));
        findings.retain(|finding| scenario.expect.always.iter().any(|name| name == finding.oracle));
        outcome.findings = findings;
        outcome.marks.extend(self.watch.marks);
        outcome.marks.extend(self.account.marks);
        outcome.marks.extend(self.total.marks);
        let simulated = self.estate.world.shared.now().as_millis() as u64;
        outcome.digest = format!("{digest}{:08x}", crc_of(&outcome.findings, operations, self.total.points));
        outcome.beats = beats;
        outcome.trace = lines;
        for host in &self.account.lost {
            let at = self.account.outages.get(host).map(|at| (host.clone(), *at));
            self.record.lost.extend(at);
        }
        for Probe { machine, from_ms, to_ms } in lock(&self.estate.probes).drain(..) {
            // What never opened lasted as long as anybody looked.
            let took = to_ms.unwrap_or(simulated).saturating_sub(from_ms);
            self.record.mounts.entry(machine).or_default().push(took);
        }
        outcome.missed = objectives::missed(&self.record, &scenario.expect.objectives);
        let overdue = objectives::overdue(&self.record, &self.plan.due);
        if outcome.waiting.is_none() && !overdue.is_empty() {
            outcome.waiting = Some(overdue.join("\n"));
        }
        outcome.record = self.record;
        let (points, lag) = (self.total.points, self.watch.lag);
        outcome.stats = Stats { simulated, operations, points, lag, events };
    }
}

/// Folds the verdict into the digest: equal traces with different verdicts are no equal runs.
fn crc_of(findings: &[Finding], operations: u64, points: u64) -> u32 {
    let text = format!("{findings:?} {operations} {points}");
    u32::from_le_bytes(blake3::hash(text.as_bytes()).as_bytes()[..4].try_into().unwrap_or([0; 4]))
}
