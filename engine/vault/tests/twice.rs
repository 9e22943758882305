//! The vault object and the wrapped data keys are stored twice: damage of either takes nothing and is told, and the
//! next writer makes it good.

mod support;

use bytes::Bytes;
use redoubt_ports::StoreKey;
use redoubt_vault::scrub::{Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultError, VaultKeys};
use std::sync::Arc;
use support::model::{MACHINE, Shape, history, position, settings};
use support::{Seeded, run, stranger};

fn keys() -> VaultKeys {
    VaultKeys::new([3; 32])
}

/// A vault of one machine with two data keys, and how many points it has.
async fn vault() -> (Arc<MemStore>, usize) {
    let dice = Seeded::new(11);
    let records = history(&dice, Shape { percent: 0, writers: 1, length: 30, wide: false });
    let store = Arc::new(MemStore::new());
    let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
    for done in [records.len() / 2, records.len()] {
        let settings = settings(&dice);
        let mut writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
        if done < records.len() {
            vault.rotate(MACHINE, &*dice).await.unwrap();
        }
    }
    let points = points(&store).await.unwrap().0;
    assert!(points > 0);
    (store, points)
}

/// How many points can be read, and what was told on the way.
async fn points(store: &Arc<MemStore>) -> Result<(usize, Vec<VaultError>), VaultError> {
    let vault = Vault::open(store.clone(), keys()).await?;
    let reader = MachineReader::open(&vault, MACHINE).await?;
    Ok((reader.points().len(), reader.findings()))
}

/// The objects that are stored twice.
fn pairs(store: &MemStore) -> Vec<StoreKey> {
    let twice = |name: &StoreKey| name.as_str().starts_with("vault") || name.as_str().contains("/key/");
    store.names().into_iter().filter(twice).collect()
}

fn other(name: &StoreKey) -> StoreKey {
    StoreKey::new(match name.as_str().strip_suffix(".twin") {
        Some(first) => first.to_owned(),
        None => format!("{name}.twin"),
    })
}

/// What may befall an object: lost, cut short, or one byte changed.
fn damages(body: &Bytes) -> Vec<Option<Bytes>> {
    let flipped = |at: usize| {
        let mut body = body.to_vec();
        body[at] ^= 1;
        Some(Bytes::from(body))
    };
    let ends = [0, body.len() / 2, body.len() - 1].map(|end| Some(body.slice(..end)));
    let mut all: Vec<_> = (0..body.len()).map(flipped).collect();
    all.extend(ends);
    all.push(None);
    all
}

#[test]
fn damage_of_one_of_two_takes_nothing_is_told_and_made_good_by_the_next_writer() {
    run(async {
        let (store, count) = vault().await;
        let names = pairs(&store);
        assert_eq!(names.len(), 6, "{names:?}");
        for name in names {
            let body = store.peek(&name).unwrap();
            assert_eq!(store.peek(&other(&name)), Some(body.clone()), "TX-1");
            for damage in damages(&body) {
                store.tamper(&name, damage.clone());
                let (found, told) = points(&store).await.unwrap();
                assert_eq!(found, count, "{name}");
                let is_first = !name.as_str().ends_with(".twin");
                let is_told = |told: &VaultError| match told {
                    VaultError::Damaged { object, .. } => object == name.as_str(),
                    _ => false,
                };
                assert_eq!(told.iter().any(is_told), is_first, "{name}: {told:?}");
                // The second reader needs no more than the first.
                let proof = redoubt_verifier::prove(
                    &stranger::Read(&store),
                    &[3; 32],
                    &MACHINE.to_string(),
                    None,
                    |_, _| {},
                )
                .unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
                assert_eq!(proof.points.len(), count);
            }
            let dice = Seeded::new(12);
            let vault = Vault::open(store.clone(), keys()).await.unwrap();
            MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
            let healed = if name.as_str().contains("/key/00000001") { None } else { Some(body.clone()) };
            assert_eq!(
                store.peek(&name),
                healed,
                "{name}: a key that nobody seals with waits for its next use"
            );
            store.tamper(&name, Some(body));
        }
    });
}

#[test]
fn both_of_two_damaged_is_an_error_that_names_the_object_and_makes_no_new_vault() {
    run(async {
        let (store, _) = vault().await;
        for name in ["vault", "vault.twin"] {
            store.tamper(&StoreKey::new(name), Some(Bytes::from_static(b"rot")));
        }
        let error = Vault::open(store.clone(), keys()).await.unwrap_err();
        assert!(error.to_string().contains("vault"), "{error}");
        for lost in ["vault", "vault.twin"] {
            store.tamper(&StoreKey::new(lost), None);
            if lost == "vault" {
                let error = Vault::init(store.clone(), keys(), &*Seeded::new(1)).await.unwrap_err();
                assert_eq!(error, VaultError::AlreadyInitialised);
            }
        }
    });
}

#[test]
fn a_scrub_names_the_damaged_one_and_says_that_it_takes_nothing() {
    run(async {
        let (store, _) = vault().await;
        for name in pairs(&store) {
            let body = store.peek(&name).unwrap();
            for damage in [None, Some(body.slice(..body.len() - 1))] {
                store.tamper(&name, damage);
                let settings = ScrubSettings::default();
                let scrub =
                    Scrub::with_keys(store.clone(), keys(), Arc::new(redoubt_ports::InPlace), settings);
                let report = scrub.await.unwrap().machine(MACHINE, &ScrubWatch::default()).await.unwrap();
                assert_eq!(report.damage.len(), 1, "{name}: {:?}", report.damage);
                assert_eq!(report.damage[0].object, name.as_str());
                assert!(matches!(report.damage[0].takes, Takes::Nothing(_)), "{:?}", report.damage);
            }
            store.tamper(&name, Some(body));
        }
    });
}

/// A process server made a machine's first data key just as the vault key was replaced, and never used it.
#[test]
fn a_key_that_only_a_replaced_vault_key_opens_is_no_obstacle() {
    run(async {
        let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(9));
        let old = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
        let new = VaultKeys::new([4; 32]);
        old.rewrap(&new, &*dice).await.unwrap();
        // It looked before the announcement, and puts its key after the list of the re-wrap.
        let refused = MachineWriter::claim(&old, MACHINE, dice.clone()).await.unwrap_err();
        assert!(matches!(refused, VaultError::KeyReplaced { .. }), "{refused}");
        assert!(store.names().iter().any(|name| name.as_str().ends_with("/key/00000001")));
        let vault = Vault::open(store.clone(), new.clone()).await.unwrap();
        let mut writer = MachineWriter::claim(&vault, MACHINE, dice.clone()).await.unwrap();
        let records = history(&dice, Shape { percent: 0, writers: 1, length: 30, wide: false });
        let end = position(records.len() as u64);
        writer.commit(records, end).await.unwrap();
        let vault = Vault::open(store.clone(), new).await.unwrap();
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        assert_eq!(reader.head().position, end);
    });
}
