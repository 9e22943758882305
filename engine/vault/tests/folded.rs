//! Vaults whose log begins at a mark: the second reader and the scrub take the folds before it, and say of damage
//! there which kept points and ranges it takes.

mod support;

use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::StoreKey;
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultKeys,
};
use redoubt_verifier::prove;
use std::collections::BTreeSet;
use std::sync::Arc;
use support::model::{MACHINE, Shape, history, position, settings};
use support::stranger::{Images, KEY, Read, first_unit, hits_of, images, lost_for_the_engine, proof};
use support::{Oracle, Seeded, run};

/// Objects of each kind that are damaged, oldest first.
const SOME: usize = 4;

/// Writes a random history, of which a maintainer keeps few points and folds what it may.
fn vault(seed: u64) -> (Arc<MemStore>, Oracle) {
    let dice = Seeded::new(seed);
    let records = history(&dice, Shape { percent: 0, writers: 1, length: 180, wide: false });
    let store = Arc::new(MemStore::new());
    run(async {
        let vault = Vault::init(store.clone(), VaultKeys::new(KEY), &*dice).await.unwrap();
        let keep = Ladder::new(vec![Rule::Newest { count: 4, which: Which::Any }]);
        let of = MaintainerSettings { every: 1, keep, ..MaintainerSettings::default() };
        let mut done = 0;
        while done < records.len() {
            let mut writer =
                MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await.unwrap();
            let mut maintainer = Maintainer::claim(&vault, MACHINE, dice.clone(), of.clone()).await.unwrap();
            for _ in 0..4 {
                done = records.len().min(done + 1 + dice.below(10) as usize);
                writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
                while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
            }
            // Now and then somebody mounts what is there: these points stay.
            let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
            if let Some(point) = reader.points().last().filter(|_| dice.chance(50)) {
                drop(vault.pin(MACHINE, point.id, &*dice).await.unwrap());
            }
        }
    });
    let mut oracle = Oracle::default();
    records.iter().for_each(|record| oracle.apply(record));
    (store, oracle)
}

fn names(store: &MemStore, part: &str) -> Vec<StoreKey> {
    store.names().into_iter().filter(|name| name.as_str().contains(part)).collect()
}

/// The points that the engine lists.
fn live(store: &Arc<MemStore>) -> BTreeSet<(u64, u16)> {
    run(async {
        let vault = Vault::open(store.clone(), VaultKeys::new(KEY)).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        reader.points().iter().map(|point| (point.id.slot, point.id.ordinal)).collect()
    })
}

/// The objects below the mark that a fold names, as far as it can be told from outside: what is left of them.
fn behind_the_fold(store: &MemStore, mark: u64) -> Vec<StoreKey> {
    let slot = |name: &StoreKey| u64::from_str_radix(name.as_str().rsplit('/').next().unwrap(), 16).unwrap();
    let containers = names(store, "/log/").into_iter().filter(|name| slot(name) <= mark);
    let apart =
        names(store, "/seg/").into_iter().take(SOME).chain(names(store, "/cseg/").into_iter().take(SOME));
    containers.take(SOME).chain(apart).collect()
}

#[test]
fn kept_points_of_a_folded_stretch_read_as_they_were_and_the_proof_says_what_it_stands_on() {
    let mut kept = 0;
    for seed in 0..4 {
        let (store, oracle) = vault(seed);
        let proof = proof(&store);
        assert_eq!((&proof.broken, proof.damage.len(), proof.hits.len()), (&None, 0, 0), "seed {seed}");
        let folded = proof.folded.clone().expect("a stretch is folded");
        assert!(folded.slot > 1 && folded.seq > 0 && folded.catalogue > 1, "{folded:?}");
        let found: BTreeSet<_> = proof.points.iter().map(|point| (point.slot, point.ordinal)).collect();
        assert!(live(&store).is_subset(&found), "seed {seed}: every live point is proven");
        for point in &proof.points {
            let marker = redoubt_core::MarkerId(u128::from_be_bytes(point.marker));
            let wanted: Images =
                oracle.points[&marker].iter().map(|(volume, image)| (volume.0, image.clone())).collect();
            assert!(
                images(&store, &proof, point).0 == wanted,
                "seed {seed}: {}.{}",
                point.slot,
                point.ordinal
            );
            kept += usize::from(point.slot <= folded.slot);
        }
        // A point of the folded stretch needs no log behind it.
        let limit = prove(&Read(&store), &KEY, &MACHINE.to_string(), Some(2), |_, _| {}).unwrap();
        assert_eq!((limit.broken, limit.slots), (None, folded.slot));
    }
    assert!(kept > 0, "some kept point lies in a folded stretch");
}

#[test]
fn a_damaged_unit_behind_a_fold_takes_exactly_what_the_engine_cannot_read() {
    let mut met = BTreeSet::new();
    for seed in 0..2 {
        let (store, _) = vault(seed);
        let mark = proof(&store).folded.map_or(0, |folded| folded.slot);
        for name in behind_the_fold(&store, mark) {
            let whole = store.peek(&name).unwrap();
            let mut bytes = whole.to_vec();
            let at = first_unit(&name, &whole);
            if at >= bytes.len() {
                continue;
            }
            bytes[at] ^= 1;
            store.tamper(&name, Some(bytes.into()));
            let found = proof(&store);
            // A catalogue that is older may need it, or nothing does any more, or it has no unit.
            if found.broken.is_none() && !found.damage.is_empty() {
                let lost = lost_for_the_engine(&store);
                let mut hits = hits_of(&found);
                // Points that were given up since are in the log still, and in no list.
                let live = live(&store);
                hits.retain(|(point, ..)| live.contains(point));
                assert_eq!(hits, lost, "seed {seed}: {name}");
                let is_kept = hits.iter().any(|((slot, _), ..)| *slot <= mark);
                met.insert((name.as_str().contains("/log/"), is_kept));
            }
            store.tamper(&name, Some(whole));
        }
    }
    // Small segments behind records that were folded are packed elsewhere.
    assert!(met.contains(&(false, true)), "{met:?}");
}

#[test]
fn a_damaged_fold_proves_nothing_behind_it_and_a_damaged_catalogue_leaves_the_one_before() {
    let (store, _) = vault(1);
    let whole = proof(&store);
    let rot = |name: &StoreKey| {
        let bytes = store.peek(name).unwrap();
        let mut rotten = bytes.to_vec();
        rotten[bytes.len() / 2] ^= 1;
        store.tamper(name, Some(rotten.into()));
        let found = proof(&store);
        store.tamper(name, Some(bytes));
        found
    };
    let mut broken = 0;
    for name in names(&store, "/fold/") {
        let found = rot(&name);
        // One of an older catalogue is nobody's business.
        let Some(damage) = &found.broken else { continue };
        assert_eq!(damage.object, name.as_str());
        let known: BTreeSet<_> = found.points.iter().chain(&found.lost).map(|point| point.seq).collect();
        assert_eq!(known, whole.points.iter().map(|point| point.seq).collect(), "each is named");
        broken += 1;
    }
    assert!(broken > 0);
    let found = rot(&names(&store, "/cat/")[0]);
    assert_eq!(found.broken, None, "the one before and its folds are there");
    assert!(found.folded.unwrap().catalogue < whole.folded.unwrap().catalogue);
    for name in names(&store, "/cat/") {
        store.tamper(&name, None);
    }
    let found = proof(&store);
    assert!(found.points.is_empty() && found.broken.is_some(), "what is left of the log is no beginning");
}
