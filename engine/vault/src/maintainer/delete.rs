//! Deletes what no version of the catalogue that is kept needs.
//!
//! Invariants
//! - GD-1 A few names are sent at once, right after a look that found the version in which they are garbage, and none is
//!   sent again without another look: an old copy may take a vault's place at any time, and what is garbage here may
//!   be content there. What is on its way just then is all that it can lose.
//! - GD-2 What was not deleted is named as garbage again.
//!
//! What is *not* here: what may be deleted (`redoubt_core::maintenance`), what nobody ever named (`sweep`).

use super::{Base, CATALOGUES_TRIED, Maintainer};
use crate::error::VaultError;
use crate::index::{HEADER_BYTES, Object};
use crate::names;
use bytes::Bytes;
use redoubt_core::maintenance::Garbage;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::StoreKey;

/// Names deleted after one look.
const AT_ONCE: usize = 8;
/// Names deleted in one round, about: more of them wait for the next one, and readers for no round.
const ROUND: u64 = 4096;

impl Maintainer {
    /// A version was published: deletions are to see it.
    pub(super) fn see(&mut self, version: u64, bytes: &Bytes) {
        let header = &bytes[..HEADER_BYTES.min(bytes.len())];
        self.seen = Some(self.log.vault.store.seen(names::catalogue(self.log.machine, version), header));
    }

    /// Deletes what has been garbage for long enough (PB-2), and old catalogues.
    pub(super) async fn clean(&mut self, base: &mut Base) -> Result<(), VaultError> {
        let garbage = base.garbage.iter().map(|(name, since)| Garbage { name: *name, since: *since });
        let garbage: Vec<Garbage<Object>> = garbage.collect();
        let due: Vec<Object> = self.tenure.deletable(&garbage).into_iter().copied().collect();
        let due = if planted::active(Bug::KeepGarbage) { Vec::new() } else { within(due) };
        self.delete(&due).await?;
        for object in &due {
            base.garbage.remove(object);
        }
        // Numbers may leave some out, once an old copy took the vault's place: three of its own are to be there.
        while base.versions.len() > CATALOGUES_TRIED + base.foreign.len()
            && let Some(old) = base.versions.first().copied().filter(|version| self.tenure.is_old(*version))
        {
            self.delete_names(&[names::catalogue(self.log.machine, old)]).await?;
            base.versions.remove(&old);
            base.foreign.remove(&old);
        }
        Ok(())
    }

    /// Deletes objects in their order: what is content before what names it.
    pub(super) async fn delete(&self, objects: &[Object]) -> Result<(), VaultError> {
        let mut names = objects.iter().flat_map(|object| object.names(self.log.machine));
        loop {
            let some: Vec<StoreKey> = names.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.delete_names(&some).await?;
        }
    }

    /// Deletes names, if the newest version published here is still there. After an error the next round reads anew.
    pub(super) async fn delete_names(&self, names: &[StoreKey]) -> Result<(), VaultError> {
        let Some(seen) = &self.seen else { return Ok(()) };
        for some in names.chunks(AT_ONCE) {
            if !self.log.vault.store.delete_if(seen, some).await? {
                let what = "it went away while what it does not need was deleted: the vault is another now";
                return Err(VaultError::damaged(&seen.name, what));
            }
        }
        Ok(())
    }
}

/// Returns what one round deletes of all that is due.
fn within(mut due: Vec<Object>) -> Vec<Object> {
    let mut names = 0u64;
    due.retain(|object| {
        let has_room = names < ROUND;
        names = names.saturating_add(object.count());
        has_room
    });
    due
}
