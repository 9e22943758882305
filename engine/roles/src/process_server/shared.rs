//! What all tasks of a process server share: settings, keys, the machines' mailboxes, the status.

use super::actor::{self, ToActor};
use super::settings::{PsMachineStatus, PsSettings, PsStatus};
use redoubt_core::MachineId;
use redoubt_core::receiver::SessionId;
use redoubt_ports::{RawStore, World};
use redoubt_vault::VaultKeys;
use redoubt_wire::StreamKey;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// Machines of a process server whose settings list none; each has this part of the stage.
pub(super) const UNLISTED_MACHINES_MAX: usize = 16;

/// Connections at once: each machine has one, agents that reconnect leave a dead one for a while.
const CONNECTIONS_MAX: usize = 256;

/// See the module.
pub(super) struct Shared {
    pub(super) settings: PsSettings,
    pub(super) world: World,
    pub(super) store: Arc<dyn RawStore>,
    pub(super) keys: VaultKeys,
    pub(super) stop: watch::Receiver<bool>,
    /// Room for connections.
    pub(super) connections: Arc<Semaphore>,
    sessions: AtomicU64,
    actors: Mutex<BTreeMap<MachineId, Actor>>,
    status: Mutex<PsStatus>,
}

struct Actor {
    mailbox: mpsc::Sender<ToActor>,
    task: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        settings: PsSettings,
        world: World,
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
        stop: watch::Receiver<bool>,
    ) -> Shared {
        let (sessions, actors, status) = (AtomicU64::new(1), Mutex::default(), Mutex::default());
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Shared { settings, world, store, keys, stop, connections, sessions, actors, status }
    }

    /// Returns the key of a machine's stream; `None` if this server does not serve the machine.
    pub(super) fn stream_key(&self, machine: MachineId) -> Option<StreamKey> {
        if self.settings.machines.is_empty() {
            return Some(StreamKey::new(self.keys.stream_key(machine)));
        }
        self.settings.machines.get(&machine).cloned()
    }

    fn machines_max(&self) -> usize {
        match self.settings.machines.len() {
            0 => UNLISTED_MACHINES_MAX,
            listed => listed,
        }
    }

    /// Returns one machine's part of the stage: one machine never takes another's room (RC-6).
    pub(super) fn stage_share(&self) -> u64 {
        self.settings.stage_bytes_max / self.machines_max() as u64
    }

    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the mailbox of the machine's actor, which is started if need be. `None` if there is no
    /// room for one more machine, or the machine is not served.
    pub(super) fn actor(self: &Arc<Shared>, machine: MachineId) -> Option<mpsc::Sender<ToActor>> {
        let key = self.stream_key(machine)?;
        let mut actors = lock(&self.actors);
        if let Some(actor) = actors.get(&machine) {
            return Some(actor.mailbox.clone());
        }
        if actors.len() >= self.machines_max() {
            return None;
        }
        let (mailbox, queue) = mpsc::channel(actor::MAILBOX_MESSAGES);
        let task = tokio::spawn(actor::run(self.clone(), machine, key, queue));
        actors.insert(machine, Actor { mailbox: mailbox.clone(), task });
        Some(mailbox)
    }

    /// Tells whether the machine has an actor.
    pub(super) fn has_actor(&self, machine: MachineId) -> bool {
        lock(&self.actors).contains_key(&machine)
    }

    /// Takes the actors' tasks, to wait for them. Only for the stop.
    pub(super) fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *lock(&self.actors)).into_values().map(|actor| actor.task).collect()
    }

    pub(super) fn publish(&self, machine: MachineId, status: PsMachineStatus) {
        lock(&self.status).machines.insert(machine, status);
    }

    pub(super) fn status(&self) -> PsStatus {
        lock(&self.status).clone()
    }
}

/// Returns once the value is `true` or nobody can make it so any more.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}
