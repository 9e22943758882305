//! `redoubt maintainer`: keeps a vault in order, alone.

use crate::cli::Maintainer;
use crate::failure::Outcome;
use crate::output::{self, say};
use crate::recovery;
use crate::settings::plan;
use crate::signals::Signals;
use redoubt_core::MachineId;
use redoubt_host::{HostClock, HostEntropy, HostWorkers};
use redoubt_roles::maintainer::{MaintainerEvent, Means, Tended, maintain};
use redoubt_vault::MaintainerSettings;
use serde::Serialize;
use std::sync::Arc;

/// One piece of work.
#[derive(Serialize)]
struct Work {
    machine: String,
    event: &'static str,
    /// The log is in order up to this slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u64>,
}

pub(crate) async fn run(args: Maintainer) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let keep = plan::keep_of(args.keep.rules, None, plan::POINT_INTERVAL_DEFAULT)?;
    let settings = MaintainerSettings { keep, ..MaintainerSettings::default() };
    let place = recovery::locate(&args.which)?;
    let vault = recovery::open_vault(&place.settings, &place.key).await?;
    let vault = vault.with_workers(Arc::new(HostWorkers::new()));
    say(format!("maintaining vault {}", place.settings.url));
    let format = args.common.format;
    let machines: Vec<MachineId> = args.machines.into_iter().map(MachineId).collect();
    let mut tell = |event: MaintainerEvent<'_>| match event {
        MaintainerEvent::Tended(machine, Tended::Wrote(slot)) => {
            let work = Work { machine: machine.to_string(), event: "catalogue", slot: Some(slot) };
            output::data(format, &work, |work| format!("{}  in order up to slot {slot}", work.machine));
        }
        MaintainerEvent::Tended(machine, Tended::Superseded(_)) => {
            let work = Work { machine: machine.to_string(), event: "superseded", slot: None };
            output::data(format, &work, |work| {
                format!("{}  another maintainer does the work now; standing by", work.machine)
            });
        }
        MaintainerEvent::Tended(_, Tended::Idle | Tended::StandsBy) => {}
        MaintainerEvent::Failed(machine, error) => {
            let of = machine.map(|machine| format!("{machine}: ")).unwrap_or_default();
            say(format!("warning: {of}{error}; trying again"));
        }
    };
    let means = Means { clock: Arc::new(HostClock::new()), entropy: Arc::new(HostEntropy) };
    maintain(vault, machines, means, settings, stop, &mut tell).await;
    say("stopping");
    Ok(())
}
