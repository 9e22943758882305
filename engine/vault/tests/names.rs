//! Names of a machine and its volumes: told to a writer, kept over takeovers, read from log and catalogue alone.

mod support;

use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, MachineId, Marker, MarkerId, MarkerKind, Names, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultKeys,
};
use std::sync::Arc;
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(7);
const OLD: VolumeId = VolumeId(1);
const NEW: VolumeId = VolumeId(2);

fn names(machine: &str, volumes: &[(VolumeId, &str)]) -> Names {
    let mut names = Names::default();
    names.call_machine(machine);
    volumes.iter().for_each(|(id, name)| names.call_volume(*id, name));
    names
}

/// Commits a point of a machine whose only volume is this one.
async fn commit(writer: &mut MachineWriter, volume: VolumeId) {
    let from = writer.head().position.seq.0;
    let marker = Marker { id: MarkerId(u128::from(from) + 1), kind: MarkerKind::Crash, wall: WallTime(from) };
    let changes = [
        Change::Attach { volume: VolumeIndex(0), id: volume, sectors: Sectors(64) },
        Change::ResyncBegin { reason: ResyncReason::Requested },
        Change::ResyncEnd,
        Change::Marker(marker),
    ];
    let records = (from + 1..).zip(changes).map(|(seq, change)| Record { seq: WriteSeq(seq), change });
    let (seq, chain) = (WriteSeq(from + 4), Chain([from as u8; 32]));
    let to = BatchPosition { generation: Generation(1), seq, chain };
    writer.commit(records.collect(), to).await.unwrap();
}

#[test]
fn old_points_keep_names_that_a_later_writer_was_never_told() {
    run(async {
        let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
        let vault = Vault::init(store.clone(), VaultKeys::new([3; 32]), &*dice).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
        commit(&mut writer, OLD).await;
        assert_eq!(vault.names(MACHINE).await.unwrap(), Names::default(), "nobody said");
        writer.naming().tell(names("erp", &[(OLD, "data")]));
        commit(&mut writer, OLD).await;
        // Another disk takes the old one's place, at a process server that knew nothing of it, and its name.
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
        writer.naming().tell(names("erp-new", &[(NEW, "data")]));
        commit(&mut writer, NEW).await;
        let known = names("erp-new", &[(OLD, "data"), (NEW, "data")]);
        assert_eq!(vault.names(MACHINE).await.unwrap(), known);
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        assert_eq!(reader.names(), known);
        // What a mount of an old point reads: the catalogue, and no log behind it.
        let settings = MaintainerSettings { every: 1, ..MaintainerSettings::default() };
        let mut maintainer = Maintainer::claim(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
        let first = reader.points()[0].id;
        let (reader, _) = MachineReader::open_at(&vault, MACHINE, first).await.unwrap();
        assert_eq!(reader.names(), known);
        writer.naming().tell(names("", &[(NEW, "ledger")]));
        commit(&mut writer, NEW).await;
        assert_eq!(
            vault.names(MACHINE).await.unwrap(),
            names("erp-new", &[(OLD, "data"), (NEW, "ledger")]),
            "renamed"
        );
        let name = b"erp-new";
        for object in store.names() {
            let bytes = store.peek(&object).unwrap();
            assert!(
                !bytes.windows(name.len()).any(|part| part == name),
                "{object} shows a name to the store"
            );
        }
        // The newest record is lost: what the one before says is known still.
        let newest = store.names().into_iter().rfind(|name| name.as_str().contains("/log/")).unwrap();
        store.tamper(&newest, Some(vec![0; 300].into()));
        assert_eq!(vault.names(MACHINE).await.unwrap(), known);
    });
}
