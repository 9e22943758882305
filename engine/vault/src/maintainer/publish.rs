//! Publishes versions of the catalogue, and deletes what no version that is kept needs.
//!
//! Invariants
//! - PB-1 Nothing is deleted before the version that does not name it is published, and nothing after a claim
//!   check that failed: whoever was superseded deletes nothing.
//! - PB-2 What became garbage in version g is deleted when version g + 2 is published: the newest three versions
//!   stay fully readable. What was not deleted is named as garbage again.
//! - PB-3 What a dead maintainer left is deleted if its epoch is below that of a version read after it was
//!   listed, none of the newest three needs it and the newest does not call it garbage (OR-1). Of what a writer left
//!   the log seals the epoch, and no record that was not folded may name it.
//! - PB-4 What was read for a version is there still right before it is published, and before anything is deleted
//!   after it: an old copy may take a vault's place at any time, and what is garbage here may be needed there.

use super::{Base, CATALOGUES_TRIED, Maintainer};
use crate::error::{StoreFailure, VaultError};
use crate::fold::{self, FoldRow};
use crate::index::{Catalogue, Object, TableId, encode};
use crate::load::STRETCH_SLOTS;
use crate::names;
use crate::store::Created;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_core::maintenance::{Garbage, orphans};
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;

/// Versions between two looks for what dead maintainers left: one that was frozen may put more.
const SWEEP_EVERY: u64 = 64;
/// Versions from the first look to the second: the one before may have put more while it was superseded.
const SWEEP_AGAIN: u64 = 3;
/// Deletions on the way at once.
const DELETES_AT_ONCE: usize = 16;
/// Names that are made, or listed, at once.
const NAMES_AT_ONCE: usize = 1000;

impl Maintainer {
    /// Publishes the next version behind the newest there is, then deletes. Returns what to build on, or none
    /// if an older maintainer was first.
    pub(super) async fn publish(
        &mut self,
        mut next: Catalogue,
        base: Base,
        dead_pins: &[StoreKey],
    ) -> Result<Option<Base>, VaultError> {
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        let Some(version) = self.tenure.next_version() else { return Ok(None) };
        (next.version, next.before, next.maintainer) = (version, base.digest, self.claim.epoch);
        self.name_garbage(&mut next, &base);
        let name = names::catalogue(machine, next.version);
        let id = TableId { vault, machine, uuid: self.entropy.id(), dek: next.dek };
        let key = self.log.keys.get(next.dek).await?;
        let Some(bytes) = encode(&id, &next, &key).map(Bytes::from) else {
            let what = "the catalogue has outgrown its limit; readers follow the log behind the last one";
            return Err(VaultError::damaged(name, what));
        };
        if let Err(gone) = self.check_base(&base, &next).await {
            // A newer maintainer may have deleted it.
            let newer = self.claim.newer().await?;
            return Err(newer.map_or(gone, |by| self.supersede(by)));
        }
        if planted::active(Bug::DeleteBeforePublish) {
            let now = |(_, since): &(&Object, &u64)| **since == version;
            self.delete(&next.garbage.iter().filter(now).map(|(object, _)| *object).collect::<Vec<_>>())
                .await?;
        }
        if self.log.vault.store.create(&name, &bytes).await? == Created::Mine {
            self.tenure.published();
        } else {
            self.tenure.lost();
        }
        let (newer, stands) = futures::future::join(self.claim.newer(), self.check_base(&base, &next)).await;
        let newer = newer?;
        self.tenure.checked(newer.is_some());
        if let Some(by) = newer {
            return Err(self.supersede(by));
        }
        stands?;
        if self.tenure.is_over() {
            self.claim_again().await?;
            return Ok(None);
        }
        self.uploads.clear();
        let (digest, newest) = (*blake3::hash(&bytes).as_bytes(), next.version);
        let mut versions = base.versions;
        versions.insert(newest);
        let (newest_slot, newest_maintainer) = (next.slot, next.maintainer);
        let (strays, packed, garbage) = (BTreeSet::new(), BTreeSet::new(), next.garbage.clone());
        let catalogue = next;
        let mut base = Base {
            catalogue,
            is_anew: false,
            digest,
            newest,
            newest_slot,
            newest_maintainer,
            strays,
            packed,
            garbage,
            versions,
        };
        self.clean(&mut base).await?;
        self.delete_names(dead_pins).await?;
        Ok(Some(base))
    }

    /// PB-4: looks whether the vault is still the one that was read: the version built on, and the last slot
    /// covered. After an error the next round reads anew.
    async fn check_base(&self, base: &Base, next: &Catalogue) -> Result<(), VaultError> {
        let gone = |name| {
            VaultError::damaged(name, "it went away while it was built upon: the vault is another now")
        };
        if !self.index.fits(next).await? {
            return Err(gone(names::slot(self.log.machine, next.slot)));
        }
        // Zeros: the newest version cannot be read, and nothing of it is used.
        if base.digest == [0; 32] {
            return Ok(());
        }
        let name = names::catalogue(self.log.machine, base.newest);
        let found = self.log.vault.store.get(&name, None).await?;
        let is_same = found.is_some_and(|bytes| *blake3::hash(&bytes).as_bytes() == base.digest);
        if is_same { Ok(()) } else { Err(gone(name)) }
    }

    /// Everything that a version before named, or that was put in vain, and that this one does not name.
    fn name_garbage(&self, next: &mut Catalogue, base: &Base) {
        let version = next.version;
        next.garbage.clone_from(&base.garbage);
        let others = base.strays.iter().chain(&self.uploads).copied();
        for object in base.catalogue.objects().chain(others) {
            next.garbage.entry(object).or_insert(version);
        }
        for object in next.objects().chain(base.packed.iter().copied()).collect::<Vec<_>>() {
            next.garbage.remove(&object);
        }
    }

    /// Deletes what has been garbage for long enough (PB-2), old catalogues, and what the dead left.
    async fn clean(&mut self, base: &mut Base) -> Result<(), VaultError> {
        let garbage = base.garbage.iter().map(|(name, since)| Garbage { name: *name, since: *since });
        let garbage: Vec<Garbage<Object>> = garbage.collect();
        let due: Vec<Object> = self.tenure.deletable(&garbage).into_iter().copied().collect();
        let due = if planted::active(Bug::KeepGarbage) { Vec::new() } else { due };
        self.delete(&due).await?;
        for object in &due {
            base.garbage.remove(object);
        }
        // Numbers may leave some out, once an old copy took the vault's place: three are to be there.
        while base.versions.len() > CATALOGUES_TRIED
            && let Some(old) = base.versions.first().copied().filter(|version| self.tenure.is_old(*version))
        {
            self.log.vault.store.delete(&names::catalogue(self.log.machine, old)).await?;
            base.versions.remove(&old);
        }
        if base.newest >= self.sweep_at && self.sweep().await? {
            let pause = if self.sweep_at == 0 { SWEEP_AGAIN } else { SWEEP_EVERY };
            self.sweep_at = base.newest + pause;
        }
        Ok(())
    }

    /// Deletes objects in their order: what is content before what names it.
    async fn delete(&self, objects: &[Object]) -> Result<(), StoreFailure> {
        let mut names = objects.iter().flat_map(|object| object.names(self.log.machine));
        loop {
            let some: Vec<StoreKey> = names.by_ref().take(NAMES_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.delete_names(&some).await?;
        }
    }

    async fn delete_names(&self, names: &[StoreKey]) -> Result<(), StoreFailure> {
        let mut deletes = Vec::with_capacity(names.len());
        for name in names {
            deletes.push(self.log.vault.store.delete(name));
        }
        futures::stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect().await
    }

    /// Deletes what nobody will ever name (PB-3). Tells whether it could be judged.
    async fn sweep(&self) -> Result<bool, VaultError> {
        let machine = self.log.machine;
        if planted::active(Bug::LeaveOrphans) {
            return Ok(true);
        }
        let mut uploads =
            self.listed(&names::tables(machine), |epoch, uuid| Object::Table { epoch, uuid }).await?;
        uploads
            .extend(self.listed(&names::folds(machine), |epoch, uuid| Object::Fold { epoch, uuid }).await?);
        let packed = names::packed_segments(machine);
        uploads.extend(self.listed(&packed, |epoch, uuid| Object::Packed { epoch, uuid }).await?);
        let segments =
            self.listed(&names::segments(machine), |epoch, uuid| Object::Segment { epoch, uuid }).await?;
        let Some(used) = self.used().await? else { return Ok(false) };
        let mut gone = orphans(uploads, used.maintainer.min(self.claim.epoch), |object| used.has(object));
        let segments = orphans(segments, used.catalogue.epoch, |object| used.has(object));
        let (segments, is_judged) = self.not_in_tail(segments, &used).await?;
        gone.extend(segments);
        gone.extend(self.slots_before(&used).await?);
        self.delete(&gone).await?;
        Ok(is_judged)
    }

    /// Lists uploads of one kind, with their epochs.
    async fn listed(
        &self,
        prefix: &str,
        object: fn(u64, u128) -> Object,
    ) -> Result<Vec<(Object, u64)>, StoreFailure> {
        let listed = self.log.vault.store.list(prefix, None).await?;
        let of = listed.iter().filter_map(|name| names::upload_of(name.as_str(), prefix));
        Ok(of.map(|(epoch, uuid)| (object(epoch, uuid), epoch)).collect())
    }

    /// Reads what the newest three versions need; none if one of them, or a fold, cannot be read.
    async fn used(&self) -> Result<Option<Used>, VaultError> {
        let (store, machine) = (&self.log.vault.store, self.log.machine);
        let newest = store.page(&names::catalogues(machine), None, CATALOGUES_TRIED).await?;
        let (mut used, mut folds, mut first) = (Used::default(), BTreeSet::new(), true);
        for version in newest.iter().filter_map(|(name, _)| names::catalogue_version(name, machine)) {
            let Ok((mut catalogue, _)) = self.index.decoded(version).await? else { return Ok(None) };
            used.objects.extend(catalogue.objects());
            folds.extend(catalogue.folds().copied());
            used.log_from = used.log_from.min(catalogue.mark.log_from());
            if std::mem::take(&mut first) {
                used.maintainer = catalogue.maintainer;
                let garbage = std::mem::take(&mut catalogue.garbage);
                used.stretches.extend(garbage.keys().filter_map(|object| match *object {
                    Object::Slots { first, last } => Some((first, last)),
                    _ => None,
                }));
                used.objects.extend(garbage.into_keys());
                (catalogue.tables, catalogue.runs) = Default::default();
                used.catalogue = catalogue;
            }
        }
        for info in &folds {
            let Ok(fold) = self.log.fold(info).await? else { return Ok(None) };
            used.objects.extend(fold.rows.iter().filter_map(|row| row.place.upload()));
            used.slots.extend(fold.rows.iter().filter_map(|row| Some(row.place.inline()?.0)));
        }
        Ok(Some(used))
    }

    /// Leaves out the segments that records name which were not folded. They are read after the catalogue (OR-2); if
    /// they cannot be, nothing is an orphan.
    async fn not_in_tail(
        &self,
        segments: Vec<Object>,
        used: &Used,
    ) -> Result<(Vec<Object>, bool), VaultError> {
        let mut left: BTreeSet<Object> = segments.into_iter().collect();
        let mut tail = used.catalogue.mark.tail();
        while !left.is_empty() {
            let to = tail.slot + STRETCH_SLOTS as u64;
            let named = |row: FoldRow| {
                row.place.upload().map(|object| left.remove(&object));
            };
            match fold::gather(&self.log, tail, to, named).await {
                Ok(end) if end.slot == to => tail = end,
                Ok(_) => break,
                Err(VaultError::Store(failure)) => return Err(failure.into()),
                Err(_) => return Ok((Vec::new(), false)),
            }
        }
        Ok((left.into_iter().collect(), true))
    }

    /// Returns slots that were folded, hold nothing that is needed, and are there: their deletion was undone.
    async fn slots_before(&self, used: &Used) -> Result<Vec<Object>, StoreFailure> {
        let (prefix, mut after, mut gone) = (names::log(self.log.machine), None, Vec::new());
        loop {
            let page = self.log.vault.store.page(&prefix, after.as_ref(), NAMES_AT_ONCE).await?;
            let slots: Vec<u64> =
                page.iter().filter_map(|(name, _)| names::number(name, &prefix, 16)).collect();
            let old = slots.iter().copied().filter(|slot| *slot < used.log_from);
            let is_gone = |slot: &u64| !used.has_slot(*slot);
            gone.extend(old.filter(is_gone).map(|slot| Object::Slots { first: slot, last: slot }));
            after = page.last().map(|(name, _)| name.clone());
            if page.is_empty() || slots.last().is_none_or(|slot| *slot >= used.log_from) {
                return Ok(gone);
            }
        }
    }
}

/// What the newest versions of the catalogue need.
struct Used {
    /// Objects that they and their folds name, and garbage of the newest: it is deleted in its turn.
    objects: BTreeSet<Object>,
    /// Log slots that hold a segment of a fold.
    slots: BTreeSet<u64>,
    /// Stretches of log slots that are garbage; they do not overlap.
    stretches: BTreeSet<(u64, u64)>,
    /// Slots from this one on are none of it.
    log_from: u64,
    /// Epoch of the maintainer of the newest version.
    maintainer: u64,
    /// The newest version, without its index.
    catalogue: Catalogue,
}

impl Default for Used {
    fn default() -> Used {
        let (objects, slots, stretches) = Default::default();
        Used { objects, slots, stretches, log_from: u64::MAX, maintainer: 0, catalogue: Catalogue::default() }
    }
}

impl Used {
    fn has(&self, object: &Object) -> bool {
        self.objects.contains(object)
    }

    fn has_slot(&self, slot: u64) -> bool {
        let stretch = self.stretches.range(..=(slot, u64::MAX)).next_back();
        self.slots.contains(&slot) || stretch.is_some_and(|(_, last)| slot <= *last)
    }
}
