//! The raw layer under the vault: what an object store really promises, and no more.
//!
//! Four operations suffice: put-if-absent, ranged get, list, delete. No update, no rename, no
//! multipart, no clock. Answers are *not* trusted here: lost replies and false conflicts are
//! resolved above, in `redoubt-vault`, so that the lab exercises that code too.

use async_trait::async_trait;
use bytes::Bytes;
use std::borrow::Borrow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Name of an object, relative to the vault's root: parts of `[a-z0-9._-]` joined by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey(String);

impl StoreKey {
    /// Makes a key; the caller builds it from fixed parts and hex numbers only.
    pub fn new(name: impl Into<String>) -> StoreKey {
        let name = name.into();
        let legal = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        assert!(name.bytes().all(legal), "an object name is lower-case ASCII: {name:?}");
        StoreKey(name)
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for StoreKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a store call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store says the name is taken. It may be our own earlier attempt: read it back.
    #[error("the object exists already")]
    AlreadyExists,
    /// The reply was lost or late: it may have happened, or may still happen.
    #[error("no certain answer: {0}")]
    Ambiguous(String),
    /// The store asks us to slow down; nothing happened.
    #[error("throttled")]
    Throttled {
        /// When to try again, if the store said so.
        retry_after: Option<Duration>,
    },
    /// The store cannot be reached; nothing happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The store is full; nothing happened.
    #[error("no space left in the store")]
    NoSpace,
    /// We may not do this; retrying will not help.
    #[error("denied: {0}")]
    Denied(String),
}

/// One vault's objects.
#[async_trait]
pub trait RawStore: Send + Sync {
    /// Creates the object, complete and durable on return, unless the name exists. `AlreadyExists`
    /// promises that the object found is complete and durable too: its maker may have died before its
    /// own sync, so an object that can be read need not be.
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError>;

    /// Reads the object or a byte range of it; `None` if it does not exist.
    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError>;

    /// Lists names that start with `prefix` and sort after `after`, sorted, with sizes, at most
    /// `limit` of them.
    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError>;

    /// Deletes the object; missing is fine.
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError>;
}

/// A store around another one. Whoever implements it says what differs; the rest is handed through.
#[async_trait]
pub trait StoreAround: Send + Sync {
    /// Returns the store within.
    fn inner(&self) -> &dyn RawStore;

    /// As [`RawStore::put_if_absent`].
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        self.inner().put_if_absent(key, body).await
    }

    /// As [`RawStore::get`].
    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.inner().get(key, range).await
    }

    /// As [`RawStore::list_after`].
    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.inner().list_after(prefix, after, limit).await
    }

    /// As [`RawStore::delete`].
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.inner().delete(key).await
    }
}

#[async_trait]
impl<S: StoreAround> RawStore for S {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        StoreAround::put_if_absent(self, key, body).await
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        StoreAround::get(self, key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        StoreAround::list_after(self, prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        StoreAround::delete(self, key).await
    }
}
