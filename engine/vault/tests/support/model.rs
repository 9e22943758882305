//! The model property: histories through racing, restarting writers over a lying store.
//!
//! Invariants
//! - I1 What was acknowledged is in every later head.
//! - I3 Every point, and the head, reads as the oracle's images.
//! - I6 No older writer acknowledges after a newer one.
//!
//! Maintainers race as the writers do; what a reader shows must not depend on them.

use super::{Faulty, Oracle, Seeded, run};
use redoubt_core::change::ResyncReason;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_vault::{
    CommitError, MachineReader, MachineWriter, Maintainer, MaintainerSettings, PointView, Times, Vault,
    VaultError, VaultKeys, WriterSettings,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const MACHINE: MachineId = MachineId(7);
const SECTORS_MAX: u64 = 700;
/// More than 64 granules of 128 sectors: zeros over all of it are indexed as one.
const SECTORS_WIDE: u64 = 70 * 128 + 5;

/// What a schedule runs with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Faults of the store, per hundred calls.
    pub(crate) percent: u64,
    /// Process servers that race.
    pub(crate) writers: u64,
    /// Changes after the volumes are attached.
    pub(crate) length: u64,
    /// Whether volume 0 is large and sees zeros over most of it.
    pub(crate) wide: bool,
}

/// Picks limits so that every way to cut a commit into objects occurs.
pub(crate) fn settings(dice: &Seeded) -> WriterSettings {
    let pick = |values: &[usize]| values[dice.below(values.len() as u64) as usize];
    let inline_bytes = pick(&[0, 1 << 10, 8 << 10, 4 << 20]);
    WriterSettings {
        inline_bytes,
        segment_bytes: pick(&[1, 2 << 10, 16 << 10, 100 << 10, 16 << 20]),
        key_units: [2, 9, u64::MAX][dice.below(3) as usize],
    }
}

/// Makes a legal history.
pub(crate) fn history(dice: &Seeded, shape: Shape) -> Vec<Record> {
    let mut sizes = [if shape.wide { SECTORS_WIDE } else { 600 }, 300];
    let mut ids = [1u128, 2];
    let mut changes: Vec<Change> = (0..2u16)
        .map(|volume| Change::Attach {
            volume: VolumeIndex(volume),
            id: VolumeId(ids[usize::from(volume)]),
            sectors: Sectors(sizes[usize::from(volume)]),
        })
        .collect();
    changes.push(Change::ResyncBegin { reason: ResyncReason::Initial });
    for at in 0..shape.length {
        let which = dice.below(2) as usize;
        let volume = VolumeIndex(which as u16);
        let first = dice.below(sizes[which]);
        let sectors = 1 + dice.below((sizes[which] - first).min(if dice.chance(10) { 400 } else { 12 }));
        let extent = Extent::new(first, sectors);
        let zeroed = if shape.wide && dice.chance(40) {
            let from = dice.below(sizes[which].min(300));
            Extent::new(from, sizes[which] - from - dice.below((sizes[which] - from).min(300)))
        } else {
            extent
        };
        let byte = dice.below(250) as u8;
        let payload: Vec<u8> =
            (0..extent.bytes()).map(|i| byte.wrapping_mul(((i >> 9) as u8).wrapping_add(1))).collect();
        let (lba, payload) = (Lba(first), payload.into());
        changes.push(match dice.below(20) {
            0..=8 => Change::Write { volume, lba, payload },
            9 => Change::ResyncWrite { volume, lba, payload },
            10 => Change::WriteZeroes { volume, extent: zeroed },
            11 => Change::Trim { volume, extent: zeroed },
            12 => Change::ResyncZeroes { volume, extent: zeroed },
            13 => {
                let wide = shape.wide && which == 0 && dice.chance(70);
                sizes[which] = if wide { SECTORS_WIDE } else { 1 + dice.below(SECTORS_MAX) };
                let sectors = Sectors(sizes[which]);
                match dice.below(4) {
                    // Announced again as the same volume, or as another one in its place.
                    0 => Change::Attach { volume, id: VolumeId(ids[which]), sectors },
                    1 => {
                        ids[which] += 2;
                        Change::Attach { volume, id: VolumeId(ids[which]), sectors }
                    }
                    _ => Change::Resize { volume, sectors },
                }
            }
            14 if dice.chance(30) => Change::ResyncBegin { reason: ResyncReason::Overflow },
            14 | 15 => Change::ResyncEnd,
            _ => {
                let (id, wall) = (MarkerId(u128::from(at) + 1), WallTime(at));
                Change::Marker(Marker { id, kind: MarkerKind::Crash, wall })
            }
        });
    }
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    changes.into_iter().enumerate().map(record).collect()
}

pub(crate) fn position(seq: u64) -> BatchPosition {
    let chain = Chain(*blake3::hash(&seq.to_le_bytes()).as_bytes());
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain }
}

/// Settings of a maintainer that keeps all points, or so many of the newest and now and then one before them, and folds
/// what is before the newest.
fn maintaining(dice: &Seeded, keeps: Option<u32>) -> MaintainerSettings {
    let (every, defaults) = (1 + dice.below(5), MaintainerSettings::default());
    let newest = |count| {
        let (period, within) = (Duration::from_millis(9), Duration::from_hours(1));
        let mut rules = vec![Rule::Newest { count, which: Which::Any }];
        rules.extend((count % 2 == 1).then_some(Rule::Best { period, within }));
        Ladder::new(rules)
    };
    MaintainerSettings {
        every,
        folds: keeps.is_some(),
        keep: keeps.map_or(defaults.keep, newest),
        ..defaults
    }
}

/// One process server: claims, delivers what the vault lacks, restarts by chance, stops when fenced.
async fn serve(
    vault: Vault,
    records: Arc<Vec<Record>>,
    dice: Arc<Seeded>,
    acked: Arc<Mutex<u64>>,
    epochs: Arc<Mutex<u64>>,
    keeps: Option<u32>,
) {
    for _ in 0..12 {
        let mut writer = match MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await
        {
            Ok(writer) => writer,
            Err(VaultError::Store(_) | VaultError::Fenced { .. } | VaultError::ClaimRace) => continue,
            Err(other) => panic!("a claim fails: {other}"),
        };
        let floor = *acked.lock().unwrap();
        assert!(writer.head().position.seq.0 >= floor, "I1: an acknowledged commit is in every later head");
        let mut maintainer =
            Maintainer::claim(&vault, MACHINE, dice.clone(), maintaining(&dice, keeps)).await.ok();
        loop {
            let at = writer.head().position.seq.0;
            if at == records.len() as u64 {
                return;
            }
            let to = (at + 1 + dice.below(9)).min(records.len() as u64);
            let from = at - at.min(dice.below(4));
            let delivery = records[from as usize..to as usize].to_vec();
            let commit = writer.commit(delivery, position(to));
            let outcome = if dice.chance(6) {
                // The process dies at some await of the commit.
                match tokio::time::timeout(std::time::Duration::from_millis(dice.below(80)), commit).await {
                    Ok(outcome) => outcome,
                    Err(_) => break,
                }
            } else {
                commit.await
            };
            match outcome {
                Ok(done) => {
                    let newest = {
                        let mut epochs = epochs.lock().unwrap();
                        *epochs = (*epochs).max(writer.epoch());
                        *epochs
                    };
                    assert_eq!(newest, writer.epoch(), "I6: no older writer acknowledges after a newer one");
                    assert!(done.position.seq.0 >= to);
                    {
                        let mut acked = acked.lock().unwrap();
                        *acked = (*acked).max(done.position.seq.0);
                    }
                    if dice.chance(40) {
                        maintain(&mut maintainer, done.slot, &dice).await;
                    }
                }
                Err(CommitError::Fenced { .. }) => break,
                Err(CommitError::Retry(_)) => {}
                Err(other) => panic!("a commit fails: {other}"),
            }
        }
    }
}

/// Maintains up to a durable slot; now and then its process dies over it.
async fn maintain(maintainer: &mut Option<Maintainer>, durable: u64, dice: &Seeded) {
    let Some(at_work) = maintainer else { return };
    let longest = std::time::Duration::from_millis(if dice.chance(20) { dice.below(80) } else { 600_000 });
    let rounds = async {
        loop {
            match at_work.round(durable, Times::default()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(VaultError::Store(_)) => return true,
                Err(VaultError::Superseded { .. }) => return false,
                Err(other) => panic!("the maintainer fails: {other}"),
            }
        }
    };
    if tokio::time::timeout(longest, rounds).await != Ok(true) {
        *maintainer = None;
    }
}

/// Maintains a vault at rest; returns how many versions that took. Each could be lost.
async fn fold_all(
    vault: &Vault,
    store: &redoubt_vault::MemStore,
    dice: &Arc<Seeded>,
    keeps: Option<u32>,
) -> u32 {
    let settings = MaintainerSettings { every: 1, ..maintaining(dice, keeps) };
    let mut maintainer = Maintainer::claim(vault, MACHINE, dice.clone(), settings).await.unwrap();
    let mut writer = MachineWriter::claim(vault, MACHINE, dice.clone()).await.unwrap();
    let mut rounds = 0;
    for _ in 0..6 {
        // The newest point never goes, and each claim is a slot more.
        writer = MachineWriter::claim(vault, MACHINE, dice.clone()).await.unwrap_or(writer);
        let slot = MachineReader::open(vault, MACHINE).await.unwrap().slot();
        while maintainer.round(slot, Times::default()).await.unwrap().is_some() {
            rounds += 1;
            without_the_newest(vault, store).await;
        }
    }
    rounds
}

/// The newest version of the catalogue is lost: the one before it serves, whole.
async fn without_the_newest(vault: &Vault, store: &redoubt_vault::MemStore) {
    let versions: Vec<_> = store.names().into_iter().filter(|name| name.as_str().contains("/cat/")).collect();
    if versions.len() < 2 {
        return;
    }
    let newest = store.peek(&versions[0]);
    store.tamper(&versions[0], None);
    let reader = MachineReader::open(vault, MACHINE).await;
    let reader = reader.unwrap_or_else(|error| panic!("without its newest version: {error}"));
    for point in reader.points() {
        let view = reader.view(point.id).unwrap();
        for (volume, info) in view.volumes() {
            let read = view.read(*volume, Extent::new(0, info.sectors.0)).await;
            read.unwrap_or_else(|error| panic!("without its newest version: {error}"));
        }
    }
    assert_eq!(reader.findings(), [], "without its newest version");
    store.tamper(&versions[0], newest);
}

/// Checks that what was acknowledged is there, and that all points and the head read as they were.
pub(crate) async fn check(vault: &Vault, records: &[Record], acked: u64, keeps: Option<u32>) {
    let reader = MachineReader::open(vault, MACHINE).await.unwrap();
    assert_eq!(reader.findings(), [], "nothing is damaged, nothing is found");
    let head = reader.head().position.seq.0;
    assert!(head >= acked, "I1: {acked} was acknowledged, the vault ends at {head}");
    let mut oracle = Oracle::default();
    records[..head as usize].iter().for_each(|record| oracle.apply(record));
    let points = reader.points();
    let listed: Vec<_> = points.iter().map(|point| (point.seq.0, point.marker.id)).collect();
    if let Some(keeps) = keeps {
        let newest = oracle.order.len().saturating_sub(keeps as usize);
        assert!(listed.ends_with(&oracle.order[newest..]), "the newest exact markers are points, in order");
        assert!(listed.iter().all(|point| oracle.order.contains(point)), "only exact markers are points");
    } else {
        assert_eq!(listed, oracle.order, "exactly the exact markers are points, in order");
    }
    for point in &points {
        compare(&reader.view(point.id).unwrap(), &oracle.points[&point.marker.id], false).await;
    }
    compare(&reader.head_view(), &oracle.images, true).await;
}

async fn compare(view: &PointView, images: &BTreeMap<VolumeIndex, Vec<u8>>, hashes: bool) {
    let sizes: Vec<_> = view.volumes().iter().map(|(at, info)| (*at, info.sectors.bytes())).collect();
    let wanted: Vec<_> = images.iter().map(|(at, image)| (*at, image.len() as u64)).collect();
    assert_eq!(sizes, wanted, "volumes have the sizes of the point");
    for (volume, image) in images {
        let all = Extent::new(0, image.len() as u64 / 512);
        let bytes = view.read(*volume, all).await.unwrap();
        assert!(bytes == image, "I3: volume {volume:?} reads as it was");
        let mut outside = image.clone();
        for extent in view.data_extents(*volume, all).await.unwrap() {
            outside[extent.lba.bytes() as usize..(extent.end() * 512) as usize].fill(0);
        }
        assert!(outside.iter().all(|byte| *byte == 0), "what is no data extent is zeros");
        if !hashes {
            continue;
        }
        let hashes = view.hash_blocks(*volume, 0, u64::MAX).await.unwrap();
        let expected: Vec<_> = image
            .chunks(65536)
            .map(|block| block.iter().any(|b| *b != 0).then(|| *blake3::hash(block).as_bytes()))
            .collect();
        assert_eq!(hashes, expected);
    }
}

/// Runs one schedule; panics with the invariant that does not hold.
pub(crate) fn one_schedule(seed: u64, shape: Shape) {
    schedule(seed, shape, None);
}

/// The same with maintainers that keep so many of the newest points, and fold what is before them. What is left at the
/// end reads as it was, and still does when another maintainer has folded that.
pub(crate) fn folded_schedule(seed: u64, shape: Shape, keeps: u32) {
    schedule(seed, shape, Some(keeps));
}

fn schedule(seed: u64, shape: Shape, keeps: Option<u32>) {
    run(async {
        let dice = Seeded::new(seed);
        let inner = Arc::new(redoubt_vault::MemStore::new());
        let keys = VaultKeys::new([3; 32]);
        Vault::init(inner.clone(), keys.clone(), &*dice).await.expect("a correct store is admitted");
        let records = Arc::new(history(&dice, shape));
        let (acked, epochs) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let tasks: Vec<_> = (0..shape.writers)
            .map(|_| {
                let store = Faulty { inner: inner.clone(), dice: dice.clone(), percent: shape.percent };
                let (keys, records, dice) = (keys.clone(), records.clone(), dice.clone());
                let (acked, epochs) = (acked.clone(), epochs.clone());
                tokio::spawn(async move {
                    let vault = Vault::open(Arc::new(store), keys).await.unwrap();
                    serve(vault, records, dice, acked, epochs, keeps).await;
                })
            })
            .collect();
        for task in tasks {
            if let Err(failed) = task.await {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        let acked = *acked.lock().unwrap();
        let vault = Vault::open(inner.clone(), keys).await.unwrap();
        match MachineReader::open(&vault, MACHINE).await {
            Err(VaultError::UnknownMachine(_)) => assert_eq!(acked, 0, "no writer got as far as a key"),
            _ => {
                check(&vault, &records, acked, keeps).await;
                if keeps.is_some() {
                    let at_end = fold_all(&vault, &inner, &dice, keeps).await;
                    assert!(at_end > 0, "the maintainer had nothing to do");
                    check(&vault, &records, acked, keeps).await;
                }
            }
        }
    });
}
