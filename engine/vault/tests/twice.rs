//! The vault object and the wrapped data keys are stored twice: damage of either takes nothing and is told, and the
//! next writer makes it good.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::scrub::{Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{MachineReader, MachineWriter, MemStore, Vault, VaultError, VaultKeys};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
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

/// What a power loss may leave of an object.
type Outcomes = BTreeSet<Option<Bytes>>;

/// A moment: all that can be read, and what a power loss may make of two of it.
type Moment = (BTreeMap<StoreKey, Bytes>, BTreeMap<StoreKey, Outcomes>);

/// A directory on a disk with a volatile cache: a put is durable on its return, and so is what it finds; a delete may
/// come undone. Remembers every moment of a pair.
struct Watched {
    inner: Arc<MemStore>,
    whole: Bytes,
    pair: Mutex<BTreeMap<StoreKey, Outcomes>>,
    moments: Mutex<Vec<Moment>>,
}

impl Watched {
    fn objects(&self) -> BTreeMap<StoreKey, Bytes> {
        self.inner
            .names()
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.inner.peek(&name)?)))
            .collect()
    }

    /// An effect on an object of the pair: changes what a power loss may leave of it.
    fn effect(&self, key: &StoreKey, change: impl FnOnce(&mut Outcomes)) {
        let mut pair = self.pair.lock().unwrap();
        if let Some(outcomes) = pair.get_mut(key) {
            change(outcomes);
        }
        self.moments.lock().unwrap().push((self.objects(), pair.clone()));
    }
}

#[async_trait]
impl StoreAround for Watched {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let put = self.inner.put_if_absent(key, body).await;
        let found = self.inner.peek(key);
        self.effect(key, |outcomes| _ = outcomes.insert(found.clone()));
        self.effect(key, |outcomes| *outcomes = BTreeSet::from([found.clone()]));
        put
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        if let Some(outcomes) = self.pair.lock().unwrap().get(&other(key)) {
            assert_eq!(outcomes, &BTreeSet::from([Some(self.whole.clone())]), "TX-2, as {key} goes");
        }
        self.inner.delete(key).await?;
        self.effect(key, |outcomes| _ = outcomes.insert(None));
        Ok(())
    }
}

/// In what state a start finds one of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Durable,
    /// Whole, and its maker died before its sync.
    Cached,
    Rotten,
    Missing,
}

impl Of {
    const ALL: [Of; 4] = [Of::Durable, Of::Cached, Of::Rotten, Of::Missing];

    fn outcomes(self, whole: &Bytes) -> Outcomes {
        let (whole, rot) = (Some(whole.clone()), damages(whole)[whole.len() / 2].clone());
        match self {
            Of::Durable => BTreeSet::from([whole]),
            Of::Cached => BTreeSet::from([None, whole]),
            Of::Rotten => BTreeSet::from([rot]),
            Of::Missing => BTreeSet::from([None]),
        }
    }
}

/// Every store that a power loss at this moment may leave.
fn after_power_loss((objects, pair): &Moment) -> Vec<Arc<MemStore>> {
    let mut stores = vec![objects.clone()];
    for (name, outcomes) in pair {
        let with = |store: &BTreeMap<StoreKey, Bytes>, outcome: &Option<Bytes>| {
            let mut store = store.clone();
            store.remove(name);
            store.extend(outcome.clone().map(|body| (name.clone(), body)));
            store
        };
        stores = stores.iter().flat_map(|store| outcomes.iter().map(move |one| with(store, one))).collect();
    }
    let made = |objects: BTreeMap<StoreKey, Bytes>| {
        let store = MemStore::new();
        objects.into_iter().for_each(|(name, body)| store.tamper(&name, Some(body)));
        Arc::new(store)
    };
    stores.into_iter().map(made).collect()
}

/// A writer starts on a pair in these states; the power is lost at each moment of it.
async fn power_is_lost_while_it_is_made_good(name: &str, states: [Of; 2]) {
    let (store, count) = vault().await;
    let first = store.names().into_iter().find(|found| found.as_str().ends_with(name)).expect("the object");
    let whole = store.peek(&first).unwrap();
    let names = [first.clone(), other(&first)];
    let pair = names.iter().zip(states).map(|(name, of)| (name.clone(), of.outcomes(&whole))).collect();
    for (name, outcomes) in &pair {
        let outcomes: &Outcomes = outcomes;
        store.tamper(name, outcomes.last().unwrap().clone());
    }
    let (pair, moments) = (Mutex::new(pair), Mutex::default());
    let watched = Arc::new(Watched { inner: store, whole: whole.clone(), pair, moments });
    watched.effect(&first, |_| {});
    let dice = Seeded::new(12);
    let vault = Vault::open(watched.clone(), keys()).await.unwrap();
    MachineWriter::claim(&vault, MACHINE, dice).await.unwrap();
    let moments = watched.moments.lock().unwrap().clone();
    let mut must_open = states.contains(&Of::Durable);
    for (at, moment) in moments.iter().enumerate() {
        let mut opened = true;
        for store in after_power_loss(moment) {
            let found = points(&store).await;
            opened &= found.as_ref().is_ok_and(|(found, _)| *found == count);
            assert!(opened || !must_open, "{name} {states:?}, lost at effect {at}: {found:?}");
        }
        must_open |= opened;
    }
    let (_, end) = moments.last().unwrap();
    let durable = |outcomes: &Outcomes| *outcomes == BTreeSet::from([Some(whole.clone())]);
    assert!(end.values().all(durable), "{name} {states:?}: who builds on it has both");
    assert!(moments.len() > 4, "the moments are there");
}

#[test]
fn no_power_loss_while_a_pair_is_made_good_takes_both() {
    run(async {
        for name in ["vault", "/key/00000002"] {
            for (first, second) in Of::ALL.iter().flat_map(|one| Of::ALL.map(|two| (*one, two))) {
                if [Of::Durable, Of::Cached].iter().any(|of| [first, second].contains(of)) {
                    power_is_lost_while_it_is_made_good(name, [first, second]).await;
                }
            }
        }
    });
}
