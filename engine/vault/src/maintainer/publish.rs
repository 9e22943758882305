//! Publishes versions of the catalogue; then deletions may begin.
//!
//! Invariants
//! - PB-1 Nothing is deleted before the version that does not name it is published, and nothing after a claim
//!   check that failed: whoever was superseded deletes nothing.
//! - PB-2 What became garbage in version g is deleted when version g + 2 is published: the newest three versions
//!   stay fully readable. What was not deleted is named as garbage again.
//! - PB-3 What was read for a version is there still right before it is published, and before anything is deleted
//!   after it: an old copy may take a vault's place at any time (GD-1). The slot that it ends with and what was put for it
//!   are there right before each attempt to put it (VS-6).
//!
//! What is *not* here: deleting (`delete`), what the dead left (`sweep`).

use super::{Base, Maintainer};
use crate::avoid::Avoid;
use crate::error::VaultError;
use crate::index::{Catalogue, Object, TableId, encode};
use crate::names;
use crate::store::{Created, Guarded, Seen};
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;

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
        if let Some(gone) = self.gone(&base, &next).await? {
            return Err(self.went_away(gone).await?);
        }
        if planted::active(Bug::DeleteBeforePublish) {
            let now = |(_, since): &(&Object, &u64)| **since == version;
            self.delete(&next.garbage.iter().filter(now).map(|(object, _)| *object).collect::<Vec<_>>())
                .await?;
        }
        match self.log.vault.store.create_if(&self.rests_of(&base, &next), &name, &bytes).await? {
            Guarded::Created(Created::Mine) => self.tenure.published(),
            Guarded::Created(Created::Other(_)) => self.tenure.lost(),
            Guarded::Gone(gone) => return Err(self.went_away(gone).await?),
        }
        let (newer, gone) = futures::future::join(self.claim.newer(), self.gone(&base, &next)).await;
        let newer = newer?;
        self.tenure.checked(newer.is_some());
        if let Some(by) = newer {
            return Err(self.supersede(by));
        }
        if let Some(gone) = gone? {
            return Err(self.went_away(gone).await?);
        }
        if self.tenure.is_over() {
            self.claim_again(self.claim.epoch).await?;
            return Ok(None);
        }
        self.uploads.clear();
        self.see(version, &bytes);
        let (digest, newest) = (*blake3::hash(&bytes).as_bytes(), next.version);
        let Base { mut versions, foreign, .. } = base;
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
            foreign,
        };
        self.clean(&mut base).await?;
        self.sweep_in_turn(newest).await?;
        self.delete_names(dead_pins).await?;
        Ok(Some(base))
    }

    /// PB-3: looks whether the vault is still the one that was read: the version built on, and the last slot covered.
    /// Returns which of them is gone. After an error the next round reads anew.
    async fn gone(&self, base: &Base, next: &Catalogue) -> Result<Option<StoreKey>, VaultError> {
        // Zeros: the newest version cannot be read, and nothing of it is used.
        if base.digest != [0; 32] {
            let name = names::catalogue(self.log.machine, base.newest);
            let found = self.log.vault.store.get(&name, None).await?;
            if found.is_none_or(|bytes| *blake3::hash(&bytes).as_bytes() != base.digest) {
                return Ok(Some(name));
            }
        }
        // The slot last: an old copy may have the version, and hardly the newest slot.
        let fits = self.index.fits(next).await?;
        Ok((!fits).then(|| names::slot(self.log.machine, next.slot)))
    }

    /// Returns what a version rests on: its maintainer's claim, the version before if that is of the same one, the slot
    /// that it ends with, and what was uploaded for it, segments that its folds name among it.
    fn rests_of(&self, base: &Base, next: &Catalogue) -> Vec<Seen> {
        if planted::active(Bug::PublishUnseen) {
            return Vec::new();
        }
        let named = next.objects().chain(base.packed.iter().copied());
        let named = named.filter_map(|object| self.uploads.get(&object)).flatten();
        let before = [&self.claim.seen].into_iter().chain(&self.seen).chain(&self.end);
        before.chain(named).cloned().collect()
    }

    /// Says why a version is not published: a newer maintainer may have deleted what is gone.
    async fn went_away(&mut self, gone: StoreKey) -> Result<VaultError, VaultError> {
        // Its own last version may be gone as well: the next round rests on what it finds.
        self.seen = None;
        if gone == self.claim.seen.name {
            // MT-7: numbers, and what was put, mean others here.
            self.uploads.clear();
            (self.avoid, self.is_unfoldable, self.sweep_at, self.is_adrift) =
                (Avoid::default(), false, 0, true);
        }
        let what = "it went away while it was built upon: the vault is another now";
        self.unless_superseded(VaultError::damaged(gone, what)).await
    }

    /// Everything that a version before named, or that was put in vain, and that this one does not name.
    fn name_garbage(&self, next: &mut Catalogue, base: &Base) {
        let version = next.version;
        next.garbage.clone_from(&base.garbage);
        let others = base.strays.iter().chain(self.uploads.keys()).copied();
        for object in base.catalogue.objects().chain(others) {
            next.garbage.entry(object).or_insert(version);
        }
        for object in next.objects().chain(base.packed.iter().copied()).collect::<Vec<_>>() {
            next.garbage.remove(&object);
        }
    }
}
