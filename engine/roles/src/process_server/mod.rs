//! The process server: receives streams, stages them durably, packs them into the vault.
//!
//! One receiver per machine, opened with its first session: the machine's log is claimed (older
//! writers are fenced), the stage is scanned, and the agent resumes where the stage ends. Dropping
//! the handle ends everything at once, like a crash; nothing acknowledged is lost.
//!
//! What is *not* here: decisions ([`redoubt_core::receiver`]), the vault's format.

mod machine;
pub(crate) mod session;
mod settings;
mod stage;

pub use settings::*;

use crate::tasks::Tasks;
use machine::Machine;
use redoubt_core::MachineId;
use redoubt_core::receiver::SessionId;
use redoubt_ports::{Endpoint, Listener, RawStore, World};
use redoubt_vault::{Vault, VaultKeys};
use redoubt_wire::StreamKey;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Pause after a failed accept, so that a broken listener does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// A running process server.
pub struct ProcessServer {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    tasks: Arc<Tasks>,
    /// The state directory; free again as soon as the handle is gone.
    _lock: Box<dyn Any + Send + Sync>,
}

pub(super) struct Shared {
    settings: PsSettings,
    world: World,
    store: Arc<dyn RawStore>,
    keys: VaultKeys,
    machines: Mutex<BTreeMap<MachineId, Arc<Machine>>>,
    /// One machine is opened at a time: opening claims, and two claims of one server would fence each other.
    opening: tokio::sync::Mutex<()>,
    sessions: Mutex<BTreeMap<SessionId, ()>>,
}

impl Shared {
    fn served(&self) -> Vec<(MachineId, Arc<Machine>)> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.iter().map(|(id, machine)| (*id, Arc::clone(machine))).collect()
    }

    fn current(&self, id: MachineId) -> Option<Arc<Machine>> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = machines.get(&id).cloned()?;
        if !machine.is_over() {
            return Some(machine);
        }
        machine.close();
        machines.remove(&id);
        None
    }

    /// Returns the machine, opened if it is not.
    async fn machine(&self, id: MachineId, key: &StreamKey) -> Result<Arc<Machine>, String> {
        let _one = self.opening.lock().await;
        if let Some(machine) = self.current(id) {
            return Ok(machine);
        }
        let vault = Vault::open(Arc::clone(&self.store), self.keys.clone()).await;
        let vault = vault.map_err(|error| error.to_string())?;
        let machine = Machine::open(id, key.clone(), &self.world, &vault, &self.settings).await?;
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.insert(id, Arc::clone(&machine));
        Ok(machine)
    }

    fn forget(&self, id: SessionId) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        for (_, machine) in self.served() {
            machine.disconnect(id);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.served().iter().for_each(|(_, machine)| machine.close());
    }
}

impl ProcessServer {
    /// Takes the state directory, listens, and serves. The vault must be initialised already; it is
    /// opened with the first session, so that a store that is away does not keep the server down.
    pub async fn start(
        settings: PsSettings,
        world: World,
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
    ) -> Result<ProcessServer, PsError> {
        let lock = world.files.lock().await?;
        let listener = world.net.listen(&settings.listen).await?;
        let endpoint = listener.endpoint();
        tracing::info!(role = "process-server", name = %settings.name, %endpoint, "listening");
        let shared = Arc::new(Shared {
            settings,
            world,
            store,
            keys,
            machines: Mutex::default(),
            opening: tokio::sync::Mutex::new(()),
            sessions: Mutex::default(),
        });
        let tasks = Arc::new(Tasks::default());
        let connections = Arc::new(Tasks::default());
        tasks.spawn(accept_loop(Arc::clone(&shared), listener, connections));
        Ok(ProcessServer { shared, endpoint, tasks, _lock: lock })
    }

    /// Returns where it listens, with the real port.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Returns its state now.
    pub fn status(&self) -> PsStatus {
        let machines = self.shared.served();
        PsStatus { machines: machines.into_iter().map(|(id, machine)| (id, machine.status())).collect() }
    }

    /// Stops. What is staged stays and is committed by the next start.
    pub async fn stop(self) {
        self.tasks.abort();
        self.shared.served().iter().for_each(|(_, machine)| machine.close());
    }
}

impl Drop for ProcessServer {
    fn drop(&mut self) {
        self.tasks.abort();
        self.shared.served().iter().for_each(|(_, machine)| machine.close());
    }
}

async fn accept_loop(shared: Arc<Shared>, listener: Box<dyn Listener>, connections: Arc<Tasks>) {
    let mut next = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                next += 1;
                let id = SessionId(next);
                tracing::debug!(role = "process-server", session = next, %peer, "connected");
                shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(id, ());
                connections.spawn(session::serve(Arc::clone(&shared), stream, id));
            }
            Err(error) => {
                tracing::warn!(role = "process-server", %error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
