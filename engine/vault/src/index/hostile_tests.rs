//! Objects of the index that were damaged, cut, swapped or made by somebody hostile.

use super::catalogue::Unusable;
use super::run::Item;
use super::*;
use crate::codec::{Put, put_crc};
use crate::fold::{FoldInfo, Mark};
use crate::log::{HeadState, PointRow, VolumeInfo, Volumes};
use crate::reader::{PointId, PointInfo};
use redoubt_core::maintenance::{PointClock, PointTime};
use redoubt_core::{MachineId, Marker, MarkerId, MarkerKind, Sectors, VolumeId, WallTime, WriteSeq};
use redoubt_wire::aead::Key;

const ID: TableId = TableId { vault: 1, machine: MachineId(2), uuid: 3, dek: 1 };
const SLOT: u64 = 5;
const VERSION: u64 = 7;
const EPOCH: u64 = 6;

fn key() -> Key {
    Key::new([4; 32])
}

fn point() -> PointInfo {
    let info = VolumeInfo { id: VolumeId(0x55), sectors: Sectors(64) };
    let marker = Marker { id: MarkerId(0x66), kind: MarkerKind::App, wall: WallTime(1000) };
    let volumes = Volumes::from([(VolumeIndex(0), info)]);
    PointInfo::new(
        PointId { slot: 4, ordinal: 0 },
        PointRow { marker, seq: WriteSeq(8), exact: true, volumes },
    )
}

fn items() -> Vec<Item> {
    let segment = SegmentPlace { uuid: 0x99, epoch: 3, dek: 1, held: Held::Own };
    let inline = SegmentPlace { uuid: 0x9a, held: Held::Inline { slot: 4, base: 200 }, ..segment };
    let unit =
        |segment, number| UnitPlace { segment, number, offset: 128, sealed: 70, plain: 4096, codec: 1 };
    let cell = |level, index| Cell::new(VolumeIndex(0), level, index);
    let item = |cell: Cell, slot, sectors, unit| Item {
        space: cell.space,
        index: cell.index,
        version: Version::new(slot, 0),
        first: 0,
        sectors,
        offset: 0,
        unit,
    };
    vec![
        item(cell(0, 1), 3, 8, Some(unit(segment, 0))),
        item(cell(0, 1), 4, 4, Some(unit(inline, 0))),
        item(cell(0, 7), 4, 2, None),
        item(cell(1, 2), 4, 128, None),
    ]
}

fn build(id: TableId, dek: &Key) -> (TableBytes, Catalogue) {
    let mut builder = RunBuilder::new(id, EPOCH, dek, id.uuid, (3, SLOT));
    for item in items() {
        assert!(builder.add(item, || 0).is_none());
    }
    let (run, table) = builder.finish();
    let table = table.unwrap();
    let info = TableInfo {
        epoch: EPOCH,
        length: table.bytes.len() as u64,
        digest: *blake3::hash(&table.bytes).as_bytes(),
        dek: 1,
    };
    let (digest, head) = ([6; 32], HeadState { volumes: point().volumes, ..HeadState::default() });
    let tables = [(id.uuid, info)].into();
    let garbage = [
        (Object::Table { epoch: 2, uuid: 0x77 }, 4),
        (Object::Fold { epoch: 2, uuid: 0x78 }, 4),
        (Object::Segment { epoch: 1, uuid: 0x79 }, 5),
        (Object::Packed { epoch: 2, uuid: 0x7a }, 5),
        (Object::Slots { first: 1, last: 2 }, 5),
    ]
    .into();
    let fold =
        FoldInfo { uuid: 0x66, epoch: EPOCH, length: 300, digest: [9; 32], dek: 1, stored: 90, live: 70 };
    let folded = Run { from: 1, to: 2, folds: vec![fold], ..Run::default() };
    let mark = Mark { slot: 2, digest: [8; 32], epoch: 3, dek: 1, head: HeadState::default() };
    let retired = PointInfo { id: PointId { slot: 2, ordinal: 1 }, ..point() };
    let catalogue = Catalogue {
        version: VERSION,
        before: [7; 32],
        maintainer: EPOCH,
        slot: SLOT,
        digest,
        epoch: 3,
        head,
        dek: 1,
        live: vec![PointOf { info: point(), at: PointTime(70) }],
        retired: vec![PointOf { info: retired, at: PointTime(60) }],
        clock: PointClock { now: PointTime(70), source: WallTime(1000), ..PointClock::default() },
        tables,
        mark,
        runs: vec![folded, run],
        garbage,
    };
    (table, catalogue)
}

/// A table and a catalogue of it, as bytes.
pub(crate) fn example(id: TableId, dek: &Key) -> (Vec<u8>, Vec<u8>) {
    let (table, catalogue) = build(id, dek);
    (table.bytes.to_vec(), encode(&TableId { uuid: id.uuid + 1, ..id }, &catalogue, dek).unwrap())
}

fn read(bytes: &[u8]) -> Result<Catalogue, Unusable> {
    decode(bytes, ID.vault, ID.machine, VERSION, &key())
}

#[test]
fn any_flip_or_cut_of_a_catalogue_is_noticed_and_so_is_one_of_elsewhere() {
    let (_, whole) = example(ID, &key());
    assert_eq!(read(&whole).unwrap(), build(ID, &key()).1);
    for at in 0..whole.len() {
        assert!(read(&whole[..at]).is_err(), "cut to {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(&flipped).is_err(), "flipped at {at}");
    }
    assert!(read(&[&whole[..], &[0]].concat()).is_err(), "lengthened");
    let (vault, machine, other) = (ID.vault, ID.machine, Key::new([5; 32]));
    assert!(decode(&whole, vault, machine, VERSION, &other).is_err(), "another key");
    assert!(decode(&whole, vault + 1, machine, VERSION, &key()).is_err(), "another vault");
    assert!(decode(&whole, vault, MachineId(9), VERSION, &key()).is_err(), "another machine");
    assert!(decode(&whole, vault, machine, VERSION + 1, &key()).is_err(), "another version");
}

#[test]
fn a_catalogue_that_requires_an_unknown_feature_is_refused_by_its_name() {
    let (_, whole) = example(ID, &key());
    let mut header = whole[..124].to_vec();
    header[17] = 2;
    put_crc(&mut header);
    let error = read(&[&header, &whole[128..]].concat()).unwrap_err();
    assert_eq!(error, Unusable::UnknownFeature(0x200));
    assert!(error.to_string().contains("0x200"), "{error}");
}

#[test]
fn any_flip_cut_or_swap_of_a_part_is_noticed() {
    let (table, catalogue) = build(ID, &key());
    let run = &catalogue.runs[1];
    let blobs: Vec<Blob> = run.rows().iter().map(|row| row.blob).collect();
    assert_eq!(blobs.len(), 2, "a block for each level");
    for blob in &blobs {
        let (from, to) = (blob.offset as usize, (blob.offset + blob.sealed) as usize);
        let sealed = &table.bytes[from..to];
        let open = |id: &TableId, key: &Key, blob: &Blob, sealed: &[u8]| {
            seal::open_part(id, key, blob, block::PLAIN_MAX, sealed)
        };
        open(&ID, &key(), blob, sealed).unwrap();
        for at in 0..sealed.len() {
            let mut flipped = sealed.to_vec();
            flipped[at] ^= 1 << (at % 8);
            assert!(open(&ID, &key(), blob, &flipped).is_err(), "flipped at {at}");
            assert!(open(&ID, &key(), blob, &sealed[..at]).is_err(), "cut to {at}");
        }
        assert!(open(&ID, &Key::new([5; 32]), blob, sealed).is_err(), "another key");
        assert!(open(&TableId { uuid: 4, ..ID }, &key(), blob, sealed).is_err(), "another table");
        assert!(
            open(&TableId { machine: MachineId(9), ..ID }, &key(), blob, sealed).is_err(),
            "another machine"
        );
        let moved = Blob { number: blob.number + 1, ..*blob };
        assert!(open(&ID, &key(), &moved, sealed).is_err(), "another place");
        assert!(
            seal::open_part(&ID, &key(), blob, blob.plain as usize - 1, sealed).is_err(),
            "over its limit"
        );
    }
}

#[test]
fn counts_and_numbers_of_a_block_are_bounded() {
    let good = block::encode(&items()[..3], 0);
    block::decode(&good).unwrap();
    for at in 0..good.len() {
        assert!(block::decode(&good[..at]).is_err(), "cut to {at}");
        for byte in 0..=255 {
            let mut bad = good.clone();
            bad[at] = byte;
            // Whatever it says, it is refused or consistent: nothing it names is missing.
            if let Ok(block) = block::decode(&bad) {
                (0..5).filter_map(|at| block.item(items()[0].space, at)).for_each(drop);
            }
        }
    }
    let mut huge = Vec::new();
    (0..5).for_each(|_| huge.put_varint(u64::MAX));
    assert!(block::decode(&huge).is_err());
}

#[test]
fn a_directory_that_leaves_its_table_or_its_order_is_refused() {
    let (_, good) = build(ID, &key());
    let other = TableId { uuid: 9, ..ID };
    let check = |catalogue: &Catalogue| read(&encode(&other, catalogue, &key()).unwrap());
    check(&good).unwrap();
    let spoil = |with: &dyn Fn(&mut Catalogue)| {
        let mut bad = good.clone();
        with(&mut bad);
        assert!(check(&bad).is_err());
    };
    spoil(&|bad| bad.runs[1].rows.reverse());
    spoil(&|bad| bad.runs[1].to -= 1);
    spoil(&|bad| bad.runs.clear());
    spoil(&|bad| bad.runs[1].rows[0].blob.offset = 1 << 20);
    spoil(&|bad| bad.runs[1].rows[0].blob.table = 77);
    spoil(&|bad| bad.runs[1].rows[0].space.level = LEVELS);
    spoil(&|bad| bad.tables.clear());
    spoil(&|bad| bad.live.push(bad.live[0].clone()));
    spoil(&|bad| bad.retired[0].info.id.slot = SLOT + 1);
}
