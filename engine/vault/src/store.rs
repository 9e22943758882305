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

use crate::early::{Ask, Early, Listing};
use crate::error::StoreFailure;
use bytes::Bytes;
use redoubt_core::planted::{self, Bug};
use redoubt_ports::{Chance, Never, Rare, RawStore, StoreError, StoreKey};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Sleep, sleep, timeout};

/// One attempt; 32 MiB at 1 MiB/s.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(32);
/// All attempts of one operation together; longer outages are the caller's to wait for.
const OPERATION_DEADLINE: Duration = Duration::from_secs(60);
/// First pause; doubles up to the limit below.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause, also the longest wish of a throttling store that is obeyed in full.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);
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

/// An object as it was seen: its first bytes tell it from any other that ever had this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: StoreKey,
    pub(crate) header: Bytes,
}

/// A store whose answers can be relied upon.
#[derive(Clone)]
pub(crate) struct Store {
    raw: Arc<dyn RawStore>,
    /// In bytes.
    creations: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// Answers of an opening that hurries.
    early: Option<Arc<Early>>,
    /// Whether something rare happens now.
    pub(crate) chance: Arc<dyn Chance>,
}

struct Attempts<'a> {
    operation: &'static str,
    key: &'a str,
    /// Ends at [`OPERATION_DEADLINE`].
    deadline: Pin<Box<Sleep>>,
    pause: Duration,
    count: u32,
}

impl<'a> Attempts<'a> {
    fn new(operation: &'static str, key: &'a str) -> Attempts<'a> {
        let deadline = Box::pin(sleep(OPERATION_DEADLINE));
        Attempts { operation, key, deadline, pause: PAUSE_FIRST, count: 0 }
    }

    /// Runs one attempt under its deadline; silence is an ambiguous answer.
    async fn run<T>(
        &mut self,
        call: impl std::future::Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.count += 1;
        match timeout(ATTEMPT_DEADLINE, call).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Ambiguous("no answer in time".to_owned())),
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&mut self, error: StoreError) -> Result<(), StoreFailure> {
        let wish = match &error {
            StoreError::Throttled { retry_after } => retry_after.unwrap_or(self.pause).min(PAUSE_LIMIT),
            StoreError::NoSpace | StoreError::Denied(_) => return Err(self.failure(error)),
            _ => self.pause,
        };
        self.pause = (self.pause * 2).min(PAUSE_LIMIT);
        tokio::select! {
            biased;
            () = &mut self.deadline => Err(self.failure(error)),
            () = sleep(wish) => Ok(()),
        }
    }

    fn failure(&self, last: StoreError) -> StoreFailure {
        StoreFailure { operation: self.operation, object: self.key.to_owned(), attempts: self.count, last }
    }
}

impl Store {
    pub(crate) fn new(raw: Arc<dyn RawStore>) -> Store {
        let creations = Arc::new(Semaphore::new(CREATED_BYTES_MAX));
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        Store { raw, creations, requests, early: None, chance: Arc::new(Never) }
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
                        if let Ok(Ok(found)) = timeout(ATTEMPT_DEADLINE, self.raw.get(&key, None)).await {
                            early.put(key, found);
                        }
                    }
                    Ask::List(listing) => {
                        let Listing { prefix, after, limit } = &listing;
                        let page = self.raw.list_after(prefix, after.as_ref(), *limit);
                        if let Ok(Ok(page)) = timeout(ATTEMPT_DEADLINE, page).await {
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
            let answer = attempts.run(self.raw.put_if_absent(key, body.clone())).await;
            let error = match answer {
                Ok(()) if std::mem::take(&mut is_lost) => StoreError::Ambiguous("a forced doubt".to_owned()),
                Ok(()) => return Ok(Created::Mine),
                Err(StoreError::AlreadyExists) if trust => return Ok(Created::Mine),
                Err(error) => error,
            };
            if error == StoreError::AlreadyExists {
                match attempts.run(self.raw.get(key, None)).await {
                    Ok(Some(found)) if found == *body => return Ok(Created::Mine),
                    Ok(Some(found)) => return Ok(Created::Other(found)),
                    Ok(None) | Err(_) => {}
                }
            }
            attempts.pause(error).await?;
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

    /// Deletes some objects, at most [`REQUESTS_MAX`], right after a look that found an object beginning as it was seen;
    /// tells whether it did. Each look is followed by one deletion of each; missing is fine. They have their turn
    /// before the look, so that nothing is sent long after it.
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
        let header = self.raw.get(&seen.name, Some(0..seen.header.len() as u64)).await?;
        if header.as_ref() != Some(&seen.header) && !planted::active(Bug::DeleteUnseen) {
            return Ok(false);
        }
        let deleted = futures::future::join_all(names.iter().map(|name| self.raw.delete(name))).await;
        deleted.into_iter().collect::<Result<(), StoreError>>().map(|()| true)
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
