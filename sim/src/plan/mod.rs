//! The fault plan: what will happen in a run, drawn up front from a seed, as plain data.
//!
//! Equal scenario and seed give an equal plan. Nothing is drawn while a run goes on: what a run does
//! can be printed before it starts, and a plan can be shortened without changing what is left.
//!
//! Fault budget: the plan never loses more than the design promises to survive. It never destroys the
//! vault, and never the source and the vault's newest point together.

mod draw;
mod faults;
mod steps;
mod swarm;
mod weather;

pub use draw::{RESTART_AFTER, draw};
pub use faults::faults;
pub use steps::{Fixed, damage_verb, steps};

use crate::scenario::{Day, Range, Unit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Kinds of requests that a disk can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// Reads.
    Read,
    /// Writes and zeroing.
    Write,
    /// Flushes.
    Flush,
}

/// Kinds of objects in a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Segments.
    Data,
    /// Log slots, small segments inline.
    Log,
    /// Claims of writers.
    Claim,
    /// Tables of what is derived from the log.
    Index,
    /// Versions of the catalogue, which names the tables.
    Catalogue,
    /// Pins of points in use.
    Pin,
    /// Wrapped data keys, twins among them.
    Key,
    /// The vault object and its twin.
    Identity,
}

impl Part {
    /// Tells by its name whether an object belongs to it.
    pub fn holds(self, name: &str) -> bool {
        let kinds: &[&str] = match self {
            Part::Data => &["/seg/", "/cseg/"],
            Part::Log => &["/log/"],
            Part::Claim => &["/claim/w/"],
            Part::Index => &["/idx/", "/fold/"],
            Part::Catalogue => &["/cat/"],
            Part::Pin => &["/pin/"],
            Part::Key => &["/key/"],
            Part::Identity => &["vault"],
        };
        kinds.iter().any(|kind| name.contains(kind))
    }
}

/// What befalls a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// One bit changes.
    Rot,
    /// It is gone.
    Lost,
    /// Its end is missing.
    Truncated,
}

/// One thing the harness does to the estate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The process on a host ends at once; its page cache survives.
    KillProcess(String),
    /// The process on a host starts again.
    StartProcess(String),
    /// A host loses power.
    PowerOff(String),
    /// A host gets power; its process starts.
    PowerOn(String),
    /// A host does nothing for some milliseconds, then goes on.
    Freeze(String, u64),
    /// A host's wall clock steps by milliseconds.
    StepClock(String, i64),
    /// A site's hosts lose power.
    SiteOff(String),
    /// A site's hosts get power.
    SiteOn(String),
    /// A site is gone for good.
    SiteLost(String),
    /// A link falls silent.
    Cut(String),
    /// A link loses this share of its packets, in parts per million.
    Loss(String, u32),
    /// A link carries this many bytes per second.
    Slow(String, u64),
    /// A link is as at the start.
    HealLink(String),
    /// A knob of the store: name and share in parts per million; zero lifts it.
    Store(String, u32),
    /// A rare but legal behaviour of the engine is forced: point and share in parts per million; zero ends it.
    Rare(String, u32),
    /// A machine's disks fail requests of a kind: share in parts per million.
    DiskErrors(String, DiskFault, u32),
    /// A machine's disks finish nothing for some milliseconds.
    DiskHang(String, u64),
    /// A host's state directory is full, or has room again.
    FilesFull(String, bool),
    /// A process server's state directory is gone, and its process with it.
    FilesLost(String),
    /// Syncs of a host's state files fail: share in parts per million.
    FilesSyncErrors(String, u32),
    /// A host's state directory answers nothing for some milliseconds; `None`: until the faults are lifted.
    FilesHang(String, Option<u64>),
    /// A host's state directory answers again.
    FilesAnswer(String),
    /// An object of the vault is damaged; done after the last convergence, before the last check.
    Damage(Part, Damage),
    /// The whole vault is copied.
    CopyVault,
    /// The copy takes the place of the vault.
    RestoreVault,
    /// The process on a host ends with its n-th effect on the store from now on, and starts again.
    KillAtEffect(String, u64),
    /// A host loses power with its n-th effect on its state directory from now on, and starts again.
    PowerAtEffect(String, u64),
    /// A recovery point is asked for.
    Point(String),
    /// The agent of a machine stops cleanly.
    StopAgent(String),
    /// The agent of a machine starts.
    StartAgent(String),
    /// Somebody writes to a disk of a machine whose agent is stopped.
    EditDisk(String),
    /// A machine's disks and state directory are copied.
    Copy(String),
    /// The copy of a machine is started beside it.
    StartCopy(String),
    /// The copy of a machine ends.
    StopCopy(String),
    /// The oldest point of a machine is mounted at the recovery site.
    Mount(String),
    /// The oldest mount of a machine ends.
    Unmount(String),
    /// A machine gets a new data key.
    RotateKeys(String),
    /// The vault key is replaced.
    RewrapKeys,
    /// All services start anew with the newest vault key.
    GiveKeys,
    /// Older vault keys are retired.
    RetireKeys,
    /// All points in the vault are restored and judged, while the run goes on.
    CheckPoints,
    /// At rest, after all else, what nobody needs must be gone.
    CheckLeftovers,
    /// The newest point of each machine is opened at the recovery site, to measure how long that takes.
    CheckMounts,
    /// Each machine's vault is scrubbed from the recovery site, while the run goes on.
    CheckScrub,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |ppm: &u32| f64::from(*ppm) / 10_000.0;
        match self {
            Action::KillProcess(host) => write!(f, "kill the process on {host}"),
            Action::StartProcess(host) => write!(f, "start the process on {host}"),
            Action::PowerOff(host) => write!(f, "power off {host}"),
            Action::PowerOn(host) => write!(f, "power on {host}"),
            Action::Freeze(host, ms) => write!(f, "freeze {host} for {ms} ms"),
            Action::StepClock(host, ms) => write!(f, "step the clock of {host} by {ms} ms"),
            Action::SiteOff(site) => write!(f, "power off site {site}"),
            Action::SiteOn(site) => write!(f, "power on site {site}"),
            Action::SiteLost(site) => write!(f, "lose site {site} for good"),
            Action::Cut(link) => write!(f, "cut {link}"),
            Action::Loss(link, ppm) => write!(f, "lose {} % on {link}", share(ppm)),
            Action::Slow(link, speed) => write!(f, "slow {link} to {speed} B/s"),
            Action::HealLink(link) => write!(f, "heal {link}"),
            Action::Store(knob, ppm) => write!(f, "store {knob} {} %", share(ppm)),
            Action::Rare(point, ppm) => write!(f, "force {point} {} %", share(ppm)),
            Action::DiskErrors(host, kind, ppm) => write!(f, "{kind:?} errors on {host}: {} %", share(ppm)),
            Action::DiskHang(host, ms) => write!(f, "disks of {host} hang for {ms} ms"),
            Action::FilesFull(host, full) => write!(f, "state directory of {host} full: {full}"),
            Action::FilesLost(host) => write!(f, "lose the state directory of {host}"),
            Action::FilesSyncErrors(host, ppm) => write!(f, "sync errors on {host}: {} %", share(ppm)),
            Action::FilesHang(host, Some(ms)) => write!(f, "state directory of {host} hangs for {ms} ms"),
            Action::FilesHang(host, None) => write!(f, "state directory of {host} hangs"),
            Action::FilesAnswer(host) => write!(f, "state directory of {host} answers again"),
            Action::Damage(part, damage) => write!(f, "an object is damaged: {part:?}, {damage:?}"),
            Action::CopyVault => f.write_str("copy the vault"),
            Action::RestoreVault => f.write_str("put the old copy of the vault in its place"),
            Action::KillAtEffect(host, count) => {
                write!(f, "kill the process on {host} with its effect {count} on the store")
            }
            Action::PowerAtEffect(host, count) => {
                write!(f, "power off {host} with its effect {count} on its state directory")
            }
            Action::Point(machine) => write!(f, "ask for a point of {machine}"),
            Action::StopAgent(machine) => write!(f, "stop the agent of {machine}"),
            Action::StartAgent(machine) => write!(f, "start the agent of {machine}"),
            Action::EditDisk(machine) => write!(f, "edit a disk of {machine}"),
            Action::Copy(machine) => write!(f, "copy {machine}"),
            Action::StartCopy(machine) => write!(f, "start the old copy of {machine}"),
            Action::StopCopy(machine) => write!(f, "end the old copy of {machine}"),
            Action::Mount(machine) => write!(f, "mount the oldest point of {machine}"),
            Action::Unmount(machine) => write!(f, "unmount a point of {machine}"),
            Action::RotateKeys(machine) => write!(f, "give {machine} a new data key"),
            Action::RewrapKeys => f.write_str("replace the vault key"),
            Action::GiveKeys => f.write_str("give all services the newest vault key"),
            Action::RetireKeys => f.write_str("retire older vault keys"),
            Action::CheckPoints => f.write_str("check all points"),
            Action::CheckLeftovers => f.write_str("check at rest what is left"),
            Action::CheckMounts => f.write_str("open the newest point of each machine"),
            Action::CheckScrub => f.write_str("scrub each machine's vault"),
        }
    }
}

/// An action with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the start of the safety phase.
    pub at: u64,
    /// What happens.
    pub action: Action,
}

/// What one guest does, drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPlan {
    /// Model name.
    pub model: String,
    /// Operations per second.
    pub rate: u32,
    /// Operations under way at once.
    pub jobs: u32,
    /// Seed of its own stream of choices.
    pub seed: u64,
    /// Bytes per second that are written in pages; then `rate` says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<u64>,
    /// The hours in which that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Day>,
    /// Share of what is written that compression cannot save, in parts per million.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<u32>,
}

/// A promise with a time: each of these machines keeps order, and its lag is within the bound, at some moment
/// between two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// In words.
    pub text: String,
    /// The machines.
    pub machines: Vec<String>,
    /// Bound of the lag in milliseconds.
    pub lag_at_most: u64,
    /// From when on.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

/// Everything that varies in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Scenario name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Length of the safety phase in milliseconds.
    pub length: u64,
    /// Drawn variables, as text.
    pub drawn: BTreeMap<String, String>,
    /// Guests by machine.
    pub guests: BTreeMap<String, GuestPlan>,
    /// Events in order of time.
    pub events: Vec<Event>,
    /// Promises with a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub due: Vec<Due>,
}

impl Plan {
    /// Tells whether the source site is lost for good, so that nothing converges any more.
    pub fn loses_source(&self) -> bool {
        self.events.iter().any(|event| matches!(&event.action, Action::SiteLost(_)))
    }

    /// Tells whether what is left at rest is judged.
    pub fn checks_leftovers(&self) -> bool {
        self.events.iter().any(|event| event.action == Action::CheckLeftovers)
    }

    /// Returns what befalls objects of the vault before the last check, in order.
    pub fn damages(&self) -> Vec<(Part, Damage)> {
        let damage = |event: &Event| match event.action {
            Action::Damage(part, damage) => Some((part, damage)),
            _ => None,
        };
        self.events.iter().filter_map(damage).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}@{}: {} s of load and faults", self.scenario, self.seed, self.length as f64 / 1000.0)?;
        for (name, value) in &self.drawn {
            writeln!(f, "  ${name} = {value}")?;
        }
        for (machine, guest) in &self.guests {
            let rate = match guest.writes {
                Some(bytes) => {
                    let words = Range { low: bytes as i64, high: bytes as i64, unit: Unit::Bytes }.words();
                    let day = guest.day.map(|day| format!(" {day}")).unwrap_or_default();
                    format!("{words}/s{day}")
                }
                None => format!("{}/s", guest.rate),
            };
            writeln!(f, "  {machine}: {} at {rate}, {} at once", guest.model, guest.jobs)?;
        }
        for event in &self.events {
            writeln!(f, "  {:>9.3} s  {}", event.at as f64 / 1000.0, event.action)?;
        }
        Ok(())
    }
}
