//! Seeds: what an import puts is what the head shows, only what differs is put, and nobody's log is taken.

mod support;

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, MachineId, Record, SECTOR_BYTES, Sectors, VolumeId,
    VolumeIndex, WriteSeq,
};
use redoubt_ports::InPlace;
use redoubt_vault::{
    CommitError, MachineReader, MachineWriter, MemStore, Seed, SeedDisk, SeedError, Seeded, Vault, VaultKeys,
};
use std::sync::Arc;
use support::{Seeded as Dice, run};

const MACHINE: MachineId = MachineId(7);
const BLOCK: usize = 64 << 10;

fn disk(id: u128, bytes: usize) -> SeedDisk {
    SeedDisk { id: VolumeId(id), name: format!("disk{id}"), sectors: Sectors(bytes as u64 / SECTOR_BYTES) }
}

/// An image whose blocks hold these bytes; zero is zeros. It ends within a block.
fn image(blocks: &[u8]) -> Vec<u8> {
    let mut image: Vec<u8> = blocks.iter().flat_map(|byte| vec![*byte; BLOCK]).collect();
    image.truncate(image.len() - 512);
    image
}

async fn begin(vault: &Vault, dice: &Arc<Dice>, disks: &[SeedDisk]) -> Result<Seed, SeedError> {
    Seed::begin(vault, MACHINE, disks, dice.clone(), Arc::new(InPlace)).await
}

/// Puts images, in parts of two blocks; parts of zeros as holes.
async fn import(vault: &Vault, dice: &Arc<Dice>, images: &[(u128, &[u8])]) -> Result<Seeded, SeedError> {
    let disks: Vec<SeedDisk> = images.iter().map(|(id, image)| disk(*id, image.len())).collect();
    let mut seed = begin(vault, dice, &disks).await?;
    for (at, (_, image)) in images.iter().enumerate() {
        put(&mut seed, at, image).await?;
    }
    seed.finish().await
}

async fn put(seed: &mut Seed, at: usize, image: &[u8]) -> Result<(), SeedError> {
    for (number, part) in image.chunks(2 * BLOCK).enumerate() {
        let first = (number * 2 * BLOCK) as u64 / SECTOR_BYTES;
        let extent = Extent::new(first, part.len() as u64 / SECTOR_BYTES);
        let bytes = part.iter().any(|byte| *byte != 0).then(|| Bytes::copy_from_slice(part));
        seed.put(at, extent, bytes).await?;
    }
    Ok(())
}

/// Reads a volume of the head.
async fn head(vault: &Vault, volume: u16) -> Vec<u8> {
    let reader = MachineReader::open(vault, MACHINE).await.unwrap();
    assert_eq!((reader.points(), reader.head().exact), (Vec::new(), false), "SX-2");
    let (view, volume) = (reader.head_view(), VolumeIndex(volume));
    let size = view.volumes()[&volume].sectors.0;
    let mut image = Vec::new();
    for first in (0..size).step_by(1 << 14) {
        image.extend(view.read(volume, Extent::new(first, (size - first).min(1 << 14))).await.unwrap());
    }
    image
}

async fn vault() -> (Vault, Arc<Dice>) {
    let dice = Dice::new(1);
    (Vault::init(Arc::new(MemStore::new()), VaultKeys::new([3; 32]), &*dice).await.unwrap(), dice)
}

#[test]
fn only_what_differs_is_put_whatever_was_imported_before() {
    run(async {
        let (vault, dice) = vault().await;
        let mut last: Option<Vec<u8>> = None;
        // Again, blocks that change, appear and go, a smaller disk, a larger one.
        for (blocks, put) in [
            (&[1, 2, 0, 4, 0, 6][..], 4),
            (&[1, 2, 0, 4, 0, 6], 0),
            (&[1, 9, 3, 0, 0, 6], 2),
            (&[0, 0, 3, 0, 0, 6], 0),
            (&[0, 0, 3], 1),
            (&[5, 0, 3, 3, 0, 0, 0, 8], 4),
            (&[0, 0], 0),
        ] {
            let image = image(blocks);
            let done = import(&vault, &dice, &[(1, &image)]).await.unwrap();
            assert!(head(&vault, 0).await == image, "{blocks:?}");
            assert_eq!(done.put_bytes.div_ceil(BLOCK as u64), put, "{blocks:?}");
            let data = blocks.iter().filter(|byte| **byte != 0).count() as u64;
            assert_eq!(done.data_bytes.div_ceil(BLOCK as u64), data, "{blocks:?}");
            last = Some(image);
        }
        assert!(last.is_some());
    });
}

#[test]
fn what_an_interrupted_import_put_stays_and_disks_keep_their_places() {
    run(async {
        let (vault, dice) = vault().await;
        let (a, b) = (image(&[1; 640]), image(&[7, 0, 7]));
        // Dropped between its first commit and the second.
        let mut seed = begin(&vault, &dice, &[disk(1, a.len())]).await.unwrap();
        put(&mut seed, 0, &a[..520 * BLOCK]).await.unwrap();
        drop(seed);
        let done = import(&vault, &dice, &[(1, &a)]).await.unwrap();
        assert_eq!(done.put_bytes, a.len() as u64 - (32 << 20), "one commit was durable");
        import(&vault, &dice, &[(2, &b)]).await.unwrap();
        import(&vault, &dice, &[(2, &b), (1, &a)]).await.unwrap();
        assert!(head(&vault, 0).await == a && head(&vault, 1).await == b);
    });
}

#[test]
fn a_protected_machine_takes_no_seed_and_keeps_its_writer() {
    run(async {
        let (vault, dice) = vault().await;
        let image = image(&[1, 2]);
        let mut late = begin(&vault, &dice, &[disk(1, image.len())]).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
        let changes = [
            Change::Attach { volume: VolumeIndex(0), id: VolumeId(1), sectors: Sectors(64) },
            Change::ResyncBegin { reason: ResyncReason::Initial },
        ];
        let record = |(seq, change)| Record { seq: WriteSeq(seq), change };
        let to = BatchPosition { generation: Generation(1), seq: WriteSeq(2), chain: Chain([1; 32]) };
        writer.commit((1..).zip(changes).map(record).collect(), to).await.unwrap();
        put(&mut late, 0, &image).await.unwrap();
        let fenced = late.finish().await.unwrap_err();
        assert!(matches!(fenced, SeedError::Commit(CommitError::Fenced { .. })), "{fenced:?}");
        let refused = begin(&vault, &dice, &[disk(1, image.len())]).await.err();
        assert_eq!(refused, Some(SeedError::Protected { seq: WriteSeq(2) }));
        let to = BatchPosition { seq: WriteSeq(3), ..to };
        let end = Record { seq: WriteSeq(3), change: Change::ResyncEnd };
        writer.commit(vec![end], to).await.expect("nobody claimed its log");
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        assert!(reader.head().exact);
    });
}

#[test]
fn there_is_a_place_for_so_many_disks_only() {
    run(async {
        let (vault, dice) = vault().await;
        let disks: Vec<SeedDisk> = (0..257).map(|id| disk(id, BLOCK)).collect();
        assert_eq!(begin(&vault, &dice, &disks).await.err(), Some(SeedError::TooManyDisks));
        assert!(begin(&vault, &dice, &disks[..256]).await.is_ok());
    });
}
