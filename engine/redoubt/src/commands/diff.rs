//! `redoubt diff`: where two recovery points of a machine differ, without reading their content.

use crate::cli::Diff;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{self, Cell};
use crate::recovery::{self, Recovery, point_name};
use crate::units::{show_size, show_wall};
use redoubt_core::{Extent, SECTOR_BYTES, VolumeIndex};
use redoubt_vault::PointInfo;
use serde::Serialize;

#[derive(Serialize)]
struct DiffJson {
    a: PointJson,
    b: PointJson,
    changed_bytes: u64,
    volumes: Vec<VolumeJson>,
}

#[derive(Serialize)]
struct PointJson {
    point: String,
    wall_ms: u64,
    seq: u64,
}

#[derive(Serialize)]
struct VolumeJson {
    name: String,
    /// `None`: the volume does not exist at that point.
    bytes_a: Option<u64>,
    bytes_b: Option<u64>,
    changed_bytes: u64,
    ranges: Vec<RangeJson>,
}

#[derive(Serialize)]
struct RangeJson {
    offset: u64,
    bytes: u64,
}

impl From<&PointInfo> for PointJson {
    fn from(point: &PointInfo) -> PointJson {
        PointJson { point: point_name(point), wall_ms: point.marker.wall.0, seq: point.seq.0 }
    }
}

pub(crate) async fn run(args: Diff) -> Outcome<()> {
    let recovery = recovery::open(&args.vault).await?;
    let (a, b) = (recovery.point(&args.a)?, recovery.point(&args.b)?);
    let mut volumes = Vec::new();
    for (index, name) in volumes_of(&recovery, &a, &b, args.volume.as_deref())? {
        volumes.push(compare(&recovery, (&a, &b), (index, name), args.merge).await?);
    }
    let changed_bytes = volumes.iter().map(|volume| volume.changed_bytes).sum();
    let diff = DiffJson { a: (&a).into(), b: (&b).into(), changed_bytes, volumes };
    output::data(args.common.format, &diff, show);
    recovery.done()
}

/// The volumes of either point, or the one that is asked for.
fn volumes_of(
    recovery: &Recovery,
    a: &PointInfo,
    b: &PointInfo,
    wanted: Option<&str>,
) -> Outcome<Vec<(VolumeIndex, String)>> {
    if let Some(name) = wanted {
        let found = recovery.known.find(b, wanted).or_else(|_| recovery.known.find(a, wanted));
        return found.map(|found| vec![found]).map_err(|failure| Failure {
            what: format!("neither point holds a volume {name:?}"),
            ..failure
        });
    }
    let mut volumes: Vec<(VolumeIndex, String)> = Vec::new();
    for (index, name, _) in recovery.volumes(b).into_iter().chain(recovery.volumes(a)) {
        if !volumes.iter().any(|(known, _)| *known == index) {
            volumes.push((index, name));
        }
    }
    volumes.sort();
    Ok(volumes)
}

async fn compare(
    recovery: &Recovery,
    (a, b): (&PointInfo, &PointInfo),
    (index, name): (VolumeIndex, String),
    merge: u64,
) -> Outcome<VolumeJson> {
    let (of_a, of_b) = (a.volumes.get(&index), b.volumes.get(&index));
    if let (Some(one), Some(other)) = (of_a, of_b)
        && one.id != other.id
    {
        let what = format!("volume {} was replaced by {name} between the points", one.id);
        return Err(Failure::new(Exit::Refused, what).hint("compare points on the same side of that change"));
    }
    let changed = recovery.reader.view(a.id)?.changed(index, &recovery.reader.view(b.id)?).await?;
    let ranges = merged(&changed, merge);
    let bytes = |info: &redoubt_vault::VolumeInfo| info.sectors.bytes();
    Ok(VolumeJson {
        name,
        bytes_a: of_a.map(bytes),
        bytes_b: of_b.map(bytes),
        changed_bytes: ranges.iter().map(|range| range.bytes).sum(),
        ranges,
    })
}

/// Merges ranges with less than `gap` bytes between them.
fn merged(changed: &[Extent], gap: u64) -> Vec<RangeJson> {
    let mut ranges: Vec<RangeJson> = Vec::new();
    for extent in changed {
        let (offset, bytes) = (extent.lba.0 * SECTOR_BYTES, extent.sectors.0 * SECTOR_BYTES);
        match ranges.last_mut() {
            Some(last) if offset - (last.offset + last.bytes) < gap => {
                last.bytes = offset + bytes - last.offset
            }
            _ => ranges.push(RangeJson { offset, bytes }),
        }
    }
    ranges
}

fn show(diff: &DiffJson) -> String {
    let point = |point: &PointJson| format!("{} of {} UTC", point.point, show_wall(point.wall_ms));
    let mut text = format!(" A: {}\n B: {}\n\n", point(&diff.a), point(&diff.b));
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), show_size);
    let row = |volume: &VolumeJson| -> Vec<Cell> {
        let cells = [
            volume.name.clone(),
            size(volume.bytes_a),
            size(volume.bytes_b),
            show_size(volume.changed_bytes),
            volume.ranges.len().to_string(),
        ];
        cells.into_iter().map(Cell::from).collect()
    };
    let header = ["VOLUME", ">SIZE IN A", ">SIZE IN B", ">CHANGED", ">RANGES"];
    text += &output::table(&header, diff.volumes.iter().map(row).collect());
    let rows = diff.volumes.iter().flat_map(|volume| {
        volume.ranges.iter().map(|range| {
            let cells = [volume.name.clone(), range.offset.to_string(), show_size(range.bytes)];
            cells.into_iter().map(Cell::from).collect()
        })
    });
    let rows: Vec<Vec<Cell>> = rows.collect();
    if rows.is_empty() {
        return text + "\n\n nothing was written between the two points";
    }
    text + "\n\n" + &output::table(&["VOLUME", ">FROM BYTE", ">LENGTH"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(ranges: Vec<RangeJson>) -> DiffJson {
        let point = |point: &str, wall_ms| PointJson { point: point.into(), wall_ms, seq: 7 };
        let changed_bytes = ranges.iter().map(|range| range.bytes).sum();
        let (name, bytes_a, bytes_b) = ("erp".to_owned(), Some(1 << 30), Some(2 << 30));
        let volumes = vec![VolumeJson { name, bytes_a, bytes_b, changed_bytes, ranges }];
        let (a, b) = (point("3.0", 1_772_373_731_000), point("17.1", 1_772_377_331_000));
        DiffJson { a, b, changed_bytes, volumes }
    }

    #[test]
    fn a_difference_is_shown_with_totals_and_ranges() {
        let changed = [Extent::new(0, 1), Extent::new(2, 2), Extent::new(2048, 128)];
        insta::assert_snapshot!(show(&diff(merged(&changed, 0))));
        assert!(show(&diff(Vec::new())).contains("nothing was written"));
    }

    #[test]
    fn ranges_that_are_near_are_given_as_one() {
        let changed = [Extent::new(0, 1), Extent::new(2, 2), Extent::new(9, 1)];
        let sizes =
            |gap| merged(&changed, gap).iter().map(|range| (range.offset, range.bytes)).collect::<Vec<_>>();
        assert_eq!(sizes(0), [(0, 512), (1024, 1024), (4608, 512)]);
        assert_eq!(sizes(513), [(0, 2048), (4608, 512)]);
        assert_eq!(sizes(1 << 20), [(0, 5120)]);
    }
}
