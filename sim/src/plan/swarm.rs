//! The swarm: faults drawn freely from the whole catalogue, within the fault budget.
//!
//! Each seed uses a random subset of the catalogue: runs that leave some faults out reach states that
//! a uniform mix never reaches. A quantity is now and then an extreme one. What the engine may do at any time and
//! rarely does is drawn apart from the faults: each seed enables some of its points for the whole run.

use super::draw::{Dice, actions, fill};
use super::{Action, Event};
use crate::scenario::Scenario;
use crate::scenario::verbs::{Ends, Target, VERBS, Verb};
use std::collections::BTreeMap;

/// Most faults in one run; more only hide each other.
const FAULTS_MAX: i64 = 8;

/// Longest fault in milliseconds; the dead-peer and session time-outs of the roles are shorter.
const LONGEST: i64 = 12_000;

/// Drawn for machines that can live with it only, so that no pattern draws it.
const FLUSH_ERRORS: &str = "disk.flush-errors";

/// Of so many points of rare behaviour one is enabled.
const RARE_ONE_OF: i64 = 4;

/// Of so many shares one is extreme.
const EXTREME_ONE_OF: i64 = 5;

/// Shares that count as extreme, in parts per million.
const EXTREME: [(i64, i64); 2] = [(100, 2_000), (600_000, 1_000_000)];

/// Draws faults of some of the scenario's kinds into the first four fifths of the safety phase.
pub(super) fn draw(dice: &mut Dice, scenario: &Scenario, length: u64) -> Vec<Event> {
    let (rare, mut faults): (Vec<&Verb>, Vec<&Verb>) = scenario.swarm.iter().partition(|verb| verb.is_rare());
    let mut events = enable(dice, length, &rare);
    let hits_disks = faults.iter().any(|verb| verb.name == "disk.write-errors");
    faults.extend(VERBS.iter().filter(|verb| hits_disks && verb.name == FLUSH_ERRORS));
    if !faults.is_empty() {
        events.extend(faults_of(dice, scenario, length, faults));
    }
    let machines: Vec<String> = scenario.estate.machines.iter().map(|machine| machine.name.clone()).collect();
    spare_hung_machines(&mut events, &machines);
    events
}

/// Stage one of what is rare: some points are enabled, each with its own probability.
fn enable(dice: &mut Dice, length: u64, points: &[&Verb]) -> Vec<Event> {
    let mut events = Vec::new();
    for verb in points {
        if dice.between(1, RARE_ONE_OF) > 1 {
            continue;
        }
        let amounts = amounts_of(dice, verb);
        let (action, lift) = actions(verb.name, "", &amounts, None);
        events.push(Event { at: 0, action });
        events.extend(lift.map(|action| Event { at: length, action }));
    }
    events
}

/// Draws the quantities of a verb; a share is sometimes extreme.
fn amounts_of(dice: &mut Dice, verb: &Verb) -> BTreeMap<String, i64> {
    let mut amounts = BTreeMap::new();
    fill(dice, verb.takes, &mut amounts);
    if let Some(rate) = amounts.get_mut("rate")
        && dice.between(1, EXTREME_ONE_OF) == 1
    {
        let (low, high) = *dice.pick(&EXTREME);
        *rate = dice.between(low, high);
    }
    amounts
}

fn faults_of(dice: &mut Dice, scenario: &Scenario, length: u64, mut kinds: Vec<&Verb>) -> Vec<Event> {
    let estate = &scenario.estate;
    let least = kinds.len().min(2) as i64;
    let keep = dice.between(least, kinds.len() as i64) as usize;
    while kinds.len() > keep {
        let index = dice.between(0, kinds.len() as i64 - 1) as usize;
        kinds.remove(index);
    }
    let machines: Vec<String> = estate.machines.iter().map(|machine| machine.name.clone()).collect();
    let servers: Vec<String> = estate.servers.iter().map(|server| server.name.clone()).collect();
    let hosts = [machines.clone(), servers.clone()].concat();
    // A database that goes on after a failed flush is its own undoing: no replica is better than its source.
    let is_patient = |name: &&String| scenario.loads.get(*name).is_none_or(|load| load.model != "database");
    let patient: Vec<String> = machines.iter().filter(is_patient).cloned().collect();
    let links = ["wan".to_owned(), "source->target".to_owned(), "target->source".to_owned()];
    let mut events = Vec::new();
    for _ in 0..dice.between(1, FAULTS_MAX) {
        let verb = *dice.pick(&kinds);
        let targets = if verb.name == FLUSH_ERRORS { &patient } else { &machines };
        if verb.target == Target::Machine && targets.is_empty() {
            continue;
        }
        let on = match verb.target {
            Target::None => String::new(),
            Target::Host => dice.pick(&hosts).clone(),
            Target::Server => dice.pick(&servers).clone(),
            Target::Machine => dice.pick(targets).clone(),
            Target::Site => dice.pick(&["source".to_owned(), "target".to_owned()]).clone(),
            Target::Link => dice.pick(&links).clone(),
        };
        let at = dice.between(500, length as i64 * 4 / 5) as u64;
        let lasts = dice.between(200, LONGEST) as u64;
        let amounts = amounts_of(dice, verb);
        let (action, lift) = actions(verb.name, &on, &amounts, Some(lasts));
        events.push(Event { at, action });
        if let (Some(lift), Ends::Lasts) = (lift, verb.ends) {
            events.push(Event { at: at + lasts, action: lift });
        }
    }
    events
}

/// Keeps to the fault budget: a machine whose state directory hangs does not die while the vault may be out of
/// its reach, since then nobody could have been told that marks are missing.
fn spare_hung_machines(events: &mut Vec<Event>, machines: &[String]) {
    let is_machine = |host: &String| machines.contains(host);
    let keeps_vault_away = |event: &Event| match &event.action {
        Action::Cut(_) | Action::Loss(..) | Action::Slow(..) | Action::Store(..) | Action::SiteOff(_) => true,
        Action::Rare(point, _) => point == "dropped-session",
        Action::KillProcess(host)
        | Action::PowerOff(host)
        | Action::PowerAtEffect(host, _)
        | Action::Freeze(host, _)
        | Action::FilesFull(host, _)
        | Action::FilesLost(host)
        | Action::FilesSyncErrors(host, _)
        | Action::FilesHang(host, _) => !is_machine(host),
        _ => false,
    };
    let kills = |event: &Event, machine: &String| match &event.action {
        Action::KillProcess(host) | Action::PowerOff(host) | Action::PowerAtEffect(host, _) => {
            host == machine
        }
        Action::SiteOff(_) | Action::GiveKeys => true,
        _ => false,
    };
    let is_vault_away = events.iter().any(keeps_vault_away);
    for machine in machines {
        if is_vault_away && events.iter().any(|event| kills(event, machine)) {
            let is_hang = |event: &Event| matches!(&event.action, Action::FilesHang(host, _) | Action::FilesAnswer(host) if host == machine);
            events.retain(|event| !is_hang(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_ports::Rare;
    use std::collections::BTreeSet;

    #[test]
    fn each_point_of_the_engine_is_a_verb_and_each_such_verb_a_point() {
        let verbs: BTreeSet<&str> =
            VERBS.iter().filter_map(|verb| verb.name.strip_prefix("buggify.")).collect();
        let points: BTreeSet<&str> = Rare::ALL.into_iter().map(Rare::name).collect();
        assert_eq!(verbs, points);
        assert_eq!(points.len(), Rare::ALL.len());
    }

    #[test]
    fn each_seed_of_the_swarm_enables_other_points_and_other_faults_and_all_are_drawn_by_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/swarm.toml");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let scenario = crate::scenario::load("swarm.toml", "swarm", &text).expect("the swarm is valid");
        let verbs_of = |seed| -> BTreeSet<&str> {
            crate::plan::steps(&crate::plan::draw(&scenario, seed)).iter().map(|step| step.verb).collect()
        };
        let all: BTreeSet<&str> = (0..400).flat_map(verbs_of).collect();
        let drawable = scenario.swarm.iter().map(|verb| verb.name).chain([FLUSH_ERRORS]);
        let missing: Vec<&str> = drawable.filter(|name| !all.contains(name)).collect();
        assert!(missing.is_empty(), "never drawn: {missing:?}");
        let rare = |seed| verbs_of(seed).into_iter().filter(|verb| verb.starts_with("buggify.")).count();
        assert!((0..50).map(rare).all(|count| count < Rare::ALL.len()), "a subset in each seed");
        assert!((0..50).map(rare).collect::<BTreeSet<_>>().len() > 4, "of different sizes");
    }
}
