//! An agent with its NBD listeners and its control socket, from start to clean stop.

use super::vault::{PointsProbe, Seen};
use crate::commands::nbd::{Address, uri};
use crate::commands::scrub::range_of;
use crate::control::{self, Controlled, RangeRequest, Taken};
use crate::failure::{Exit, Failure, Outcome};
use crate::names;
use crate::output::{self, Format, say};
use crate::settings::plan::AgentPlan;
use crate::state::{self, Record, State};
use crate::status::{
    CopyReport, Facts, Health, PointReport, ProgressReport, Report, StatusReport, StreamState, VolumeReport,
    WatermarksReport, health,
};
use async_trait::async_trait;
use futures::future::BoxFuture;
use redoubt_core::extent_map::BLOCK_SECTORS;
use redoubt_core::{Extent, SECTOR_BYTES};
use redoubt_host::{HostClock, HostDisk, HostNet};
use redoubt_ports::{Clock, Endpoint, Listener, Net};
use redoubt_roles::agent::{
    Agent, AgentMode, AgentSettings, AgentStatus, MarkerPolicy, VolumeSpec, VolumeStatus,
};
use redoubt_roles::nbd_server::{Export, ExportDirectory, serve};
use redoubt_wire::StreamKey;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// What a start has taken for itself before it makes anything.
pub(crate) struct Prepared {
    pub(crate) state: State,
    pub(crate) record: Record,
    listeners: Vec<Box<dyn Listener>>,
}

/// Checks disks and addresses, takes the sockets and the state directory. Makes at most the
/// directory itself.
pub(crate) async fn prepare(plan: &AgentPlan) -> Outcome<Prepared> {
    state::check_directory(&plan.state, "state")?;
    // A directory that exists is taken first: of all that a running service holds, it is the clearest to name.
    let existing = if plan.state.is_dir() { Some(State::own(&plan.state).await?) } else { None };
    let mut record = match state::peek(&plan.state)? {
        Some(record) => record,
        None => plan.machine.map_or_else(|| Record::new(&redoubt_host::HostEntropy), Record::of),
    };
    if let Some(wanted) = plan.machine.filter(|wanted| record.machine() != Some(*wanted)) {
        let what = format!("{} is of another machine than {wanted}", plan.state.display());
        return Err(Failure::new(Exit::Refused, what)
            .hint("name a fresh directory with --state, or leave --machine out"));
    }
    for disk in &plan.disks {
        let path = std::fs::canonicalize(&disk.path).map_err(|error| {
            Failure::new(Exit::Unreachable, format!("cannot use disk {}: {error}", disk.path))
                .hint(format!("check the path; `truncate -s 2G {}` makes an empty image", disk.path))
        })?;
        record.add(&disk.name, &path.display().to_string())?;
    }
    for seed in record.order_disks() {
        say(format!("warning: disk {seed:?} was imported and is not protected here: its seed is of no use"));
    }
    if record.disks.is_empty() {
        return Err(
            Failure::usage("no disk to protect").hint("add --disk NAME=PATH, such as --disk erp=disk.img")
        );
    }
    for disk in &record.disks {
        HostDisk::open(&disk.path, false)?;
    }
    let mut listeners = Vec::new();
    for endpoint in &plan.listen {
        listeners.push(HostNet.listen(endpoint).await?);
    }
    let state = match existing {
        Some(state) => state,
        None => State::own(&plan.state).await?,
    };
    if listeners.is_empty() {
        let path = state.path.join("nbd.sock");
        listeners.push(HostNet.listen(&Endpoint::Unix(path.display().to_string())).await?);
    }
    Ok(Prepared { state, record, listeners })
}

/// A running agent, as the control socket sees it.
struct Running {
    service: &'static str,
    /// What its machine is called.
    name: String,
    agent: Arc<Agent>,
    state: State,
    record: Mutex<Record>,
    endpoints: Vec<Endpoint>,
    probe: Option<PointsProbe>,
    /// Time between two recovery points, as promised.
    rpo: Duration,
}

struct Exports(Arc<Agent>);

#[async_trait]
impl ExportDirectory for Exports {
    async fn lookup(&self, name: &str) -> Option<Arc<dyn Export>> {
        let volumes = self.0.status().volumes;
        match (name, &volumes[..]) {
            ("", [only]) => self.0.export(&only.name).ok(),
            ("", _) => None,
            (name, _) => self.0.export(name).ok(),
        }
    }

    async fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.status().volumes.into_iter().map(|volume| volume.name).collect();
        names.sort();
        names
    }
}

/// What a service adds to the plan of its agent.
pub(crate) struct Launch {
    /// Name of the command.
    pub(crate) service: &'static str,
    pub(crate) format: Format,
    pub(crate) servers: Vec<Endpoint>,
    pub(crate) key: StreamKey,
    /// The vault, if this service sees it.
    pub(crate) probe: Option<PointsProbe>,
}

/// Starts the agent, serves until asked to stop, stops cleanly.
pub(crate) async fn run(
    launch: Launch,
    plan: AgentPlan,
    prepared: Prepared,
    stop: watch::Receiver<bool>,
) -> Outcome<()> {
    let Launch { service, format, servers, key, probe } = launch;
    let Prepared { state, record, listeners } = prepared;
    let machine = record.machine().ok_or_else(|| Failure::new(Exit::Tool, "the record has no machine"))?;
    let name = host_name();
    let mut settings = AgentSettings::new(machine, name.clone(), servers);
    settings.volumes = record.disks.iter().map(|disk| VolumeSpec::new(&disk.name, &disk.path)).collect();
    settings.markers = MarkerPolicy { interval: Some(plan.point_interval), ..MarkerPolicy::default() };
    settings.bounds = plan.bounds;
    let world = redoubt_host::world(&state.role("agent")?)?;
    let control = HostNet.listen(&control::endpoint(&state.path)).await?;
    let agent = Arc::new(Agent::start(settings, world, key).await?);
    let endpoints = listeners.iter().map(|listener| listener.endpoint()).collect();
    let running = Arc::new(Running {
        service,
        name,
        agent: Arc::clone(&agent),
        state,
        record: Mutex::new(record),
        endpoints,
        probe,
        rpo: plan.point_interval,
    });
    output::data(format, &running.addresses(), |addresses| {
        addresses.iter().map(|address| format!("{}  {}\n", address.volume, address.uri)).collect()
    });
    let serving = listeners.into_iter().map(|listener| {
        let directory: Arc<dyn ExportDirectory> = Arc::new(Exports(Arc::clone(&agent)));
        serve(listener, directory, stop.clone())
    });
    let serving = futures::future::join_all(serving);
    tokio::join!(serving, control::serve(control, running, stop.clone()));
    say("stopping");
    match Arc::into_inner(agent) {
        Some(agent) => agent.stop().await?,
        // A client was cut off at the drain deadline; the next start compares hot extents.
        None => say("warning: a client is still served, so this is no clean stop"),
    }
    Ok(())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "machine".to_owned() } else { name.trim().to_owned() }
}

impl Running {
    fn addresses(&self) -> Vec<Address> {
        let volumes = self.agent.status().volumes;
        let of = |endpoint| {
            volumes
                .iter()
                .map(move |volume| Address { volume: volume.name.clone(), uri: uri(endpoint, &volume.name) })
        };
        self.endpoints.iter().flat_map(of).collect()
    }

    async fn report(&self) -> Outcome<StatusReport> {
        let status = self.agent.status();
        let Seen { points, trouble } = match &self.probe {
            Some(probe) => probe.points().await,
            None => Seen::default(),
        };
        let newest = points.as_ref().and_then(|points| points.last()).map(PointReport::of);
        let mut report = report_of(self.service, &status, &self.endpoints, self.rpo);
        report.newest_point = newest;
        report.oldest_point = points.as_ref().and_then(|points| points.first()).map(PointReport::of);
        report.points = points.map(|points| points.len() as u64);
        report.last_error = report.last_error.or(trouble);
        let now = HostClock::new().wall().0;
        let age = |point: &PointReport| Duration::from_millis(now.saturating_sub(point.wall_ms));
        report.health = health(Facts {
            state: report.state,
            connected: report.connected,
            unstaged: status.unstaged,
            rpo: self.rpo,
            point_age: self.probe.as_ref().map(|_| report.newest_point.as_ref().map(age)),
            has_trouble: report.last_error.is_some() || status.must_compare_all,
        });
        Ok(report)
    }

    async fn resync(&self, machine: &str, ranges: &[RangeRequest]) -> Outcome<u64> {
        let own = self.agent.status().machine.to_string();
        if own != machine {
            let what = format!("this service protects machine {own}, not {machine}");
            return Err(Failure::new(Exit::Refused, what).hint("run it where that machine's agent runs"));
        }
        let ranges = ranges.iter().map(range_of).collect::<Outcome<Vec<_>>>()?;
        Ok(self.agent.resync(&ranges).await? * SECTOR_BYTES)
    }

    async fn compare(&self, machine: &str, wanted: &[String]) -> Outcome<Taken> {
        let status = self.agent.status();
        let own = status.machine.to_string();
        let shown = names::machine(&own, &self.name);
        if machine != own && machine != self.name {
            let what = format!("this service protects machine {shown}, not {machine}");
            return Err(Failure::new(Exit::Refused, what)
                .hint("name that one, or the state directory of the other one's service with --state"));
        }
        let all = &status.volumes;
        if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|volume| volume.name == **name)) {
            let known: Vec<&str> = all.iter().map(|volume| volume.name.as_str()).collect();
            let what = format!("machine {shown} has no protected disk {unknown:?}");
            return Err(Failure::new(Exit::Refused, what).hint(format!("it has {}", known.join(", "))));
        }
        let is_wanted = |volume: &&VolumeStatus| wanted.is_empty() || wanted.contains(&volume.name);
        let volumes: Vec<&VolumeStatus> = all.iter().filter(is_wanted).collect();
        let whole = |volume: &&VolumeStatus| (volume.id, Extent::new(0, volume.size_bytes / SECTOR_BYTES));
        let ranges: Vec<_> = volumes.iter().map(whole).collect();
        let bytes = self.agent.resync(&ranges).await? * SECTOR_BYTES;
        Ok(Taken {
            machine: own,
            name: self.name.clone(),
            volumes: volumes.iter().map(|volume| volume.name.clone()).collect(),
            bytes,
            joined: !matches!(status.mode, AgentMode::Exact | AgentMode::Spilling),
            generation: status.generation.0,
            since: self.agent.status().watermarks.issued().0,
        })
    }

    async fn add(&self, name: String, path: String) -> Outcome<Vec<Address>> {
        let name = crate::cli::volume_name(&name).map_err(Failure::usage)?;
        if !Path::new(&path).is_absolute() {
            return Err(Failure::usage(format!("{path:?} is not an absolute path")));
        }
        let mut record = self.record.lock().await;
        let mut changed = record.clone();
        changed.add(&name, &path)?;
        // First the record: what is protected from now on must be protected by the next start too.
        self.state.save(&changed).await?;
        if let Err(error) = self.agent.protect(VolumeSpec::new(&name, &path)).await {
            self.state.save(&record).await?;
            return Err(error.into());
        }
        *record = changed;
        Ok(self.addresses().into_iter().filter(|address| address.volume == name).collect())
    }
}

impl Controlled for Running {
    fn status(&self) -> BoxFuture<'_, Outcome<Report>> {
        Box::pin(async { Ok(Report::Agent(Box::new(self.report().await?))) })
    }

    fn protect(&self, name: String, path: String) -> BoxFuture<'_, Outcome<Vec<Address>>> {
        Box::pin(self.add(name, path))
    }

    fn resync(&self, machine: String, ranges: Vec<RangeRequest>) -> BoxFuture<'_, Outcome<u64>> {
        Box::pin(async move { Running::resync(self, &machine, &ranges).await })
    }

    fn compare(&self, machine: String, volumes: Vec<String>) -> BoxFuture<'_, Outcome<Taken>> {
        Box::pin(async move { Running::compare(self, &machine, &volumes).await })
    }
}

fn copy_of(status: &AgentStatus) -> Option<CopyReport> {
    let bytes = |blocks| blocks * BLOCK_SECTORS * SECTOR_BYTES;
    let copy = status.copy;
    (copy.total > 0).then(|| CopyReport {
        compared_bytes: bytes(copy.compared),
        sent_bytes: bytes(copy.sent),
        equal_bytes: bytes(copy.skipped),
    })
}

fn report_of(service: &str, status: &AgentStatus, endpoints: &[Endpoint], rpo: Duration) -> StatusReport {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (state, progress) = match status.mode {
        AgentMode::Exact => (StreamState::Protected, None),
        AgentMode::Spilling => (StreamState::Spilling, None),
        AgentMode::Bitmap => (StreamState::Bitmap, None),
        AgentMode::Resync { is_initial, blocks_done, blocks_total } => {
            let state = if is_initial { StreamState::InitialReplication } else { StreamState::Resync };
            (state, Some(ProgressReport::new(blocks_done, blocks_total)))
        }
    };
    let marks = &status.watermarks;
    let volume = |volume: &redoubt_roles::agent::VolumeStatus| VolumeReport {
        name: volume.name.clone(),
        bytes: volume.size_bytes,
        uri: endpoints.first().map(|endpoint| uri(endpoint, &volume.name)).unwrap_or_default(),
    };
    StatusReport {
        service: service.to_owned(),
        machine: status.machine.to_string(),
        generation: status.generation.0,
        health: Health::Warning,
        state,
        progress,
        copy: copy_of(status),
        connected: status.is_connected,
        lag_ms: status.lag.map(millis),
        rpo_ms: millis(rpo),
        watermarks: WatermarksReport {
            issued: marks.issued().0,
            sent: marks.sent().0,
            staged: marks.staged().0,
            vaulted: marks.vaulted().0,
        },
        memory_bytes: status.memory_bytes,
        spill_bytes: status.spill_bytes,
        hot_extents: status.hot_extents,
        newest_point: None,
        oldest_point: None,
        points: None,
        volumes: status.volumes.iter().map(volume).collect(),
        last_error: status.last_error.clone(),
    }
}
