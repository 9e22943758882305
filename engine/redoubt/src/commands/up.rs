//! `redoubt up`: all roles in one process.

use crate::cli::Up;
use crate::failure::Outcome;
use crate::services::server::ServerThread;
use crate::services::vault::UsedVault;
use crate::services::{agent, vault};
use crate::settings::plan::{self, VaultPlan};
use crate::signals::Signals;
use crate::state;
use redoubt_ports::Endpoint;
use redoubt_roles::process_server::PsSettings;
use redoubt_wire::StreamKey;
use std::time::Duration;

pub(crate) async fn run(args: Up) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let format = args.common.format;
    let (plan, VaultPlan { store, stage_bytes_max, keep }) = plan::up(args)?;
    // Only a vault that this state directory never used must be there: it may have to be made.
    let was_used = vault::was_used(state::peek(&plan.state)?.as_ref(), &store, &plan.key);
    if !was_used {
        vault::check(&store, &plan.key).await?;
    }
    let mut prepared = agent::prepare(&plan).await?;
    let used = if was_used {
        vault::open_used(&store, &plan.key).await?
    } else {
        UsedVault::of(vault::open(&store, &plan.key).await?)
    };
    prepared.record.note(&store, plan.key.file());
    // Durable before the process server or the vault learns the machine's identity.
    prepared.state.save(&prepared.record).await?;
    let machine = prepared.record.machine().unwrap_or(redoubt_core::MachineId(0));
    let keys = used.keys;
    let stream_key = keys.stream_key(machine);
    let socket = prepared.state.path.join("stream.sock").display().to_string();
    let mut settings = PsSettings::new(Endpoint::Unix(socket), "up");
    settings.machines.insert(machine, StreamKey::new(stream_key));
    settings.stage_bytes_max = stage_bytes_max;
    settings.keep = keep;
    if used.is_away {
        settings.vault_check = Duration::ZERO;
    }
    let state = prepared.state.role("process-server")?;
    let server = ServerThread::start(settings, state, used.store.clone(), keys.clone()).await?;
    let probe = vault::PointsProbe::new(used.store, keys, machine);
    let launch = agent::Launch {
        service: "up",
        format,
        servers: vec![server.endpoint.clone()],
        key: StreamKey::new(stream_key),
        probe: Some(probe),
    };
    let ended = agent::run(launch, plan, prepared, stop).await;
    server.stop().await;
    ended
}
