//! The vault object: identity, format, required features, and whether the key is the right one.
//!
//! Invariants
//! - VT-1 Nothing is written or read with a key before its check value agreed.
//! - VT-2 A vault is made in, and a writer starts on, an admitted store only (`admission`).
//! - VT-3 A writer puts the vault object and its key again before it builds on them: found is not durable. Both are
//!   stored twice (`twice`).

use crate::admission;
use crate::chain::LogTail;
use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use crate::error::{StoreFailure, VaultError};
use crate::key_ring::KeyRing;
use crate::keys::VaultKeys;
use crate::names;
use crate::opening;
use crate::reader::MachineReader;
use crate::store::{Created, Store};
use crate::twice::Mended;
use crate::units::UnitMemory;
use crate::vault_keys;
use bytes::Bytes;
use redoubt_core::{MachineId, Names};
use redoubt_ports::{Chance, Entropy, InPlace, RawStore, StoreKey, Workers};
use std::sync::Arc;

/// Format major: another one cannot be read.
pub const MAJOR: u16 = 1;
/// Format minor: newer ones only add what may be ignored.
pub const MINOR: u16 = 0;
/// Required features this program knows.
const KNOWN_FEATURES: u64 = 0;
const MAGIC: &[u8; 8] = b"DRVAULT1";

/// An open vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    pub(crate) store: Store,
    pub(crate) keys: VaultKeys,
    pub(crate) uuid: u128,
    /// Where readers open what they read.
    pub(crate) workers: Arc<dyn Workers>,
    /// What readers remember together, if they do.
    pub(crate) memory: Option<UnitMemory>,
    /// Which of the vault's keys this is.
    pub(crate) number: u32,
    pub(crate) mended: Mended,
    object: Bytes,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({:032x})", self.uuid)
    }
}

impl Vault {
    /// Makes a vault in an admitted store; durable on return. Of racing calls one wins, the others
    /// get `AlreadyInitialised` (then `open` it).
    pub async fn init(
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
        entropy: &dyn Entropy,
    ) -> Result<Vault, VaultError> {
        let store = Store::new(store);
        // Whatever is there, damaged or not, is somebody's vault.
        for name in [names::vault(), names::twin(&names::vault())] {
            if store.get(&name, None).await?.is_some() {
                return Err(VaultError::AlreadyInitialised);
            }
        }
        admission::probe(&store, entropy.id(), admission::OF_INIT).await?;
        let uuid = entropy.id();
        let object = Bytes::from(encode(uuid, &keys));
        match store.create_twice(&names::vault(), &object).await? {
            Created::Mine => {
                let (number, workers) = (vault_keys::FIRST, Arc::new(InPlace));
                let mended = Mended::default();
                Ok(Vault { store, keys, uuid, number, workers, memory: None, mended, object })
            }
            Created::Other(_) => Err(VaultError::AlreadyInitialised),
        }
    }

    /// Opens a vault; changes nothing. A wrong key is `WrongKey`, a newer format is named.
    pub async fn open(store: Arc<dyn RawStore>, keys: VaultKeys) -> Result<Vault, VaultError> {
        let store = Store::new(store);
        Vault::open_in(store, keys).await
    }

    async fn open_in(store: Store, keys: VaultKeys) -> Result<Vault, VaultError> {
        let mended = Mended::default();
        let ((uuid, first), object) = read(&store, &mended).await?.ok_or(VaultError::NoVault)?;
        let number = vault_keys::number_of(&store, uuid, first, &keys).await?;
        let workers = Arc::new(InPlace);
        Ok(Vault { store, keys, uuid, number, workers, memory: None, mended, object })
    }

    /// Returns the identity of the vault in a store; needs no key.
    pub async fn identity(store: Arc<dyn RawStore>) -> Result<u128, VaultError> {
        let (store, mended) = (Store::new(store), Mended::default());
        let ((uuid, _), _) = read(&store, &mended).await?.ok_or(VaultError::NoVault)?;
        Ok(uuid)
    }

    /// Returns the number of the vault key that it was opened with.
    pub fn key_number(&self) -> u32 {
        self.number
    }

    /// Returns the damage of the vault object and of data keys that their twins made up for. What is told here costs
    /// nothing yet: the next writer that starts writes it anew.
    pub fn mended(&self) -> Vec<VaultError> {
        self.mended.all()
    }

    /// Has what is read opened by these workers, instead of in place.
    pub fn with_workers(mut self, workers: Arc<dyn Workers>) -> Vault {
        self.workers = workers;
        self
    }

    /// Has readers remember the units of a machine together with others of it.
    pub fn with_memory(mut self, memory: &UnitMemory) -> Vault {
        self.memory = Some(memory.clone());
        self
    }

    /// Has this say whether something rare happens now; without it nothing does.
    pub fn with_chance(mut self, chance: Arc<dyn Chance>) -> Vault {
        self.store.chance = chance;
        self
    }

    /// As [`Vault::open`], for a machine that is to be read next: what that needs is asked for at the same time.
    pub async fn open_for(
        store: Arc<dyn RawStore>,
        keys: VaultKeys,
        machine: MachineId,
    ) -> Result<Vault, VaultError> {
        let store = Store::new(store).hurried();
        let (vault, ()) =
            futures::future::join(Vault::open_in(store.clone(), keys), opening::begin(&store, machine)).await;
        vault
    }

    /// Returns the same vault with what opening a machine will need asked for already.
    pub(crate) async fn hurried(&self, machine: MachineId) -> Vault {
        if self.store.has_answers() {
            return self.clone();
        }
        let vault = Vault { store: self.store.hurried(), ..self.clone() };
        opening::begin(&vault.store, machine).await;
        vault
    }

    /// Returns the vault's identity.
    pub fn uuid(&self) -> u128 {
        self.uuid
    }

    /// Returns the keys.
    pub fn keys(&self) -> &VaultKeys {
        &self.keys
    }

    /// Reads an object as it is, for those who check or show what others rely on.
    pub async fn object(&self, name: &StoreKey) -> Result<Option<Bytes>, StoreFailure> {
        self.store.get(name, None).await
    }

    /// Returns the names of all objects that begin so, sorted.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<StoreKey>, StoreFailure> {
        self.store.list(prefix, None).await
    }

    /// Returns the machines that have objects in this vault, sorted.
    pub async fn list_machines(&self) -> Result<Vec<MachineId>, VaultError> {
        machines(&self.store).await
    }

    /// Returns what a machine and its volumes are called, as the newest record that can be read says.
    pub async fn names(&self, machine: MachineId) -> Result<Names, VaultError> {
        let keys = KeyRing::new(self, machine);
        match LogTail::at_end(self, machine, &keys).await {
            Ok((tail, Some(_))) => Ok(tail.head.names),
            _ => Ok(MachineReader::open_damaged(self, machine).await?.0.names()),
        }
    }

    /// Checks again, with few requests, that the store may be written.
    pub(crate) async fn probe_again(&self, entropy: &dyn Entropy) -> Result<(), VaultError> {
        admission::probe(&self.store, entropy.id(), admission::OF_CLAIM).await
    }

    /// Makes the vault object durable, should its maker have died before it did (VT-3).
    pub(crate) async fn vouch(&self) -> Result<(), VaultError> {
        self.store.vouch_twice(&names::vault(), &self.object, |found| checked_crc(found).map(drop)).await
    }
}

/// Reads the vault object of a store: identity and key check of the first vault key, and its bytes.
pub(crate) async fn read(
    store: &Store,
    mended: &Mended,
) -> Result<Option<((u128, [u8; 16]), Bytes)>, VaultError> {
    store.read_twice(&names::vault(), mended, |object| decode(object)).await
}

/// Returns the machines that have objects in a store, sorted; needs no key.
pub(crate) async fn machines(store: &Store) -> Result<Vec<MachineId>, VaultError> {
    let mut machines: Vec<MachineId> = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(names::MACHINES, after.as_ref(), 1).await?;
        let Some((key, _)) = page.first() else { return Ok(machines) };
        let machine = names::machine_of(key)
            .ok_or_else(|| VaultError::damaged(key, "no machine has objects of this name"))?;
        machines.push(machine);
        after = Some(names::after_machine(machine));
    }
}

pub(crate) fn encode(uuid: u128, keys: &VaultKeys) -> Vec<u8> {
    let mut object = Vec::new();
    object.put(MAGIC);
    object.put_u16(MAJOR);
    object.put_u16(MINOR);
    object.put_u64(KNOWN_FEATURES);
    object.put_u64(0);
    object.put_u128(uuid);
    object.put(&keys.check(uuid));
    put_crc(&mut object);
    object
}

/// Reads identity and key check of the first vault key from a vault object.
pub(crate) fn decode(object: &[u8]) -> Result<(u128, [u8; 16]), VaultError> {
    let damaged = |what: Malformed| VaultError::damaged(names::VAULT, what);
    let mut take = Take::new(checked_crc(object).map_err(damaged)?);
    if take.array().map_err(damaged)? != *MAGIC {
        return Err(damaged(Malformed("not a vault object")));
    }
    let major = take.u16().map_err(damaged)?;
    if major != MAJOR {
        return Err(VaultError::UnknownMajor { object: names::VAULT.to_owned(), major, known: MAJOR });
    }
    take.u16().map_err(damaged)?;
    let unknown = take.u64().map_err(damaged)? & !KNOWN_FEATURES;
    if unknown != 0 {
        return Err(VaultError::UnknownFeature(unknown));
    }
    take.u64().map_err(damaged)?;
    Ok((take.u128().map_err(damaged)?, take.array().map_err(damaged)?))
}
