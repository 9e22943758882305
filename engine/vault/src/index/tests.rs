//! The index, in memory and stored, against a list of everything that was ever added.

use super::entry::Wanted;
use super::*;
use crate::key_ring::{DataKey, KeyRing};
use crate::keys::VaultKeys;
use crate::mem::MemStore;
use crate::segment::{ExtentRow, GRANULE_SECTORS, Source, UnitRow};
use crate::vault::Vault;
use proptest::prelude::*;
use redoubt_core::MachineId;
use redoubt_ports::{Entropy, RawStore};
use redoubt_wire::aead::Key;
use std::sync::atomic::{AtomicU64, Ordering};

/// One addition: version, volume, first sector, end, content.
type Added = (Version, VolumeIndex, u64, u64, Option<(u128, u32, u8)>);

/// The maintainer whose tables they are.
const EPOCH: u64 = 2;
/// The border between two cells of a high level, so that both and their ends are met.
const BORDER: u64 = GRANULE_SECTORS << 18;
/// How far from the border content is put: a few granules, so that versions meet.
const NEAR: u64 = 4 * GRANULE_SECTORS;
/// How far zeros reach: over whole cells of the next two levels.
const FAR: u64 = GRANULE_SECTORS << 13;

/// What one sector shows, by the slowest and plainest way.
fn truth(added: &[Added], version: Version, volume: VolumeIndex, sector: u64) -> Option<(u128, u32, u64)> {
    let covers = |(at, of, first, end, _): &&Added| {
        *at <= version && *of == volume && *first <= sector && sector < *end
    };
    let (_, _, first, _, content) = added.iter().rev().find(covers)?;
    content.map(|(segment, unit, offset)| (segment, unit, u64::from(offset) + sector - first))
}

/// What one version adds.
#[derive(Clone, Debug)]
enum Change {
    /// Step from the end of the one before, length, and whether it is content.
    Near(Vec<(u64, u64, bool)>),
    /// Zeros from this far before the border to this far behind it.
    Far(u64, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let near = prop::collection::vec((0..60u64, 1..200u64, any::<bool>()), 1..12);
    let far = prop_oneof![Just(0), Just(FAR), 1..FAR];
    prop_oneof![4 => near.prop_map(Change::Near), 1 => (far.clone(), far).prop_map(|(a, b)| Change::Far(a, b))]
}

/// The extents of a version, none over another: first sector, end, whether it is content.
fn extents(change: &Change) -> Vec<(u64, u64, bool)> {
    match change {
        Change::Far(before, behind) => vec![(BORDER - before, BORDER + behind, false)],
        Change::Near(steps) => {
            let mut at = BORDER - NEAR;
            let extent = |(step, length, is_content): &(u64, u64, bool)| {
                let first = at + step;
                // Content stays within its granule.
                let space = if *is_content { GRANULE_SECTORS - first % GRANULE_SECTORS } else { u64::MAX };
                at = first + (*length).min(space);
                (first, at, *is_content)
            };
            steps.iter().map(extent).collect()
        }
    }
}

#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.iter_mut().for_each(|byte| *byte = self.0.fetch_add(1, Ordering::Relaxed) as u8);
    }
}

/// A machine whose index is built by hand: the last tail is not stored.
struct Hand {
    store: Arc<MemStore>,
    index: StoredIndex,
    dek: Key,
    catalogue: Catalogue,
    tail: Tail,
    tables: u128,
    /// Entries of a block, bytes of a table.
    cut: (usize, usize),
}

impl Hand {
    async fn new(cut: (usize, usize)) -> Hand {
        let store = Arc::new(MemStore::new());
        let vault = Vault::init(store.clone(), VaultKeys::new([7; 32]), &Counted::default()).await.unwrap();
        let (machine, dek) = (MachineId(3), Key::new([4; 32]));
        let keys = KeyRing::new(&vault, machine);
        keys.learn(&DataKey { id: 1, key: dek.clone() });
        let index = StoredIndex::new(Log { vault, machine, keys });
        let (catalogue, tail) = (Catalogue { dek: 1, ..Catalogue::default() }, Tail::default());
        Hand { store, index, dek, catalogue, tail, tables: 1 << 64, cut }
    }

    /// Stores the tail, merged with the newest `with` runs.
    async fn store(&mut self, slot: u64, with: usize) {
        let Hand { store, index, dek, catalogue, tail, tables, cut } = self;
        let old = catalogue.runs.split_off(catalogue.runs.len() - with.min(catalogue.runs.len()));
        let from = old.first().map_or(catalogue.runs.last().map_or(1, |run| run.to + 1), |run| run.from);
        let mut uuid = || {
            *tables += 1;
            *tables
        };
        let id = TableId { vault: index.log.vault.uuid, machine: index.log.machine, uuid: 0, dek: 1 };
        let mut builder = RunBuilder::new(id, EPOCH, dek, uuid(), (from, slot));
        (builder.block_entries, builder.table_bytes) = *cut;
        let mut items = Vec::new();
        let mut stored = Merged::open(index, &old).await.unwrap();
        while let Some(item) = stored.next(index).await.unwrap() {
            items.push(item);
        }
        items.extend(tail.items());
        items.sort_by_key(run::Item::key);
        let mut done: Vec<TableBytes> =
            items.into_iter().filter_map(|item| builder.add(item, &mut uuid)).collect();
        let (run, last) = builder.finish();
        done.extend(last);
        for table in done {
            store
                .put_if_absent(&names::table(index.log.machine, EPOCH, table.uuid), table.bytes.clone())
                .await
                .unwrap();
            let (length, digest) = (table.bytes.len() as u64, [0; 32]);
            catalogue.tables.insert(table.uuid, TableInfo { epoch: EPOCH, length, digest, dek: 1 });
        }
        catalogue.runs.push(run);
        catalogue.slot = slot;
        *tail = Tail::default();
        let id = TableId { uuid: uuid(), ..id };
        let (vault, machine) = (id.vault, id.machine);
        let bytes = encode(&id, catalogue, dek).unwrap();
        assert_eq!(decode(&bytes, vault, machine, 0, dek).unwrap(), *catalogue, "it reads as written");
    }

    async fn find(&self, version: Version, volume: VolumeIndex, first: u64, end: u64) -> Vec<Found> {
        let (granules, mut found) = (first / GRANULE_SECTORS..end.div_ceil(GRANULE_SECTORS), Vec::new());
        let mut wanted: Vec<Wanted> = granules.map(|granule| Wanted::new(granule, first, end)).collect();
        wanted.iter_mut().for_each(|granule| self.tail.find(version, volume, granule, &mut found));
        let (near, is_kept) = (Near::default(), AtomicBool::new(true));
        let reach = Reach::new(&near, Purpose::Asked, &is_kept);
        self.index.find(&self.catalogue, version, volume, &mut wanted, &mut found, reach).await.unwrap();
        found
    }
}

const UNIT: UnitRow = UnitRow { offset: 128, sealed: 70, plain: 64 << 10, codec: 1, crc: 0 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_shows_what_was_added_up_to_it(
        changes in prop::collection::vec(change(), 1..14),
        merge_min in prop::sample::select(vec![1usize, 3, 20, 10_000]),
        cut in prop::sample::select(vec![(1usize, 1usize), (3, 1), (7, 400), (4096, 1 << 20)]),
        stores in prop::collection::vec(prop::option::of(0..3usize), 14),
        places in prop::collection::vec((0..2 * NEAR, 1..300u64), 14),
        loaded in prop::option::of(0..14usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let outcome: Result<(), TestCaseError> = runtime.block_on(async {
            let mut hand = Hand::new(cut).await;
            if loaded.is_some() {
                hand.tail = Tail::to_load();
            }
            let mut added: Vec<Added> = Vec::new();
            for (number, change) in changes.iter().enumerate() {
                let slot = number as u64 / 2 + 1;
                let version = Version::new(slot, number as u16 % 2);
                let volume = VolumeIndex(u16::from(number % 4 == 3));
                let uuid = number as u128;
                let held = if number % 3 == 0 { Held::Inline { slot, base: 9 } } else { Held::Own };
                let place = SegmentPlace { uuid, epoch: 1, dek: 1, held };
                let mut rows = Vec::new();
                for (unit, (first, end, is_content)) in extents(change).into_iter().enumerate() {
                    let content = is_content.then_some((uuid, unit as u32, 0));
                    let source = content.map_or(Source::Zero, |(_, unit, offset)| Source::Unit { unit, offset });
                    if first < end {
                        rows.push(ExtentRow { volume, span: number as u16 % 2, first, sectors: end - first, source });
                        added.push((version, volume, first, end, content));
                    }
                }
                hand.tail.merge_min = merge_min;
                hand.tail.add(slot, place, &vec![UNIT; rows.len()], &rows);
                if loaded == Some(number) {
                    hand.tail.settle();
                }
                if number % 2 == 1 && let Some(with) = stores[number] {
                    hand.store(slot, with).await;
                }
            }
            hand.tail.settle();
            for (at, (first, sectors)) in places.iter().enumerate() {
                let version = Version::new(at as u64 / 2 + 1, at as u16 % 2);
                let (first, end) = (BORDER - NEAR + first, BORDER - NEAR + first + sectors);
                for volume in [VolumeIndex(0), VolumeIndex(1)] {
                    let mut shown = BTreeMap::new();
                    for part in hand.find(version, volume, first, end).await {
                        for sector in 0..part.sectors {
                            let content = (part.unit.segment.uuid, part.unit.number, part.offset + sector);
                            prop_assert!(shown.insert(part.first + sector, content).is_none(), "found twice");
                        }
                    }
                    for sector in first..end {
                        let wanted = truth(&added, version, volume, sector);
                        prop_assert_eq!(shown.remove(&sector), wanted, "sector {}", sector);
                    }
                    prop_assert!(shown.is_empty(), "nothing outside the range");
                }
            }
            Ok(())
        });
        outcome?;
    }

    #[test]
    fn zeros_are_cut_into_cells_that_cover_them_exactly(first in 0..FAR * 9, sectors in 1..FAR * 9) {
        let (mut covered, mut pieces) = (0, 0);
        let mut all: Vec<(u64, u64)> = Vec::new();
        key::cut_zeros(first, first + sectors, |piece| {
            let cell = GRANULE_SECTORS << (6 * u32::from(piece.level));
            let from = piece.number * cell + u64::from(piece.first);
            let length = if piece.level > 0 { cell } else { u64::from(piece.sectors) };
            all.push((from, length));
            covered += length;
            pieces += 1;
        });
        all.sort_unstable();
        prop_assert_eq!(all.first().map(|piece| piece.0), Some(first));
        prop_assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "no gap, none twice");
        prop_assert_eq!(covered, sectors);
        prop_assert!(pieces <= 2 + 126 * 4, "{} pieces", pieces);
    }

    #[test]
    fn parsers_of_the_index_refuse_arbitrary_bytes_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        small in prop::collection::vec(0..6u8, 0..200),
    ) {
        let id = TableId { vault: 1, machine: MachineId(3), uuid: 2, dek: 1 };
        let header = peek(&example(id, &Key::new([4; 32])).1, 1, MachineId(3), 7).unwrap();
        for bytes in [&bytes, &small] {
            let _ = block::decode(bytes);
            let _ = catalogue::decode_body(&header, bytes);
            prop_assert!(decode(bytes, 1, MachineId(3), 3, &Key::new([4; 32])).is_err());
        }
        let head = [&[0; 32 + 32 + 8 + 48 + 2 + 2], &small[..]].concat();
        let _ = catalogue::decode_body(&header, &head);
    }
}

#[test]
fn a_vast_trim_costs_a_handful_of_entries() {
    let mut pieces = 0;
    key::cut_zeros(1, u64::MAX, |_| pieces += 1);
    assert!(pieces < 1300, "{pieces}");
}
