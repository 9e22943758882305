//! The state of a process server: its machines, how far each has come, and the verdict on each.

use super::{Health, PointReport, link_cell, show_point};
use crate::output;
use crate::units::{show_size, show_wall};
use serde::{Deserialize, Serialize};

/// A process server at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerReport {
    pub(crate) service: String,
    pub(crate) listen: String,
    pub(crate) vault: String,
    /// The worst of its machines.
    pub(crate) health: Health,
    pub(crate) machines: Vec<MachineReport>,
}

/// One machine at a process server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineReport {
    pub(crate) machine: String,
    pub(crate) generation: u64,
    pub(crate) health: Health,
    pub(crate) connected: bool,
    /// Last sequence that is durable in the stage.
    pub(crate) staged: u64,
    /// Last sequence that is durable in the vault.
    pub(crate) vaulted: u64,
    pub(crate) stage_bytes: u64,
    pub(crate) newest_point: Option<PointReport>,
    /// How far back one can go.
    pub(crate) oldest_point: Option<PointReport>,
    pub(crate) points: u64,
    pub(crate) last_error: Option<String>,
}

/// Judges a machine: a fenced one gets no new points here, whatever else is well.
pub(crate) fn health(is_fenced: bool, is_connected: bool, has_error: bool) -> Health {
    match (is_fenced, is_connected && !has_error) {
        (true, _) => Health::Critical,
        (false, true) => Health::Ok,
        (false, false) => Health::Warning,
    }
}

/// Returns the worst health of the machines; a server without any is well.
pub(crate) fn worst(machines: &[MachineReport]) -> Health {
    let rank = |health: &Health| match health {
        Health::Ok => 0,
        Health::Warning => 1,
        Health::Critical => 2,
    };
    machines.iter().map(|machine| machine.health).max_by_key(rank).unwrap_or(Health::Ok)
}

/// Shows it to people.
pub(crate) fn show(report: &ServerReport) -> String {
    let row = |machine: &MachineReport| {
        let (point, taken) = show_point(machine.newest_point.as_ref(), true);
        let behind = machine.staged.saturating_sub(machine.vaulted).to_string();
        // The beginning is enough to tell machines apart; JSON has the whole.
        let name: String = machine.machine.chars().take(8).collect();
        vec![
            machine.health.cell(),
            name.into(),
            link_cell(machine.connected),
            show_size(machine.stage_bytes).into(),
            behind.into(),
            machine.points.to_string().into(),
            point.into(),
            taken.into(),
            machine.oldest_point.as_ref().map_or("-".to_owned(), |oldest| show_wall(oldest.wall_ms)).into(),
        ]
    };
    let header = [
        "HEALTH",
        "MACHINE",
        "LINK",
        ">STAGED",
        ">TO VAULT",
        ">POINTS",
        "NEWEST",
        "TAKEN (UTC)",
        "OLDEST (UTC)",
    ];
    let machines = match report.machines.is_empty() {
        true => " no machine has connected yet".to_owned(),
        false => output::table(&header, report.machines.iter().map(row).collect()),
    };
    let mut text = format!("{machines}\n\n listening at {}, vault {}\n", report.listen, report.vault);
    for machine in &report.machines {
        if let Some(error) = &machine.last_error {
            text += &format!(" trouble of {}: {error}\n", machine.machine);
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> ServerReport {
        let machine = MachineReport {
            machine: "0123456789abcdef0123456789abcdef".into(),
            generation: 2,
            health: Health::Ok,
            connected: true,
            staged: 40,
            vaulted: 30,
            stage_bytes: 3 << 20,
            newest_point: Some(PointReport { point: "17.0".into(), wall_ms: 1_772_373_731_000, seq: 9 }),
            oldest_point: Some(PointReport { point: "4.0".into(), wall_ms: 1_772_371_731_000, seq: 2 }),
            points: 3,
            last_error: None,
        };
        let fenced = MachineReport {
            machine: "f123456789abcdef0123456789abcdef".into(),
            health: Health::Critical,
            connected: false,
            newest_point: None,
            oldest_point: None,
            points: 0,
            last_error: Some("a newer writer (epoch 7) has claimed the machine".into()),
            ..machine.clone()
        };
        ServerReport {
            service: "process-server".into(),
            listen: "tcp:10.0.0.5:7811".into(),
            vault: "/backup/vault".into(),
            health: Health::Critical,
            machines: vec![machine, fenced],
        }
    }

    #[test]
    fn a_process_server_is_shown_in_one_glance() {
        let report = report();
        assert_eq!(worst(&report.machines), report.health);
        insta::assert_snapshot!(show(&report));
    }

    #[test]
    fn a_fenced_machine_is_critical_and_a_silent_one_is_not() {
        assert_eq!(health(false, true, false), Health::Ok);
        assert_eq!(health(false, false, false), Health::Warning);
        assert_eq!(health(false, true, true), Health::Warning);
        assert_eq!(health(true, true, false), Health::Critical);
        assert_eq!(worst(&[]), Health::Ok);
    }
}
