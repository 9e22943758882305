//! Watching: each simulated second every role is asked how it is, and held to what it says.
//!
//! Oracles here: `bounded` (memory, spill, stage), `loss-never-hidden` (what was reported as vaulted is
//! never taken back, and the watermarks are ordered).

use super::estate::Estate;
use crate::oracles::Finding;
use crate::ports::lock;
use redoubt_core::WriteSeq;
use redoubt_core::change::BATCH_BYTES_MAX;
use redoubt_roles::agent::{AgentMode, AgentStatus};
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
    pub(super) lag: u64,
    connected: BTreeMap<String, bool>,
    resyncing: BTreeSet<String>,
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
            let files: u64 = machine.host.files.sizes().values().sum();
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
            if machine.disks.iter().any(|disk| disk.errors_met() > 0) {
                self.marks.insert("guest-saw-disk-error");
            }
        }
        for (name, server) in &estate.servers {
            if server.host.files.faults_met() > 0 {
                self.marks.insert("file-fault-hit");
            }
            let Some(server) = lock(&server.server).clone() else { continue };
            let mut stage = 0;
            for status in server.status().machines.values() {
                stage += status.stage_bytes;
                if status.is_fenced {
                    self.marks.insert("writer-fenced");
                }
            }
            let bound = estate.stage_bytes + SLACK * estate.machines.len() as u64;
            if stage > bound {
                self.find("bounded", format!("{name} stages {stage} bytes; the bound is {bound}"));
            }
        }
        if estate.world.shared.trace.faults() > 0 {
            self.marks.insert("store-fault-hit");
        }
    }

    fn agent(&mut self, name: &str, status: &AgentStatus, estate: &Estate) {
        let marks = &status.watermarks;
        if !(marks.issued() >= marks.sent()
            && marks.sent() >= marks.staged()
            && marks.staged() >= marks.vaulted())
        {
            self.find("loss-never-hidden", format!("{name} reports watermarks out of order: {marks:?}"));
        }
        let vaulted = self.vaulted.entry(name.to_owned()).or_default();
        *vaulted = marks.vaulted().max(*vaulted);
        self.lag = self.lag.max(status.lag.as_millis() as u64);
        if status.memory_bytes > estate.bounds.memory_bytes_max + SLACK {
            let bound = estate.bounds.memory_bytes_max;
            self.find(
                "bounded",
                format!("{name} holds {} bytes in memory; the bound is {bound}", status.memory_bytes),
            );
        }
        if status.spill_bytes > estate.bounds.spill_bytes_max + SLACK {
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
            }
            AgentMode::Spilling => {
                self.marks.insert("spilled");
            }
            AgentMode::Bitmap => {
                self.marks.insert("overflowed");
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

    /// Says what each role waits for.
    pub(super) fn waiting(estate: &Estate) -> String {
        let mut lines = Vec::new();
        for (name, machine) in &estate.machines {
            let agent = lock(&machine.agent).clone();
            lines.push(match agent {
                Some(agent) => {
                    let status = agent.status();
                    format!(
                        "agent {name}: {:?}, connected {}, {:?}, error {:?}",
                        status.mode, status.is_connected, status.watermarks, status.last_error
                    )
                }
                None => format!("agent {name} does not run: {:?}", lock(&machine.start_error)),
            });
        }
        for (name, server) in &estate.servers {
            let running = lock(&server.server).clone();
            lines.push(match running {
                Some(running) => format!("process server {name}: {:?}", running.status().machines),
                None => format!("process server {name} does not run: {:?}", lock(&server.start_error)),
            });
        }
        lines.join("; ")
    }
}
