//! Reads all of a machine's objects, tells what is damaged, and which points and ranges that takes.
//!
//! Two depths. Without keys: checksums, digests and links, as far as they are in the clear. With keys: every
//! record and unit is opened and compared with what names it, and each damaged place is mapped.
//!
//! Invariants
//! - SC-1 What the store does not hand out is not known: it is told as such, never as damage, never as whole.
//! - SC-2 Damage is told with the object that holds it; what it takes is asked of the reader, at every point.
//! - SC-3 What comes, goes or moves while the scrub goes on is no damage, nor is an object that nothing names. Names are
//!   listed before what names them is read, so that an upload under way is at worst told as one of these.
//! - SC-4 At most [`ScrubSettings::at_once`] objects are in memory. A scrub that is stopped tells what it found.
//! - SC-5 A scrub that goes on for another reads no segment object that the other found whole and that is still listed. It
//!   reads all else again, damaged segments too, so that its report is all there is to say.
//!
//! What is *not* here: repair, which is the source's (`redoubt scrub --repair`).

mod clear;
mod folded;
mod hits;
mod index;
mod open;
mod pace;
mod report;
mod slots;
mod small;
mod verdict;

pub use pace::ScrubWatch;
pub use report::{Damage, Ended, Hit, Orphan, Report, Takes, Unread};

use crate::error::{StoreFailure, VaultError};
use crate::fold::Mark;
use crate::keys::VaultKeys;
use crate::names;
use crate::store::Store;
use crate::vault::Vault;
use bytes::Bytes;
use clear::Fault;
use futures::StreamExt;
use hits::Bad;
use pace::Pace;
use redoubt_core::MachineId;
use redoubt_ports::{RawStore, StoreKey, Workers, compute};
use redoubt_wire::aead::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects that the store may fail to hand out before the scrub gives up: each costs a minute of attempts.
const UNREAD_MAX: usize = 64;

/// How a scrub goes about it.
#[derive(Clone, Copy, Debug)]
pub struct ScrubSettings {
    /// Large objects read and checked at once; each has up to 32 MiB.
    pub at_once: usize,
    /// Bytes read per second, on average; no bound if none.
    pub rate_max: Option<u64>,
}

impl Default for ScrubSettings {
    fn default() -> ScrubSettings {
        // With segments of 16 MiB that is some 128 MiB, and enough to keep a store and eight cores busy.
        ScrubSettings { at_once: 8, rate_max: None }
    }
}

/// Scrubs a vault, machine by machine.
pub struct Scrub {
    store: Store,
    vault: Option<Vault>,
    workers: Arc<dyn Workers>,
    settings: ScrubSettings,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrub({:?})", self.vault)
    }
}

impl Scrub {
    /// Takes a store without any key.
    pub fn without_keys(
        store: Arc<dyn RawStore>,
        workers: Arc<dyn Workers>,
        settings: ScrubSettings,
    ) -> Scrub {
        Scrub { store: Store::new(store), vault: None, workers, settings }
    }

    /// Opens a vault with its key.
    pub async fn with_keys(
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
        workers: Arc<dyn Workers>,
        settings: ScrubSettings,
    ) -> Result<Scrub, VaultError> {
        let vault = Vault::open(store, keys).await?;
        Ok(Scrub { store: vault.store.clone(), vault: Some(vault), workers, settings })
    }

    /// Returns the machines that have objects in the store.
    pub async fn machines(&self) -> Result<Vec<MachineId>, VaultError> {
        crate::vault::machines(&self.store).await
    }

    /// Checks all objects of a machine, and the vault object. Only a store that gives no listing is an error.
    pub async fn machine(&self, machine: MachineId, watch: &ScrubWatch) -> Result<Report, VaultError> {
        let mut run = Run {
            scrub: self,
            machine,
            watch,
            pace: Pace::new(self.settings.rate_max),
            inventory: BTreeMap::new(),
            vault: 0,
            keys: None,
            named: BTreeSet::new(),
            pending: Vec::new(),
            twinless: Vec::new(),
            points: Vec::new(),
            mark: Mark::default(),
            covered: 0,
            is_broken: false,
            is_fold_broken: false,
            report: Report::new(machine, self.vault.is_some()),
        };
        run.take_inventory().await?;
        run.vault_object().await;
        run.small_objects().await;
        let index = run.catalogues().await;
        run.folded(index.newest.as_ref()).await;
        run.slots().await;
        run.index(index).await;
        run.twins().await;
        run.verdict().await?;
        Ok(run.report)
    }
}

/// Data keys by number.
type Keys = Arc<BTreeMap<u32, Key>>;

/// A damaged place whose costs are still to be asked for.
struct Pending {
    /// Which entry of the report.
    damage: usize,
    bad: Bad,
    /// What the segment wrote with it, if that is known.
    rows: Option<Vec<hits::Written>>,
}

/// One machine's scrub under way.
struct Run<'a> {
    scrub: &'a Scrub,
    machine: MachineId,
    watch: &'a ScrubWatch,
    pace: Pace,
    inventory: BTreeMap<StoreKey, u64>,
    /// The vault's identity.
    vault: u128,
    /// The data keys that open, by number; none at all if nothing can be opened.
    keys: Option<Keys>,
    /// Objects that something names.
    named: BTreeSet<StoreKey>,
    pending: Vec<Pending>,
    /// Keys of which one object was listed and its twin was not: the one that was not, and whether the other is whole.
    twinless: Vec<(StoreKey, bool)>,
    /// Points of the newest catalogue, and of all records behind it that count and can be read.
    points: Vec<crate::reader::PointId>,
    /// Where the log begins.
    mark: Mark,
    /// The last slot of which the newest catalogue says the points.
    covered: u64,
    /// Some record of the log, or the tables of some segment, cannot be used.
    is_broken: bool,
    /// Some fold cannot be used.
    is_fold_broken: bool,
    report: Report,
}

/// Why there is nothing to check.
enum Gone {
    Missing,
    Unread(String),
    /// The scrub was told to stop.
    Stopped,
}

impl Run<'_> {
    async fn take_inventory(&mut self) -> Result<(), VaultError> {
        let prefix = format!("{}{}/", names::MACHINES, self.machine);
        // Data keys come before what they seal, and are listed before it: those of what was added meanwhile come last.
        for prefix in [prefix, names::data_keys(self.machine)] {
            let mut after: Option<StoreKey> = None;
            loop {
                let page = self.scrub.store.page(&prefix, after.as_ref(), 10_000).await?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                self.inventory.extend(page);
            }
        }
        // With the vault object and its twin.
        self.report.objects = self.inventory.len() as u64 + 2;
        self.watch.expect(self.inventory.values().sum());
        Ok(())
    }

    async fn read(&self, name: &StoreKey) -> Result<Bytes, Gone> {
        if self.watch.is_stopped() {
            return Err(Gone::Stopped);
        }
        let bytes = self.inventory.get(name).copied().unwrap_or(0);
        if !self.pace.turn(bytes, self.watch).await {
            return Err(Gone::Stopped);
        }
        match self.scrub.store.get(name, None).await {
            Ok(found) => found.ok_or(Gone::Missing),
            Err(failure) => Err(Gone::Unread(failure.to_string())),
        }
    }

    /// Takes note of an object that was asked for. `None`: nothing is known of it; `Some(None)`: it is missing.
    fn note<T>(&mut self, name: &StoreKey, read: Result<(T, u64), Gone>) -> Option<Option<T>> {
        self.named.insert(name.clone());
        match read {
            Ok((found, bytes)) => {
                self.report.checked += 1;
                self.report.bytes += bytes;
                self.watch.checked(bytes);
                Some(Some(found))
            }
            Err(Gone::Missing) => Some(None),
            Err(Gone::Stopped) => {
                self.report.ended = Ended::Stopped;
                None
            }
            Err(Gone::Unread(why)) => {
                self.unread(name, why);
                None
            }
        }
    }

    /// Tells whether something may be missing, given whether a maintainer gave it up. If the store does not say that, nothing
    /// is known of it (SC-1).
    fn may_miss(&mut self, name: &StoreKey, is_given_up: Result<bool, StoreFailure>) -> bool {
        is_given_up.unwrap_or_else(|failure| {
            self.unread(name, format!("it is missing, and whether it was given up is not known: {failure}"));
            true
        })
    }

    /// Takes note of what the store did not hand out.
    fn unread(&mut self, name: &StoreKey, why: String) {
        self.report.unread.push(Unread { object: name.to_string(), why });
        if self.report.unread.len() >= UNREAD_MAX {
            self.watch.stop();
        }
    }

    /// Takes note of a segment object that an earlier scrub found whole; tells whether it is one.
    fn resume(&mut self, name: &StoreKey) -> bool {
        let Some(bytes) = self.inventory.get(name).copied().filter(|_| self.watch.knows(name)) else {
            return false;
        };
        self.named.insert(name.clone());
        self.report.checked += 1;
        self.report.resumed += 1;
        self.watch.checked(bytes);
        true
    }

    /// Adds damage and returns its place in the report, if there is room for it.
    fn add(&mut self, name: &StoreKey, fault: Fault, takes: Takes) -> Option<usize> {
        let Fault { from, to, what, .. } = fault;
        let before = self.report.damage.len();
        self.report.add(Damage { object: name.to_string(), from, to, what, takes, newest: Vec::new() });
        (self.report.damage.len() > before).then_some(before)
    }

    /// What damage takes that is not mapped yet.
    fn unmapped(&self) -> Takes {
        if self.keys.is_some() { Takes::Points(Vec::new()) } else { Takes::Unknown }
    }

    /// Takes note of a data key that is needed and not there, once.
    fn no_key(&mut self, id: u32) {
        let name = names::data_key(self.machine, id);
        self.is_broken = true;
        if !self.report.damage.iter().any(|damage| damage.object == name.as_str()) {
            let what = format!("data key {id} is missing or does not open, and objects are sealed with it");
            self.add(&name, Fault::new(0, 0, what), Takes::Unknown);
        }
    }

    /// Reads and checks objects, a few at once, each on the workers; outcomes in order, with lengths.
    async fn each<T: Send + 'static>(
        &self,
        names: Vec<StoreKey>,
        check: impl Fn(usize, &Bytes) -> T + Clone + Send + 'static,
    ) -> Vec<Result<(T, u64), Gone>> {
        let mut reads = Vec::with_capacity(names.len());
        for (at, name) in names.into_iter().enumerate() {
            let check = check.clone();
            reads.push(async move {
                let bytes = self.read(&name).await?;
                let work = move || (check(at, &bytes), bytes.len() as u64);
                Ok(compute(&*self.scrub.workers, work).await)
            });
        }
        futures::stream::iter(reads).buffered(self.scrub.settings.at_once.max(1)).collect().await
    }
}

fn sized(bytes: Bytes) -> (Bytes, u64) {
    let length = bytes.len() as u64;
    (bytes, length)
}
