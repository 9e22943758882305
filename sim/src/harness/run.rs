//! One run: build, play the plan, lift the faults, wait for convergence, restore, judge.

use super::actions::{self, Account};
use super::ear::Ear;
use super::estate::Estate;
use super::manner::Manner;
use super::objectives;
use super::outcome::{Outcome, Stats};
use super::probe::Probe;
use super::record::Record;
use super::restore::{self, Health, How, Images, Restored};
use super::scrubbing::{self, Whole};
use super::watch::{self, Watch};
use super::{guests, leftovers, mounts};
use crate::cpu::{Spent, Stopwatch};
use crate::oracles::history::Deed;
use crate::oracles::{Finding, guest_untouched, maintainers, writers};
use crate::plan::{self, Action, Damage, Part, Plan};
use crate::ports::{Hardware, SimWorld, Trace, Traced, lock};
use crate::scale;
use crate::scenario::Scenario;
use madsim::Config;
use madsim::runtime::Runtime;
use redoubt_core::MarkerId;
use redoubt_ports::StoreKey;
use redoubt_roles::agent::AgentMode;
use redoubt_vault::MachineReader;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

/// Step of the safety phase: the roles are asked this often.
const SAMPLE: u64 = 500;

/// The same of a scaled estate, which has many of them and lasts long.
const SAMPLE_SCALED: u64 = 1000;

/// Step of the liveness phase.
const POLL: Duration = Duration::from_millis(250);

/// Time for guests to finish what is under way after they are told to stop.
const QUIESCE: Duration = Duration::from_secs(3);

/// A last point that does not come within this time is cut again, in milliseconds.
const CUT_AGAIN: u64 = 30_000;

/// Of so many of its newest objects one of the index is damaged: most of them are in use.
const INDEX_VICTIMS: usize = 6;

/// All points of so many seconds stay under the usual rules.
const USUALLY_KEPT: u64 = 2 * 3600;

/// Of so many of its newest claims one is damaged: a reader looks only at the one that the log ends with.
const CLAIM_VICTIMS: usize = 2;

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
        Some(Ok(last)) => run.last(&last).await,
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

struct Run<'a> {
    estate: Arc<Estate>,
    plan: &'a Plan,
    steer: Steer,
    account: Account,
    watch: Watch,
    record: Record,
    total: Restored,
    /// Which points could be read, and when.
    readable: Vec<(Duration, BTreeSet<Readable>)>,
}

/// A point of a machine.
type Readable = (String, MarkerId);

impl Run<'_> {
    fn now(&self) -> u64 {
        self.estate.world.shared.now().as_millis() as u64
    }

    async fn until(&mut self, at: u64) {
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

    fn sample(&mut self) {
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
    fn tell(&self, findings: &[Finding]) {
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

    /// Faults are lifted, guests stop; everything must converge. Returns the last marker of each machine.
    async fn liveness(&mut self, bound: u64) -> Result<BTreeMap<String, MarkerId>, String> {
        let now = self.now();
        let trace = self.estate.world.shared.trace.clone();
        trace.line(self.estate.world.shared.now(), || "all faults are lifted, guests stop".into());
        self.record.lifted_ms = Some(now);
        actions::lift_all(&self.estate, &mut self.account, now);
        self.estate.stop.store(true, Ordering::Relaxed);
        let deadline = now + bound;
        self.until(now + QUIESCE.as_millis() as u64).await;
        let (mut last, mut readers, mut cut_at) = (BTreeMap::new(), BTreeMap::new(), now);
        while self.now() < deadline {
            tokio::time::sleep(POLL).await;
            self.sample();
            for (name, machine) in &self.estate.machines {
                let agent = lock(&machine.agent).clone();
                let Some(agent) = agent else { continue };
                let status = agent.status();
                let settled =
                    status.mode == AgentMode::Exact && status.is_connected && status.spill_bytes == 0;
                if settled && !last.contains_key(name) {
                    let cut = tokio::time::timeout(QUIESCE, guests::cut(machine, &agent)).await;
                    if let Ok(Some(id)) = cut {
                        last.insert(name.clone(), id);
                        cut_at = self.now();
                    }
                }
            }
            if last.len() == self.estate.machines.len() && self.published(&last, &mut readers).await {
                self.record.converged_ms = Some(self.now());
                trace.line(self.estate.world.shared.now(), || "everything has converged".into());
                return Ok(last);
            }
            if self.now() >= cut_at + CUT_AGAIN {
                // A point that was in a stage when that was lost never comes.
                last.clear();
                cut_at = self.now();
            }
        }
        Err(format!("no convergence within {} s\n{}", bound as f64 / 1000.0, Watch::waiting(&self.estate)))
    }

    /// Tells whether each machine's last point is in the vault; keeps readers, which read only what is new.
    async fn published(
        &self,
        last: &BTreeMap<String, MarkerId>,
        readers: &mut BTreeMap<String, MachineReader>,
    ) -> bool {
        let Ok(vault) = restore::open(&self.estate).await else { return false };
        for (name, machine) in &self.estate.machines {
            if !readers.contains_key(name) {
                let Ok(opened) = MachineReader::open(&vault, machine.id).await else { return false };
                readers.insert(name.clone(), opened);
            }
            let Some(reader) = readers.get(name) else { return false };
            if reader.refresh().await.is_err() {
                return false;
            }
            if !reader.points().iter().any(|point| Some(&point.marker.id) == last.get(name)) {
                return false;
            }
        }
        true
    }

    /// The final check, and one more for each damage. Each object gets its bytes back before the next one is
    /// damaged, so that what is damaged has one cause.
    async fn last(&mut self, last: &BTreeMap<String, MarkerId>) {
        // Whatever is still on the way arrives: nobody waits for it any more, and it changes nothing.
        self.estate.world.store.land();
        tokio::time::sleep(POLL).await;
        let keeps_images = !self.plan.damages().is_empty();
        let images = self.check_points_as(last, Health::Whole, keeps_images).await.images;
        let wholes = self.scrub_whole(images).await;
        for (part, damage) in self.plan.damages() {
            let store = self.estate.world.store.clone();
            let Some((written, key)) = self.victim(part, damage) else { continue };
            let Some(bytes) = store.spoil(&key, damage) else { continue };
            let shared = &self.estate.world.shared;
            shared.trace.line(shared.now(), || format!("{key}: {damage:?}"));
            shared.trace.bite(plan::damage_verb(part, damage));
            let health = match part {
                Part::Data | Part::Log => Health::Rotten,
                Part::Claim | Part::Index | Part::Catalogue | Part::Pin | Part::Key | Part::Identity => {
                    Health::Spoilt(part, key.clone())
                }
            };
            self.scrub_damaged(&wholes, (part, damage), &key).await;
            store.forget_meeting();
            let restored = self.check_points(last, health.clone()).await;
            let is_met = store.restore(&key, bytes);
            if health == Health::Rotten {
                self.spared(key.as_str(), written, &restored.read);
            } else if is_met && !restored.is_reported && part != Part::Key {
                // Openings ask ahead for keys that nothing may need; a scrub names every one (`scrub-exact`).
                let what = format!("{key}: the reader met its damage ({damage:?}) and told nobody");
                self.total.findings.push(Finding::new(health.oracle("no-silent-damage"), what));
            }
        }
        if self.plan.checks_leftovers() {
            self.leftovers().await;
        }
    }

    /// Waits until what nobody needs had its time to go, and looks what is left; the points are as good as before.
    async fn leftovers(&mut self) {
        let mut found = Vec::new();
        for (name, machine) in &self.estate.machines {
            match leftovers::judge(&self.estate, machine).await {
                Ok(findings) => found.extend(findings),
                Err(why) => {
                    let what = format!("{name}: the vault cannot be tidied: {why}");
                    found.push(Finding::new("nothing-left-behind", what));
                }
            }
        }
        self.tell(&found);
        self.total.findings.extend(found);
        self.check_points(&BTreeMap::new(), Health::Whole).await;
    }

    /// Scrubs what is whole; `images` is what the points of each machine hold, for whoever damages it.
    async fn scrub_whole(&mut self, mut images: BTreeMap<String, Images>) -> BTreeMap<String, Whole> {
        let (mut found, mut wholes) = (Vec::new(), BTreeMap::new());
        for (name, machine) in &self.estate.machines {
            let images = images.remove(name).unwrap_or_default();
            let whole = scrubbing::whole(&self.estate, machine, images, &mut found).await;
            wholes.extend(whole.map(|whole| (name.clone(), whole)));
        }
        self.tell(&found);
        self.total.findings.extend(found);
        wholes
    }

    /// Scrubs the machine that the damaged object belongs to.
    async fn scrub_damaged(
        &mut self,
        wholes: &BTreeMap<String, Whole>,
        what: (Part, Damage),
        key: &StoreKey,
    ) {
        let mut found = Vec::new();
        for (name, machine) in &self.estate.machines {
            let is_of = key.as_str().starts_with(&format!("g/{}/", machine.id));
            let Some(whole) = wholes.get(name).filter(|_| is_of) else { continue };
            let is_costly = scrubbing::damaged(&self.estate, machine, whole, what, key, &mut found).await;
            let mark = if is_costly { "scrub-found-lost-content" } else { "scrub-found-harmless-damage" };
            self.total.marks.insert(mark);
        }
        self.tell(&found);
        self.total.findings.extend(found);
    }

    /// Chooses an object of a machine; of the index and the claims, one of the newest. Never the loss of the
    /// newest slot of a log: no reader can tell that from its never having been.
    fn victim(&self, part: Part, damage: Damage) -> Option<(Duration, StoreKey)> {
        let store = &self.estate.world.store;
        let there: BTreeSet<StoreKey> = store.truth().into_iter().map(|(key, _)| key).collect();
        let created = store.effects().into_iter().filter(|effect| effect.deed == Deed::Created);
        let mut objects: Vec<_> =
            created.filter(|effect| part.holds(effect.key.as_str()) && there.contains(&effect.key)).collect();
        let few = match part {
            Part::Data | Part::Log | Part::Pin | Part::Key | Part::Identity => objects.len(),
            Part::Index | Part::Catalogue => INDEX_VICTIMS,
            Part::Claim => CLAIM_VICTIMS,
        };
        objects.drain(..objects.len().saturating_sub(few));
        if (part, damage) == (Part::Log, Damage::Lost) {
            objects.pop();
        }
        let at = self.estate.world.shared.below(objects.len().max(1) as u64) as usize;
        objects.get(at).map(|effect| (effect.at, effect.key.clone()))
    }

    /// A point that could be read before an object existed does not need it.
    fn spared(&mut self, key: &str, written: Duration, after: &BTreeSet<Readable>) {
        let Some((_, before)) = self.readable.iter().rev().find(|(at, _)| *at < written) else { return };
        match before.difference(after).next() {
            Some((machine, point)) => {
                let what = format!(
                    "{machine}: point {point} was readable before {key} was written, but not after that rotted"
                );
                self.total.findings.push(Finding::new("no-silent-damage", what));
            }
            None if !before.is_empty() => {
                self.total.marks.insert("rot-spared-older-points");
            }
            None => {}
        }
    }

    async fn check_points(&mut self, last: &BTreeMap<String, MarkerId>, health: Health) -> Restored {
        self.check_points_as(last, health, false).await
    }

    async fn check_points_as(
        &mut self,
        last: &BTreeMap<String, MarkerId>,
        health: Health,
        keeps_images: bool,
    ) -> Restored {
        let (outages, is_whole) = (&self.account.outages, health == Health::Whole);
        // What was restored from a copy lacks what was acknowledged, until the agent knows and healed it.
        let (is_back, none) = (self.account.marks.contains("vault-restored"), BTreeMap::new());
        let vaulted = if is_back && last.is_empty() { &none } else { &self.watch.vaulted };
        let how = How { vaulted, health, last, outages, keeps_images };
        let held = if is_whole { mounts::held(&self.estate) } else { Vec::new() };
        let restored = restore::all(&self.estate, &how).await;
        self.pinned(&held, &restored);
        self.tell(&restored.findings);
        self.total.findings.extend(restored.findings.iter().cloned());
        self.total.marks.extend(restored.marks.iter().copied());
        self.total.points += restored.points;
        for (machine, sequence, cut_ms) in &restored.cuts {
            self.record.point(machine, *sequence, *cut_ms);
        }
        if !restored.findings.is_empty() {
            self.record.found(self.now());
        }
        if is_whole {
            self.vanished(&restored);
            self.total.order.extend(restored.order.clone());
            self.readable.push((self.estate.world.shared.now(), restored.read.clone()));
        }
        restored
    }

    /// Notes mounted points that only their pins keep.
    fn pinned(&mut self, held: &[(String, MarkerId)], restored: &Restored) {
        let keep = self.estate.keep.map_or(u64::MAX, u64::from);
        let is_old = |point: &Readable| newer(restored, point, restored.order.get(point)) >= keep;
        if held.iter().any(|point| restored.read.contains(point) && is_old(point)) {
            self.total.marks.insert("pinned-point-outlived-retention");
        }
    }

    /// A point that could be read once can be read for as long as nothing is damaged.
    fn vanished(&mut self, restored: &Restored) {
        let Some((at, before)) = self.readable.last() else { return };
        let keep = self.estate.keep.map_or(u64::MAX, u64::from);
        // Of a scaled estate not all points are read, and the usual rules give up those of more than two hours.
        let is_scaled = self.estate.scale > 1;
        let there = if is_scaled { &restored.listed } else { &restored.read };
        let is_old = at.as_secs() + USUALLY_KEPT < self.estate.world.shared.now().as_secs();
        if is_scaled && is_old {
            return;
        }
        let mut gone: Vec<&Readable> = before.difference(there).collect();
        let vanished = gone.len();
        gone.retain(|point| newer(restored, point, self.total.order.get(point)) < keep);
        if vanished > gone.len() {
            self.total.marks.insert("points-given-up");
        }
        if let Some((machine, point)) = gone.first() {
            let at = at.as_secs_f64();
            let what = format!("{machine}: point {point} was readable at {at:.3} s and is not any more");
            self.total.findings.push(Finding::new("points-restorable", what));
        }
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
            findings.extend(guest_untouched::judge(name, &lock(&machine.recorder.notices), &excuses));
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

/// Counts the points of the same machine that are listed and newer.
fn newer(restored: &Restored, point: &Readable, place: Option<&u64>) -> u64 {
    restored.order.iter().filter(|((machine, _), at)| *machine == point.0 && Some(*at) > place).count() as u64
}

/// Folds the verdict into the digest: equal traces with different verdicts are no equal runs.
fn crc_of(findings: &[Finding], operations: u64, points: u64) -> u32 {
    let text = format!("{findings:?} {operations} {points}");
    u32::from_le_bytes(blake3::hash(text.as_bytes()).as_bytes()[..4].try_into().unwrap_or([0; 4]))
}
