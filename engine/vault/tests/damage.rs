//! Any changed, lost or swapped object is noticed, and never read as other bytes.

mod support;

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, WallTime, WriteSeq,
};
use redoubt_ports::StoreKey;
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultError, VaultKeys, WriterSettings};
use std::sync::Arc;
use support::damage::{MACHINE, VOLUME, build, flips_are_noticed, keys, read_all};
use support::{Seeded, run};

#[test]
fn a_flipped_byte_in_any_object_is_never_served_as_content() {
    run(async {
        let dice = Seeded::new(2);
        let random = |length| vec![dice.below(length), dice.below(length), dice.below(128), length - 1];
        flips_are_noticed(|_, length| random(length).into_iter().filter(|at| *at < length).collect()).await;
    });
}

#[test]
fn a_lost_or_shortened_object_is_named() {
    run(async {
        let (store, image) = build().await;
        for name in store.names() {
            if name.as_str().contains("/claim/") || name == *store.names().last().unwrap() {
                continue;
            }
            let whole = store.peek(&name).unwrap();
            for damage in [None, Some(whole.slice(..whole.len() - 1))] {
                store.tamper(&name, damage);
                // Losing the newest slot cannot be told from its never having been; it must not be wrong.
                if let Ok(read) = read_all(&store).await {
                    assert!(read == image, "{name} is served wrong");
                }
            }
            store.tamper(&name, Some(whole));
        }
    });
}

#[test]
fn a_lost_or_damaged_claim_is_reported_and_stops_no_recovery() {
    run(async {
        let (store, _) = build().await;
        for epoch in 1..=3u64 {
            let name = StoreKey::new(format!("g/{MACHINE}/claim/w/{epoch:08x}"));
            let whole = store.peek(&name).unwrap();
            for damage in [None, Some(Bytes::from_static(b"DRCLAIM1"))] {
                store.tamper(&name, damage);
                let vault = Vault::open(store.clone(), keys()).await.unwrap();
                let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
                let named: Vec<_> = reader.findings().iter().map(ToString::to_string).collect();
                // CL-2: only the newest is looked at, or opening would cost more with every restart.
                assert_eq!(named.len(), usize::from(epoch == 3), "{named:?}");
                assert!(named.iter().all(|named| named.contains(name.as_str())), "{named:?}");
                let view = reader.view(reader.points()[0].id).unwrap();
                view.read(VOLUME, Extent::new(0, 128)).await.unwrap();
            }
            store.tamper(&name, Some(whole));
        }
    });
}

#[test]
fn a_record_at_another_slot_does_not_open() {
    run(async {
        let (store, _) = build().await;
        let slot = |at: u64| StoreKey::new(format!("g/{MACHINE}/log/{at:016x}"));
        let (two, three) = (store.peek(&slot(2)).unwrap(), store.peek(&slot(3)).unwrap());
        store.tamper(&slot(2), Some(three));
        store.tamper(&slot(3), Some(two));
        assert!(read_all(&store).await.unwrap_err().contains("log/0000000000000002"));
    });
}

#[test]
fn a_wrong_key_or_an_unknown_format_is_refused_before_anything_changes() {
    run(async {
        let (store, _) = build().await;
        let before = store.names();
        let wrong = Vault::open(store.clone(), VaultKeys::new([6; 32])).await;
        assert_eq!(wrong.unwrap_err(), VaultError::WrongKey);
        let again = Vault::init(store.clone(), keys(), &*Seeded::new(3)).await;
        assert_eq!(again.unwrap_err(), VaultError::AlreadyInitialised);
        let name = StoreKey::new("vault");
        let whole = store.peek(&name).unwrap();
        for (at, major) in [(8, true), (12, false)] {
            let mut bytes = whole[..whole.len() - 4].to_vec();
            bytes[at] ^= 0x40;
            let crc = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            store.tamper(&name, Some(bytes.into()));
            let error = Vault::open(store.clone(), keys()).await.unwrap_err();
            let named = match error {
                VaultError::UnknownMajor { .. } => major,
                VaultError::UnknownFeature(bits) => !major && bits == 0x40,
                _ => false,
            };
            assert!(named, "{error}");
        }
        store.tamper(&name, Some(whole));
        assert_eq!(store.names(), before);
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        assert_eq!(vault.list_machines().await.unwrap(), [MACHINE]);
        let missing = MachineReader::open(&vault, MachineId(1)).await;
        assert_eq!(missing.unwrap_err(), VaultError::UnknownMachine(MachineId(1)));
    });
}

/// A log of small commits, each with one point; returns the images of the points, oldest first.
async fn log_of_points(store: &Arc<MemStore>) -> Vec<Vec<u8>> {
    let dice = Seeded::new(4);
    let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
    let mut changes = vec![
        Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(256) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
        Change::ResyncEnd,
    ];
    let (mut image, mut images) = (vec![0; 256 * 512], Vec::new());
    for at in 1..=6u8 {
        image[usize::from(at) * 4096..][..8192].fill(at);
        let payload = Bytes::from(vec![at; 8192]);
        changes.push(Change::Write { volume: VOLUME, lba: Lba(u64::from(at) * 8), payload });
        let (id, wall) = (MarkerId(u128::from(at)), WallTime(1));
        changes.push(Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }));
        images.push(image.clone());
    }
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    let records: Vec<Record> = changes.into_iter().enumerate().map(record).collect();
    // In turn: a segment beside the log, one in it, and another writer.
    for (round, to) in (5..=records.len()).step_by(2).enumerate() {
        let settings = WriterSettings { inline_bytes: (round % 2) << 20, ..WriterSettings::default() };
        let writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await;
        let seq = WriteSeq(to as u64);
        let position = BatchPosition { generation: Generation(1), seq, chain: Chain([to as u8; 32]) };
        writer.unwrap().commit(records[..to].to_vec(), position).await.unwrap();
    }
    images
}

#[test]
fn damage_takes_the_points_behind_it_and_none_before_it() {
    run(async {
        let store = Arc::new(MemStore::new());
        let images = log_of_points(&store).await;
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let whole = MachineReader::open(&vault, MACHINE).await.unwrap().points();
        assert_eq!(whole.len(), images.len());
        let structural = |name: &StoreKey| name.as_str().contains("/log/") || name.as_str().contains("/seg/");
        let mut shortest = images.len();
        for name in store.names().into_iter().filter(structural) {
            let bytes = store.peek(&name).unwrap();
            let mut rotten = bytes.to_vec();
            // In the trailer of a segment, and in the chained part of a slot.
            let at = if name.as_str().contains("/seg/") { bytes.len() - 40 } else { 60 };
            rotten[at] ^= 1;
            for damage in [None, Some(rotten.into())] {
                store.tamper(&name, damage);
                let (reader, damage) = MachineReader::open_damaged(&vault, MACHINE).await.unwrap();
                let points = reader.points();
                assert_eq!(points, whole[..points.len()], "{name}");
                let is_newest =
                    name == *store.names().iter().rfind(|name| name.as_str().contains("/log/")).unwrap();
                match damage {
                    Some(damage) => assert!(damage.to_string().contains(name.as_str()), "{name}: {damage}"),
                    None => assert!(is_newest || points.len() + 1 == whole.len(), "{name} went unnoticed"),
                }
                for (point, image) in points.iter().zip(&images) {
                    let read =
                        reader.view(point.id).unwrap().read(VOLUME, Extent::new(0, 256)).await.unwrap();
                    assert!(read == *image, "{name}: point {:?}", point.id);
                }
                shortest = shortest.min(points.len());
                assert!(reader.refresh().await.is_err() || points.len() + 1 >= whole.len(), "{name}");
            }
            store.tamper(&name, Some(bytes));
        }
        assert_eq!(shortest, 0, "damage at the beginning takes all");
    });
}
