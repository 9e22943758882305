//! The index: manifests opened, tables compared with the digests in them.

use super::Run;
use super::clear::{self, Fault, Kind};
use super::report::Takes;
use crate::index::{self, TableInfo};
use crate::names;
use redoubt_ports::StoreKey;
use std::collections::BTreeMap;

/// Clear header of a table.
const TABLE_HEADER: usize = 128;
/// And of a manifest.
const MANIFEST_HEADER: usize = 128;

impl Run<'_> {
    pub(super) async fn index(&mut self) {
        let tables = self.manifests().await;
        self.tables(tables).await;
    }

    /// The log says what an index says, as long as the log is whole.
    fn cost(&self) -> Takes {
        if self.is_broken { Takes::Unknown } else { Takes::Nothing("the log says what the index says") }
    }

    /// Opens all manifests; returns the tables that they name.
    async fn manifests(&mut self) -> BTreeMap<u128, TableInfo> {
        let mut tables = BTreeMap::new();
        let machine = self.machine;
        let of = |name: &StoreKey| match Kind::of(name, machine) {
            Kind::Manifest(slot) => Some((name.clone(), slot)),
            _ => None,
        };
        let manifests: Vec<(StoreKey, u64)> = self.inventory.keys().filter_map(of).collect();
        for (name, slot) in manifests {
            let read = self.read(&name).await.map(super::sized);
            let Some(Some(bytes)) = self.note(&name, read) else { continue };
            let fault = match &self.keys {
                None => clear::index_header(&bytes, MANIFEST_HEADER, b"DRMAN1\0\0"),
                Some(keys) => {
                    let id = index::manifest_key(&bytes);
                    match id.map(|id| (id, keys.get(&id))) {
                        Ok((id, None)) => {
                            self.no_key(id);
                            None
                        }
                        Ok((_, Some(dek))) => match index::decode(&bytes, self.vault, machine, slot, dek) {
                            Ok(manifest) => {
                                tables.extend(manifest.tables);
                                None
                            }
                            Err(why) => Some(Fault::all(&bytes, why)),
                        },
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
            Kind::Table(uuid) => Some(uuid),
            _ => None,
        };
        let known: Vec<u128> = match self.keys {
            Some(_) => named.keys().copied().collect(),
            None => self.inventory.keys().filter_map(of).collect(),
        };
        let names: Vec<StoreKey> = known.iter().map(|uuid| names::table(machine, *uuid)).collect();
        let digests: Vec<Option<TableInfo>> = known.iter().map(|uuid| named.get(uuid).copied()).collect();
        let work = move |at: usize, bytes: &bytes::Bytes| match digests[at] {
            None => clear::index_header(bytes, TABLE_HEADER, b"DRIDX1\0\0"),
            Some(info) if bytes.len() as u64 != info.length => {
                Some(Fault::all(bytes, "the table has another length than its manifest says"))
            }
            Some(info) => (*blake3::hash(bytes).as_bytes() != info.digest)
                .then(|| Fault::all(bytes, "the digest is not that of the manifest")),
        };
        for (name, read) in names.iter().zip(self.each(names.clone(), work).await) {
            let fault = match self.note(name, read) {
                None => None,
                Some(None) => Some(Fault::new(0, 0, "a table that a manifest names is missing")),
                Some(Some(fault)) => fault,
            };
            if let Some(fault) = fault {
                self.add(name, fault, self.cost());
            }
        }
    }
}
