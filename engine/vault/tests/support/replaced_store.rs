//! A store whose place an old copy takes in front of one of the requests, while it refuses and loses answers.

use async_trait::async_trait;
use bytes::Bytes;
use redoubt_ports::{RawStore, StoreAround, StoreError, StoreKey};
use redoubt_vault::MemStore;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// When what happens, in requests of whom the story is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    /// The copy is made in front of this one,
    pub(crate) copied: usize,
    /// and takes the place in front of this one.
    pub(crate) back: usize,
    /// Each creation is asked for so many times before it is performed.
    pub(crate) refused: usize,
    /// The answer of each doubtful creation is lost once.
    pub(crate) is_doubtful: bool,
}

/// What came of a story.
#[derive(Default)]
pub(crate) struct Course {
    /// Nothing happens before the story begins.
    is_on: bool,
    requests: usize,
    /// Requests that changed something, and what the test itself changed.
    pub(crate) effects: Vec<usize>,
    /// How often each creation was asked for.
    asked: BTreeMap<StoreKey, usize>,
    /// The copy, and another of it that nobody writes.
    pub(crate) old: Option<Arc<MemStore>>,
    pub(crate) as_made: Option<Arc<MemStore>>,
    /// The last request of the deletions that were on their way when the copy came, and what they took of it.
    last_deletion: usize,
    pub(crate) taken: Vec<StoreKey>,
    /// The creation that was performed in front of everything else as the copy came: nothing could be known of it.
    pub(crate) on_its_way: Option<StoreKey>,
}

/// A store whose content is another from one request on.
pub(crate) struct Replaced {
    new: Arc<MemStore>,
    story: Story,
    /// What the names of creations hold of which an answer can be lost.
    doubtful: &'static str,
    course: Mutex<Course>,
}

impl Replaced {
    pub(crate) fn new(new: &Arc<MemStore>, story: Story, doubtful: &'static str) -> Arc<Replaced> {
        Arc::new(Replaced { new: new.clone(), story, doubtful, course: Mutex::default() })
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap()
    }

    pub(crate) fn begin(&self) {
        self.course().is_on = true;
    }

    /// Counts something that others do to the store as a request; tells whether they still meet the newer vault.
    pub(crate) fn others(&self) -> bool {
        self.meet(None);
        let mut course = self.course();
        let at = course.requests;
        course.effects.push(at);
        course.old.is_none() || at < self.story.back
    }

    /// Tells whether the copy came.
    pub(crate) fn is_back(&self) -> bool {
        let course = self.course();
        course.old.is_some() && course.requests >= self.story.back
    }

    /// Ends the story.
    pub(crate) fn end(&self) -> Course {
        std::mem::take(&mut *self.course())
    }

    /// Counts a request, which creates this, and returns the store that performs it.
    fn meet(&self, creates: Option<&StoreKey>) -> Arc<MemStore> {
        let mut course = self.course();
        if !course.is_on {
            return self.new.clone();
        }
        course.requests += 1;
        if course.requests == self.story.copied {
            (course.old, course.as_made) = (Some(copy(&self.new)), Some(copy(&self.new)));
        }
        if creates.is_some() {
            let at = course.requests;
            course.effects.push(at);
        }
        if course.requests == self.story.back {
            course.on_its_way = creates.cloned();
        }
        match &course.old {
            Some(old) if course.requests >= self.story.back => old.clone(),
            _ => self.new.clone(),
        }
    }

    /// Notes a deletion that was on its way when the copy came: no look came between.
    fn note_deletion(&self, key: &StoreKey) {
        let mut course = self.course();
        let goes_on = course.last_deletion > 0 && course.last_deletion + 1 == course.requests;
        if course.requests == self.story.back || goes_on {
            course.last_deletion = course.requests;
            course.taken.push(key.clone());
        }
    }

    /// Tells how often this creation was asked for before.
    fn asked(&self, key: &StoreKey) -> usize {
        let mut course = self.course();
        if !course.is_on {
            return usize::MAX;
        }
        let times = course.asked.entry(key.clone()).or_default();
        *times += 1;
        *times - 1
    }
}

#[async_trait]
impl StoreAround for Replaced {
    fn inner(&self) -> &dyn RawStore {
        &*self.new
    }

    async fn put_if_absent(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let asked = self.asked(key);
        let is_refused = asked < self.story.refused;
        let store = self.meet((!is_refused).then_some(key));
        if is_refused {
            return Err(StoreError::Throttled { retry_after: Some(Duration::from_millis(5)) });
        }
        let answer = store.put_if_absent(key, body).await;
        if self.story.is_doubtful && asked == self.story.refused && key.as_str().contains(self.doubtful) {
            return Err(StoreError::Ambiguous("the answer is lost".to_owned()));
        }
        answer
    }

    async fn get(&self, key: &StoreKey, range: Option<Range<u64>>) -> Result<Option<Bytes>, StoreError> {
        self.meet(None).get(key, range).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.meet(None).list_after(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let store = self.meet(None);
        self.note_deletion(key);
        store.delete(key).await
    }
}

pub(crate) fn copy(of: &MemStore) -> Arc<MemStore> {
    let copy = Arc::new(MemStore::new());
    for name in of.names() {
        copy.tamper(&name, of.peek(&name));
    }
    copy
}
