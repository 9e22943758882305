//! What a service will do: options over the settings file over the defaults, checked together.
//!
//! Nothing here touches the system; that comes after the whole plan is known to make sense.

use super::{FileSettings, keep, read};
use crate::cli::{Agent, AgentArgs, DiskArg, ProcessServer, ServiceArgs, Up, WrittenVault};
use crate::failure::{Failure, Outcome};
use crate::key::{self, KeySource};
use crate::kit::Kit;
use redoubt_core::MachineId;
use redoubt_core::maintenance::Ladder;
use redoubt_host::{StoreSettings, StoreUrl};
use redoubt_ports::Endpoint;
use redoubt_roles::agent::AgentBounds;
use redoubt_roles::process_server::STAGE_BYTES_MAX_DEFAULT;
use std::path::PathBuf;
use std::time::Duration;

/// A recovery point this often, so that the quick start shows some soon.
pub(crate) const POINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// What an agent does.
#[derive(Debug)]
pub(crate) struct AgentPlan {
    pub(crate) state: PathBuf,
    pub(crate) key: KeySource,
    /// Identity asked for.
    pub(crate) machine: Option<MachineId>,
    /// Disks asked for; those of earlier runs are added to them.
    pub(crate) disks: Vec<DiskArg>,
    /// Where NBD clients connect; empty means in the state directory.
    pub(crate) listen: Vec<Endpoint>,
    pub(crate) point_interval: Duration,
    pub(crate) bounds: AgentBounds,
}

/// What a process server does.
#[derive(Debug)]
pub(crate) struct ServerPlan {
    pub(crate) state: PathBuf,
    pub(crate) vault: StoreSettings,
    pub(crate) key: KeySource,
    pub(crate) listen: Endpoint,
    /// Machines that may connect; empty means every machine that holds the vault's key.
    pub(crate) machines: Vec<MachineId>,
    pub(crate) stage_bytes_max: u64,
    pub(crate) keep: Ladder,
}

fn state_of(args: &ServiceArgs, file: &mut FileSettings) -> PathBuf {
    args.state.clone().or(file.state.take()).unwrap_or_else(|| PathBuf::from("redoubt-state"))
}

fn vault_of(file: &mut FileSettings) -> StoreSettings {
    let url = file.vault.take().unwrap_or_else(|| StoreUrl::Directory("redoubt-vault".into()));
    StoreSettings {
        url,
        endpoint: file.vault_endpoint.take(),
        credentials: file.vault_credentials.take(),
        rate_max: file.vault_rate_max,
    }
}

/// As [`vault_of`], with what the command line says over it.
fn vault_under(args: &WrittenVault, file: &mut FileSettings) -> StoreSettings {
    let known = vault_of(file);
    let rate_max = args.vault_rate_max.or(known.rate_max);
    let settings = args.store.over(Some(known.clone())).unwrap_or(known);
    StoreSettings { rate_max, ..settings }
}

/// Opens the recovery kit if one is named: then the vault is where it says, unless the settings say otherwise.
fn kit_of(args: &ServiceArgs, file: &mut FileSettings) -> Outcome<Option<Kit>> {
    let kit = args.key.kit()?;
    if let Some(kit) = kit.as_ref().filter(|_| file.vault.is_none()) {
        file.vault = Some(kit.store.url.clone());
        file.vault_endpoint = file.vault_endpoint.take().or(kit.store.endpoint.clone());
    }
    Ok(kit)
}

fn key_of(kit: Option<Kit>, args: &ServiceArgs, file: &mut FileSettings, vault: &StoreUrl) -> KeySource {
    match kit {
        Some(kit) => KeySource::Kit(Box::new(kit)),
        None => {
            let named = args.key.key.clone().or(file.key.take());
            KeySource::File(named.unwrap_or_else(|| key::default_path(vault)))
        }
    }
}

fn agent_plan(args: AgentArgs, file: FileSettings, state: PathBuf, key: KeySource) -> Outcome<AgentPlan> {
    let disks = if args.disks.is_empty() { file.disks } else { args.disks };
    for (at, disk) in disks.iter().enumerate() {
        if disks[..at].iter().any(|other| other.name == disk.name) {
            return Err(Failure::usage(format!("two disks are called {:?}", disk.name))
                .hint("give each disk its own name"));
        }
    }
    let bounds = AgentBounds::default();
    Ok(AgentPlan {
        state,
        key,
        machine: args.machine.map(MachineId),
        disks,
        listen: if args.listen.is_empty() { file.listen } else { args.listen },
        point_interval: args.point_interval.or(file.point_interval).unwrap_or(POINT_INTERVAL_DEFAULT),
        bounds: AgentBounds {
            memory_bytes_max: args.memory_max.or(file.memory_max).unwrap_or(bounds.memory_bytes_max),
            spill_bytes_max: args.spill_max.or(file.spill_max).unwrap_or(bounds.spill_bytes_max),
            ..bounds
        },
    })
}

/// Returns the rules by which points are kept; refuses those that would keep too many.
pub(crate) fn keep_of(args: Option<Ladder>, file: Option<Ladder>, interval: Duration) -> Outcome<Ladder> {
    let keep = args.or(file).unwrap_or_default();
    keep::check(&keep, interval).map_err(|why| {
        Failure::usage(format!("--keep asks for too much: {why}"))
            .hint("thin out older points, as in all:2h,hourly:24h")
    })?;
    Ok(keep)
}

/// What `up` does with its vault.
pub(crate) struct VaultPlan {
    pub(crate) store: StoreSettings,
    pub(crate) stage_bytes_max: u64,
    pub(crate) keep: Ladder,
}

/// Plans `up`: the agent and its vault.
pub(crate) fn up(mut args: Up) -> Outcome<(AgentPlan, VaultPlan)> {
    let mut file = read(args.service.config.as_deref())?;
    let state = state_of(&args.service, &mut file);
    let kit = kit_of(&args.service, &mut file)?;
    let vault = vault_under(&args.vault, &mut file);
    let key = key_of(kit, &args.service, &mut file, &vault.url);
    let stage_bytes_max = file.stage_max.unwrap_or(STAGE_BYTES_MAX_DEFAULT);
    let rules = (args.vault.keep.rules.take(), file.keep.take());
    let agent = agent_plan(args.agent, file, state, key)?;
    let keep = keep_of(rules.0, rules.1, agent.point_interval)?;
    Ok((agent, VaultPlan { store: vault, stage_bytes_max, keep }))
}

/// Plans an agent and its process servers.
pub(crate) fn agent(args: Agent) -> Outcome<(AgentPlan, Vec<Endpoint>)> {
    let mut file = read(args.service.config.as_deref())?;
    let state = state_of(&args.service, &mut file);
    let kit = kit_of(&args.service, &mut file)?;
    let vault = vault_of(&mut file);
    let key = key_of(kit, &args.service, &mut file, &vault.url);
    let servers = std::mem::take(&mut file.process_servers);
    let servers = if args.process_servers.is_empty() { servers } else { args.process_servers };
    if servers.is_empty() {
        return Err(Failure::usage("no process server is given").hint("add --process-server tcp:HOST:PORT"));
    }
    Ok((agent_plan(args.agent, file, state, key)?, servers))
}

/// Plans a process server.
pub(crate) fn server(args: ProcessServer) -> Outcome<ServerPlan> {
    let mut file = read(args.service.config.as_deref())?;
    let state = state_of(&args.service, &mut file);
    let kit = kit_of(&args.service, &mut file)?;
    let vault = vault_under(&args.vault, &mut file);
    let key = key_of(kit, &args.service, &mut file, &vault.url);
    let listen = match (args.listen, &file.listen[..]) {
        (Some(listen), _) => listen,
        (None, [only]) => only.clone(),
        _ => {
            return Err(
                Failure::usage("one address to listen at is needed").hint("add --listen tcp:HOST:PORT")
            );
        }
    };
    let machines = if args.machines.is_empty() { file.machines } else { args.machines };
    Ok(ServerPlan {
        state,
        vault,
        key,
        listen,
        machines: machines.into_iter().map(MachineId).collect(),
        stage_bytes_max: args.stage_max.or(file.stage_max).unwrap_or(STAGE_BYTES_MAX_DEFAULT),
        // Agents say how often they make points, not this server: what they do by default is assumed.
        keep: keep_of(
            args.vault.keep.rules,
            file.keep,
            file.point_interval.unwrap_or(POINT_INTERVAL_DEFAULT),
        )?,
    })
}
