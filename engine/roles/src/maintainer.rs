//! Maintains vaults: one machine beside its packer, or all machines of a vault alone, anywhere.
//!
//! Whoever claimed last does the work; who is superseded stands by and takes it back when nobody does it any more
//! (`core::maintenance::Standby`). Nothing waits for a maintainer: what fails is told and tried again.
//!
//! What is *not* here: a round (`redoubt_vault::Maintainer`), the task of the process server.

use redoubt_core::MachineId;
use redoubt_core::maintenance::Standby;
use redoubt_ports::{Clock, Entropy};
use redoubt_vault::{MachineReader, Maintainer, MaintainerSettings, Times, Vault, VaultError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two looks at the logs: rounds are due after minutes at the soonest.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// What a call of [`Keeper::tend`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tended {
    /// A version of the catalogue was published up to this slot: there may be more to do.
    Wrote(u64),
    /// Nothing to do.
    Idle,
    /// Another maintainer took over just now.
    Superseded(u64),
    /// Another maintainer does the work.
    StandsBy,
}

/// What a maintainer needs of its host.
#[derive(Clone)]
pub struct Means {
    /// For pins and ages.
    pub clock: Arc<dyn Clock>,
    /// For names.
    pub entropy: Arc<dyn Entropy>,
}

/// Keeps one machine's vault in order, while it may.
pub struct Keeper {
    vault: Vault,
    machine: MachineId,
    means: Means,
    settings: MaintainerSettings,
    maintainer: Option<Maintainer>,
    standby: Option<Standby>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeper({}, {:?}, {:?})", self.machine, self.maintainer, self.standby)
    }
}

impl Keeper {
    /// Makes a keeper that claims the machine when it is first called upon.
    pub fn new(vault: Vault, machine: MachineId, means: Means, settings: MaintainerSettings) -> Keeper {
        Keeper { vault, machine, means, settings, maintainer: None, standby: None }
    }

    /// Does one round, if one is due at slot `durable`. After an error it may be called again; dropping
    /// the future is like a crash and as harmless.
    pub async fn tend(&mut self, durable: u64) -> Result<Tended, VaultError> {
        if self.standby.is_some() && !self.is_overdue(durable).await? {
            return Ok(Tended::StandsBy);
        }
        self.standby = None;
        let maintainer = match &mut self.maintainer {
            Some(maintainer) => maintainer,
            none => {
                let (entropy, settings) = (self.means.entropy.clone(), self.settings.clone());
                none.insert(Maintainer::claim(&self.vault, self.machine, entropy, settings).await?)
            }
        };
        let times = Times { now: self.means.clock.now(), wall: self.means.clock.wall() };
        match maintainer.round(durable, times).await {
            Ok(Some(slot)) => {
                let (machine, points) = (self.machine, maintainer.cut());
                if points > 0 {
                    tracing::warn!(%machine, points, "the rules keep more points than a machine may have; the oldest go");
                }
                Ok(Tended::Wrote(slot))
            }
            Ok(None) => Ok(Tended::Idle),
            Err(VaultError::Superseded { by }) => {
                (self.maintainer, self.standby) = (None, Some(Standby::new(self.settings.every)));
                Ok(Tended::Superseded(by))
            }
            Err(error) => Err(error),
        }
    }

    /// Tells whether whoever does the work has stopped.
    async fn is_overdue(&mut self, durable: u64) -> Result<bool, VaultError> {
        let Some(standby) = self.standby.as_mut().filter(|standby| standby.is_time_to_look(durable)) else {
            return Ok(false);
        };
        let (reader, _) = MachineReader::open_damaged(&self.vault, self.machine).await?;
        Ok(standby.look(durable, reader.covered()))
    }
}

/// What a maintainer alone has to tell.
#[derive(Debug)]
pub enum MaintainerEvent<'a> {
    /// A machine's maintenance was claimed, or a version of its catalogue was published.
    Tended(MachineId, Tended),
    /// Something of one machine, or of the vault, failed; it is tried again.
    Failed(Option<MachineId>, &'a VaultError),
}

/// Maintains machines alone until it is stopped: these, or all that the vault holds.
pub async fn maintain(
    vault: Vault,
    machines: Vec<MachineId>,
    means: Means,
    settings: MaintainerSettings,
    mut stop: watch::Receiver<bool>,
    tell: &mut (dyn FnMut(MaintainerEvent<'_>) + Send),
) {
    let mut keepers: BTreeMap<MachineId, (Keeper, Option<MachineReader>)> = BTreeMap::new();
    loop {
        let found = if machines.is_empty() { vault.list_machines().await } else { Ok(machines.clone()) };
        if let Err(error) = &found {
            tell(MaintainerEvent::Failed(None, error));
        }
        for machine in found.unwrap_or_default() {
            let new = || (Keeper::new(vault.clone(), machine, means.clone(), settings.clone()), None);
            let (keeper, reader) = keepers.entry(machine).or_insert_with(new);
            let tended = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                tended = tend_all(&vault, machine, keeper, reader, tell) => tended,
            };
            if let Err(error) = &tended {
                tell(MaintainerEvent::Failed(Some(machine), error));
            }
            if matches!(tended, Err(VaultError::Damaged { .. })) {
                // An old copy may have taken the vault's place: what was read of it is of another.
                *reader = None;
            }
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Does what is due for one machine.
async fn tend_all(
    vault: &Vault,
    machine: MachineId,
    keeper: &mut Keeper,
    reader: &mut Option<MachineReader>,
    tell: &mut (dyn FnMut(MaintainerEvent<'_>) + Send),
) -> Result<(), VaultError> {
    let reader = match reader {
        Some(reader) => reader,
        none => none.insert(MachineReader::open(vault, machine).await?),
    };
    reader.refresh().await?;
    // What is readable need not be durable; what lies below it is, or its writer would not have gone on.
    let durable = reader.slot().saturating_sub(1);
    loop {
        let tended = keeper.tend(durable).await?;
        match tended {
            Tended::Wrote(_) | Tended::Superseded(_) => tell(MaintainerEvent::Tended(machine, tended)),
            Tended::Idle | Tended::StandsBy => return Ok(()),
        }
    }
}
