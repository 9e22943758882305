//! The maintainer of one machine: writes everything that is neither log, claim nor segment of a commit.
//!
//! One round reads a bounded stretch of the log behind the newest catalogue, makes it a run, merged with the
//! newest runs if they have grown alike, and publishes the next version of the catalogue. Then it deletes what
//! no catalogue needs any more, and gives up points as its ladder says. A round that dies leaves objects that nobody names: a later maintainer finds them.
//!
//! Invariants
//! - MT-1 Tables first, then the catalogue (CA-2). Only slots known to be durable are covered; if one of them is not
//!   there, nothing is published.
//! - MT-2 A version is published behind the newest one there is, and never behind one of a newer maintainer.
//! - MT-3 Memory is bounded: one stretch of the log, one block per run that is merged, one table.
//! - MT-4 Catalogues never go back: what the newest one covered, every later one covers.
//! - MT-5 A version is built upon only if all tables that it names are there: one that was put while an old copy took the
//!   vault's place names what was never in that copy, and gives up what is.
//! - MT-6 A version of another life of the vault gives its number and its maintainer's claim, and nothing else.
//! - MT-7 A maintainer whose claim is gone claims the vault that there is, and begins there as one that knows nothing. What
//!   was learnt of keys is forgotten with every damage: an old copy has others under the same numbers.
//!
//! What is *not* here: making a run (`build`), publishing (`publish`), deleting (`delete`, `sweep`); what is decided without reading
//! or writing anything (`redoubt_core::maintenance`).

mod anew;
mod build;
mod delete;
mod fold;
mod live;
mod pack;
mod proof;
mod publish;
mod retain;
mod sift;
mod sweep;
#[cfg(test)]
mod tests;

use crate::avoid::{Avoid, Damage};
use crate::chain::{is_cut, may_begin, no_begin};
use crate::claims::{Claim, take_claim};
use crate::error::{ReadError, VaultError};
use crate::fold::newest_listed;
use crate::index::{Catalogue, Object, StoredIndex, TableInfo};
use crate::key_ring::KeyRing;
use crate::load::Log;
use crate::names::{self, Role};
use crate::reader::PointId;
use crate::store::Seen;
use crate::units::Units;
use crate::vault::Vault;
use build::Built;
use redoubt_core::MachineId;
use redoubt_core::maintenance::{CATALOGUES_KEPT, Ladder, PinListing, PinWatch, Tenure};
use redoubt_core::planted::{self, Bug};
use redoubt_core::{Instant, WallTime};
use redoubt_ports::{Entropy, StoreKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Slots behind the newest catalogue that make a round worth its puts: what a reader has to follow.
pub const INDEX_SLOTS: u64 = 64;
/// Entries behind the newest catalogue that make fewer slots worth it: who opens the newest point loads them all, in
/// some 40 ms (decision 0036).
pub const INDEX_ENTRIES: u64 = 1 << 18;
/// Catalogues that are looked at for one to build on: those that stay.
pub(crate) const CATALOGUES_TRIED: usize = CATALOGUES_KEPT as usize;
/// Names of old catalogues listed at once; more of them are deleted in later rounds.
const OLD_LISTED: usize = 1000;

/// What a maintainer is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintainerSettings {
    /// It writes once so many slots are not indexed,
    pub every: u64,
    /// or fewer, if there are so many entries in them, going by the slots of the last round.
    pub entries: u64,
    /// Recovery points that are kept.
    pub keep: Ladder,
    /// Whether stretches of the log whose points are all decided are folded, and the log before them given up: gives
    /// back the space of what no kept point shows.
    pub folds: bool,
}

impl Default for MaintainerSettings {
    fn default() -> MaintainerSettings {
        MaintainerSettings {
            every: INDEX_SLOTS,
            entries: INDEX_ENTRIES,
            keep: Ladder::default(),
            folds: true,
        }
    }
}

/// What the clocks of the host say as a round begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Monotonic time: how long a pin has been watched.
    pub now: Instant,
    /// Wall time: points age by it, as far as their own clock agrees.
    pub wall: WallTime,
}

/// The right to maintain one machine, until a newer claim exists.
pub struct Maintainer {
    log: Log,
    index: Arc<StoredIndex>,
    /// Content that is packed anew.
    units: Arc<Units>,
    entropy: Arc<dyn Entropy>,
    claim: Claim,
    tenure: Tenure,
    settings: MaintainerSettings,
    pins: PinWatch<(PointId, u128)>,
    base: Option<Base>,
    /// Entries of a slot, as the last round met them.
    density: u64,
    /// Damage found.
    avoid: Avoid,
    /// Objects put that no published version names: the next one calls them garbage.
    uploads: BTreeMap<Object, Vec<Seen>>,
    /// Something that a fold would need is damaged: the rest goes on without, until the next claim.
    is_unfoldable: bool,
    /// From this version on what dead maintainers left is looked for; 0: it was not yet.
    sweep_at: u64,
    superseded: Option<u64>,
    /// The newest version that this maintainer published.
    seen: Option<Seen>,
    /// The slot that the version to come ends with.
    end: Option<Seen>,
    /// Its claim is gone: the vault is another.
    is_adrift: bool,
    /// Points beyond what a machine may have that the last version gave up.
    cut: usize,
}

impl std::fmt::Debug for Maintainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Maintainer({}, epoch {})", self.log.machine, self.claim.epoch)
    }
}

/// What the next version is built on.
#[derive(Default)]
struct Base {
    catalogue: Catalogue,
    /// Its folded runs are to be made anew, of their folds.
    is_anew: bool,
    /// BLAKE3 of the newest version's bytes; zeros if it cannot be read.
    digest: [u8; 32],
    /// The newest version in the store, its slot and its maintainer, usable or not.
    newest: u64,
    newest_slot: u64,
    newest_maintainer: u64,
    /// Named by versions that cannot be built on, or needed by the base of one that was not published.
    strays: BTreeSet<Object>,
    /// Segments made for folds that no published version names.
    packed: BTreeSet<Object>,
    /// As in a catalogue, of all versions read.
    garbage: BTreeMap<Object, u64>,
    /// Versions that are in the store.
    versions: BTreeSet<u64>,
    /// Those of the newest that are of another life of the vault.
    foreign: BTreeSet<u64>,
}

impl Maintainer {
    /// Claims the maintenance of a machine that has a log.
    pub async fn claim(
        vault: &Vault,
        machine: MachineId,
        entropy: Arc<dyn Entropy>,
        settings: MaintainerSettings,
    ) -> Result<Maintainer, VaultError> {
        let keys = KeyRing::open(vault, machine).await?;
        let log = Log { vault: vault.clone(), machine, keys };
        let index = Arc::new(StoredIndex::new(log.clone()));
        let base = newest_base(&log, &index, &mut Avoid::default()).await?;
        let claim =
            take_claim(vault, machine, Role::Maintainer, entropy.id(), base.newest_maintainer).await?;
        let (avoid, uploads) = (Avoid::default(), BTreeMap::new());
        let (tenure, pins, sweep_at, superseded) = (Tenure::new(claim.epoch), PinWatch::default(), 0, None);
        // Read again: somebody may have published before the claim.
        let base = None;
        Ok(Maintainer {
            log,
            index,
            units: Arc::new(Units::new()),
            entropy,
            claim,
            tenure,
            settings,
            pins,
            base,
            density: 0,
            avoid,
            uploads,
            is_unfoldable: false,
            sweep_at,
            superseded,
            seen: None,
            end: None,
            is_adrift: false,
            cut: 0,
        })
    }

    /// Returns this maintainer's epoch.
    pub fn epoch(&self) -> u64 {
        self.claim.epoch
    }

    /// Returns how many points the rules keep that the last round gave up: a machine has
    /// [`POINTS_MAX`](redoubt_core::maintenance::POINTS_MAX) at most.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Indexes a stretch of the log, up to slot `durable` at most; returns the slot it came to, or none if
    /// there is not enough to do. Repeat it until then. After an error it may be called again; dropping
    /// the future is like a crash and as harmless. `Superseded` is final.
    pub async fn round(&mut self, durable: u64, times: Times) -> Result<Option<u64>, VaultError> {
        let done = self.try_round(durable, times).await;
        if matches!(done, Err(VaultError::Damaged { .. })) {
            // MT-7
            self.log.keys.forget();
        }
        done
    }

    async fn try_round(&mut self, durable: u64, times: Times) -> Result<Option<u64>, VaultError> {
        if let Some(by) = self.superseded {
            return Err(VaultError::Superseded { by });
        }
        let base = match self.base.take() {
            Some(base) => base,
            None => self.find_base().await?,
        };
        if durable < base.catalogue.slot.saturating_add(self.worth()) {
            self.base = Some(base);
            return Ok(None);
        }
        // What was not published proves nothing about pins.
        let after = if base.catalogue.version == 0 { u64::MAX } else { base.catalogue.version };
        let (pins, dead_pins) = self.list_pins(after, times).await?;
        let mut base = base;
        let Built { next, dropped, packed } = match self.build(&mut base, durable, &pins, times).await {
            Ok(built) => built,
            Err(BuildError::Log(damage @ VaultError::Damaged { .. })) => {
                return Err(self.unless_superseded(damage).await?);
            }
            Err(BuildError::Fold(damage)) => {
                self.is_unfoldable = true;
                return Err(self.unless_superseded(damage).await?);
            }
            Err(BuildError::Log(error)) => return Err(error),
            Err(BuildError::Base(ReadError::Store(failure))) => return Err(failure.into()),
            Err(BuildError::Base(damage)) => {
                if let Some(by) = self.claim.newer().await? {
                    // What is gone was not needed any more.
                    return Err(self.supersede(by));
                }
                self.avoid.met(self.log.machine, &base.catalogue, &damage);
                let name = names::catalogue(self.log.machine, base.catalogue.version);
                return Err(VaultError::damaged(name, damage));
            }
        };
        let slot = next.slot;
        base.packed.extend(packed);
        base.packed.retain(|object| !dropped.contains(object));
        base.strays.extend(dropped);
        if slot < base.newest_slot {
            // MT-4: built anew after damage, and not there yet.
            let mut strays = base.strays;
            strays.extend(base.catalogue.objects());
            self.base = Some(Base { catalogue: next, strays, ..base });
        } else {
            self.base = self.publish(next, base, &dead_pins).await?;
        }
        Ok(Some(slot))
    }

    /// Returns how many slots make a round worth it, while slots are like those of the last one.
    fn worth(&self) -> u64 {
        let large = self.settings.entries.checked_div(self.density);
        large.map_or(self.settings.every, |slots| slots.min(self.settings.every)).max(1)
    }

    /// Reads what is built on, and claims the machine first if the vault is another than the one that was claimed.
    async fn find_base(&mut self) -> Result<Base, VaultError> {
        let mut found = self.read_base().await?;
        if self.is_adrift {
            self.claim_again(found.newest_maintainer).await?;
            self.is_adrift = false;
            // Somebody may have published before the claim.
            found = self.read_base().await?;
        }
        if !self.tenure.found(found.newest, found.newest_maintainer) {
            return Err(self.supersede(found.newest_maintainer));
        }
        Ok(found)
    }

    async fn read_base(&mut self) -> Result<Base, VaultError> {
        match newest_base(&self.log, &self.index, &mut self.avoid).await {
            Err(damage @ VaultError::Damaged { .. }) => Err(self.unless_superseded(damage).await?),
            found => found,
        }
    }

    /// Claims anew, behind epoch `used`: an older maintainer published once more before it saw this one's claim, or an old
    /// copy of the vault has none of it.
    async fn claim_again(&mut self, used: u64) -> Result<(), VaultError> {
        let (vault, machine) = (&self.log.vault, self.log.machine);
        self.claim = take_claim(vault, machine, Role::Maintainer, self.entropy.id(), used).await?;
        self.tenure = Tenure::new(self.claim.epoch);
        Ok(())
    }

    /// Makes the next version, and first of all the folded runs of its base, if they are damaged.
    async fn build(
        &mut self,
        base: &mut Base,
        durable: u64,
        pins: &PinListing<PointId>,
        times: Times,
    ) -> Result<Built, BuildError> {
        if base.is_anew {
            base.catalogue = self.make_anew(&base.catalogue).await?;
            base.is_anew = false;
        }
        self.extend(&base.catalogue, durable, pins, times).await
    }

    /// What is gone may be what a newer maintainer needs no more.
    async fn unless_superseded(&mut self, damage: VaultError) -> Result<VaultError, VaultError> {
        Ok(match self.claim.newer().await? {
            Some(by) => self.supersede(by),
            None => damage,
        })
    }

    fn supersede(&mut self, by: u64) -> VaultError {
        self.superseded = Some(by);
        VaultError::Superseded { by }
    }
}

/// Why a version could not be built: the log that is new, or what the base names.
enum BuildError {
    Log(VaultError),
    /// Damage of what a fold reads, or of what it made.
    Fold(VaultError),
    Base(ReadError),
}

impl From<ReadError> for BuildError {
    fn from(error: ReadError) -> BuildError {
        BuildError::Base(error)
    }
}

/// Reads the newest version that can be built on, else what is folded of one, else what folds alone say, else the empty
/// one; and what there is beside it.
async fn newest_base(log: &Log, index: &StoredIndex, avoid: &mut Avoid) -> Result<Base, VaultError> {
    let listed = log.vault.store.page(&names::catalogues(log.machine), None, OLD_LISTED).await?;
    let versions = listed.iter().filter_map(|(name, _)| names::catalogue_version(name, log.machine));
    let mut base = Base { versions: versions.collect(), ..Base::default() };
    base.newest = base.versions.last().copied().unwrap_or(0);
    let tried: Vec<u64> = base.versions.iter().rev().take(CATALOGUES_TRIED).copied().collect();
    let mut folded: Option<(Damage, Catalogue)> = None;
    let tables = log.vault.store.list(&names::tables(log.machine), None).await?;
    let tables: BTreeSet<StoreKey> = tables.into_iter().collect();
    for version in &tried {
        let read = index.decoded(*version).await?;
        let Ok((catalogue, digest)) = read else { continue };
        // Whoever published it may do so again.
        base.newest_maintainer = base.newest_maintainer.max(catalogue.maintainer);
        if index.is_stray(&catalogue).await? {
            // MT-6
            avoid.spoilt(*version);
            base.foreign.insert(*version);
            continue;
        }
        base.newest_slot = base.newest_slot.max(catalogue.slot);
        if !index.fits(&catalogue).await? {
            avoid.spoilt(*version);
        }
        // MT-5
        let is_there = |(uuid, info): &(&u128, &TableInfo)| {
            let name = names::table(log.machine, info.epoch, **uuid);
            tables.contains(&name) || planted::active(Bug::BuildOnLostTables)
        };
        avoid.lost(catalogue.tables.iter().filter(|table| !is_there(table)).map(|(uuid, _)| *uuid));
        let damage = avoid.of(&catalogue);
        let is_base = damage.is_none();
        // What an older base is built on is not garbage, whatever newer versions folded.
        let is_garbage =
            |object: &Object| is_base || matches!(object, Object::Table { .. } | Object::Fold { .. });
        for (object, since) in catalogue.garbage.iter().filter(|(object, _)| is_garbage(object)) {
            base.garbage.entry(*object).or_insert(*since);
        }
        let Some(damage) = damage else {
            base.digest = if *version == base.newest { digest } else { [0; 32] };
            base.catalogue = catalogue;
            return Ok(base);
        };
        base.strays.extend(catalogue.objects());
        let is_better = folded.as_ref().is_none_or(|(best, _)| damage < *best);
        if damage < Damage::All && catalogue.mark.slot > 0 && is_better {
            folded = Some((damage, catalogue.folded()));
        }
    }
    if let Some((damage, catalogue)) = folded {
        (base.is_anew, base.catalogue) = (damage == Damage::Folded, catalogue);
    } else if is_cut(log, index).await? {
        match newest_listed(log).await? {
            Some(catalogue) => (base.is_anew, base.catalogue) = (true, catalogue),
            None if tried.is_empty() || may_begin(log).await? => {}
            None => return Err(no_begin(log.machine, tried.len())),
        }
    }
    Ok(base)
}
