//! Damage in the vault while the source is still there: its ranges are compared and sent again, points behind
//! that are whole, points before it stay as damaged as they are.

use super::{Lab, MACHINE, exact, pattern};
use bytes::Bytes;
use redoubt_core::{Extent, MarkerKind, SECTOR_BYTES, VolumeIndex};
use redoubt_ports::{InPlace, StoreKey};
use redoubt_vault::scrub::{Report, Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{MachineReader, PointId};
use std::sync::Arc;

const BYTES: usize = 2 << 20;

async fn scrub(lab: &Lab) -> Report {
    let store = Arc::clone(&lab.store);
    let scrub = Scrub::with_keys(store, lab.keys.clone(), Arc::new(InPlace), ScrubSettings::default());
    scrub.await.unwrap().machine(MACHINE, &ScrubWatch::default()).await.unwrap()
}

/// Flips a bit in the middle of the largest object of the vault; returns its name.
fn spoil(lab: &Lab) -> StoreKey {
    let store = lab.objects.as_ref();
    let largest = store.names().into_iter().max_by_key(|name| store.peek(name).unwrap().len()).unwrap();
    let mut bytes = store.peek(&largest).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    store.tamper(&largest, Some(Bytes::from(bytes)));
    largest
}

#[tokio::test(start_paused = true)]
async fn damaged_ranges_are_sent_again_and_later_points_are_whole() {
    let lab = Lab::new(BYTES as u64 / SECTOR_BYTES).await;
    let server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    let export = agent.export("root").unwrap();
    export.write(0, pattern(1, 3 << 19), false).await.unwrap();
    let old = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(old).await == lab.disk.content());
    // What the server read and keeps in memory must not hide what rots in the store afterwards (HA-3).
    let volume = agent.status().volumes[0].id;
    agent.resync(&[(volume, Extent::new(0, BYTES as u64 / SECTOR_BYTES))]).await.unwrap();
    exact(&agent).await;
    let spoilt = spoil(&lab);
    let report = scrub(&lab).await;
    let [damage] = &report.damage[..] else { panic!("one damaged unit: {:?}", report.damage) };
    assert_eq!(damage.object, spoilt.as_str());
    let Takes::Points(hits) = &damage.takes else { panic!("{damage:?}") };
    assert!(!hits.is_empty() && !damage.newest.is_empty(), "{damage:?}");

    let ranges = damage
        .newest
        .iter()
        .map(|(volume, range)| (report.volumes[volume], Extent::new(range.start, range.end - range.start)));
    let ranges: Vec<_> = ranges.collect();
    let lost: u64 = ranges.iter().map(|(_, extent)| extent.sectors.0).sum();
    assert_eq!(lost, 128, "one unit of 64 KiB");
    let before = agent.status().watermarks.issued();
    assert_eq!(agent.resync(&ranges).await.unwrap(), lost);
    assert!(agent.cut_marker(MarkerKind::Crash).await.is_err(), "no point is cut while a resync is open");
    exact(&agent).await;
    assert!(agent.status().watermarks.issued() > before);
    let new = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(new).await == lab.disk.content(), "the new point is whole and equal");

    let report = scrub(&lab).await;
    let [damage] = &report.damage[..] else { panic!("the object is as damaged as it was: {report:?}") };
    assert_eq!(damage.newest, [], "the newest state does not need it any more");
    let reader = MachineReader::open(&lab.vault, MACHINE).await.unwrap();
    let id = |marker| reader.points().iter().find(|point| point.marker.id == marker).unwrap().id;
    let (old, new): (PointId, PointId) = (id(old), id(new));
    let Takes::Points(hits) = &damage.takes else { panic!("{damage:?}") };
    assert!(hits.iter().any(|hit| (hit.first..=hit.last).contains(&old)), "the old point is not healed");
    assert!(!hits.iter().any(|hit| (hit.first..=hit.last).contains(&new)), "{hits:?}");
    drop((agent, server));
}

#[tokio::test(start_paused = true)]
async fn ranges_that_are_whole_are_compared_and_not_sent() {
    let lab = Lab::new(BYTES as u64 / SECTOR_BYTES).await;
    let _server = lab.server().await;
    let agent = lab.agent().await;
    exact(&agent).await;
    let export = agent.export("root").unwrap();
    export.write(0, pattern(1, 1 << 20), false).await.unwrap();
    let old = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    lab.point_content(old).await;
    let volume = agent.status().volumes[0].id;
    let all = Extent::new(0, u64::MAX / SECTOR_BYTES);
    let taken = agent.resync(&[(volume, all), (redoubt_core::VolumeId(1), all)]).await.unwrap();
    assert_eq!(taken, BYTES as u64 / SECTOR_BYTES, "what is no part of a volume is left out");
    let before = lab.objects.names().len();
    exact(&agent).await;
    let new = agent.cut_marker(MarkerKind::Crash).await.unwrap();
    assert!(lab.point_content(new).await == lab.disk.content());
    let reader = MachineReader::open(&lab.vault, MACHINE).await.unwrap();
    let id = |marker| reader.points().iter().find(|point| point.marker.id == marker).unwrap().id;
    let (old, new) = (reader.view(id(old)).unwrap(), reader.view(id(new)).unwrap());
    assert_eq!(new.changed(VolumeIndex(0), &old).await.unwrap(), [], "nothing was sent");
    assert!(lab.objects.names().len() > before);
}
