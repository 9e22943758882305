//! The faults of the simulated store, one by one: what each does to a request, and what it never does.
//!
//! With every fault off the store keeps the suite of its port (`ports.rs`).
#![cfg(madsim)]

use bytes::Bytes;
use madsim::runtime::Runtime;
use redoubt_ports::{RawStore, StoreError, StoreKey};
use redoubt_sim::oracles::history::Deed;
use redoubt_sim::plan::Damage;
use redoubt_sim::ports::{Hardware, SimWorld};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Enough coins that none falls on the same side every time.
const SEEDS: u64 = 16;

const ALWAYS: u32 = 1_000_000;

/// Longer than any request hangs.
const LONG: Duration = Duration::from_secs(700);

struct Desk {
    world: SimWorld,
    store: Arc<dyn RawStore>,
}

impl Desk {
    async fn put(&self, name: &str) -> Result<(), StoreError> {
        self.store.put_if_absent(&StoreKey::new(name), Bytes::from_static(b"0123456789")).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.store.delete(&StoreKey::new(name)).await
    }

    fn holds(&self, name: &str) -> bool {
        self.world.store.truth().iter().any(|(key, _)| key.as_str() == name)
    }

    fn deeds(&self) -> Vec<Deed> {
        self.world.store.effects().iter().map(|effect| effect.deed).collect()
    }
}

/// Runs a test with each seed; a fault is set for all of it, at this chance.
fn with(fault: &str, ppm: u32, test: impl AsyncFn(Desk)) {
    for seed in 0..SEEDS {
        Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(async {
            let hardware = Hardware::of("datastore", "metro", "local").expect("these models are in the tree");
            let world = SimWorld::new(seed, false, &hardware);
            let store = world.host("a", "source").world().store;
            world.store.set(fault, ppm);
            test(Desk { world, store }).await;
        });
    }
}

#[test]
fn a_ghost_acts_minutes_after_its_sender_gave_up() {
    with("ghosts", ALWAYS, async |desk| {
        let put = desk.put("seg/1").await;
        assert!(matches!(put, Err(StoreError::Ambiguous(_))), "{put:?}");
        sleep(Duration::from_secs(10)).await;
        assert!(!desk.holds("seg/1"), "by then its sender tried again, or died");
        sleep(LONG).await;
        assert!(desk.holds("seg/1"), "it acts in the end");
    });
}

#[test]
fn a_ghost_creates_over_a_deleted_name_and_never_over_a_taken_one() {
    with("ghosts", ALWAYS, async |desk| {
        for name in ["seg/1", "seg/2"] {
            assert!(desk.put(name).await.is_err());
        }
        desk.world.store.lift_faults();
        for name in ["seg/1", "seg/2"] {
            let key = StoreKey::new(name);
            desk.store.put_if_absent(&key, Bytes::from_static(b"second")).await.expect("the name is free");
        }
        desk.delete("seg/1").await.expect("a store without faults deletes");
        desk.world.store.land();
        sleep(Duration::from_millis(1)).await;
        assert!(desk.holds("seg/1"), "the name was free again");
        let kept = desk.store.get(&StoreKey::new("seg/2"), None).await;
        assert_eq!(kept, Ok(Some(Bytes::from_static(b"second"))), "what is there is not replaced");
    });
}

#[test]
fn a_late_deletion_acts_although_it_was_not_confirmed() {
    with("late", 0, async |desk| {
        desk.put("seg/1").await.expect("nothing fails yet");
        desk.world.store.set("late", ALWAYS);
        let deleted = desk.delete("seg/1").await;
        assert!(matches!(deleted, Err(StoreError::Ambiguous(_))), "{deleted:?}");
        desk.world.store.land();
        sleep(Duration::from_millis(1)).await;
        assert!(!desk.holds("seg/1"));
        assert_eq!(desk.deeds(), [Deed::Created, Deed::Deleted]);
    });
}

#[test]
fn a_confirmed_deletion_is_undone_later() {
    with("resurrections", ALWAYS, async |desk| {
        desk.put("seg/1").await.expect("creations are not hit");
        desk.delete("seg/1").await.expect("the deletion is confirmed");
        assert!(!desk.holds("seg/1"), "at first it is gone");
        sleep(LONG).await;
        assert!(desk.holds("seg/1"), "and then it is back");
        assert_eq!(desk.deeds(), [Deed::Created, Deed::Deleted, Deed::CameBack]);
    });
}

#[test]
fn a_full_store_refuses_creations_and_still_reads_lists_and_deletes() {
    with("full", 0, async |desk| {
        desk.put("seg/1").await.expect("there is room");
        desk.world.store.set("full", ALWAYS);
        assert_eq!(desk.put("seg/2").await, Err(StoreError::NoSpace));
        assert!(!desk.holds("seg/2"), "nothing happened");
        let read = desk.store.get(&StoreKey::new("seg/1"), None).await;
        assert_eq!(read, Ok(Some(Bytes::from_static(b"0123456789"))));
        assert_eq!(desk.store.list_after("seg/", None, 9).await.map(|found| found.len()), Ok(1));
        desk.delete("seg/1").await.expect("what makes room is let in");
        desk.world.store.lift_faults();
        desk.put("seg/2").await.expect("there is room again");
    });
}

#[test]
fn the_same_objects_are_slow_every_time_and_the_others_are_not() {
    with("slow", 300_000, async |desk| {
        let slow = async |name: String| {
            let key = StoreKey::new(name);
            // Longer than any request of the models takes, shorter than any for a slow object.
            match timeout(Duration::from_millis(400), desk.store.get(&key, None)).await {
                Ok(read) => read.map(|_| false).expect("slow is no error"),
                Err(_) => true,
            }
        };
        let mut all = Vec::new();
        for number in 0..20 {
            let first = slow(format!("seg/{number}")).await;
            assert_eq!(slow(format!("seg/{number}")).await, first, "object {number}");
            all.push(first);
        }
        assert!(all.contains(&true) && all.contains(&false), "{all:?}");
    });
}

#[test]
fn a_process_that_ends_with_an_effect_hears_nothing_more() {
    with("throttle", 0, async |desk| {
        desk.world.store.trip("a", 2);
        desk.put("seg/1").await.expect("the first effect is let through");
        assert_eq!(desk.world.store.tripped(), Vec::<String>::new());
        let put = timeout(LONG, desk.put("seg/2")).await;
        assert!(put.is_err(), "nobody hears the answer: {put:?}");
        assert!(desk.holds("seg/2"), "the effect is there");
        assert_eq!(desk.world.store.tripped(), ["a"]);
        let next = timeout(LONG, desk.put("seg/3")).await;
        assert!(next.is_err() && !desk.holds("seg/3"), "nothing follows it: {next:?}");
        desk.world.store.was_ended("a");
        desk.put("seg/3").await.expect("the next process works");
    });
}

#[test]
fn damage_at_rest_is_a_bit_an_end_or_all_of_an_object() {
    with("throttle", 0, async |desk| {
        desk.put("seg/1").await.expect("nothing fails");
        let key = StoreKey::new("seg/1");
        let whole = Bytes::from_static(b"0123456789");
        for (damage, length) in [(Damage::Rot, 10..=10), (Damage::Truncated, 0..=9)] {
            assert_eq!(desk.world.store.spoil(&key, damage), Some(whole.clone()));
            let found = desk.world.store.direct().get(&key, None).await.expect("it is there").expect("still");
            assert!(length.contains(&found.len()) && found != whole, "{damage:?}: {found:?}");
            assert!(desk.world.store.restore(&key, whole.clone()), "who read all of it met it");
        }
        assert!(desk.world.store.spoil(&key, Damage::Lost).is_some());
        assert!(!desk.holds("seg/1"));
        assert!(!desk.world.store.restore(&key, whole), "nobody looked");
    });
}

#[test]
fn a_store_that_goes_back_to_its_copy_knows_nothing_of_what_came_after() {
    with("throttle", 0, async |desk| {
        assert!(!desk.world.store.go_back(), "there is no copy");
        desk.put("seg/1").await.expect("nothing fails");
        desk.world.store.copy();
        desk.put("seg/2").await.expect("nothing fails");
        desk.delete("seg/1").await.expect("nothing fails");
        assert!(desk.world.store.go_back());
        assert!(desk.holds("seg/1") && !desk.holds("seg/2"));
        assert_eq!(desk.deeds(), [Deed::Created]);
    });
}
