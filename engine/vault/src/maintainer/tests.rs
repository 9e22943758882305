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
const SECTORS: u64 = 256;

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
        if slot % 4 == 3 {
            let extent = Extent::new(slot * 53 % (SECTORS / 2), SECTORS / 3);
            image[extent.lba.0 as usize * 512..extent.end() as usize * 512].fill(0);
            changes.push(Change::WriteZeroes { volume: VOLUME, extent });
        }
        for number in 0..3 {
            let first = (slot * 37 + number * 311) % (SECTORS - 8) / 8 * 8;
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

/// Keeps the newest points, and one of sixteen before them; folds the rest.
async fn folder(store: Arc<dyn RawStore>, seed: u64) -> Result<Maintainer, VaultError> {
    let vault = Vault::open(store, keys()).await.unwrap();
    let (period, within) = (std::time::Duration::from_millis(16), std::time::Duration::from_hours(1));
    let rules = vec![Rule::Newest { count: 3, which: Which::Any }, Rule::Best { period, within }];
    let settings = MaintainerSettings { every: 1, keep: Ladder::new(rules), ..MaintainerSettings::default() };
    Maintainer::claim(&vault, MACHINE, entropy(seed), settings).await
}

async fn keeping(store: Arc<dyn RawStore>, seed: u64, keep: Ladder) -> Maintainer {
    let vault = Vault::open(store, keys()).await.unwrap();
    let settings = MaintainerSettings { every: 1, keep, folds: false, ..MaintainerSettings::default() };
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

/// Checks that the newest three catalogues are readable as a whole; returns the objects that they know of.
async fn readable(store: &Arc<MemStore>) -> BTreeSet<StoreKey> {
    readable_of(store, CATALOGUES_TRIED).await
}

/// As [`readable`], of the newest so many.
async fn readable_of(store: &Arc<MemStore>, newest: usize) -> BTreeSet<StoreKey> {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let keys = KeyRing::open(&vault, MACHINE).await.unwrap();
    let index = StoredIndex::new(Log { vault: vault.clone(), machine: MACHINE, keys: keys.clone() });
    let log = Log { vault: vault.clone(), machine: MACHINE, keys };
    let listed = vault.store.page(&names::catalogues(MACHINE), None, newest).await.unwrap();
    let mut known = BTreeSet::new();
    for (name, _) in listed {
        let version = names::catalogue_version(&name, MACHINE).unwrap();
        let catalogue = index.decoded(version).await.unwrap().unwrap().0;
        let mut need = |name: StoreKey, range: Option<(u64, u64)>, digest: [u8; 32]| {
            let bytes = store.peek(&name).unwrap_or_else(|| panic!("version {version} needs {name}"));
            let (from, to) = range.unwrap_or((0, bytes.len() as u64));
            assert_eq!(*blake3::hash(&bytes[from as usize..to as usize]).as_bytes(), digest, "{name}");
            known.insert(name);
        };
        for (uuid, info) in &catalogue.tables {
            need(names::table(MACHINE, info.epoch, *uuid), None, info.digest);
        }
        let mut rows = Vec::new();
        for info in catalogue.folds() {
            need(names::fold(MACHINE, info.epoch, info.uuid), None, info.digest);
            rows.extend(log.fold(info).await.unwrap().unwrap().rows);
        }
        crate::fold::gather(&log, catalogue.mark.tail(), u64::MAX, |row| rows.push(row)).await.unwrap();
        for row in rows {
            let (name, base) = row.place.object(MACHINE);
            need(name, Some((base, base + row.length)), row.digest);
        }
        known.extend(catalogue.garbage.keys().flat_map(|object| object.names(MACHINE)));
        known.extend((catalogue.mark.log_from()..=100).map(|slot| names::slot(MACHINE, slot)));
    }
    known
}

/// Checks that the points are those that were made.
async fn points_read(store: &Arc<MemStore>, images: &[(PointId, Vec<u8>)]) {
    let found = kept_points_read(store, images).await;
    assert_eq!(found, images.iter().map(|(id, _)| *id).collect::<Vec<_>>());
}

/// Checks that the points that are listed read as they did when they were made.
async fn kept_points_read(store: &Arc<MemStore>, images: &[(PointId, Vec<u8>)]) -> Vec<PointId> {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    assert_eq!(reader.findings(), []);
    let found: Vec<PointId> = reader.points().iter().map(|point| point.id).collect();
    for (id, image) in images.iter().filter(|(id, _)| found.contains(id)) {
        let read = reader.view(*id).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
        assert!(read == *image, "point {id:?} reads as it was");
    }
    found
}

/// What writers and maintainers put beside claims and catalogues.
fn uploads(store: &MemStore) -> BTreeSet<StoreKey> {
    let kinds = ["/idx/", "/fold/", "/seg/", "/cseg/", "/log/"];
    store.names().into_iter().filter(|name| kinds.iter().any(|kind| name.as_str().contains(kind))).collect()
}

fn log_slots(store: &MemStore) -> usize {
    store.names().iter().filter(|name| name.as_str().contains("/log/")).count()
}

fn catalogues(store: &MemStore) -> usize {
    store.names().iter().filter(|name| name.as_str().contains("/cat/")).count()
}

#[tokio::test]
async fn rounds_are_due_sooner_while_slots_are_large() {
    const SLOTS: u64 = 150;
    // A slot of the log has three entries at least.
    const ENTRIES: u64 = 40;
    let store = Arc::new(MemStore::new());
    log(&store, SLOTS).await;
    let vault = Vault::open(store, keys()).await.unwrap();
    let settings = MaintainerSettings { entries: ENTRIES, ..MaintainerSettings::default() };
    let mut maintainer = Maintainer::claim(&vault, MACHINE, entropy(3), settings).await.unwrap();
    let mut covered = Vec::new();
    for durable in 1..=SLOTS {
        covered.extend(maintainer.round(durable, Times::default()).await.unwrap());
    }
    assert_eq!(covered[0], INDEX_SLOTS, "nothing was known of the slots");
    let gaps: Vec<u64> = covered.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| (2..=ENTRIES / 3).contains(gap)), "{gaps:?}");
    // However large slots are, a round has one.
    maintainer.settings.entries = 1;
    let last = *covered.last().unwrap();
    assert_eq!(maintainer.round(last, Times::default()).await, Ok(None));
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
            uploads(&store).is_subset(&known),
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
        uploads(&store).is_subset(&readable(&store).await),
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
    assert!(uploads(&store).is_subset(&known));
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
async fn a_fold_moves_the_beginning_of_the_log_and_what_nobody_needs_goes() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 60).await;
    let mut maintainer = folder(store.clone(), 3).await.unwrap();
    rounds(&mut maintainer, 2..56).await.unwrap();
    let catalogue = &maintainer.base.as_ref().unwrap().catalogue;
    assert!(catalogue.mark.slot > 40 && catalogue.mark.slot < catalogue.slot, "{:?}", catalogue.mark);
    let known = readable(&store).await;
    assert!(uploads(&store).is_subset(&known));
    assert!(log_slots(&store) < 25, "{} slots are left of 62", log_slots(&store));
    let listed = kept_points_read(&store, &images).await;
    assert!((4..20).contains(&listed.len()), "{listed:?}");
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let mut writer = MachineWriter::claim(&vault, MACHINE, entropy(7)).await.unwrap();
    let head = writer.head().position;
    let change = Change::Marker(Marker { id: MarkerId(999), kind: MarkerKind::Crash, wall: WallTime(99) });
    let seq = WriteSeq(head.seq.0 + 1);
    let to = BatchPosition { seq, ..head };
    writer.commit(vec![Record { seq, change }], to).await.unwrap();
    assert_eq!(kept_points_read(&store, &images).await.len(), listed.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn a_folder_may_die_at_every_effect_and_the_next_one_leaves_no_orphan() {
    const SLOTS: u64 = 20;
    let whole = Arc::new(MemStore::new());
    let images = log(&whole, SLOTS).await;
    let mut is_done = false;
    for effects in 0..400 {
        let store = Arc::new(MemStore::new());
        whole.names().iter().for_each(|name| store.tamper(name, whole.peek(name)));
        let outcome = async {
            let mut mortal = folder(Mortal::new(&store, effects), 3).await?;
            rounds(&mut mortal, 2..SLOTS - 6).await
        };
        is_done = outcome.await.is_ok();
        readable(&store).await;
        kept_points_read(&store, &images).await;
        let mut next = folder(store.clone(), 4).await.unwrap();
        rounds(&mut next, SLOTS - 6..SLOTS + 2).await.unwrap();
        let known = readable(&store).await;
        let left: Vec<StoreKey> = uploads(&store).difference(&known).cloned().collect();
        assert_eq!(left, [], "after {effects} effects something is left that nobody knows");
        assert!(catalogues(&store) <= 3);
        assert!(kept_points_read(&store, &images).await.len() >= 3);
        if is_done {
            break;
        }
    }
    assert!(is_done, "the sweep came to the end");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_was_folded_away_is_refused_and_a_log_without_its_beginning_is_no_log() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 60).await;
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let early = MachineReader::open(&vault, MACHINE).await.unwrap();
    let view = early.view(images[20].0).unwrap();
    let mut maintainer = folder(store.clone(), 3).await.unwrap();
    rounds(&mut maintainer, 2..56).await.unwrap();
    let gone = view.read(VOLUME, Extent::new(0, SECTORS)).await.map(drop).unwrap_err();
    assert_eq!(gone, ReadError::GivenUp { slot: images[20].0.slot });
    let all: Vec<StoreKey> =
        store.names().into_iter().filter(|name| name.as_str().contains("/cat/")).collect();
    let spoil = |name: &StoreKey, at: usize| {
        let mut bytes = store.peek(name).unwrap().to_vec();
        bytes[at] ^= 1;
        store.tamper(name, Some(bytes.into()));
    };
    spoil(&all[0], 200);
    assert!(kept_points_on_older(&store, &images).await >= 3, "an older one serves");
    all[1..].iter().for_each(|name| spoil(name, 200));
    store.names().iter().filter(|name| name.as_str().contains("/fold/")).for_each(|name| spoil(name, 200));
    for opened in
        [MachineReader::open(&vault, MACHINE).await.map(drop), folder(store.clone(), 5).await.map(drop)]
    {
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("neither its 3 newest catalogues nor its folds"), "{error}");
    }
    // Its clear header is enough for a writer.
    MachineWriter::claim(&vault, MACHINE, entropy(7)).await.unwrap();
    all.iter().for_each(|name| spoil(name, 20));
    let error = MachineWriter::claim(&vault, MACHINE, entropy(8)).await.unwrap_err().to_string();
    assert!(error.contains("neither its 3 newest catalogues nor its folds"), "{error}");
}

async fn kept_points_on_older(store: &Arc<MemStore>, images: &[(PointId, Vec<u8>)]) -> usize {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    assert_eq!(reader.findings().len(), 1);
    for point in reader.points() {
        let image = &images.iter().find(|(id, _)| *id == point.id).unwrap().1;
        let read = reader.view(point.id).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
        assert!(read == *image);
    }
    reader.points().len()
}

#[tokio::test(start_paused = true)]
async fn damage_in_a_run_behind_the_mark_costs_no_point_and_the_next_version_repairs_it() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 60).await;
    let mut maintainer = folder(store.clone(), 3).await.unwrap();
    rounds(&mut maintainer, 2..54).await.unwrap();
    let catalogue = maintainer.base.as_ref().unwrap().catalogue.clone();
    let (folded, behind): (Vec<_>, Vec<_>) = catalogue.runs.iter().partition(|run| !run.folds.is_empty());
    let folded: BTreeSet<u128> = folded.iter().flat_map(|run| run.tables()).collect();
    for uuid in behind.iter().flat_map(|run| run.tables()).filter(|uuid| !folded.contains(uuid)) {
        store.tamper(&names::table(MACHINE, catalogue.tables[&uuid].epoch, uuid), None);
    }
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    for (id, image) in &images[54..] {
        let read = reader.view(*id).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
        assert!(read == *image);
    }
    let mut next = folder(store.clone(), 5).await.unwrap();
    for _ in 0..8 {
        let _ = next.round(60, Times::default()).await;
    }
    assert_eq!(next.round(60, Times::default()).await, Ok(None));
    assert!((4..20).contains(&kept_points_read(&store, &images).await.len()));
}

/// The names of all tables of a kind, folded or not, of the newest catalogue.
fn tables_of(catalogue: &Catalogue, is_folded: bool) -> BTreeSet<StoreKey> {
    let runs = catalogue.runs.iter().filter(|run| run.folds.is_empty() != is_folded);
    let uuids: BTreeSet<u128> = runs.flat_map(|run| run.tables()).collect();
    uuids.iter().map(|uuid| names::table(MACHINE, catalogue.tables[uuid].epoch, *uuid)).collect()
}

/// Checks that a damaged vault shows the same points as before, with a finding, and how a maintainer heals it.
async fn costs_nothing(store: &Arc<MemStore>, images: &[(PointId, Vec<u8>)], before: &[PointId], seed: u64) {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    let found: Vec<PointId> = reader.points().iter().map(|point| point.id).collect();
    assert_eq!(found, before);
    for id in before {
        let image = &images.iter().find(|(known, _)| known == id).unwrap().1;
        let read = reader.view(*id).unwrap().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
        assert!(read == *image, "{id:?}");
    }
    let read = reader.head_view().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
    assert!(read == images.last().unwrap().1);
    assert_ne!(reader.findings(), [], "it is told");
    let mut next = folder(store.clone(), seed).await.unwrap();
    for _ in 0..12 {
        let _ = next.round(60, Times::default()).await;
    }
    readable_of(store, 1).await;
    let healed = kept_points_read(store, images).await;
    assert!(healed.len() >= 3 && healed.last() == before.last(), "{healed:?}");
}

#[tokio::test(start_paused = true)]
async fn damage_of_folded_tables_costs_time_only_and_the_next_version_has_them_anew() {
    for step in [1, 2, 3] {
        let store = Arc::new(MemStore::new());
        let images = log(&store, 60).await;
        let mut maintainer = folder(store.clone(), 3).await.unwrap();
        rounds(&mut maintainer, 2..54).await.unwrap();
        let before = kept_points_read(&store, &images).await;
        let catalogue = maintainer.base.as_ref().unwrap().catalogue.clone();
        let folds = catalogue.folds().copied().collect::<Vec<_>>();
        let folds = futures::future::join_all(folds.iter().map(|info| maintainer.log.fold(info))).await;
        let zeros = folds.into_iter().map(|fold| fold.unwrap().unwrap().zeros.len()).sum::<usize>();
        assert!(zeros > 0, "some places show zeros");
        let folded = tables_of(&catalogue, true);
        assert!(!folded.is_empty() && !before.is_empty());
        for (at, name) in folded.iter().chain(&tables_of(&catalogue, false)).enumerate() {
            let mut bytes = store.peek(name).unwrap().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let damaged = match step {
                1 => Some(bytes.into()),
                2 => None,
                _ if at == 0 => Some(bytes[..40].to_vec().into()),
                _ => continue,
            };
            store.tamper(name, damaged);
        }
        costs_nothing(&store, &images, &before, 5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn folds_serve_without_any_catalogue_and_the_next_one_is_made_of_them() {
    for is_lost in [false, true] {
        let store = Arc::new(MemStore::new());
        let images = log(&store, 60).await;
        let mut maintainer = folder(store.clone(), 3).await.unwrap();
        rounds(&mut maintainer, 2..54).await.unwrap();
        let before = kept_points_read(&store, &images).await;
        let names = store.names();
        for name in names.iter().filter(|name| name.as_str().contains("/cat/")) {
            let mut bytes = store.peek(name).unwrap().to_vec();
            bytes[20] ^= 1;
            bytes[300] ^= 1;
            store.tamper(name, (!is_lost).then(|| bytes.into()));
        }
        // Points that were given up may come back, and those that were kept are there.
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        let found: Vec<PointId> = reader.points().iter().map(|point| point.id).collect();
        assert!(before.iter().all(|id| found.contains(id)), "{before:?} {found:?}");
        costs_nothing(&store, &images, &found, 5).await;
        let mut writer = MachineWriter::claim(&vault, MACHINE, entropy(7)).await.unwrap();
        let head = writer.head().position;
        let change =
            Change::Marker(Marker { id: MarkerId(999), kind: MarkerKind::Crash, wall: WallTime(99) });
        let seq = WriteSeq(head.seq.0 + 1);
        writer.commit(vec![Record { seq, change }], BatchPosition { seq, ..head }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_which_the_log_was_folded_goes_on_with_what_the_catalogue_says() {
    let store = Arc::new(MemStore::new());
    let images = log(&store, 30).await;
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
    let (at, mut writer) = (reader.slot(), MachineWriter::claim(&vault, MACHINE, entropy(7)).await.unwrap());
    for number in 0..30u128 {
        let head = writer.head().position;
        let kind = MarkerKind::Crash;
        let marker = Marker { id: MarkerId(1000 + number), kind, wall: WallTime(30 + number as u64) };
        let seq = WriteSeq(head.seq.0 + 1);
        let records = vec![Record { seq, change: Change::Marker(marker) }];
        writer.commit(records, BatchPosition { seq, ..head }).await.unwrap();
    }
    let mut maintainer = folder(store.clone(), 3).await.unwrap();
    rounds(&mut maintainer, 2..60).await.unwrap();
    assert_eq!(store.peek(&names::slot(MACHINE, at + 1)), None, "what comes next for the reader is gone");
    assert!(reader.refresh().await.unwrap() >= 30);
    assert_eq!(reader.points().last().map(|point| point.marker.id), Some(MarkerId(1029)));
    let read = reader.head_view().read(VOLUME, Extent::new(0, SECTORS)).await.unwrap();
    assert!(read == images.last().unwrap().1);
    assert_eq!(reader.refresh().await, Ok(0));
}
