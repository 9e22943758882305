//! Scrubs while everything else goes on: slow ones, as they are in production, beside writers that add, keys that are
//! replaced and maintainers that pack anew and delete. Meanwhile somebody lists the points all the time. Nothing is
//! damaged, so neither may say that anything is; what the store does not hand out is told as not read.
//!
//! What is *not* here: scrubs of what is damaged, at rest (`scrubbing`).

use super::estate::{Estate, Machine};
use crate::oracles::Finding;
use redoubt_ports::{InPlace, RawStore};
use redoubt_vault::scrub::{Ended, Report, Scrub, ScrubSettings, ScrubWatch};
use redoubt_vault::{MachineReader, Vault, VaultError};
use std::sync::Arc;
use std::time::Duration;

/// So slow that it takes a good part of a story: it meets what a scrub of terabytes meets in hours.
const RATE_MAX: u64 = 256 << 10;
/// Between two listings.
const LIST_EVERY: Duration = Duration::from_millis(150);
/// Before a vault that cannot be opened is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// Scrubs each machine at once, each by somebody of its own; nobody waits for it.
pub(super) fn begin(estate: &Arc<Estate>) {
    for (name, machine) in &estate.machines {
        let now = estate.world.shared.now().as_millis();
        let host = estate.world.host(&format!("scrub-{name}-{now}"), "target");
        host.start();
        let (estate, machine, store) = (Arc::clone(estate), Arc::clone(machine), host.world().store);
        host.spawn(async move {
            loop {
                let keys = estate.newest_keys();
                let settings = ScrubSettings { at_once: 2, rate_max: Some(RATE_MAX) };
                let scrub = Scrub::with_keys(Arc::clone(&store), keys, Arc::new(InPlace), settings);
                let Ok(scrub) = scrub.await else {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                };
                let watch = ScrubWatch::default();
                let report = tokio::select! {
                    biased;
                    report = scrub.machine(machine.id, &watch) => report,
                    () = list_points(&estate, &machine, &store) => return,
                };
                return judge(&estate, &machine, report);
            }
        });
    }
}

/// Lists the points as an operator does, until something is called damaged.
async fn list_points(estate: &Estate, machine: &Machine, store: &Arc<dyn RawStore>) {
    loop {
        tokio::time::sleep(LIST_EVERY).await;
        let Ok(vault) = Vault::open_for(Arc::clone(store), estate.newest_keys(), machine.id).await else {
            continue;
        };
        if let Err(VaultError::Damaged { object, what }) = MachineReader::open(&vault, machine.id).await {
            let what = format!(
                "{}: whoever lists the points is told that {object} is damaged, and nothing is: {what}",
                machine.spec.name
            );
            return estate.world.shared.trace.finding(Finding::new("points-restorable", what));
        }
    }
}

fn judge(estate: &Estate, machine: &Machine, report: Result<Report, VaultError>) {
    let shared = &estate.world.shared;
    // A store that gives no listing, or a vault key that is retired meanwhile, ends it.
    let Ok(report) = report else { return };
    let Report { checked, unread, damage, ended, .. } = &report;
    shared.trace.line(shared.now(), || {
        format!("a scrub of {} ends: {checked} objects, {} not read", machine.spec.name, unread.len())
    });
    if *ended == Ended::Stopped {
        return;
    }
    shared.trace.mark("scrubbed-meanwhile");
    for found in damage {
        let what = format!(
            "{}: a scrub beside the running machine calls {} damaged, and nothing is: {}",
            machine.spec.name, found.object, found.what
        );
        shared.trace.finding(Finding::new("scrub-exact", what));
    }
}
