//! `redoubt up`: all roles in one process.

use crate::cli::Up;
use crate::failure::Outcome;
use crate::services::server::ServerThread;
use crate::services::{agent, vault};
use crate::settings::plan::{self, VaultPlan};
use crate::signals::Signals;
use redoubt_ports::Endpoint;
use redoubt_roles::process_server::PsSettings;
use redoubt_wire::StreamKey;

pub(crate) async fn run(args: Up) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let format = args.common.format;
    let (plan, VaultPlan { store, stage_bytes_max, keep }) = plan::up(args)?;
    vault::check(&store, &plan.key).await?;
    let mut prepared = agent::prepare(&plan).await?;
    let opened = vault::open(&store, &plan.key).await?;
    prepared.record.note(&store, plan.key.file());
    // Durable before the process server or the vault learns the machine's identity.
    prepared.state.save(&prepared.record).await?;
    let machine = prepared.record.machine().unwrap_or(redoubt_core::MachineId(0));
    let keys = opened.vault.keys().clone();
    let stream_key = keys.stream_key(machine);
    let socket = prepared.state.path.join("stream.sock").display().to_string();
    let mut settings = PsSettings::new(Endpoint::Unix(socket), "up");
    settings.machines.insert(machine, StreamKey::new(stream_key));
    settings.stage_bytes_max = stage_bytes_max;
    settings.keep = keep;
    let state = prepared.state.role("process-server")?;
    let server = ServerThread::start(settings, state, opened.store, keys).await?;
    let probe = vault::PointsProbe::new(opened.vault, machine);
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
