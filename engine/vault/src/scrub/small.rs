//! Small objects: the vault object, keys, claims, marks, pins.
//!
//! What is stored twice costs nothing as long as one of the two is whole: the damaged one is told all the same.

use super::clear::{self, Fault, Kind};
use super::{Ended, Run, Takes, sized};
use crate::codec::Malformed;
use crate::keys::{WrapId, wrapped_by};
use crate::names::{self, Role};
use bytes::Bytes;
use redoubt_ports::StoreKey;
use redoubt_wire::aead::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Small objects read at once.
const SMALL_AT_ONCE: usize = 16;
/// What damage of an object costs whose twin is whole.
const TWIN_IS_WHOLE: Takes = Takes::Nothing("its twin is whole; the next writer that starts writes it anew");

impl Run<'_> {
    /// The vault object: everything else is compared with its identity.
    pub(super) async fn vault_object(&mut self) {
        let (mut whole, mut faults) = (None, Vec::new());
        for name in [names::vault(), names::twin(&names::vault())] {
            let read = self.read(&name).await.map(sized);
            let Some(found) = self.note(&name, read) else { continue };
            match found.ok_or(Malformed("missing")).and_then(|bytes| clear::vault(&bytes)) {
                Ok(uuid) => whole = whole.or(Some(uuid)),
                Err(what) => faults.push((name, Fault::new(0, 0, what.0))),
            }
        }
        self.vault = whole.unwrap_or(self.vault);
        for (name, fault) in faults {
            self.add(&name, fault, if whole.is_some() { TWIN_IS_WHOLE } else { Takes::Unknown });
        }
    }

    /// Keys, claims, marks, pins.
    pub(super) async fn small_objects(&mut self) {
        let is_small = |kind| matches!(kind, Kind::Key(_) | Kind::Claim(..) | Kind::Marks(_) | Kind::Pin);
        let of_kind = |(name, _): (&StoreKey, &u64)| (name.clone(), Kind::of(name, self.machine));
        let small = self.inventory.iter().map(of_kind).filter(|(_, kind)| is_small(*kind));
        let small: Vec<(StoreKey, Kind)> = small.collect();
        let (mut keys, mut whole, mut faults) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        for group in small.chunks(SMALL_AT_ONCE) {
            let read = futures::future::join_all(group.iter().map(|(name, _)| self.read(name))).await;
            for ((name, kind), read) in group.iter().zip(read) {
                // What vanished since the listing was deleted: marks are.
                let Some(Some(bytes)) = self.note(name, read.map(sized)) else { continue };
                match self.small_object(&bytes, *kind, &mut keys) {
                    None => _ = whole.insert(name.clone()),
                    Some(fault) => faults.push((name.clone(), *kind, fault)),
                }
            }
        }
        let lost = small.iter().filter(|(_, kind)| matches!(kind, Kind::Key(_)));
        let lost = lost.map(|(name, _)| (names::other_twin(name), whole.contains(name)));
        self.twinless = lost.filter(|(other, _)| !self.inventory.contains_key(other)).collect();
        for (name, kind, fault) in faults {
            let is_held = matches!(kind, Kind::Key(_)) && whole.contains(&names::other_twin(&name));
            self.add(&name, fault, if is_held { TWIN_IS_WHOLE } else { cost_of(kind) });
        }
        self.claims_are_dense(Role::Writer);
        self.claims_are_dense(Role::Maintainer);
        // With none everything is checked as without keys.
        self.keys = (!keys.is_empty()).then(|| Arc::new(keys));
        let is_sealed = |name| !is_small(Kind::of(name, self.machine));
        // A machine that is claimed for the first time has no key for a moment, and nothing that needs one.
        if self.report.with_keys && self.keys.is_none() && self.inventory.keys().any(is_sealed) {
            self.no_key(crate::sealing::FIRST_DATA_KEY);
        }
    }

    /// Keys of which only one object was listed. A key that is being made, or given up, has one for a while: when all else is
    /// done it has both or none.
    pub(super) async fn twins(&mut self) {
        for (name, is_held) in std::mem::take(&mut self.twinless) {
            if self.watch.is_stopped() {
                self.report.ended = Ended::Stopped;
                return;
            }
            let store = &self.scrub.store;
            let is_whole = match store.get(&name, None).await {
                Ok(None) => store.get(&names::other_twin(&name), None).await.map(|other| other.is_none()),
                found => found.map(|_| true),
            };
            match is_whole {
                Ok(true) => {}
                Ok(false) => {
                    let takes = if is_held { TWIN_IS_WHOLE } else { Takes::Unknown };
                    self.add(&name, Fault::new(0, 0, "missing"), takes);
                }
                Err(failure) => self.unread(&name, failure.to_string()),
            }
        }
    }

    /// Checks one; keeps the key that it holds.
    fn small_object(&self, bytes: &Bytes, kind: Kind, keys: &mut BTreeMap<u32, Key>) -> Option<Fault> {
        match (kind, &self.scrub.vault) {
            // Wrapped by another vault key it is checked as without keys.
            (Kind::Key(dek), Some(vault)) if wrapped_by(bytes) == Ok(vault.number) => {
                let wrap = WrapId { vault: vault.uuid, machine: self.machine, dek, by: vault.number };
                let opened = vault.keys.unwrap(&wrap, bytes);
                opened.map(|key| keys.insert(dek, key)).err().map(|what| Fault::all(bytes, what))
            }
            _ => clear::small(bytes, self.machine, kind, self.vault),
        }
    }

    fn claims_are_dense(&mut self, role: Role) {
        let prefix = names::claims(self.machine, role);
        let numbers: Vec<u64> =
            self.inventory.keys().filter_map(|name| names::number(name, &prefix, 8)).collect();
        let mut next = 1;
        for number in numbers {
            for lost in next..number {
                let cost = Takes::Nothing("the next claim makes it again");
                let fault = Fault::new(0, 0, "the claim is missing, later ones exist");
                self.add(&names::claim(self.machine, role, lost), fault, cost);
            }
            next = number + 1;
        }
    }
}

fn cost_of(kind: Kind) -> Takes {
    match kind {
        Kind::Claim(..) => Takes::Nothing("a claim's content counts for nothing, only that it exists"),
        Kind::Marks(_) | Kind::Pin => Takes::Nothing("only that it exists counts"),
        _ => Takes::Unknown,
    }
}
