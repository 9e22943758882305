//! The admission of a store, in the lab: a store that is slow, loses replies and lies about conflicts is let in;
//! one that breaks a promise is not, and the rule is named.
#![cfg(madsim)]

use madsim::runtime::Runtime;
use redoubt_sim::ports::{BrokenPromise, Hardware, SimWorld};
use redoubt_vault::{StoreRule, Vault, VaultError, VaultKeys};

/// Seeds per store: delays and faults differ with each.
const SEEDS: u64 = 8;

/// Makes a vault on the store of a world that `prepare` made worse.
fn init(seed: u64, prepare: impl Fn(&SimWorld)) -> Result<Vault, VaultError> {
    Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(async {
        let hardware = Hardware::of("datastore", "wan", "cloud").expect("these models are in the tree");
        let world = SimWorld::new(seed, false, &hardware);
        prepare(&world);
        let host = world.host("a", "target").world();
        Vault::init(host.store, VaultKeys::new([7; 32]), &*host.world.entropy).await
    })
}

#[test]
fn a_store_that_breaks_a_promise_is_refused_by_the_name_of_the_rule() {
    for (broken, expected) in [
        (BrokenPromise::RacyCreation, StoreRule::Exclusive),
        (BrokenPromise::StaleRead, StoreRule::ReadAfterWrite),
        (BrokenPromise::StaleList, StoreRule::ListAfterWrite),
    ] {
        for seed in 0..SEEDS {
            let refused = init(seed, |world| world.store.break_promise(broken)).unwrap_err();
            let rule = match &refused {
                VaultError::NotAdmitted { rule, .. } => *rule,
                other => panic!("{broken:?}, seed {seed}: {other}"),
            };
            assert_eq!(rule, expected, "seed {seed}: {refused}");
        }
    }
}

#[test]
fn a_store_with_the_faults_of_a_good_one_is_admitted() {
    for seed in 0..SEEDS {
        let faulty = |world: &SimWorld| {
            for knob in ["throttle", "lost-replies", "late", "false-conflicts"] {
                world.store.set(knob, 20_000);
            }
        };
        init(seed, faulty).unwrap_or_else(|refused| panic!("seed {seed}: {refused}"));
    }
}
