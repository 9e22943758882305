//! The bytes of every object, pinned; and parsers that meet arbitrary bytes.

use crate::codec::checked_crc;
use crate::index::TableId;
use crate::keys::{VaultKeys, WrapId};
use crate::log::{self, Body, HeadState, Header, Kind, PointRow, VolumeInfo, Volumes};
use crate::segment::{Builder, SegmentId, parse_tail};
use crate::shrink::Shrinker;
use proptest::prelude::*;
use redoubt_core::{
    MachineId, Marker, MarkerId, MarkerKind, Names, Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_wire::aead::Key;

const MACHINE: MachineId = MachineId(0x22);
const VAULT: u128 = 0x11;

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(line).collect::<Vec<_>>().join("\n")
}

fn dek() -> Key {
    Key::new([4; 32])
}

fn wrap() -> WrapId {
    WrapId { vault: VAULT, machine: MACHINE, dek: 1, by: 2 }
}

fn id() -> SegmentId {
    SegmentId { vault: VAULT, machine: MACHINE, epoch: 3, uuid: 0x33, dek: 1 }
}

fn header() -> Header {
    let (slot, epoch, writer, prev) = (5, 3, 0x44, [6; 32]);
    Header { vault: VAULT, machine: MACHINE, slot, epoch, writer, kind: Kind::Commit, prev, dek: 1 }
}

fn body() -> Body {
    let info = VolumeInfo { id: VolumeId(0x55), sectors: Sectors(64) };
    let volumes = Volumes::from([(VolumeIndex(0), info)]);
    let marker = Marker { id: MarkerId(0x66), kind: MarkerKind::App, wall: WallTime(1000) };
    let point = PointRow { marker, seq: WriteSeq(8), exact: true, volumes: volumes.clone() };
    let mut names = Names::default();
    names.call_machine("erp");
    names.call_volume(VolumeId(0x55), "data");
    let head = HeadState { volumes, names, exact: true, ..HeadState::default() };
    Body { from: WriteSeq(2), head, points: vec![point], segments: Vec::new(), sealed: 9 }
}

fn segment() -> crate::segment::Encoded {
    let mut builder = Builder::new(id(), &dek(), Shrinker::new());
    builder.data(VolumeIndex(0), 0, 8, &[&[9; 512], &[9; 512]]);
    builder.zero(VolumeIndex(0), 1, 0, 4);
    builder.finish().0
}

#[test]
fn the_bytes_of_each_object_stay_as_they_are() {
    let keys = VaultKeys::new([7; 32]);
    insta::assert_snapshot!("vault", hex(&crate::vault::encode(VAULT, &keys)));
    insta::assert_snapshot!("key", hex(&keys.wrap(&wrap(), 0x77, &dek())));
    insta::assert_snapshot!(
        "vault_key",
        hex(&crate::vault_keys::encode(crate::vault_keys::ANNOUNCED, 2, VAULT, [8; 16]))
    );
    insta::assert_snapshot!("claim", hex(&crate::claims::encode(VAULT, MACHINE, 3, 0x44)));
    let point = crate::PointId { slot: 5, ordinal: 2 };
    insta::assert_snapshot!("pin", hex(&crate::pins::encode(VAULT, MACHINE, point, 0x99)));
    insta::assert_snapshot!("log", hex(&log::encode(&header(), &body(), &dek(), None)));
    insta::assert_snapshot!("segment", hex(&segment().bytes));
    let (table, catalogue) =
        crate::index::example(TableId { vault: VAULT, machine: MACHINE, uuid: 0x88, dek: 1 }, &dek());
    insta::assert_snapshot!("index_table", hex(&table));
    insta::assert_snapshot!("catalogue", hex(&catalogue));
    let id = TableId { vault: VAULT, machine: MACHINE, uuid: 0xaa, dek: 1 };
    let fold = crate::fold::encode(&id, 6, &crate::fold::example(), &dek()).unwrap();
    insta::assert_snapshot!("fold", hex(&fold));
}

#[test]
fn a_record_reads_back_as_written() {
    let bytes = log::encode(&header(), &body(), &dek(), None);
    let record = log::decode(&bytes, &dek()).unwrap();
    assert_eq!((record.header, record.body), (header(), body()));
    let other = Key::new([5; 32]);
    assert!(log::decode(&bytes, &other).is_err(), "another key opens nothing");
}

#[test]
fn stream_keys_differ_by_machine_and_vault_key() {
    let keys = VaultKeys::new([7; 32]);
    assert_ne!(keys.stream_key(MachineId(1)), keys.stream_key(MachineId(2)));
    assert_ne!(keys.stream_key(MachineId(1)), VaultKeys::new([8; 32]).stream_key(MachineId(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsers_refuse_arbitrary_bytes_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = log::decode_body(&bytes);
        let _ = crate::segment::decode_extents(&bytes, &[]);
        let _ = checked_crc(&bytes);
        prop_assert!(crate::claims::decode(&bytes, VAULT, MACHINE, 3).is_err());
        prop_assert!(log::decode(&bytes, &dek()).is_err());
        prop_assert!(parse_tail(&id(), &dek(), 128, &[0; 32], &bytes).is_err());
        prop_assert!(VaultKeys::new([7; 32]).unwrap(&wrap(), &bytes).is_err());
        prop_assert!(crate::vault::decode(&bytes).is_err());
    }
}
