//! Catalogues opened, tables of the index compared with the digests in them.

use super::Run;
use super::clear::{self, Fault, Kind};
use super::report::Takes;
use crate::error::StoreFailure;
use crate::index::{self, Catalogue, TableInfo};
use crate::names;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;

/// Clear header of a table.
const TABLE_HEADER: usize = 128;
/// And of a catalogue.
const CATALOGUE_HEADER: usize = 128;

/// Catalogues of which everything that they name is kept.
const KEPT: usize = 3;

/// What the catalogues say.
#[derive(Default)]
pub(super) struct Index {
    /// The newest that can be read.
    pub(super) newest: Option<Catalogue>,
    tables: BTreeMap<u128, TableInfo>,
    /// What is wrong with others; what that costs is known later.
    faults: Vec<(StoreKey, Fault)>,
}

impl Run<'_> {
    pub(super) async fn index(&mut self, index: Index) {
        let is_lost = self.keys.is_some() && index.newest.is_none() && self.mark.slot > 0;
        for (name, fault) in index.faults {
            let cost = if is_lost { Takes::Unknown } else { self.cost() };
            self.add(&name, fault, cost);
        }
        self.tables(index.tables).await;
        if self.keys.is_none() {
            self.clear_folds().await;
        }
    }

    /// The log and its folds say what an index says, as long as they are whole.
    fn cost(&self) -> Takes {
        let is_broken = self.is_broken || self.is_fold_broken;
        if is_broken { Takes::Unknown } else { Takes::Nothing("the log says what the index says") }
    }

    /// Opens all catalogues.
    pub(super) async fn catalogues(&mut self) -> Index {
        let mut found = Index::default();
        let machine = self.machine;
        let of = |name: &StoreKey| match Kind::of(name, machine) {
            Kind::Catalogue(version) => Some((name.clone(), version)),
            _ => None,
        };
        let catalogues: Vec<(StoreKey, u64)> = self.inventory.keys().filter_map(of).collect();
        // Names are inverted: the newest come first.
        for (place, (name, version)) in catalogues.into_iter().enumerate() {
            let read = self.read(&name).await.map(super::sized);
            let Some(Some(bytes)) = self.note(&name, read) else { continue };
            let fault = match &self.keys {
                None => clear::index_header(&bytes, CATALOGUE_HEADER, b"DRCAT1\0\0"),
                Some(keys) => {
                    let id = index::peek(&bytes, self.vault, machine, version).map(|header| header.dek());
                    match id.map(|id| (id, keys.get(&id))) {
                        Ok((id, None)) => {
                            self.no_key(id);
                            None
                        }
                        Ok((_, Some(dek))) => {
                            match index::decode(&bytes, self.vault, machine, version, dek) {
                                Ok(catalogue) if self.is_stray(&name, &catalogue).await => None,
                                Ok(catalogue) => {
                                    self.garbage(&catalogue, found.newest.is_none());
                                    // Of older ones the tables may be gone already.
                                    let is_kept = |(uuid, info): &(u128, TableInfo)| {
                                        let name = names::table(machine, info.epoch, *uuid);
                                        place < KEPT || self.inventory.contains_key(&name)
                                    };
                                    let tables = catalogue.tables.iter().map(|(uuid, info)| (*uuid, *info));
                                    found.tables.extend(tables.filter(is_kept));
                                    found.newest.get_or_insert(catalogue);
                                    None
                                }
                                Err(why) => Some(Fault::all(&bytes, why)),
                            }
                        }
                        Err(what) => Some(Fault::all(&bytes, what)),
                    }
                }
            };
            found.faults.extend(fault.map(|fault| (name, fault)));
        }
        found
    }

    /// What was on its way when an old copy took the vault's place is no damage: nobody uses it.
    async fn is_stray(&mut self, name: &StoreKey, catalogue: &Catalogue) -> bool {
        let is_stray = index::is_stray(&self.scrub.store, self.machine, catalogue).await.unwrap_or(false);
        if is_stray {
            self.named.remove(name);
        }
        is_stray
    }

    /// Garbage has its reason to be there.
    fn garbage(&mut self, catalogue: &Catalogue, is_newest: bool) {
        let garbage = catalogue.garbage.keys().flat_map(|object| object.names(self.machine));
        let garbage: Vec<StoreKey> = garbage.collect();
        if is_newest {
            self.report.garbage = garbage.iter().map(ToString::to_string).collect();
        }
        self.named.extend(garbage);
    }

    async fn tables(&mut self, named: BTreeMap<u128, TableInfo>) {
        let machine = self.machine;
        let of = |name: &StoreKey| match Kind::of(name, machine) {
            Kind::Table(epoch, uuid) => Some((epoch, uuid)),
            _ => None,
        };
        let known: Vec<(u64, u128)> = match self.keys {
            Some(_) => named.iter().map(|(uuid, info)| (info.epoch, *uuid)).collect(),
            None => self.inventory.keys().filter_map(of).collect(),
        };
        let names: Vec<StoreKey> =
            known.iter().map(|(epoch, uuid)| names::table(machine, *epoch, *uuid)).collect();
        let digests: Vec<Option<TableInfo>> =
            known.iter().map(|(_, uuid)| named.get(uuid).copied()).collect();
        let work = move |at: usize, bytes: &bytes::Bytes| match digests[at] {
            None => clear::index_header(bytes, TABLE_HEADER, b"DRIDX1\0\0"),
            Some(info) if bytes.len() as u64 != info.length => {
                Some(Fault::all(bytes, "the table has another length than its catalogue says"))
            }
            Some(info) => (*blake3::hash(bytes).as_bytes() != info.digest)
                .then(|| Fault::all(bytes, "the digest is not that of the catalogue")),
        };
        for (name, read) in names.iter().zip(self.each(names.clone(), work).await) {
            let fault = match self.note(name, read) {
                None => None,
                Some(None) => {
                    // A newer catalogue may not need it.
                    let is_outdated = self.is_outdated().await;
                    let missing = || Fault::new(0, 0, "a table that a catalogue names is missing");
                    (!self.may_miss(name, is_outdated)).then(missing)
                }
                Some(Some(fault)) => fault,
            };
            if let Some(fault) = fault {
                self.add(name, fault, self.cost());
            }
        }
    }

    /// Tells whether a newer catalogue was published since the listing.
    pub(super) async fn is_outdated(&self) -> Result<bool, StoreFailure> {
        let prefix = names::catalogues(self.machine);
        let newest = self.scrub.store.page(&prefix, None, 1).await?;
        Ok(newest.first().is_some_and(|(name, _)| !self.inventory.contains_key(name)))
    }
}
