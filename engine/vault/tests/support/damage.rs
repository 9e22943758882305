//! The damage property: a vault with every kind of object, and a reader of all of it.

use super::Seeded;
use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::Entropy;
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultKeys, WriterSettings};
use std::sync::Arc;

pub(crate) const MACHINE: MachineId = MachineId(9);
pub(crate) const VOLUME: VolumeIndex = VolumeIndex(0);
const SECTORS: u64 = 5 << 9;

pub(crate) fn keys() -> VaultKeys {
    VaultKeys::new([5; 32])
}

/// Makes a vault with one inline commit, a segment of zeros and two segments of several units.
pub(crate) async fn build() -> (Arc<MemStore>, Vec<u8>) {
    let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
    let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
    let mut image = vec![0; (SECTORS * 512) as usize];
    dice.fill(&mut image);
    image[1 << 18..(1 << 18) + (128 << 10)].fill(7);
    let mut changes = vec![
        Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(SECTORS) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
    ];
    for at in 0..5u64 {
        let payload = Bytes::copy_from_slice(&image[(at << 18) as usize..((at + 1) << 18) as usize]);
        changes.push(Change::ResyncWrite { volume: VOLUME, lba: Lba(at << 9), payload });
    }
    let zeroed = Extent::new(0, 8);
    image[..zeroed.bytes() as usize].fill(0);
    changes.insert(3, Change::ResyncZeroes { volume: VOLUME, extent: zeroed });
    changes.push(Change::ResyncEnd);
    let marker = Marker { id: MarkerId(1), kind: MarkerKind::Crash, wall: WallTime(1) };
    changes.push(Change::Marker(marker));
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    let records: Vec<Record> = changes.into_iter().enumerate().map(record).collect();
    // The first commit is inline, the second a segment of zeros only, the third takes two segments.
    let inline =
        WriterSettings { inline_bytes: 512 << 10, segment_bytes: 512 << 10, ..WriterSettings::default() };
    let apart = WriterSettings { inline_bytes: 0, ..inline };
    for (to, settings) in [(3, inline), (4, apart), (records.len(), apart)] {
        let claim = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings);
        let mut writer = claim.await.unwrap();
        let seq = WriteSeq(to as u64);
        let position = BatchPosition { generation: Generation(1), seq, chain: Chain([to as u8; 32]) };
        writer.commit(records[..to].to_vec(), position).await.unwrap();
    }
    let segments = store.names().iter().filter(|name| name.as_str().contains("/seg/")).count();
    assert_eq!(segments, 3, "the vault has every kind of object");
    (store, image)
}

/// Reads all of the newest point; an error stands for "damage was noticed".
pub(crate) async fn read_all(store: &Arc<MemStore>) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let vault = Vault::open(store.clone(), keys()).await.map_err(|e| text(&e))?;
    let reader = MachineReader::open(&vault, MACHINE).await.map_err(|e| text(&e))?;
    if let Some(finding) = reader.findings().first() {
        return Err(finding.to_string());
    }
    let point = reader.points().last().map(|point| point.id).ok_or("no point")?;
    let view = reader.view(point).map_err(|e| text(&e))?;
    let read = view.read(VOLUME, Extent::new(0, SECTORS)).await.map_err(|e| text(&e))?;
    Ok(read.to_vec())
}

/// Tells whether nothing reads the object: a claim of an epoch that a newer one has followed, or the twin of one that is whole.
fn is_unread(name: &str) -> bool {
    name.contains("/claim/") && !name.ends_with("00000003") || name.ends_with(".twin")
}

/// Flips one bit at `places` of each object in turn. Fails if a flip was served as other content.
pub(crate) async fn flips_are_noticed(places: impl Fn(&str, u64) -> Vec<u64>) {
    let (store, image) = build().await;
    assert!(read_all(&store).await.unwrap() == image, "the vault reads as written");
    for name in store.names().into_iter().filter(|name| !is_unread(name.as_str())) {
        let whole = store.peek(&name).unwrap();
        for at in places(name.as_str(), whole.len() as u64) {
            let mut bytes = whole.to_vec();
            bytes[at as usize] ^= 1 << (at % 8);
            store.tamper(&name, Some(bytes.into()));
            let read = read_all(&store).await;
            assert!(
                read.is_err(),
                "I4: {name} byte {at} went unnoticed, read right: {}",
                read.as_ref() == Ok(&image)
            );
        }
        store.tamper(&name, Some(whole));
    }
}
