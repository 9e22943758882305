//! What happened in a run, actor by actor: the trace as events in lanes, for the tools that draw and compare it.
//!
//! The actor of an event is read from its words: the machine's identity, the name of a host. What several
//! process servers could have said stands in a lane of its own.

use crate::scenario::Scenario;
use serde::Serialize;

/// Lane of faults and of what an operator does.
pub const PLAN: &str = "plan";
/// Lane of the oracles.
pub const ORACLES: &str = "oracles";
/// Lane of what one of several process servers said.
pub const SERVERS: &str = "servers";
/// Lane of the run itself.
pub const RUN: &str = "run";

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The engine tells of its work.
    Info,
    /// The lab does something.
    Deed,
    /// The engine warns.
    Warn,
    /// The engine met an error.
    Error,
    /// An oracle found something.
    Found,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Simulated milliseconds.
    pub at_ms: u64,
    /// Its lane.
    pub actor: String,
    /// How loud.
    pub level: Level,
    /// Its words, without what the lane says already.
    pub what: String,
}

/// Returns the lanes of a scenario in order.
pub fn lanes(scenario: &Scenario) -> Vec<String> {
    let estate = &scenario.estate;
    let mut lanes = vec![PLAN.to_owned()];
    lanes.extend(estate.machines.iter().map(|machine| machine.name.clone()));
    lanes.extend(estate.servers.iter().map(|server| server.name.clone()));
    lanes.extend([SERVERS, ORACLES, RUN].map(str::to_owned));
    lanes
}

/// Parts a line of a trace: milliseconds and words.
pub fn split(line: &str) -> Option<(u64, &str)> {
    let (time, what) = line.split_once(" s  ")?;
    let (seconds, part) = time.trim().split_once('.')?;
    Some((seconds.parse::<u64>().ok()? * 1000 + part.parse::<u64>().ok()?, what))
}

/// Returns the events of a trace; words go on over the line that began them.
pub fn events(scenario: &Scenario, trace: &[String]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for line in trace {
        match split(line) {
            Some((at_ms, what)) => {
                let (actor, level) = actor(scenario, what);
                events.push(Event { at_ms, actor, level, what: plain(scenario, what) });
            }
            None => {
                if let Some(event) = events.last_mut() {
                    event.what.push(' ');
                    event.what.push_str(line.trim());
                }
            }
        }
    }
    events
}

/// How the harness numbers its machines.
fn identity(number: usize) -> String {
    format!("{:032x}", 0x4d00 + number)
}

fn actor(scenario: &Scenario, what: &str) -> (String, Level) {
    let estate = &scenario.estate;
    if what.starts_with("found by ") {
        return (ORACLES.into(), Level::Found);
    }
    let level = match what.split(' ').next() {
        Some("INFO") => Level::Info,
        Some("WARN") => Level::Warn,
        Some("ERROR") => Level::Error,
        _ => Level::Deed,
    };
    let machine = || {
        let of = (0..estate.machines.len())
            .find(|number| what.contains(&format!("machine={}", identity(*number))));
        of.map(|number| estate.machines[number].name.clone())
    };
    let named = |text: &str| {
        let rest = what.strip_prefix(text)?;
        rest.split([' ', ':']).next().map(str::to_owned)
    };
    if level == Level::Deed {
        let role = named("agent of ").or_else(|| named("process server "));
        let is_run =
            ["all faults are lifted", "everything has converged"].iter().any(|text| what.starts_with(text));
        let actor = role.unwrap_or_else(|| if is_run { RUN.into() } else { PLAN.into() });
        return (actor, level);
    }
    if what.contains("role=agent") {
        return (machine().unwrap_or_else(|| RUN.into()), level);
    }
    let own = estate.servers.iter().find(|server| what.contains(&format!("name={}", server.name)));
    let only = (estate.servers.len() == 1).then(|| &estate.servers[0]);
    let actor = own.or(only).map_or_else(|| SERVERS.to_owned(), |server| server.name.clone());
    (actor, level)
}

/// Returns the words without level, and with names instead of identities.
fn plain(scenario: &Scenario, what: &str) -> String {
    let words =
        ["INFO ", "WARN ", "ERROR "].iter().find_map(|level| what.strip_prefix(level)).unwrap_or(what);
    let mut text = words.replace("role=agent ", "");
    for (number, machine) in scenario.estate.machines.iter().enumerate() {
        text = text.replace(&identity(number), &machine.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let text = r#"format = 1
title = "x"
why = "x"
[estate]
machines = [{ name = "a", disks = ["1 MiB"] }, { name = "b", disks = ["1 MiB"] }]
process-servers = [{ name = "ps1", site = "source" }, { name = "ps2", site = "source" }]
[timeline]
steps = [{ at = "2 s", end = true }]
"#;
        crate::scenario::load("x", "x", text).unwrap()
    }

    #[test]
    fn each_event_stands_in_the_lane_of_its_actor() {
        let lines = [
            "     1.000 s  cut wan",
            "     1.250 s  WARN the spool is full role=agent machine=00000000000000000000000000004d01",
            "     2.000 s  INFO process server started endpoint=tcp:ps2:9443 name=ps2",
            "     2.500 s  WARN this process server lost the machine machine=00000000000000000000000000004d00",
            "     3.000 s  process server ps1 does not start: no",
            "     4.000 s  found by prefix: a: old",
            "  more of it",
            "     5.000 s  everything has converged",
        ];
        let events = events(&scenario(), &lines.map(str::to_owned));
        let actors: Vec<&str> = events.iter().map(|event| event.actor.as_str()).collect();
        assert_eq!(actors, [PLAN, "b", "ps2", SERVERS, "ps1", ORACLES, RUN]);
        assert_eq!((events[1].at_ms, events[1].level), (1250, Level::Warn));
        assert_eq!(events[1].what, "the spool is full machine=b");
        assert_eq!(events[5].what, "found by prefix: a: old more of it");
    }
}
