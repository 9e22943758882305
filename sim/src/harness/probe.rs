//! How long a mount takes: the newest point of each machine is opened at the recovery site, as an operator would,
//! until its first block is there. Nothing fails over yet, so this is not the downtime.

use super::estate::{Estate, Machine};
use crate::ports::lock;
use redoubt_core::Extent;
use redoubt_vault::{MachineReader, Vault};
use std::sync::Arc;
use std::time::Duration;

/// Before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Sectors of the first block.
const FIRST: u64 = 8;

/// One mount: its machine, when it was asked for, and when its first block was there.
pub(super) struct Probe {
    pub(super) machine: String,
    pub(super) from_ms: u64,
    pub(super) to_ms: Option<u64>,
}

/// Opens the newest point of each machine, all at once; nobody waits for it.
pub(super) fn begin(estate: &Arc<Estate>) {
    for (name, machine) in &estate.machines {
        let number = {
            let mut probes = lock(&estate.probes);
            let from_ms = estate.world.shared.now().as_millis() as u64;
            probes.push(Probe { machine: name.clone(), from_ms, to_ms: None });
            probes.len() - 1
        };
        let (estate, machine) = (Arc::clone(estate), Arc::clone(machine));
        estate.operator.clone().spawn(async move {
            while first_block(&estate, &machine).await.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
            lock(&estate.probes)[number].to_ms = Some(estate.world.shared.now().as_millis() as u64);
        });
    }
}

/// Shows the first block of each disk of the newest point; none if there is no point, or it does not open.
async fn first_block(estate: &Estate, machine: &Machine) -> Option<()> {
    // A mount reads names, index and one block: no more of an estate of full size.
    let store = estate.world.store.whole(estate.operator.name());
    let vault = Vault::open(store, estate.newest_keys()).await.ok()?;
    let reader = MachineReader::open(&vault, machine.id).await.ok()?;
    let newest = reader.points().into_iter().next_back()?;
    let view = reader.view(newest.id).ok()?;
    let volumes: Vec<_> = view.volumes().iter().map(|(volume, info)| (*volume, info.sectors.0)).collect();
    for (volume, sectors) in volumes {
        view.read(volume, Extent::new(0, FIRST.min(sectors))).await.ok()?;
    }
    Some(())
}
