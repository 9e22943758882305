//! `redoubt process-server`: takes streams, writes a vault.

use crate::cli::ProcessServer;
use crate::commands::nbd::Address;
use crate::control::{self, Controlled};
use crate::failure::{Failure, Outcome};
use crate::output::{self, say};
use crate::services::server::ServerThread;
use crate::services::vault::{self, PointsProbe, UsedVault};
use crate::settings::plan;
use crate::signals::Signals;
use crate::state::{self, Record, State};
use crate::status::server::{MachineReport, ServerReport, health, worst};
use crate::status::{PointReport, Report};
use futures::future::BoxFuture;
use redoubt_core::MachineId;
use redoubt_host::HostNet;
use redoubt_ports::{Net, RawStore};
use redoubt_roles::process_server::{PsMachineStatus, PsSettings};
use redoubt_vault::VaultKeys;
use redoubt_wire::StreamKey;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

#[derive(Serialize)]
struct Listening {
    listen: String,
}

pub(crate) async fn run(args: ProcessServer) -> Outcome<()> {
    let stop = Signals::catch()?.watch();
    let format = args.common.format;
    let plan = plan::server(args)?;
    state::check_directory(&plan.state, "state")?;
    let record = state::peek(&plan.state)?;
    let was_used = vault::was_used(record.as_ref(), &plan.vault, &plan.key);
    if !was_used {
        vault::check(&plan.vault, &plan.key).await?;
    }
    // Before anything is made: a taken address must leave no vault behind.
    drop(HostNet.listen(&plan.listen).await?);
    let state = State::own(&plan.state).await?;
    let used = if was_used {
        vault::open_used(&plan.vault, &plan.key).await?
    } else {
        UsedVault::of(vault::open(&plan.vault, &plan.key).await?)
    };
    let mut record = record.unwrap_or_else(|| Record::new(&redoubt_host::HostEntropy));
    record.note(&plan.vault, plan.key.file());
    let (store, keys) = (used.store, used.keys);
    let mut settings = PsSettings::new(plan.listen, "process-server");
    let keyed = plan.machines.into_iter().map(|machine| (machine, StreamKey::new(keys.stream_key(machine))));
    settings.machines = keyed.collect();
    settings.stage_bytes_max = plan.stage_bytes_max;
    settings.keep = plan.keep;
    if used.is_away {
        settings.vault_check = Duration::ZERO;
    }
    let control = HostNet.listen(&control::endpoint(&state.path)).await?;
    let state_of_role = state.role("process-server")?;
    let server = ServerThread::start(settings, state_of_role, store.clone(), keys.clone()).await?;
    state.save(&record).await?;
    let listening = Listening { listen: server.endpoint.to_string() };
    output::data(format, &listening, |listening| format!("listening at {}", listening.listen));
    let (vault, directory) = ((store, keys), plan.vault.url.to_string());
    let running = Arc::new(Running { server, vault, directory, probes: Mutex::default() });
    control::serve(control, running.clone(), stop).await;
    say("stopping");
    if let Some(running) = Arc::into_inner(running) {
        running.server.stop().await;
    }
    Ok(())
}

/// A running process server, as the control socket sees it.
struct Running {
    server: ServerThread,
    vault: (Arc<dyn RawStore>, VaultKeys),
    directory: String,
    probes: Mutex<BTreeMap<MachineId, PointsProbe>>,
}

impl Running {
    async fn machine(&self, machine: MachineId, status: PsMachineStatus) -> MachineReport {
        let mut probes = self.probes.lock().await;
        let (store, keys) = &self.vault;
        let probe =
            probes.entry(machine).or_insert_with(|| PointsProbe::new(store.clone(), keys.clone(), machine));
        let seen = probe.points().await;
        let points = seen.points.unwrap_or_default();
        let last_error = status.last_error.or(seen.trouble);
        MachineReport {
            machine: machine.to_string(),
            generation: status.generation.0,
            health: health(status.is_fenced, status.is_connected, last_error.is_some()),
            connected: status.is_connected,
            staged: status.staged.seq.0,
            vaulted: status.vaulted.seq.0,
            stage_bytes: status.stage_bytes,
            newest_point: points.last().map(PointReport::of),
            oldest_point: points.first().map(PointReport::of),
            points: points.len() as u64,
            last_error,
        }
    }

    async fn report(&self) -> Outcome<ServerReport> {
        let mut machines = Vec::new();
        for (machine, status) in self.server.status().await?.machines {
            machines.push(self.machine(machine, status).await);
        }
        Ok(ServerReport {
            service: "process-server".to_owned(),
            listen: self.server.endpoint.to_string(),
            vault: self.directory.clone(),
            health: worst(&machines),
            machines,
        })
    }
}

impl Controlled for Running {
    fn status(&self) -> BoxFuture<'_, Outcome<Report>> {
        Box::pin(async { Ok(Report::Server(self.report().await?)) })
    }

    fn protect(&self, _: String, _: String) -> BoxFuture<'_, Outcome<Vec<Address>>> {
        Box::pin(async {
            Err(Failure::usage("a process server protects no disks")
                .hint("name the state directory of `redoubt agent` or `redoubt up` with --state"))
        })
    }
}
