//! The model property: histories through racing, restarting writers over a lying store.
//!
//! Invariants
//! - I1 What was acknowledged is in every later head.
//! - I3 Every point, and the head, reads as the oracle's images.
//! - I6 No older writer acknowledges after a newer one.

use super::{Faulty, Oracle, Seeded, run};
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_vault::{CommitError, MachineReader, MachineWriter, Vault, VaultError, VaultKeys};
use std::sync::{Arc, Mutex};

const MACHINE: MachineId = MachineId(7);
const SECTORS_MAX: u64 = 700;

/// Makes a legal history of the given length.
fn history(dice: &Seeded, length: u64) -> Vec<Record> {
    let mut sizes = [600u64, 300];
    let mut changes: Vec<Change> = (0..2u16)
        .map(|volume| Change::Attach {
            volume: VolumeIndex(volume),
            id: VolumeId(u128::from(volume) + 1),
            sectors: Sectors(sizes[usize::from(volume)]),
        })
        .collect();
    changes.push(Change::ResyncBegin { reason: ResyncReason::Initial });
    for at in 0..length {
        let which = dice.below(2) as usize;
        let volume = VolumeIndex(which as u16);
        let first = dice.below(sizes[which]);
        let sectors = 1 + dice.below((sizes[which] - first).min(if dice.chance(10) { 400 } else { 12 }));
        let extent = Extent::new(first, sectors);
        let byte = dice.below(250) as u8;
        let payload: Vec<u8> =
            (0..extent.bytes()).map(|i| byte.wrapping_mul(((i >> 9) as u8).wrapping_add(1))).collect();
        let (lba, payload) = (Lba(first), payload.into());
        changes.push(match dice.below(20) {
            0..=8 => Change::Write { volume, lba, payload },
            9 => Change::ResyncWrite { volume, lba, payload },
            10 => Change::WriteZeroes { volume, extent },
            11 => Change::Trim { volume, extent },
            12 => Change::ResyncZeroes { volume, extent },
            13 => {
                sizes[which] = 1 + dice.below(SECTORS_MAX);
                Change::Resize { volume, sectors: Sectors(sizes[which]) }
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

fn position(seq: u64) -> BatchPosition {
    let chain = Chain(*blake3::hash(&seq.to_le_bytes()).as_bytes());
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain }
}

/// One process server: claims, delivers what the vault lacks, restarts by chance, stops when fenced.
async fn serve(
    vault: Vault,
    records: Arc<Vec<Record>>,
    dice: Arc<Seeded>,
    acked: Arc<Mutex<u64>>,
    epochs: Arc<Mutex<u64>>,
) {
    for _ in 0..12 {
        let mut writer = match MachineWriter::claim(&vault, MACHINE, dice.clone()).await {
            Ok(writer) => writer,
            Err(VaultError::Store(_) | VaultError::Fenced { .. } | VaultError::ClaimRace) => continue,
            Err(other) => panic!("a claim fails: {other}"),
        };
        let floor = *acked.lock().unwrap();
        assert!(writer.head().position.seq.0 >= floor, "I1: an acknowledged commit is in every later head");
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
                    let mut acked = acked.lock().unwrap();
                    *acked = (*acked).max(done.position.seq.0);
                }
                Err(CommitError::Fenced { .. }) => break,
                Err(CommitError::Retry(_)) => {}
                Err(other) => panic!("a commit fails: {other}"),
            }
        }
    }
}

async fn check(vault: &Vault, records: &[Record], acked: u64) {
    let reader = MachineReader::open(vault, MACHINE).await.unwrap();
    let head = reader.head().position.seq.0;
    assert!(head >= acked, "I1: {acked} was acknowledged, the vault ends at {head}");
    let mut oracle = Oracle::default();
    records[..head as usize].iter().for_each(|record| oracle.apply(record));
    let points = reader.points();
    let listed: Vec<_> = points.iter().map(|point| (point.seq.0, point.marker.id)).collect();
    assert_eq!(listed, oracle.order, "exactly the exact markers are points, in order");
    for point in &points {
        compare(&reader.view(point.id).unwrap(), &oracle.points[&point.marker.id]).await;
    }
    compare(&reader.head_view(), &oracle.images).await;
}

async fn compare(view: &redoubt_vault::PointView, images: &std::collections::BTreeMap<VolumeIndex, Vec<u8>>) {
    let sizes: Vec<_> = view.volumes().iter().map(|(at, info)| (*at, info.sectors.bytes())).collect();
    let wanted: Vec<_> = images.iter().map(|(at, image)| (*at, image.len() as u64)).collect();
    assert_eq!(sizes, wanted, "volumes have the sizes of the point");
    for (volume, image) in images {
        let all = Extent::new(0, image.len() as u64 / 512);
        let bytes = view.read(*volume, all).await.unwrap();
        assert!(bytes == image, "I3: volume {volume:?} reads as it was");
        let mut outside = image.clone();
        for extent in view.data_extents(*volume, all).unwrap() {
            outside[extent.lba.bytes() as usize..(extent.end() * 512) as usize].fill(0);
        }
        assert!(outside.iter().all(|byte| *byte == 0), "what is no data extent is zeros");
        let hashes = view.hash_blocks(*volume, 0, u64::MAX).await.unwrap();
        let expected: Vec<_> = image
            .chunks(65536)
            .map(|block| block.iter().any(|b| *b != 0).then(|| *blake3::hash(block).as_bytes()))
            .collect();
        assert_eq!(hashes, expected);
    }
}

pub(crate) fn one_schedule(seed: u64, percent: u64, writers: u64, length: u64) {
    run(async {
        let dice = Seeded::new(seed);
        let inner = Arc::new(redoubt_vault::MemStore::new());
        let keys = VaultKeys::new([3; 32]);
        Vault::init(inner.clone(), keys.clone(), &*dice).await.expect("a correct store is admitted");
        let records = Arc::new(history(&dice, length));
        let (acked, epochs) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let tasks: Vec<_> = (0..writers)
            .map(|_| {
                let store = Faulty { inner: inner.clone(), dice: dice.clone(), percent };
                let (keys, records, dice) = (keys.clone(), records.clone(), dice.clone());
                let (acked, epochs) = (acked.clone(), epochs.clone());
                tokio::spawn(async move {
                    let vault = Vault::open(Arc::new(store), keys).await.unwrap();
                    serve(vault, records, dice, acked, epochs).await;
                })
            })
            .collect();
        for task in tasks {
            if let Err(failed) = task.await {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        let acked = *acked.lock().unwrap();
        let vault = Vault::open(inner, keys).await.unwrap();
        match MachineReader::open(&vault, MACHINE).await {
            Err(VaultError::UnknownMachine(_)) => assert_eq!(acked, 0, "no writer got as far as a key"),
            _ => check(&vault, &records, acked).await,
        }
    });
}
