//! Points that stay open while a maintainer packs what they show elsewhere and deletes where it was.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_core::{Extent, SECTOR_BYTES};
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, PointView, Times, Vault,
    VaultKeys,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use support::model::{MACHINE, Shape, history, position, settings};
use support::stranger::KEY;
use support::{Oracle, Seeded, run};

/// Sectors of one read: a guest asks for a disk in many.
const READ_SECTORS: u64 = 32;

/// A store that takes its time, so that reads meet on their way.
struct Slow(Arc<MemStore>);

#[async_trait]
impl StoreAround for Slow {
    fn inner(&self) -> &dyn RawStore {
        &*self.0
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.0.get(key, range).await
    }
}

/// Reads all disks of a point by many reads at once.
async fn read_all(view: &PointView, of: &Oracle, marker: redoubt_core::MarkerId) {
    let reads = of.points[&marker].iter().flat_map(|(volume, image)| {
        let sectors = image.len() as u64 / SECTOR_BYTES;
        (0..sectors).step_by(READ_SECTORS as usize).map(move |first| async move {
            let extent = Extent::new(first, READ_SECTORS.min(sectors - first));
            let read = view.read(*volume, extent).await.unwrap_or_else(|error| panic!("{extent}: {error}"));
            assert!(read[..] == image[(first * SECTOR_BYTES) as usize..][..read.len()], "{extent}");
        })
    });
    futures::future::join_all(reads).await;
}

/// Brings the index of a point into memory: a read of it then goes straight to what it once said.
async fn look_up(view: &PointView) {
    for (volume, info) in view.volumes() {
        view.data_extents(*volume, Extent { lba: redoubt_core::Lba(0), sectors: info.sectors })
            .await
            .unwrap();
    }
}

/// Opens a point, lets a maintainer move what it shows, and reads it by reads that meet; returns whether anything moved.
async fn one(seed: u64) -> bool {
    let dice = Seeded::new(seed);
    let records = history(&dice, Shape { percent: 0, writers: 1, length: 200, wide: false });
    let mut oracle = Oracle::default();
    records.iter().for_each(|record| oracle.apply(record));
    let store = Arc::new(MemStore::new());
    let vault = Vault::init(store.clone(), VaultKeys::new(KEY), &*dice).await.unwrap();
    let mut writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await.unwrap();
    let keep = Ladder::new(vec![Rule::Newest { count: 4, which: Which::Any }]);
    let of = MaintainerSettings { every: 1, keep, ..MaintainerSettings::default() };
    let mut maintainer = Maintainer::claim(&vault, MACHINE, dice.clone(), of).await.unwrap();
    let (mut done, mut open) = (0, None);
    while done < records.len() {
        done = records.len().min(done + 1 + dice.below(10) as usize);
        writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
        while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
        if open.is_none() && done > records.len() / 4 {
            let vault = Vault::open(Arc::new(Slow(store.clone())), VaultKeys::new(KEY)).await.unwrap();
            let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
            if let Some(point) = reader.points().first().cloned() {
                let pin = vault.pin(MACHINE, point.id, &*dice).await.unwrap();
                let view = reader.view(point.id).unwrap();
                look_up(&view).await;
                open = Some((view, point.marker.id, pin, store.names()));
            }
        }
    }
    let Some((view, marker, _pin, names)) = open else { return false };
    read_all(&view, &oracle, marker).await;
    let is_content = |name: &&StoreKey| name.as_str().contains("/seg/") || name.as_str().contains("/log/");
    names.iter().filter(is_content).any(|name| store.peek(name).is_none())
}

#[test]
fn reads_that_meet_follow_what_was_packed_elsewhere_since() {
    let mut moved = 0;
    for seed in 0..8 {
        moved += usize::from(run(one(seed)));
    }
    assert!(moved >= 4, "content moved in {moved} of 8 histories");
}
