//! A vault in a bucket: the port's four operations as single requests, and what each refusal means.
//!
//! - CS-1 An object is absent only if the store names the object as what it has not: no bucket, a proxy's page
//!   or a server that does not know us are no absence.
//! - CS-2 An answer that is not the whole of what was asked for is no answer.
//! - CS-3 What may have been created despite an error is `Ambiguous`.
//! - CS-4 A listing out of order is refused: its first names would not be the first there are.
//!
//! What is *not* here: retries and reading back (`redoubt-vault`); the requests (`http`).

use super::connect::Client;
use super::http::{Refusal, causes};
use super::is_name;
use super::url::Cloud;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::list::PaginatedListOptions;
use object_store::path::Path as ObjectPath;
use object_store::{Error, GetOptions, GetRange, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use redoubt_ports::{RawStore, StoreError, StoreKey};
use std::fmt;
use std::ops::Range;

/// Names per request; no cloud gives more.
const PAGE_MAX: usize = 1000;
/// Names per request at least: a server that starts at the front must still get on.
const PAGE_MIN: usize = 100;
/// Largest object that is read as a whole; a vault's are half as large. Bounds what a server can make us hold.
const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// What the clouds call an object that is not there.
const NO_OBJECT: [&str; 2] = ["NoSuchKey", "BlobNotFound"];
/// What they call a bucket that is not there.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];
/// What they call a store that is full.
const FULL: [&str; 3] = ["QuotaExceeded", "XMinioStorageFull", "InsufficientAccountPermissionsOrQuota"];
/// What they call a request that they did not even look at.
const BUSY: [&str; 3] = ["SlowDown", "ServerBusy", "TooManyRequests"];

/// A part of a bucket.
pub(super) struct CloudStore {
    client: Client,
    cloud: Cloud,
    bucket: String,
    /// Empty, or ends with a slash.
    prefix: String,
}

impl fmt::Debug for CloudStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudStore({}://{}/{})", self.cloud.scheme(), self.bucket, self.prefix)
    }
}

/// Whether a failed request may have changed something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reads,
    Changes,
}

impl CloudStore {
    pub(super) fn new(client: Client, cloud: Cloud, bucket: &str, prefix: &str) -> CloudStore {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        CloudStore { client, cloud, bucket: bucket.to_owned(), prefix }
    }

    fn path(&self, key: &StoreKey) -> ObjectPath {
        ObjectPath::from(format!("{}{key}", self.prefix))
    }

    fn meaning(&self, error: &Error, kind: Kind) -> StoreError {
        match Refusal::below(error) {
            Some(refusal) => self.meaning_of(refusal, kind),
            None => meaning_of_silence(error, kind),
        }
    }

    fn meaning_of(&self, refusal: &Refusal, kind: Kind) -> StoreError {
        let code = refusal.code.as_str();
        match refusal.status {
            507 => StoreError::NoSpace,
            _ if FULL.contains(&code) => StoreError::NoSpace,
            _ if NO_BUCKET.contains(&code) => {
                let (holder, bucket) = (self.cloud.holder(), &self.bucket);
                StoreError::Denied(format!("there is no {holder} {bucket:?}; make it first"))
            }
            429 => StoreError::Throttled { retry_after: refusal.retry_after },
            503 if kind == Kind::Reads || BUSY.contains(&code) => {
                StoreError::Throttled { retry_after: refusal.retry_after }
            }
            // Clocks apart, or a token that is being renewed, may be over soon.
            401 | 403 if ["RequestTimeTooSkewed", "ExpiredToken"].contains(&code) => {
                StoreError::Unavailable(refusal.to_string())
            }
            301 | 307 | 308 | 401 | 403 | 405 => StoreError::Denied(refusal.to_string()),
            400 if code.starts_with("Invalid") || code.starts_with("Authorization") => {
                StoreError::Denied(refusal.to_string())
            }
            _ => unsure(refusal.to_string(), kind),
        }
    }

    async fn read(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        let bounded = range.clone().map(GetRange::Bounded);
        let options = GetOptions { range: bounded, ..GetOptions::default() };
        let answer = match self.client.objects.get_opts(&self.path(key), options).await {
            Ok(answer) => answer,
            Err(error) => {
                // Some servers give all of an object that ends before the range begins.
                let was_answered = !causes(&error).any(|cause| cause.is::<HttpError>());
                if let (true, Some(range)) = (was_answered, range) {
                    let object = self.client.objects.head(&self.path(key)).await;
                    if object.is_ok_and(|object| object.size <= range.start) {
                        return Ok(Some(Bytes::new()));
                    }
                }
                return self.without(&error);
            }
        };
        let wanted = answer.range.end - answer.range.start;
        if wanted > OBJECT_BYTES_MAX {
            return Err(StoreError::Unavailable(format!("the object has {wanted} bytes, no vault's has")));
        }
        let mut body = BytesMut::with_capacity(wanted as usize);
        let mut parts = answer.into_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| self.meaning(&error, Kind::Reads))?;
            if body.len() + part.len() > wanted as usize {
                return Err(StoreError::Unavailable("the answer is longer than it said".to_owned()));
            }
            body.extend_from_slice(&part);
        }
        if body.len() as u64 != wanted {
            return Err(StoreError::Unavailable("the answer was cut short".to_owned()));
        }
        Ok(Some(body.freeze()))
    }

    /// What it means that nothing could be read. CS-1.
    fn without(&self, error: &Error) -> Result<Option<Bytes>, StoreError> {
        match Refusal::below(error) {
            Some(refusal) if refusal.status == 404 && NO_OBJECT.contains(&refusal.code.as_str()) => Ok(None),
            // The range begins behind the object's end.
            Some(refusal) if refusal.status == 416 => Ok(Some(Bytes::new())),
            // A directory of a hierarchical account.
            None if matches!(error, Error::NotFound { .. }) => Ok(None),
            _ => Err(self.meaning(error, Kind::Reads)),
        }
    }
}

fn unsure(why: String, kind: Kind) -> StoreError {
    if kind == Kind::Changes { StoreError::Ambiguous(why) } else { StoreError::Unavailable(why) }
}

/// No answer came. The innermost cause is told: it says most, and has no address.
fn meaning_of_silence(error: &Error, kind: Kind) -> StoreError {
    let why = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let http = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>());
    match http.map(HttpError::kind) {
        Some(HttpErrorKind::Connect) => StoreError::Unavailable(format!("cannot connect: {why}")),
        Some(HttpErrorKind::Timeout) => unsure("no answer in time".to_owned(), kind),
        _ => unsure(why, kind),
    }
}

#[async_trait]
impl RawStore for CloudStore {
    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from_bytes(body);
        let error = match self.client.objects.put_opts(&self.path(key), payload, options).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let status = Refusal::below(&error).map(|refusal| (refusal.status, refusal.code.as_str()));
        match status {
            // Two creations met and neither may have won.
            Some((409, "ConditionalRequestConflict" | "OperationAborted")) => {
                Err(StoreError::Ambiguous("another creation is under way".to_owned()))
            }
            Some((412, _)) | Some((409, "BlobAlreadyExists")) => Err(StoreError::AlreadyExists),
            _ => Err(self.meaning(&error, Kind::Changes)),
        }
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        match range {
            // No request can ask for nothing; whether the object is there is still a question.
            Some(range) if range.is_empty() => {
                Ok(self.read(key, Some(range.start..range.start + 1)).await?.map(|_| Bytes::new()))
            }
            range => self.read(key, range).await,
        }
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let (mut found, mut page_token) = (Vec::new(), None);
        let mut last = String::new();
        let mut whole = format!("{}{prefix}", self.prefix);
        if self.cloud == Cloud::Azure && !whole.ends_with('/') {
            // That client drops an object whose name is the whole prefix.
            whole.pop();
        }
        loop {
            let options = PaginatedListOptions {
                offset: after.map(|after| format!("{}{after}", self.prefix)),
                max_keys: Some((limit - found.len()).clamp(PAGE_MIN, PAGE_MAX)),
                page_token,
                ..PaginatedListOptions::default()
            };
            let whole = (!whole.is_empty()).then_some(whole.as_str());
            let page = self.client.names.list_paginated(whole, options).await;
            let page = page.map_err(|error| self.meaning(&error, Kind::Reads))?;
            for object in page.result.objects {
                let name = object.location.as_ref();
                if name <= last.as_str() {
                    let why = format!("the store lists {name:?} after {last:?}; its order is no use");
                    return Err(StoreError::Denied(why));
                }
                last = name.to_owned();
                let Some(name) = name.strip_prefix(&self.prefix).filter(|name| is_name(name)) else {
                    continue;
                };
                if !name.starts_with(prefix) || after.is_some_and(|after| name <= after.as_str()) {
                    continue;
                }
                found.push((StoreKey::new(name), object.size));
                if found.len() == limit {
                    return Ok(found);
                }
            }
            match page.page_token {
                Some(token) => page_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        match self.client.objects.delete(&self.path(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) if self.cloud == Cloud::Azure => Ok(()),
            Ok(()) => Ok(()),
            Err(error) => match self.without(&error) {
                Ok(None) => Ok(()),
                _ => Err(self.meaning(&error, Kind::Changes)),
            },
        }
    }
}
