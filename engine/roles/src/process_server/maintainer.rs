//! Runs the maintainer of one machine, beside the packer.
//!
//! Nothing waits for it: it takes its turns after commits, what fails is told and tried again later, and with
//! the task it is simply given up. When a newer maintainer has claimed the machine, that one does the work, for as
//! long as it does.

use super::packer::{PAUSE_FIRST, PAUSE_MAX};
use crate::maintainer::{Keeper, Means, Tended};
use redoubt_core::MachineId;
use redoubt_ports::World;
use redoubt_vault::{ClaimWatch, MaintainerSettings, Vault};

/// Owns the task; dropping it ends it.
pub(super) struct MaintainerTask(tokio::task::JoinHandle<()>);

impl Drop for MaintainerTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl MaintainerTask {
    /// Starts the task.
    pub(super) fn start(
        vault: Vault,
        machine: MachineId,
        world: World,
        settings: MaintainerSettings,
        claim: ClaimWatch,
    ) -> MaintainerTask {
        MaintainerTask(tokio::spawn(run(vault, machine, world, settings, claim)))
    }
}

async fn run(
    vault: Vault,
    machine: MachineId,
    world: World,
    settings: MaintainerSettings,
    mut claim: ClaimWatch,
) {
    let means = Means { clock: world.clock, entropy: world.entropy };
    let mut keeper = Keeper::new(vault, machine, means, settings);
    let (mut seen, mut pause) = (0, PAUSE_FIRST);
    loop {
        seen = claim.durable_after(seen).await;
        loop {
            match keeper.tend(seen).await {
                Ok(Tended::Wrote(slot)) => {
                    pause = PAUSE_FIRST;
                    tracing::debug!(%machine, slot, "maintained the vault");
                }
                Ok(Tended::Idle | Tended::StandsBy) => break,
                Ok(Tended::Superseded(by)) => {
                    tracing::info!(%machine, by, "another maintainer has taken over");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%machine, %error, "cannot maintain the vault; recovery works without");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}
