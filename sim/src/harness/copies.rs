//! Old copies of machines: somebody restores a machine from a backup and starts it beside the machine
//! itself. The copy has disks, state directory and keys of its original, and an older generation.
//!
//! Nobody writes to a copy: that it gets a session at all is what must not be.

use super::estate::{Estate, Machine};
use crate::ports::{Host, lock};
use redoubt_roles::agent::Agent;
use std::sync::{Arc, Mutex};

/// A copy, running or not.
pub(super) struct OldCopy {
    host: Host,
    agent: Arc<Mutex<Option<Agent>>>,
}

impl OldCopy {
    /// Tells whether the copy's agent has a session with a process server.
    pub(super) fn is_connected(&self) -> bool {
        lock(&self.agent).as_ref().is_some_and(|agent| agent.status().is_connected)
    }
}

/// Copies a machine's disks and state directory as they are now.
pub(super) fn copy(estate: &Estate, machine: &Machine) {
    let name = &machine.spec.name;
    let host = estate.world.host(&format!("{name}-copy"), "source");
    host.copy_from(&machine.host);
    lock(&estate.copies).insert(name.clone(), OldCopy { host, agent: Arc::default() });
}

/// Starts the copy.
pub(super) fn start(estate: &Estate, machine: &Machine) {
    let copies = lock(&estate.copies);
    let Some(copy) = copies.get(&machine.spec.name) else { return };
    copy.host.start();
    let (settings, key) = (estate.agent_settings(machine), estate.stream_key(machine.id));
    let (world, slot) = (copy.host.world().world, Arc::clone(&copy.agent));
    let shared = estate.world.shared.clone();
    copy.host.spawn(async move {
        let started = Agent::start(settings, world, key).await;
        shared.trace.line(shared.now(), || match &started {
            Ok(_) => "the old copy runs".to_owned(),
            Err(error) => format!("the old copy does not start: {error}"),
        });
        *lock(&slot) = started.ok();
        std::future::pending().await
    });
}

/// Ends the process of the copy.
pub(super) fn stop(estate: &Estate, machine: &str) {
    if let Some(copy) = lock(&estate.copies).get(machine) {
        *lock(&copy.agent) = None;
        copy.host.kill_process();
    }
}
