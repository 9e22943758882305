//! Statements that the marks of an agent are void, kept for its next start.
//!
//! An agent whose state directory hangs cannot say there that marks are missing. It says so here, under the
//! number of the marks, before it relies on anybody knowing.
//!
//! Invariants
//! - MD-1 Existence decides, never content. A statement about a number says the same of every lower one.
//! - MD-2 An older statement is removed only after a newer one is durable, so few are ever there.
//!
//! What is *not* here: what an agent does about it (`core::agent`).

use crate::codec::{Put, put_crc};
use crate::error::VaultError;
use crate::names;
use crate::vault::{MAJOR, MINOR, Vault};
use bytes::Bytes;
use redoubt_core::MachineId;

const MAGIC: &[u8; 8] = b"DRMARKS1";

impl Vault {
    /// States that marks of this number are void; durable on return. Repeat it after an error.
    pub async fn disown_marks(&self, machine: MachineId, number: u64) -> Result<(), VaultError> {
        let name = names::disowned_marks(machine, number);
        let body = Bytes::from(encode(self.uuid, machine, number));
        // Whoever made it, with whatever content: it exists (MD-1).
        self.store.create(&name, &body).await?;
        for older in self.store.list(&names::marks(machine), None).await? {
            // MD-2: names are in the order of their numbers. One that stays costs nothing but its bytes.
            if older.as_str() >= name.as_str() || self.store.delete(&older).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Tells whether marks of this number or a later one were disowned.
    pub async fn are_marks_disowned(&self, machine: MachineId, number: u64) -> Result<bool, VaultError> {
        let before = number.checked_sub(1).map(|before| names::disowned_marks(machine, before));
        let found = self.store.page(&names::marks(machine), before.as_ref(), 1).await?;
        Ok(!found.is_empty())
    }
}

fn encode(vault: u128, machine: MachineId, number: u64) -> Vec<u8> {
    let mut object = Vec::new();
    object.put(MAGIC);
    object.put_u16(MAJOR);
    object.put_u16(MINOR);
    object.put_u32(0);
    object.put_u128(vault);
    object.put_u128(machine.0);
    object.put_u64(number);
    put_crc(&mut object);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemStore, VaultKeys};
    use redoubt_ports::{Entropy, RawStore};
    use std::sync::Arc;

    struct Fixed;

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(7);
        }
    }

    #[tokio::test]
    async fn a_statement_counts_for_its_number_and_lower_ones_and_replaces_them() {
        let store = Arc::new(MemStore::new());
        let vault = Vault::init(store.clone(), VaultKeys::new([1; 32]), &Fixed).await.unwrap();
        let (machine, other) = (MachineId(1), MachineId(2));
        for number in [0, 3] {
            vault.disown_marks(machine, number).await.unwrap();
            vault.disown_marks(machine, number).await.unwrap();
        }
        for (number, is_disowned) in [(0, true), (2, true), (3, true), (4, false)] {
            assert_eq!(vault.are_marks_disowned(machine, number).await, Ok(is_disowned), "{number}");
        }
        assert_eq!(vault.are_marks_disowned(other, 0).await, Ok(false));
        let left = store.list_after(&names::marks(machine), None, 10).await.unwrap();
        assert_eq!(left.len(), 1, "the older statement is gone: {left:?}");
    }
}
