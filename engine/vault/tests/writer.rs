//! What a writer answers, case by case.

mod support;

use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Generation, MachineId, Record, Sectors, VolumeId, VolumeIndex, WriteSeq,
};
use redoubt_vault::{CommitError, MachineWriter, MemStore, Vault, VaultKeys};
use std::sync::Arc;
use support::{Seeded, run};

const MACHINE: MachineId = MachineId(4);

fn records() -> Vec<Record> {
    let changes = [
        Change::Attach { volume: VolumeIndex(0), id: VolumeId(1), sectors: Sectors(64) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
        Change::ResyncEnd,
    ];
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    changes.into_iter().enumerate().map(record).collect()
}

fn position(seq: u64, chain: u8) -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([chain; 32]) }
}

#[test]
fn the_same_sequence_with_another_chain_is_a_fork() {
    run(async {
        let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(1));
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &*dice).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
        writer.commit(records(), position(3, 7)).await.unwrap();
        let before = store.names();
        let fork = writer.commit(records(), position(3, 8)).await;
        assert_eq!(fork.unwrap_err(), CommitError::Fork(WriteSeq(3)));
        let older = BatchPosition { generation: Generation(0), ..position(4, 7) };
        assert_eq!(writer.commit(Vec::new(), older).await.unwrap_err(), CommitError::Fork(WriteSeq(4)));
        assert_eq!(store.names(), before, "a fork changes nothing");
        let again = writer.commit(records(), position(3, 7)).await.unwrap();
        assert_eq!(again.position, position(3, 7), "the true history is taken as before");
        // A later writer knows the chain from the log alone.
        let mut later = MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
        let fork = later.commit(Vec::new(), position(3, 8)).await;
        assert_eq!(fork.unwrap_err(), CommitError::Fork(WriteSeq(3)));
    });
}
