//! Catalogues opened, tables of the index compared with the digests in them.

use super::Run;
use super::clear::{self, Fault, Kind};
use super::report::Takes;
use crate::index::{self, TableInfo};
use crate::names;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;

/// Clear header of a table.
const TABLE_HEADER: usize = 128;
/// And of a catalogue.
const CATALOGUE_HEADER: usize = 128;

/// Catalogues of which everything that they name is kept.
const KEPT: usize = 3;

impl Run<'_> {
    pub(super) async fn index(&mut self) {
        let tables = self.catalogues().await;
        self.tables(tables).await;
    }

    /// The log says what an index says, as long as the log is whole.
    fn cost(&self) -> Takes {
        if self.is_broken { Takes::Unknown } else { Takes::Nothing("the log says what the index says") }
    }

    /// Opens all catalogues; returns the tables that they name.
    async fn catalogues(&mut self) -> BTreeMap<u128, TableInfo> {
        let mut tables = BTreeMap::new();
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
                                Ok(catalogue) => {
                                    let garbage =
                                        catalogue.garbage.keys().flat_map(|object| object.names(machine));
                                    self.named.extend(garbage);
                                    // Of older ones the tables may be gone already.
                                    let is_kept = |(uuid, info): &(u128, TableInfo)| {
                                        let name = names::table(machine, info.epoch, *uuid);
                                        place < KEPT || self.inventory.contains_key(&name)
                                    };
                                    tables.extend(catalogue.tables.into_iter().filter(is_kept));
                                    None
                                }
                                Err(why) => Some(Fault::all(&bytes, why)),
                            }
                        }
                        Err(what) => Some(Fault::all(&bytes, what)),
                    }
                }
            };
            if let Some(fault) = fault {
                self.add(&name, fault, self.cost());
            }
        }
        tables
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
                // A newer catalogue may not need it.
                Some(None) if self.is_outdated().await => None,
                Some(None) => Some(Fault::new(0, 0, "a table that a catalogue names is missing")),
                Some(Some(fault)) => fault,
            };
            if let Some(fault) = fault {
                self.add(name, fault, self.cost());
            }
        }
    }

    /// Tells whether a newer catalogue was published since the listing.
    async fn is_outdated(&self) -> bool {
        let prefix = names::catalogues(self.machine);
        let newest = self.scrub.store.page(&prefix, None, 1).await.unwrap_or_default();
        newest.first().is_some_and(|(name, _)| !self.inventory.contains_key(name))
    }
}
