//! Brings one machine up: its stage scanned, its log claimed, the two put together.

use super::exactness::{self, Known};
use super::generation;
use super::maintainer::MaintainerTask;
use super::packer::Packer;
use super::shared::Shared;
use super::stage::Stage;
use redoubt_core::receiver::ReceiverState;
use redoubt_core::{Generation, MachineId};
use redoubt_ports::{IoError, IoKind, Rare};
use redoubt_vault::{ClaimWatch, MachineWriter, MaintainerSettings, Vault, VaultError};
use redoubt_wire::StreamKey;
use thiserror::Error;

/// Why a machine cannot be served now.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Nobody can say what it holds, and no agent is here that still has its disks.
    #[error(
        "what is staged is sealed under another vault key: start with that key to put it into the vault, \
         or start the agent with this one, which compares it anew"
    )]
    OtherKey,
}

/// A machine that can be served.
pub(super) struct Opened {
    pub(super) stage: Stage,
    pub(super) state: ReceiverState,
    pub(super) known: Known,
    pub(super) vault: Vault,
    pub(super) packer: Packer,
    pub(super) maintainer: MaintainerTask,
    pub(super) claim: ClaimWatch,
}

/// Opens stage and vault. After an error it may be called again. `is_awaited` if the machine's agent proved the key
/// and waits: only then what another key sealed is given up, because the agent sends or compares it anew.
pub(super) async fn open(
    shared: &Shared,
    machine: MachineId,
    key: &StreamKey,
    is_awaited: bool,
) -> Result<Opened, OpenError> {
    let files = shared.world.files.clone();
    let mut stage = Stage::open(files.clone(), machine).await?;
    if !is_awaited && stage.foreign_from(key.id()).is_some() {
        // Before the claim: it would take the log from nobody for nothing.
        return Err(OpenError::OtherKey);
    }
    let recorded = match generation::load(&*files, machine).await {
        Err(error) if error.kind == IoKind::Device => {
            tracing::error!(%machine, %error, "taking the generation from stage and vault");
            Generation::default()
        }
        recorded => recorded?,
    };
    let chance = &shared.world.chance;
    let vault = Vault::open(shared.store.clone(), shared.keys.clone()).await?.with_chance(chance.clone());
    let (entropy, settings) = (shared.world.entropy.clone(), &shared.settings);
    let writer = MachineWriter::claim_with(&vault, machine, entropy.clone(), settings.objects).await?;
    let writer = writer.with_workers(shared.world.workers.clone());
    let head = writer.head().clone();
    let vaulted = head.position;
    stage.settle(vaulted).await?;
    if let Some(ordinal) = stage.foreign_from(key.id()) {
        let batches = stage.entries().len() - ordinal;
        tracing::error!(
            %machine, batches,
            "staged batches are sealed under another vault key and given up; the agent compares what they held"
        );
        stage.cut(ordinal).await?;
    }
    let head = Known { seq: vaulted.seq, is_exact: head.exact };
    let known = exactness::at_end(stage.entries(), key, head).await;
    let staged: Vec<_> = stage.entries().iter().map(|entry| entry.meta).collect();
    let seen = staged.iter().map(|meta| meta.generation).max().unwrap_or_default();
    let generation = recorded.max(seen).max(vaulted.generation);
    tracing::info!(
        %machine, %generation, vaulted = vaulted.seq.0, staged = staged.len(), epoch = writer.epoch(),
        "machine opened"
    );
    let state = ReceiverState { generation, vaulted, staged, exact: known.is_exact };
    let claim = writer.watch();
    let every = if chance.forces(Rare::IndexEachSlot) { 1 } else { settings.index_slots };
    let told = MaintainerSettings { every, keep: settings.keep.clone(), ..MaintainerSettings::default() };
    let maintainer = MaintainerTask::start(vault.clone(), machine, shared.world.clone(), told, claim.clone());
    let packer = Packer::start(writer, key.clone(), chance.clone());
    Ok(Opened { stage, state, known, vault, packer, maintainer, claim })
}
