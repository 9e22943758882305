//! Whether a store may hold a vault: its promises are tried, for a listing of features proves none.
//!
//! Invariants
//! - AD-1 A store that breaks a rule is refused by the name of that rule, before anything of a vault or a machine
//!   is touched.
//! - AD-2 A probe reads and lists at once after it wrote: a store that is right a little later is wrong.
//! - AD-3 A store whose content is another all of a sudden breaks no rule: that is told as what it is.
//!
//! What is *not* here: faults that a right store may have (lost replies, false conflicts), which the resolve layer
//! below takes away; promises that hold only until a crash.

use crate::error::VaultError;
use crate::names;
use crate::store::{Created, Store};
use bytes::Bytes;
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Longest time spent on removing a probe's objects: a store that is down must not hold up its own report.
const CLEAN_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a probe's object.
const BODY_BYTES: usize = 64;
/// First body of the object that is written alone; racers have their numbers.
const ALONE: u8 = 0xfe;
/// What must not replace it.
const SECOND: u8 = 0xff;

/// The probe of a new vault; a store that breaks races broke every round measured.
pub(crate) const OF_INIT: Probe = Probe { rounds: 8, racers: 16 };
/// The probe of a writer: a handful of small requests finds a store that has lost its promises since, such
/// as another server behind the same address.
pub(crate) const OF_CLAIM: Probe = Probe { rounds: 1, racers: 4 };

/// A promise that the vault is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreRule {
    /// Of all creations of one name exactly one wins, and nothing replaces it.
    Exclusive,
    /// What was written is read, as a whole and in ranges, by whoever asks next.
    ReadAfterWrite,
    /// What was written is listed by whoever asks next.
    ListAfterWrite,
}

impl fmt::Display for StoreRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreRule::Exclusive => "put-if-absent is exclusive",
            StoreRule::ReadAfterWrite => "a read sees every write before it",
            StoreRule::ListAfterWrite => "a listing sees every write before it",
        })
    }
}

/// Rounds and racers of a probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    rounds: u32,
    racers: u8,
}

/// Tries the store's promises. Removes its objects whatever the outcome, if it may: a store that lets nobody
/// delete is welcome, and what stays is small and never read.
pub(crate) async fn probe(store: &Store, run: u128, size: Probe) -> Result<(), VaultError> {
    let outcome = async {
        alone(store, run, size.rounds).await?;
        for round in 0..size.rounds {
            race(store, &names::probe(run, round), size.racers).await?;
        }
        let expected: BTreeSet<StoreKey> = (0..=size.rounds).map(|round| names::probe(run, round)).collect();
        listed(store, run, &expected).await
    };
    let mut outcome = outcome.await;
    let first = names::probe(run, size.rounds);
    if matches!(outcome, Err(VaultError::NotAdmitted { .. })) && went_away(store, run, &first).await {
        outcome = Err(VaultError::WentAway { object: first.to_string() });
    }
    let clean = async {
        for round in 0..=size.rounds {
            let _ = store.delete(&names::probe(run, round)).await;
        }
        let _ = store.delete(&names::probe(!run, 0)).await;
    };
    let _ = tokio::time::timeout(CLEAN_DEADLINE, clean).await;
    outcome
}

/// AD-3: tells whether the probe's first object is gone, while the store is right about a new one.
async fn went_away(store: &Store, run: u128, first: &StoreKey) -> bool {
    let is_there = store.get(first, None).await.map(|found| found == Some(body(ALONE)));
    is_there == Ok(false) && alone(store, !run, 0).await.is_ok()
}

fn refuse(rule: StoreRule, found: impl Into<String>) -> Result<(), VaultError> {
    Err(VaultError::NotAdmitted { rule, found: found.into() })
}

fn body(of: u8) -> Bytes {
    Bytes::from(vec![of; BODY_BYTES])
}

/// One object without a race: read and listed at once, and created a second time. AD-2.
async fn alone(store: &Store, run: u128, number: u32) -> Result<(), VaultError> {
    let name = names::probe(run, number);
    if store.create_in_probe(&name, &body(ALONE)).await? != Created::Mine {
        return refuse(StoreRule::Exclusive, "a name that nobody used was taken");
    }
    reads_back(store, &name, ALONE).await?;
    listed(store, run, &BTreeSet::from([name.clone()])).await?;
    match store.create_in_probe(&name, &body(SECOND)).await? {
        Created::Other(found) if found == body(ALONE) => Ok(()),
        Created::Other(_) => refuse(StoreRule::Exclusive, "an object changed after its creation"),
        Created::Mine => refuse(StoreRule::Exclusive, "a second creation replaced the first"),
    }
}

async fn race(store: &Store, name: &StoreKey, racers: u8) -> Result<(), VaultError> {
    let races = (0..racers).map(|racer| async move { store.create_in_probe(name, &body(racer)).await });
    let mut winners = Vec::new();
    for (racer, created) in (0..).zip(futures::future::join_all(races).await) {
        if created? == Created::Mine {
            winners.push(racer);
        }
    }
    match winners[..] {
        [winner] => reads_back(store, name, winner).await,
        _ => {
            let found = format!("{} of {racers} racing creations of one name won", winners.len());
            refuse(StoreRule::Exclusive, found)
        }
    }
}

async fn reads_back(store: &Store, name: &StoreKey, of: u8) -> Result<(), VaultError> {
    match store.get(name, None).await? {
        Some(found) if found == body(of) => {}
        Some(_) => return refuse(StoreRule::ReadAfterWrite, "a new object reads back as another"),
        None => return refuse(StoreRule::ReadAfterWrite, "a new object is not found"),
    }
    match store.get(name, Some(1..3)).await? {
        Some(found) if found[..] == [of, of] => Ok(()),
        _ => refuse(StoreRule::ReadAfterWrite, "a range of a new object does not read back"),
    }
}

async fn listed(store: &Store, run: u128, expected: &BTreeSet<StoreKey>) -> Result<(), VaultError> {
    let found = store.list(&names::probes(run), None).await?;
    if found.iter().eq(expected.iter()) {
        return Ok(());
    }
    let found = format!("{} of {} new objects are listed", found.len(), expected.len());
    refuse(StoreRule::ListAfterWrite, found)
}
