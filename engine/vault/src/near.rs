//! The seam of a cache near the reader: parts of objects, kept sealed as the vault holds them.
//!
//! - NR-1 A cache is never believed: what it gives goes through the same seals as what the store gives, and what
//!   does not open is forgotten and read from the store.
//! - NR-2 It holds nothing that the vault does not show to everybody: no plain bytes, no keys.
//!
//! What is *not* here: where the bytes lie (`redoubt-roles::mount`), and which parts are read (`units`, `index`).

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::StoreKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a part of an object is kept under: a digest of vault, object and place. Names of objects are used once,
/// so a part never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub u128);

impl PartId {
    pub(crate) fn new(vault: u128, object: &StoreKey, from: u64, length: u64) -> PartId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&vault.to_be_bytes()).update(&from.to_be_bytes()).update(&length.to_be_bytes());
        let digest = hasher.update(object.as_str().as_bytes()).finalize();
        PartId(digest.as_bytes().iter().take(16).fold(0, |id, byte| id << 8 | u128::from(*byte)))
    }
}

/// Keeps sealed parts near the reader.
#[async_trait]
pub trait SealedCache: Send + Sync {
    /// Tells whether a part is kept, as far as that is known without reading it.
    fn has(&self, id: PartId) -> bool;

    /// Returns a part's bytes, if they are kept and were not changed since.
    async fn get(&self, id: PartId) -> Option<Bytes>;

    /// Forgets a part whose seal did not open.
    fn forget(&self, id: PartId);

    /// Keeps parts at the expense of older ones, if that needs no waiting.
    fn offer(&self, parts: Vec<(PartId, Bytes)>);

    /// Keeps parts without giving up others; false if there is no room.
    async fn keep(&self, parts: Vec<(PartId, Bytes)>) -> bool;
}

/// Why something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody waits for it.
    Asked,
    /// Somebody will probably want it soon: into memory.
    Ahead,
    /// To have it near when the vault is out of reach: into the cache only.
    Hydrate,
}

/// Where a read may look, why it looks, and whether all that it brought is where the purpose wants it.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) near: &'a Near,
    pub(crate) purpose: Purpose,
    is_kept: &'a AtomicBool,
}

impl<'a> Reach<'a> {
    pub(crate) fn new(near: &'a Near, purpose: Purpose, is_kept: &'a AtomicBool) -> Reach<'a> {
        Reach { near, purpose, is_kept }
    }

    /// Tells whether the cache lacks what is to be brought there.
    pub(crate) fn lacks(&self, id: PartId) -> bool {
        self.purpose == Purpose::Hydrate && !self.near.has(id)
    }

    /// Keeps a part that was read from the store.
    pub(crate) async fn keep(&self, id: PartId, sealed: Bytes) {
        if self.near.0.is_some() && !self.near.keep(vec![(id, sealed)], self.purpose).await {
            self.is_kept.store(false, Ordering::Relaxed);
        }
    }
}

/// What a reader has near, if anything.
#[derive(Clone, Default)]
pub(crate) struct Near(pub(crate) Option<Arc<dyn SealedCache>>);

impl Near {
    pub(crate) fn has(&self, id: PartId) -> bool {
        self.0.as_ref().is_some_and(|cache| cache.has(id))
    }

    pub(crate) async fn get(&self, id: PartId) -> Option<Bytes> {
        match &self.0 {
            Some(cache) if cache.has(id) => cache.get(id).await,
            _ => None,
        }
    }

    pub(crate) fn forget(&self, id: PartId) {
        if let Some(cache) = &self.0 {
            cache.forget(id);
        }
    }

    /// Keeps parts that were read for a purpose; false if they were to be kept and there is no room.
    pub(crate) async fn keep(&self, parts: Vec<(PartId, Bytes)>, purpose: Purpose) -> bool {
        match (&self.0, purpose) {
            (Some(cache), Purpose::Hydrate) => cache.keep(parts).await,
            (Some(cache), _) => {
                cache.offer(parts);
                true
            }
            (None, purpose) => purpose != Purpose::Hydrate,
        }
    }
}
