//! Maintainers that die, freeze and race: what the newest catalogues need is there, and nothing leaks.

#[path = "../../tests/support/mortal.rs"]
mod mortal;

use super::*;
use crate::writer::MachineWriter;
use crate::{MachineReader, MemStore, PointId, Vault, VaultKeys};
use mortal::Mortal;
use redoubt_core::change::ResyncReason;
use redoubt_core::maintenance::{PIN_DEAD_AFTER, Rule, Which};
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, Marker, MarkerId, MarkerKind, Record, Sectors,
    VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{RawStore, StoreKey};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

const MACHINE: MachineId = MachineId(7);
const VOLUME: VolumeIndex = VolumeIndex(0);
const SECTORS: u64 = 1024;

/// Numbers that never repeat.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash(&next.to_le_bytes());
        buffer.iter_mut().zip(hash.as_bytes().iter().cycle()).for_each(|(to, from)| *to = *from);
    }
}

fn entropy(seed: u64) -> Arc<Counting> {
    Arc::new(Counting(AtomicU64::new(seed << 32)))
}

fn keys() -> VaultKeys {
    VaultKeys::new([5; 32])
}

/// A log of `slots` commits with a point each; returns the images of the points.
async fn log(store: &Arc<MemStore>, slots: u64) -> Vec<(PointId, Vec<u8>)> {
    let vault = Vault::init(store.clone(), keys(), &*entropy(1)).await.unwrap();
    let mut writer = MachineWriter::claim(&vault, MACHINE, entropy(2)).await.unwrap();
    let attach = Change::Attach { volume: VOLUME, id: VolumeId(9), sectors: Sectors(SECTORS) };
    let begin = Change::ResyncBegin { reason: ResyncReason::Initial };
    let (mut seq, mut image, mut images) = (0, vec![0; SECTORS as usize * 512], Vec::new());
    for slot in 0..slots {
        let mut changes =
            if slot == 0 { vec![attach.clone(), begin.clone(), Change::ResyncEnd] } else { Vec::new() };
        for number in 0..3 {
            let first = (slot * 37 + number * 311) % (SECTORS - 8);
            let payload = vec![(slot * 3 + number + 1) as u8; 8 * 512];
            image[first as usize * 512..][..payload.len()].copy_from_slice(&payload);
            changes.push(Change::Write { volume: VOLUME, lba: Lba(first), payload: payload.into() });
        }
        let (id, wall) = (MarkerId(u128::from(slot) + 1), WallTime(slot));
        changes.push(Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }));
        let records = changes.into_iter().map(|change| {
            seq += 1;
            Record { seq: WriteSeq(seq), change }
        });
        let records = records.collect();
        let chain = Chain(*blake3::hash(&seq.to_le_bytes()).as_bytes());
        let to = BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain };
        let done = writer.commit(records, to).await.unwrap();
        images.push((done.points[0], image.clone()));
    }
    images
}

async fn keeping(store: Arc<dyn RawStore>, seed: u64, keep: Ladder) -> Maintainer {
    let vault = Vault::open(store, keys()).await.unwrap();
    let settings = MaintainerSettings { every: 1, keep, folds: false };
    Maintainer::claim(&vault, MACHINE, entropy(seed), settings).await.unwrap()
}

async fn maintainer(store: Arc<dyn RawStore>, seed: u64) -> Result<Maintainer, VaultError> {
    let vault = Vault::open(store, keys()).await.unwrap();
    Maintainer::claim(
        &vault,
        MACHINE,
        entropy(seed),
        MaintainerSettings { every: 1, ..MaintainerSettings::default() },
    )
    .await
}

/// Rounds of two slots each, from one slot to another.
async fn rounds(maintainer: &mut Maintainer, slots: Range<u64>) -> Result<(), VaultError> {
    for slot in slots.step_by(2) {
        while maintainer.round(slot, Times::default()).await?.is_some() {}
    }
    Ok(())
}

/// Checks that the newest three catalogues are readable as a whole; returns the tables that they know of.
async fn readable(store: &Arc<MemStore>) -> BTreeSet<StoreKey> {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let keys = KeyRing::open(&vault, MACHINE).await.unwrap();
    let index = StoredIndex::new(Log { vault: vault.clone(), machine: MACHINE, keys });
    let listed = vault.store.page(&names::catalogues(MACHINE), None, CATALOGUES_TRIED).await.unwrap();
    let mut known = BTreeSet::new();
    for (name, _) in listed {
        let version = names::catalogue_version(&name, MACHINE).unwrap();
        let catalogue = index.decoded(version).await.unwrap().unwrap().0;
        for (uuid, info) in &catalogue.tables {
            let table = names::table(MACHINE, info.epoch, *uuid);
            let bytes = store.peek(&table).unwrap_or_else(|| panic!("version {version} needs {table}"));
            assert_eq!(*blake3::hash(&bytes).as_bytes(), info.digest, "{table}");
            known.insert(table);
        }
        known.extend(catalogue.garbage.keys().flat_map(|object| object.names(MACHINE)));
    }
    known
}

async fn points_read(store: &Arc<MemStore>, images: &[(PointId, Vec<u8>)]) {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    assert_eq!(reader.findings(), []);
    let found: Vec<PointId> = reader.points().iter().map(|point| point.id).collect();
    assert_eq!(found, images.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    for (id, image) in images {
        let read = reader.view(*id).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
        assert!(read == *image, "point {id:?} reads as it was");
    }
}

fn tables(store: &MemStore) -> BTreeSet<StoreKey> {
    store.names().into_iter().filter(|name| name.as_str().contains("/idx/")).collect()
}

fn catalogues(store: &MemStore) -> usize {
    store.names().iter().filter(|name| name.as_str().contains("/cat/")).count()
}

#[tokio::test(start_paused = true)]
async fn a_maintainer_may_die_at_every_effect_and_the_next_one_leaves_no_orphan() {
    const SLOTS: u64 = 25;
    let whole = Arc::new(MemStore::new());
    let images = log(&whole, SLOTS).await;
    let mut is_done = false;
    for effects in 0..200 {
        let store = Arc::new(MemStore::new());
        whole.names().iter().for_each(|name| store.tamper(name, whole.peek(name)));
        let outcome = async {
            let mut mortal = maintainer(Mortal::new(&store, effects), 3).await?;
            rounds(&mut mortal, 2..SLOTS - 6).await
        };
        is_done = outcome.await.is_ok();
        readable(&store).await;
        points_read(&store, &images).await;
        let mut next = maintainer(store.clone(), 4).await.unwrap();
        rounds(&mut next, SLOTS - 6..SLOTS + 2).await.unwrap();
        let known = readable(&store).await;
        assert!(
            tables(&store).is_subset(&known),
            "after {effects} effects something is left that nobody knows"
        );
        assert!(catalogues(&store) <= 3);
        points_read(&store, &images).await;
        if is_done {
            break;
        }
    }
    assert!(is_done, "the sweep came to the end");
}

#[tokio::test(start_paused = true)]
async fn a_maintainer_that_was_frozen_before_it_deletes_deletes_nothing_that_is_needed() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 40).await;
    let gate = Arc::new(Semaphore::new(1));
    let mut old = maintainer(Mortal::gated(&store, &gate), 3).await.unwrap();
    let work = tokio::spawn(async move {
        let outcome = rounds(&mut old, 2..30).await;
        (old, outcome)
    });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!work.is_finished(), "it waits in front of a delete");
    let mut new = maintainer(store.clone(), 4).await.unwrap();
    rounds(&mut new, 2..36).await.unwrap();
    let before = readable(&store).await;
    gate.add_permits(1000);
    let (mut old, outcome) = work.await.unwrap();
    assert_eq!(outcome, Err(VaultError::Superseded { by: 2 }));
    assert_eq!(old.round(40, Times::default()).await, Err(VaultError::Superseded { by: 2 }), "for good");
    assert_eq!(readable(&store).await, before);
    let mut third = maintainer(store.clone(), 5).await.unwrap();
    rounds(&mut third, 36..42).await.unwrap();
    assert!(
        tables(&store).is_subset(&readable(&store).await),
        "uploads of the old one are collected in the end"
    );
    points_read(&store, &images).await;
}

#[tokio::test(start_paused = true)]
async fn a_maintainer_goes_on_behind_a_damaged_catalogue_and_forgets_no_garbage() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 30).await;
    let mut first = maintainer(store.clone(), 3).await.unwrap();
    rounds(&mut first, 2..20).await.unwrap();
    let newest = store.names().into_iter().find(|name| name.as_str().contains("/cat/")).unwrap();
    let mut bytes = store.peek(&newest).unwrap().to_vec();
    bytes[200] ^= 1;
    store.tamper(&newest, Some(bytes.into()));
    let mut second = maintainer(store.clone(), 4).await.unwrap();
    rounds(&mut second, 20..32).await.unwrap();
    let known = readable(&store).await;
    assert!(tables(&store).is_subset(&known));
    points_read(&store, &images).await;
    assert!(second.epoch() > first.epoch());
    assert_eq!(first.round(32, Times::default()).await, Err(VaultError::Superseded { by: second.epoch() }));
}

async fn listed(store: &Arc<MemStore>) -> Vec<u64> {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    reader.points().iter().map(|point| point.id.slot).collect()
}

#[tokio::test(start_paused = true)]
async fn points_go_as_the_ladder_says_but_pinned_ones_stay_and_their_content_never_changes() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 40).await;
    let rules = vec![Rule::Newest { count: 3, which: Which::Any }];
    let mut maintainer = keeping(store.clone(), 3, Ladder::new(rules)).await;
    rounds(&mut maintainer, 2..22).await.unwrap();
    assert_eq!(listed(&store).await[..3], [18, 19, 20], "and those of the log behind");
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let (point, image) = &images[17];
    assert_eq!(point.slot, 19);
    let gone = vault.pin(MACHINE, images[4].0, &*entropy(8)).await.unwrap_err();
    assert_eq!(gone, VaultError::NoPoint { slot: 6, ordinal: 0 });
    let mut pin = vault.pin(MACHINE, *point, &*entropy(9)).await.unwrap();
    for at in [22, 24] {
        rounds(&mut maintainer, at..at + 1).await.unwrap();
        pin.renew(&*entropy(10 + at)).await.unwrap();
    }
    rounds(&mut maintainer, 26..35).await.unwrap();
    assert_eq!(listed(&store).await[..4], [19, 32, 33, 34]);
    assert_eq!(vault.pins(MACHINE).await.unwrap(), [*point; 2], "the newest and the one before it");
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    let read = reader.view(*point).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
    assert!(read == *image, "the pinned point reads as it was");
    pin.remove().await.unwrap();
    rounds(&mut maintainer, 36..40).await.unwrap();
    assert_eq!(listed(&store).await[..3], [36, 37, 38]);
    assert_eq!(vault.pins(MACHINE).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_nobody_renews_is_removed_after_a_day_of_the_maintainers_own_time() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 30).await;
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let mut maintainer = keeping(store.clone(), 3, Ladder::new(Vec::new())).await;
    rounds(&mut maintainer, 2..11).await.unwrap();
    let point = images[8].0;
    drop(vault.pin(MACHINE, point, &*entropy(8)).await.unwrap());
    let late = |hours: u64| Times {
        now: Instant::default().after(PIN_DEAD_AFTER * hours as u32 / 24),
        ..Times::default()
    };
    for (slot, hours) in [(12, 0), (14, 23)] {
        maintainer.round(slot, late(hours)).await.unwrap();
        assert_eq!(listed(&store).await[..2], [point.slot, slot], "after {hours} hours");
    }
    maintainer.round(16, late(24)).await.unwrap();
    assert_eq!(vault.pins(MACHINE).await.unwrap(), []);
    assert_eq!(listed(&store).await[0], 16);
}

#[tokio::test(start_paused = true)]
async fn a_fold_moves_the_beginning_of_the_log_and_kept_points_read_as_they_were() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 40).await;
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let keep = Ladder::new(vec![Rule::Newest { count: 3, which: Which::Any }]);
    let settings = MaintainerSettings { every: 1, keep, folds: true };
    let mut maintainer = Maintainer::claim(&vault, MACHINE, entropy(3), settings).await.unwrap();
    rounds(&mut maintainer, 2..36).await.unwrap();
    let base = maintainer.base.as_ref().unwrap();
    let catalogue = &base.catalogue;
    assert!(catalogue.mark.slot > 20 && catalogue.mark.slot < catalogue.slot, "{:?}", catalogue.mark);
    assert!(catalogue.folds().count() > 0);
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    assert_eq!(reader.findings(), []);
    for point in reader.points() {
        let image = &images.iter().find(|(id, _)| *id == point.id).unwrap().1;
        let read = reader.view(point.id).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
        assert!(read == *image, "point {:?} reads as it was", point.id);
    }
}
