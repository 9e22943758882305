//! What a reader says that was written from `engine/docs/vault-format.md` alone, and shares no code with the
//! vault: the document says what the bytes are, and damage is mapped to the points it hits.

mod support;

use bytes::Bytes;
use redoubt_ports::StoreKey;
use redoubt_vault::{MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultKeys};
use redoubt_verifier::{Fault, prove};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::model::{MACHINE, Shape, history, position, settings};
use support::stranger::{Images, KEY, Read, first_unit, hits_of, images, lost_for_the_engine, proof};
use support::{Oracle, Seeded, run};

/// Writes a random history in commits of random shapes, by several writers.
fn vault(seed: u64) -> (Arc<MemStore>, Oracle) {
    let dice = Seeded::new(seed);
    let records = history(&dice, Shape { percent: 0, writers: 1, length: 60, wide: false });
    let store = Arc::new(MemStore::new());
    run(async {
        let vault = Vault::init(store.clone(), VaultKeys::new(KEY), &*dice).await.unwrap();
        let mut done = 0;
        while done < records.len() {
            let mut writer =
                MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await.unwrap();
            // What a maintainer adds to the vault is nothing that this reader needs, as long as the whole log is
            // there; what it needs once some was folded is another test's (`folded`).
            let mut maintainer = Maintainer::claim(
                &vault,
                MACHINE,
                dice.clone(),
                MaintainerSettings { every: 1, folds: false, ..MaintainerSettings::default() },
            )
            .await
            .unwrap();
            for _ in 0..3 {
                done = records.len().min(done + 1 + dice.below(14) as usize);
                writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
                while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
            }
        }
    });
    let mut oracle = Oracle::default();
    records.iter().for_each(|record| oracle.apply(record));
    (store, oracle)
}

#[test]
fn a_reader_written_from_the_document_sees_every_point_as_it_was() {
    for seed in 0..5 {
        let (store, oracle) = vault(seed);
        let proof = proof(&store);
        assert_eq!((&proof.broken, proof.damage.len(), proof.hits.len()), (&None, 0, 0), "seed {seed}");
        assert_eq!(
            proof.slots as usize,
            store.names().iter().filter(|n| n.as_str().contains("/log/")).count()
        );
        let found: Vec<_> = proof.points.iter().map(|point| point.seq).collect();
        let wanted: Vec<_> = oracle.order.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(found, wanted, "seed {seed}: the points are those that were marked");
        for (point, (seq, marker)) in proof.points.iter().zip(&oracle.order) {
            assert_eq!(point.marker, marker.0.to_be_bytes());
            let wanted: Images =
                oracle.points[marker].iter().map(|(volume, image)| (volume.0, image.clone())).collect();
            assert!(
                images(&store, &proof, point).0 == wanted,
                "seed {seed}: the point at {seq} reads as it was"
            );
        }
    }
}

#[test]
fn a_damaged_unit_is_mapped_to_exactly_the_points_and_ranges_that_the_engine_cannot_read() {
    let (mut met, mut met_in_log) = (0, false);
    for seed in 0..4 {
        let (store, _) = vault(seed);
        // The first byte of the first unit of some segment: one of zeros alone has none.
        let rot = |name: StoreKey| {
            let whole = store.peek(&name).unwrap();
            let mut bytes = whole.to_vec();
            *bytes.get_mut(first_unit(&name, &whole))? ^= 1;
            store.tamper(&name, Some(bytes.into()));
            let found = proof(&store);
            if found.damage.is_empty() {
                store.tamper(&name, Some(whole));
                return None;
            }
            Some((name, found))
        };
        // In turn one that is an object of its own, and one behind its record in the log.
        let kind = if seed % 2 == 0 { "/seg/" } else { "/log/" };
        let segments = store.names().into_iter().filter(|name| name.as_str().contains(kind));
        let Some((name, proof)) = segments.skip(seed as usize).find_map(rot) else { continue };
        assert_eq!(proof.broken, None, "seed {seed}: rot of data breaks no chain");
        met_in_log |= kind == "/log/";
        let wanted = lost_for_the_engine(&store);
        let found = hits_of(&proof);
        assert_eq!(found, wanted, "seed {seed}");
        let [damage] = &proof.damage[..] else { panic!("one damaged unit: {:?}", proof.damage) };
        let at = first_unit(&name, &store.peek(&name).unwrap()) as u64;
        assert!(damage.object == name.as_str() && damage.bytes.start == at, "{damage:?}");
        for point in &proof.points {
            let of_point = found.iter().filter(|(of, ..)| *of == (point.slot, point.ordinal));
            let of_point: BTreeSet<_> = of_point.map(|(_, volume, sector)| (*volume, *sector)).collect();
            assert_eq!(images(&store, &proof, point).1, of_point, "the content says the same");
        }
        met += found.len();
    }
    assert!(met > 0 && met_in_log, "some point was hit");
}

#[test]
fn any_flipped_byte_of_log_key_or_segment_is_noticed_and_never_read() {
    let (store, _) = vault(1);
    let dice = Seeded::new(9);
    let whole = proof(&store).points;
    let others = ["/claim/", "/cat/", "/idx/"];
    let counts = |name: &&StoreKey| !others.iter().any(|other| name.as_str().contains(other));
    for name in store.names().iter().filter(counts) {
        let bytes = store.peek(name).unwrap();
        for at in [dice.below(bytes.len() as u64), bytes.len() as u64 - 1] {
            let mut rotten = bytes.to_vec();
            rotten[at as usize] ^= 1 << (at % 8);
            store.tamper(name, Some(Bytes::from(rotten)));
            match prove(&Read(&store), &KEY, &MACHINE.to_string(), None, |_, _| {}) {
                Err(fault) => {
                    let Fault::Damage(damage) = fault else { panic!("{fault:?}") };
                    assert_eq!(damage.object, name.as_str());
                }
                Ok(proof) => {
                    let mut noticed = proof.damage.iter().chain(&proof.broken);
                    // Vault object and keys are stored twice: one of the two is enough.
                    let is_twice = name.as_str().starts_with("vault") || name.as_str().contains("/key/");
                    let is_spare = is_twice && proof.points == whole;
                    let is_noticed = noticed.any(|damage| damage.object == name.as_str());
                    assert!(is_noticed || is_spare, "{name} byte {at}");
                    let known = proof.points.iter().chain(&proof.lost).count();
                    assert!(proof.broken.is_some() || known == whole.len(), "rot of data takes no point");
                    assert!(known <= whole.len() && proof.points[..] == whole[..proof.points.len()]);
                }
            }
        }
        store.tamper(name, Some(bytes));
    }
}

#[test]
fn a_log_that_is_cut_mixed_up_or_of_another_key_proves_nothing_behind_that() {
    let (store, _) = vault(2);
    let slot = |at: u64| StoreKey::new(format!("g/{MACHINE}/log/{at:016x}"));
    let whole = proof(&store);
    let (three, four) = (store.peek(&slot(3)).unwrap(), store.peek(&slot(4)).unwrap());
    for (damage, words) in
        [([None, Some(four.clone())], "missing"), ([Some(four), Some(three)], "not the record")]
    {
        let before = [3, 4].map(|at| store.peek(&slot(at)));
        for (at, bytes) in [3, 4].into_iter().zip(damage) {
            store.tamper(&slot(at), bytes);
        }
        let found = proof(&store);
        assert_eq!(found.slots, 2);
        assert!(found.broken.unwrap().what.contains(words));
        assert!(found.points.iter().all(|point| point.slot < 3));
        for (at, bytes) in [3, 4].into_iter().zip(before) {
            store.tamper(&slot(at), bytes);
        }
    }
    // A point behind the end is not proven by what there is.
    let end = whole.slots + 1;
    let beyond = prove(&Read(&store), &KEY, &MACHINE.to_string(), Some(end), |_, _| {}).unwrap();
    assert!(beyond.broken.unwrap().what.contains("ends before"));
    let wrong = prove(&Read(&store), &[4; 32], &MACHINE.to_string(), None, |_, _| {});
    assert!(matches!(wrong, Err(Fault::Damage(damage)) if damage.what.contains("the key is not")));
}
