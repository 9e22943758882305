//! A second reader of a store in memory, and what both readers say of it.

use super::model::MACHINE;
use super::run;
use redoubt_ports::StoreKey;
use redoubt_vault::{MemStore, PointId, Vault, VaultKeys};
use redoubt_verifier::{Content, Hit, Objects, Point, Proof, content, prove};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const KEY: [u8; 32] = [3; 32];
/// Images of a machine's volumes, by ordinal.
pub(crate) type Images = BTreeMap<u16, Vec<u8>>;

pub(crate) struct Read<'a>(pub(crate) &'a MemStore);

impl Objects for Read<'_> {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.peek(&StoreKey::new(name)).map(|bytes| bytes.to_vec()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        let names = self.0.names().into_iter().map(|name| name.as_str().to_owned());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

pub(crate) fn proof(store: &MemStore) -> Proof {
    prove(&Read(store), &KEY, &MACHINE.to_string(), None, |_, _| {}).unwrap()
}

/// Reads all of a point, and the sectors that are lost.
pub(crate) fn images(store: &MemStore, proof: &Proof, point: &Point) -> (Images, BTreeSet<(u16, u64)>) {
    let size =
        |(volume, (_, sectors)): (&u16, &([u8; 16], u64))| (*volume, vec![0xee; *sectors as usize * 512]);
    let mut images: Images = point.volumes.iter().map(size).collect();
    let (mut lost, mut seen) = (BTreeSet::new(), BTreeSet::new());
    content(&Read(store), proof, point, |volume, sectors, content| {
        for sector in sectors.clone() {
            assert!(seen.insert((volume, sector)), "each sector once");
        }
        let place =
            &mut images.get_mut(&volume).unwrap()[sectors.start as usize * 512..sectors.end as usize * 512];
        match content {
            Content::Zeros => place.fill(0),
            Content::Data(data) => place.copy_from_slice(data),
            Content::Lost => lost.extend(sectors.map(|sector| (volume, sector))),
        }
        Ok(())
    })
    .unwrap();
    let all: u64 = point.volumes.values().map(|(_, sectors)| sectors).sum();
    assert_eq!(seen.len() as u64, all, "every sector");
    (images, lost)
}

/// Which sectors of which point both readers must call lost.
pub(crate) fn lost_for_the_engine(store: &Arc<MemStore>) -> BTreeSet<((u64, u16), u16, u64)> {
    run(async {
        let vault = Vault::open(store.clone(), VaultKeys::new(KEY)).await.unwrap();
        let reader = redoubt_vault::MachineReader::open(&vault, MACHINE).await.unwrap();
        let mut lost = BTreeSet::new();
        for point in reader.points() {
            let PointId { slot, ordinal } = point.id;
            let view = reader.view(point.id).unwrap();
            for (volume, info) in view.volumes() {
                for sector in 0..info.sectors.0 {
                    let extent = redoubt_core::Extent::new(sector, 1);
                    if view.read(*volume, extent).await.is_err() {
                        lost.insert(((slot, ordinal), volume.0, sector));
                    }
                }
            }
        }
        lost
    })
}

/// Where the first unit of an object's segment begins: behind the record in a slot.
pub(crate) fn first_unit(name: &StoreKey, bytes: &[u8]) -> usize {
    let body = |bytes: &[u8]| 144 + u32::from_le_bytes(bytes[116..120].try_into().unwrap()) as usize;
    128 + if name.as_str().contains("/log/") { body(bytes) } else { 0 }
}

/// Which sectors of which point the second reader calls lost.
pub(crate) fn hits_of(proof: &Proof) -> BTreeSet<((u64, u16), u16, u64)> {
    let sectors = |hit: &Hit| {
        let (point, volume) = (hit.point, hit.volume);
        hit.sectors.clone().map(move |sector| (point, volume, sector)).collect::<Vec<_>>()
    };
    proof.hits.iter().flat_map(sectors).collect()
}
