//! Estates: what stands where, and which hardware models it ran on, with where their numbers come from.

use crate::model::{Estate, Hardware, Machine, RunSet, Scale};
use crate::text;
use serde::Serialize;
use std::collections::BTreeMap;

/// Scenarios named under a picture; of more, only their number.
const NAMED: usize = 4;

#[derive(Serialize)]
pub(super) struct EstateView {
    machines: Vec<MachineView>,
    near: Vec<String>,
    far: Vec<String>,
    lan: String,
    wan: String,
    store: String,
    disk: String,
    bounds: Vec<(String, String)>,
    used_by: String,
    scale: String,
}

#[derive(Serialize)]
struct MachineView {
    name: String,
    disks: Vec<String>,
    load: String,
}

/// A hardware model.
#[derive(Serialize)]
pub(super) struct HardwareView {
    part: String,
    model: String,
    how: String,
    note: String,
    numbers: Vec<(String, String)>,
}

/// Returns each estate once, the one that most scenarios share first.
pub(super) fn estates(set: &RunSet) -> Vec<EstateView> {
    let mut groups: Vec<(Estate, Vec<&str>)> = Vec::new();
    for scenario in &set.scenarios {
        let estate = &scenario.estate;
        match groups.iter_mut().find(|(known, _)| is_alike(known, estate)) {
            Some((known, names)) => {
                forget_other_loads(known, estate);
                names.push(&scenario.name);
            }
            None => groups.push((estate.clone(), vec![&scenario.name])),
        }
    }
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    groups.iter().map(|(estate, names)| view(estate, names)).collect()
}

/// Tells whether two estates differ at most in what their guests do.
fn is_alike(one: &Estate, other: &Estate) -> bool {
    let shape = |estate: &Estate| {
        estate.machines.iter().map(|m| (m.name.clone(), m.disks.clone())).collect::<Vec<_>>()
    };
    shape(one) == shape(other)
        && one.servers == other.servers
        && one.hardware == other.hardware
        && one.bounds == other.bounds
        && one.scale == other.scale
}

fn forget_other_loads(known: &mut Estate, other: &Estate) {
    for (machine, same) in known.machines.iter_mut().zip(&other.machines) {
        if machine.load != same.load {
            machine.load.clear();
        }
    }
}

fn view(estate: &Estate, names: &[&str]) -> EstateView {
    let servers = |site: &str| {
        let here = estate.servers.iter().filter(|server| server.site == site);
        here.map(|server| server.name.clone()).collect()
    };
    EstateView {
        machines: estate.machines.iter().map(machine).collect(),
        near: servers("source"),
        far: servers("target"),
        lan: part(estate, "lan"),
        wan: part(estate, "wan"),
        store: part(estate, "store"),
        disk: part(estate, "disk"),
        bounds: estate.bounds.iter().map(|(name, size)| (name.clone(), text::bytes(*size))).collect(),
        used_by: match names.len() {
            0..=NAMED => names.join(", "),
            many => format!("{} scenarios", text::count(many as u64)),
        },
        scale: estate.scale.as_ref().map(scale).unwrap_or_default(),
    }
}

fn scale(scale: &Scale) -> String {
    format!(
        "Played at 1/{}: sizes of disks and bounds, and the rates of guests, links, disks and store, were divided by {}. What is          shown is the whole estate. Times are not divided, so objectives and measured times are its own; what is shorter than {}          is not told apart.",
        scale.by,
        scale.by,
        text::duration(scale.finest_ms)
    )
}

fn machine(machine: &Machine) -> MachineView {
    MachineView {
        name: machine.name.clone(),
        disks: machine.disks.iter().map(|size| text::bytes(*size)).collect(),
        load: machine.load.clone(),
    }
}

fn part(estate: &Estate, part: &str) -> String {
    let found = estate.hardware.iter().find(|hardware| hardware.part == part);
    found.map(|hardware| hardware.model.clone()).unwrap_or_default()
}

/// Returns each hardware model once.
pub(super) fn hardware(set: &RunSet) -> Vec<HardwareView> {
    let all = set.scenarios.iter().flat_map(|scenario| &scenario.estate.hardware);
    let once: BTreeMap<(&str, &str), &Hardware> =
        all.map(|hardware| ((hardware.part.as_str(), hardware.model.as_str()), hardware)).collect();
    let view = |hardware: &&Hardware| HardwareView {
        part: hardware.part.clone(),
        model: hardware.model.clone(),
        how: hardware.how.clone(),
        note: hardware.note.clone(),
        numbers: hardware.numbers.clone(),
    };
    once.values().map(view).collect()
}
