//! Finds what nobody names and nobody ever will: uploads of maintainers and writers that died, and what came back after it
//! was deleted.
//!
//! Invariants
//! - OS-1 What a dead maintainer left is deleted if its epoch is below that of a version read after it was
//!   listed, none of the newest three needs it and the newest does not call it garbage (OR-1). Of what a writer left
//!   the log seals the epoch, and no record that was not folded may name it.

use super::{CATALOGUES_TRIED, Maintainer};
use crate::error::{StoreFailure, VaultError};
use crate::fold::{self, FoldRow};
use crate::index::{Catalogue, Object};
use crate::load::STRETCH_SLOTS;
use crate::names;
use redoubt_core::maintenance::orphans;
use redoubt_core::planted::{self, Bug};
use std::collections::BTreeSet;

/// Versions between two looks for what dead maintainers left: one that was frozen may put more.
const EVERY: u64 = 64;
/// Versions from the first look to the second: the one before may have put more while it was superseded.
const AGAIN: u64 = 3;
/// Names listed at once.
const LISTED: usize = 1000;

impl Maintainer {
    /// Looks for what the dead left, if it is time for it.
    pub(super) async fn sweep_in_turn(&mut self, newest: u64) -> Result<(), VaultError> {
        if newest >= self.sweep_at && self.sweep().await? {
            self.sweep_at = newest + if self.sweep_at == 0 { AGAIN } else { EVERY };
        }
        Ok(())
    }

    /// Deletes what nobody will ever name (OS-1). Tells whether it could be judged.
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
            let page = self.log.vault.store.page(&prefix, after.as_ref(), LISTED).await?;
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
