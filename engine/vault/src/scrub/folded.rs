//! What is below the mark: folds compared with the catalogue that names them, and the segments that they name, in
//! objects of their own and behind the records of slots whose log is gone.
//!
//! What is *not* here: records below the mark. Nobody reads them, and nothing is said of them.

use super::clear::{Fault, Kind};
use super::report::Takes;
use super::slots::{Named, STRETCH};
use super::{Keys, Run, clear};
use crate::error::StoreFailure;
use crate::fold::{self, Fold, FoldInfo, FoldRow, Mark};
use crate::index::{self, Catalogue, TableId};
use crate::log::SegmentRow;
use crate::names;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;

const HEADER: u64 = 128;

/// Checks a fold against what its catalogue says of it.
fn check(bytes: &[u8], vault: u128, machine: MachineId, info: &FoldInfo, keys: &Keys) -> Result<Fold, Fault> {
    if bytes.len() as u64 != info.length || *blake3::hash(bytes).as_bytes() != info.digest {
        return Err(Fault::all(bytes, "the digest is not that of the catalogue"));
    }
    let id = TableId { vault, machine, uuid: info.uuid, dek: info.dek };
    let dek = keys.get(&info.dek).ok_or_else(|| Fault::all(bytes, "its data key is missing"))?;
    fold::decode(&id, info.epoch, bytes, dek).map_err(|what| Fault::all(bytes, what))
}

impl Run<'_> {
    /// Takes the mark, the points that were not given up, and all that the folds name.
    pub(super) async fn folded(&mut self, newest: Option<&Catalogue>) {
        let Some(catalogue) = newest else {
            // Its clear header says at least what is not missing.
            let in_clear = self.mark_in_clear().await;
            let slot = in_clear.unwrap_or_else(|failure| {
                // Then nothing is known of any slot.
                self.unread(&StoreKey::new(failure.object.as_str()), failure.to_string());
                u64::MAX
            });
            self.mark = Mark { slot, ..Mark::default() };
            return;
        };
        self.mark = catalogue.mark.clone();
        self.covered = catalogue.slot;
        self.points.extend(catalogue.live.iter().map(|point| point.info.id));
        let Some(keys) = self.keys.clone() else { return };
        let folds: Vec<FoldInfo> = catalogue.folds().copied().collect();
        let machine = self.machine;
        let mut rows: BTreeMap<StoreKey, (u64, FoldRow)> = BTreeMap::new();
        for group in folds.chunks(STRETCH) {
            let name = |info: &FoldInfo| names::fold(machine, info.epoch, info.uuid);
            let names: Vec<StoreKey> = group.iter().map(name).collect();
            let (vault, infos, keys) = (self.vault, group.to_vec(), keys.clone());
            let work = move |at: usize, bytes: &bytes::Bytes| check(bytes, vault, machine, &infos[at], &keys);
            for (name, read) in names.iter().zip(self.each(names.clone(), work).await) {
                let fault = match self.note(name, read) {
                    None => continue,
                    Some(Some(Ok(fold))) => {
                        let placed = |row: FoldRow| {
                            let (object, base) = row.place.object(machine);
                            (object, (base, row))
                        };
                        rows.extend(fold.rows.into_iter().map(placed));
                        continue;
                    }
                    Some(None) => {
                        let is_outdated = self.is_outdated().await;
                        if self.may_miss(name, is_outdated) {
                            continue;
                        }
                        Fault::new(0, 0, "a fold that the catalogue names is missing")
                    }
                    Some(Some(Err(fault))) => fault,
                };
                self.is_fold_broken = true;
                let why = "points are read through the index; the segments that only this fold names are not checked";
                self.add(name, fault, Takes::Nothing(why));
            }
        }
        let named = rows.into_iter().map(|(name, (base, row))| {
            let FoldRow { place, length, tail, units, root, digest, spans } = row;
            let row = SegmentRow { uuid: place.uuid, length, tail, units, root, digest, inline: base > 0 };
            Named {
                name,
                base,
                id: place.id(self.vault, machine),
                row,
                spans,
                is_void: false,
                is_folded: true,
            }
        });
        self.segments(named.collect()).await;
    }

    /// Returns the last slot that was folded by now: of a newer catalogue only its clear header is looked at.
    pub(super) async fn mark_now(&self) -> Result<u64, StoreFailure> {
        if self.is_outdated().await? { self.mark_in_clear().await } else { Ok(self.mark.slot) }
    }

    /// Returns the last slot that was folded, by the clear header of the newest catalogue that there is now.
    async fn mark_in_clear(&self) -> Result<u64, StoreFailure> {
        let prefix = names::catalogues(self.machine);
        let newest = self.scrub.store.page(&prefix, None, 1).await?;
        let Some((name, _)) = newest.first() else { return Ok(0) };
        let Kind::Catalogue(version) = Kind::of(name, self.machine) else { return Ok(0) };
        let header = self.scrub.store.get(name, Some(0..HEADER)).await?.unwrap_or_default();
        let header = index::peek(&header, self.vault, self.machine, version);
        Ok(header.map_or(0, |header| header.log_from - 1))
    }

    /// Checks the clear headers of all folds: what can be done without a key.
    pub(super) async fn clear_folds(&mut self) {
        let machine = self.machine;
        let is_fold = |name: &&StoreKey| matches!(Kind::of(name, machine), Kind::Fold(..));
        let names: Vec<StoreKey> = self.inventory.keys().filter(is_fold).cloned().collect();
        let work = |_, bytes: &bytes::Bytes| clear::index_header(bytes, HEADER as usize, b"DRFOLD1\0");
        for (name, read) in names.iter().zip(self.each(names.clone(), work).await) {
            // What vanished since the listing was given up.
            if let Some(Some(Some(fault))) = self.note(name, read) {
                self.add(name, fault, Takes::Unknown);
            }
        }
    }
}
