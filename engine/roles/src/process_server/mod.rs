//! The process server: receives streams, stages them durably, packs them into the vault.
//!
//! ```text
//! let server = ProcessServer::start(settings, world, store, keys).await?;   // store: Arc<dyn RawStore>
//! server.endpoint();          // Endpoint with the real port
//! server.status();            // PsStatus
//! server.stop().await;
//! ```
//!
//! One actor per machine owns the machine's `core::receiver`, its stage and its status; commits and
//! digests run in tasks of their own. Without a listed machine the server takes every machine whose
//! agent proves the key that the vault key gives.
//!
//! A machine is claimed with its first session, again when the agent comes back after another server claimed
//! it (RC-7), or when what an earlier run staged stays without an agent (`leftover`). Dropping the handle ends
//! everything at once, like a crash.
//!
//! What is *not* here: what to accept, acknowledge and commit (`core::receiver`).

mod actor;
mod connection;
mod exactness;
mod generation;
mod hasher;
mod leftover;
mod maintainer;
mod marks;
mod opening;
mod outbox;
mod packer;
pub(crate) mod session;
mod settings;
mod shared;
mod stage;

pub use settings::*;

use crate::tasks::Tasks;
use redoubt_core::MachineId;
use redoubt_ports::{Endpoint, Listener, RawStore, World};
use redoubt_vault::{Vault, VaultError, VaultKeys};
use shared::{Shared, stopped};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause after a failed accept (such as too many open files), so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stop lets connections write what was said before it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a stop waits for actors and connections; above the actors' own limit for a commit.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running process server. Dropping it ends its tasks at once; what was acknowledged is durable.
pub struct ProcessServer {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    connections: Arc<Tasks>,
    _tasks: Tasks,
    _lock: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for ProcessServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessServer({})", self.endpoint)
    }
}

impl ProcessServer {
    /// Takes the state directory, listens, and begins to commit what earlier runs staged.
    ///
    /// `Io` with kind `Busy` if another process uses the directory. `Vault` if the store answers and
    /// holds no vault of these keys; a store that does not answer is waited for while running.
    pub async fn start(
        settings: PsSettings,
        world: World,
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
    ) -> Result<ProcessServer, PsError> {
        let lock = world.files.lock().await?;
        let vault = Vault::open(store.clone(), keys.clone());
        match tokio::time::timeout(settings.vault_check, vault).await {
            Ok(Ok(_)) => {}
            Ok(Err(VaultError::Store(failure))) => tracing::warn!(%failure, "starting without the vault"),
            Ok(Err(error)) => return Err(PsError::Vault(error)),
            Err(_) => tracing::warn!("the vault does not answer; starting without it"),
        }
        let names = world.files.list().await?;
        let listener = world.net.listen(&settings.listen).await?;
        let endpoint = listener.endpoint();
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared::new(settings, world, store, keys, stopping));
        let tasks = Tasks::default();
        let machines: BTreeSet<MachineId> = names.iter().filter_map(|name| stage::machine_of(name)).collect();
        for machine in machines {
            tasks.spawn(leftover::run(shared.clone(), machine));
        }
        let connections = Arc::new(Tasks::default());
        let accepting = tokio::spawn(accept(listener, shared.clone(), connections.clone()));
        tracing::info!(%endpoint, name = shared.settings.name, "process server started");
        Ok(ProcessServer { shared, endpoint, stop, accepting, connections, _tasks: tasks, _lock: lock })
    }

    /// Returns where it listens, with the real port.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Returns every machine as its actor last described it.
    pub fn status(&self) -> PsStatus {
        self.shared.status()
    }

    /// Takes no more connections, waits a bounded time for what is under way, and ends. What is staged
    /// and not vaulted is committed by the next start.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let ended = async {
            for task in self.shared.take_tasks() {
                let _ = task.await;
            }
            // The actors closed their sessions; connections have this long to write the last words.
            self.connections.ended(LAST_WORDS).await;
        };
        if tokio::time::timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::error!("parts of the process server did not stop in time; cutting them off");
        }
    }
}

impl Drop for ProcessServer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.abort();
        self.shared.take_tasks().iter().for_each(JoinHandle::abort);
    }
}

/// Takes connections until the stop.
async fn accept(listener: Box<dyn Listener>, shared: Arc<Shared>, connections: Arc<Tasks>) {
    let mut stopping = std::pin::pin!(stopped(shared.stop.clone()));
    loop {
        tokio::select! {
            biased;
            () = &mut stopping => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Without a permit the connection is dropped: the agent tries again.
                    if let Ok(permit) = shared.connections.clone().try_acquire_owned() {
                        connections.spawn(connection::serve(shared.clone(), stream, peer, permit));
                    } else {
                        tracing::warn!(%peer, "too many connections of agents");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take connections of agents");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
