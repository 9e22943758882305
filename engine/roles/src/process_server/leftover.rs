//! What an earlier run staged and no agent comes for: after a disaster at the source it must reach the
//! vault without the source.
//!
//! Opening a machine claims its log, which ends any other process server's right to it. So this waits for
//! the agent first, and gives way if somebody else writes the log meanwhile.

use super::packer::PAUSE_MAX;
use super::shared::{Shared, stopped};
use redoubt_core::MachineId;
use redoubt_vault::{MachineReader, Vault, VaultError};
use std::sync::Arc;
use std::time::Duration;

/// How long the agent is waited for: twice its longest pause between attempts. Another process server that
/// has the machine commits within it, if only markers.
const AGENT_WAIT: Duration = Duration::from_secs(60);

/// Waits, then opens the machine if it is still without an owner.
pub(super) async fn run(shared: Arc<Shared>, machine: MachineId) {
    let work = async {
        let before = newest_slot(&shared, machine).await;
        tokio::time::sleep(AGENT_WAIT).await;
        if shared.has_actor(machine) {
            return;
        }
        if newest_slot(&shared, machine).await != before {
            tracing::warn!(%machine, "another process server writes this machine; its stage here stays as it is");
        } else if shared.actor(machine).is_none() {
            tracing::error!(%machine, "there is a stage of a machine that is not served; it stays as it is");
        }
    };
    tokio::select! {
        biased;
        () = stopped(shared.stop.clone()) => {}
        () = work => {}
    }
}

/// Returns the newest slot of the machine's log, zero if it has none. Waits for the vault.
async fn newest_slot(shared: &Shared, machine: MachineId) -> u64 {
    loop {
        let slot = async {
            let vault = Vault::open(shared.store.clone(), shared.keys.clone()).await?;
            match MachineReader::open(&vault, machine).await {
                Err(VaultError::UnknownMachine(_)) => Ok(0),
                reader => reader.map(|reader| reader.slot()),
            }
        };
        match slot.await {
            Ok(slot) => return slot,
            Err(error) => tracing::warn!(%machine, %error, "cannot look at the log of a staged machine"),
        }
        tokio::time::sleep(PAUSE_MAX).await;
    }
}
