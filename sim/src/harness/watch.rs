//! Watching: each simulated second every role is asked how it is, and held to what it says.
//!
//! Oracles here: `bounded` (memory, spill, stage), `loss-never-hidden` (what was reported as vaulted is
//! never taken back, and the watermarks are ordered).

use super::estate::Estate;
use super::record::{Record, Seen};
use crate::oracles::Finding;
use crate::oracles::order_kept::{self, Losses};
use crate::ports::lock;
use redoubt_core::change::BATCH_BYTES_MAX;
use redoubt_core::{MachineId, WriteSeq};
use redoubt_reports::model::State;
use redoubt_roles::agent::{AgentMode, AgentStatus};
use redoubt_roles::process_server::PsMachineStatus;
use std::collections::{BTreeMap, BTreeSet};

/// What may be over a bound: one batch that is being sealed and one that is being taken over.
const SLACK: u64 = 2 * BATCH_BYTES_MAX as u64;

/// Files may hold more than the bytes they stand for (headers, sealing, what is not yet deleted).
const FILES_FACTOR: u64 = 2;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) marks: BTreeSet<&'static str>,
    pub(super) findings: Vec<Finding>,
    /// Per machine, the highest sequence that was reported as vaulted.
    pub(super) vaulted: BTreeMap<String, WriteSeq>,
    /// Per process server and machine, what it reports as vaulted.
    kept: BTreeMap<(String, MachineId), WriteSeq>,
    pub(super) lag: u64,
    connected: BTreeMap<String, bool>,
    resyncing: BTreeSet<String>,
    /// Machines and copies about which something was said that does not change.
    told: BTreeSet<(String, &'static str)>,
    overflowed: BTreeSet<String>,
    /// Notices of each machine's guest that were looked at.
    noticed: BTreeMap<u16, usize>,
}

impl Watch {
    fn find(&mut self, oracle: &'static str, what: String) {
        if self.findings.len() < 10 {
            self.findings.push(Finding::new(oracle, what));
        }
    }

    /// Asks every role.
    pub(super) fn sample(&mut self, estate: &Estate) {
        for (name, machine) in &estate.machines {
            let agent = lock(&machine.agent).clone();
            if let Some(agent) = agent {
                let status = agent.status();
                self.agent(name, &status, estate);
            }
            let files = machine.host.files.bytes();
            let bound =
                estate.bounds.spill_bytes_max * FILES_FACTOR + 2 * SLACK + estate.bounds.memory_bytes_max;
            if files > bound {
                self.find(
                    "bounded",
                    format!("{name} has {files} bytes of state files; the bound is {bound}"),
                );
            }
            if machine.host.files.faults_met() > 0 {
                self.marks.insert("file-fault-hit");
            }
            let notices = lock(&machine.recorder.notices);
            let notices = notices.noted();
            let read = self.noticed.entry(machine.number).or_default();
            if notices[*read..].iter().any(|notice| notice.error.is_some()) {
                self.marks.insert("guest-saw-disk-error");
            }
            *read = notices.len();
        }
        for (name, server) in &estate.servers {
            if server.host.files.faults_met() > 0 {
                self.marks.insert("file-fault-hit");
            }
            let Some(server) = lock(&server.server).clone() else { continue };
            let (mut stage, machines) = (0, server.status().machines);
            for (machine, status) in &machines {
                stage += status.stage_bytes;
                if status.is_fenced {
                    self.marks.insert("writer-fenced");
                }
                self.kept(name, *machine, status.vaulted.seq, estate);
            }
            let bound = estate.stage_bytes + SLACK * estate.machines.len() as u64;
            if stage > bound {
                self.find("bounded", format!("{name} stages {stage} bytes; the bound is {bound}"));
            }
        }
        self.copies(estate);
    }

    /// What a process server once reported as vaulted it may not take back, unless somebody took it from the store.
    fn kept(&mut self, server: &str, machine: MachineId, vaulted: WriteSeq, estate: &Estate) {
        let place = (server.to_owned(), machine);
        let before = self.kept.insert(place, vaulted).unwrap_or_default();
        // Nothing: it did not claim the log yet.
        let is_less = vaulted < before && vaulted != WriteSeq::default();
        if is_less
            && !estate.world.store.has_lost()
            && self.told.insert((server.to_owned(), "loss-never-hidden"))
        {
            let what = format!(
                "{server} reported machine {machine} vaulted up to {before}, now it is {vaulted}; the store lost nothing"
            );
            self.find("loss-never-hidden", what);
        }
    }

    /// An old copy of a machine has an older generation: nobody may talk to it.
    fn copies(&mut self, estate: &Estate) {
        for (name, copy) in lock(&estate.copies).iter() {
            if copy.is_connected() && self.told.insert((name.clone(), "single-writer")) {
                self.find("single-writer", format!("an old copy of {name} got a session"));
            }
        }
    }

    fn order(&mut self, name: &str, status: &AgentStatus, estate: &Estate) {
        let losses = Losses { stage_losses: status.stage_losses, forks: status.forks };
        let is_excused = estate.servers.len() > 1
            // What is staged just then is sealed under the old key, and given up.
            || estate.has_given_keys()
            || estate.servers.values().any(|server| server.host.files.has_lost());
        if let Some(finding) = order_kept::judge(name, losses, is_excused)
            && self.told.insert((name.to_owned(), finding.oracle))
        {
            self.find(finding.oracle, finding.what);
        }
    }

    fn agent(&mut self, name: &str, status: &AgentStatus, estate: &Estate) {
        self.order(name, status, estate);
        let marks = &status.watermarks;
        if !(marks.issued() >= marks.sent()
            && marks.sent() >= marks.staged()
            && marks.staged() >= marks.vaulted())
        {
            self.find("loss-never-hidden", format!("{name} reports watermarks out of order: {marks:?}"));
        }
        let vaulted = self.vaulted.entry(name.to_owned()).or_default();
        *vaulted = marks.vaulted().max(*vaulted);
        self.lag = self.lag.max(status.unstaged.as_millis() as u64);
        if status.memory_bytes > estate.bounds.memory_bytes_max + SLACK {
            let bound = estate.bounds.memory_bytes_max;
            self.find(
                "bounded",
                format!("{name} holds {} bytes in memory; the bound is {bound}", status.memory_bytes),
            );
        }
        if status.spill_bytes > estate.bounds.spill_bytes_max {
            let bound = estate.bounds.spill_bytes_max;
            self.find(
                "bounded",
                format!("{name} spilled {} bytes; the bound is {bound}", status.spill_bytes),
            );
        }
        match status.mode {
            AgentMode::Exact => {
                if self.resyncing.remove(name) {
                    self.marks.insert("resync-done");
                }
                if self.overflowed.remove(name) {
                    self.marks.insert("bitmap-mode-left");
                }
            }
            AgentMode::Spilling => {
                self.marks.insert("spilled");
            }
            AgentMode::Bitmap => {
                self.marks.insert("overflowed");
                self.overflowed.insert(name.to_owned());
            }
            AgentMode::Resync { .. } => {
                self.resyncing.insert(name.to_owned());
            }
        }
        if status.spill_bytes > 0 {
            self.marks.insert("spilled");
        }
        let before = self.connected.insert(name.to_owned(), status.is_connected);
        if before == Some(true) && !status.is_connected {
            self.marks.insert("session-lost");
        }
    }

    /// Says what each role waits for, one line each.
    pub(super) fn waiting(estate: &Estate) -> String {
        let agents = estate.machines.iter().map(|(name, machine)| {
            let agent = lock(&machine.agent).clone();
            let error = lock(&machine.start_error).clone();
            agent.map_or_else(
                || format!("agent {name} does not run: {}", error.unwrap_or_default()),
                |agent| agent_line(name, &agent.status()),
            )
        });
        let servers = estate.servers.iter().flat_map(|(name, server)| {
            let running = lock(&server.server).clone();
            let error = lock(&server.start_error).clone();
            match running {
                None => vec![format!("process server {name} does not run: {}", error.unwrap_or_default())],
                Some(running) => {
                    let machines = running.status().machines;
                    machines.values().map(|machine| server_line(name, machine)).collect()
                }
            }
        });
        agents.chain(servers).collect::<Vec<_>>().join("\n")
    }
}

/// Asks every role for the record.
pub(super) fn record(estate: &Estate, record: &mut Record) {
    let now = estate.world.shared.now().as_millis() as u64;
    for (name, machine) in &estate.machines {
        let operations = lock(&machine.recorder.log).len() as u64;
        let status = lock(&machine.agent).as_ref().map(|agent| agent.status());
        let seen = status.map(|status| Seen {
            state: match status.mode {
                AgentMode::Exact => State::Exact,
                AgentMode::Spilling => State::Spilling,
                AgentMode::Bitmap => State::Bitmap,
                AgentMode::Resync { .. } => State::Resync,
            },
            lag_ms: status.lag.map(|lag| lag.as_millis() as u64),
            operations,
            vaulted: status.watermarks.vaulted().0,
            newest_cut: (estate.scale > 1)
                .then(|| lock(&machine.cuts).newest(status.watermarks.vaulted()))
                .flatten(),
        });
        record.machine(name, now, seen);
    }
    for (name, server) in &estate.servers {
        let machines = lock(&server.server).as_ref().map(|server| server.status().machines);
        let has = |of: fn(&PsMachineStatus) -> bool| machines.iter().flat_map(|all| all.values()).any(of);
        let state = match machines {
            None => State::Down,
            Some(_) if has(|machine| machine.is_connected && !machine.is_fenced) => State::Writes,
            Some(_) if has(|machine| machine.is_fenced) => State::Fenced,
            Some(_) => State::Idle,
        };
        record.server(name, now, state);
    }
}

fn agent_line(name: &str, status: &AgentStatus) -> String {
    let link = if status.is_connected { "connected" } else { "not connected" };
    let marks = &status.watermarks;
    let trouble = status.last_error.as_ref().map(|error| format!("\n    {error}")).unwrap_or_default();
    format!(
        "agent {name}: {:?}, {link}, issued {} sent {} staged {} vaulted {}{trouble}",
        status.mode,
        marks.issued(),
        marks.sent(),
        marks.staged(),
        marks.vaulted()
    )
}

fn server_line(name: &str, status: &PsMachineStatus) -> String {
    let link = if status.is_connected { "connected" } else { "not connected" };
    let fenced = if status.is_fenced { ", fenced" } else { "" };
    let trouble = status.last_error.as_ref().map(|error| format!("\n    {error}")).unwrap_or_default();
    format!(
        "process server {name}: {link}{fenced}, staged {} vaulted {}, {} bytes staged{trouble}",
        status.staged.seq, status.vaulted.seq, status.stage_bytes
    )
}
