//! Shows what an object holds, field by field with its place, whole or damaged.
//!
//! It goes on behind damage as far as the format lets it: it is for the eyes of people, nothing relies on it.
//! What is *not* here: how it looks on a screen; whether records follow one another (`redoubt verify`).

mod index;
mod objects;
mod segments;
mod walk;

use crate::error::{StoreFailure, VaultError};
use crate::keys::{VaultKeys, WrapId};
use crate::names;
use crate::store::Store;
use crate::twice::Mended;
use crate::vault_keys;
use redoubt_core::MachineId;
use redoubt_ports::{RawStore, StoreKey};
use redoubt_wire::aead::Key;
use std::sync::Arc;

/// What a field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// In words or hex.
    Text(String),
    /// A count, a size or a place.
    Number(u64),
    /// Wall time in milliseconds.
    Wall(u64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it is in the object.
    pub at: u64,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub name: &'static str,
    /// What it says.
    pub value: Value,
}

/// A part of an object: fields, or rows that are all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub title: String,
    /// One by one.
    pub fields: Vec<Field>,
    /// Names of the columns; `>` in front of those that hold numbers.
    pub columns: Vec<&'static str>,
    /// As many values each as there are columns.
    pub rows: Vec<Vec<Value>>,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// First byte in the object.
    pub from: u64,
    /// The byte after the last one.
    pub to: u64,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    fn new(from: u64, to: u64, what: impl Into<String>) -> Finding {
        Finding { from, to, what: what.into() }
    }
}

/// An object in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Its name.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// What it is, in a line.
    pub summary: String,
    /// All of it, in order.
    pub parts: Vec<Part>,
    /// What is wrong with it; nothing if it is whole.
    pub findings: Vec<Finding>,
}

impl Dump {
    fn new(name: &str, bytes: &[u8]) -> Dump {
        let (object, bytes) = (name.to_owned(), bytes.len() as u64);
        Dump { object, bytes, summary: String::new(), parts: Vec::new(), findings: Vec::new() }
    }

    fn fields(&mut self, title: impl Into<String>, walk: walk::Walk<'_>) {
        let (columns, rows) = (Vec::new(), Vec::new());
        self.findings.extend(walk.findings);
        self.parts.push(Part { title: title.into(), fields: walk.fields, columns, rows });
    }

    fn rows(&mut self, title: impl Into<String>, columns: Vec<&'static str>, rows: Vec<Vec<Value>>) {
        self.parts.push(Part { title: title.into(), fields: Vec::new(), columns, rows });
    }
}

/// Reads a vault that may be damaged anywhere.
pub struct Inspector {
    store: Store,
    keys: VaultKeys,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inspector")
    }
}

impl Inspector {
    /// Takes a store whatever it holds; reads nothing yet.
    pub fn new(store: Arc<dyn RawStore>, keys: VaultKeys) -> Inspector {
        Inspector { store: Store::new(store), keys }
    }

    /// Returns the names that begin so, sorted.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoreKey>, StoreFailure> {
        self.store.list(prefix, None).await
    }

    /// Shows an object; `None` if there is none of that name.
    pub async fn dump(&self, name: &StoreKey) -> Result<Option<Dump>, StoreFailure> {
        let Some(bytes) = self.store.get(name, None).await? else { return Ok(None) };
        let machine = names::machine_of(name);
        let dek = match machine {
            Some(machine) => self.data_key(machine, names_key(&bytes)).await?,
            None => None,
        };
        let before = self.before(name, machine).await?;
        let (keys, is_later_key) = (
            &self.keys,
            names::without_twin(name.as_str()) == names::VAULT && self.is_later_key(&bytes).await?,
        );
        let shown =
            objects::Shown { name: name.as_str(), bytes: &bytes, keys, machine, dek, before, is_later_key };
        Ok(Some(shown.dump()))
    }

    async fn is_later_key(&self, vault: &[u8]) -> Result<bool, StoreFailure> {
        let Ok((uuid, first)) = crate::vault::decode(vault) else { return Ok(false) };
        match vault_keys::number_of(&self.store, uuid, first, &self.keys).await {
            Err(VaultError::Store(failure)) => Err(failure),
            number => Ok(number.is_ok_and(|number| number > vault_keys::FIRST)),
        }
    }

    /// Epoch and digest of the log slot before, if the object is one and that is there.
    async fn before(
        &self,
        name: &StoreKey,
        machine: Option<MachineId>,
    ) -> Result<Option<(u64, [u8; 32])>, StoreFailure> {
        let slot = machine.and_then(|machine| names::number(name, &names::log(machine), 16));
        let (Some(machine), Some(slot)) = (machine, slot.filter(|slot| *slot > 1)) else { return Ok(None) };
        let bytes = self.store.get(&names::slot(machine, slot - 1), None).await?;
        let epoch = |bytes: &[u8]| crate::log::peek(bytes).map_or(0, |(header, _)| header.epoch);
        Ok(bytes.and_then(|bytes| Some((epoch(&bytes), crate::log::peek_digest(&bytes)?))))
    }

    /// A data key of the machine, if it is there and opens.
    async fn data_key(&self, machine: MachineId, id: u32) -> Result<Option<Key>, StoreFailure> {
        let (uuid, first) = match crate::vault::read(&self.store, &Mended::default()).await {
            Err(VaultError::Store(failure)) => return Err(failure),
            Ok(Some((vault, _))) => vault,
            Ok(None) | Err(_) => return Ok(None),
        };
        let by = match vault_keys::number_of(&self.store, uuid, first, &self.keys).await {
            Ok(by) => by,
            Err(VaultError::Store(failure)) => return Err(failure),
            Err(_) => return Ok(None),
        };
        for name in names::wraps(machine, id, by) {
            let object = self.store.get(&name, None).await?;
            let id = WrapId { vault: uuid, machine, dek: id, by };
            if let Some(key) = object.and_then(|object| self.keys.unwrap(&id, &object).ok()) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

/// The number of the data key that an object names, whatever it is; 0 if it names none.
fn names_key(bytes: &[u8]) -> u32 {
    let at = if bytes.starts_with(b"DRLOG1") { 112 } else { 12 };
    bytes.get(at..at + 4).and_then(|id| id.try_into().ok()).map_or(0, u32::from_le_bytes)
}
