//! `redoubt process-server`: takes streams, writes a vault.

use super::up::absolute;
use crate::cli::ProcessServer;
use crate::failure::Outcome;
use crate::output;
use crate::services::server::ServerThread;
use crate::services::vault;
use crate::settings::plan;
use crate::signals::Signals;
use crate::state::{self, Record, State};
use redoubt_roles::process_server::PsSettings;
use redoubt_wire::StreamKey;
use serde::Serialize;

#[derive(Serialize)]
struct Listening {
    listen: String,
}

pub(crate) async fn run(args: ProcessServer) -> Outcome<()> {
    let mut signals = Signals::catch()?;
    let format = args.common.format;
    let plan = plan::server(args)?;
    state::check_directory(&plan.state, "state")?;
    vault::check(&plan.vault, &plan.key).await?;
    let record = state::peek(&plan.state)?;
    let state = State::own(&plan.state).await?;
    let opened = vault::open(&plan.vault, &plan.key).await?;
    let mut record = record.unwrap_or_else(|| Record::new(&redoubt_host::HostEntropy));
    record.vault = Some(absolute(&plan.vault));
    record.key = Some(absolute(&plan.key));
    let keys = opened.vault.keys().clone();
    let mut settings = PsSettings::new(plan.listen, "process-server");
    let keyed = plan.machines.into_iter().map(|machine| (machine, StreamKey::new(keys.stream_key(machine))));
    settings.machines = keyed.collect();
    settings.stage_bytes_max = plan.stage_bytes_max;
    let server = ServerThread::start(settings, state.role("process-server")?, opened.store, keys).await?;
    state.save(&record).await?;
    let listening = Listening { listen: server.endpoint.to_string() };
    output::data(format, &listening, |listening| format!("listening at {}", listening.listen));
    signals.stop().await;
    server.stop().await;
    Ok(())
}
