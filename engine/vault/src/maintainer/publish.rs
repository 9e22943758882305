//! Publishes versions of the catalogue, and deletes what no version that is kept needs.
//!
//! Invariants
//! - PB-1 Nothing is deleted before the version that does not name it is published, and nothing after a claim
//!   check that failed: whoever was superseded deletes nothing.
//! - PB-2 What became garbage in version g is deleted when version g + 2 is published: the newest three versions
//!   stay fully readable. What was not deleted is named as garbage again.
//! - PB-3 What a dead maintainer left is deleted if its epoch is below that of a version read after it was
//!   listed, none of the newest three needs it and the newest does not call it garbage (OR-1).
//! - PB-4 What was read for a version is there still right before it is published, and before anything is deleted
//!   after it: an old copy may take a vault's place at any time, and what is garbage here may be needed there.

use super::{Base, CATALOGUES_TRIED, Maintainer};
use crate::error::{StoreFailure, VaultError};
use crate::index::{Catalogue, Object, TableId, encode};
use crate::names;
use crate::store::Created;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use redoubt_core::maintenance::{Garbage, orphans};
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;

/// Versions between two looks for what dead maintainers left: one that was frozen may put more.
const SWEEP_EVERY: u64 = 64;
/// Deletions on the way at once.
const DELETES_AT_ONCE: usize = 16;

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
        let (strays, garbage) = (BTreeSet::new(), next.garbage.clone());
        let catalogue = next;
        let mut base =
            Base { catalogue, digest, newest, newest_slot, newest_maintainer, strays, garbage, versions };
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
        for object in next.objects().collect::<Vec<_>>() {
            next.garbage.remove(&object);
        }
    }

    /// Deletes what has been garbage for long enough (PB-2), old catalogues, and what the dead left.
    async fn clean(&mut self, base: &mut Base) -> Result<(), VaultError> {
        let garbage = base.garbage.iter().map(|(name, since)| Garbage { name: *name, since: *since });
        let garbage: Vec<Garbage<Object>> = garbage.collect();
        let due: Vec<Object> = self.tenure.deletable(&garbage).into_iter().copied().collect();
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
        if (self.swept == 0 || base.newest >= self.swept + SWEEP_EVERY) && self.sweep().await? {
            self.swept = base.newest;
        }
        Ok(())
    }

    async fn delete(&self, objects: &[Object]) -> Result<(), StoreFailure> {
        let names: Vec<StoreKey> = objects.iter().flat_map(|object| object.names(self.log.machine)).collect();
        self.delete_names(&names).await
    }

    async fn delete_names(&self, names: &[StoreKey]) -> Result<(), StoreFailure> {
        let mut deletes = Vec::with_capacity(names.len());
        for name in names {
            deletes.push(self.log.vault.store.delete(name));
        }
        futures::stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect().await
    }

    /// Deletes what dead maintainers put and never published (PB-3). Tells whether it could be judged.
    async fn sweep(&self) -> Result<bool, VaultError> {
        let (store, machine) = (&self.log.vault.store, self.log.machine);
        let listed = store.list(&names::tables(machine), None).await?;
        let newest = store.page(&names::catalogues(machine), None, CATALOGUES_TRIED).await?;
        let (mut used, mut sealed) = (BTreeSet::new(), None);
        for version in newest.iter().filter_map(|(name, _)| names::catalogue_version(name, machine)) {
            let Ok((catalogue, _)) = self.index.decoded(version).await? else { return Ok(false) };
            used.extend(catalogue.objects());
            if sealed.is_none() {
                sealed = Some(catalogue.maintainer);
                used.extend(catalogue.garbage.into_keys());
            }
        }
        let sealed = sealed.unwrap_or(0).min(self.claim.epoch);
        let listed = listed.iter().filter_map(|name| names::upload_of(name, &names::tables(machine)));
        let listed = listed.map(|(epoch, uuid)| (Object::Table { epoch, uuid }, epoch));
        self.delete(&orphans(listed, sealed, |object| used.contains(object))).await?;
        Ok(true)
    }
}
