//! Keeps one machine's index near the end of its log, beside the packer.
//!
//! The index is never needed, so nothing waits for it: it takes its turns after commits, what fails is told and
//! tried again later, and with the task it is simply given up.

use super::packer::{PAUSE_FIRST, PAUSE_MAX};
use redoubt_core::MachineId;
use redoubt_ports::Entropy;
use redoubt_vault::{ClaimWatch, Indexer, Vault};
use std::sync::Arc;

/// Owns the task; dropping it ends it.
pub(super) struct IndexKeeper(tokio::task::JoinHandle<()>);

impl Drop for IndexKeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl IndexKeeper {
    /// Starts the task; it writes once `every` slots are not indexed.
    pub(super) fn start(
        vault: Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
        every: u64,
        claim: ClaimWatch,
    ) -> IndexKeeper {
        IndexKeeper(tokio::spawn(run(vault, machine, entropy, every, claim)))
    }
}

async fn run(vault: Vault, machine: MachineId, entropy: Arc<dyn Entropy>, every: u64, mut claim: ClaimWatch) {
    let (mut writer, mut seen, mut pause) = (None, 0, PAUSE_FIRST);
    loop {
        seen = claim.durable_after(seen).await;
        loop {
            let round = async {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    none => none.insert(Indexer::open(&vault, machine, entropy.clone(), every).await?),
                };
                writer.follow(seen).await
            };
            match round.await {
                Ok(Some(slot)) => {
                    pause = PAUSE_FIRST;
                    tracing::debug!(%machine, slot, "indexed the log");
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%machine, %error, "cannot write the index; recovery works without it");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}
