//! Any changed, lost or swapped object is noticed, and never read as other bytes.

mod support;

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, WallTime, WriteSeq,
};
use redoubt_ports::StoreKey;
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultError,
    VaultKeys, WriterSettings,
};
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

/// Where the segment behind a record begins, if there is one.
fn inline_at(slot: &[u8]) -> Option<usize> {
    let at = 144 + u32::from_le_bytes(slot[116..120].try_into().unwrap()) as usize;
    (at < slot.len()).then_some(at)
}

#[test]
fn rot_of_data_in_the_log_costs_the_ranges_it_hits_and_no_later_point() {
    run(async {
        let store = Arc::new(MemStore::new());
        let images = log_of_points(&store).await;
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let points = MachineReader::open(&vault, MACHINE).await.unwrap().points();
        let mut met = 0;
        for name in store.names().into_iter().filter(|name| name.as_str().contains("/log/")) {
            let whole = store.peek(&name).unwrap();
            let Some(at) = inline_at(&whole) else { continue };
            let mut rotten = whole.to_vec();
            rotten[at + 128] ^= 1;
            store.tamper(&name, Some(rotten.into()));
            let (reader, damage) = MachineReader::open_damaged(&vault, MACHINE).await.unwrap();
            assert_eq!((damage, reader.points()), (None, points.clone()), "{name}: no point is taken");
            for (number, (point, image)) in (1u64..).zip(points.iter().zip(&images)) {
                let view = reader.view(point.id).unwrap();
                for sector in 0..256u64 {
                    let wanted = &image[sector as usize * 512..][..512];
                    // The newest write to a sector is the one of the point before it that begins last.
                    let written = (sector / 8).min(number);
                    let is_of_slot = written > 0
                        && sector < written * 8 + 16
                        && name.as_str().ends_with(&format!("{:x}", points[written as usize - 1].id.slot));
                    match view.read(VOLUME, Extent::new(sector, 1)).await {
                        Ok(read) => assert!(read == wanted && !is_of_slot, "{name} {number} {sector}"),
                        Err(error) => {
                            assert!(is_of_slot, "{name}: point {number}, sector {sector}: {error}");
                            assert!(error.to_string().contains(name.as_str()), "named by its own slot");
                            met += 1;
                        }
                    }
                }
            }
            store.tamper(&name, Some(whole));
        }
        assert!(met > 0, "some sector was hit");
    });
}

#[test]
fn a_writer_goes_on_behind_rotten_data_in_the_log_and_what_it_writes_again_is_whole() {
    run(async {
        let store = Arc::new(MemStore::new());
        log_of_points(&store).await;
        let newest = store.names().into_iter().rfind(|name| name.as_str().contains("/log/")).unwrap();
        let whole = store.peek(&newest).unwrap();
        let at = inline_at(&whole).expect("the newest record has a segment behind it");
        let mut rotten = whole.to_vec();
        rotten[at + 128] ^= 1;
        store.tamper(&newest, Some(rotten.into()));
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, MACHINE, Seeded::new(8)).await.unwrap();
        let seq = writer.head().position.seq.0;
        let payload = Bytes::from(vec![9; 256 * 512]);
        let (id, wall) = (MarkerId(99), WallTime(2));
        let changes = [
            Change::Write { volume: VOLUME, lba: Lba(0), payload: payload.clone() },
            Change::Marker(Marker { id, kind: MarkerKind::Crash, wall }),
        ];
        let record = |(at, change)| Record { seq: WriteSeq(seq + at), change };
        let records: Vec<Record> = (1..).zip(changes).map(record).collect();
        let to = BatchPosition { generation: Generation(1), seq: WriteSeq(seq + 2), chain: Chain([99; 32]) };
        writer.commit(records, to).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        let last = reader.points().last().unwrap().clone();
        assert_eq!(last.marker.id, id);
        let view = reader.view(last.id).unwrap();
        assert!(view.read(VOLUME, Extent::new(0, 256)).await.unwrap() == payload, "the new point is whole");
        let before = reader.view(reader.points()[5].id).unwrap();
        assert!(before.read(VOLUME, Extent::new(0, 256)).await.is_err(), "the old one is damaged as it was");
    });
}

/// A vault whose log is indexed in several catalogues, the newest of which does not cover the newest slots.
async fn indexed() -> (Arc<MemStore>, Vec<Vec<u8>>) {
    let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(6));
    let images = log_of_points(&store).await;
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    for until in [3, 5, 9] {
        let mut maintainer = Maintainer::claim(
            &vault,
            MACHINE,
            dice.clone(),
            MaintainerSettings { every: 1, ..MaintainerSettings::default() },
        )
        .await
        .unwrap();
        assert_eq!(maintainer.round(until, Times::default()).await.unwrap(), Some(until));
        assert_eq!(maintainer.round(until, Times::default()).await.unwrap(), None);
    }
    assert!(MachineReader::open(&vault, MACHINE).await.unwrap().slot() > 9, "there is a tail");
    (store, images)
}

/// Reads every point; returns what was found, or why a point could not be read. Wrong bytes are a panic.
async fn judge(store: &Arc<MemStore>, images: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let (reader, damage) = MachineReader::open_damaged(&vault, MACHINE).await.unwrap();
    if let Some(damage) = damage {
        return Err(damage.to_string());
    }
    let points = reader.points();
    assert_eq!(points.len(), images.len());
    for (point, image) in points.iter().zip(images) {
        let view = reader.view(point.id).unwrap();
        let read = view.read(VOLUME, Extent::new(0, 256)).await.map_err(|error| error.to_string())?;
        assert!(read == *image, "point {:?} reads as it was", point.id);
    }
    Ok(reader.findings().iter().map(ToString::to_string).collect())
}

fn is_of_index(name: &StoreKey) -> bool {
    name.as_str().contains("/idx/") || name.as_str().contains("/cat/")
}

#[test]
fn damage_of_the_index_is_reported_and_takes_nothing() {
    run(async {
        let (store, images) = indexed().await;
        assert_eq!(judge(&store, &images).await.unwrap(), [""; 0]);
        let index: Vec<_> = store.names().into_iter().filter(is_of_index).collect();
        let newest = index.iter().find(|name| name.as_str().contains("/cat/")).unwrap();
        let mut reported = 0;
        for name in &index {
            let whole = store.peek(name).unwrap();
            let mut damages = vec![None, Some(whole.slice(..whole.len() / 2))];
            damages.extend((0..whole.len()).step_by(23).map(|at| {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << (at % 8);
                Some(bytes.into())
            }));
            for damage in damages {
                let is_lost = damage.is_none();
                store.tamper(name, damage);
                let findings = judge(&store, &images).await.unwrap();
                let named = findings.iter().any(|finding| finding.contains(name.as_str()));
                // A lost name is in no listing; what an older catalogue alone names is not read.
                assert!(named || name != newest || is_lost, "{name} went unnoticed");
                reported += u32::from(named);
            }
            store.tamper(name, Some(whole));
        }
        assert!(reported > 10, "{reported}");
        // With no index left the log says it all.
        index.iter().for_each(|name| store.tamper(name, None));
        judge(&store, &images).await.unwrap();
    });
}

#[test]
fn an_index_of_another_log_is_noticed() {
    run(async {
        let (store, images) = indexed().await;
        let newest = store.names().into_iter().find(|name| name.as_str().contains("/cat/")).unwrap();
        let slot = StoreKey::new(format!("g/{MACHINE}/log/{:016x}", 9));
        let whole = store.peek(&slot).unwrap();
        let mut rotten = whole.to_vec();
        rotten[150] ^= 1;
        store.tamper(&slot, Some(rotten.into()));
        // The log is damaged where the index ends: it is the log that counts, up to there.
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let (reader, damage) = MachineReader::open_damaged(&vault, MACHINE).await.unwrap();
        assert!(damage.unwrap().to_string().contains(slot.as_str()));
        assert!(reader.findings().iter().any(|finding| finding.to_string().contains(newest.as_str())));
        assert_eq!(reader.slot(), 8);
        store.tamper(&slot, Some(whole));
        judge(&store, &images).await.unwrap();
    });
}

#[test]
fn what_neither_index_nor_log_can_tell_is_an_error_and_never_older_content() {
    run(async {
        let (store, images) = indexed().await;
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        let tables = store.names().into_iter().filter(|name| name.as_str().contains("/idx/"));
        tables.for_each(|name| store.tamper(&name, None));
        store.tamper(&StoreKey::new(format!("g/{MACHINE}/log/{:016x}", 2)), None);
        let newest = reader.points().last().unwrap().id;
        let view = reader.view(newest).unwrap();
        for _ in 0..2 {
            match view.read(VOLUME, Extent::new(0, 256)).await {
                Ok(read) => assert!(read == images[images.len() - 1], "it was wrong"),
                Err(error) => assert!(error.to_string().contains("/idx/"), "{error}"),
            }
        }
        assert!(view.read(VOLUME, Extent::new(0, 256)).await.is_err(), "the oldest content is gone");
    });
}
