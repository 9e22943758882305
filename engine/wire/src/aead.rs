//! The seam to cryptography: AES-256-GCM in place, HKDF-SHA256 for keys, keys that vanish.
//!
//! Nothing else in the engine names a cipher. A caller chooses nonces; the rule for each use is that
//! a (key, nonce) pair never encrypts twice, and where that comes from is written at the caller.
//!
//! What is *not* here: where keys are kept, which key is for what.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroize;

/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The bytes are not what the key's holder sealed: wrong key, wrong place or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the seal is broken: wrong key, wrong place or damaged bytes")]
pub struct BrokenSeal;

/// A 256-bit key. Never printed, wiped on drop.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

impl Key {
    /// Takes key bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    /// Derives a key by HKDF-SHA256 (RFC 5869) with this one as input key material.
    ///
    /// `salt` may be empty. `info` names the purpose; its parts are joined with their lengths, so that
    /// different lists of parts never give the same bytes.
    pub fn derive(&self, salt: &[u8], info: &[&[u8]]) -> Key {
        let mut joined = Vec::new();
        for part in info {
            joined.extend_from_slice(&(part.len() as u64).to_le_bytes());
            joined.extend_from_slice(part);
        }
        let mut bytes = [0; KEY_BYTES];
        let expanded = Hkdf::<Sha256>::new(Some(salt), &self.0).expand(&joined, &mut bytes);
        assert!(expanded.is_ok(), "32 bytes are within the reach of HKDF-SHA256");
        Key(bytes)
    }

    /// Returns the key's bytes for storing or wrapping it. The caller wipes copies.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Prepares the cipher: worth keeping when one key seals many buffers.
    pub fn opener(&self) -> Opener {
        Opener(Aes256Gcm::new((&self.0).into()))
    }

    /// Encrypts in place and returns the tag. The pair of key and nonce must be new.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_BYTES] {
        self.opener().seal(nonce, aad, buffer)
    }

    /// Decrypts in place. After an error the buffer's content is undefined and must not be used.
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), BrokenSeal> {
        self.opener().open(nonce, aad, buffer, tag)
    }
}

/// A key with its schedule expanded.
#[derive(Clone)]
pub struct Opener(Aes256Gcm);

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(hidden)")
    }
}

impl Opener {
    /// Encrypts in place and returns the tag. The pair of key and nonce must be new.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self.0.encrypt_inout_detached(&Nonce::from(nonce), aad, buffer.into());
        // The only error is a buffer beyond 64 GiB; every buffer of the engine is bounded far below.
        tag.expect("AES-GCM seals any buffer below 64 GiB").into()
    }

    /// Decrypts in place. After an error the buffer's content is undefined and must not be used.
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), BrokenSeal> {
        let tag = Tag::from(*tag);
        self.0.decrypt_inout_detached(&Nonce::from(nonce), aad, buffer.into(), &tag).map_err(|_| BrokenSeal)
    }
}

/// Makes a nonce of a counter.
pub fn counter_nonce(counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Tells one stream key from another, and nothing else about it. It stands in the clear in each sealed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKeyId(pub [u8; 8]);

impl fmt::Display for StreamKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The key of one machine's stream, shared by its agent and its process server.
#[derive(Clone)]
pub struct StreamKey {
    key: Key,
    id: StreamKeyId,
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKey(hidden)")
    }
}

impl StreamKey {
    /// Takes key bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> StreamKey {
        let key = Key::new(bytes);
        let mut id = StreamKeyId([0; 8]);
        id.0.copy_from_slice(&key.derive(b"redoubt stream", &[b"id v1"]).expose()[..8]);
        StreamKey { key, id }
    }

    /// Returns what tells this key from others.
    pub fn id(&self) -> StreamKeyId {
        self.id
    }

    /// Returns the key that seals the batches of one machine and generation.
    pub fn batch_key(&self, machine: u128, generation: u64) -> Key {
        self.key.derive(b"redoubt stream", &[b"batch v1", &machine.to_le_bytes(), &generation.to_le_bytes()])
    }

    /// Returns the key that proves knowledge of this one.
    pub fn proof_key(&self) -> Key {
        self.key.derive(b"redoubt stream", &[b"proof v1"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_in_its_place() {
        let key = Key::new([7; 32]);
        let mut buffer = *b"guest data";
        let tag = key.seal(counter_nonce(1), b"here", &mut buffer);
        assert_ne!(&buffer, b"guest data");
        let sealed = buffer;
        assert_eq!(key.open(counter_nonce(1), b"there", &mut buffer, &tag), Err(BrokenSeal));
        buffer = sealed;
        assert_eq!(key.open(counter_nonce(2), b"here", &mut buffer, &tag), Err(BrokenSeal));
        buffer = sealed;
        assert_eq!(key.open(counter_nonce(1), b"here", &mut buffer, &tag), Ok(()));
        assert_eq!(&buffer, b"guest data");
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_by_the_split_of_its_parts() {
        let key = Key::new([1; 32]);
        let keys = [
            key.derive(b"", &[b"ab", b"c"]),
            key.derive(b"", &[b"a", b"bc"]),
            key.derive(b"s", &[b"ab", b"c"]),
        ];
        assert_ne!(keys[0].expose(), keys[1].expose());
        assert_ne!(keys[0].expose(), keys[2].expose());
    }

    #[test]
    fn debug_never_shows_a_key() {
        let text = format!("{:?} {:?}", Key::new([0xAB; 32]), StreamKey::new([0xAB; 32]));
        assert_eq!(text, "Key(hidden) StreamKey(hidden)");
    }

    /// Test case 14 of the GCM specification (AES-256, zero key, zero nonce, one zero block).
    #[test]
    fn aes_gcm_matches_the_published_vector() {
        let mut buffer = [0; 16];
        let tag = Key::new([0; 32]).seal([0; 12], b"", &mut buffer);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&buffer), "cea7403d4d606b6e074ec5d3baf39d18");
        assert_eq!(hex(&tag), "d0d1c8a799996bf0265b98b5d48ab919");
    }
}
