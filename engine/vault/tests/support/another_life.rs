//! An old copy takes the place of a vault, and what was on its way into the newer one arrives there; or the log is not
//! as long as a maintainer was told.

use super::model::{MACHINE, Shape, check, history, position, settings};
use super::old_copy::{Swapping, copy, rounds};
use super::stranger::{KEY, proof};
use super::{Seeded, run};
use redoubt_core::Record;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::{RawStore, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, PointId, Times, Vault,
    VaultError, VaultKeys, WriterSettings,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Newest points that are kept; what is before them is folded.
const KEEPS: u32 = 3;
/// Commits, of one record each, before the copy is made; and all of them.
const BEFORE: usize = 60;
const ALL: usize = 150;

fn records(dice: &Seeded) -> Vec<Record> {
    history(dice, Shape { percent: 0, writers: 1, length: ALL as u64, wide: false })
}

/// A process server: its writer, and its maintainer.
struct Life {
    vault: Vault,
    writer: MachineWriter,
    maintainer: Maintainer,
}

impl Life {
    async fn begin(store: Arc<dyn RawStore>, dice: &Arc<Seeded>, every: u64) -> Life {
        Life::with(store, dice, every, settings(dice)).await
    }

    async fn with(
        store: Arc<dyn RawStore>,
        dice: &Arc<Seeded>,
        every: u64,
        settings: WriterSettings,
    ) -> Life {
        let vault = Vault::open(store, VaultKeys::new(KEY)).await.unwrap();
        let writer = MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings).await.unwrap();
        let maintainer = maintainer(&vault, dice, every).await;
        Life { vault, writer, maintainer }
    }

    /// Commits records one by one, up to so many of all.
    async fn write(&mut self, records: &[Record], to: usize) {
        for done in self.writer.head().position.seq.0 as usize + 1..=to {
            self.writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
        }
    }

    /// The same with a maintainer that keeps up.
    async fn live(&mut self, records: &[Record], to: usize) {
        for done in self.writer.head().position.seq.0 as usize + 1..=to {
            self.write(records, done).await;
            rounds(&mut self.maintainer, self.writer.slot()).await.unwrap();
        }
    }
}

async fn maintainer(vault: &Vault, dice: &Arc<Seeded>, every: u64) -> Maintainer {
    let keep = Ladder::new(vec![Rule::Newest { count: KEEPS, which: Which::Any }]);
    let of = MaintainerSettings { every, keep, ..MaintainerSettings::default() };
    Maintainer::claim(vault, MACHINE, dice.clone(), of).await.unwrap()
}

async fn vault(dice: &Arc<Seeded>) -> Arc<MemStore> {
    let store = Arc::new(MemStore::new());
    Vault::init(store.clone(), VaultKeys::new(KEY), &**dice).await.unwrap();
    store
}

/// Versions of the catalogue, newest first, with their numbers.
fn catalogues(store: &MemStore) -> Vec<(u64, StoreKey)> {
    let number = |name: &StoreKey| {
        let text = name.as_str().split_once("/cat/")?.1;
        Some(u64::MAX - u64::from_str_radix(text, 16).unwrap())
    };
    store.names().into_iter().filter_map(|name| Some((number(&name)?, name))).collect()
}

fn points(reader: &MachineReader) -> Vec<PointId> {
    reader.points().iter().map(|point| point.id).collect()
}

/// Nothing is damaged, in the eyes of both readers, and the newest points are there.
async fn is_whole(store: &Arc<MemStore>, life: &Life, records: &[Record]) {
    check(&life.vault, records, life.writer.head().position.seq.0, Some(KEEPS)).await;
    let proof = proof(store);
    assert_eq!((proof.broken, proof.damage.len(), proof.hits.len()), (None, 0, 0), "the vault is whole");
}

/// The newest version of the newer vault arrives in the copy. The copy shows the same points as without it, and its
/// maintainer publishes the number behind it, with a newer claim, and gives up nothing that the copy needs. Of a version
/// that is sealed with a key which the copy has not, the claim cannot be read.
pub(crate) fn a_stray_gives_its_number_and_its_claim_and_nothing_else(seed: u64, is_key_there: bool) {
    run(async {
        let dice = Seeded::new(seed);
        let (records, new) = (records(&dice), vault(&dice).await);
        let key_units = if is_key_there { u64::MAX } else { 4 };
        let settings = WriterSettings { key_units, ..settings(&dice) };
        let mut newer = Life::with(new.clone(), &dice, 4, settings).await;
        newer.live(&records, BEFORE).await;
        let old = copy(&new).await;
        // Another one, whose claim is not in the copy.
        newer.maintainer = maintainer(&newer.vault, &dice, 4).await;
        newer.live(&records, BEFORE + 60).await;
        let vault = Vault::open(old.clone(), VaultKeys::new(KEY)).await.unwrap();
        let before = points(&MachineReader::open(&vault, MACHINE).await.unwrap());
        let (number, stray) = catalogues(&new)[0].clone();
        old.tamper(&stray, new.peek(&stray));
        let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
        assert_eq!(points(&reader), before, "MT-6: a stray gives no points");
        assert_eq!(reader.findings().len(), 1, "it is told: {:?}", reader.findings());
        let mut life = Life::with(old.clone(), &dice, 4, settings).await;
        let epoch = newer.maintainer.epoch() + u64::from(is_key_there);
        assert_eq!(life.maintainer.epoch(), epoch, "MT-6: a stray gives its claim");
        let mut published = Vec::new();
        for done in BEFORE + 1..=BEFORE + 40 {
            life.live(&records, done).await;
            assert!(life.writer.slot() < newer.writer.slot(), "the log never gets as long");
            let newest = catalogues(&old)[0].0;
            published.extend((newest > number && published.last() != Some(&newest)).then_some(newest));
        }
        assert!(published.len() >= 5, "MT-6: only {published:?} were published behind {number}");
        assert!(published.iter().copied().eq(number + 1..=number + published.len() as u64), "{published:?}");
        let left: Vec<u64> = catalogues(&old).into_iter().map(|(version, _)| version).collect();
        assert!(left.iter().eq(published.iter().rev().take(3)), "the stray goes as it grows old: {left:?}");
        is_whole(&old, &life, &records).await;
    });
}

/// A copy is of a time before any maintainer, and a version arrives in it that is sealed with a younger key and says in the
/// clear that the log was folded. The copy is read, written and maintained from its first slot on.
pub(crate) fn a_copy_without_catalogues_is_read_from_its_first_slot(seed: u64) {
    run(async {
        let dice = Seeded::new(seed);
        let (records, new) = (records(&dice), vault(&dice).await);
        let settings = WriterSettings { key_units: 4, ..settings(&dice) };
        let mut writer = MachineWriter::claim_with(
            &Vault::open(new.clone(), VaultKeys::new(KEY)).await.unwrap(),
            MACHINE,
            dice.clone(),
            settings,
        )
        .await
        .unwrap();
        for done in 1..=BEFORE {
            writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
        }
        drop(writer);
        let old = copy(&new).await;
        let mut newer = Life::with(new.clone(), &dice, 4, settings).await;
        newer.live(&records, BEFORE + 60).await;
        let vault = Vault::open(old.clone(), VaultKeys::new(KEY)).await.unwrap();
        let before = points(&MachineReader::open(&vault, MACHINE).await.unwrap());
        assert!(!before.is_empty(), "the copy has points");
        let (number, stray) = catalogues(&new)[0].clone();
        let bytes = new.peek(&stray).unwrap();
        let log_from = u64::from_le_bytes(bytes[104..112].try_into().unwrap());
        assert!(log_from > 1, "it says that the log was folded");
        old.tamper(&stray, Some(bytes));
        let reader = MachineReader::open(&vault, MACHINE).await.expect("the log has its first slot");
        assert_eq!(points(&reader), before, "MT-6: a stray gives no points, and takes none");
        assert_eq!(reader.findings().len(), 1, "it is told: {:?}", reader.findings());
        let mut life = Life::with(old.clone(), &dice, 4, settings).await;
        life.live(&records, BEFORE + 40).await;
        let left: Vec<u64> = catalogues(&old).into_iter().map(|(version, _)| version).collect();
        assert!(
            left.len() == 3 && left.iter().all(|version| *version > number),
            "it goes as it grows old: {left:?}"
        );
        is_whole(&old, &life, &records).await;
    });
}

/// The newest version of the newer vault arrives in the copy and fits its log, for it covers nothing newer; but its tables
/// are not there, and what it gives up is needed. The copy is as whole in the end as if it had not arrived.
pub(crate) fn a_version_without_its_tables_is_not_built_upon(seed: u64) {
    run(async {
        let dice = Seeded::new(seed);
        let (records, new, every) = (records(&dice), vault(&dice).await, 1 + dice.below(4));
        let mut newer = Life::begin(new.clone(), &dice, every).await;
        newer.live(&records, BEFORE).await;
        // The maintainer falls behind.
        let maintained = newer.writer.slot();
        newer.write(&records, BEFORE + 20).await;
        let old = copy(&new).await;
        for durable in maintained + 1..=newer.writer.slot() {
            rounds(&mut newer.maintainer, durable).await.unwrap();
        }
        let (_, newest) = catalogues(&new)[0].clone();
        old.tamper(&newest, new.peek(&newest));
        let mut life = Life::begin(old.clone(), &dice, every).await;
        // Whatever it meets, it is called again, as a process server does.
        let mut met = Vec::new();
        for done in BEFORE + 21..=ALL {
            life.write(&records, done).await;
            met.extend(rounds(&mut life.maintainer, life.writer.slot()).await.err());
        }
        is_whole(&old, &life, &records).await;
        assert_eq!(met, [], "MT-5: nothing is looked for that is not there");
    });
}

/// A maintainer is told of slots that are not there: at the end of a log of so many commits, and in an old copy.
pub(crate) fn a_log_that_ends_before_a_durable_slot_gets_no_version(commits: usize, ahead: u64) {
    run(async {
        let dice = Seeded::new(3);
        let (records, new) = (records(&dice), vault(&dice).await);
        let mut life = Life::begin(new.clone(), &dice, 1).await;
        life.write(&records, commits).await;
        let old = copy(&new).await;
        refuses(&new, &mut life.maintainer, life.writer.slot(), ahead).await;
        life.live(&records, commits + 8).await;
        is_whole(&new, &life, &records).await;
        // The maintainer covers more than the copy has.
        let swapping = Swapping::never(&new, &old);
        let mut swapped = Life::begin(swapping.clone(), &dice, 1).await;
        rounds(&mut swapped.maintainer, swapped.writer.slot()).await.unwrap();
        swapping.is_old.store(true, Ordering::Relaxed);
        refuses(&old, &mut swapped.maintainer, swapped.writer.slot(), ahead).await;
    });
}

/// An old copy comes that has neither the claim of a running maintainer nor what it published. It tells that, claims what there
/// is, behind all claims that the copy has, and goes on.
pub(crate) fn a_copy_without_its_claim_is_claimed_anew(seed: u64) {
    run(async {
        let dice = Seeded::new(seed);
        let (records, new) = (records(&dice), vault(&dice).await);
        let mut first = Life::begin(new.clone(), &dice, 4).await;
        first.live(&records, BEFORE).await;
        let old = copy(&new).await;
        let swapping = Swapping::never(&new, &old);
        // The copy lacks its number, and one more before it.
        let _ = maintainer(&first.vault, &dice, 4).await;
        let mut running = Life::begin(swapping.clone(), &dice, 4).await;
        running.live(&records, BEFORE + 20).await;
        swapping.is_old.store(true, Ordering::Relaxed);
        let mut life = Life::begin(old.clone(), &dice, 4).await;
        drop(life.maintainer);
        life.maintainer = running.maintainer;
        let mut told = Vec::new();
        for done in BEFORE + 1..=BEFORE + 40 {
            life.write(&records, done).await;
            told.extend(rounds(&mut life.maintainer, life.writer.slot()).await.err());
        }
        // The log that it follows is another, then its claim is gone.
        assert!((1..=2).contains(&told.len()), "MT-7: it goes on: {told:?}");
        let claims = claims(&old);
        assert!(claims.iter().copied().eq(1..=claims.len() as u64), "claims are dense: {claims:?}");
        assert_eq!(claims.last(), Some(&life.maintainer.epoch()), "the newest claim is its own");
        is_whole(&old, &life, &records).await;
    });
}

/// Numbers of the claims of maintainers.
fn claims(store: &MemStore) -> Vec<u64> {
    let number = |name: &StoreKey| {
        let text = name.as_str().split_once("/claim/m/")?.1;
        Some(u64::from_str_radix(text, 16).unwrap())
    };
    store.names().iter().filter_map(number).collect()
}

async fn refuses(store: &MemStore, maintainer: &mut Maintainer, last: u64, ahead: u64) {
    let before = store.names();
    let outcome = maintainer.round(last + ahead, Times::default()).await;
    assert_eq!(store.names(), before, "MT-1: {last} slots are there, one more was durable: {outcome:?}");
    let Err(VaultError::Damaged { object, .. }) = outcome else { panic!("MT-1: {outcome:?}") };
    assert!(object.ends_with(&format!("/log/{:016x}", last + 1)), "it is named: {object}");
}
