//! Drawing: from a scenario's ranges and expressions to a plan.

use super::{Action, Damage, DiskFault, Due, Event, GuestPlan, Part, Plan, swarm, weather};
use crate::scenario::verbs::usual;
use crate::scenario::{Act, Deed, On, Range, Scenario, Since, Step, Value, Vary, When};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// How long a killed process stays away if the step does not say, in milliseconds: long enough for
/// peers to notice the end of the connection, shorter than any dead-peer time-out.
pub const RESTART_AFTER: u64 = 700;

/// How long a frozen host or a hanging disk stays so if the step does not say, in milliseconds.
const HANGS_FOR: u64 = 10_000;

/// A stream of choices.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.abs_diff(low);
        if span == 0 { low } else { low + (self.0.next_u64() % (span + 1)) as i64 }
    }

    pub(super) fn range(&mut self, range: Range) -> i64 {
        self.between(range.low, range.high)
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[(self.0.next_u64() % items.len() as u64) as usize]
    }

    /// As [`Dice::pick`], without a throw where there is no choice.
    pub(super) fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.len() > 1 { Some(self.pick(items)) } else { items.first() }
    }

    /// Tells whether something with this chance, in parts per million, happens; certainty takes no throw.
    pub(super) fn happens(&mut self, chance: u32) -> bool {
        chance >= 1_000_000 || self.between(1, 1_000_000) <= i64::from(chance)
    }
}

/// Draws the plan of a scenario for a seed.
pub fn draw(scenario: &Scenario, seed: u64) -> Plan {
    let name = blake3::hash(scenario.name.as_bytes());
    let mut key = *name.as_bytes();
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut drawing = Drawing {
        dice: Dice(ChaCha8Rng::from_seed(key)),
        numbers: BTreeMap::new(),
        names: BTreeMap::new(),
        labels: BTreeMap::new(),
        lifts: BTreeMap::new(),
        length: 0,
        events: Vec::new(),
    };
    let mut drawn = BTreeMap::new();
    for (name, vary) in &scenario.vary {
        match vary {
            Vary::Range(range) => {
                let value = drawing.dice.range(*range);
                drawing.numbers.insert(name.clone(), value);
                drawn.insert(name.clone(), Range { low: value, high: value, unit: range.unit }.to_string());
            }
            Vary::Choice(choices) => {
                let choice = drawing.dice.pick(choices).clone();
                drawn.insert(name.clone(), choice.clone());
                drawing.names.insert(name.clone(), choice);
            }
        }
    }
    let guests = scenario
        .loads
        .iter()
        .map(|(machine, load)| {
            let rate = drawing.dice.range(load.rate).max(1) as u32;
            let jobs = drawing.dice.range(load.jobs).max(1) as u32;
            let drawn = drawing.dice.0.next_u64();
            let seed = load.seed.unwrap_or(drawn);
            let writes = load.writes.map(|writes| drawing.dice.range(writes).max(1) as u64);
            let (model, day, entropy) = (load.model.clone(), load.day, load.entropy);
            (machine.clone(), GuestPlan { model, rate, jobs, seed, writes, day, entropy })
        })
        .collect();
    for step in &scenario.steps {
        drawing.step(step);
    }
    if !scenario.swarm.is_empty() {
        let events = swarm::draw(&mut drawing.dice, scenario, drawing.length);
        drawing.events.extend(events);
    }
    let due = drawing.due(scenario);
    let mut events = drawing.events;
    events.sort_by_key(|event| event.at);
    if let Some(weather) = &scenario.weather {
        let gusts = weather::draw(&mut drawing.dice, weather, drawing.length, &events);
        events.extend(gusts);
        events.sort_by_key(|event| event.at);
    }
    Plan { scenario: scenario.name.clone(), seed, length: drawing.length, drawn, guests, events, due }
}

/// Chooses one of several deeds and what it acts on, as drawn variables say.
pub(super) fn deed<'a>(
    dice: &mut Dice,
    deeds: &'a [Deed],
    names: &BTreeMap<String, String>,
) -> Option<(&'a Deed, String)> {
    let deed = dice.choose(deeds)?;
    let on = match &deed.on {
        On::Names(choices) => dice.choose(choices).cloned().unwrap_or_default(),
        On::Var(name) => names.get(name).cloned().unwrap_or_default(),
    };
    Some((deed, on))
}

struct Drawing {
    dice: Dice,
    numbers: BTreeMap<String, i64>,
    names: BTreeMap<String, String>,
    /// Start and end of each labelled step.
    labels: BTreeMap<String, (u64, u64)>,
    /// What lifts a labelled fault, and where its lifting stands in the events if it has a length.
    lifts: BTreeMap<String, Action>,
    length: u64,
    events: Vec<Event>,
}

impl Drawing {
    fn value(&mut self, value: &Value) -> i64 {
        match value {
            Value::Given(range) => self.dice.range(*range),
            Value::Var(name) => self.numbers[name],
        }
    }

    fn time(&mut self, when: &When) -> u64 {
        let base = match &when.base {
            Some((label, true)) => self.labels[label].0,
            Some((label, false)) => self.labels[label].1,
            None => 0,
        };
        let mut at = base as i64;
        for term in &when.terms {
            at += self.value(term);
        }
        at.max(0) as u64
    }

    fn push(&mut self, at: u64, action: Action) {
        self.events.push(Event { at, action });
    }

    fn step(&mut self, step: &Step) {
        let at = self.time(&step.at);
        let mut end = at;
        if !self.dice.happens(step.chance) {
            self.labels.extend(step.id.clone().map(|id| (id, (at, end))));
            return;
        }
        match &step.act {
            Act::End => self.length = at,
            Act::Heal(label) => {
                if let Some(lift) = self.lifts.get(label).cloned() {
                    self.push(at, lift);
                }
            }
            Act::Verb(deeds) => {
                let Some((Deed { verb, .. }, on)) = deed(&mut self.dice, deeds, &self.names) else { return };
                let mut amounts: BTreeMap<String, i64> =
                    step.amounts.iter().map(|(name, value)| (name.clone(), self.value(value))).collect();
                fill(&mut self.dice, verb.takes, &mut amounts);
                let lasts = step.lasts.as_ref().map(|value| self.value(value).max(1) as u64);
                let (action, lift) = actions(verb.name, &on, &amounts, lasts);
                self.push(at, action);
                let ends_process = ["process.kill", "files.lost"].contains(&verb.name);
                let default = ends_process.then_some(RESTART_AFTER);
                if let Some(lasts) = lasts.or(default) {
                    end = at + lasts;
                    // A freeze ends by itself.
                    lift.iter().for_each(|lift| self.push(end, lift.clone()));
                }
                if let (Some(id), Some(lift)) = (&step.id, lift) {
                    self.lifts.insert(id.clone(), lift);
                }
            }
        }
        if let Some(id) = &step.id {
            self.labels.insert(id.clone(), (at, end));
        }
    }

    /// Returns when groups must be protected again.
    fn due(&self, scenario: &Scenario) -> Vec<Due> {
        let due = |promise: &crate::scenario::Promise| {
            let group = scenario.groups.get(&promise.group)?;
            let from = match &promise.since {
                Since::Label(label) => self.labels.get(label)?.1,
                Since::At(at) => *at,
            };
            Some(Due {
                text: format!("protected({}) within {} s", promise.group, promise.within as f64 / 1000.0),
                machines: group.machines.clone(),
                lag_at_most: group.rpo?,
                from,
                until: from + promise.within,
            })
        };
        scenario.expect.protected.iter().filter_map(due).collect()
    }
}

/// Draws the quantities that a verb needs and nobody gave.
pub(super) fn fill(
    dice: &mut Dice,
    takes: &[(&str, crate::scenario::Unit)],
    amounts: &mut BTreeMap<String, i64>,
) {
    for (key, _) in takes {
        if !amounts.contains_key(*key) {
            let (low, high) = usual(key);
            amounts.insert((*key).to_owned(), dice.between(low, high));
        }
    }
}

/// Returns what a verb does and what lifts it.
pub(super) fn actions(
    verb: &str,
    on: &str,
    amounts: &BTreeMap<String, i64>,
    lasts: Option<u64>,
) -> (Action, Option<Action>) {
    let host = on.to_owned();
    let ppm = amounts.get("rate").map_or(1_000_000, |rate| (*rate).clamp(0, 1_000_000) as u32);
    match verb {
        "point" => (Action::Point(host), None),
        "stop-agent" => (Action::StopAgent(host), None),
        "start-agent" => (Action::StartAgent(host), None),
        "edit-disk" => (Action::EditDisk(host), None),
        "copy" => (Action::Copy(host), None),
        "old-copy" => (Action::StartCopy(host.clone()), Some(Action::StopCopy(host))),
        "process.kill" => (Action::KillProcess(host.clone()), Some(Action::StartProcess(host))),
        "host.power" => (Action::PowerOff(host.clone()), Some(Action::PowerOn(host))),
        "host.freeze" => (Action::Freeze(host, lasts.unwrap_or(HANGS_FOR)), None),
        "host.clock" => (Action::StepClock(host, amounts["by"]), None),
        "site.power" => (Action::SiteOff(host.clone()), Some(Action::SiteOn(host))),
        "site.lost" => (Action::SiteLost(host), None),
        "link.cut" => (Action::Cut(host.clone()), Some(Action::HealLink(host))),
        "link.loss" => (Action::Loss(host.clone(), ppm), Some(Action::HealLink(host))),
        "link.slow" => {
            (Action::Slow(host.clone(), amounts["speed"].max(1) as u64), Some(Action::HealLink(host)))
        }
        "disk.read-errors" => disk_errors(host, DiskFault::Read, ppm),
        "disk.write-errors" => disk_errors(host, DiskFault::Write, ppm),
        "disk.flush-errors" => disk_errors(host, DiskFault::Flush, ppm),
        "disk.hang" => (Action::DiskHang(host, lasts.unwrap_or(HANGS_FOR)), None),
        "files.full" => (Action::FilesFull(host.clone(), true), Some(Action::FilesFull(host, false))),
        "files.lost" => (Action::FilesLost(host.clone()), Some(Action::StartProcess(host))),
        "files.sync-errors" => {
            (Action::FilesSyncErrors(host.clone(), ppm), Some(Action::FilesSyncErrors(host, 0)))
        }
        "files.hang" => (Action::FilesHang(host.clone(), lasts), Some(Action::FilesAnswer(host))),
        "copy-vault" => (Action::CopyVault, None),
        "mount" => (Action::Mount(host.clone()), Some(Action::Unmount(host))),
        "rotate-keys" => (Action::RotateKeys(host), None),
        "rewrap-keys" => (Action::RewrapKeys, None),
        "give-keys" => (Action::GiveKeys, None),
        "retire-keys" => (Action::RetireKeys, None),
        "vault.restored" => (Action::RestoreVault, None),
        "process.kill-at-effect" => {
            let count = amounts["count"].max(1) as u64;
            (Action::KillAtEffect(host, count), None)
        }
        "host.power-at-effect" => {
            let count = amounts["count"].max(1) as u64;
            (Action::PowerAtEffect(host, count), None)
        }
        "points" => (Action::CheckPoints, None),
        "leftovers" => (Action::CheckLeftovers, None),
        "mounts" => (Action::CheckMounts, None),
        "scrub" => (Action::CheckScrub, None),
        other => match other.split_once('.') {
            Some(("store", knob)) => {
                (Action::Store(knob.to_owned(), ppm), Some(Action::Store(knob.to_owned(), 0)))
            }
            Some(("buggify", point)) => {
                (Action::Rare(point.to_owned(), ppm), Some(Action::Rare(point.to_owned(), 0)))
            }
            _ => (damage(other), None),
        },
    }
}

/// Reads `<part>.<damage>`.
fn damage(verb: &str) -> Action {
    let (part, damage) = verb.split_once('.').unwrap_or((verb, ""));
    let part = match part {
        "data" => Part::Data,
        "log" => Part::Log,
        "claim" => Part::Claim,
        "index" => Part::Index,
        "catalogue" => Part::Catalogue,
        "pin" => Part::Pin,
        "key" => Part::Key,
        "identity" => Part::Identity,
        other => unreachable!("the key table knows no part {other} of a vault"),
    };
    let damage = match damage {
        "rot" => Damage::Rot,
        "lost" => Damage::Lost,
        "truncated" => Damage::Truncated,
        other => unreachable!("the key table knows no damage {other}"),
    };
    Action::Damage(part, damage)
}

fn disk_errors(host: String, kind: DiskFault, ppm: u32) -> (Action, Option<Action>) {
    (Action::DiskErrors(host.clone(), kind, ppm), Some(Action::DiskErrors(host, kind, 0)))
}
