//! The state of a service as an operator sees it: values, their table, and the verdict on health.
//!
//! Health, lag and the newest point are three different things, so all three are shown.

pub(crate) mod server;

use crate::output::{self, Cell, Tone};
use crate::recovery::point_name;
use crate::units::{show_size, show_wall};
use redoubt_vault::PointInfo;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Beyond this without a connection nobody can call it an interruption.
const DISCONNECTED_CRITICAL: Duration = Duration::from_secs(300);

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
}

/// What the stream can promise now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Ordered, in memory.
    Exact,
    /// Ordered, partly on the local disk.
    Spill,
    /// Order lost: only the places that differ are known.
    Bitmap,
    /// What differs is being copied.
    Resync,
}

/// A service at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    pub(crate) service: String,
    pub(crate) machine: String,
    pub(crate) generation: u64,
    pub(crate) health: Health,
    pub(crate) mode: Mode,
    /// Blocks done and in all, while resyncing.
    pub(crate) resync: Option<(u64, u64)>,
    pub(crate) connected: bool,
    /// Age of the oldest change that is not staged.
    pub(crate) lag_ms: u64,
    pub(crate) watermarks: WatermarksReport,
    pub(crate) memory_bytes: u64,
    pub(crate) spill_bytes: u64,
    pub(crate) hot_extents: u64,
    /// `None` if there is none, or if this service does not see the vault.
    pub(crate) newest_point: Option<PointReport>,
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

/// Judges a service.
pub(crate) fn health(mode: Mode, connected: bool, lag: Duration, has_error: bool) -> Health {
    match mode {
        Mode::Bitmap => Health::Critical,
        _ if !connected && lag >= DISCONNECTED_CRITICAL => Health::Critical,
        Mode::Resync | Mode::Spill => Health::Warning,
        Mode::Exact if !connected || has_error => Health::Warning,
        Mode::Exact => Health::Ok,
    }
}

/// Shows it to people.
pub(crate) fn show(report: &Report) -> String {
    match report {
        Report::Agent(report) => show_agent(report),
        Report::Server(report) => server::show(report),
    }
}

pub(crate) fn link_cell(is_up: bool) -> Cell {
    if is_up { "up".into() } else { Cell::toned("DOWN", Tone::Warning) }
}

fn show_agent(report: &StatusReport) -> String {
    let mode = match (report.mode, report.resync) {
        (Mode::Resync, Some((done, total))) if total > 0 => format!("resync {} %", done * 100 / total),
        (mode, _) => format!("{mode:?}").to_lowercase(),
    };
    let (point, taken) = show_point(report.newest_point.as_ref(), report.points.is_some());
    let points = report.points.map_or("-".to_owned(), |points| points.to_string());
    let lag = format!("{:.1} s", report.lag_ms as f64 / 1000.0);
    let head = output::table(
        &["HEALTH", "MODE", "LINK", ">LAG", ">POINTS", "NEWEST", "TAKEN (UTC)"],
        vec![vec![
            report.health.cell(),
            mode.into(),
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
            mode: Mode::Resync,
            resync: Some((62, 100)),
            connected: true,
            lag_ms: 1234,
            watermarks: WatermarksReport { issued: 40, sent: 30, staged: 20, vaulted: 10 },
            memory_bytes: 3 << 20,
            spill_bytes: 0,
            hot_extents: 7,
            newest_point: Some(PointReport { point: "17.0".into(), wall_ms: 1_772_373_731_000, seq: 9 }),
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
        for report in [Report::Agent(Box::new(report())), Report::Server(server::tests::report())] {
            let text = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        }
    }

    #[test]
    fn an_agent_without_sight_of_the_vault_says_so() {
        let mut report = report();
        (report.points, report.newest_point) = (None, None);
        assert!(show_agent(&report).contains("ask the process server"));
    }

    #[test]
    fn lost_order_is_critical_and_a_resync_is_not() {
        let none = Duration::ZERO;
        assert_eq!(health(Mode::Exact, true, none, false), Health::Ok);
        assert_eq!(health(Mode::Exact, true, none, true), Health::Warning);
        assert_eq!(health(Mode::Resync, true, none, false), Health::Warning);
        assert_eq!(health(Mode::Bitmap, true, none, false), Health::Critical);
        assert_eq!(health(Mode::Spill, false, DISCONNECTED_CRITICAL, false), Health::Critical);
    }
}
