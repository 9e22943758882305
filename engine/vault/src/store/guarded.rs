//! Requests that rest on other objects: they are sent right after a look at these.
//!
//! An old copy may take a vault's place at any time, and no store creates or deletes on condition that another object
//! is there. What is on its way at that very moment is all that can reach the copy.

use super::attempts::Attempts;
use super::{Created, REQUESTS_MAX, Store};
use crate::error::StoreFailure;
use bytes::Bytes;
use futures::future::join_all;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::{Rare, StoreError, StoreKey};
use std::sync::atomic::Ordering;

/// Of an object that has its name for itself.
const FIRST_BYTES: usize = 16;
/// Objects looked at at once.
const LOOKS_MAX: usize = 8;

/// An object as it was seen: its first bytes tell it from any other that ever had this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: StoreKey,
    header: Bytes,
    /// Larger for what this store was known to have later.
    order: u64,
}

/// What became of a creation that rests on other objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// As of any creation.
    Created(Created),
    /// This one of them is gone. The object was not put by the last attempt; those before it may have.
    Gone(StoreKey),
}

/// Returns the one that was put last: an old copy that lacks any of them, and comes after all were put, lacks this one.
pub(crate) fn newest(seen: &[Seen]) -> Option<&Seen> {
    seen.iter().max_by_key(|seen| seen.order)
}

impl Store {
    /// Notes an object that was just put and has its name for itself.
    pub(crate) fn seen_by_name(&self, name: StoreKey, bytes: &[u8]) -> Seen {
        self.seen(name, &bytes[..FIRST_BYTES.min(bytes.len())])
    }

    /// Notes an object that was just put, or found, by the bytes that tell it from others of its name.
    pub(crate) fn seen(&self, name: StoreKey, header: &[u8]) -> Seen {
        // A copy: the object may be large, and this is kept.
        Seen {
            name,
            header: Bytes::copy_from_slice(header),
            order: self.order.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// As [`Store::create`], each attempt right after a look that found all of these objects.
    pub(crate) async fn create_if(
        &self,
        seen: &[Seen],
        key: &StoreKey,
        body: &Bytes,
    ) -> Result<Guarded, StoreFailure> {
        let _turn = self.turn_to_create(body.len()).await;
        let mut attempts = Attempts::new("create", key.as_str());
        let mut is_lost = self.chance.forces(Rare::PutTwice);
        let mut seen = seen;
        loop {
            match self.put_once_if(&mut attempts, seen, key, body).await {
                Ok(Guarded::Created(Created::Mine)) if std::mem::take(&mut is_lost) => {}
                Ok(guarded) => return Ok(guarded),
                Err(error) => attempts.pause(error).await?,
            }
            if planted::active(Bug::PutAgainUnseen) {
                seen = &[];
            }
        }
    }

    async fn put_once_if(
        &self,
        attempts: &mut Attempts<'_>,
        seen: &[Seen],
        key: &StoreKey,
        body: &Bytes,
    ) -> Result<Guarded, StoreError> {
        if let Some(gone) = attempts.run(self.look(seen)).await? {
            return Ok(Guarded::Gone(gone));
        }
        let trust = planted::active(Bug::TrustAlreadyExists);
        self.put_once(attempts, key, body, trust).await.map(Guarded::Created)
    }

    /// Looks at objects; returns the first one that is gone, or another one.
    pub(crate) async fn gone(&self, seen: &[Seen]) -> Result<Option<StoreKey>, StoreFailure> {
        let Some(first) = seen.first() else { return Ok(None) };
        let _turn = self.requests.acquire_many(seen.len().min(LOOKS_MAX) as u32).await.ok();
        let mut attempts = Attempts::new("look at", first.name.as_str());
        loop {
            match attempts.run(self.look(seen)).await {
                Ok(gone) => return Ok(gone),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// One attempt of [`Store::gone`]. The newest object has the last look, alone: a copy that comes between two looks
    /// lacks it, whatever else it lacks.
    async fn look(&self, seen: &[Seen]) -> Result<Option<StoreKey>, StoreError> {
        let Some(newest) = newest(seen) else { return Ok(None) };
        let others: Vec<&Seen> = seen.iter().filter(|seen| *seen != newest).collect();
        for some in others.chunks(LOOKS_MAX).chain([&[newest][..]]) {
            let found = some.iter().map(|of| self.raw.get(&of.name, Some(0..of.header.len() as u64)));
            for (of, found) in some.iter().zip(join_all(found).await) {
                if found?.as_ref() != Some(&of.header) {
                    return Ok(Some(of.name.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Deletes some objects, at most [`REQUESTS_MAX`], right after a look that found an object; tells whether it did. Each
    /// look is followed by one deletion of each; missing is fine. They have their turn before the look, so that nothing
    /// is sent long after it.
    pub(crate) async fn delete_if(&self, seen: &Seen, names: &[StoreKey]) -> Result<bool, StoreFailure> {
        let _turn = self.requests.acquire_many(names.len().min(REQUESTS_MAX) as u32).await.ok();
        let first = names.first().map_or("", StoreKey::as_str);
        let mut attempts = Attempts::new("delete", first);
        loop {
            match attempts.run(self.try_delete_if(seen, names)).await {
                Ok(was_seen) => return Ok(was_seen),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    async fn try_delete_if(&self, seen: &Seen, names: &[StoreKey]) -> Result<bool, StoreError> {
        let gone = self.look(std::slice::from_ref(seen)).await?;
        if gone.is_some() && !planted::active(Bug::DeleteUnseen) {
            return Ok(false);
        }
        let deleted = join_all(names.iter().map(|name| self.raw.delete(name))).await;
        deleted.into_iter().collect::<Result<(), StoreError>>().map(|()| true)
    }
}
