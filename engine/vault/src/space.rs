//! What a machine takes in the store, by kind, told by names and sizes alone.
//!
//! What is *not* here: what of it is needed (`maintainer`), whether it is whole (`scrub`).

use crate::error::StoreFailure;
use crate::names;
use crate::vault::Vault;
use redoubt_core::MachineId;
use redoubt_ports::StoreKey;
use std::collections::BTreeSet;

/// Names of one listing.
const PAGE: usize = 10_000;
/// Listings at most: what a million objects take is told exactly, of more a part.
const PAGES_MAX: usize = 100;

/// Objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub objects: u64,
    /// What they take together.
    pub bytes: u64,
}

impl Held {
    fn add(&mut self, bytes: u64) {
        (self.objects, self.bytes) = (self.objects + 1, self.bytes + bytes);
    }
}

/// The objects of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The log, with the segments that lie in its slots.
    pub log: Held,
    /// Segments of their own, of writers and of maintainers.
    pub segments: Held,
    /// What is left of folded stretches of the log, without their segments.
    pub folds: Held,
    /// Catalogues and the index.
    pub index: Held,
    /// Keys, claims, pins.
    pub other: Held,
    /// What of all that no version of the catalogue to come needs: it is deleted once three newer ones are there.
    pub given_up: Held,
    /// There is more that was not looked at.
    pub is_part: bool,
}

impl Vault {
    /// Returns what a machine takes: one listing for 10 000 objects, 100 at most. `given_up` are objects that retention
    /// does not need any more ([`crate::MachineReader::given_up`]).
    pub async fn space(
        &self,
        machine: MachineId,
        given_up: &BTreeSet<StoreKey>,
    ) -> Result<Space, StoreFailure> {
        let prefix = names::machine(machine);
        let (mut space, mut after) = (Space::default(), None);
        for _ in 0..PAGES_MAX {
            let page = self.store.page(&prefix, after.as_ref(), PAGE).await?;
            for (name, bytes) in &page {
                let kind = name.as_str()[prefix.len()..].split('/').next();
                let held = match kind.unwrap_or_default() {
                    "log" => &mut space.log,
                    "seg" | "cseg" => &mut space.segments,
                    "fold" => &mut space.folds,
                    "cat" | "idx" => &mut space.index,
                    _ => &mut space.other,
                };
                held.add(*bytes);
                if given_up.contains(name) {
                    space.given_up.add(*bytes);
                }
            }
            if page.len() < PAGE {
                return Ok(space);
            }
            after = page.into_iter().next_back().map(|(name, _)| name);
        }
        Ok(Space { is_part: true, ..space })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemStore, VaultKeys};
    use bytes::Bytes;
    use redoubt_ports::{Entropy, RawStore};
    use std::sync::Arc;

    struct Ones;

    impl Entropy for Ones {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(1);
        }
    }

    #[tokio::test]
    async fn each_object_of_the_machine_counts_once_and_no_other() {
        let store = Arc::new(MemStore::new());
        let vault = Vault::init(store.clone(), VaultKeys::new([3; 32]), &Ones).await.unwrap();
        let (own, other) = (names::machine(MachineId(7)), names::machine(MachineId(8)));
        let sizes =
            [("log", 1), ("seg", 2), ("cseg", 3), ("fold", 4), ("cat", 5), ("idx", 6), ("claim/w", 7)];
        for (at, (kind, bytes)) in sizes.into_iter().enumerate() {
            // Two of each, the logs over a page.
            for number in 0..if at == 0 { PAGE } else { 2 } {
                let name = StoreKey::new(format!("{own}{kind}/{number:08x}"));
                store.put_if_absent(&name, Bytes::from(vec![0; bytes])).await.unwrap();
            }
            let name = StoreKey::new(format!("{other}{kind}/00"));
            store.put_if_absent(&name, Bytes::from_static(b"other")).await.unwrap();
        }
        let held = |objects, bytes| Held { objects, bytes };
        let wanted = Space {
            log: held(PAGE as u64, PAGE as u64),
            segments: held(4, 10),
            folds: held(2, 8),
            index: held(4, 22),
            other: held(2, 14),
            given_up: held(2, 5),
            is_part: false,
        };
        // Of another machine's nothing counts, nor what is not there any more.
        let given_up = ["seg/00000000", "cseg/00000001", "seg/0000000a"].map(|name| format!("{own}{name}"));
        let given_up = given_up.into_iter().chain([format!("{other}log/00")]).map(StoreKey::new).collect();
        assert_eq!(vault.space(MachineId(7), &given_up).await.unwrap(), wanted);
    }
}
