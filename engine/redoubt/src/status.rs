//! The state of a service as an operator sees it: values, their table, and the verdict on health.
//!
//! Health, lag and the newest point are three different things, so all three are shown.

pub(crate) mod check;
pub(crate) mod mount;
pub(crate) mod server;

use crate::output::{self, Cell, Tone};
use crate::recovery::point_name;
use crate::units::{show_duration, show_size, show_wall};
use redoubt_vault::PointInfo;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Beyond this without a connection nobody can call it an interruption.
const DISCONNECTED_CRITICAL: Duration = Duration::from_secs(300);
/// A point that is due may be this late before anybody is told: its way into the vault.
const POINT_GRACE: Duration = Duration::from_secs(10);

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// Every write is on its way, in order.
    Ok,
    /// Protected, but not as promised; look at it today.
    Warning,
    /// No new recovery point will come without change; look at it now.
    Critical,
}

impl Health {
    pub(crate) fn cell(self) -> Cell {
        match self {
            Health::Ok => Cell::toned("ok", Tone::Good),
            Health::Warning => Cell::toned("WARNING", Tone::Warning),
            Health::Critical => Cell::toned("CRITICAL", Tone::Bad),
        }
    }
}

/// What a service answers: the reports of agents and process servers have no field that differs only in
/// meaning, so programs tell them apart by `service` as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Report {
    /// `up` and `agent`.
    Agent(Box<StatusReport>),
    /// `process-server`.
    Server(server::ServerReport),
    /// `mount`, asked by the directory of its cache.
    Mount(mount::MountReport),
}

/// What the stream can promise now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StreamState {
    /// Every change is on its way in order, and the vault holds the source as it was.
    Protected,
    /// The same, partly on the local disk.
    Spilling,
    /// Order lost: only the places that differ are known.
    Bitmap,
    /// What differs is being copied.
    Resync,
    /// The first copy is not complete.
    InitialReplication,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgressReport {
    /// Below 100 until the end of the copy is in the vault.
    pub(crate) percent: u64,
    /// Blocks of 64 KiB that are settled.
    pub(crate) blocks_done: u64,
    /// Blocks that were to be settled.
    pub(crate) blocks_total: u64,
}

impl ProgressReport {
    pub(crate) fn new(blocks_done: u64, blocks_total: u64) -> ProgressReport {
        let percent = (blocks_done * 100).checked_div(blocks_total).unwrap_or(0).min(99);
        ProgressReport { percent, blocks_done, blocks_total }
    }
}

/// What the newest first copy or resync since the start did, in bytes of whole blocks of 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyReport {
    /// Asked of the vault.
    pub(crate) compared_bytes: u64,
    /// Found different and sent.
    pub(crate) sent_bytes: u64,
    /// Found equal.
    pub(crate) equal_bytes: u64,
}

/// A service at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    pub(crate) service: String,
    pub(crate) machine: String,
    pub(crate) generation: u64,
    pub(crate) health: Health,
    pub(crate) state: StreamState,
    /// How far the copy is; `None` unless there is one.
    pub(crate) progress: Option<ProgressReport>,
    /// What the newest copy did; `None` if there was none since the start.
    pub(crate) copy: Option<CopyReport>,
    pub(crate) connected: bool,
    /// Age of the oldest change that is not staged; `None` while no order is promised.
    pub(crate) lag_ms: Option<u64>,
    /// The promise: time between two recovery points.
    pub(crate) rpo_ms: u64,
    pub(crate) watermarks: WatermarksReport,
    pub(crate) memory_bytes: u64,
    pub(crate) spill_bytes: u64,
    pub(crate) hot_extents: u64,
    /// `None` if there is none, or if this service does not see the vault.
    pub(crate) newest_point: Option<PointReport>,
    /// How far back one can go.
    pub(crate) oldest_point: Option<PointReport>,
    /// Recovery points in the vault; `None` if this service does not see it.
    pub(crate) points: Option<u64>,
    pub(crate) volumes: Vec<VolumeReport>,
    pub(crate) last_error: Option<String>,
}

/// The last sequence that reached each hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatermarksReport {
    pub(crate) issued: u64,
    pub(crate) sent: u64,
    pub(crate) staged: u64,
    pub(crate) vaulted: u64,
}

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PointReport {
    pub(crate) point: String,
    pub(crate) wall_ms: u64,
    pub(crate) seq: u64,
}

impl PointReport {
    pub(crate) fn of(point: &PointInfo) -> PointReport {
        PointReport { point: point_name(point), wall_ms: point.marker.wall.0, seq: point.seq.0 }
    }
}

/// A protected disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeReport {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) uri: String,
}

/// What the verdict is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) state: StreamState,
    pub(crate) connected: bool,
    /// Age of the oldest change that the process server does not hold.
    pub(crate) unstaged: Duration,
    /// The promise: time between two recovery points.
    pub(crate) rpo: Duration,
    /// Age of the newest point, `Some(None)` if there is none; `None` if this service does not see the vault.
    pub(crate) point_age: Option<Option<Duration>>,
    /// Something is wrong that has not ended.
    pub(crate) has_trouble: bool,
}

/// Judges a service: ok only while the whole promise is kept.
pub(crate) fn health(facts: Facts) -> Health {
    let overdue = facts.rpo * 2 + POINT_GRACE;
    let has_points = facts.point_age.is_none_or(|age| age.is_some_and(|age| age <= overdue));
    match facts.state {
        StreamState::Bitmap => Health::Critical,
        _ if !facts.connected && facts.unstaged >= DISCONNECTED_CRITICAL => Health::Critical,
        StreamState::Protected
            if facts.connected && !facts.has_trouble && has_points && facts.unstaged <= facts.rpo =>
        {
            Health::Ok
        }
        _ => Health::Warning,
    }
}

fn show_state(state: StreamState, progress: Option<ProgressReport>) -> String {
    let words = match state {
        StreamState::Protected => "protected",
        StreamState::Spilling => "spilling",
        StreamState::Bitmap => "order lost",
        StreamState::Resync => "resync",
        StreamState::InitialReplication => "initial replication",
    };
    match progress {
        Some(progress) => format!("{words} {} %", progress.percent),
        None => words.to_owned(),
    }
}

/// Shows it to people.
pub(crate) fn show(report: &Report) -> String {
    match report {
        Report::Agent(report) => show_agent(report),
        Report::Server(report) => server::show(report),
        Report::Mount(report) => mount::show(report),
    }
}

pub(crate) fn link_cell(is_up: bool) -> Cell {
    if is_up { "up".into() } else { Cell::toned("DOWN", Tone::Warning) }
}

fn show_agent(report: &StatusReport) -> String {
    let (point, mut taken) = show_point(report.newest_point.as_ref(), report.points.is_some());
    if report.service == "up" && report.points.is_none() {
        taken = "the vault is away".to_owned();
    }
    let points = report.points.map_or("-".to_owned(), |points| points.to_string());
    let lag = report.lag_ms.map_or("--".to_owned(), |lag| show_duration(Duration::from_millis(lag)));
    let lag = format!("{lag} / {}", show_duration(Duration::from_millis(report.rpo_ms)));
    let head = output::table(
        &["HEALTH", "STATE", "LINK", ">LAG / RPO", ">POINTS", "NEWEST", "TAKEN (UTC)"],
        vec![vec![
            report.health.cell(),
            show_state(report.state, report.progress).into(),
            link_cell(report.connected),
            lag.into(),
            points.into(),
            point.into(),
            taken.into(),
        ]],
    );
    let volume =
        |v: &VolumeReport| vec![v.name.clone().into(), show_size(v.bytes).into(), v.uri.clone().into()];
    let volumes = output::table(&["VOLUME", ">SIZE", "NBD"], report.volumes.iter().map(volume).collect());
    let marks = report.watermarks;
    let numbers = [marks.issued, marks.sent, marks.staged, marks.vaulted].map(|mark| mark.to_string());
    let held =
        [show_size(report.memory_bytes), show_size(report.spill_bytes), report.hot_extents.to_string()];
    let stream = output::table(
        &[">ISSUED", ">SENT", ">STAGED", ">VAULTED", ">IN MEMORY", ">SPILLED", ">HOT EXTENTS"],
        vec![numbers.into_iter().chain(held).map(Cell::from).collect()],
    );
    let mut text = format!(
        "{head}\n\n{volumes}\n\n{stream}\n\n machine {}, generation {}\n",
        report.machine, report.generation
    );
    if let Some(oldest) = &report.oldest_point {
        text += &format!(" oldest reachable point: {} of {} UTC\n", oldest.point, show_wall(oldest.wall_ms));
    }
    if let Some(copy) = &report.copy {
        let (compared, sent) = (show_size(copy.compared_bytes), show_size(copy.sent_bytes));
        text += &format!(" newest copy: {compared} compared, {sent} sent\n");
    }
    if let Some(error) = &report.last_error {
        text += &format!(" trouble: {error}\n");
    }
    text
}

/// Returns the name and the time of a newest point.
pub(crate) fn show_point(point: Option<&PointReport>, is_vault_seen: bool) -> (String, String) {
    match point {
        Some(point) => (point.point.clone(), show_wall(point.wall_ms)),
        None if is_vault_seen => ("none".to_owned(), "-".to_owned()),
        // The vault is the process server's.
        None => ("-".to_owned(), "ask the process server".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> StatusReport {
        StatusReport {
            service: "up".into(),
            machine: "0123456789abcdef0123456789abcdef".into(),
            generation: 2,
            health: Health::Warning,
            state: StreamState::Resync,
            progress: Some(ProgressReport::new(62, 100)),
            copy: Some(CopyReport { compared_bytes: 70 << 20, sent_bytes: 2 << 20, equal_bytes: 60 << 20 }),
            connected: true,
            lag_ms: None,
            rpo_ms: 300_000,
            watermarks: WatermarksReport { issued: 40, sent: 30, staged: 20, vaulted: 10 },
            memory_bytes: 3 << 20,
            spill_bytes: 0,
            hot_extents: 7,
            newest_point: Some(PointReport { point: "17.0".into(), wall_ms: 1_772_373_731_000, seq: 9 }),
            oldest_point: Some(PointReport { point: "4.0".into(), wall_ms: 1_772_371_731_000, seq: 2 }),
            points: Some(3),
            volumes: vec![VolumeReport {
                name: "erp".into(),
                bytes: 2 << 30,
                uri: "nbd+unix:///erp?socket=/tmp/erp.sock".into(),
            }],
            last_error: Some("the link is slow".into()),
        }
    }

    #[test]
    fn a_status_is_shown_in_one_glance() {
        insta::assert_snapshot!(show_agent(&report()));
    }

    #[test]
    fn a_report_reads_back_as_what_it_is() {
        let (server, mount) =
            (Report::Server(server::tests::report()), Report::Mount(mount::tests::report()));
        for report in [Report::Agent(Box::new(report())), server, mount] {
            let text = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        }
    }

    #[test]
    fn an_agent_without_sight_of_the_vault_says_so() {
        let mut report = report();
        (report.points, report.newest_point) = (None, None);
        assert!(show_agent(&report).contains("the vault is away"));
        report.service = "agent".to_owned();
        assert!(show_agent(&report).contains("ask the process server"));
    }

    #[test]
    fn a_protected_machine_shows_its_lag_beside_the_promise() {
        let mut report = report();
        report.state = StreamState::Protected;
        (report.progress, report.lag_ms, report.last_error) = (None, Some(1234), None);
        report.health = Health::Ok;
        insta::assert_snapshot!(show_agent(&report));
    }

    #[test]
    fn a_copy_is_never_shown_as_complete() {
        assert_eq!(ProgressReport::new(100, 100).percent, 99);
        assert_eq!(ProgressReport::new(0, 0).percent, 0);
        let state = show_state(StreamState::InitialReplication, Some(ProgressReport::new(5, 8)));
        assert_eq!(state, "initial replication 62 %");
    }

    #[test]
    fn health_is_ok_only_while_the_promise_is_kept() {
        let rpo = Duration::from_secs(300);
        let kept = Facts {
            state: StreamState::Protected,
            connected: true,
            unstaged: Duration::ZERO,
            rpo,
            point_age: Some(Some(rpo)),
            has_trouble: false,
        };
        assert_eq!(health(kept), Health::Ok);
        assert_eq!(health(Facts { point_age: None, ..kept }), Health::Ok);
        for broken in [
            Facts { connected: false, ..kept },
            Facts { has_trouble: true, ..kept },
            Facts { point_age: Some(None), ..kept },
            Facts { point_age: Some(Some(rpo * 3)), ..kept },
            Facts { unstaged: rpo * 2, ..kept },
            Facts { state: StreamState::Resync, ..kept },
            Facts { state: StreamState::InitialReplication, ..kept },
            Facts { state: StreamState::Spilling, ..kept },
        ] {
            assert_eq!(health(broken), Health::Warning, "{broken:?}");
        }
        assert_eq!(health(Facts { state: StreamState::Bitmap, ..kept }), Health::Critical);
        let cut = Facts { connected: false, unstaged: DISCONNECTED_CRITICAL, ..kept };
        assert_eq!(health(cut), Health::Critical);
    }
}
