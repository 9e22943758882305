//! Certain answers from an uncertain store: the resolve layer over [`RawStore`].
//!
//! Invariants
//! - VS-1 No claim of the store about *who* created an object is believed: after "already exists" the
//!   object is read and its bytes are compared.
//! - VS-2 A retry puts the same bytes; nothing is encoded twice (also a nonce rule).
//! - VS-3 Every call ends: attempts have a deadline each, operations have one in total.
//! - VS-4 After an ambiguous reply the object is put again, not just read: what can be read need not be
//!   durable, but a put that finds it vouches for it.
//! - VS-5 What is on the way at once is bounded, in bytes and in requests, and who waits for its turn spends
//!   nothing of its deadlines.
//! - VS-6 What rests on other objects is sent right after a look that found them as they were seen, and is never sent
//!   again without another one (`guarded`).

mod attempts;
mod guarded;

pub(crate) use guarded::{Guarded, Seen, newest};

use crate::early::{Ask, Early, Listing};
use crate::error::StoreFailure;
use attempts::{ATTEMPT_DEADLINE, Attempts};
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::{Chance, Never, Rare, RawStore, StoreError, StoreKey, within};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Names per listing call; a store that gives fewer at once goes on by itself. Bounds the memory of a call.
const LIST_PAGE: usize = 10_000;
/// Names of a page that is forced to be short.
const SHORT_PAGE: usize = 3;
/// Bytes of creations on the way at once: at 2 MiB/s the last of them still makes its [`ATTEMPT_DEADLINE`]. More
/// at once on a thin line would all be late, be sent again, and be late again.
const CREATED_BYTES_MAX: usize = 64 << 20;
/// What a creation counts at least, so that small ones are bounded in number: 64.
const CREATED_BYTES_MIN: usize = 1 << 20;
/// Other requests on the way at once. They have their own turn: a recovery does not wait for uploads.
const REQUESTS_MAX: usize = 32;

/// Whose object it is, for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object holds our bytes and is durable.
    Mine,
    /// The name holds these other bytes.
    Other(Bytes),
}

/// A store whose answers can be relied upon.
#[derive(Clone)]
pub(crate) struct Store {
    raw: Arc<dyn RawStore>,
    /// In bytes.
    creations: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// Of objects, as they were seen.
    order: Arc<AtomicU64>,
    /// Answers of an opening that hurries.
    early: Option<Arc<Early>>,
    /// Whether something rare happens now.
    pub(crate) chance: Arc<dyn Chance>,
}

impl Store {
    pub(crate) fn new(raw: Arc<dyn RawStore>) -> Store {
        let creations = Arc::new(Semaphore::new(CREATED_BYTES_MAX));
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        Store { raw, creations, requests, order: Arc::default(), early: None, chance: Arc::new(Never) }
    }

    /// Returns the same store for an opening that asks ahead; what it asked is forgotten with [`Store::settle`].
    pub(crate) fn hurried(&self) -> Store {
        Store { early: Some(Arc::default()), ..self.clone() }
    }

    /// Tells whether answers of questions that were asked ahead wait to be taken.
    pub(crate) fn has_answers(&self) -> bool {
        self.early.as_ref().is_some_and(|early| !early.is_empty())
    }

    /// Asks all of this at once and keeps what is answered (EA-1).
    pub(crate) async fn ask(&self, questions: Vec<Ask>) {
        let Some(early) = &self.early else { return };
        let mut asked = Vec::with_capacity(questions.len());
        for question in questions {
            // One attempt each: who needs the answer has the patience.
            asked.push(async move {
                let _turn = self.turn().await;
                match question {
                    Ask::Get(key) => {
                        if let Ok(Ok(found)) = within(ATTEMPT_DEADLINE, self.raw.get(&key, None)).await {
                            early.put(key, found);
                        }
                    }
                    Ask::List(listing) => {
                        let Listing { prefix, after, limit } = &listing;
                        let page = self.raw.list_after(prefix, after.as_ref(), *limit);
                        if let Ok(Ok(page)) = within(ATTEMPT_DEADLINE, page).await {
                            early.put_page(listing, page);
                        }
                    }
                }
            });
        }
        futures::future::join_all(asked).await;
    }

    /// Returns the names of a page that was asked ahead.
    pub(crate) fn asked_names(&self, listing: &Listing) -> Vec<StoreKey> {
        self.early.as_ref().map_or(Vec::new(), |early| early.names(listing))
    }

    /// Ends the hurry: what was asked ahead and not needed is forgotten.
    pub(crate) fn settle(&self) {
        if let Some(early) = &self.early {
            early.clear();
        }
    }

    /// VS-5. Nobody closes the semaphores, so there is always a permit in the end.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.requests.acquire().await.ok()
    }

    async fn turn_to_create(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let bytes = bytes.clamp(CREATED_BYTES_MIN, CREATED_BYTES_MAX);
        self.creations.acquire_many(bytes as u32).await.ok()
    }

    /// Creates the object or finds out who did; either way it is durable. After an error it is unknown
    /// whether the object exists: the caller repeats the call with the same bytes or gives the name up.
    pub(crate) async fn create(&self, key: &StoreKey, body: &Bytes) -> Result<Created, StoreFailure> {
        self.resolve(key, body, planted::active(Bug::TrustAlreadyExists)).await
    }

    /// `create` without its planted bug: the admission probe judges the store, not us.
    pub(crate) async fn create_in_probe(
        &self,
        key: &StoreKey,
        body: &Bytes,
    ) -> Result<Created, StoreFailure> {
        self.resolve(key, body, false).await
    }

    async fn resolve(&self, key: &StoreKey, body: &Bytes, trust: bool) -> Result<Created, StoreFailure> {
        let _turn = self.turn_to_create(body.len()).await;
        let mut attempts = Attempts::new("create", key.as_str());
        let mut is_lost = self.chance.forces(Rare::PutTwice);
        loop {
            match self.put_once(&mut attempts, key, body, trust).await {
                Ok(Created::Mine) if std::mem::take(&mut is_lost) => {}
                Ok(created) => return Ok(created),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// One attempt. After an error it is unknown whether the object exists.
    async fn put_once(
        &self,
        attempts: &mut Attempts<'_>,
        key: &StoreKey,
        body: &Bytes,
        trust: bool,
    ) -> Result<Created, StoreError> {
        match attempts.run(self.raw.put_if_absent(key, body.clone())).await {
            Ok(()) => return Ok(Created::Mine),
            Err(StoreError::AlreadyExists) if trust => return Ok(Created::Mine),
            Err(StoreError::AlreadyExists) => {}
            Err(error) => return Err(error),
        }
        match attempts.run(self.raw.get(key, None)).await {
            Ok(Some(found)) if found == *body => Ok(Created::Mine),
            Ok(Some(found)) => Ok(Created::Other(found)),
            Ok(None) | Err(_) => Err(StoreError::AlreadyExists),
        }
    }

    /// Reads an object or a range of it; `None` is a certain "not there".
    pub(crate) async fn get(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreFailure> {
        let early = self.early.as_ref().filter(|_| range.is_none());
        if let Some(found) = early.and_then(|early| early.take(key)) {
            return Ok(found);
        }
        let _turn = self.turn().await;
        let mut attempts = Attempts::new("read", key.as_str());
        let mut is_lost = self.chance.forces(Rare::ReadTwice);
        loop {
            match attempts.run(self.raw.get(key, range.clone())).await {
                Ok(_) if std::mem::take(&mut is_lost) => {}
                Ok(found) => return Ok(found),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Lists one page of names after `after`.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreFailure> {
        if let Some(early) = &self.early {
            let listing = Listing { prefix: prefix.to_owned(), after: after.cloned(), limit };
            if let Some(page) = early.take_page(&listing) {
                return Ok(page);
            }
        }
        let _turn = self.turn().await;
        let mut attempts = Attempts::new("list", prefix);
        loop {
            match attempts.run(self.raw.list_after(prefix, after, limit)).await {
                Ok(found) => return Ok(found),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Lists all names after `after`.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
    ) -> Result<Vec<StoreKey>, StoreFailure> {
        let mut names: Vec<StoreKey> = Vec::new();
        loop {
            let limit = if self.chance.forces(Rare::ShortPages) { SHORT_PAGE } else { LIST_PAGE };
            let page = self.page(prefix, names.last().or(after), limit).await?;
            let full = page.len() >= limit;
            names.extend(page.into_iter().map(|(key, _)| key));
            if !full {
                return Ok(names);
            }
        }
    }

    /// Deletes an object; missing is fine.
    pub(crate) async fn delete(&self, key: &StoreKey) -> Result<(), StoreFailure> {
        let _turn = self.turn().await;
        let mut attempts = Attempts::new("delete", key.as_str());
        loop {
            match attempts.run(self.raw.delete(key)).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemStore;
    use async_trait::async_trait;
    use std::sync::Mutex;
    use std::time::Duration;
    use tokio::time::sleep;

    /// Takes its time for every call and remembers the most that was on the way at once.
    #[derive(Default)]
    struct Slow {
        inner: MemStore,
        /// Now and at most: bytes of creations, creations, other requests.
        busy: Mutex<[(usize, usize); 3]>,
    }

    impl Slow {
        async fn during<T>(&self, load: [usize; 3], call: impl Future<Output = T>) -> T {
            for ((now, most), load) in self.busy.lock().unwrap().iter_mut().zip(load) {
                *now += load;
                *most = (*most).max(*now);
            }
            sleep(Duration::from_secs(1)).await;
            let answer = call.await;
            for ((now, _), load) in self.busy.lock().unwrap().iter_mut().zip(load) {
                *now -= load;
            }
            answer
        }
    }

    #[async_trait]
    impl RawStore for Slow {
        async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
            self.during([body.len(), 1, 0], self.inner.put_if_absent(key, body.clone())).await
        }

        async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
            self.during([0, 0, 1], self.inner.get(key, range)).await
        }

        async fn list_after(
            &self,
            prefix: &str,
            after: Option<&StoreKey>,
            limit: usize,
        ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
            self.during([0, 0, 1], self.inner.list_after(prefix, after, limit)).await
        }

        async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
            self.during([0, 0, 1], self.inner.delete(key)).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_the_way_at_once_is_bounded_and_nothing_gives_up_in_the_queue() {
        let slow = Arc::new(Slow::default());
        let store = Store::new(slow.clone());
        let large = Bytes::from(vec![1; CREATED_BYTES_MAX / 4]);
        // Twice as long a queue as one attempt may last.
        let all = (0..400).map(|n| {
            let (store, large) = (store.clone(), large.clone());
            async move {
                let name = |kind: &str| StoreKey::new(format!("{kind}/{n:04}"));
                assert_eq!(store.create(&name("large"), &large).await.unwrap(), Created::Mine);
                assert_eq!(store.create(&name("small"), &Bytes::new()).await.unwrap(), Created::Mine);
                assert_eq!(store.get(&name("none"), None).await.unwrap(), None);
            }
        });
        futures::future::join_all(all).await;
        let [bytes, creations, others] = slow.busy.lock().unwrap().map(|(_, most)| most);
        assert!((CREATED_BYTES_MAX / 2..=CREATED_BYTES_MAX).contains(&bytes), "{bytes}");
        assert!(creations <= CREATED_BYTES_MAX / CREATED_BYTES_MIN, "{creations}");
        assert!(others <= REQUESTS_MAX && others > 1, "{others}");
    }
}
