//! The liveness phase: faults are lifted, guests stop, and everything must converge within a bound.
//!
//! It has converged when each machine's last point, cut after the guests stopped, is in the vault.

use super::run::Run;
use super::watch::Watch;
use super::{actions, guests, restore};
use crate::ports::lock;
use redoubt_core::MarkerId;
use redoubt_roles::agent::AgentMode;
use redoubt_vault::MachineReader;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Step of the liveness phase.
pub(super) const POLL: Duration = Duration::from_millis(250);

/// Time for guests to finish what is under way after they are told to stop.
const QUIESCE: Duration = Duration::from_secs(3);

/// A last point that does not come within this time is cut again, in milliseconds.
const CUT_AGAIN: u64 = 30_000;

impl Run<'_> {
    /// Faults are lifted, guests stop; everything must converge. Returns the last marker of each machine.
    pub(super) async fn liveness(&mut self, bound: u64) -> Result<BTreeMap<String, MarkerId>, String> {
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
                self.account.marks.insert("last-point-cut-again");
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
}
