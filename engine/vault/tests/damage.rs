//! Any changed, lost or swapped object is noticed, and never read as other bytes.

mod support;

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{Entropy, StoreKey};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultError, VaultKeys};
use std::sync::Arc;
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(9);
const VOLUME: VolumeIndex = VolumeIndex(0);
const SECTORS: u64 = 10 << 10;

fn keys() -> VaultKeys {
    VaultKeys::new([5; 32])
}

/// Makes a vault with one inline commit and one of several units in a segment object.
async fn build() -> (Arc<MemStore>, Vec<u8>) {
    let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
    let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
    let mut image = vec![0; (SECTORS * 512) as usize];
    dice.fill(&mut image[..5 << 20]);
    image[1 << 20..(1 << 20) + (128 << 10)].fill(7);
    let mut changes = vec![
        Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(SECTORS) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
    ];
    for at in 0..5u64 {
        let payload = Bytes::copy_from_slice(&image[(at << 20) as usize..((at + 1) << 20) as usize]);
        changes.push(Change::ResyncWrite { volume: VOLUME, lba: Lba(at << 11), payload });
    }
    changes.push(Change::ResyncEnd);
    let marker = Marker { id: MarkerId(1), kind: MarkerKind::Crash, wall: WallTime(1) };
    changes.push(Change::Marker(marker));
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    let records: Vec<Record> = changes.into_iter().enumerate().map(record).collect();
    let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
    for to in [3, records.len()] {
        let seq = WriteSeq(to as u64);
        let position = BatchPosition { generation: Generation(1), seq, chain: Chain([to as u8; 32]) };
        writer.commit(records[..to].to_vec(), position).await.unwrap();
    }
    (store, image)
}

/// Reads all of the newest point; an error stands for "damage was noticed".
async fn read_all(store: &Arc<MemStore>) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let vault = Vault::open(store.clone(), keys()).await.map_err(|e| text(&e))?;
    let reader = MachineReader::open(&vault, MACHINE).await.map_err(|e| text(&e))?;
    let point = reader.points().last().map(|point| point.id).ok_or("no point")?;
    let view = reader.view(point).map_err(|e| text(&e))?;
    let read = view.read(VOLUME, Extent::new(0, SECTORS)).await.map_err(|e| text(&e))?;
    Ok(read.to_vec())
}

#[test]
fn a_flipped_byte_in_any_object_is_never_served_as_content() {
    run(async {
        let (store, image) = build().await;
        assert!(read_all(&store).await.unwrap() == image);
        let dice = Seeded::new(2);
        for name in store.names() {
            let whole = store.peek(&name).unwrap();
            let kind = name.as_str();
            let mut places: Vec<usize> = (0..2).map(|_| dice.below(whole.len() as u64) as usize).collect();
            places.push(whole.len() - 1);
            for at in places {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << dice.below(8);
                store.tamper(&name, Some(bytes.into()));
                let read = read_all(&store).await;
                // A reader needs neither claims nor the segment's own header: the record knows both.
                let unread = kind.contains("/claim/") || kind.contains("/seg/") && at < 128;
                match read {
                    Ok(read) => assert!(unread && read == image, "{name} byte {at} went unnoticed"),
                    Err(what) => assert!(!unread && !what.is_empty(), "{name} byte {at}: {what}"),
                }
            }
            store.tamper(&name, Some(whole));
        }
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
