//! `redoubt points`: what can be recovered.

use crate::cli::Points;
use crate::failure::Outcome;
use crate::output;
use crate::recovery::{self, point_name};
use crate::units::{show_size, show_wall};
use redoubt_core::MarkerKind;
use serde::Serialize;

#[derive(Serialize)]
struct PointsJson {
    machine: String,
    /// What it is called; empty if nobody said.
    name: String,
    points: Vec<PointJson>,
}

#[derive(Serialize)]
struct PointJson {
    point: String,
    marker: String,
    kind: MarkerKind,
    wall_ms: u64,
    seq: u64,
    /// How often it is pinned: mounts and exports under way, or killed less than a day ago.
    pins: usize,
    volumes: Vec<VolumeJson>,
}

#[derive(Serialize)]
struct VolumeJson {
    name: String,
    bytes: u64,
}

pub(crate) async fn run(args: Points) -> Outcome<()> {
    let recovery = recovery::open(&args.vault).await?;
    let points = recovery.reader.points();
    let pinned = recovery.vault.pins(recovery.machine).await?;
    let volumes = |point| {
        let volumes = recovery.volumes(point).into_iter();
        volumes.map(|(_, name, bytes)| VolumeJson { name, bytes }).collect()
    };
    let points = points.iter().map(|point| PointJson {
        point: point_name(point),
        marker: point.marker.id.to_string(),
        kind: point.marker.kind,
        wall_ms: point.marker.wall.0,
        seq: point.seq.0,
        pins: pinned.iter().filter(|pinned| **pinned == point.id).count(),
        volumes: volumes(point),
    });
    let list = PointsJson {
        machine: recovery.machine.to_string(),
        name: recovery.known.machine_name().to_owned(),
        points: points.collect(),
    };
    output::data(args.common.format, &list, table);
    recovery.done()
}

fn table(list: &PointsJson) -> String {
    if list.points.is_empty() {
        return format!("machine {} has no recovery point yet", list.machine);
    }
    let volumes = |point: &PointJson| {
        let volumes =
            point.volumes.iter().map(|volume| format!("{} ({})", volume.name, show_size(volume.bytes)));
        volumes.collect::<Vec<_>>().join(", ")
    };
    let row = |point: &PointJson| {
        let pinned = if point.pins > 0 { ", pinned" } else { "" };
        let kind = format!("{:?}{pinned}", point.kind).to_lowercase();
        let cells =
            [point.point.clone(), show_wall(point.wall_ms), kind, point.seq.to_string(), volumes(point)];
        cells.into_iter().map(output::Cell::from).collect()
    };
    output::table(
        &["POINT", "TAKEN (UTC)", "KIND", ">SEQUENCE", "VOLUMES"],
        list.points.iter().map(row).collect(),
    )
}
