//! Keys over the life of a vault: rotation and re-wrap, interrupted after every effect and raced by each other.

mod support;

use bytes::Bytes;
use redoubt_core::change::ResyncReason;
use redoubt_core::{
    BatchPosition, Chain, Change, Extent, Generation, Lba, MachineId, Marker, MarkerId, MarkerKind, Record,
    Sectors, VolumeId, VolumeIndex, WallTime, WriteSeq,
};
use redoubt_ports::{RawStore, StoreKey};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, Times, Vault, VaultError,
    VaultKeys, WriterSettings,
};
use redoubt_verifier::{Objects, prove};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::mortal::Mortal;
use support::{Faulty, Seeded, run};

const VOLUME: VolumeIndex = VolumeIndex(0);
const SECTORS: u64 = 64;
const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn keys(key: [u8; 32]) -> VaultKeys {
    VaultKeys::new(key)
}

fn position(seq: u64) -> BatchPosition {
    BatchPosition { generation: Generation(1), seq: WriteSeq(seq), chain: Chain([seq as u8; 32]) }
}

fn opening() -> Vec<Record> {
    let changes = [
        Change::Attach { volume: VOLUME, id: VolumeId(1), sectors: Sectors(SECTORS) },
        Change::ResyncBegin { reason: ResyncReason::Initial },
        Change::ResyncEnd,
    ];
    let record = |(at, change)| Record { seq: WriteSeq(at as u64 + 1), change };
    changes.into_iter().enumerate().map(record).collect()
}

/// The store as the second reader sees it.
struct Second(Arc<MemStore>);

impl Objects for Second {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.peek(&StoreKey::new(name)).map(|bytes| bytes.to_vec()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, String> {
        let names = self.0.names().into_iter().map(|name| name.to_string());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

/// What the disk holds at each point, by the marker's identity.
type Truth = BTreeMap<u128, Vec<u8>>;

/// A machine with one disk that is overwritten with a new value from point to point.
struct Source {
    machine: MachineId,
    seq: u64,
    truth: Truth,
    image: Vec<u8>,
}

impl Source {
    fn new(machine: u128) -> Source {
        let image = vec![0; SECTORS as usize * 512];
        Source { machine: MachineId(machine), seq: 0, truth: Truth::new(), image }
    }

    /// Commits a write and a point behind it.
    async fn commit(&mut self, writer: &mut MachineWriter) {
        let mut records = if self.seq == 0 { opening() } else { Vec::new() };
        let seq = if self.seq == 0 { 3 } else { self.seq };
        let value = (seq % 251) as u8 + 1;
        let at = seq % 8 * 8;
        let payload: Bytes = vec![value; 4096].into();
        self.image[at as usize * 512..][..4096].copy_from_slice(&payload);
        let marker = Marker { id: MarkerId(u128::from(seq)), kind: MarkerKind::Crash, wall: WallTime(seq) };
        records.push(Record {
            seq: WriteSeq(seq + 1),
            change: Change::Write { volume: VOLUME, lba: Lba(at), payload },
        });
        records.push(Record { seq: WriteSeq(seq + 2), change: Change::Marker(marker) });
        self.truth.insert(u128::from(seq), self.image.clone());
        self.seq = seq + 2;
        while let Err(error) = writer.commit(records.clone(), position(self.seq)).await {
            assert!(matches!(error, redoubt_vault::CommitError::Retry(_)), "{error}");
        }
    }

    /// Reads all points with a key and compares them; the second reader must know as many.
    async fn check(&self, store: &Arc<MemStore>, key: [u8; 32]) -> Result<(), VaultError> {
        let vault = Vault::open(store.clone(), keys(key)).await?;
        let reader = MachineReader::open(&vault, self.machine).await?;
        let proof = prove(&Second(store.clone()), &key, &self.machine.to_string(), None, |_, _| {});
        let proof = proof.unwrap_or_else(|fault| panic!("the second reader: {fault:?}"));
        assert!(proof.broken.is_none() && proof.damage.is_empty(), "{:?}", proof.broken);
        let points = reader.points();
        assert_eq!(proof.points.len(), points.len());
        assert_eq!(points.len(), self.truth.len());
        let whole = Extent { lba: Lba(0), sectors: Sectors(SECTORS) };
        for point in points {
            let read = reader.view(point.id)?.read(VOLUME, whole).await;
            let read = read.map_err(|error| VaultError::Damaged {
                object: "a point".to_owned(),
                what: error.to_string(),
            })?;
            assert!(read[..] == self.truth[&point.marker.id.0][..], "point {:?}", point.id);
        }
        Ok(())
    }
}

/// A vault with two machines; the first has data keys 1 and 2, and an index of both.
async fn estate() -> (Arc<MemStore>, Vec<Source>) {
    let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(5));
    let vault = Vault::init(store.clone(), keys(OLD), &*dice).await.unwrap();
    let mut sources = vec![Source::new(7), Source::new(8)];
    for source in &mut sources {
        let mut writer = MachineWriter::claim(&vault, source.machine, dice.clone()).await.unwrap();
        source.commit(&mut writer).await;
        source.commit(&mut writer).await;
    }
    let first = sources[0].machine;
    assert_eq!(vault.rotate(first, &*dice).await.unwrap(), 2);
    let mut writer = MachineWriter::claim(&vault, first, dice.clone()).await.unwrap();
    sources[0].commit(&mut writer).await;
    let slot = writer.slot();
    let mut maintainer = Maintainer::claim(
        &vault,
        first,
        dice,
        MaintainerSettings { every: 1, ..MaintainerSettings::default() },
    )
    .await
    .unwrap();
    while maintainer.round(slot, Times::default()).await.unwrap().is_some() {}
    (store, sources)
}

async fn all_open(store: &Arc<MemStore>, sources: &[Source], key: [u8; 32]) -> Result<(), VaultError> {
    for source in sources {
        source.check(store, key).await?;
    }
    Ok(())
}

/// What a process that may die came to; `None` if it died before the end.
async fn dies<T>(work: impl Future<Output = Result<T, VaultError>>) -> Option<T> {
    work.await.ok()
}

#[test]
fn objects_of_each_data_key_stay_readable_and_new_ones_take_the_newest() {
    run(async {
        let (store, sources) = estate().await;
        all_open(&store, &sources, OLD).await.unwrap();
        let dek = |name: &str| {
            let at = if name.contains("/log/") { 112 } else { 12 };
            store.peek(&StoreKey::new(name)).unwrap()[at]
        };
        let names = store.names();
        let log = |at: usize| names.iter().filter(|name| name.as_str().contains("07/log/")).nth(at).unwrap();
        assert_eq!((dek(log(0).as_str()), dek(log(3).as_str()), dek(log(4).as_str())), (1, 2, 2));
        let table = names.iter().find(|name| name.as_str().contains("/idx/")).unwrap();
        assert_eq!(dek(table.as_str()), 2, "an index takes the key of the newest record");
    });
}

#[test]
fn a_running_writer_goes_over_to_a_key_made_elsewhere_and_to_the_next_when_one_is_used_up() {
    run(async {
        let (store, dice) = (Arc::new(MemStore::new()), Seeded::new(6));
        let vault = Vault::init(store.clone(), keys(OLD), &*dice).await.unwrap();
        let mut source = Source::new(9);
        let settings = WriterSettings { key_units: 100, ..WriterSettings::default() };
        let claim = MachineWriter::claim_with(&vault, source.machine, dice.clone(), settings).await;
        let mut writer = claim.unwrap();
        source.commit(&mut writer).await;
        assert_eq!(vault.rotate(source.machine, &*dice).await.unwrap(), 2);
        for _ in 0..240 {
            source.commit(&mut writer).await;
        }
        let used = |id: u8| {
            let logs = store.names().into_iter().filter(|name| name.as_str().contains("/log/"));
            logs.filter(|name| store.peek(name).unwrap()[112] == id).count()
        };
        assert!((2..=65).contains(&used(1)), "{}: within 64 slots", used(1));
        // A unit a commit; the commit that finds the key used up was prepared with it.
        assert_eq!((used(2), used(3)), (101, 242 - 101 - used(1)));
        assert_eq!(vault.data_keys(source.machine).await.unwrap().len(), 3);
        source.check(&store, OLD).await.unwrap();
    });
}

#[test]
fn a_data_key_that_is_missing_or_unknown_is_named_and_takes_only_what_it_sealed() {
    run(async {
        let (store, sources) = estate().await;
        let lost = "g/00000000000000000000000000000007/key/00000002";
        store.tamper(&StoreKey::new(lost), None);
        store.tamper(&StoreKey::new(format!("{lost}.twin")), None);
        for name in store.names().iter().filter(|name| name.as_str().contains("/cat/")) {
            store.tamper(name, None);
        }
        let vault = Vault::open(store.clone(), keys(OLD)).await.unwrap();
        let opened = MachineReader::open_damaged(&vault, sources[0].machine).await.unwrap();
        let (reader, damage) = opened;
        let text = damage.unwrap().to_string();
        assert!(text.contains(lost) && text.contains("data key 2 is missing"), "{text}");
        assert_eq!(reader.points().len(), 2, "what key 1 sealed is there");
        sources[1].check(&store, OLD).await.unwrap();
    });
}

#[test]
fn a_rewrap_that_dies_after_any_effect_leaves_a_key_that_opens_everything_and_can_be_gone_on_with() {
    run(async {
        let mut ends = 0;
        for effects in 0..64 {
            let (store, sources) = estate().await;
            let dice = Seeded::new(effects);
            let vault = Vault::open(Mortal::new(&store, effects), keys(OLD));
            let is_done = match dies(vault).await {
                Some(vault) => dies(vault.rewrap(&keys(NEW), &*dice)).await.is_some(),
                None => false,
            };
            all_open(&store, &sources, OLD).await.expect("the old key opens everything until it is retired");
            let new = all_open(&store, &sources, NEW).await;
            if let Err(error) = &new {
                let early = matches!(error, VaultError::KeyNotInForce(2) | VaultError::WrongKey);
                assert!(early && !is_done, "{error} after {effects} effects: partly open is not open");
            }
            let vault = Vault::open(store.clone(), keys(OLD)).await.unwrap();
            assert_eq!(vault.rewrap(&keys(NEW), &*dice).await.unwrap().copies, 3);
            all_open(&store, &sources, NEW).await.unwrap();
            ends += u32::from(is_done);
            if is_done {
                break;
            }
        }
        assert_eq!(ends, 1, "one run came to its end");
    });
}

#[test]
fn retiring_the_old_key_may_die_after_any_effect_and_the_new_one_opens_everything_throughout() {
    run(async {
        for effects in 0.. {
            let (store, mut sources) = estate().await;
            let dice = Seeded::new(effects);
            let old = Vault::open(store.clone(), keys(OLD)).await.unwrap();
            old.rewrap(&keys(NEW), &*dice).await.unwrap();
            let refused = old.retire().await.unwrap_err();
            assert!(matches!(refused, VaultError::KeyReplaced { number: 1, newest: 2, .. }), "{refused}");
            let mortal = Vault::open(Mortal::new(&store, effects), keys(NEW));
            let is_done = match dies(mortal).await {
                Some(vault) => dies(vault.retire()).await.is_some(),
                None => false,
            };
            all_open(&store, &sources, NEW).await.unwrap();
            let vault = Vault::open(store.clone(), keys(NEW)).await.unwrap();
            let retired = vault.retire().await.unwrap();
            assert!(retired.kept.is_empty() && (retired.deleted == 0 || !is_done), "{retired:?}");
            let error = all_open(&store, &sources, OLD).await.unwrap_err();
            assert!(matches!(error, VaultError::KeyReplaced { number: 1, newest: 2, .. }), "{error}");
            // The machine goes on under the new key, with another data key.
            assert_eq!(vault.rotate(sources[1].machine, &*dice).await.unwrap(), 2);
            let mut writer = MachineWriter::claim(&vault, sources[1].machine, dice).await.unwrap();
            sources[1].commit(&mut writer).await;
            all_open(&store, &sources, NEW).await.unwrap();
            if is_done {
                break;
            }
        }
    });
}

#[test]
fn a_rotation_that_dies_after_any_effect_takes_nothing_and_can_be_repeated() {
    run(async {
        for effects in 0..8 {
            let (store, mut sources) = estate().await;
            let dice = Seeded::new(effects);
            let mortal = Vault::open(Mortal::new(&store, effects), keys(OLD));
            let done = match dies(mortal).await {
                Some(vault) => dies(vault.rotate(sources[1].machine, &*dice)).await,
                None => None,
            };
            let vault = Vault::open(store.clone(), keys(OLD)).await.unwrap();
            let next = vault.rotate(sources[1].machine, &*dice).await.unwrap();
            assert!((2..=3).contains(&next));
            let mut writer = MachineWriter::claim(&vault, sources[1].machine, dice).await.unwrap();
            sources[1].commit(&mut writer).await;
            all_open(&store, &sources, OLD).await.unwrap();
            if done.is_some() {
                break;
            }
        }
    });
}

#[test]
fn a_wrong_new_key_is_refused_and_a_second_rewrap_waits_for_the_first() {
    run(async {
        let (store, sources) = estate().await;
        let dice = Seeded::new(1);
        let vault = Vault::open(store.clone(), keys(OLD)).await.unwrap();
        assert_eq!(vault.rewrap(&keys(OLD), &*dice).await.unwrap_err(), VaultError::KeyUsedBefore(1));
        let mortal = Vault::open(Mortal::new(&store, 2), keys(OLD)).await.unwrap();
        assert!(dies(mortal.rewrap(&keys(NEW), &*dice)).await.is_none());
        assert_eq!(vault.rewrap(&keys([3; 32]), &*dice).await.unwrap_err(), VaultError::RewrapUnderWay(2));
        assert_eq!(Vault::open(store.clone(), keys(NEW)).await.unwrap_err(), VaultError::KeyNotInForce(2));
        // A service with the old key starts again where the copy is there, and is told where not.
        let copied = MachineWriter::claim(&vault, sources[0].machine, dice.clone()).await;
        assert_eq!(copied.unwrap().epoch(), 3);
        let waiting = MachineWriter::claim(&vault, sources[1].machine, dice.clone()).await.unwrap_err();
        assert!(matches!(waiting, VaultError::KeyReplaced { newest: 2, .. }), "{waiting}");
        vault.rewrap(&keys(NEW), &*dice).await.unwrap();
        MachineWriter::claim(&vault, sources[1].machine, dice.clone()).await.unwrap();
        let vault = Vault::open(store, keys(NEW)).await.unwrap();
        assert_eq!(vault.rewrap(&keys(OLD), &*dice).await.unwrap_err(), VaultError::KeyUsedBefore(1));
    });
}

/// One race: writers that do not know yet, rotators and re-wraps with both keys, over a store that lies.
async fn race(seed: u64) {
    let (store, mut sources) = estate().await;
    let dice = Seeded::new(seed);
    let faulty: Arc<dyn RawStore> =
        Arc::new(Faulty { inner: store.clone(), dice: dice.clone(), percent: 10 });
    let mut tasks = tokio::task::JoinSet::new();
    for key in [OLD, OLD, NEW] {
        for machine in [7, 8] {
            let (faulty, dice) = (faulty.clone(), dice.clone());
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(dice.below(3000))).await;
                if let Ok(vault) = Vault::open(faulty, keys(key)).await {
                    let _ = vault.rotate(MachineId(machine), &*dice).await;
                }
            });
        }
    }
    for _ in 0..2 {
        let (faulty, dice) = (faulty.clone(), dice.clone());
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(dice.below(2000))).await;
            let vault = Vault::open(faulty, keys(OLD)).await.unwrap();
            vault.rewrap(&keys(NEW), &*dice).await.unwrap();
        });
    }
    // A machine that nobody knew: its first key is made in the middle of it all.
    sources.push(Source::new(9));
    let settings = WriterSettings { key_units: 2, ..WriterSettings::default() };
    for source in &mut sources {
        tokio::time::sleep(Duration::from_millis(dice.below(800))).await;
        for key in [OLD, NEW] {
            let Ok(vault) = Vault::open(faulty.clone(), keys(key)).await else { continue };
            let claim = MachineWriter::claim_with(&vault, source.machine, dice.clone(), settings).await;
            // Refused by a store that lies, or because the other key is the one to use.
            let Ok(mut writer) = claim else { continue };
            for _ in 0..5 {
                source.commit(&mut writer).await;
            }
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let known: Vec<Source> = sources.into_iter().filter(|source| !source.truth.is_empty()).collect();
    all_open(&store, &known, NEW).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let vault = Vault::open(store.clone(), keys(NEW)).await.unwrap();
    vault.retire().await.unwrap();
    all_open(&store, &known, NEW).await.unwrap_or_else(|error| panic!("seed {seed}, retired: {error}"));
}

#[test]
fn rotators_rewraps_and_writers_race_and_the_new_key_opens_all_of_it() {
    for seed in 0..30 {
        run(race(seed));
    }
}
