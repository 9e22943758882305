//! `redoubt points`: what can be recovered.

use crate::cli::Points;
use crate::failure::Outcome;
use crate::output;
use crate::recovery::{self, point_name};
use crate::units::{show_duration, show_size, show_wall};
use redoubt_core::MarkerKind;
use redoubt_vault::{Held, PointInfo, Space, VaultError};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Serialize)]
struct PointsJson {
    machine: String,
    /// What it is called; empty if nobody said.
    name: String,
    points: Vec<PointJson>,
    /// Points that were left out, because fewer were asked for.
    hidden: usize,
    /// Points, of all of them, that came since retention looked last: its rules may not keep them.
    undecided: usize,
    /// How far back one can go, of all of them.
    #[serde(skip)]
    reach: String,
    /// What the machine takes; only if asked for.
    space: Option<SpaceJson>,
}

impl PointsJson {
    /// Keeps those since a time, and of them the last so many.
    fn of(
        (machine, name): (String, String),
        mut points: Vec<PointJson>,
        since: Option<u64>,
        last: Option<u64>,
        space: Option<SpaceJson>,
    ) -> PointsJson {
        let (all, reach) = (points.len(), reach(&points));
        let undecided = points.iter().filter(|point| !point.is_decided).count();
        points.retain(|point| since.is_none_or(|since| point.wall_ms >= since));
        let last = last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
        points.drain(..points.len().saturating_sub(last));
        let hidden = all - points.len();
        PointsJson { machine, name, points, hidden, undecided, reach, space }
    }
}

#[derive(Serialize)]
struct SpaceJson {
    log: HeldJson,
    segments: HeldJson,
    folds: HeldJson,
    index: HeldJson,
    other: HeldJson,
    /// What of all that retention has given up and that is deleted soon.
    given_up: HeldJson,
    total_bytes: u64,
    /// There is more that was not looked at.
    is_part: bool,
}

#[derive(Serialize)]
struct HeldJson {
    objects: u64,
    bytes: u64,
}

impl SpaceJson {
    fn of(space: &Space) -> SpaceJson {
        let Space { log, segments, folds, index, other, given_up, is_part } = *space;
        let held = |held: Held| HeldJson { objects: held.objects, bytes: held.bytes };
        SpaceJson {
            log: held(log),
            segments: held(segments),
            folds: held(folds),
            index: held(index),
            other: held(other),
            given_up: held(given_up),
            total_bytes: [log, segments, folds, index, other].iter().map(|held| held.bytes).sum(),
            is_part,
        }
    }
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
    /// Retention has given it up.
    is_given_up: bool,
    /// Retention has looked at it: if it is not given up, a rule keeps it.
    is_decided: bool,
    volumes: Vec<VolumeJson>,
}

#[derive(Serialize)]
struct VolumeJson {
    name: String,
    bytes: u64,
}

pub(crate) async fn run(args: Points) -> Outcome<()> {
    let recovery = recovery::open(&args.vault).await?;
    let mut points = recovery.reader.points();
    let retired = if args.all { recovery.reader.retired() } else { Vec::new() };
    let is_given_up = |point: &PointInfo| retired.iter().any(|retired| retired.id == point.id);
    points.extend(retired.iter().cloned());
    points.sort_by_key(|point| point.id);
    let pinned = recovery.vault.pins(recovery.machine).await?;
    let decided = recovery.reader.covered();
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
        is_given_up: is_given_up(point),
        is_decided: point.id.slot <= decided,
        volumes: volumes(point),
    });
    let space = match args.space {
        true => {
            let space = recovery.vault.space(recovery.machine, &recovery.reader.given_up()).await;
            Some(SpaceJson::of(&space.map_err(VaultError::from)?))
        }
        false => None,
    };
    let points: Vec<PointJson> = points.collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let since = args.since.map(|since| since.wall(now));
    let (machine, name) = (recovery.machine.to_string(), recovery.known.machine_name().to_owned());
    let list = PointsJson::of((machine, name), points, since, args.last, space);
    output::data(args.common.format, &list, table);
    recovery.done()
}

fn table(list: &PointsJson) -> String {
    if list.points.is_empty() && list.hidden == 0 {
        return format!("machine {} has no recovery point yet", list.machine);
    }
    let volumes = |point: &PointJson| {
        let volumes =
            point.volumes.iter().map(|volume| format!("{} ({})", volume.name, show_size(volume.bytes)));
        volumes.collect::<Vec<_>>().join(", ")
    };
    let row = |point: &PointJson| {
        let pinned = if point.pins > 0 { ", pinned" } else { "" };
        let given_up = if point.is_given_up { ", given up" } else { "" };
        let kind = format!("{:?}{pinned}{given_up}", point.kind).to_lowercase();
        let cells =
            [point.point.clone(), show_wall(point.wall_ms), kind, point.seq.to_string(), volumes(point)];
        cells.into_iter().map(output::Cell::from).collect()
    };
    let header = ["POINT", "TAKEN (UTC)", "KIND", ">SEQUENCE", "VOLUMES"];
    let mut text = match list.points.is_empty() {
        true => String::new(),
        false => output::table(&header, list.points.iter().map(row).collect()) + "\n\n",
    };
    if list.hidden > 0 {
        let (shown, all) = (list.points.len(), list.points.len() + list.hidden);
        text += &format!(" {shown} of {all} points; without --last and --since all are listed\n");
    }
    text += &format!("{}\n", list.reach);
    let came = match list.undecided {
        // The newest point stays, whatever the rules say.
        0 | 1 => String::new(),
        newer => {
            format!(" the newest {newer} points came since retention looked last: not all of them may stay\n")
        }
    };
    text += &came;
    if let Some(space) = &list.space {
        text += &format!("\n{}\n", show_space(space));
    }
    text
}

/// Says how far back one can go.
fn reach(points: &[PointJson]) -> String {
    let mut reachable = points.iter().filter(|point| !point.is_given_up);
    let Some(oldest) = reachable.next() else { return " no point can be reached".to_owned() };
    let newest = reachable.next_back().unwrap_or(oldest);
    let span = show_duration(Duration::from_millis(newest.wall_ms.saturating_sub(oldest.wall_ms)));
    let taken = show_wall(oldest.wall_ms);
    format!(" oldest reachable point {} of {taken} UTC, {span} before the newest", oldest.point)
}

fn show_space(space: &SpaceJson) -> String {
    let row = |(name, held): (&str, &HeldJson)| {
        vec![name.into(), show_size(held.bytes).into(), held.objects.to_string().into()]
    };
    let SpaceJson { log, segments, folds, index, other, .. } = space;
    let kinds = [("log", log), ("segments", segments), ("folds", folds), ("index", index), ("other", other)];
    let table = output::table(&["HELD BY", ">BYTES", ">OBJECTS"], kinds.map(row).into());
    let total = show_size(space.total_bytes);
    let more = if space.is_part { ", and more that was not counted" } else { "" };
    let given_up = match space.given_up.bytes {
        0 => String::new(),
        bytes => format!("; {} of it is given up and deleted soon", show_size(bytes)),
    };
    format!("{table}\n\n {total} in all{more}{given_up}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(slot: u64, is_given_up: bool) -> PointJson {
        PointJson {
            point: format!("{slot}.0"),
            marker: String::new(),
            kind: MarkerKind::Crash,
            wall_ms: 1_772_373_731_000 + slot * 60_000,
            seq: slot,
            pins: usize::from(slot == 3),
            is_given_up,
            is_decided: slot < 9,
            volumes: vec![VolumeJson { name: "erp".into(), bytes: 2 << 30 }],
        }
    }

    fn list(since: Option<u64>, last: Option<u64>, space: Option<SpaceJson>) -> PointsJson {
        let points = vec![point(2, true), point(3, false), point(9, false)];
        PointsJson::of(("0".repeat(32), String::new()), points, since, last, space)
    }

    #[test]
    fn points_that_were_given_up_are_shown_and_are_not_reachable() {
        let held = |objects, bytes| Held { objects, bytes };
        let space = Space {
            log: held(70, 9 << 20),
            segments: held(9, 7 << 30),
            folds: held(1, 1 << 10),
            index: held(4, 3 << 20),
            other: held(3, 400),
            given_up: held(2, 5 << 20),
            is_part: false,
        };
        insta::assert_snapshot!(table(&list(None, None, Some(SpaceJson::of(&space)))));
    }

    #[test]
    fn points_that_retention_has_not_looked_at_are_counted() {
        let mut points = vec![point(3, false), point(9, false), point(12, false)];
        points[2].is_decided = false;
        let list = PointsJson::of(("0".repeat(32), String::new()), points, None, Some(1), None);
        assert_eq!(list.undecided, 2, "of those that are not shown as well");
        let last = table(&list).lines().last().unwrap().to_owned();
        assert_eq!(last, " the newest 2 points came since retention looked last: not all of them may stay");
    }

    #[test]
    fn fewer_points_are_the_newest_and_what_is_hidden_is_said() {
        let at = |slot: u64| Some(1_772_373_731_000 + slot * 60_000);
        let names = |list: PointsJson| list.points.into_iter().map(|point| point.point).collect::<Vec<_>>();
        assert_eq!(names(list(at(3), None, None)), ["3.0", "9.0"]);
        assert_eq!(names(list(at(2), Some(1), None)), ["9.0"]);
        assert_eq!(names(list(None, Some(7), None)), ["2.0", "3.0", "9.0"]);
        insta::assert_snapshot!("last", table(&list(None, Some(1), None)));
        insta::assert_snapshot!("none_since", table(&list(at(10), None, None)));
    }
}
