//! The state of a service as an operator sees it: values, their table, and the verdict on health.
//!
//! Health, lag and the newest point are three different things, so all three are shown.

use crate::output;
use crate::units::{show_size, show_wall};
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
    pub(crate) points: u64,
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
pub(crate) fn show(report: &StatusReport) -> String {
    let mode = match (report.mode, report.resync) {
        (Mode::Resync, Some((done, total))) if total > 0 => format!("resync {} %", done * 100 / total),
        (mode, _) => format!("{mode:?}").to_lowercase(),
    };
    let health = match report.health {
        Health::Ok => "ok",
        Health::Warning => "WARNING",
        Health::Critical => "CRITICAL",
    };
    let point = match &report.newest_point {
        Some(point) => format!("{} ({})", show_wall(point.wall_ms), point.point),
        None => "none".to_owned(),
    };
    let link = if report.connected { "up" } else { "DOWN" };
    let lag = format!("{:.1} s", report.lag_ms as f64 / 1000.0);
    let marks = report.watermarks;
    let head = output::table(
        &["MODE", "HEALTH", "LINK", "LAG", "NEWEST POINT (UTC)", "POINTS"],
        vec![vec![mode, health.into(), link.into(), lag, point, report.points.to_string()]],
    );
    let volumes = report.volumes.iter().map(|v| vec![v.name.clone(), show_size(v.bytes), v.uri.clone()]);
    let volumes = output::table(&["VOLUME", "SIZE", "NBD"], volumes.collect());
    let mut text = format!(
        "{head}\n\n{volumes}\n\nmachine {}, generation {}; issued {}, sent {}, staged {}, vaulted {}; \
         {} in memory, {} spilled, {} hot extents\n",
        report.machine,
        report.generation,
        marks.issued,
        marks.sent,
        marks.staged,
        marks.vaulted,
        show_size(report.memory_bytes),
        show_size(report.spill_bytes),
        report.hot_extents
    );
    if let Some(error) = &report.last_error {
        text += &format!("trouble: {error}\n");
    }
    text
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
            points: 3,
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
        insta::assert_snapshot!(show(&report()));
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
