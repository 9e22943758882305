//! A scrub names exactly what is damaged, and exactly the points and ranges that cannot be read for it.

mod support;

use bytes::Bytes;
use redoubt_core::Extent;
use redoubt_core::maintenance::{Ladder, Rule, Which};
use redoubt_ports::{InPlace, RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::scrub::{Damage, Ended, Report, Scrub, ScrubSettings, ScrubWatch, Takes};
use redoubt_vault::{
    MachineReader, MachineWriter, Maintainer, MaintainerSettings, MemStore, PointId, Times, Vault, VaultKeys,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use support::model::{MACHINE, Shape, history, position, settings};
use support::{Seeded, run, stranger};

/// A point, a volume and a sector of it.
type Place = (PointId, u16, u64);

fn keys() -> VaultKeys {
    VaultKeys::new([3; 32])
}

/// What a maintainer does with all but the newest slots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upkeep {
    None,
    Index,
    /// Few points are kept, one of them for a mount, and what is decided is folded.
    Fold,
}

/// Writes a random history by several writers.
async fn vault(seed: u64, upkeep: Upkeep) -> Arc<MemStore> {
    let dice = Seeded::new(seed);
    let length = if upkeep == Upkeep::Fold { 90 } else { 36 };
    let records = history(&dice, Shape { percent: 0, writers: 1, length, wide: false });
    let store = Arc::new(MemStore::new());
    let vault = Vault::init(store.clone(), keys(), &*dice).await.unwrap();
    let mut done = 0;
    while done < records.len() {
        let mut writer =
            MachineWriter::claim_with(&vault, MACHINE, dice.clone(), settings(&dice)).await.unwrap();
        for _ in 0..3 {
            done = records.len().min(done + 1 + dice.below(14) as usize);
            writer.commit(records[..done].to_vec(), position(done as u64)).await.unwrap();
        }
        if upkeep != Upkeep::None && done < records.len() {
            let mut maintainer =
                Maintainer::claim(&vault, MACHINE, dice.clone(), maintaining(upkeep)).await.unwrap();
            let reader = MachineReader::open(&vault, MACHINE).await.unwrap();
            if let (Upkeep::Fold, Some(point)) = (upkeep, reader.points().last()) {
                drop(vault.pin(MACHINE, point.id, &*dice).await);
            }
            while maintainer.round(writer.slot(), Times::default()).await.unwrap().is_some() {}
        }
    }
    store
}

fn maintaining(upkeep: Upkeep) -> MaintainerSettings {
    let whole = MaintainerSettings { every: 1, ..MaintainerSettings::default() };
    let keep = Ladder::new(vec![Rule::Newest { count: 2, which: Which::Any }]);
    if upkeep == Upkeep::Fold { MaintainerSettings { keep, folds: true, ..whole } } else { whole }
}

async fn scrub(store: Arc<dyn RawStore>, with_keys: bool) -> Report {
    let (workers, settings) = (Arc::new(InPlace), ScrubSettings::default());
    let scrub = match with_keys {
        true => Scrub::with_keys(store, keys(), workers, settings).await.unwrap(),
        false => Scrub::without_keys(store, workers, settings),
    };
    assert_eq!(scrub.machines().await.unwrap(), [MACHINE]);
    scrub.machine(MACHINE, &ScrubWatch::default()).await.unwrap()
}

/// What a reader cannot have: points, and sectors of points.
async fn lost(
    store: &Arc<MemStore>,
    whole: &[PointId],
) -> (Vec<PointId>, BTreeSet<Place>, BTreeSet<(u16, u64)>) {
    let vault = Vault::open(store.clone(), keys()).await.unwrap();
    let (reader, _) = MachineReader::open_damaged(&vault, MACHINE).await.unwrap();
    let had: BTreeSet<PointId> = reader.points().iter().map(|point| point.id).collect();
    let gone = whole.iter().copied().filter(|point| !had.contains(point)).collect();
    let mut places = BTreeSet::new();
    let mut newest = BTreeSet::new();
    let views = had.iter().map(|id| (Some(*id), reader.view(*id).unwrap()));
    for (id, view) in views.chain([(None, reader.head_view())]) {
        for (volume, info) in view.volumes() {
            if view.read(*volume, Extent::new(0, info.sectors.0)).await.is_ok() {
                continue;
            }
            for sector in 0..info.sectors.0 {
                if view.read(*volume, Extent::new(sector, 1)).await.is_err() {
                    match id {
                        Some(id) => drop(places.insert((id, volume.0, sector))),
                        None => drop(newest.insert((volume.0, sector))),
                    }
                }
            }
        }
    }
    (gone, places, newest)
}

fn sectors(ranges: &[Range<u64>]) -> impl Iterator<Item = u64> + '_ {
    ranges.iter().cloned().flatten()
}

/// Spells out what the scrub says is lost.
fn told(report: &Report, points: &[PointId]) -> (BTreeSet<Place>, BTreeSet<(u16, u64)>) {
    let (mut places, mut newest) = (BTreeSet::new(), BTreeSet::new());
    for damage in &report.damage {
        newest.extend(damage.newest.iter().flat_map(|(volume, range)| {
            range.clone().map(move |sector| (volume.0, sector)).collect::<Vec<_>>()
        }));
        let Takes::Points(hits) = &damage.takes else { continue };
        for hit in hits {
            let Some((volume, ranges)) = &hit.lost else { continue };
            for point in points.iter().filter(|point| (hit.first..=hit.last).contains(point)) {
                places.extend(sectors(ranges).map(|sector| (*point, volume.0, sector)));
            }
        }
    }
    (places, newest)
}

/// Tells whether it is a fold, or an object that only folds may name.
fn is_folded(store: &Arc<MemStore>, name: &StoreKey) -> bool {
    let mark = stranger::proof(store).folded.map_or(0, |folded| folded.slot);
    match name.as_str().split('/').nth(2) {
        Some("log") => *name <= slot_name(mark),
        part => matches!(part, Some("fold" | "seg" | "cseg")),
    }
}

fn slot_name(slot: u64) -> StoreKey {
    StoreKey::new(format!("g/{MACHINE}/log/{slot:016x}"))
}

/// Damages each object in turn; returns how many points and sectors were hit in all.
fn damage_is_told_exactly(seed: u64, upkeep: Upkeep) -> [usize; 2] {
    run(async {
        let store = vault(seed, upkeep).await;
        let dice = Seeded::new(seed + 100);
        let clean = scrub(store.clone(), true).await;
        assert_eq!((clean.damage, clean.orphans, clean.unread, clean.lost), Default::default());
        assert_eq!(clean.ended, Ended::Done);
        // What a newer version does not need any more is nobody's business.
        assert!(clean.checked == clean.objects || upkeep == Upkeep::Fold, "all of it was looked at");
        assert_eq!(scrub(store.clone(), false).await.damage, [], "seed {seed}");
        let whole = lost(&store, &[]).await;
        assert!(whole.1.is_empty());
        let vault = Vault::open(store.clone(), keys()).await.unwrap();
        let points: Vec<PointId> = MachineReader::open(&vault, MACHINE)
            .await
            .unwrap()
            .points()
            .iter()
            .map(|point| point.id)
            .collect();
        let newest = store.names().into_iter().rfind(|name| name.as_str().contains("/log/")).unwrap();
        let mut met = [0, 0];
        for name in store.names().into_iter().filter(|name| name.as_str().starts_with("g/")) {
            if upkeep == Upkeep::Fold && !is_folded(&store, &name) {
                continue;
            }
            if name.as_str().contains("/key/") {
                // Without its data key all of the machine is lost: nothing to map.
                continue;
            }
            let bytes = store.peek(&name).unwrap();
            for how in 0..4 {
                let at = [dice.below(bytes.len() as u64), 130, 0, bytes.len() as u64 / 2][how];
                let mut rotten = bytes.to_vec();
                let Some(byte) = rotten.get_mut(at as usize) else { continue };
                *byte ^= 1 << dice.below(8);
                let damaged = match how {
                    2 => None,
                    3 => Some(bytes.slice(..at as usize)),
                    _ => Some(Bytes::from(rotten)),
                };
                // The loss of the end of the log leaves no trace in it; of the newest claim or catalogue neither.
                if how == 2
                    && (name == newest
                        || name.as_str().contains("/claim/")
                        || name.as_str().contains("/cat/"))
                {
                    continue;
                }
                store.tamper(&name, damaged);
                let report = scrub(store.clone(), true).await;
                let label = format!("seed {seed}, {name}, kind {how} at {at}: {:?}", report.damage);
                if report.damage.is_empty() && upkeep == Upkeep::Fold {
                    assert_eq!(lost(&store, &points).await, Default::default(), "unseen: {label}");
                    store.tamper(&name, Some(bytes.clone()));
                    continue;
                }
                assert!(!report.damage.is_empty(), "unseen: {label}");
                assert!(report.damage.iter().all(|damage| damage.object == name.as_str()), "{label}");
                let holds = |damage: &Damage| how > 1 || (damage.from..damage.to).contains(&at);
                assert!(report.damage.iter().any(holds), "{label}");
                let (gone, places, newest) = lost(&store, &points).await;
                let told = told(&report, &points);
                let whole_ones = |damage: &Damage| match &damage.takes {
                    Takes::Points(hits) => hits.iter().filter(|hit| hit.lost.is_none()).cloned().collect(),
                    _ => Vec::new(),
                };
                let hits: Vec<_> = report.damage.iter().flat_map(whole_ones).collect();
                let taken = |point: &&PointId| hits.iter().any(|hit| (hit.first..=hit.last).contains(point));
                assert!(points.iter().filter(taken).eq(&gone), "{label}: {gone:?}");
                // A record that does not open names no point; all others are told one by one.
                let slot = |point: &PointId| name.as_str().ends_with(&format!("/log/{:016x}", point.slot));
                let is_named = |point: &&PointId| !slot(point) || report.lost.contains(point);
                assert!(report.lost.iter().eq(gone.iter().filter(is_named)), "{label}: {:?}", report.lost);
                assert!(told.0 == places, "{label}: told {} are {}", told.0.len(), places.len());
                assert!(told.1 == newest, "newest state: {label}");
                met = [met[0] + gone.len(), met[1] + places.len()];
                store.tamper(&name, Some(bytes.clone()));
            }
        }
        met
    })
}

#[test]
fn damage_of_a_log_takes_exactly_what_the_scrub_says() {
    let [points, sectors] = damage_is_told_exactly(1, Upkeep::None);
    assert!(points > 10 && sectors > 100, "{points} {sectors}");
}

#[test]
fn damage_beside_an_index_takes_exactly_what_the_scrub_says() {
    let [_, sectors] = damage_is_told_exactly(3, Upkeep::Index);
    assert!(sectors > 100, "{sectors}");
}

#[test]
fn damage_of_and_behind_folds_takes_exactly_what_the_scrub_says() {
    let [_, sectors] = damage_is_told_exactly(2, Upkeep::Fold);
    assert!(sectors > 100, "{sectors}");
}

/// A store that fails for some names, and remembers what it handed out.
struct Failing(Arc<MemStore>, fn(&str) -> bool);

#[async_trait::async_trait]
impl StoreAround for Failing {
    fn inner(&self) -> &dyn RawStore {
        &*self.0
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        if self.1(key.as_str()) {
            return Err(StoreError::Unavailable("no answer".into()));
        }
        self.0.get(key, range).await
    }
}

#[test]
fn what_the_store_does_not_hand_out_is_neither_damaged_nor_whole() {
    run(async {
        let store = vault(1, Upkeep::None).await;
        let segments: Vec<String> =
            store.names().iter().map(ToString::to_string).filter(|name| name.contains("/seg/")).collect();
        let report = scrub(Arc::new(Failing(store, |name| name.contains("/seg/"))), true).await;
        assert_eq!(report.damage, []);
        let unread: BTreeSet<&str> = report.unread.iter().map(|unread| unread.object.as_str()).collect();
        assert!(segments.iter().all(|name| unread.contains(name.as_str())), "{unread:?}");
        assert_eq!(report.checked + segments.len() as u64, report.objects, "all others were checked");
        assert_eq!(report.orphans, [], "nobody knows what names what was not read");
    });
}

/// A store that lists all but one object, and says nothing of newer catalogues if it is dark.
struct Listing {
    inner: Arc<MemStore>,
    unlisted: StoreKey,
    is_dark: bool,
}

#[async_trait::async_trait]
impl StoreAround for Listing {
    fn inner(&self) -> &dyn RawStore {
        &*self.inner
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        if self.is_dark && prefix.ends_with("/cat/") && limit == 1 {
            return Err(StoreError::Unavailable("no answer".into()));
        }
        let mut page = self.inner.list_after(prefix, after, limit).await?;
        page.retain(|(name, _)| *name != self.unlisted);
        Ok(page)
    }
}

fn first_of(store: &MemStore, part: &str) -> StoreKey {
    store.names().into_iter().find(|name| name.as_str().contains(part)).unwrap()
}

#[test]
fn a_key_that_was_being_made_when_its_twin_was_not_listed_is_whole() {
    run(async {
        let store = vault(1, Upkeep::Fold).await;
        let unlisted = first_of(&store, ".twin");
        let listing = || Listing { inner: store.clone(), unlisted: unlisted.clone(), is_dark: false };
        assert_eq!(scrub(Arc::new(listing()), true).await.damage, []);
        // It is not there after all.
        store.tamper(&unlisted, None);
        let damage = scrub(Arc::new(listing()), true).await.damage;
        let told: Vec<(&str, &str)> =
            damage.iter().map(|damage| (damage.object.as_str(), damage.what.as_str())).collect();
        assert_eq!(told, [(unlisted.as_str(), "missing")]);
        assert!(matches!(damage[0].takes, Takes::Nothing(_)), "the other one is whole");
    });
}

#[test]
fn what_is_missing_is_no_damage_while_nobody_says_whether_it_was_given_up() {
    run(async {
        let store = vault(1, Upkeep::Fold).await;
        // Of the log behind the catalogue an opening knows by itself.
        let parts = ["/cseg/", "/fold/", "/idx/"];
        let is_part = |name: &StoreKey| parts.iter().any(|part| name.as_str().contains(part));
        let (mut unread, mut damaged) = (BTreeSet::new(), BTreeSet::new());
        for missing in store.names().into_iter().filter(is_part) {
            let bytes = store.peek(&missing);
            store.tamper(&missing, None);
            for is_dark in [true, false] {
                let listing = Listing { inner: store.clone(), unlisted: StoreKey::new("none"), is_dark };
                let report = scrub(Arc::new(listing), true).await;
                assert!(!is_dark || report.damage.is_empty(), "{missing}: {:?}", report.damage);
                if report.unread.iter().any(|unread| unread.object == missing.as_str()) {
                    unread.insert(missing.clone());
                }
                if report.damage.iter().any(|damage| damage.object == missing.as_str()) {
                    damaged.insert(missing.clone());
                }
            }
            store.tamper(&missing, bytes);
        }
        assert_eq!(unread, damaged);
        assert!(
            parts.iter().all(|part| damaged.iter().any(|name| name.as_str().contains(part))),
            "{damaged:?}"
        );
    });
}

#[test]
fn what_nothing_names_is_an_orphan_and_no_damage() {
    run(async {
        let store = vault(1, Upkeep::None).await;
        let place = |name: &str| StoreKey::new(format!("g/{MACHINE}/{name}"));
        for name in [format!("seg/00000001/{:032x}", 77), "notes".to_owned()] {
            store.put_if_absent(&place(&name), Bytes::from_static(b"left behind")).await.unwrap();
        }
        let report = scrub(store, true).await;
        assert_eq!(report.damage, []);
        let names: Vec<&str> = report.orphans.iter().map(|orphan| orphan.object.as_str()).collect();
        assert!(names.len() == 2 && names[0].ends_with("/notes") && names[1].contains("/seg/"), "{names:?}");
    });
}

#[test]
fn a_scrub_that_is_stopped_says_so_and_keeps_what_it_found() {
    run(async {
        let store = vault(1, Upkeep::None).await;
        let bytes: usize = store.names().iter().map(|name| store.peek(name).unwrap().len()).sum();
        let rate = bytes as u64 / 60;
        let scrub = Scrub::with_keys(
            store.clone(),
            keys(),
            Arc::new(InPlace),
            ScrubSettings { at_once: 2, rate_max: Some(rate) },
        );
        let (scrub, watch) = (scrub.await.unwrap(), ScrubWatch::default());
        let begun = tokio::time::Instant::now();
        let (report, ()) = tokio::join!(scrub.machine(MACHINE, &watch), async {
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
            watch.stop();
        });
        let report = report.unwrap();
        assert_eq!((report.ended, report.damage, report.orphans), (Ended::Stopped, vec![], vec![]));
        assert_eq!(report.whole, [], "who saw a third knows of no point that it misses nothing");
        assert!(report.checked > 3 && report.checked < report.objects, "{} objects", report.checked);
        // A third of it, give or take the objects that were begun.
        let (done, all) = watch.progress();
        assert!(done < all && done > all / 6, "{done} of {all}");
        assert!(begun.elapsed() >= std::time::Duration::from_secs(20));
    });
}

/// A scrub came so far, an object is damaged that it did not come to, one that it saw is lost, and another goes on. What it
/// says is what a new one says, and no segment that was found whole is read again.
#[test]
fn a_scrub_that_goes_on_reads_no_whole_segment_again_and_says_what_a_new_one_says() {
    for (seed, upkeep) in [(1, Upkeep::None), (2, Upkeep::Fold)] {
        run(async {
            let store = vault(seed, upkeep).await;
            let scrub = |settings| Scrub::with_keys(store.clone(), keys(), Arc::new(InPlace), settings);
            let (first, watch) = (scrub(ScrubSettings::default()).await.unwrap(), ScrubWatch::default());
            first.machine(MACHINE, &watch).await.unwrap();
            let mut whole = watch.take_whole();
            assert!(whole.len() > 5 && watch.take_whole().is_empty(), "{} are whole", whole.len());
            // As far as it came.
            whole.truncate(whole.len() / 2);
            let whole: BTreeSet<StoreKey> = whole.into_iter().collect();
            let is_left = |name: &StoreKey| name.as_str().contains("seg/") && !whole.contains(name);
            if let Some(left) = store.names().into_iter().find(is_left) {
                let mut bytes = store.peek(&left).unwrap().to_vec();
                bytes[130] ^= 1;
                store.tamper(&left, Some(bytes.into()));
            }
            store.tamper(whole.first().unwrap(), None);
            let scrub = scrub(ScrubSettings::default()).await.unwrap();
            let anew = scrub.machine(MACHINE, &ScrubWatch::default()).await.unwrap();
            let resumed = scrub.machine(MACHINE, &ScrubWatch::resumed(whole.clone())).await.unwrap();
            assert!(!anew.damage.is_empty(), "what is lost since is told");
            assert_eq!(resumed.resumed, whole.len() as u64 - 1);
            let same = |report: &Report| Report { resumed: 0, bytes: 0, units: 0, ..report.clone() };
            assert_eq!(same(&resumed), same(&anew));
            assert!(resumed.bytes < anew.bytes && resumed.units < anew.units);
        });
    }
}

/// Places where no checksum is in the clear: sealed bodies that no later record's digest covers, and the index.
fn is_sealed_only(name: &str, at: u64, newest: &str) -> bool {
    (name == newest && at >= 144)
        || ((name.contains("/idx/") || name.contains("/cat/")) && at >= 128)
        || (name.contains("/key/"))
}

#[test]
fn without_a_key_damage_is_named_and_its_cost_left_open() {
    run(async {
        let (store, dice) = (vault(3, Upkeep::Index).await, Seeded::new(5));
        let newest = store.names().into_iter().rfind(|name| name.as_str().contains("/log/")).unwrap();
        let mut met = 0;
        for name in store.names() {
            let bytes = store.peek(&name).unwrap();
            for at in
                [dice.below(bytes.len() as u64), 100.min(bytes.len() as u64 - 1), bytes.len() as u64 - 1]
            {
                let mut rotten = bytes.to_vec();
                rotten[at as usize] ^= 1 << dice.below(8);
                store.tamper(&name, Some(rotten.into()));
                let report = scrub(store.clone(), false).await;
                let label = format!("{name} at {at} of {}: {:?}", bytes.len(), report.damage);
                if !is_sealed_only(name.as_str(), at, newest.as_str()) {
                    assert!(report.damage.iter().any(|damage| damage.object == name.as_str()), "{label}");
                    met += 1;
                }
                // Whose vault it is, is in its first object: without it everything looks foreign.
                let alone = report.damage.iter().all(|damage| damage.object == name.as_str());
                assert!(alone || name.as_str() == "vault", "{label}");
                store.tamper(&name, Some(bytes.clone()));
            }
        }
        assert!(met > 40, "{met}");
    });
}
