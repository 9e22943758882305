//! Publishes versions of the catalogue, and deletes what no version that is kept needs.
//!
//! Invariants
//! - PB-1 Nothing is deleted before the version that does not name it is published, and nothing after a claim
//!   check that failed: whoever was superseded deletes nothing.
//! - PB-2 What became garbage in version g is deleted when version g + 2 is published: the newest three versions
//!   stay fully readable. What was not deleted is named as garbage again.
//! - PB-3 What a dead maintainer left is deleted if its epoch is below that of a version read after it was
//!   listed, and none of the newest three names it: nobody publishes behind a newer maintainer (MT-2).

use super::{Base, CATALOGUES_KEPT, Maintainer};
use crate::error::{StoreFailure, VaultError};
use crate::index::{Catalogue, Object, TableId, encode};
use crate::names;
use crate::store::Created;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;

/// Versions between two looks for what dead maintainers left: one that was frozen may put more.
const SWEEP_EVERY: u64 = 64;
/// Deletions on the way at once.
const DELETES_AT_ONCE: usize = 16;

impl Maintainer {
    /// Publishes the next version behind the newest there is, then deletes. Returns what to build on, or none
    /// if another maintainer was first: whoever is the newer one goes on from there.
    pub(super) async fn publish(
        &mut self,
        mut next: Catalogue,
        base: Base,
    ) -> Result<Option<Base>, VaultError> {
        let (vault, machine) = (self.log.vault.uuid, self.log.machine);
        (next.version, next.before, next.maintainer) = (base.newest + 1, base.digest, self.claim.epoch);
        self.name_garbage(&mut next, &base);
        let name = names::catalogue(machine, next.version);
        let id = TableId { vault, machine, uuid: self.entropy.id(), dek: next.dek };
        let key = self.log.keys.get(next.dek).await?;
        let Some(bytes) = encode(&id, &next, &key).map(Bytes::from) else {
            let what = "the catalogue has outgrown its limit; readers follow the log behind the last one";
            return Err(VaultError::damaged(name, what));
        };
        let is_ours = self.log.vault.store.create(&name, &bytes).await? == Created::Mine;
        if let Some(by) = self.claim.newer().await? {
            return Err(self.supersede(by));
        }
        if !is_ours {
            return Ok(None);
        }
        self.uploads.clear();
        let (digest, newest) = (*blake3::hash(&bytes).as_bytes(), next.version);
        let mut versions = base.versions;
        versions.insert(newest);
        let (newest_slot, newest_maintainer) = (next.slot, next.maintainer);
        let (strays, garbage) = (BTreeSet::new(), next.garbage.clone());
        let catalogue = next;
        let mut base =
            Base { catalogue, digest, newest, newest_slot, newest_maintainer, strays, garbage, versions };
        self.clean(&mut base).await?;
        Ok(Some(base))
    }

    /// Everything that a version before named, or that was put in vain, and that this one does not name.
    fn name_garbage(&self, next: &mut Catalogue, base: &Base) {
        let version = next.version;
        next.garbage.clone_from(&base.garbage);
        let others = base.strays.iter().chain(&self.uploads).copied();
        for object in base.catalogue.objects().chain(others) {
            next.garbage.entry(object).or_insert(version);
        }
        for object in next.objects().collect::<Vec<_>>() {
            next.garbage.remove(&object);
        }
    }

    /// Deletes what has been garbage for long enough (PB-2), old catalogues, and what the dead left.
    async fn clean(&mut self, base: &mut Base) -> Result<(), VaultError> {
        let kept_from = (base.newest + 1).saturating_sub(CATALOGUES_KEPT as u64);
        let due = base.garbage.iter().filter(|(_, since)| **since <= kept_from);
        self.delete(due.map(|(object, _)| *object)).await?;
        base.garbage.retain(|_, since| *since > kept_from);
        while let Some(old) = base.versions.first().copied().filter(|version| *version < kept_from) {
            self.log.vault.store.delete(&names::catalogue(self.log.machine, old)).await?;
            base.versions.remove(&old);
        }
        if (self.swept == 0 || base.newest >= self.swept + SWEEP_EVERY) && self.sweep().await? {
            self.swept = base.newest;
        }
        Ok(())
    }

    async fn delete(&self, objects: impl Iterator<Item = Object>) -> Result<(), StoreFailure> {
        let names = objects.map(|object| object.name(self.log.machine)).collect();
        self.delete_names(names).await
    }

    async fn delete_names(&self, names: Vec<StoreKey>) -> Result<(), StoreFailure> {
        let mut deletes = Vec::with_capacity(names.len());
        for name in &names {
            deletes.push(self.log.vault.store.delete(name));
        }
        futures::stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect().await
    }

    /// Deletes what dead maintainers put and never published (PB-3). Tells whether it could be judged.
    async fn sweep(&self) -> Result<bool, VaultError> {
        let (store, machine) = (&self.log.vault.store, self.log.machine);
        let listed = store.list(&names::tables(machine), None).await?;
        let newest = store.page(&names::catalogues(machine), None, CATALOGUES_KEPT).await?;
        let (mut named, mut epoch) = (BTreeSet::new(), None);
        for version in newest.iter().filter_map(|(name, _)| names::catalogue_version(name, machine)) {
            let Ok((catalogue, _)) = self.index.decoded(version).await? else { return Ok(false) };
            epoch = epoch.or(Some(catalogue.maintainer));
            named.extend(catalogue.objects());
            named.extend(catalogue.garbage.keys().copied());
        }
        let limit = epoch.unwrap_or(0).min(self.claim.epoch);
        let is_orphan = |object: &Object| object.epoch() < limit && !named.contains(object);
        let orphans = listed.iter().filter_map(|name| names::table_of(name, machine));
        self.delete(orphans.map(|(epoch, uuid)| Object::Table { epoch, uuid }).filter(is_orphan)).await?;
        Ok(true)
    }
}
