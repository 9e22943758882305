//! The swarm: faults drawn freely from the whole catalogue, within the fault budget.
//!
//! Each seed uses a random subset of the catalogue: runs that leave some faults out reach states that
//! a uniform mix never reaches.

use super::draw::{Dice, actions, fill};
use super::{Action, Event};
use crate::scenario::Estate;
use crate::scenario::verbs::{Ends, Target, Verb};
use std::collections::BTreeMap;

/// Most faults in one run; more only hide each other.
const FAULTS_MAX: i64 = 8;

/// Longest fault in milliseconds; the dead-peer and session time-outs of the roles are shorter.
const LONGEST: i64 = 12_000;

/// Draws faults of some of these kinds into the first four fifths of the safety phase.
pub(super) fn draw(dice: &mut Dice, estate: &Estate, length: u64, kinds: &[&'static Verb]) -> Vec<Event> {
    let mut kinds = kinds.to_vec();
    let least = kinds.len().min(2) as i64;
    let keep = dice.between(least, kinds.len() as i64) as usize;
    while kinds.len() > keep {
        let index = dice.between(0, kinds.len() as i64 - 1) as usize;
        kinds.remove(index);
    }
    let machines: Vec<String> = estate.machines.iter().map(|machine| machine.name.clone()).collect();
    let servers: Vec<String> = estate.servers.iter().map(|server| server.name.clone()).collect();
    let hosts = [machines.clone(), servers.clone()].concat();
    let links = ["wan".to_owned(), "source->target".to_owned(), "target->source".to_owned()];
    let mut events = Vec::new();
    for _ in 0..dice.between(1, FAULTS_MAX) {
        let verb = *dice.pick(&kinds);
        let on = match verb.target {
            Target::None => String::new(),
            Target::Host => dice.pick(&hosts).clone(),
            Target::Server => dice.pick(&servers).clone(),
            Target::Machine => dice.pick(&machines).clone(),
            Target::Site => dice.pick(&["source".to_owned(), "target".to_owned()]).clone(),
            Target::Link => dice.pick(&links).clone(),
        };
        let at = dice.between(500, length as i64 * 4 / 5) as u64;
        let lasts = dice.between(200, LONGEST) as u64;
        let mut amounts = BTreeMap::new();
        fill(dice, verb.takes, &mut amounts);
        let (action, lift) = actions(verb.name, &on, &amounts, Some(lasts));
        events.push(Event { at, action });
        if let (Some(lift), Ends::Lasts) = (lift, verb.ends) {
            events.push(Event { at: at + lasts, action: lift });
        }
    }
    spare_hung_machines(&mut events, &machines);
    events
}

/// Keeps to the fault budget: a machine whose state directory hangs does not die while the vault may be out of
/// its reach, since then nobody could have been told that marks are missing.
fn spare_hung_machines(events: &mut Vec<Event>, machines: &[String]) {
    let is_machine = |host: &String| machines.contains(host);
    let keeps_vault_away = |event: &Event| match &event.action {
        Action::Cut(_) | Action::Loss(..) | Action::Slow(..) | Action::Store(..) | Action::SiteOff(_) => true,
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
