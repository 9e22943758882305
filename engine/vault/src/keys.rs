//! Keys: vault key -> wrapped data key per machine -> one key per segment, record and purpose.
//!
//! Every derived key is for one object (salt = its identity), so counters are enough as nonces.
//! What is *not* here: where the vault key is kept; losing it loses the vault.

use crate::codec::{Malformed, Put, Take, checked_crc, put_crc};
use redoubt_core::MachineId;
use redoubt_wire::aead::{KEY_BYTES, Key, NONCE_BYTES, TAG_BYTES};
use zeroize::Zeroize;

/// The nonce of keys that seal exactly one buffer in their life.
pub(crate) const ONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

const MAGIC: &[u8; 8] = b"DRKEY1\0\0";
const HEADER_BYTES: usize = 72;

/// Everything derived from one vault key.
#[derive(Clone, Debug)]
pub struct VaultKeys {
    root: Key,
}

impl VaultKeys {
    /// Takes the vault key. Whether it is the right one is found by `Vault::open`.
    pub fn new(vault_key: [u8; KEY_BYTES]) -> VaultKeys {
        VaultKeys { root: Key::new(vault_key) }
    }

    /// Derives the key that seals a machine's stream between agent and process server. Needs no
    /// store: both ends hold the vault key.
    pub fn stream_key(&self, machine: MachineId) -> [u8; KEY_BYTES] {
        *self.root.derive(&[], &[b"drv1 stream", &machine.0.to_be_bytes()]).expose()
    }

    /// A value that tells the right key from a wrong one and nothing else about it.
    pub(crate) fn check(&self, vault: u128) -> [u8; 16] {
        let check = self.root.derive(&vault.to_be_bytes(), &[b"drv1 check"]);
        let mut value = [0; 16];
        value.copy_from_slice(&check.expose()[..16]);
        value
    }

    /// Encodes a data key object: header, then the key sealed for what the header says.
    pub(crate) fn wrap(&self, id: &WrapId, wrap: u128, key: &Key) -> Vec<u8> {
        let mut object = id.header(wrap);
        let mut sealed = *key.expose();
        let tag = self.wrapping(wrap).seal(ONCE, &object, &mut sealed);
        object.put(&sealed);
        object.put(&tag);
        put_crc(&mut object);
        object
    }

    /// Decodes a data key object.
    pub(crate) fn unwrap(&self, id: &WrapId, object: &[u8]) -> Result<Key, Malformed> {
        let mut take = Take::new(checked_crc(object)?);
        let header: [u8; HEADER_BYTES] = take.array()?;
        let mut wrap = [0; 16];
        wrap.copy_from_slice(&header[48..64]);
        let wrap = u128::from_be_bytes(wrap);
        if header[..] != id.header(wrap) {
            return Err(Malformed("not the data key of this place"));
        }
        let mut key: [u8; KEY_BYTES] = take.array()?;
        let tag: [u8; TAG_BYTES] = take.array()?;
        take.finish()?;
        self.wrapping(wrap)
            .open(ONCE, &header, &mut key, &tag)
            .map_err(|_| Malformed("the data key does not open with this vault key"))?;
        let opened = Key::new(key);
        key.zeroize();
        Ok(opened)
    }

    fn wrapping(&self, wrap: u128) -> Key {
        self.root.derive(&wrap.to_be_bytes(), &[b"drv1 wrap"])
    }
}

/// What a data key object is: which key of whom, wrapped by which vault key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrapId {
    pub(crate) vault: u128,
    pub(crate) machine: MachineId,
    /// Number of the data key.
    pub(crate) dek: u32,
    /// Number of the vault key.
    pub(crate) by: u32,
}

impl WrapId {
    fn header(&self, wrap: u128) -> Vec<u8> {
        let mut header = Vec::with_capacity(128);
        header.put(MAGIC);
        header.put_u16(crate::vault::MAJOR);
        header.put_u16(crate::vault::MINOR);
        header.put_u32(self.dek);
        header.put_u128(self.vault);
        header.put_u128(self.machine.0);
        header.put_u128(wrap);
        header.put_u32(self.by);
        header.put_u32(0);
        header
    }
}

/// Reads from a data key object which vault key wraps it.
pub(crate) fn wrapped_by(object: &[u8]) -> Result<u32, Malformed> {
    let mut take = Take::new(checked_crc(object)?);
    if take.array()? != *MAGIC {
        return Err(Malformed("not a data key"));
    }
    take.bytes(56)?;
    take.u32()
}
