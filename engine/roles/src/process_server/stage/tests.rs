//! What the stage keeps in memory is bounded, and the same as what its files hold.

use super::{KEPT_BYTES_MAX, Stage, StagedBatch};
use crate::testing::MemFiles;
use bytes::Bytes;
use redoubt_core::change::{Batch, Change};
use redoubt_core::{
    BatchPosition, Chain, Generation, Lba, MachineId, Record, SealedBatch, SealedMeta, VolumeIndex, WriteSeq,
};
use redoubt_ports::Files;
use redoubt_wire::{StreamKey, seal};
use std::sync::Arc;

const MACHINE: MachineId = MachineId(7);
const GENERATION: Generation = Generation(1);

/// A chained stream, one write of so many bytes a batch.
fn stream(count: u64, bytes: usize) -> Vec<SealedBatch> {
    let key = StreamKey::new([9; 32]);
    let mut prev = Chain::default();
    let batch = |seq: u64| {
        let payload = Bytes::from(vec![seq as u8; bytes]);
        let change = Change::Write { volume: VolumeIndex(0), lba: Lba(0), payload };
        let batch = Batch::new(GENERATION, vec![Record { seq: WriteSeq(seq), change }]).unwrap();
        let sealed = seal(&key, MACHINE, &batch, prev);
        prev = sealed.meta.chain;
        sealed
    };
    (1..=count).map(batch).collect()
}

async fn staged(directory: &Arc<MemFiles>, batches: &[SealedBatch]) -> Stage {
    let mut stage = Stage::open(directory.clone(), MACHINE).await.unwrap();
    for batch in batches {
        stage.append(batch.clone()).await.unwrap();
    }
    stage
}

fn kept(batches: &[StagedBatch]) -> Vec<bool> {
    batches.iter().map(|batch| batch.kept.is_some()).collect()
}

#[tokio::test]
async fn a_batch_is_the_same_from_memory_and_from_the_file() {
    let batches = stream(3, 4096);
    let mut stage = staged(&Arc::default(), &batches).await;
    let mut job = stage.hand_over(WriteSeq(0), WriteSeq(2));
    assert_eq!(kept(&job), [true, true]);
    for (handed, batch) in job.iter_mut().zip(&batches) {
        assert_eq!(handed.take().await.unwrap(), batch.bytes, "from memory");
        assert!(handed.kept.is_none());
        assert_eq!(handed.take().await.unwrap(), batch.bytes, "from the file");
    }
    assert_eq!(stage.entries().len(), 3, "they stay staged");
    let again = stage.hand_over(WriteSeq(0), WriteSeq(3));
    assert_eq!(kept(&again), [false, false, true], "each copy is handed over once");
}

#[tokio::test]
async fn memory_is_bounded_and_what_lies_behind_the_bound_is_read_from_the_file() {
    // The stage never looks into a batch: sealing so much would only cost time.
    let length = KEPT_BYTES_MAX as u32 / 8;
    let meta = SealedMeta { bytes: length, ..stream(1, 4096)[0].meta };
    let batch = |seq: u64| {
        let meta = SealedMeta { first: WriteSeq(seq), last: WriteSeq(seq), ..meta };
        SealedBatch { meta, bytes: Bytes::from(vec![seq as u8; length as usize]) }
    };
    let batches: Vec<SealedBatch> = (1..=9).map(batch).collect();
    let mut stage = staged(&Arc::default(), &batches).await;
    assert_eq!(stage.kept_bytes, KEPT_BYTES_MAX);
    let mut job = stage.hand_over(WriteSeq(0), WriteSeq(9));
    assert_eq!(kept(&job), [true, true, true, true, true, true, true, true, false]);
    assert!(job[8].take().await.unwrap() == batches[8].bytes, "from the file");
    assert_eq!(stage.kept_bytes, 0, "what was handed over makes room");
}

#[tokio::test]
async fn a_job_begins_behind_the_one_before_it() {
    let mut stage = staged(&Arc::default(), &stream(4, 4096)).await;
    let mut sequences = |after, through| -> Vec<u64> {
        let job = stage.hand_over(WriteSeq(after), WriteSeq(through));
        job.iter().map(|batch| batch.meta.last.0).collect()
    };
    assert_eq!(sequences(0, 2), [1, 2]);
    assert_eq!(sequences(2, 4), [3, 4]);
    assert_eq!(sequences(0, 1), [1], "again, as after a failure");
    assert!(sequences(4, 4).is_empty());
}

#[tokio::test]
async fn what_leaves_the_stage_leaves_memory() {
    let batches = stream(6, 4096);
    let one = batches[0].bytes.len() as u64;
    let directory = Arc::default();
    let mut stage = staged(&directory, &batches).await;
    stage.trim(WriteSeq(2)).await;
    assert_eq!((stage.bytes, stage.kept_bytes), (4 * one, 4 * one));
    stage.hand_over(WriteSeq(0), WriteSeq(3));
    assert_eq!((stage.bytes, stage.kept_bytes), (4 * one, 3 * one));
    stage.cut(2).await.unwrap();
    assert_eq!((stage.bytes, stage.kept_bytes), (2 * one, one));
    // A start finds files only.
    let mut stage = Stage::open(directory, MACHINE).await.unwrap();
    stage.settle(BatchPosition { generation: GENERATION, ..batches[2].meta.position() }).await.unwrap();
    assert_eq!((stage.bytes, stage.kept_bytes), (one, 0));
    assert_eq!(stage.entries.len(), 1);
}

#[tokio::test]
async fn a_start_writes_again_what_is_not_vaulted_and_nothing_else() {
    let batches = stream(3, 4096);
    let directory: Arc<MemFiles> = Arc::default();
    staged(&directory, &batches).await;
    let vaulted = |last: usize| BatchPosition { generation: GENERATION, ..batches[last].meta.position() };
    directory.fail_writes(Some("stage-"));
    let mut stage = Stage::open(directory.clone(), MACHINE).await.unwrap();
    assert!(stage.settle(vaulted(1)).await.is_err(), "the third batch is not durable before it is written");
    let mut stage = Stage::open(directory.clone(), MACHINE).await.unwrap();
    stage.settle(vaulted(2)).await.expect("nothing is left to be written");
    assert!(directory.list().await.unwrap().is_empty());
}
