//! A model of the vault's protocol: writers, maintainers and readers on an abstract store, under every order of
//! requests, every loss and every death that a seed can bring, driven by the decisions of `redoubt_core::maintenance`.
//!
//! `VAULT_SCHEDULES` says how many schedules to play (the gate plays few), `VAULT_SEED` with which one to begin.
#![allow(clippy::disallowed_methods, reason = "the test reads how long to search from its environment")]

mod collector;
mod folder;
mod maintainer;
mod oracle;
mod reader;
mod schedule;
mod store;
mod world;
mod writer;

use schedule::play;

/// Mistakes in the protocol that the model must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A writer acknowledges without looking for a newer claim.
    NoClaimCheck,
    /// "Already exists" and a lost reply count as success.
    TrustReplies,
    /// Uploads that nobody names and that are old count as orphans.
    OrphansByAge,
    /// What retention does not keep is dropped at once.
    OnePhase,
    /// As before, but nothing is deleted while there are pins.
    RelistBeforeDelete,
    /// The last record of the log is folded and deleted.
    DropLastRecord,
    /// After an uncertain reply the next number is claimed.
    SparseClaims,
    /// A reader gives all its pins of a point the same name.
    ReusePinName,
    /// Garbage is deleted before the version that lists it is published.
    DeleteBeforePublish,
    /// A maintainer publishes on top of a version of a higher epoch.
    PublishOverHigherEpoch,
    /// Pins are listed before the catalogue is loaded.
    PinsBeforeCatalogue,
    /// The names in use are read before the newest epoch that sealed is.
    UsedBeforeSeal,
    /// A reader uses a point without looking whether it is still live.
    TrustPin,
    /// A maintainer deletes without looking for a newer claim.
    NoCheckBeforeDelete,
}

impl Mutant {
    /// Those that the gate has the time to find.
    const COMMON: [Mutant; 13] = [
        Mutant::NoClaimCheck,
        Mutant::TrustReplies,
        Mutant::OrphansByAge,
        Mutant::OnePhase,
        Mutant::RelistBeforeDelete,
        Mutant::DropLastRecord,
        Mutant::SparseClaims,
        Mutant::ReusePinName,
        Mutant::DeleteBeforePublish,
        Mutant::PublishOverHigherEpoch,
        Mutant::PinsBeforeCatalogue,
        Mutant::UsedBeforeSeal,
        Mutant::TrustPin,
    ];
    /// It takes a maintainer that sleeps until its next three versions were made and deleted by others.
    const RARE: [Mutant; 1] = [Mutant::NoCheckBeforeDelete];
}

/// Schedules of the gate.
const SCHEDULES: u64 = 3000;
/// A mutant must break something in so many schedules; the rarest breaks one in 1500.
const SCHEDULES_FOR_A_MUTANT: u64 = 10_000;
/// The same for those that show in one of 30,000; looked for by whoever plays more schedules than that.
const SCHEDULES_FOR_A_RARE_MUTANT: u64 = 300_000;
/// One schedule of so many has actors that sleep long.
const SLEEP_EVERY: u64 = 8;
/// One schedule of so many is played until everything has come to rest.
const SETTLE_EVERY: u64 = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn the_protocol_holds_under_every_schedule() {
    let (begin, schedules) = (setting("VAULT_SEED", 1), setting("VAULT_SCHEDULES", SCHEDULES));
    let mut counts = [0u64; 4];
    for seed in begin..begin + schedules {
        let outcome = play(seed, None, seed.is_multiple_of(SLEEP_EVERY), seed.is_multiple_of(SETTLE_EVERY));
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}");
        }
        counts[0] += u64::from(outcome.acknowledged);
        counts.iter_mut().skip(1).zip(outcome.counts).for_each(|(sum, count)| *sum += count);
    }
    let [slots, acknowledged, deleted, fenced] = counts;
    println!(
        "{schedules} schedules: {slots} slots, {acknowledged} commits acknowledged, {deleted} deletes, {fenced} fenced"
    );
    assert!(acknowledged > schedules && deleted > schedules, "the schedules do too little");
}

/// Looks for each mutant where actors sleep long; returns those that broke nothing.
fn missed(mutants: &[Mutant], schedules: u64) -> Vec<Mutant> {
    let breaks = |mutant: Mutant, seed| play(seed, Some(mutant), true, false).violation.is_some();
    mutants.iter().copied().filter(|mutant| !(1..=schedules).any(|seed| breaks(*mutant, seed))).collect()
}

#[test]
fn each_mutant_is_found() {
    let mut missed = missed(&Mutant::COMMON, SCHEDULES_FOR_A_MUTANT);
    if setting("VAULT_SCHEDULES", SCHEDULES) >= SCHEDULES_FOR_A_RARE_MUTANT {
        missed.extend(self::missed(&Mutant::RARE, SCHEDULES_FOR_A_RARE_MUTANT));
    }
    assert!(missed.is_empty(), "{missed:?} broke nothing");
}
