//! What an operator does to the keys of a vault while everything runs: rotates data keys, replaces the vault key.
//! Each is tried until it succeeds, as a person would.
//!
//! Services go on with the vault key that they have, as they may until it is retired; who restores has the newest.
//! Retiring waits until they were given it.
//!
//! What is *not* here: starting services anew with it (`actions`).

use super::estate::Estate;
use crate::ports::lock;
use redoubt_ports::Entropy;
use redoubt_vault::{Vault, VaultError, VaultKeys};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Pause before another attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// How far the keys of a vault are.
#[derive(Default)]
pub(super) struct Keys {
    /// Replacements of the vault key that were asked for, and that are in force.
    asked: AtomicU64,
    in_force: AtomicU64,
    /// The newest one that services were given.
    given: AtomicU64,
}

impl Keys {
    pub(super) fn is_given(&self) -> bool {
        self.given.load(Ordering::Relaxed) > 0
    }
}

fn make(estate: &Estate) -> VaultKeys {
    let mut key = [0; 32];
    estate.operator.world().world.entropy.fill(&mut key);
    VaultKeys::new(key)
}

async fn open(estate: &Estate) -> Result<(Vault, Arc<dyn Entropy>), VaultError> {
    let ports = estate.operator.world();
    Ok((Vault::open(ports.store, estate.newest_keys()).await?, ports.world.entropy))
}

/// Gives a machine a new data key.
pub(super) fn rotate(estate: &Arc<Estate>, machine: &str) {
    let Some(machine) = estate.machines.get(machine).map(|machine| machine.id) else { return };
    let this = Arc::clone(estate);
    estate.operator.spawn(async move {
        loop {
            if let Ok((vault, entropy)) = open(&this).await
                && vault.rotate(machine, &*entropy).await.is_ok()
            {
                this.world.shared.trace.mark("data-key-rotated");
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}

/// Replaces the vault key.
pub(super) fn rewrap(estate: &Arc<Estate>) {
    let number = estate.key_changes.asked.fetch_add(1, Ordering::Relaxed) + 1;
    let (this, new) = (Arc::clone(estate), make(estate));
    estate.operator.spawn(async move {
        loop {
            // One after another.
            if this.key_changes.in_force.load(Ordering::Relaxed) + 1 == number
                && let Ok((vault, entropy)) = open(&this).await
            {
                match vault.rewrap(&new, &*entropy).await {
                    Ok(_) | Err(VaultError::KeyUsedBefore(_)) => break,
                    Err(error) => this.world.shared.trace.line(this.world.shared.now(), || {
                        format!("the operator cannot replace the vault key: {error}")
                    }),
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        *lock(&this.newest_keys) = new;
        this.world.shared.trace.mark("vault-key-replaced");
        this.key_changes.in_force.store(number, Ordering::Relaxed);
    });
}

/// Services that start from now on have the newest vault key. Tells whether it is another one than theirs was.
pub(super) fn give(estate: &Estate) -> bool {
    let newest = estate.key_changes.in_force.load(Ordering::Relaxed);
    *lock(&estate.keys) = estate.newest_keys();
    estate.key_changes.given.swap(newest, Ordering::Relaxed) != newest
}

/// Retires what older vault keys wrap, as soon as services have the newest one.
pub(super) fn retire(estate: &Arc<Estate>) {
    let this = Arc::clone(estate);
    estate.operator.spawn(async move {
        loop {
            let keys = &this.key_changes;
            let (given, asked) = (keys.given.load(Ordering::Relaxed), keys.asked.load(Ordering::Relaxed));
            if given > 0
                && given == asked
                && let Ok((vault, _)) = open(&this).await
                && let Ok(retired) = vault.retire().await
            {
                if retired.deleted > 0 {
                    this.world.shared.trace.mark("vault-key-retired");
                }
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}
